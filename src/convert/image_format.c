#include "image_format.h"

#include "bytes.h"
#include "file.h"

#include <strings.h>

#define FOOTER_BYTES 512U
#define COOKIE_BYTES 8U

#define SOURCES "vhd, raw, qcow2, vmdk, vdi or vhdx"
#define TARGETS "dynamic, fixed, raw, qcow2, vmdk, vdi or vhdx"

enum use { SOURCE = 1, TARGET = 2 };

static const struct {
    enum image_format format;
    const char *name;
    unsigned uses;
} FORMATS[] = {
    {IMAGE_VHD, "vhd", SOURCE},
    {IMAGE_DYNAMIC, "dynamic", TARGET},
    {IMAGE_FIXED, "fixed", TARGET},
    {IMAGE_RAW, "raw", SOURCE | TARGET},
    {IMAGE_QCOW2, "qcow2", SOURCE | TARGET},
    {IMAGE_VMDK, "vmdk", SOURCE | TARGET},
    {IMAGE_VDI, "vdi", SOURCE | TARGET},
    {IMAGE_VHDX, "vhdx", SOURCE | TARGET},
};

static const struct {
    const char *suffix;
    enum image_format source, target;
} SUFFIXES[] = {
    {".vhd", IMAGE_VHD, IMAGE_DYNAMIC},   {".avhd", IMAGE_VHD, IMAGE_UNKNOWN},
    {".raw", IMAGE_RAW, IMAGE_RAW},       {".img", IMAGE_UNKNOWN, IMAGE_RAW},
    {".qcow2", IMAGE_QCOW2, IMAGE_QCOW2}, {".vmdk", IMAGE_VMDK, IMAGE_VMDK},
    {".vdi", IMAGE_VDI, IMAGE_VDI},       {".vhdx", IMAGE_VHDX, IMAGE_VHDX},
};

const char *image_format_name(enum image_format format)
{
    for (size_t i = 0; i < ARRAY_SIZE(FORMATS); i++)
        if (FORMATS[i].format == format)
            return FORMATS[i].name;
    return "unknown";
}

bool image_format_is_foreign(enum image_format format)
{
    return format >= IMAGE_QCOW2;
}

static enum image_format by_name(const char *name, enum use use)
{
    for (size_t i = 0; i < ARRAY_SIZE(FORMATS); i++)
        if (FORMATS[i].uses & use && strcmp(FORMATS[i].name, name) == 0)
            return FORMATS[i].format;
    return IMAGE_UNKNOWN;
}

enum image_format image_source_by_name(const char *name)
{
    return by_name(name, SOURCE);
}

enum image_format image_target_by_name(const char *name)
{
    return by_name(name, TARGET);
}

const char *image_source_names(void)
{
    return SOURCES;
}

const char *image_target_names(void)
{
    return TARGETS;
}

static enum image_format of_path(const char *path, enum use use)
{
    const char *suffix = strrchr(path_base(path), '.');

    for (size_t i = 0; suffix && i < ARRAY_SIZE(SUFFIXES); i++)
        if (strcasecmp(SUFFIXES[i].suffix, suffix) == 0)
            return use == SOURCE ? SUFFIXES[i].source : SUFFIXES[i].target;
    return IMAGE_UNKNOWN;
}

enum image_format image_source_of_path(const char *path)
{
    return of_path(path, SOURCE);
}

enum image_format image_target_of_path(const char *path)
{
    return of_path(path, TARGET);
}

/* --- by content --- */

