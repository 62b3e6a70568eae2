/* Plans that fail or are cancelled, with a machine and without: what is taken back, and what stays. */
#include "store_sample.h"

#include "auto.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

struct script {
    struct place *place;
    struct store *store;
    struct buf *log;
    int fail_at; /* the kind of the machine's step that fails; -1: none */
    bool commit_fails;
    bool may_go_back, disk_is_full; /* when it is asked */
};

static bool script_step(void *context, struct plan *plan, size_t index, struct err *err)
{
    struct script *script = context;
    const struct step *step = &plan->steps[index];

    buf_printf(script->log, "%s ", step_name(step->kind));
    if (step->kind == STEP_SAVE_THUMBNAIL)
        place_write(script->place, step->path, PLACE_MEMORY_FILE);
    if ((int)step->kind == script->fail_at)
        return err_set(err, ERR_QEMU, "the machine refused");
    if (step->kind == STEP_SAVE_MEMORY) {
        AUTO_FREE char *bin = string_printf("%s.bin", step->path);
        AUTO_FREE char *vsv = string_printf("%s.vsv", step->path);
        place_write(script->place, bin, PLACE_MEMORY_FILE);
        place_write(script->place, vsv, PLACE_MEMORY_FILE);
    }
    return true;
}

static void script_abort(void *context, const struct plan *plan, size_t index)
{
    struct script *script = context;

    buf_printf(script->log, "abort@%s%s ", step_name(plan->steps[index].kind),
               store_is_uncertain(script->store) ? "?" : "");
}

static bool script_may_go_back(void *context)
{
    const struct script *script = context;

    if (script->disk_is_full)
        io_failing_set(script->place->failing,
                       (struct io_fault){.calls = IO_CALL_WRITE, .nth = 1, .errnum = ENOSPC, .again = true});
    return script->may_go_back;
}

static bool run_live(struct script *script, struct err *err)
{
    struct plan_source source = place_source(script->place);
    struct plan_snapshot request = {
        .machine = MACHINE_RUNNING, .name = "live", .qemu_version = "7.2.1", .accel_used = ACCEL_TCG};
    struct store_machine machine = {
        .step = script_step, .abort = script_abort, .may_go_back = script_may_go_back, .context = script};
    AUTO_PLAN struct plan *plan = NULL;
    struct guid guid;

    return plan_snapshot(store_tree(script->store), &source, &request, &plan, &guid, err) &&
           store_run(script->store, plan, &machine, NULL, err);
}

static void a_live_snapshot_calls_its_machine_in_order(void **state)
{
    struct place *place = *state;
    AUTO_BUF struct buf log = BUF_INIT;
    struct script script = {.place = place, .store = place_open(place), .log = &log, .fail_at = -1};
    struct err err;

    OK(run_live(&script, &err));
    assert_string_equal((char *)log.data, "prepare-tops save-memory save-thumbnail flush-sealed ");
    const struct config *snapshot = store_tree(script.store)->snapshots[0];
    assert_int_equal(snapshot->state_when_taken, STATE_RUNNING);
    assert_true(place_exists(place, "Snapshots/%s/%s.bin", snapshot->snapshot.text, snapshot->snapshot.text));
    assert_true(place_exists(place, "Snapshots/%s/%s.png", snapshot->snapshot.text, snapshot->snapshot.text));
    store_close(script.store);
}

static void a_thumbnail_goes_with_its_snapshot_and_is_not_missed(void **state)
{
    for (int is_there = 0; is_there <= 1; is_there++) {
        struct place *place = *state;
        struct store *store = place_open(place);
        struct plan_layer *layers;
        size_t count;
        struct err err;
        OK(place_snapshot_live(place, store, &err));
        struct guid guid = store_tree(store)->snapshots[0]->snapshot;
        AUTO_FREE char *dir = tree_snapshot_dir(store_tree(store), &guid);
        AUTO_FREE char *path = tree_state_path(dir, &guid, ".png");
        assert_true(io_exists(place->io, path));
        store_close(store);
        store = place_open(place); /* recovery leaves it alone */
        assert_true(io_exists(place->io, path));
        if (!is_there)
            OK(io_unlink(place->io, path, &err));
        OK(store_layers(store, &layers, &count, &err));
        AUTO_PLAN struct plan *plan = NULL;
        OK(plan_delete(store_tree(store), &guid, false, layers, count, &plan, &err));
        OK(store_run(store, plan, NULL, NULL, &err));
        store_layers_free(layers, count);
        assert_false(io_exists(place->io, dir));
        store_close(store);
    }
}

