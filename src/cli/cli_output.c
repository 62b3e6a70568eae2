#include "cli_output.h"

#include "cli.h"
#include "cli_text.h"

#include <ctype.h>
#include <langinfo.h>
#include <locale.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static struct {
    bool on_terminal;
    bool colored;
    bool ascii; /* the terminal's character set is not UTF-8: draw trees with ASCII */
} output;

void output_setup(void)
{
    const char *no_color = getenv("NO_COLOR");
    const char *term = getenv("TERM");

    setlocale(LC_ALL, "");
    /* Names are UTF-8 whatever the locale; widths are counted right only in a UTF-8 locale. */
    output.ascii = strcmp(nl_langinfo(CODESET), "UTF-8") != 0;
    if (output.ascii)
        setlocale(LC_CTYPE, "C.UTF-8");
    setlocale(LC_NUMERIC, "C");
    output.on_terminal = isatty(STDOUT_FILENO);
    output.colored =
        output.on_terminal && !(no_color && *no_color != '\0') && term && strcmp(term, "dumb") != 0;
}

bool output_is_colored(void)
{
    return output.colored;
}

static int not_written(void)
{
    struct err err = ERR_INIT;

    (void)err_set(&err, ERR_IO, "standard output: could not be written");
    return cli_fail(NULL, &err);
}

int output_flush(void)
{
    return fflush(stdout) == 0 ? 0 : not_written();
}

static int json_print(const char *before, const json_t *value, size_t flags, const char *behind)
{
    if (output.on_terminal)
        flags |= JSON_ENSURE_ASCII; /* what steers a terminal must not reach it */
    if (fputs(before, stdout) == EOF || (value && json_dumpf(value, stdout, flags) != 0) ||
        fputs(behind, stdout) == EOF)
        return not_written();
    return 0;
}

int output_json(const json_t *value)
{
    return json_print("", value, JSON_INDENT(2) | JSON_REAL_PRECISION(9), "\n");
}

int output_json_begin(void)
{
    return json_print("[", NULL, 0, "");
}

int output_json_row(const json_t *row, bool is_first)
{
    struct err err = ERR_INIT;

    if (row)
        return json_print(is_first ? "\n  " : ",\n  ", row, 0, "");
    (void)err_oom(&err);
    return cli_fail(NULL, &err);
}

int output_json_end(void)
{
    return json_print("\n]", NULL, 0, "\n");
}

int output_plan(const json_t *plan)
{
    size_t i;
    json_t *step;

    text_print(stdout, json_text(plan, "summary"), TEXT_ONE_LINE);
    putchar('\n');
    json_array_foreach (json_object_get(plan, "steps"), i, step) {
        const char *path = json_text(step, "path");
        const char *from = json_text(step, "from");
        printf("%3zu. %s", i + 1, json_text(step, "step"));
        if (*path != '\0') {
            putchar(' ');
            text_print(stdout, path, TEXT_ONE_LINE);
        }
        if (*from != '\0') {
            fputs(" from ", stdout);
            text_print(stdout, from, TEXT_ONE_LINE);
        }
        putchar('\n');
    }
    return 0;
}

const char *json_text(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "";
}

json_t *json_from_text(const char *text)
{
    if (!text)
        return json_null();
    json_t *value = json_string(text);
    if (value)
        return value;
    AUTO_FREE char *escaped = text_escape(text, TEXT_LINES);
    return escaped ? json_string(escaped) : NULL;
}

char *time_local(int64_t since_1970_ms, char text[static 32])
{
    time_t seconds = (time_t)(since_1970_ms / 1000);
    struct tm parts;

    if (!localtime_r(&seconds, &parts) || strftime(text, 32, "%Y-%m-%d %H:%M:%S", &parts) == 0)
        strcpy(text, "?");
    return text;
}

char *time_rfc3339(int64_t since_1970_ms, char text[static 32])
{
    int64_t milliseconds = since_1970_ms % 1000;
    time_t seconds = (time_t)(since_1970_ms / 1000);
    struct tm parts;
    char whole[24];

    if (milliseconds < 0) {
        milliseconds += 1000;
        seconds--;
    }
    if (!gmtime_r(&seconds, &parts) || strftime(whole, sizeof whole, "%Y-%m-%dT%H:%M:%S", &parts) == 0)
        strcpy(whole, "1970-01-01T00:00:00");
    snprintf(text, 32, "%s.%03dZ", whole, (int)milliseconds);
    return text;
}

