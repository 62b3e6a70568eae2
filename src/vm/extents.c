#include "extents.h"

#include "auto.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

/* Tried, with a file that has no name: no file system tells. With one block, since a whole file can be of a hundred thousand extents. */
bool extents_can_be_shared(const char *from, const char *dir)
{
    AUTO_FD int source = open(from, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    AUTO_FD int probe = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    struct file_clone_range first = {.src_fd = source}; /* length 0: to its end */
    struct stat stat;

    if (source < 0 || probe < 0 || fstat(source, &stat) != 0)
        return false;
    if (stat.st_size > stat.st_blksize)
        first.src_length = (uint64_t)stat.st_blksize;
    return ioctl(probe, FICLONERANGE, &first) == 0;
}