static void a_live_snapshot_that_fails_before_its_first_commit_leaves_nothing(void **state)
{
    struct place *place = *state;
    AUTO_BUF struct buf log = BUF_INIT;
    AUTO_FREE char *before = place_picture(place);
    struct script script = {
        .place = place, .store = place_open(place), .log = &log, .fail_at = STEP_PREPARE_TOPS};
    struct err err;

    assert_false(run_live(&script, &err));
    assert_int_equal(err.code, ERR_QEMU);
    assert_string_equal((char *)log.data, "prepare-tops abort@prepare-tops ");
    AUTO_FREE char *after = place_picture(place);
    assert_string_equal(before, after);
    store_close(script.store);
}

static void a_live_snapshot_that_may_go_back_behind_its_first_commit_leaves_nothing(void **state)
{
    struct place *place = *state;
    AUTO_BUF struct buf log = BUF_INIT;
    AUTO_FREE char *before = place_picture(place);
    struct script script = {.place = place,
                            .store = place_open(place),
                            .log = &log,
                            .fail_at = STEP_SAVE_MEMORY,
                            .may_go_back = true};
    AUTO_FREE char *top = strdup(store_tree(script.store)->vm->disks[0].path);
    struct err err;

    assert_false(run_live(&script, &err));
    assert_string_equal((char *)log.data, "prepare-tops save-memory abort@save-memory ");
    assert_string_equal(store_tree(script.store)->vm->disks[0].path, top);
    AUTO_FREE char *after = place_picture(place);
    assert_string_equal(before, after);
    script.fail_at = -1;
    OK(run_live(&script, &err)); /* and the next one works */
    store_close(script.store);
}

static void a_live_snapshot_that_cannot_go_back_for_want_of_space_keeps_its_new_top(void **state)
{
    struct place *place = *state;
    AUTO_BUF struct buf log = BUF_INIT;
    struct script script = {.place = place,
                            .store = place_open(place),
                            .log = &log,
                            .fail_at = STEP_SAVE_MEMORY,
                            .may_go_back = true,
                            .disk_is_full = true};
    AUTO_FREE char *top = strdup(store_tree(script.store)->vm->disks[0].path);
    struct err err;

    assert_false(run_live(&script, &err));
    assert_int_equal(err.code, ERR_QEMU);
    assert_false(store_is_uncertain(script.store));
    const char *now = store_tree(script.store)->vm->disks[0].path;
    assert_string_not_equal(now, top);
    assert_true(io_exists(place->io, now));
    store_close(script.store);
}

static void a_live_snapshot_that_fails_between_its_commits_leaves_a_layer_without_a_name(void **state)
{
    struct place *place = *state;

    for (int kind = STEP_SAVE_MEMORY; kind <= STEP_FLUSH_SEALED; kind++) {
        AUTO_BUF struct buf log = BUF_INIT;
        struct script script = {.place = place, .store = place_open(place), .log = &log, .fail_at = kind};
        struct plan_layer *layers;
        size_t count, depth = (size_t)(kind - STEP_SAVE_MEMORY) + 2;
        struct err err;
        assert_false(run_live(&script, &err));
        assert_non_null(strstr((char *)log.data, "abort@"));
        assert_int_equal(store_tree(script.store)->snapshot_count, 0);
        AUTO_FREE char *picture = place_picture(place);
        assert_null(strstr(picture, ".bin"));
        assert_null(strstr(picture, ".png"));
        OK(store_layers(script.store, &layers, &count, &err));
        assert_int_equal(count, depth);
        store_layers_free(layers, count);
        store_close(script.store);
        store_close(place_open(place)); /* recovery takes nothing of it */
        AUTO_FREE char *after = place_picture(place);
        assert_string_equal(picture, after);
    }
}