char *time_local_json(const char *rfc3339, char text[static 32])
{
    struct tm tm = {0};

    text[0] = '\0';
    return strptime(rfc3339, "%Y-%m-%dT%H:%M:%S", &tm) ? time_local((int64_t)timegm(&tm) * 1000, text) : text;
}

char *guid_short(const char *guid, char text[static 9])
{
    snprintf(text, 9, "%s", guid);
    return text;
}

const char *state_color(const char *state)
{
    if (!output.colored)
        return NULL;
    if (strcmp(state, "running") == 0)
        return "green";
    if (strcmp(state, "paused") == 0 || strcmp(state, "saved") == 0)
        return "yellow";
    if (strncmp(state, "paused: ", 8) == 0 || strncmp(state, "off: ", 5) == 0) /* and why, not by its user's will */
        return "red";
    if (strcmp(state, "unmanaged") == 0 || strcmp(state, "damaged") == 0)
        return "red";
    return NULL;
}

struct libscols_table *table_new(const struct output_column *columns, size_t count)
{
    struct libscols_table *table = scols_new_table();
    bool made = table != NULL;

    for (size_t i = 0; made && i < count; i++)
        made = scols_table_new_column(table, columns[i].name, 0, columns[i].flags) != NULL;
    if (!made) {
        scols_unref_table(table);
        return NULL;
    }
    scols_table_enable_colors(table, output.colored);
    scols_table_enable_ascii(table, output.ascii);
    scols_table_enable_noencoding(table, 1); /* table_set() has escaped, and more than scols would */
    scols_table_set_termforce(table, SCOLS_TERMFORCE_NEVER);
    return table;
}

bool table_set(struct libscols_line *line, size_t column, const char *text)
{
    AUTO_FREE char *escaped = text_escape(text, TEXT_ONE_LINE);

    return escaped && scols_line_set_data(line, column, escaped) == 0;
}

int table_print(struct libscols_table *table)
{
    struct err err = ERR_INIT;

    fflush(stdout);
    if (table && scols_print_table(table) == 0)
        return 0;
    (void)err_set(&err, ERR_NO_MEMORY, "out of memory for the table");
    return cli_fail(NULL, &err);
}

int table_print_rows(const struct output_column *columns, size_t count, const json_t *rows, table_fill_fn *fill)
{
    AUTO_TABLE struct libscols_table *table = table_new(columns, count);
    bool filled = table != NULL;
    size_t i;
    const json_t *row;

    json_array_foreach (rows, i, row) {
        struct libscols_line *line = filled ? scols_table_new_line(table, NULL) : NULL;
        filled = line && fill(line, row);
    }
    return i > 0 ? table_print(filled ? table : NULL) : 0;
}

bool can_ask(void)
{
    return isatty(STDIN_FILENO) && isatty(STDERR_FILENO);
}

/* The answer that a line is, or false: it is none. */
static bool answer_parse(const char *line, bool with_cancel, enum answer *ret_answer)
{
    static const char LETTERS[] = {[ANSWER_NO] = 'n', [ANSWER_YES] = 'y', [ANSWER_CANCEL] = 'c'};
    size_t known = with_cancel ? ARRAY_SIZE(LETTERS) : ARRAY_SIZE(LETTERS) - 1;
    char first = (char)tolower((unsigned char)line[0]);

    for (size_t i = 0; i < known; i++)
        if (first == LETTERS[i] || (first == '\n' && i == ANSWER_NO)) {
            *ret_answer = (enum answer)i;
            return true;
        }
    return false;
}

__attribute__((format(printf, 2, 0))) static enum answer ask_with(bool with_cancel, const char *format, va_list args)
{
    AUTO_FREE char *line = NULL;
    enum answer answer;
    size_t capacity = 0;
    char text[512];

    vsnprintf(text, sizeof text, format, args);
    fflush(stdout);
    do {
        text_print(stderr, text, TEXT_ONE_LINE);
        fflush(stderr);
        if (getline(&line, &capacity, stdin) < 0) {
            fputc('\n', stderr);
            return with_cancel ? ANSWER_CANCEL : ANSWER_NO; /* the end of the input is no consent */
        }
    } while (!answer_parse(line, with_cancel, &answer));
    return answer;
}

enum answer ask(bool with_cancel, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    enum answer answer = ask_with(with_cancel, format, args);
    va_end(args);
    return answer;
}

bool confirmed(bool is_sure, const char *format, ...)
{
    va_list args;

    if (is_sure || !can_ask())
        return true;
    va_start(args, format);
    enum answer answer = ask_with(/* with_cancel= */ false, format, args);
    va_end(args);
    return answer == ANSWER_YES;
}
