/* Pictures of a machine's screen. */
#include "machine_private.h"

#include "auto.h"
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

static bool check_display(const struct machine *machine, struct err *err)
{
    return machine->has_display || err_set(err, ERR_STATE, "the VM has no display");
}

bool machine_screenshot(struct machine *machine, const char *png_path, struct err *err)
{
    if (!check_display(machine, err))
        return false;
    AUTO_FREE char *path = path_absolute(png_path);
    json_t *arguments = path ? json_pack("{s:s, s:s}", "filename", path, "format", "png") : NULL;
    if (!arguments)
        return err_set(err, ERR_INVALID, "%s: is no path that QEMU can be told", png_path);
    return machine_execute(machine, "screendump", arguments, -1, NULL, err);
}

/* --- without a file --- */

/* QEMU takes a descriptor for writing only if it is for nothing else. */
static bool give_write_end(struct machine *machine, int fd, json_int_t *ret_set, struct err *err)
{
    char name[32];
    json_t *value = NULL;
    snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
    AUTO_FD int write_end = open(name, O_WRONLY | O_CLOEXEC);
    if (write_end < 0)
        return err_sys(err, errno, "open %s", name);
    if (!machine_execute(machine, "add-fd", NULL, write_end, &value, err))
        return false;
    const json_t *set = json_object_get(value, "fdset-id");
    bool ok = json_is_integer(set);
    *ret_set = json_integer_value(set);
    json_decref(value);
    return ok || err_set(err, ERR_PROTOCOL, "QEMU's monitor answered add-fd without a number");
}

/* QEMU wants to empty what it writes to, which sealed memory of a fixed size refuses; what a guest can show is bounded by the
 * 16 MiB of its video memory. */
static bool check_size(int fd, struct err *err)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return err_sys(err, errno, "look at the picture of the screen");
    return status.st_size <= MACHINE_SCREEN_MAX_BYTES || err_set(err, ERR_PROTOCOL, "QEMU's picture of the screen is too large");
}

bool machine_screen_read(struct machine *machine, int *ret_fd, struct err *err)
{
    char name[40];
    json_int_t set;
    struct err remove_err;

    if (!check_display(machine, err))
        return false;
    AUTO_FD int fd = memfd_create("bough-screen", MFD_CLOEXEC);
    if (fd < 0)
        return err_sys(err, errno, "make memory for a picture of the screen");
    if (!give_write_end(machine, fd, &set, err))
        return false;
    snprintf(name, sizeof(name), "/dev/fdset/%lld", (long long)set);
    bool ok = machine_execute(machine, "screendump", json_pack("{s:s}", "filename", name), -1, NULL, err);
    /* A set that stays costs QEMU a descriptor, and nobody anything else. */
    (void)!machine_execute(machine, "remove-fd", json_pack("{s:I}", "fdset-id", set), -1, NULL, &remove_err);
    if (!ok || !check_size(fd, err))
        return false;
    *ret_fd = TAKE_FD(fd);
    return true;
}
