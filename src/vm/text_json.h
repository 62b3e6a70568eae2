/* Text from outside, of any bytes (a path, a message), as a JSON string. */
#pragma once

#include <jansson.h>

/* What is no UTF-8 is escaped. A new reference, NULL when out of memory. */
json_t *text_json(const char *text);
