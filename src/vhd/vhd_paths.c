#include "vhd_paths.h"

#include "auto.h"
#include "file.h"
#include "utf16.h"

#include <ctype.h>
#include <string.h>

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)tolower((unsigned char)c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* `file://host/path` and `file://./path` to the path, in place, with its %XX decoded. */
static void url_to_path(char *text)
{
    const char *from = text;
    char *to = text;

    if (strncmp(from, "file://", 7) == 0)
        from += 7;
    if (strncmp(from, "localhost/", 10) == 0)
        from += 9;
    while (*from != '\0') {
        int high = from[0] == '%' ? hex_digit(from[1]) : -1;
        int low = high >= 0 ? hex_digit(from[2]) : -1;
        if (low >= 0 && (high | low) != 0) {
            *to++ = (char)(high << 4 | low);
            from += 3;
        } else {
            *to++ = *from++;
        }
    }
    *to = '\0';
}

/* What the data says, with `/` between the parts; NULL text for a platform that is not read. */
static bool decode_text(uint32_t platform, const uint8_t *data, size_t length, char **ret_text,
                        struct err *err)
{
    AUTO_FREE char *text = NULL;

    switch (platform) {
    case VHD_PLATFORM_W2RU:
    case VHD_PLATFORM_W2KU:
        text = utf16_decode(data, length, UTF16_LE);
        break;
    case VHD_PLATFORM_NONE:
        text = utf16_decode(data, length, UTF16_BE);
        break;
    case VHD_PLATFORM_WI2R:
    case VHD_PLATFORM_WI2K:
    case VHD_PLATFORM_MACX:
        text = strndup((const char *)data, length);
        break;
    default:
        *ret_text = NULL;
        return true;
    }
    if (!text)
        return err_oom(err);
    if (platform == VHD_PLATFORM_MACX)
        url_to_path(text);
    else
        for (char *p = strchr(text, '\\'); p; p = strchr(p, '\\'))
            *p = '/';
    *ret_text = TAKE(text);
    return true;
}

static bool has_drive(const char *text)
{
    return isalpha((unsigned char)text[0]) && text[1] == ':';
}

static bool inside(const char *dir, const char *text, char **ret_path, struct err *err)
{
    AUTO_FREE char *joined = text[0] == '/' ? strdup(text) : path_join(dir, text);
    char *clean = joined ? path_absolute(joined) : NULL;

    if (!clean)
        return err_oom(err);
    *ret_path = clean;
    return true;
}

bool vhd_path_decode(uint32_t platform, const uint8_t *data, size_t length, const char *dir, char **ret_path,
                     struct err *err)
{
    AUTO_FREE char *text = NULL;

    if (!decode_text(platform, data, length, &text, err))
        return false;
    if (!text || text[0] == '\0' || has_drive(text)) {
        *ret_path = NULL;
        return true;
    }
    return inside(dir, text, ret_path, err);
}

bool vhd_path_beside(uint32_t platform, const uint8_t *data, size_t length, const char *dir, char **ret_path,
                     struct err *err)
{
    AUTO_FREE char *text = NULL;

    if (!decode_text(platform, data, length, &text, err))
        return false;
    const char *name = text ? path_base(text) : "";
    if (has_drive(name))
        name += 2;
    if (name[0] == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        *ret_path = NULL;
        return true;
    }
    return inside(dir, name, ret_path, err);
}

bool vhd_path_encode(uint32_t platform, const char *path, const char *dir, struct vhd_path_data *ret_data,
                     struct err *err)
{
    AUTO_FREE char *relative = platform == VHD_PLATFORM_W2RU ? path_relative(dir, path) : NULL;
    AUTO_FREE char *text = !relative                          ? strdup(path)
                           : strncmp(relative, "../", 3) == 0 ? strdup(relative)
                                                              : string_printf("./%s", relative);
    size_t capacity = text ? 2 * strlen(text) : 0;
    AUTO_FREE uint8_t *bytes = malloc(capacity + 1);

    if (!text || !bytes || (platform == VHD_PLATFORM_W2RU && !relative))
        return err_oom(err);
    if (strchr(text, '\\'))
        return err_set(err, ERR_INVALID, "%s: a parent's path cannot hold `\\`", path);
    for (char *p = strchr(text, '/'); p; p = strchr(p, '/'))
        *p = '\\';
    size_t length;
    if (!utf16_encode(text, UTF16_LE, bytes, capacity, &length))
        return err_set(err, ERR_INVALID, "%s: a parent's path must be UTF-8", path);
    *ret_data = (struct vhd_path_data){.bytes = TAKE(bytes), .length = length};
    return true;
}
