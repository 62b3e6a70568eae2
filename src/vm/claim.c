/* A file in the runtime directory for each GUID: who runs it holds a lock on the file, which says in which folder. The lock ends with the
 * worker; that its machine is alive is then told by the lock of the folder that the file names. */
#include "claim.h"

#include "auto.h"
#include "buf.h"
#include "file.h"
#include "runtime.h"
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct claim {
    char *path;
    int fd;
};

static void claim_free(struct claim *claim)
{
    if (claim->fd >= 0)
        close(claim->fd);
    free(claim->path);
    free(claim);
}

/* *ret_fd: the file that has the name now, locked; -1: somebody else has it, and *told says where. */
static bool claim_lock(const char *path, int *ret_fd, char told[static PATH_MAX], struct err *err)
{
    struct stat st;

    for (;;) {
        AUTO_FD int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
            return err_sys(err, errno, "open %s", path);
        bool taken = flock(fd, LOCK_EX | LOCK_NB) == 0;
        if (!taken && errno != EWOULDBLOCK)
            return err_sys(err, errno, "lock %s", path);
        if (fstat(fd, &st) != 0)
            return err_sys(err, errno, "stat %s", path);
        if (st.st_nlink == 0) /* its owner has just let it go */
            continue;
        ssize_t length = pread(fd, told, PATH_MAX - 1, 0);
        told[length > 0 ? length : 0] = '\0';
        *ret_fd = taken ? TAKE_FD(fd) : -1;
        return true;
    }
}

static bool is_same_folder(const char *one, const char *other)
{
    struct stat a, b;

    return stat(one, &a) == 0 && stat(other, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* Its worker is gone, or was never ours to see; its guest may be alive. */
static bool runs_there(const char *dir)
{
    enum store_lock_state state;
    struct store_owner owner;
    struct err ignored;

    return dir[0] == '/' && store_probe(dir, &state, &owner, &ignored) && (state == STORE_MANAGED || state == STORE_UNMANAGED);
}

static bool refuse(const struct guid *guid, const char *where, struct err *err)
{
    return err_set(err, ERR_STATE, "the VM with the GUID %s runs already in %s; of a copy of its folder `bough import --copy` makes another VM",
                   guid->text, where[0] ? where : "another folder");
}

bool claim_take(const struct guid *guid, const char *vm_dir, struct claim **ret_claim, struct err *err)
{
    AUTO_FREE char *dir = NULL;
    char told[PATH_MAX];
    int fd;

    if (!runtime_guids_dir(&dir, err))
        return false;
    AUTO_FREE char *path = path_join(dir, guid->text);
    if (!path)
        return err_oom(err);
    if (!claim_lock(path, &fd, told, err))
        return false;
    if (fd < 0)
        return refuse(guid, told, err);
    struct claim *claim = malloc(sizeof *claim);
    if (!claim) {
        close(fd);
        return err_oom(err);
    }
    *claim = (struct claim){.path = TAKE(path), .fd = fd};
    size_t length = strlen(vm_dir);
    bool ok = is_same_folder(told, vm_dir) || !runs_there(told) || refuse(guid, told, err);
    if (ok && (ftruncate(fd, 0) != 0 || pwrite(fd, vm_dir, length, 0) != (ssize_t)length))
        ok = err_sys(err, errno, "write %s", claim->path);
    if (!ok) {
        claim_free(claim);
        return false;
    }
    *ret_claim = claim;
    return true;
}

void claim_release(struct claim *claim, bool still_runs)
{
    if (!claim)
        return;
    if (!still_runs)
        unlink(claim->path);
    claim_free(claim);
}
