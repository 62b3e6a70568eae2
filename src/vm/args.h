/* Reading the arguments of an operation: each is optional (the output keeps its value) and of the right type, or ERR_USAGE names
 * it. */
#pragma once

#include "err.h"

#include <jansson.h>

/* Every key of the object must stand in the list (NULL at its end). */
bool args_known(const json_t *args, const char *const *known, struct err *err) MUST_CHECK;
bool args_bool(const json_t *args, const char *key, bool *value, struct err *err) MUST_CHECK;
/* *value points into args. */
bool args_string(const json_t *args, const char *key, const char **value, struct err *err) MUST_CHECK;
bool args_uint(const json_t *args, const char *key, uint64_t max, uint64_t *value, struct err *err) MUST_CHECK;
/* As args_string, but it must be there. */
bool args_required(const json_t *args, const char *key, const char **value, struct err *err) MUST_CHECK;
/* An array, or NULL in *value. */
bool args_array(const json_t *args, const char *key, const json_t **value, struct err *err) MUST_CHECK;