static void an_unsynced_commit_is_taken_back_where_the_disk_works_again(void **state)
{
    struct place *place = *state;
    struct store *store = place_open(place);
    struct err err;

    OK(place_snapshot(place, store, MACHINE_OFF, &err));
    AUTO_FREE char *before = place_picture(place);
    bool applied = false;
    unsigned nth = 1;
    for (; !applied; nth++) {
        io_failing_set(place->failing,
                       (struct io_fault){.calls = IO_CALL_SYNC_DIR, .nth = nth, .errnum = EIO});
        applied = place_apply(place, store, 0, (struct plan_apply){.machine = MACHINE_OFF}, &err);
        bool struck = io_failing_struck(place->failing);
        io_failing_set(place->failing, (struct io_fault){0});
        assert_false(store_is_uncertain(store));
        AUTO_FREE char *after = place_picture(place);
        if (!applied)
            assert_string_equal(before, after);
        else
            assert_false(struck);
    }
    assert_true(nth > 3); /* the commit's own sync was among those that failed */
    store_close(store);
}

static void an_unsynced_commit_is_uncertain_and_sweeps_nothing(void **state)
{
    struct place *place = *state;
    struct store *store = place_open(place);
    struct err err;

    OK(place_snapshot(place, store, MACHINE_OFF, &err));
    AUTO_FREE char *old_top = strdup(store_tree(store)->vm->disks[0].path);
    AUTO_FREE char *before = place_picture(place);
    /* Of the folder syncs of an apply the last is the commit's; while syncs fail it cannot be taken back. */
    uint64_t syncs = 0;
    for (unsigned nth = 1; syncs == 0; nth++) {
        io_failing_set(
            place->failing,
            (struct io_fault){.calls = IO_CALL_SYNC_DIR, .nth = nth, .errnum = EIO, .again = true});
        if (place_apply(place, store, 0, (struct plan_apply){.machine = MACHINE_OFF}, &err))
            fail_msg("no commit was uncertain");
        if (store_is_uncertain(store))
            syncs = nth;
    }
    assert_true(io_exists(place->plain, old_top));
    /* The file of before has its name again, but whether a power cut leaves it is not known: the new layer
     * stays. */
    assert_string_equal(store_tree(store)->vm->disks[0].path, old_top);
    AUTO_FREE char *after = place_picture(place);
    assert_true(strlen(after) > strlen(before));
    io_failing_set(place->failing, (struct io_fault){0});
    OK(place_apply(place, store, 0, (struct plan_apply){.machine = MACHINE_OFF}, &err));
    assert_false(store_is_uncertain(store));
    store_close(store);
}

static bool always(void *context)
{
    (void)context;
    return true;
}

static void a_cancelled_plan_leaves_nothing(void **state)
{
    struct place *place = *state;
    struct store *store = place_open(place);
    AUTO_FREE char *before = place_picture(place);
    struct progress progress = {.cancelled = always};
    struct plan_source source = place_source(place);
    struct plan_snapshot request = {.machine = MACHINE_OFF};
    AUTO_PLAN struct plan *plan = NULL;
    struct guid guid;
    struct err err;

    OK(plan_snapshot(store_tree(store), &source, &request, &plan, &guid, &err));
    assert_false(store_run(store, plan, NULL, &progress, &err));
    assert_int_equal(err.code, ERR_CANCELLED);
    AUTO_FREE char *after = place_picture(place);
    assert_string_equal(before, after);
    store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_live_snapshot_calls_its_machine_in_order),
        TEST(a_thumbnail_goes_with_its_snapshot_and_is_not_missed),
        TEST(a_live_snapshot_that_may_go_back_behind_its_first_commit_leaves_nothing),
        TEST(a_live_snapshot_that_cannot_go_back_for_want_of_space_keeps_its_new_top),
        TEST(a_live_snapshot_that_fails_before_its_first_commit_leaves_nothing),
        TEST(a_live_snapshot_that_fails_between_its_commits_leaves_a_layer_without_a_name),
        TEST(an_unsynced_commit_is_taken_back_where_the_disk_works_again),
        TEST(an_unsynced_commit_is_uncertain_and_sweeps_nothing),
        TEST(a_cancelled_plan_leaves_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
