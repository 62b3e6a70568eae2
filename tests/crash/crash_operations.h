/* Every operation on a VM's tree, for tests that cut it off anywhere. */
#pragma once

#include "crash_lab.h"

struct operation {
    const char *name;
    bool with_tree;            /* else the VM has no snapshot yet */
    enum plan_machine machine; /* what it is done to */
    bool (*run)(struct lab *lab, const struct operation *operation, struct err *err);
    size_t snapshot;         /* which one: by number, in order of their making */
    struct plan_apply apply; /* no_start, disks_only */
    bool first, needs_place, subtree;
    bool is_refused; /* by the machine; run() is true if that was told, and the VM is as before */
};
extern const struct operation OPERATIONS[];
extern const size_t OPERATION_COUNT;

/* What may be found behind a cut: as before, as behind each commit of the plan, as after. */
struct pictures {
    char *pictures[8];
    size_t count;
    size_t steps; /* of the plan */
};
void pictures_take(const struct operation *operation, struct pictures *ret_pictures);
void pictures_done(struct pictures *pictures);
/* Is it one of them? Index, or the count. */
size_t pictures_find(const struct pictures *pictures, const char *picture);

/* The lab as it is before the operation. */
void operation_begin(const struct operation *operation, struct lab *lab);
bool operation_run(const struct operation *operation, struct lab *lab, struct err *err) MUST_CHECK;
/* Recovered, whole, and like one of the pictures. */
void operation_check(struct lab *lab, const struct pictures *pictures, const char *where);
/* The same behind an end of the process in order, and a power cut. Ends the lab. */
void operation_end(struct lab *lab, const struct pictures *pictures, uint64_t seed, const char *where);

/* How many seeds each call gets: $BOUGH_TEST_SEEDS, else these. */
unsigned operation_seeds(unsigned standard);
