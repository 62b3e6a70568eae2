#include "text_json.h"

#include "err.h"

json_t *text_json(const char *text)
{
    json_t *value = json_string(text);
    struct err foreign;
    char clean[sizeof foreign.text];

    if (value)
        return value;
    err_set_text(&foreign, ERR_CORRUPT, 0, "%s", text);
    err_text_utf8(&foreign, clean);
    return json_string(clean);
}
