#include "touched.h"

#include "auto.h"
#include "bytes.h"
#include "ram.h"
#include "rawfile.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#define ATTRIBUTE     "user.bough.touched"
#define FORMAT        1
#define MOST_BYTES    (512ULL << 20) /* more than this is not "first" */
#define UNIT_PAGES    (TOUCHED_UNIT_BYTES / RAM_PAGE_BYTES)
#define COARSEST      24
#define PRESENT       (1ULL << 63)
#define PAGEMAP_PIECE 8192 /* entries */
#define VARINT_MAX    10

/* --- what is kept: FORMAT, the binary logarithm of units in a step, then (steps left out, steps touched) in
 * turn --- */

static size_t put_varint(uint8_t *bytes, uint64_t value)
{
    size_t length = 0;

    for (; value >= 0x80; value >>= 7)
        bytes[length++] = (uint8_t)(value | 0x80);
    bytes[length++] = (uint8_t)value;
    return length;
}

static bool get_varint(const uint8_t **bytes, const uint8_t *end, uint64_t *ret_value)
{
    uint64_t value = 0;

    for (unsigned shift = 0; *bytes < end && shift < 56; shift += 7) {
        uint8_t byte = *(*bytes)++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *ret_value = value;
            return true;
        }
    }
    return false;
}

static bool is_touched(const uint8_t *units, uint64_t count, uint64_t step, unsigned coarseness)
{
    uint64_t end = min_u64((step + 1) << coarseness, count);

    for (uint64_t unit = step << coarseness; unit < end; unit++)
        if (units[unit / 8] & 1U << (unit % 8))
            return true;
    return false;
}

static bool encode(const uint8_t *units, uint64_t count, unsigned coarseness, uint8_t *bytes,
                   size_t *ret_length)
{
    uint64_t steps = (count + (1ULL << coarseness) - 1) >> coarseness, step = 0;
    size_t length = 2;

    bytes[0] = FORMAT;
    bytes[1] = (uint8_t)coarseness;
    for (;;) {
        uint64_t from = step;
        while (step < steps && !is_touched(units, count, step, coarseness))
            step++;
        if (step == steps)
            break;
        uint64_t first = step;
        while (step < steps && is_touched(units, count, step, coarseness))
            step++;
        if (length + 2 * VARINT_MAX > TOUCHED_BYTES_MAX)
            return false;
        length += put_varint(bytes + length, first - from);
        length += put_varint(bytes + length, step - first);
    }
    *ret_length = length > 2 ? length : 0;
    return true;
}

void touched_encode(const uint8_t *units, uint64_t count, uint8_t bytes[static TOUCHED_BYTES_MAX],
                    size_t *ret_length)
{
    unsigned coarseness = 0;

    while (!encode(units, count, coarseness, bytes, ret_length))
        coarseness++;
}

void touched_decode(const uint8_t *bytes, size_t length, uint64_t memory_bytes,
                    void (*piece)(void *context, uint64_t offset, uint64_t length), void *context)
{
    const uint8_t *at = bytes + 2, *end = bytes + length;
    uint64_t left_out, touched, step = 0;

    if (length < 2 || bytes[0] != FORMAT || bytes[1] > COARSEST)
        return;
    uint64_t step_bytes = (uint64_t)TOUCHED_UNIT_BYTES << bytes[1];
    uint64_t steps = div_round_up(memory_bytes, step_bytes);
    while (at < end && get_varint(&at, end, &left_out) && get_varint(&at, end, &touched)) {
        if (touched == 0 || left_out > steps - step || touched > steps - step - left_out)
            return;
        uint64_t first = (step + left_out) * step_bytes;
        step += left_out + touched;
        piece(context, first, min_u64(step * step_bytes, memory_bytes) - first);
    }
}

/* --- looking at QEMU --- */

struct look {
    const char *name; /* the last part of the image's path: a GUID stands in it */
    int pagemap_fd;
    uint64_t unit_count;
    uint64_t touched; /* units */
    uint8_t *units;
};

static void look_at_entries(struct look *look, uint64_t page, const uint64_t *entries, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t unit = (page + i) / UNIT_PAGES;
        if (!(entries[i] & PRESENT) || unit >= look->unit_count || look->units[unit / 8] & 1U << (unit % 8))
            continue;
        look->units[unit / 8] = (uint8_t)(look->units[unit / 8] | 1U << (unit % 8));
        look->touched++;
    }
}

/* Pages of one mapping that are present: the guest's own, and those of the file that it was given. The kernel
 * gives up to 64 KiB of what is in the page cache around each that is missed, which is the unit. */
static bool look_at_mapping(struct look *look, uint64_t begin, uint64_t end, uint64_t offset, struct err *err)
{
    uint64_t entries[PAGEMAP_PIECE], page = offset / RAM_PAGE_BYTES;

    for (uint64_t at = begin / RAM_PAGE_BYTES; at < end / RAM_PAGE_BYTES;) {
        size_t count = (size_t)min_u64(PAGEMAP_PIECE, end / RAM_PAGE_BYTES - at);
        if (!raw_read(look->pagemap_fd, at * sizeof(*entries), entries, count * sizeof(*entries), err))
            return err_prefix(err, "QEMU's pagemap");
        look_at_entries(look, page, entries, count);
        at += count;
        page += count;
    }
    return true;
}

