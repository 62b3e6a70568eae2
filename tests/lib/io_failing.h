/* The I/O seam with a fault: wraps another one and lets the n-th call fail. */
#pragma once

#include "io.h"

#include <stdbool.h>

enum io_call {
    IO_CALL_OPEN = 1 << 0, /* open without IO_CREATE */
    IO_CALL_CREATE = 1 << 1,
    IO_CALL_READ = 1 << 2,
    IO_CALL_WRITE = 1 << 3,
    IO_CALL_TRUNCATE = 1 << 4,
    IO_CALL_SYNC = 1 << 5,
    IO_CALL_PUNCH = 1 << 6,
    IO_CALL_ALLOCATE = 1 << 7,
    IO_CALL_STAT = 1 << 8, /* of a path or a file */
    IO_CALL_RENAME = 1 << 9,
    IO_CALL_LINK = 1 << 10,
    IO_CALL_UNLINK = 1 << 11,
    IO_CALL_DIR = 1 << 12, /* make_dir, remove_dir */
    IO_CALL_SYNC_DIR = 1 << 13,
    IO_CALL_LIST = 1 << 14,

    IO_CALLS_ALL = (1 << 15) - 1,
    /* All that changes what is on the disk. */
    IO_CALLS_CHANGES = IO_CALLS_ALL & ~(IO_CALL_OPEN | IO_CALL_READ | IO_CALL_STAT | IO_CALL_LIST),
    /* Where the kernel may say that there is no space: not when something is removed. */
    IO_CALLS_SPACE = IO_CALL_CREATE | IO_CALL_WRITE | IO_CALL_TRUNCATE | IO_CALL_SYNC | IO_CALL_ALLOCATE | IO_CALL_RENAME |
                     IO_CALL_LINK | IO_CALL_SYNC_DIR,
};

struct io_failing;

/* A new one passes every call on. inner must outlive it, it must outlive its files. */
struct io_failing *io_failing_new(const struct io *inner);
void io_failing_free(struct io_failing *failing); /* accepts NULL */
AUTO_DEFINE(auto_io_failing_free, struct io_failing, io_failing_free)
#define AUTO_IO_FAILING AUTO(auto_io_failing_free)

const struct io *io_failing_io(struct io_failing *failing);

struct io_fault {
    unsigned calls;   /* which calls count: bits of enum io_call */
    uint64_t nth;     /* the nth of them from now on fails, 1 the next one; 0: none */
    int errnum;       /* as this */
    bool done_anyway; /* the failing call does its work first: its reply was lost */
    bool again;       /* every later call that counts fails too */
    bool forever;     /* every call of any kind after it fails too: the power is off */
};

/* Replaces the fault there was and starts counting at 0. */
void io_failing_set(struct io_failing *failing, struct io_fault fault);
uint64_t io_failing_count(const struct io_failing *failing); /* counted calls since io_failing_set() */
bool io_failing_struck(const struct io_failing *failing);    /* has the fault come? */
