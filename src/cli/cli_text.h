/* Text from files, guests and command lines, made fit for a terminal. */
#pragma once

#include <stdio.h>

enum text_form {
    TEXT_ONE_LINE, /* line feeds and tabs are escaped too */
    TEXT_LINES,    /* line feeds and tabs stay */
};

/* The text with control characters, bytes that are no UTF-8, and characters that turn the direction of
 * writing as
 * `\x1b` or `\u202e`, so that it can neither drive the terminal nor look like another. Owned; NULL when out
 * of memory. */
char *text_escape(const char *text, enum text_form form);
void text_print(FILE *stream, const char *text, enum text_form form);
