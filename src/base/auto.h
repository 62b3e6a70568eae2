/* Cleanup at the end of a scope, and giving a value away before it. */
#pragma once

#include <dirent.h>
#include <stdlib.h>
#include <unistd.h>

static inline void auto_free(void *pointer)
{
    free(*(void **)pointer);
}

static inline void auto_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

static inline void auto_closedir(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

#define AUTO_FREE  __attribute__((cleanup(auto_free)))
#define AUTO_FD    __attribute__((cleanup(auto_close)))
#define AUTO_DIR   __attribute__((cleanup(auto_closedir)))
#define AUTO(done) __attribute__((cleanup(done)))

/* Defines an `AUTO(name_ptr)` destructor for a pointer type from one that accepts NULL. */
#define AUTO_DEFINE(name, type, destroy)                                                                     \
    static inline void name(type **pointer)                                                                  \
    {                                                                                                        \
        if (*pointer)                                                                                        \
            destroy(*pointer);                                                                               \
    }

/* The value of a variable, which is then empty: ownership moves to the reader. */
#define TAKE(pointer)                                                                                        \
    ({                                                                                                       \
        __typeof__(pointer) taken_ = (pointer);                                                              \
        (pointer) = NULL;                                                                                    \
        taken_;                                                                                              \
    })
#define TAKE_FD(fd)                                                                                          \
    ({                                                                                                       \
        int taken_ = (fd);                                                                                   \
        (fd) = -1;                                                                                           \
        taken_;                                                                                              \
    })

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))
