#include "owner.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#define ID_BYTES   40
#define HOST_BYTES 65

/* Who we are. "" where it is not known. */
struct host {
    char name[HOST_BYTES], machine[ID_BYTES], boot[ID_BYTES];
};

static void id_read(const char *path, char text[static ID_BYTES])
{
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd >= 0 ? read(fd, text, ID_BYTES - 1) : 0;

    text[length > 0 ? length : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
}

static void host_read(struct host *host)
{
    *host = (struct host){0};
    if (gethostname(host->name, sizeof host->name) != 0)
        host->name[0] = '\0';
    host->name[sizeof host->name - 1] = '\0';
    id_read("/etc/machine-id", host->machine);
    id_read("/proc/sys/kernel/random/boot_id", host->boot);
}

/* The value behind `key ` at the start of a line; "" if there is none. True if the key is there. */
static bool field(const char *text, const char *key, char *value, size_t size)
{
    size_t key_length = strlen(key);

    value[0] = '\0';
    for (const char *line = text; *line != '\0'; line += strcspn(line, "\n"), line += *line == '\n') {
        if (strncmp(line, key, key_length) != 0 || line[key_length] != ' ')
            continue;
        const char *start = line + key_length + 1;
        size_t length = strcspn(start, "\n");
        snprintf(value, size, "%.*s", (int)(length < size ? length : size - 1), start);
        return true;
    }
    return false;
}

/* A machine has one id for life and another boot id each time. Without an id a host that was started anew is not known again. */
static enum owner_place place_of(const struct host *there)
{
    struct host here;

    host_read(&here);
    if (there->boot[0] != '\0' && strcmp(there->boot, here.boot) == 0)
        return OWNER_HERE;
    return there->machine[0] != '\0' && strcmp(there->machine, here.machine) == 0 && strcmp(there->name, here.name) == 0
               ? OWNER_HERE
               : OWNER_ELSEWHERE;
}

enum owner_place owner_read(int fd, struct store_owner *ret_owner)
{
    char text[OWNER_TEXT_BYTES], pid[24], guest[8];
    ssize_t length = pread(fd, text, sizeof text - 1, 0);
    struct host there = {0}, here;

    *ret_owner = (struct store_owner){0};
    if (length <= 0)
        return OWNER_NONE;
    text[length] = '\0';
    if (!field(text, "host", there.name, sizeof there.name))
        return OWNER_NONE;
    bool is_old = !field(text, "machine", there.machine, sizeof there.machine);
    (void)field(text, "boot", there.boot, sizeof there.boot);
    (void)field(text, "what", ret_owner->what, sizeof ret_owner->what);
    (void)field(text, "pid", pid, sizeof pid);
    (void)field(text, "guest", guest, sizeof guest);
    host_read(&here);
    memcpy(ret_owner->host, there.name, sizeof ret_owner->host);
    ret_owner->pid = strtoll(pid, NULL, 10);
    ret_owner->has_guest = strcmp(guest, "yes") == 0;
    ret_owner->this_boot = there.boot[0] != '\0' && strcmp(there.boot, here.boot) == 0;
    enum owner_place place = place_of(&there);
    ret_owner->is_elsewhere = place == OWNER_ELSEWHERE;
    return is_old ? OWNER_NONE : place;
}

/* Others see what is written here only behind a sync. */
static bool is_shared(int fd)
{
    static const unsigned long SHARED[] = {NFS_SUPER_MAGIC, SMB_SUPER_MAGIC, CIFS_SUPER_MAGIC, SMB2_SUPER_MAGIC,
                                           AFS_SUPER_MAGIC, CEPH_SUPER_MAGIC, FUSE_SUPER_MAGIC, V9FS_MAGIC,
                                           OCFS2_SUPER_MAGIC, CODA_SUPER_MAGIC, 0x01161970 /* GFS2 */, 0x0BD00BD0 /* Lustre */};
    struct statfs fs;

    if (fstatfs(fd, &fs) != 0)
        return true;
    for (size_t i = 0; i < sizeof SHARED / sizeof SHARED[0]; i++)
        if ((unsigned long)fs.f_type == SHARED[i])
            return true;
    return false;
}

/* text holds OWNER_TEXT_BYTES, the rest behind its end is filled up. */
static bool text_write(int fd, const char *path, char *text, struct err *err)
{
    size_t length = strlen(text);

    memset(text + length, '\n', OWNER_TEXT_BYTES - length);
    ssize_t written = pwrite(fd, text, OWNER_TEXT_BYTES, 0);
    if (written != OWNER_TEXT_BYTES)
        return err_sys(err, written < 0 ? errno : ENOSPC, "%s: the owner could not be written", path);
    return !is_shared(fd) || owner_sync(fd, path, err);
}

bool owner_write(int fd, const char *path, const char *what, bool has_guest, struct err *err)
{
    char text[OWNER_TEXT_BYTES];
    struct host here;

    host_read(&here);
    snprintf(text, sizeof text, "host %s\nmachine %s\nboot %s\npid %ld\nwhat %.63s\nguest %s\n", here.name, here.machine,
             here.boot, (long)getpid(), what, has_guest ? "yes" : "no");
    return text_write(fd, path, text, err);
}

void owner_text_free(char text[static OWNER_TEXT_BYTES])
{
    memset(text, '\n', OWNER_TEXT_BYTES);
    memcpy(text, "free", 4);
}

bool owner_erase(int fd, const char *path, struct err *err)
{
    char text[OWNER_TEXT_BYTES] = "free";

    return text_write(fd, path, text, err);
}

bool owner_sync(int fd, const char *path, struct err *err)
{
    return fdatasync(fd) == 0 || err_sys(err, errno, "sync %s", path);
}
