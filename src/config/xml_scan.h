/* XML text, looked over before the library sees it. */
#pragma once

#include "err.h"

#include <stddef.h>

#define XML_SCAN_MAX_DEPTH     64U
#define XML_SCAN_MAX_ELEMENTS  (1U << 20)
#define XML_SCAN_MAX_TAG_BYTES 4096U

/* Refuses a document type (no entities can be declared then), and more depth, elements, or attributes in a
 * tag than any file of ours has: a parser's cost can grow with their square, and a tree's with their number.
 * text is UTF-8 and need not be well-formed; ERR_CORRUPT. */
bool xml_scan(const char *text, size_t length, struct err *err) MUST_CHECK;