static bool look_at_line(struct look *look, const char *line, struct err *err)
{
    uint64_t begin, end, offset;
    const char *name = strrchr(line, '/');

    if (!name || strcmp(name + 1, look->name) != 0 ||
        sscanf(line, "%" SCNx64 "-%" SCNx64 " %*s %" SCNx64, &begin, &end, &offset) != 3)
        return true;
    return look_at_mapping(look, begin, end, offset, err);
}

static void file_close(FILE **file)
{
    if (*file)
        fclose(*file);
}

static bool look_at_process(struct look *look, pid_t pid, struct err *err)
{
    char path[64], line[4400];

    snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)pid);
    AUTO_FD int pagemap_fd = open(path, O_RDONLY | O_CLOEXEC);
    if (pagemap_fd < 0)
        return err_sys(err, errno, "open %s", path);
    look->pagemap_fd = pagemap_fd;
    snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
    __attribute__((cleanup(file_close))) FILE *maps = fopen(path, "re");
    if (!maps)
        return err_sys(err, errno, "open %s", path);
    while (fgets(line, sizeof(line), maps)) {
        line[strcspn(line, "\n")] = '\0';
        if (!look_at_line(look, line, err))
            return false;
    }
    return true;
}

bool ram_touched_record(const char *bin_path, pid_t pid, struct err *err)
{
    const char *slash = strrchr(bin_path, '/');
    struct look look = {.name = slash ? slash + 1 : bin_path};
    uint8_t bytes[TOUCHED_BYTES_MAX];
    size_t length = 0;
    struct stat stat_of;

    if (stat(bin_path, &stat_of) != 0)
        return err_sys(err, errno, "%s", bin_path);
    look.unit_count = div_round_up((uint64_t)stat_of.st_size, TOUCHED_UNIT_BYTES);
    AUTO_FREE uint8_t *units = calloc(div_round_up(look.unit_count, 8) + 1, 1);
    if (!(look.units = units))
        return err_oom(err);
    if (!look_at_process(&look, pid, err))
        return false;
    if (look.touched == 0 || look.touched * TOUCHED_UNIT_BYTES > MOST_BYTES)
        return err_set(err, ERR_INVALID, "%s: %" PRIu64 " pieces of %u bytes were touched: nothing is noted",
                       bin_path, look.touched, TOUCHED_UNIT_BYTES);
    touched_encode(units, look.unit_count, bytes, &length);
    if (setxattr(bin_path, ATTRIBUTE, bytes, length, 0) != 0)
        return err_sys(err, errno, "%s: note what was touched", bin_path);
    return true;
}

bool ram_touched_is_known(const char *bin_path)
{
    return getxattr(bin_path, ATTRIBUTE, NULL, 0) > 0;
}

/* --- reading ahead --- */

struct ahead {
    int fd;
    uint64_t memory_bytes, left_bytes;
    size_t length;
    uint8_t bytes[TOUCHED_BYTES_MAX];
};

static void read_piece(void *context, uint64_t offset, uint64_t length)
{
    struct ahead *ahead = context;
    uint64_t bytes = min_u64(length, ahead->left_bytes);

    ahead->left_bytes -= bytes;
    if (bytes > 0)
        posix_fadvise(ahead->fd, (off_t)offset, (off_t)bytes, POSIX_FADV_WILLNEED);
}

static void *read_ahead(void *context)
{
    struct ahead *ahead = context;

    touched_decode(ahead->bytes, ahead->length, ahead->memory_bytes, read_piece, ahead);
    close(ahead->fd);
    free(ahead);
    return NULL;
}

void ram_touched_prefetch(const char *bin_path)
{
    AUTO_FD int fd = open(bin_path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    AUTO_FREE struct ahead *ahead = malloc(sizeof(*ahead));
    struct stat stat_of;
    struct err ignored;
    pthread_t thread;

    if (fd < 0 || !ahead || fstat(fd, &stat_of) != 0 || !S_ISREG(stat_of.st_mode))
        return;
    ssize_t length = fgetxattr(fd, ATTRIBUTE, ahead->bytes, sizeof(ahead->bytes));
    if (length <= 0)
        return;
    ahead->length = (size_t)length;
    ahead->memory_bytes = (uint64_t)stat_of.st_size;
    ahead->left_bytes = MOST_BYTES;
    ahead->fd = fd;
    if (!thread_start(read_ahead, ahead, "ram-ahead", &thread, &ignored))
        return;
    pthread_detach(thread); /* it has all it needs, and nobody waits for it */
    (void)TAKE_FD(fd);
    (void)TAKE(ahead);
}
