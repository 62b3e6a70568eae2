/* A VM's folder as a value, for playing plans: files, settings, what layers hold, and what of it a power cut would leave. All that a plan
 * must keep is asserted behind each step (the invariants of docs/files.md). */
#pragma once

#include "tree_sample.h"

#include "auto.h"
#include "file.h"
#include "random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define MODEL_SECTORS 4 /* of each disk; 0: not in this layer */
#define MODEL_DISKS   2
#define MODEL_BASE    SAMPLE_DIR "/web.vhd"
#define MODEL_OUTSIDE "/srv/data.vhd" /* a base that other machines may use too */

struct entry {
    uint64_t hash;
    char *path;
    bool is_dir, is_durable; /* is its name certain to be there after a power cut? */
    char *parent;            /* a layer's, as is: */
    unsigned id;
    bool is_linked;    /* has another name somewhere: must not be written to */
    bool is_not_empty; /* that is known */
    unsigned sectors[MODEL_SECTORS], durable[MODEL_SECTORS];
    struct config *config; /* a settings file's */
};

/* What a guest would see. */
struct content {
    unsigned sectors[MODEL_DISKS][MODEL_SECTORS];
    unsigned cpus;
};

struct taken {
    struct guid guid;
    struct content content;
};

struct model {
    struct entry *entries;
    size_t count;
    struct tree *tree; /* as committed */
    enum plan_machine machine;
    bool is_stopped;        /* a plan has stopped its processors */
    struct config *engines; /* what a running machine writes to; NULL: what the tree names */
    struct content now, instant;
    struct taken *taken;
    size_t taken_count;
    unsigned counter, writes;
    struct random random;
    uint64_t seed;
    const char *what; /* the operation, for messages */
    bool has_ids;       /* snapshots know the ids of their images; old ones do not */
    bool may_fill_base; /* a merge into the base outside was asked for */
    unsigned outside[MODEL_SECTORS];
    uint64_t plans, steps, cuts, merges;
};

#define BAD(model, ...)                                                                                      \
    do {                                                                                                     \
        fprintf(stderr, "seed %llu, %s: ", (unsigned long long)(model)->seed, (model)->what);                \
        fail_msg(__VA_ARGS__);                                                                               \
    } while (0)

void model_new(struct model *model, uint64_t seed);
void model_done(struct model *model);
static inline uint64_t model_draw(struct model *model, uint64_t limit)
{
    return random_below(&model->random, limit);
}

/* --- files --- */
struct entry *model_find(const struct model *model, const char *path); /* NULL: not there */
struct entry *model_add(struct model *model, const char *path, bool is_dir);
void model_drop(struct model *model, struct entry *entry);
void model_drop_dir(struct model *model, const char *path); /* with all that is in it */
void model_put_config(struct model *model, const char *path, const struct config *config);
void model_sync_dir(struct model *model, const char *path);
void model_reload(struct model *model); /* the tree from its files */

/* --- disks --- */
struct content model_content(const struct model *model, const struct config *config);
void model_guest_writes(struct model *model);
void model_flush(struct model *model); /* all that was written is durable */
/* Every layer, for the planner; owned. */
void model_layers(const struct model *model, struct plan_layer **ret_layers, size_t *ret_count);
void model_layers_free(struct plan_layer *layers, size_t count);

/* --- what must hold --- */
/* Behind each step: what the tree names is there, what snapshots hold is as it was, all else is known as garbage. */
void model_check(struct model *model);
/* What a commit names is durable. */
void model_check_durable(struct model *model);
void model_check_clean(struct model *model); /* between operations: nothing is left */

/* --- ends of plans that come early --- */
void model_power_cut(struct model *model);
void model_recover(struct model *model); /* as store_recover() does */

/* --- plan_play.c --- */
/* Plays all of it, or up to a step that is drawn, and then recovers: false. after: what the VM holds behind the last commit;
 * NULL: what it did. */
bool model_play(struct model *model, struct plan *plan, const struct content *after);
/* Always up to that step, which is not done, or (is_torn) done in part. */
void model_play_to(struct model *model, struct plan *plan, size_t end, bool is_torn, const struct content *after);
