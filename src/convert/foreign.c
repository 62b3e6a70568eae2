#include "foreign.h"

#include "bytes.h"
#include "engine.h"
#include "file.h"
#include "nbd_uri.h"
#include "qemu_img.h"

#define HEAD_BYTES     512U
#define MAX_SIZE_BYTES (1ULL << 50) /* a few bytes can say so, and to look through it takes hours */

/* --- what an image says of other files, before QEMU sees it --- */

static bool refuse(const char *path, const char *what, struct err *err)
{
    return err_set(err, ERR_UNSUPPORTED,
                   "%s: names %s, and is not followed there; --trust-source does, if you know who made it",
                   path, what);
}

/* QEMU's docs/interop/qcow2.txt: 4 version, 8 offset of the backing file's name, 72 incompatible features, of
 * which bit 2 is the external data file. */
static bool check_qcow2(const char *path, const uint8_t *head, struct err *err)
{
    if (memcmp(head, "QFI\xfb", 4) != 0)
        return err_set(err, ERR_CORRUPT, "%s: is no qcow2 image", path);
    if (get_be64(head + 8) != 0)
        return refuse(path, "a backing file", err);
    if (get_be32(head + 4) >= 3 && get_be64(head + 72) & 1U << 2)
        return refuse(path, "a data file", err);
    return true;
}

/* "Virtual Disk Format 5.0": a text names other files, and so does one inside a sparse extent of capacity 0
 * (at 12). */
static bool check_vmdk(const char *path, const uint8_t *head, struct err *err)
{
    if (memcmp(head, "COWD", 4) == 0 || (memcmp(head, "KDMV", 4) == 0 && get_le64(head + 12) != 0))
        return true;
    if (memcmp(head, "KDMV", 4) == 0 || memcmp(head, "# Disk Desc", 11) == 0)
        return refuse(path, "the files of its extents", err);
    return err_set(err, ERR_CORRUPT, "%s: is no VMDK image", path);
}

/* VDI and VHDX have no such names that QEMU follows. */
static bool check_head(const struct foreign *foreign, const char *path, struct err *err)
{
    uint8_t head[HEAD_BYTES] = {0};
    size_t length;

    if (!io_read_some(foreign->file, 0, head, sizeof head, &length, err))
        return false;
    if (foreign->format == IMAGE_QCOW2)
        return check_qcow2(path, head, err);
    if (foreign->format == IMAGE_VMDK)
        return check_vmdk(path, head, err);
    return true;
}

/* --- opening --- */

static struct qemu_img_file as_file(const struct foreign *foreign)
{
    return (struct qemu_img_file){.format = image_format_name(foreign->format),
                                  .fd = foreign->path ? QEMU_IMG_NO_FD : foreign->file->fd,
                                  .path = foreign->path};
}

static bool look(struct foreign *foreign, const char *path, const struct progress *progress, struct err *err)
{
    struct qemu_img_file file = as_file(foreign);
    struct qemu_img_info info;
    struct io_stat stat;

    if (foreign->format == IMAGE_RAW) { /* QEMU would round it up */
        if (!io_stat_file(foreign->file, &stat, err))
            return false;
        foreign->size_bytes = stat.size_bytes;
        return true;
    }
    if (!qemu_img_info(foreign->qemu_img, &file, progress, &info, err))
        return err_prefix(err, "%s", path);
    if (info.names_others && !foreign->path)
        return refuse(path, "other files", err);
    if (info.size_bytes > MAX_SIZE_BYTES)
        return err_set(err, ERR_UNSUPPORTED, "%s: says that it is larger than 1 PiB", path);
    foreign->size_bytes = info.size_bytes;
    return true;
}

