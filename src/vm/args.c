#include "args.h"

#include <inttypes.h>
#include <string.h>

bool args_known(const json_t *args, const char *const *known, struct err *err)
{
    const char *key;
    json_t *value;

    if (!args)
        return true;
    if (!json_is_object(args))
        return err_set(err, ERR_USAGE, "the arguments are no object");
    json_object_foreach((json_t *)args, key, value)
    {
        const char *const *k = known;
        while (*k && strcmp(*k, key) != 0)
            k++;
        if (!*k)
            return err_set(err, ERR_USAGE, "unknown argument '%.100s'", key);
    }
    return true;
}

bool args_bool(const json_t *args, const char *key, bool *value, struct err *err)
{
    const json_t *json = json_object_get(args, key);

    if (!json || json_is_null(json))
        return true;
    if (!json_is_boolean(json))
        return err_set(err, ERR_USAGE, "argument '%s' must be true or false", key);
    *value = json_is_true(json);
    return true;
}

bool args_string(const json_t *args, const char *key, const char **value, struct err *err)
{
    const json_t *json = json_object_get(args, key);

    if (!json || json_is_null(json))
        return true;
    if (!json_is_string(json))
        return err_set(err, ERR_USAGE, "argument '%s' must be text", key);
    if (json_string_length(json) != strlen(json_string_value(json)))
        return err_set(err, ERR_USAGE, "argument '%s' holds a NUL character", key);
    *value = json_string_value(json);
    return true;
}

bool args_uint(const json_t *args, const char *key, uint64_t max, uint64_t *value, struct err *err)
{
    const json_t *json = json_object_get(args, key);

    if (!json || json_is_null(json))
        return true;
    if (!json_is_integer(json) || json_integer_value(json) < 0 || (uint64_t)json_integer_value(json) > max)
        return err_set(err, ERR_USAGE, "argument '%s' must be a number from 0 to %" PRIu64, key, max);
    *value = (uint64_t)json_integer_value(json);
    return true;
}

bool args_required(const json_t *args, const char *key, const char **value, struct err *err)
{
    const char *found = NULL;

    if (!args_string(args, key, &found, err))
        return false;
    if (!found)
        return err_set(err, ERR_USAGE, "argument '%s' is missing", key);
    *value = found;
    return true;
}

bool args_array(const json_t *args, const char *key, const json_t **value, struct err *err)
{
    const json_t *json = json_object_get(args, key);

    *value = NULL;
    if (!json || json_is_null(json))
        return true;
    if (!json_is_array(json))
        return err_set(err, ERR_USAGE, "argument '%s' must be a list", key);
    *value = json;
    return true;
}
