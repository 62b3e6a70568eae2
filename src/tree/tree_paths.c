/* The names of a VM's files. */
#include "tree_private.h"

#include "file.h"

#include <string.h>
#include <strings.h>

/* A file name has at most 255 bytes; "_", a GUID and ".avhd" come behind the stem. */
#define STEM_MAX_BYTES 200

char *tree_vm_xml_path(const struct tree *tree)
{
    return string_printf("%s/Virtual Machines/%s.xml", tree->vm_dir, tree->vm->guid.text);
}

char *tree_vm_state_dir(const struct tree *tree)
{
    return string_printf("%s/Virtual Machines/%s", tree->vm_dir, tree->vm->guid.text);
}

char *tree_snapshots_dir(const struct tree *tree)
{
    return string_printf("%s/Snapshots", tree->vm_dir);
}

char *tree_layers_dir(const struct tree *tree)
{
    return string_printf("%s/Snapshots/%s", tree->vm_dir, tree->vm->guid.text);
}

char *tree_snapshot_xml_path(const struct tree *tree, const struct guid *snapshot)
{
    return string_printf("%s/Snapshots/%s.xml", tree->vm_dir, snapshot->text);
}

char *tree_snapshot_dir(const struct tree *tree, const struct guid *snapshot)
{
    return string_printf("%s/Snapshots/%s", tree->vm_dir, snapshot->text);
}

char *tree_state_path(const char *dir, const struct guid *guid, const char *suffix)
{
    return string_printf("%s/%s%s", dir, guid->text, suffix);
}

static bool ends_with(const char *name, size_t length, const char *end)
{
    size_t end_length = strlen(end);

    return length >= end_length && strncasecmp(name + length - end_length, end, end_length) == 0;
}

/* Is there `_` and a GUID at the end of the name? */
static bool ends_with_guid(const char *name, size_t length)
{
    struct guid guid;
    char text[GUID_LENGTH + 1];

    if (length < GUID_LENGTH + 1 || name[length - GUID_LENGTH - 1] != '_')
        return false;
    memcpy(text, name + length - GUID_LENGTH, GUID_LENGTH);
    text[GUID_LENGTH] = '\0';
    return guid_parse(text, &guid);
}

const char *layer_stem(const char *path, size_t *ret_length)
{
    static const char *const ENDS[] = {".avhd", ".vhdx", ".vhd"};
    const char *name = path_base(path);
    size_t length = strlen(name);

    for (size_t i = 0; i < ARRAY_SIZE(ENDS); i++) {
        if (!ends_with(name, length, ENDS[i]))
            continue;
        length -= strlen(ENDS[i]);
        break;
    }
    while (ends_with_guid(name, length))
        length -= GUID_LENGTH + 1;
    if (length > STEM_MAX_BYTES) {
        length = STEM_MAX_BYTES;
        while ((name[length] & 0xC0) == 0x80) /* not in the middle of a character */
            length--;
    }
    *ret_length = length;
    return name;
}

bool tree_same_stem(const char *path, const char *other)
{
    size_t length, other_length;
    const char *stem = layer_stem(path, &length), *other_stem = layer_stem(other, &other_length);

    return length == other_length && memcmp(stem, other_stem, length) == 0;
}

char *tree_layer_path(const struct tree *tree, const char *parent, const struct guid *guid)
{
    size_t length;
    const char *stem = layer_stem(parent, &length);

    if (length == 0) {
        stem = "disk";
        length = strlen(stem);
    }
    return string_printf("%s/Snapshots/%s/%.*s_%s.avhd", tree->vm_dir, tree->vm->guid.text, (int)length, stem,
                         guid->text);
}

bool tree_is_layer(const struct tree *tree, const char *path)
{
    AUTO_FREE char *dir = tree_layers_dir(tree);
    const char *name = path_base(path);
    size_t length = strlen(name);

    if (!dir || !path_is_inside(path, dir) || strlen(dir) + 1 != (size_t)(name - path))
        return false;
    return ends_with(name, length, ".avhd") && length > 5 + GUID_LENGTH + 1 &&
           ends_with_guid(name, length - 5);
}
