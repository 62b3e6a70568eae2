#include "guid.h"

#include <string.h>
#include <strings.h>
#include <uuid.h>

struct guid guid_new(void)
{
    struct guid guid;
    uuid_t bytes;

    uuid_generate_random(bytes);
    uuid_unparse_upper(bytes, guid.text);
    return guid;
}

bool guid_parse(const char *text, struct guid *ret_guid)
{
    uuid_t bytes;

    if (strlen(text) != GUID_LENGTH || uuid_parse(text, bytes) != 0)
        return false;
    uuid_unparse_upper(bytes, ret_guid->text);
    return true;
}

bool guid_equal(const struct guid *a, const struct guid *b)
{
    return strcasecmp(a->text, b->text) == 0;
}

bool guid_has_prefix(const struct guid *guid, const char *prefix)
{
    return strncasecmp(guid->text, prefix, strlen(prefix)) == 0;
}

void guid_new_bytes(unsigned char bytes[static 16])
{
    uuid_generate_random(bytes);
}
