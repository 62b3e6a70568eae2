#include "crash_operations.h"

#include "auto.h"

/* --- the operations --- */

static struct plan_snapshot present_request(const struct lab *lab)
{
    return (struct plan_snapshot){
        .machine = lab->machine, .name = "present", .qemu_version = "7.2.1", .accel_used = ACCEL_TCG};
}

static bool run_snapshot(struct lab *lab, const struct operation *operation, struct err *err)
{
    struct plan_source source = lab_source(lab);
    struct plan_snapshot request = present_request(lab);
    AUTO_PLAN struct plan *plan = NULL;
    AUTO_FREE char *top = strdup(store_tree(lab->store)->vm->disks[0].path);

    lab->place.machine_refuses = operation->is_refused;
    bool ok = plan_snapshot(store_tree(lab->store), &source, &request, &plan, &lab->taking, err) &&
              lab_run(lab, plan, err);
    if (!operation->is_refused)
        return ok;
    return !ok && err->code == ERR_NO_SPACE && !store_is_uncertain(lab->store) &&
           strcmp(store_tree(lab->store)->vm->disks[0].path, top) == 0;
}

static bool run_back(struct lab *lab, const struct operation *operation, struct err *err)
{
    struct plan_source source = lab_source(lab);
    struct plan_snapshot first = present_request(lab);
    struct plan_apply request = operation->apply;
    AUTO_PLAN struct plan *plan = NULL;
    struct plan_layer *layers;

    request.machine = lab->machine;
    request.snapshot = lab->taken[operation->snapshot].guid;
    lab_goes_back(lab, &request.snapshot);
    if (!store_layers(lab->store, &layers, &request.layer_count, err))
        return false;
    request.layers = layers;
    bool ok = operation->first
                  ? plan_apply_first(store_tree(lab->store), &source, &first, &request, operation->needs_place, &plan,
                                     &lab->taking, err)
                  : plan_apply(store_tree(lab->store), &source, &request, &plan, err);
    ok = ok && lab_run(lab, plan, err);
    store_layers_free(layers, request.layer_count);
    return ok;
}

static bool run_delete(struct lab *lab, const struct operation *operation, struct err *err)
{
    return lab_delete(lab, &lab->taken[operation->snapshot].guid, operation->subtree, err);
}

static bool run_save(struct lab *lab, const struct operation *operation, struct err *err)
{
    struct plan_source source = lab_source(lab);
    struct plan_save request = {.machine = lab->machine, .qemu_version = "7.2.1", .accel_used = ACCEL_TCG};
    AUTO_PLAN struct plan *plan = NULL;

    (void)operation;
    return plan_save(store_tree(lab->store), &source, &request, &plan, err) && lab_run(lab, plan, err);
}

/* As before a merge beside the machine. */
static bool run_seal(struct lab *lab, const struct operation *operation, struct err *err)
{
    struct plan_source source = lab_source(lab);
    AUTO_PLAN struct plan *plan = NULL;

    (void)operation;
    return plan_seal(store_tree(lab->store), &source, store_tree(lab->store)->vm->disks[0].path, &plan, err) &&
           lab_run(lab, plan, err);
}

/* start of a Saved VM: loaded, then this, then it goes on. */
static bool run_drop_saved(struct lab *lab, const struct operation *operation, struct err *err)
{
    AUTO_CONFIG struct config *vm = config_copy(store_tree(lab->store)->vm);

    (void)operation;
    vm->saved = (struct guid){0};
    return lab_settings(lab, vm, "start", err);
}

static bool run_set(struct lab *lab, const struct operation *operation, struct err *err)
{
    AUTO_CONFIG struct config *vm = config_copy(store_tree(lab->store)->vm);

    (void)operation;
    vm->cpus = 2;
    vm->memory_bytes *= 2;
    return lab_settings(lab, vm, "set", err);
}

