/* What commands print: JSON for programs, tables and lines for people, and questions. */
#pragma once

#include "auto.h"
#include "err.h"

#include <jansson.h>
#include <libsmartcols/libsmartcols.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Before anything else: the locale, and whether there may be colours (a terminal, no NO_COLOR, no TERM=dumb).
 */
void output_setup(void);
bool output_is_colored(void);

/* A JSON document on standard output. Takes nothing. */
int output_json(const json_t *value);
/* The same for a list of rows that is printed row by row: begin, each row, end. They return the exit status. */
int output_json_begin(void);
int output_json_row(const json_t *row, bool is_first);
int output_json_end(void);
/* What was printed has left this process, for commands that go on afterwards. Returns the exit status. */
int output_flush(void);
/* The plan of a dry run ({"summary", "steps"}) as a numbered list. */
int output_plan(const json_t *plan);

/* A string of the object, or "" where there is none. Borrowed. */
const char *json_text(const json_t *object, const char *key);
/* A string; bytes that are no UTF-8 are escaped. NULL becomes null. A new reference, NULL when out of memory.
 */
json_t *json_from_text(const char *text);
/* Local time for people ("2026-03-01 14:05:09"), UTC by RFC 3339 for programs. text holds at least 32 bytes.
 */
char *time_local(int64_t since_1970_ms, char text[static 32]);
char *time_rfc3339(int64_t since_1970_ms, char text[static 32]);
/* The first of them from the second; "" for another text. */
char *time_local_json(const char *rfc3339, char text[static 32]);
/* The first eight characters of a GUID: enough to choose by, and to see. text holds 9 bytes. */
char *guid_short(const char *guid, char text[static 9]);
/* The escape sequence's name for a state ("green", ...); NULL where there is no colour. For scols and lines.
 */
const char *state_color(const char *state);

struct output_column {
    const char *name;
    int flags; /* SCOLS_FL_... */
};
/* A table that cuts nothing off and escapes what it is given by table_set(). NULL when out of memory;
 * free by scols_unref_table(). */
struct libscols_table *table_new(const struct output_column *columns, size_t count);
AUTO_DEFINE(auto_table_unref, struct libscols_table, scols_unref_table)
#define AUTO_TABLE AUTO(auto_table_unref)
bool table_set(struct libscols_line *line, size_t column, const char *text);
/* Returns the exit status. NULL: it could not be filled for want of memory. */
int table_print(struct libscols_table *table);
/* A table with a line for each of the array's rows, which fill fills; nothing at all where there are none. */
typedef bool table_fill_fn(struct libscols_line *line, const json_t *row);
int table_print_rows(const struct output_column *columns, size_t count, const json_t *rows, table_fill_fn *fill);

enum answer { ANSWER_NO, ANSWER_YES, ANSWER_CANCEL };
/* Is there somebody to ask: are standard input and standard error terminals? */
bool can_ask(void);
/* Asks on standard error, e.g. "Go on? [y/N] ", and reads lines until one is an answer: y, n, an empty line
 * (no), or c where with_cancel. At the end of the input the answer is the one that does nothing. */
enum answer ask(bool with_cancel, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* May it be done? Asked only where it is not sure yet, and there is somebody to ask. */
bool confirmed(bool is_sure, const char *format, ...) __attribute__((format(printf, 2, 3)));
