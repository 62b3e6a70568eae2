#include "extents.h"

#include "auto.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

/* Tried, with a file that has no name: no file system tells. */
bool extents_can_be_shared(const char *from, const char *dir)
{
    AUTO_FD int source = open(from, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    AUTO_FD int probe = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    return source >= 0 && probe >= 0 && ioctl(probe, FICLONE, source) == 0;
}