static bool run_text(struct lab *lab, const struct operation *operation, struct err *err)
{
    AUTO_PLAN struct plan *plan = NULL;

    return plan_snapshot_text(store_tree(lab->store), &lab->taken[operation->snapshot].guid, "other", "notes", &plan,
                              err) &&
           lab_run(lab, plan, err);
}

const struct operation OPERATIONS[] = {
    {"first snapshot, off", false, MACHINE_OFF, .run = run_snapshot},
    {"first snapshot, running", false, MACHINE_RUNNING, .run = run_snapshot},
    {"snapshot, off", true, MACHINE_OFF, .run = run_snapshot},
    {"snapshot, running", true, MACHINE_RUNNING, .run = run_snapshot},
    {"snapshot, paused", true, MACHINE_PAUSED, .run = run_snapshot},
    {"snapshot, saved", true, MACHINE_SAVED, .run = run_snapshot},
    {"snapshot without space for the memory", true, MACHINE_RUNNING, .run = run_snapshot, .is_refused = true},
    {"apply, off", true, MACHINE_OFF, .run = run_back, .snapshot = 1},
    {"apply, running", true, MACHINE_RUNNING, .run = run_back, .snapshot = 2},
    {"apply of one taken off, running", true, MACHINE_RUNNING, .run = run_back, .snapshot = 1},
    {"apply, paused, ends saved", true, MACHINE_PAUSED, .run = run_back, .snapshot = 2, .apply = {.no_start = true}},
    {"apply, saved, ends saved", true, MACHINE_SAVED, .run = run_back, .snapshot = 2, .apply = {.no_start = true}},
    {"apply, saved", true, MACHINE_SAVED, .run = run_back, .snapshot = 2},
    {"apply, saved, disks only", true, MACHINE_SAVED, .run = run_back, .snapshot = 2, .apply = {.disks_only = true}},
    {"revert, off", true, MACHINE_OFF, .run = run_back, .snapshot = 3},
    {"revert, running", true, MACHINE_RUNNING, .run = run_back, .snapshot = 3},
    {"apply with a snapshot first, off", true, MACHINE_OFF, .run = run_back, .snapshot = 1, .first = true},
    {"apply with a snapshot first, off, then runs", true, MACHINE_OFF, .run = run_back, .snapshot = 2, .first = true},
    {"apply with a snapshot first, running", true, MACHINE_RUNNING, .run = run_back, .snapshot = 2, .first = true},
    {"apply with a snapshot first, one by one", true, MACHINE_RUNNING, .run = run_back, .snapshot = 2, .first = true,
     .needs_place = true},
    {"apply with a snapshot first, paused", true, MACHINE_PAUSED, .run = run_back, .snapshot = 1, .first = true},
    {"apply with a snapshot first, saved", true, MACHINE_SAVED, .run = run_back, .snapshot = 2, .first = true,
     .apply = {.no_start = true}},
    {"revert with a snapshot first, running", true, MACHINE_RUNNING, .run = run_back, .snapshot = 3, .first = true},
    {"delete a leaf", true, MACHINE_OFF, .run = run_delete, .snapshot = 1},
    {"delete one with one dependant", true, MACHINE_OFF, .run = run_delete, .snapshot = 3},
    {"delete in the middle, saved", true, MACHINE_SAVED, .run = run_delete, .snapshot = 2},
    {"delete a root with several dependants", true, MACHINE_OFF, .run = run_delete, .snapshot = 0},
    {"delete a leaf, running", true, MACHINE_RUNNING, .run = run_delete, .snapshot = 1},
    {"delete a subtree", true, MACHINE_OFF, .run = run_delete, .snapshot = 2, .subtree = true},
    {"delete all", true, MACHINE_SAVED, .run = run_delete, .snapshot = 0, .subtree = true},
    {"save", true, MACHINE_RUNNING, .run = run_save},
    {"save, paused", true, MACHINE_PAUSED, .run = run_save},
    {"seal, running", true, MACHINE_RUNNING, .run = run_seal},
    {"start of a saved VM", true, MACHINE_SAVED, .run = run_drop_saved},
    {"set", true, MACHINE_OFF, .run = run_set},
    {"rename a snapshot", true, MACHINE_OFF, .run = run_text, .snapshot = 1},
};
const size_t OPERATION_COUNT = ARRAY_SIZE(OPERATIONS);

