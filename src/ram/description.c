#include "description.h"

#include "auto.h"
#include "bytes.h"
#include "stream.h"

#include <inttypes.h>
#include <jansson.h>

#define DEPTH_MAX 32 /* of structs in structs; QEMU has 5 */

struct walk {
    const uint8_t *state;
    size_t at, end; /* end: of the EOF behind the last device */
    struct err *err;
};

#define disagree(walk, format, ...)                                                                          \
    err_set((walk)->err, ERR_CORRUPT,                                                                        \
            "the device state is not as QEMU describes it: byte %zu: " format, (walk)->at, ##__VA_ARGS__)

static bool skip(struct walk *walk, uint64_t length, const char *name)
{
    if (length > walk->end - walk->at)
        return disagree(walk, "%.64s reaches behind the end", name);
    walk->at += (size_t)length;
    return true;
}

/* The bytes that must stand next. */
static bool expect(struct walk *walk, const void *bytes, size_t length, const char *what, const char *name)
{
    if (length > walk->end - walk->at || memcmp(walk->state + walk->at, bytes, length) != 0)
        return disagree(walk, "no %s %.64s", what, name);
    walk->at += length;
    return true;
}

static bool expect_number(struct walk *walk, uint32_t number, const char *what, const char *name)
{
    uint8_t bytes[4];
    put_be32(bytes, number);
    return expect(walk, bytes, sizeof(bytes), what, name);
}

static bool expect_text(struct walk *walk, const char *text, const char *what)
{
    size_t length = strlen(text);
    const uint8_t length_byte = (uint8_t)length;
    if (length > STREAM_NAME_MAX)
        return disagree(walk, "a %s with a name of %zu bytes", what, length);
    return expect(walk, &length_byte, 1, what, text) && expect(walk, text, length, what, text);
}

/* A member that is a whole number from 0 to limit; fallback if there is none. */
static bool number_of(struct walk *walk, const json_t *object, const char *key, uint64_t limit, uint64_t fallback,
                      uint64_t *ret_number)
{
    const json_t *member = json_object_get(object, key);
    if (member && (!json_is_integer(member) || json_integer_value(member) < 0 ||
                   (uint64_t)json_integer_value(member) > limit))
        return disagree(walk, "%s is no number that can be", key);
    *ret_number = member ? (uint64_t)json_integer_value(member) : fallback;
    return true;
}

static bool text_of(struct walk *walk, const json_t *object, const char *key, const char **ret_text)
{
    *ret_text = json_string_value(json_object_get(object, key));
    return *ret_text || disagree(walk, "something described without a %s", key);
}

static bool walk_struct(struct walk *walk, const json_t *described, unsigned depth);

static bool walk_field(struct walk *walk, const json_t *field, unsigned depth)
{
    const json_t *inner = json_object_get(field, "struct");
    const char *name;
    uint64_t size, count;
    if (!text_of(walk, field, "name", &name) || !number_of(walk, field, "size", walk->end, UINT64_MAX, &size) ||
        !number_of(walk, field, "array_len", walk->end, 1, &count))
        return false;
    if (size == UINT64_MAX)
        return disagree(walk, "%.64s is described without a size", name);
    if (!inner)
        return skip(walk, size * count, name); /* each at most the state's length, of 64 MiB */
    for (uint64_t i = 0; i < count; i++) {
        size_t begin = walk->at;
        if (!walk_struct(walk, inner, depth + 1))
            return false;
        if (walk->at - begin != size)
            return disagree(walk, "%.64s takes %zu bytes, not %" PRIu64, name, walk->at - begin, size);
        if (size == 0) /* nothing will come of repeating it */
            break;
    }
    return true;
}

static bool walk_subsection(struct walk *walk, const json_t *described, unsigned depth)
{
    const uint8_t mark = STREAM_SUBSECTION;
    const char *name;
    uint64_t version;
    return text_of(walk, described, "vmsd_name", &name) &&
           number_of(walk, described, "version", UINT32_MAX, 0, &version) &&
           expect(walk, &mark, 1, "subsection", name) && expect_text(walk, name, "subsection") &&
           expect_number(walk, (uint32_t)version, "version of the subsection", name) &&
           walk_struct(walk, described, depth + 1);
}

static bool walk_struct(struct walk *walk, const json_t *described, unsigned depth)
{
    const json_t *fields = json_object_get(described, "fields");
    const json_t *subsections = json_object_get(described, "subsections");
    if (depth > DEPTH_MAX)
        return disagree(walk, "structs in more than %u structs", DEPTH_MAX);
    for (size_t i = 0; i < json_array_size(fields); i++)
        if (!walk_field(walk, json_array_get(fields, i), depth))
            return false;
    for (size_t i = 0; i < json_array_size(subsections); i++)
        if (!walk_subsection(walk, json_array_get(subsections, i), depth))
            return false;
    return true;
}

static bool walk_device(struct walk *walk, const json_t *described)
{
    const uint8_t full = STREAM_FULL, footer = STREAM_FOOTER;
    const char *name;
    uint64_t instance, version;
    if (!text_of(walk, described, "name", &name) ||
        !number_of(walk, described, "instance_id", UINT32_MAX, 0, &instance) ||
        !expect(walk, &full, 1, "section of the device", name))
        return false;
    const uint8_t *section = walk->state + walk->at;
    if (!skip(walk, 4, name) || !expect_text(walk, name, "device") ||
        !expect_number(walk, (uint32_t)instance, "instance of the device", name))
        return false;
    const uint8_t *found = walk->state + walk->at;
    if (!skip(walk, 4, name) || !number_of(walk, described, "version", UINT32_MAX, get_be32(found), &version))
        return false;
    if (version != get_be32(found))
        return disagree(walk, "version %" PRIu32 " of the device %.64s", get_be32(found), name);
    return walk_struct(walk, described, 0) && expect(walk, &footer, 1, "footer of the device", name) &&
           expect_number(walk, get_be32(section), "footer of the device", name);
}

bool description_check(const uint8_t *state, size_t length, size_t description, struct err *err)
{
    struct walk walk = {.state = state, .end = description - 6, .err = err}; /* 00 06 u32 */
    json_error_t json_err;
    json_auto_t *json = json_loadb((const char *)state + description, length - description, 0, &json_err);
    const json_t *devices = json_object_get(json, "devices");
    if (!json)
        return err_set(err, ERR_CORRUPT, "QEMU's description of the device state: %.100s", json_err.text);
    if (!json_is_array(devices))
        return err_set(err, ERR_CORRUPT, "QEMU's description of the device state names no devices");
    for (size_t i = 0; i < json_array_size(devices); i++)
        if (!walk_device(&walk, json_array_get(devices, i)))
            return false;
    return walk.at == walk.end || disagree(&walk, "more state than there are devices");
}
