/* A VM in a file system in memory, with data on its disk and a scripted machine, for crashes: what each snapshot and the VM must read as
 * is known at every moment.
 *
 * The machine writes real files: its disk is disk.h's, which is sealed and pushed at the instant of a snapshot; memory is a file that
 * holds the id by which settings name it. The guest writes between the steps of a plan whenever it runs, and flushes now and then. */
#pragma once

#include "store_sample.h"

#include "disk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define LAB_SECTORS 16
#define LAB_SINCE   32
#define LAB_TAKEN   16

/* What a disk may read as after a power cut: for each sector what was last flushed, or what was written since. */
struct lab_line {
    unsigned flushed[LAB_SECTORS];
    unsigned since[LAB_SECTORS][LAB_SINCE];
    unsigned count[LAB_SECTORS];
};

struct lab_taken {
    struct guid guid;
    unsigned sectors[LAB_SECTORS];
};

struct lab {
    struct place place; /* first */
    struct store *store;
    enum plan_machine machine;
    struct disk *present, *target;
    struct disk_next_top *next;
    char next_path[400], target_path[400];
    bool is_stopped, is_dead; /* by a plan; because its disk fails */
    struct lab_line line, target_line; /* of what the VM was, and of what it goes back to */
    bool goes_back, target_ran;
    char top_before[400];
    bool removes_top; /* the plan does, in the end */
    struct lab_taken taken[LAB_TAKEN];
    size_t taken_count;
    struct guid taking; /* the snapshot that the operation takes; unset: none */
    unsigned instant[LAB_SECTORS];
    unsigned writes;
    size_t stop_after; /* so many steps of each plan are done, then nothing more; 0: all */
    size_t steps;      /* of the last plan */
    size_t commits[8]; /* their numbers in it, 1 the first step; 0: no more */
};

/* 1 (off) - 2 (with memory) - 3 (off) - Now; 1 - 4 (off): listed as 0, 1, 2, 3 in order of their making. */
void lab_new(struct lab *lab, bool with_tree);
void lab_done(struct lab *lab);
/* The VM in that state, with something that no snapshot has. */
void lab_prepare(struct lab *lab, enum plan_machine machine);

/* Takes one, or goes back to the index-th of those that were taken; they must succeed. */
void lab_snapshot(struct lab *lab, enum plan_machine machine);
void lab_apply(struct lab *lab, size_t index, struct plan_apply request);

/* Runs a plan on the store with the machine: all of it, or up to stop_after. */
bool lab_run(struct lab *lab, struct plan *plan, struct err *err) MUST_CHECK;
bool lab_delete(struct lab *lab, const struct guid *snapshot, bool subtree, struct err *err) MUST_CHECK;
struct plan_source lab_source(struct lab *lab);
/* The operation goes back to that snapshot: then the VM may read as it did. */
void lab_goes_back(struct lab *lab, const struct guid *snapshot);
/* The VM has other settings by one commit. */
bool lab_settings(struct lab *lab, const struct config *vm, const char *what, struct err *err) MUST_CHECK;

/* The machine goes on for a little, and is then switched off in order. */
void lab_stop(struct lab *lab);
/* The process dies; with power, what was not synced is kept, dropped or torn by the seed. */
void lab_kill(struct lab *lab);
void lab_power_cut(struct lab *lab, uint64_t seed);
/* Opens the store, which recovers. Faults are gone. */
void lab_recover(struct lab *lab);

/* Chains verify, every file that settings name has its content, every listed snapshot reads as when it was taken, the VM as one of its
 * lines. Opens nothing but what is there; the store is open. */
void lab_check(struct lab *lab, const char *where);
/* What a disk holds now. */
void lab_read(const struct lab *lab, const char *path, unsigned sectors[LAB_SECTORS], const char *where);
void lab_read_open(struct disk *disk, unsigned sectors[LAB_SECTORS], const char *where);
const struct lab_taken *lab_taken_of(struct lab *lab, const struct guid *snapshot);
/* Settings and names of all files, without what differs from run to run; owned. */
char *lab_picture(const struct lab *lab);

#define LAB_OK(ok)                                                                                           \
    do {                                                                                                     \
        if (!(ok))                                                                                           \
            fail_msg("%s: %s", #ok, err.text);                                                               \
    } while (0)
