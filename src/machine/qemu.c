#include "machine_private.h"

#include "auto.h"
#include "buf.h"
#include "file.h"
#include "log.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define QEMU_PROGRAM    "qemu-system-x86_64"
#define MINIMUM_MAJOR   7
#define MINIMUM_MINOR   2
#define CACHE_MAX_BYTES (1U << 20)

/* --- answers that stay the same as long as the program does ---
 * A file in our runtime directory: one line that names the program (size, times, inode), then its output.
 * Starting QEMU to ask it costs as much as a whole restore may take. */

/* Our runtime directory, owned and not accessible to others; NULL if there is none: then nothing is cached.
 */
static char *cache_dir(void)
{
    const char *given = getenv("BOUGH_RUNTIME");
    char *dir = given && given[0] ? strdup(given) : string_printf("/dev/shm/bough-%u", (unsigned)getuid());
    struct err err = ERR_INIT;
    struct stat status;
    if (dir && dir_make_all(&io_real, dir, &err) && lstat(dir, &status) == 0 && S_ISDIR(status.st_mode) &&
        status.st_uid == getuid() && (status.st_mode & 077) == 0)
        return dir;
    free(dir);
    return NULL;
}

/* What a cached answer must start with to be true of the program at path. */
static char *cache_key(const char *path)
{
    struct stat status;
    if (stat(path, &status) != 0)
        return NULL;
    return string_printf("%s %llu %lld.%09ld %lld.%09ld %llu\n", path, (unsigned long long)status.st_size,
                         (long long)status.st_mtim.tv_sec, status.st_mtim.tv_nsec,
                         (long long)status.st_ctim.tv_sec, status.st_ctim.tv_nsec,
                         (unsigned long long)status.st_ino);
}

/* 64-bit FNV-1a: a file name for a path. */
static char *cache_path(const char *path, const char *question)
{
    uint64_t hash = 0xcbf29ce484222325U;
    for (const char *at = path; *at; at++)
        hash = (hash ^ (unsigned char)*at) * 0x100000001b3U;
    AUTO_FREE char *dir = cache_dir();
    return dir ? string_printf("%s/qemu-%016llx-%s", dir, (unsigned long long)hash, question) : NULL;
}

/* The answer behind its key, or NULL. */
static char *cache_read(const char *file, const char *key)
{
    AUTO_BUF struct buf content = BUF_INIT;
    struct err err = ERR_INIT;
    size_t length = strlen(key);
    if (!file || !file_read_all(&io_real, file, CACHE_MAX_BYTES, &content, &err) ||
        content.length <= length || memcmp(content.data, key, length) != 0 ||
        memchr(content.data, '\0', content.length))
        return NULL;
    return strdup((const char *)content.data + length);
}

static void cache_write(const char *file, const char *key, const char *answer)
{
    AUTO_BUF struct buf content = BUF_INIT;
    struct err err = ERR_INIT;
    bool renamed;
    if (!file || !buf_printf(&content, "%s%s", key, answer))
        return;
    if (!file_replace(&io_real, file, content.data, content.length, &renamed, &err))
        log_debug("%s", err.text); /* a cache that cannot be written is no cache */
}

/* What the program at path says to `-question [argument]`. */
static bool qemu_ask(const char *path, const char *question, const char *argument, char **ret_text,
                     struct err *err)
{
    AUTO_FREE char *key = cache_key(path);
    if (!key)
        return err_set(err, ERR_QEMU, "%s: %s", path, strerror(errno));
    AUTO_FREE char *file = cache_path(path, question);
    char *text = cache_read(file, key);
    if (!text) {
        AUTO_FREE char *option = string_printf("-%s", question);
        if (!option)
            return err_oom(err);
        char *const argv[] = {(char *)path, option, (char *)argument, NULL};
        int ended;
        if (!process_output(argv, &text, &ended, err))
            return false;
        if (ended != 0) {
            AUTO_FREE char *said = text;
            return err_set(err, ERR_QEMU, "%s %s ended with status %d: %.200s", path, option, ended, said);
        }
        cache_write(file, key, text);
    }
    *ret_text = text;
    return true;
}

/* --- finding it --- */

bool qemu_version_parse(const char *text, struct qemu *ret_qemu)
{
    static const char start[] = "QEMU emulator version ";
    unsigned major, minor, micro;
    if (strncmp(text, start, strlen(start)) != 0 ||
        sscanf(text + strlen(start), "%3u.%3u.%3u", &major, &minor, &micro) != 3)
        return false;
    ret_qemu->major = major;
    ret_qemu->minor = minor;
    snprintf(ret_qemu->version, sizeof(ret_qemu->version), "%u.%u.%u", major, minor, micro);
    return true;
}

static bool locate(char **ret_path, struct err *err)
{
    const char *given = getenv("BOUGH_QEMU");
    char *path = given && given[0] ? path_absolute(given) : child_find_program(QEMU_PROGRAM);
    if (!path && given && given[0])
        return err_oom(err);
    if (!path)
        return err_set(err, ERR_QEMU, "%s is not in PATH; is QEMU installed?", QEMU_PROGRAM);
    if (!child_is_program(path)) {
        AUTO_FREE char *wrong = path;
        return err_set(err, ERR_QEMU, "%s (BOUGH_QEMU) is no program that can be run", wrong);
    }
    *ret_path = path;
    return true;
}

bool qemu_find(struct qemu *ret_qemu, struct err *err)
{
    AUTO_FREE char *path = NULL, *text = NULL;
    struct qemu qemu = {0};
    if (!locate(&path, err))
        return false;
    if (strlen(path) >= sizeof(qemu.path))
        return err_set(err, ERR_QEMU, "%s: the path is too long", path);
    strcpy(qemu.path, path);
    if (!qemu_ask(path, "version", NULL, &text, err))
        return false;
    if (!qemu_version_parse(text, &qemu))
        return err_set(err, ERR_QEMU, "%s does not say that it is QEMU: %.60s", path, text);
    if (qemu.major < MINIMUM_MAJOR || (qemu.major == MINIMUM_MAJOR && qemu.minor < MINIMUM_MINOR))
        return err_set(err, ERR_QEMU, "%s is QEMU %s; %d.%d or later is needed", path, qemu.version,
                       MINIMUM_MAJOR, MINIMUM_MINOR);
    *ret_qemu = qemu;
    return true;
}

/* --- machine types --- */

/* Does a line of `-machine help` begin with this word? */
static bool machines_have(const char *list, const char *machine)
{
    size_t length = strlen(machine);
    for (const char *line = list; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, machine, length) == 0 && isspace((unsigned char)line[length]))
            return true;
    }
    return false;
}

bool qemu_check_machine(const struct qemu *qemu, const char *machine, struct err *err)
{
    AUTO_FREE char *list = NULL;
    if (!qemu_ask(qemu->path, "machine", "help", &list, err))
        return false;
    if (machine[0] == '\0' || !machines_have(list, machine))
        return err_set(err, ERR_UNSUPPORTED, "QEMU %s does not offer the machine type %s", qemu->version,
                       machine);
    return true;
}

bool qemu_default_machine(const struct qemu *qemu, unsigned generation, char **ret_machine, struct err *err)
{
    AUTO_FREE char *machine =
        string_printf("pc-%s-%u.%u", generation == 2 ? "q35" : "i440fx", qemu->major, qemu->minor);
    if (!machine)
        return err_oom(err);
    if (!qemu_check_machine(qemu, machine, err))
        return false;
    *ret_machine = TAKE(machine);
    return true;
}
