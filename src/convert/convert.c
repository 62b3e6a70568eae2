#include "convert.h"

#include "bytes.h"
#include "foreign.h"
#include "native.h"
#include "staging.h"

struct conversion {
    const struct io *io;
    const struct convert_options *options;
    const struct progress *progress;
    enum image_format from_format;
    struct staging staging;
    struct convert_result result;
};

static void conversion_done(struct conversion *c)
{
    staging_done(&c->staging);
}

/* A VHD's size is a multiple of 512, and so is that of the disk in any other format; only raw has its own. */
static void size_set(struct conversion *c, uint64_t exact_bytes)
{
    bool keeps = c->from_format == IMAGE_RAW && c->options->to_format == IMAGE_RAW;

    c->result.size_bytes = keeps ? exact_bytes : round_up(exact_bytes, VHD_SECTOR);
    c->result.added_bytes = c->result.size_bytes - exact_bytes;
}

static bool native_to_native(struct conversion *c, struct err *err)
{
    AUTO_NATIVE struct native from = {0};
    AUTO_NATIVE struct native to = {0};

    if (!native_open(c->io, c->from_format, c->options->from, &from, err))
        return false;
    size_set(c, from.size_bytes);
    return staging_begin(c->io, c->options->to, &c->staging, err) &&
           native_create(c->io, c->options->to_format, c->options->block_bytes, c->staging.path,
                         c->result.size_bytes, &to, err) &&
           native_copy(&from, &to, c->progress, err) && native_finish(&to, err);
}

static bool vhd_to_foreign(struct conversion *c, struct err *err)
{
    AUTO_NATIVE struct native from = {0};

    if (!native_open(c->io, c->from_format, c->options->from, &from, err))
        return false;
    size_set(c, from.size_bytes);
    return staging_begin(c->io, c->options->to, &c->staging, err) &&
           foreign_from_disk(c->io, TAKE(from.disk), c->options->to_format, c->staging.path, c->progress,
                             err);
}

/* qemu-img reads raw files too, where it writes the target itself. */
static bool from_foreign(struct conversion *c, struct err *err)
{
    enum image_format format = c->options->to_format;
    AUTO_FOREIGN struct foreign from = {0};
    AUTO_NATIVE struct native to = {0};

    if (!foreign_open(c->io, c->from_format, c->options->from, c->options->trust_source, c->progress, &from,
                      err))
        return false;
    size_set(c, from.size_bytes);
    if (!staging_begin(c->io, c->options->to, &c->staging, err))
        return false;
    if (format == IMAGE_RAW || image_format_is_foreign(format))
        return foreign_to_file(c->io, &from, format, c->staging.path, c->progress, err);
    return native_create(c->io, format, c->options->block_bytes, c->staging.path, c->result.size_bytes, &to,
                         err) &&
           foreign_to_disk(&from, TAKE(to.disk), c->progress, err);
}

/* The target, made already, as it will stay. */
static bool settle(struct conversion *c, struct err *err)
{
    struct io_stat stat;

    if (c->options->to_format == IMAGE_DYNAMIC && !native_release(c->io, c->staging.path, err))
        return false;
    if (!io_stat_path(c->io, c->staging.path, &stat, err))
        return false;
    c->result.from_format = c->from_format;
    c->result.file_bytes = stat.size_bytes;
    c->result.file_allocated_bytes = stat.allocated_bytes;
    return true;
}

bool convert_image(const struct io *io, const struct convert_options *options,
                   const struct progress *progress, struct convert_result *ret_result, struct err *err)
{
    AUTO(conversion_done)
    struct conversion c = {
        .io = io, .options = options, .progress = progress, .from_format = options->from_format};
    bool to_foreign = image_format_is_foreign(options->to_format);
    bool done;

    if (c.from_format == IMAGE_UNKNOWN && !image_format_detect(io, options->from, &c.from_format, err))
        return false;
    if (image_format_is_foreign(c.from_format) || (c.from_format == IMAGE_RAW && to_foreign))
        done = from_foreign(&c, err);
    else
        done = to_foreign ? vhd_to_foreign(&c, err) : native_to_native(&c, err);
    if (!done || !settle(&c, err) || !staging_publish(&c.staging, err))
        return false;
    *ret_result = c.result;
    return true;
}