bool foreign_open(const struct io *io, enum image_format format, const char *path, bool trusted,
                  const struct progress *progress, struct foreign *ret_foreign, struct err *err)
{
    AUTO_FOREIGN struct foreign foreign = {.format = format};

    if (!io_open(io, path, IO_READ_ONLY, &foreign.file, err))
        return false;
    if (trusted && !(foreign.path = path_rooted(path)))
        return err_oom(err);
    if ((!trusted && !check_head(&foreign, path, err)) || !qemu_img_find(&foreign.qemu_img, err) ||
        !look(&foreign, path, progress, err))
        return false;
    *ret_foreign = foreign;
    foreign = (struct foreign){0};
    return true;
}

void foreign_done(struct foreign *foreign)
{
    io_close(foreign->file);
    free(foreign->path);
    free(foreign->qemu_img);
    *foreign = (struct foreign){0};
}

/* --- a disk of ours, served --- */

struct served {
    struct engine *engine;
    char *dir, *socket_path, *uri; /* owned */
};

static void served_done(struct served *served)
{
    if (served->engine)
        engine_abandon(served->engine);
    if (served->dir)
        (void)!rmdir(served->dir);
    free(served->dir);
    free(served->socket_path);
    free(served->uri);
}

/* Takes the disk. */
static bool serve(struct disk *taken, bool read_only, struct served *served, struct err *err)
{
    AUTO_DISK struct disk *disk = taken;

    if (!dir_make_private(&served->dir, err))
        return false;
    served->socket_path = path_join(served->dir, "nbd");
    served->uri = served->socket_path ? nbd_uri("", served->socket_path) : NULL;
    if (!served->uri)
        return err_oom(err);
    struct engine_options options = {
        .socket_path = served->socket_path, .export_name = "", .read_only = read_only};
    return engine_start(TAKE(disk), &options, &served->engine, err);
}

bool foreign_to_disk(const struct foreign *from, struct disk *to, const struct progress *progress,
                     struct err *err)
{
    AUTO(served_done) struct served served = {0};
    struct qemu_img_file source = as_file(from);

    if (!serve(to, /* read_only= */ false, &served, err))
        return false;
    struct qemu_img_file target = {.format = "raw", .fd = QEMU_IMG_NO_FD, .nbd = served.uri};
    return qemu_img_convert(from->qemu_img, &source, &target, from->size_bytes, progress, err) &&
           engine_stop(TAKE(served.engine), err);
}

/* --- files that qemu-img makes --- */

/* Ours before it writes, so that nobody else can read it meanwhile or after, and synced behind it. */
static bool make_file(const struct io *io, const char *qemu_img, const struct qemu_img_file *source,
                      enum image_format format, const char *path, uint64_t size_bytes,
                      const struct progress *progress, struct err *err)
{
    struct qemu_img_file target = {.format = image_format_name(format), .fd = QEMU_IMG_NO_FD, .path = path};
    AUTO_IO struct io_file *file = NULL;

    return io_open(io, path, IO_CREATE, &file, err) &&
           qemu_img_convert(qemu_img, source, &target, size_bytes, progress, err) && io_sync(file, err);
}

bool foreign_to_file(const struct io *io, const struct foreign *from, enum image_format format,
                     const char *path, const struct progress *progress, struct err *err)
{
    struct qemu_img_file source = as_file(from);

    return make_file(io, from->qemu_img, &source, format, path, from->size_bytes, progress, err);
}

bool foreign_from_disk(const struct io *io, struct disk *taken, enum image_format format, const char *path,
                       const struct progress *progress, struct err *err)
{
    AUTO_DISK struct disk *from = taken;
    AUTO(served_done) struct served served = {0};
    uint64_t size_bytes = disk_size_bytes(from);
    AUTO_FREE char *qemu_img = NULL;

    if (!qemu_img_find(&qemu_img, err) || !serve(TAKE(from), /* read_only= */ true, &served, err))
        return false;
    struct qemu_img_file source = {.format = "raw", .fd = QEMU_IMG_NO_FD, .nbd = served.uri};
    return make_file(io, qemu_img, &source, format, path, size_bytes, progress, err);
}