/* Some are known only so that they are not taken for raw. */
static const struct {
    enum image_format format;
    size_t offset, length;
    const char *bytes;
    const char *not_converted; /* its name */
} MAGICS[] = {
    {IMAGE_VHD, 0, COOKIE_BYTES, "conectix", NULL},
    {IMAGE_QCOW2, 0, 8, "QFI\xfb\0\0\0\2", NULL},
    {IMAGE_QCOW2, 0, 8, "QFI\xfb\0\0\0\3", NULL},
    {IMAGE_VMDK, 0, 4, "KDMV", NULL},
    {IMAGE_VMDK, 0, 4, "COWD", NULL},
    {IMAGE_VMDK, 0, 21, "# Disk DescriptorFile", NULL},
    {IMAGE_VDI, 64, 4, "\x7f\x10\xda\xbe", NULL},
    {IMAGE_VHDX, 0, 8, "vhdxfile", NULL},
    {IMAGE_UNKNOWN, 0, 4, "QFI\xfb", "qcow"},
    {IMAGE_UNKNOWN, 0, 4, "QED\0", "QED"},
    {IMAGE_UNKNOWN, 0, 16, "WithoutFreeSpace", "Parallels"},
    {IMAGE_UNKNOWN, 0, 16, "WithouFreSpacExt", "Parallels"},
};

static bool by_magic(const char *path, const uint8_t *head, size_t length, enum image_format *ret_format,
                     struct err *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(MAGICS); i++) {
        if (MAGICS[i].offset + MAGICS[i].length > length ||
            memcmp(head + MAGICS[i].offset, MAGICS[i].bytes, MAGICS[i].length) != 0)
            continue;
        if (MAGICS[i].not_converted)
            return err_set(err, ERR_UNSUPPORTED,
                           "%s: is a %s image; qemu-img can make a qcow2 of it, and that can be converted",
                           path, MAGICS[i].not_converted);
        *ret_format = MAGICS[i].format;
        return true;
    }
    *ret_format = IMAGE_UNKNOWN;
    return true;
}

/* A fixed VHD has its footer only at the end, of 512 bytes or, by old writers, 511. */
static bool has_footer(struct io_file *file, uint64_t size_bytes, bool *ret_has, struct err *err)
{
    uint8_t tail[FOOTER_BYTES];

    *ret_has = false;
    if (size_bytes < sizeof tail)
        return true;
    if (!io_read(file, size_bytes - sizeof tail, tail, sizeof tail, err))
        return false;
    *ret_has = memcmp(tail, "conectix", COOKIE_BYTES) == 0 || memcmp(tail + 1, "conectix", COOKIE_BYTES) == 0;
    return true;
}

/* A guest can write what looks like another format to the start or the end of its disk: a file named `.raw`
 * is raw whatever it holds, and where both ends tell of a format the name decides. */
static bool judge(const char *path, enum image_format by_head, bool has_footer, enum image_format *ret_format,
                  struct err *err)
{
    enum image_format promised = image_source_of_path(path);
    enum image_format found = has_footer ? IMAGE_VHD : by_head;

    if (has_footer && image_format_is_foreign(by_head)) {
        if (promised != IMAGE_VHD && promised != IMAGE_RAW && promised != by_head)
            return err_set(err, ERR_INVALID, "%s: begins as %s and ends as vhd: its format must be given",
                           path, image_format_name(by_head));
        found = promised;
    }
    if (found == IMAGE_UNKNOWN || promised == IMAGE_RAW)
        found = promised;
    *ret_format = found == IMAGE_UNKNOWN ? IMAGE_RAW : found;
    return true;
}

bool image_format_detect(const struct io *io, const char *path, enum image_format *ret_format,
                         struct err *err)
{
    AUTO_IO struct io_file *file = NULL;
    uint8_t head[FOOTER_BYTES];
    enum image_format by_head;
    struct io_stat stat;
    size_t length;
    bool footer;

    if (!io_stat_path(io, path, &stat, err))
        return false;
    if (!stat.is_regular)
        return err_set(err, ERR_INVALID, "%s: is no regular file", path);
    if (!io_open(io, path, IO_READ_ONLY, &file, err) || !io_stat_file(file, &stat, err) ||
        !io_read_some(file, 0, head, sizeof head, &length, err) ||
        !by_magic(path, head, length, &by_head, err) || !has_footer(file, stat.size_bytes, &footer, err))
        return false;
    return judge(path, by_head, footer, ret_format, err);
}