/* --- done, or cut off --- */

unsigned operation_seeds(unsigned standard)
{
    const char *text = getenv("BOUGH_TEST_SEEDS");
    unsigned seeds = text ? (unsigned)strtoul(text, NULL, 10) : 0;

    return seeds ? seeds : standard;
}

void operation_begin(const struct operation *operation, struct lab *lab)
{
    lab_new(lab, operation->with_tree);
    lab_prepare(lab, operation->machine);
}

bool operation_run(const struct operation *operation, struct lab *lab, struct err *err)
{
    return operation->run(lab, operation, err);
}

/* A stop behind so many steps, or none (0), and an orderly recovery. */
static char *picture_behind(const struct operation *operation, size_t stop_after, struct lab *lab)
{
    struct err err;

    operation_begin(operation, lab);
    lab->stop_after = stop_after;
    bool ok = operation_run(operation, lab, &err);
    if (!ok && stop_after == 0)
        fail_msg("%s: %s", operation->name, err.text);
    lab_kill(lab);
    lab_recover(lab);
    lab_check(lab, operation->name);
    return lab_picture(lab);
}

static void pictures_add(struct pictures *pictures, char *picture)
{
    if (pictures_find(pictures, picture) < pictures->count) {
        free(picture);
        return;
    }
    assert_true(pictures->count < ARRAY_SIZE(pictures->pictures));
    pictures->pictures[pictures->count++] = picture;
}

size_t pictures_find(const struct pictures *pictures, const char *picture)
{
    size_t i = 0;

    while (i < pictures->count && strcmp(pictures->pictures[i], picture) != 0)
        i++;
    return i;
}

void pictures_take(const struct operation *operation, struct pictures *ret_pictures)
{
    struct pictures pictures = {0};
    struct lab lab;

    operation_begin(operation, &lab);
    pictures_add(&pictures, lab_picture(&lab));
    lab_done(&lab);
    char *after = picture_behind(operation, 0, &lab);
    size_t commits[ARRAY_SIZE(lab.commits)];
    memcpy(commits, lab.commits, sizeof commits);
    pictures.steps = lab.steps;
    lab_done(&lab);
    for (size_t i = 0; i < ARRAY_SIZE(commits) && commits[i]; i++) {
        pictures_add(&pictures, picture_behind(operation, commits[i], &lab));
        lab_done(&lab);
    }
    assert_true(operation->is_refused || strcmp(after, pictures.pictures[0]) != 0);
    pictures_add(&pictures, after);
    *ret_pictures = pictures;
}

void pictures_done(struct pictures *pictures)
{
    for (size_t i = 0; i < pictures->count; i++)
        free(pictures->pictures[i]);
}

void operation_check(struct lab *lab, const struct pictures *pictures, const char *where)
{
    lab_check(lab, where);
    AUTO_FREE char *now = lab_picture(lab);
    if (pictures_find(pictures, now) < pictures->count)
        return;
    fprintf(stderr, "%s\n--- before\n%s--- after\n%s--- now\n%s", where, pictures->pictures[0],
            pictures->pictures[pictures->count - 1], now);
    fail_msg("%s: neither as before nor as after", where);
}

void operation_end(struct lab *lab, const struct pictures *pictures, uint64_t seed, const char *where)
{
    lab_stop(lab);
    lab_check(lab, where);
    lab_power_cut(lab, seed);
    lab_recover(lab);
    operation_check(lab, pictures, where);
    lab_done(lab);
}
