#include "qemu_img.h"

#include "buf.h"
#include "child.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define INFO_MAX_BYTES (1U << 20)
#define INFO_LIMIT_MS  30000
#define WORDS_MAX      300

bool qemu_img_find(char **ret_program, struct err *err)
{
    char *program = child_find_program("qemu-img");

    if (!program)
        return err_set(
            err, ERR_QEMU,
            "qemu-img, which this format needs, is not in PATH (Debian has it in the package qemu-utils)");
    *ret_program = program;
    return true;
}

/* --- names --- */

/* Owned, NULL when out of memory. A descriptor of ours has the number fd in the child. */
static char *name_of(const struct qemu_img_file *file, int fd)
{
    if (file->nbd)
        return strdup(file->nbd);
    if (file->path)
        return string_printf("file:%s", file->path); /* else a colon would make a protocol of it */
    /* Without the backing file, even if the check before did not see that it has one. */
    return string_printf("json:{\"driver\":\"%s\",\"backing\":null,"
                         "\"file\":{\"driver\":\"file\",\"filename\":\"/dev/fd/%d\"}}",
                         file->format, fd);
}

/* --- running --- */

/* What it said on standard error, as one line, without its own name. */
static void words_read(int fd, char words[static WORDS_MAX + 1])
{
    static const char NAME[] = "qemu-img: ";
    ssize_t count = pread(fd, words, WORDS_MAX, 0);

    words[count > 0 ? count : 0] = '\0';
    for (char *at; (at = strstr(words, NAME));)
        memmove(at, at + strlen(NAME), strlen(at + strlen(NAME)) + 1);
    for (size_t length = strlen(words); length > 0 && words[length - 1] == '\n';)
        words[--length] = '\0';
    for (char *at = words; (at = strpbrk(at, "\n\r"));)
        *at = ' ';
}

struct run {
    char *const *argv;
    int fd; /* to be given to it, or -1 */
    child_take_fn *take;
    void *context;
    const struct progress *progress;
    int limit_ms;
};

static bool run(const struct run *run, struct err *err)
{
    AUTO_FD int error_fd = memfd_create("qemu-img", MFD_CLOEXEC);
    char words[WORDS_MAX + 1];
    int ended;

    if (error_fd < 0)
        return err_sys(err, errno, "a file in memory");
    const struct child child = {.argv = run->argv,
                                .error_fd = error_fd,
                                .fds = &run->fd,
                                .fd_count = run->fd >= 0,
                                .dies_with_us = true};
    if (!child_run(&child, run->take, run->context, run->progress, run->limit_ms, &ended, err)) {
        if (err->code == ERR_CANCELLED)
            return err_set(err, ERR_CANCELLED, "the conversion was cancelled");
        return false;
    }
    if (ended == 0)
        return true;
    words_read(error_fd, words);
    return err_set(err, strstr(words, "No space left on device") ? ERR_NO_SPACE : ERR_QEMU, "qemu-img: %s",
                   words[0] ? words : "it was killed");
}

/* --- info --- */

static bool info_take(void *context, const char *bytes, size_t length, struct err *err)
{
    struct buf *text = context;

    if (!buf_append(text, bytes, length))
        return err_oom(err);
    return text->length <= INFO_MAX_BYTES || err_set(err, ERR_QEMU, "it writes without end");
}

static bool info_parse(const struct buf *text, struct qemu_img_info *ret_info, struct err *err)
{
    json_auto_t *info = json_loadb((const char *)text->data, text->length, 0, NULL);
    const json_t *size = json_object_get(info, "virtual-size");
    const json_t *special = json_object_get(json_object_get(info, "format-specific"), "data");

    if (!json_is_integer(size) || json_integer_value(size) < 0)
        return err_set(err, ERR_QEMU, "qemu-img tells no size of the disk");
    *ret_info = (struct qemu_img_info){
        .size_bytes = (uint64_t)json_integer_value(size),
        .names_others = json_object_get(info, "backing-filename") || json_object_get(special, "data-file") ||
                        json_array_size(json_object_get(special, "extents")) > 1,
    };
    return true;
}

bool qemu_img_info(const char *program, const struct qemu_img_file *file, const struct progress *progress,
                   struct qemu_img_info *ret_info, struct err *err)
{
    AUTO_FREE char *name = name_of(file, CHILD_FIRST_FD);
    AUTO_BUF struct buf text = BUF_INIT;

    if (!name)
        return err_oom(err);
    /* The format stands in a json: name; -f would be a second one. */
    const char *const by_path[] = {program, "info", "--output=json", "-f", file->format, name, NULL};
    const char *const by_fd[] = {program, "info", "--output=json", name, NULL};
    const struct run info = {.argv = (char *const *)(file->path ? by_path : by_fd),
                             .fd = file->path ? -1 : file->fd,
                             .take = info_take,
                             .context = &text,
                             .progress = progress,
                             .limit_ms = INFO_LIMIT_MS};
    return run(&info, err) && info_parse(&text, ret_info, err);
}

/* --- convert --- */

/* Its progress, `    (12.34/100%)\r` again and again; a line may come in pieces. */
struct percent {
    char line[32];
    size_t length;
    uint64_t total_bytes;
    const struct progress *progress;
};

static bool percent_take(void *context, const char *bytes, size_t length, struct err *err)
{
    struct percent *percent = context;
    double share;

    (void)err;
    for (size_t i = 0; i < length; i++) {
        if (bytes[i] != '\r' && bytes[i] != '\n') {
            if (percent->length < sizeof percent->line - 1)
                percent->line[percent->length++] = bytes[i];
            continue;
        }
        percent->line[percent->length] = '\0';
        percent->length = 0;
        if (sscanf(percent->line, " (%lf/100%%)", &share) == 1 && share >= 0 && share <= 100)
            progress_report(percent->progress, "convert",
                            (uint64_t)(share / 100 * (double)percent->total_bytes), percent->total_bytes);
    }
    return true;
}

bool qemu_img_convert(const char *program, const struct qemu_img_file *from, const struct qemu_img_file *to,
                      uint64_t total_bytes, const struct progress *progress, struct err *err)
{
    AUTO_FREE char *source = name_of(from, CHILD_FIRST_FD), *target = name_of(to, QEMU_IMG_NO_FD);
    struct percent percent = {.total_bytes = total_bytes, .progress = progress};
    const char *argv[16] = {program, "convert", "-p"};
    size_t count = 3;

    if (!source || !target)
        return err_oom(err);
    if (from->fd < 0) {
        argv[count++] = "-f";
        argv[count++] = from->format;
    }
    argv[count++] = "-O";
    argv[count++] = to->format;
    if (to->nbd) { /* it is there, and empty */
        argv[count++] = "-n";
        argv[count++] = "--target-is-zero";
    }
    argv[count++] = source;
    argv[count++] = target;
    const struct run convert = {.argv = (char *const *)argv,
                                .fd = from->fd,
                                .take = percent_take,
                                .context = &percent,
                                .progress = progress,
                                .limit_ms = -1};
    return run(&convert, err);
}
