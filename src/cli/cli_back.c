#include "cli_back.h"

#include "cli_text.h"

#include <stdio.h>

enum answer back_ask(const char *vm_name, bool with_snapshot)
{
    if (!can_ask())
        return ANSWER_NO;
    if (with_snapshot)
        return ask(/* with_cancel= */ true,
                   "The present state of %s will be lost. Take a snapshot of it first? [y/N/cancel] ",
                   vm_name);
    return ask(/* with_cancel= */ false, "The present state of %s will be lost. Go on? [y/N] ", vm_name) ==
                   ANSWER_YES
               ? ANSWER_NO
               : ANSWER_CANCEL;
}

void back_print(const char *vm_name, const json_t *value)
{
    const json_t *first = json_object_get(value, "first");
    const json_t *running_us = json_object_get(value, "running_us");

    text_print(stdout, vm_name, TEXT_ONE_LINE);
    fputs(": ", stdout);
    text_print(stdout, json_text(value, "state"), TEXT_ONE_LINE);
    if (json_is_integer(running_us))
        printf(" after %.3f s", (double)json_integer_value(running_us) / 1e6);
    if (json_is_object(first)) {
        fputs("; the state before it is '", stdout);
        text_print(stdout, json_text(first, "name"), TEXT_ONE_LINE);
        printf("', %s", json_text(first, "guid"));
    }
    putchar('\n');
}
