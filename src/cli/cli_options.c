#include "cli_options.h"

#include "bytes.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OPTIONS_MAX 24
#define HELP_CODE   1 /* getopt_long()'s answer for --help; options answer OPTION_CODE + index */
#define OPTION_CODE 256

static bool is_verbose(const struct cli_option *option)
{
    return strcmp(option->name, CLI_VERBOSE_NAME) == 0;
}

/* What getopt_long() would have answered for the long name, or '?'. */
static int letter_resolve(const struct cli_syntax *syntax, int answer)
{
    for (size_t i = 0; answer == 'v' && i < syntax->option_count; i++)
        if (is_verbose(&syntax->options[i]))
            return OPTION_CODE + (int)i;
    optopt = answer == 'v' ? 'v' : optopt;
    return answer == 'v' ? '?' : answer;
}

static void help_print(const struct cli_syntax *syntax)
{
    const char *summary = cli_command()->summary;
    size_t length = cli_summary_length(cli_command());

    cli_usage_print(stdout);
    printf("\n%c%.*s.\n", toupper((unsigned char)summary[0]), (int)length - 1, summary + 1);
    if (summary[length] != '\0')
        printf("%s\n", summary + length + 1);
    if (syntax->option_count > 0)
        printf("\n");
    for (size_t i = 0; i < syntax->option_count; i++) {
        const struct cli_option *option = &syntax->options[i];
        char left[64];
        snprintf(left, sizeof left, "--%s%s%s%s", option->name, option->value ? " " : "",
                 option->value ? option->value : "", is_verbose(option) ? ", -v" : "");
        printf("  %-26s %s\n", left, option->help);
    }
}

static bool number_parse(const char *text, uint64_t *ret_number)
{
    char *end;

    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0')
        return false;
    *ret_number = number;
    return true;
}

/* True, or the exit status of a wrong value. */
static bool value_set(const struct cli_option *option, void *values, const char *text, int *ret_status)
{
    char *value = (char *)values + option->offset;
    struct cli_list *list = (struct cli_list *)(void *)value;

    switch (option->kind) {
    case CLI_FLAG:
        *(bool *)(void *)value = true;
        return true;
    case CLI_TEXT:
        *(const char **)(void *)value = text;
        return true;
    case CLI_NUMBER:
        if (number_parse(text, (uint64_t *)(void *)value))
            return true;
        *ret_status = cli_usage_error("--%s: '%s' is no number", option->name, text);
        return false;
    case CLI_SIZE:
        if (size_parse(text, (uint64_t *)(void *)value))
            return true;
        *ret_status = cli_usage_error("--%s: '%s' is no size (such as 512M or 2G)", option->name, text);
        return false;
    case CLI_LIST:
        if (list->count < CLI_LIST_MAX) {
            list->items[list->count++] = text;
            return true;
        }
        *ret_status = cli_usage_error("--%s: given more than %d times", option->name, CLI_LIST_MAX);
        return false;
    }
    return true;
}

static void long_options_fill(const struct cli_syntax *syntax, struct option long_options[OPTIONS_MAX + 2])
{
    size_t i;

    if (syntax->option_count > OPTIONS_MAX)
        abort();
    for (i = 0; i < syntax->option_count; i++)
        long_options[i] = (struct option){
            .name = syntax->options[i].name,
            .has_arg = syntax->options[i].kind == CLI_FLAG ? no_argument : required_argument,
            .val = OPTION_CODE + (int)i,
        };
    long_options[i++] = (struct option){.name = "help", .has_arg = no_argument, .val = HELP_CODE};
    long_options[i] = (struct option){0};
}

static int wrong_option(int answer, char **argv)
{
    /* For a long option optopt is its code (or 0 if unknown), for a short one its letter. */
    const char *given = argv[optind - 1];

    if (answer == ':')
        return cli_usage_error("%s needs a value", given);
    if (optopt > 0 && optopt < OPTION_CODE && optopt != HELP_CODE)
        return cli_usage_error("unknown option '-%c'", optopt);
    if (optopt != 0)
        return cli_usage_error("%s takes no value", given);
    return cli_usage_error("unknown option '%s'", given);
}

static bool operands_check(const struct cli_syntax *syntax, int count, char **operands, int *ret_status)
{
    if (count < syntax->operands_min) {
        *ret_status = cli_usage_error("too few arguments");
        return false;
    }
    if (syntax->operands_max >= 0 && count > syntax->operands_max) {
        *ret_status = cli_usage_error("'%s' is one too many", operands[syntax->operands_max]);
        return false;
    }
    return true;
}

bool cli_parse(const struct cli_syntax *syntax, int argc, char **argv, void *values,
               struct cli_operands *ret_operands, int *ret_status)
{
    struct option long_options[OPTIONS_MAX + 2];
    int answer;

    long_options_fill(syntax, long_options);
    optind = 0; /* glibc: begin anew */
    while ((answer = getopt_long(argc, argv, ":hv", long_options, NULL)) != -1) {
        answer = letter_resolve(syntax, answer);
        if (answer == HELP_CODE || answer == 'h') {
            help_print(syntax);
            *ret_status = 0;
            return false;
        }
        if (answer < OPTION_CODE) {
            *ret_status = wrong_option(answer, argv);
            return false;
        }
        if (!value_set(&syntax->options[answer - OPTION_CODE], values, optarg, ret_status))
            return false;
    }
    if (!operands_check(syntax, argc - optind, argv + optind, ret_status))
        return false;
    *ret_operands = (struct cli_operands){.items = argv + optind, .count = argc - optind};
    return true;
}
