/* The power goes at each call of each operation on a VM that does not run, and the disk keeps some of what
 * was not synced: after recovery the VM is as before or as after, whole, and nothing else is left. The same
 * with a full disk at each call, where the process lives on. */
#include "store_sample.h"

#include "auto.h"
#include "random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* More power cuts at each call, by number of seeds, for a longer run. */
static unsigned seeds_per_call(void)
{
    const char *text = getenv("BOUGH_TEST_SEEDS");
    unsigned seeds = text ? (unsigned)strtoul(text, NULL, 10) : 0;

    return seeds ? seeds : 6;
}

/* --- the VM that each operation is done to ---
 * 1 (off) - 2 (with memory) - 3 (off) - Now;  1 - 4 (off) */
static void do_or_die(bool ok, const struct err *err)
{
    if (!ok)
        fail_msg("%s", err->text);
}

static void build_new(struct place *place)
{
    struct err err;

    place_new(place, IO_MEMORY_FORGETS);
    place->with_nvram = true;
    do_or_die(place_create(place, &err), &err);
    io_memory_sync_all(place->memory);
}

static void build_tree(struct place *place)
{
    struct err err;

    build_new(place);
    struct store *store = place_open(place);
    do_or_die(place_snapshot(place, store, MACHINE_OFF, &err), &err);
    do_or_die(place_snapshot(place, store, MACHINE_OFF, &err), &err);
    do_or_die(place_apply(place, store, 0, (struct plan_apply){.machine = MACHINE_OFF}, &err), &err);
    do_or_die(place_save(place, store, &err), &err);
    do_or_die(place_snapshot(place, store, MACHINE_SAVED, &err), &err);
    do_or_die(
        place_apply(place, store, 2, (struct plan_apply){.machine = MACHINE_SAVED, .disks_only = true}, &err),
        &err);
    do_or_die(place_snapshot(place, store, MACHINE_OFF, &err), &err);
    do_or_die(place_save(place, store, &err), &err);
    store_close(store);
    io_memory_sync_all(place->memory);
}

/* --- the operations --- */
typedef bool operation_fn(struct place *place, struct store *store, struct err *err);

static bool op_snapshot(struct place *place, struct store *store, struct err *err)
{
    return place_snapshot(place, store, MACHINE_SAVED, err);
}

static bool op_apply_off(struct place *place, struct store *store, struct err *err)
{
    return place_apply(place, store, 1, (struct plan_apply){.machine = MACHINE_SAVED}, err);
}

static bool op_apply_saved(struct place *place, struct store *store, struct err *err)
{
    return place_apply(place, store, 2, (struct plan_apply){.machine = MACHINE_SAVED, .no_start = true}, err);
}

static bool op_delete_leaf(struct place *place, struct store *store, struct err *err)
{
    (void)place;
    return place_delete(store, 1, false, err);
}

static bool op_delete_middle(struct place *place, struct store *store, struct err *err)
{
    (void)place;
    return place_delete(store, 2, false, err);
}

static bool op_delete_all(struct place *place, struct store *store, struct err *err)
{
    (void)place;
    return place_delete(store, 0, true, err);
}

static bool op_drop_saved(struct place *place, struct store *store, struct err *err)
{
    AUTO_CONFIG struct config *vm = config_copy(store_tree(store)->vm);
    AUTO_PLAN struct plan *plan = NULL;

    (void)place;
    vm->saved = (struct guid){0};
    vm->cpus = 2;
    return plan_settings(store_tree(store), vm, "stop", &plan, err) &&
           store_run(store, plan, NULL, NULL, err);
}

static bool op_text(struct place *place, struct store *store, struct err *err)
{
    struct guid guid = store_tree(store)->snapshots[1]->snapshot;
    AUTO_PLAN struct plan *plan = NULL;

    (void)place;
    return plan_snapshot_text(store_tree(store), &guid, "other", "notes", &plan, err) &&
           store_run(store, plan, NULL, NULL, err);
}

static bool op_snapshot_off(struct place *place, struct store *store, struct err *err)
{
    return place_snapshot(place, store, MACHINE_OFF, err);
}

static bool op_snapshot_live(struct place *place, struct store *store, struct err *err)
{
    return place_snapshot_live(place, store, err);
}

/* Done means here: the machine had no space, and the VM is as before. */
static bool op_snapshot_refused(struct place *place, struct store *store, struct err *err)
{
    AUTO_FREE char *top = strdup(store_tree(store)->vm->disks[0].path);

    place->machine_refuses = true;
    return !place_snapshot_live(place, store, err) && err->code == ERR_NO_SPACE && !store_is_uncertain(store) &&
           strcmp(store_tree(store)->vm->disks[0].path, top) == 0;
}

static const struct operation {
    const char *name;
    void (*build)(struct place *place);
    operation_fn *run;
} OPERATIONS[] = {
    {"first snapshot", build_new, op_snapshot_off},
    {"first live snapshot", build_new, op_snapshot_live},
    {"live snapshot without space", build_new, op_snapshot_refused},
    {"snapshot, saved", build_tree, op_snapshot},
    {"apply, taken off", build_tree, op_apply_off},
    {"apply, saved", build_tree, op_apply_saved},
    {"delete a leaf", build_tree, op_delete_leaf},
    {"delete in the middle", build_tree, op_delete_middle},
    {"delete all", build_tree, op_delete_all},
    {"drop saved state", build_tree, op_drop_saved},
    {"text", build_tree, op_text},
};

/* --- what must hold --- */

/* Images draw their unique ids. */
static void ids_mask(char *picture)
{
    for (char *at = picture; (at = strchr(at, '>')) != NULL;) {
        at++;
        if (strspn(at, "0123456789abcdef") == 32 && at[32] == '<')
            memset(at, 'X', 32);
    }
}

/* Homes have names of their own: pictures are compared without. */
static char *picture_of(const struct place *place)
{
    AUTO_FREE char *picture = place_picture(place);
    ids_mask(picture);
    struct buf text = BUF_INIT;

    for (const char *at = picture; *at != '\0';) {
        const char *found = strstr(at, place->home);
        size_t length = found ? (size_t)(found - at) : strlen(at);
        buf_append(&text, at, length);
        at += length + (found ? strlen(place->home) : 0);
    }
    return buf_take_string(&text);
}

static void assert_content(const struct io *io, const char *dir, const struct guid *guid, const char *suffix,
                           const char *where)
{
    AUTO_FREE char *path = tree_state_path(dir, guid, suffix);
    AUTO_BUF struct buf content = BUF_INIT;
    struct err err;

    if (!file_read_all(io, path, 1000, &content, &err))
        fail_msg("%s: %s", where, err.text);
    if (strcmp((char *)content.data, PLACE_MEMORY_FILE) != 0)
        fail_msg("%s: %s is damaged", where, path);
}

static void assert_state(const struct io *io, const char *dir, const struct guid *memory,
                         const struct guid *nvram, const char *where)
{
    if (guid_is_set(memory)) {
        assert_content(io, dir, memory, ".bin", where);
        assert_content(io, dir, memory, ".vsv", where);
    }
    if (guid_is_set(nvram))
        assert_content(io, dir, nvram, ".nvram", where);
}

/* Every chain verifies and every file that the settings name is there, with its content (invariant 2). */
static void assert_whole(const struct io *io, struct store *store, const char *where)
{
    const struct tree *tree = store_tree(store);
    AUTO_FREE char *state_dir = tree_vm_state_dir(tree);
    struct plan_layer *layers;
    size_t count;
    struct err err;

    if (!store_layers(store, &layers, &count, &err))
        fail_msg("%s: %s", where, err.text);
    store_layers_free(layers, count);
    assert_state(io, state_dir, &tree->vm->saved, &tree->vm->nvram, where);
    for (size_t i = 0; i < tree->snapshot_count; i++) {
        const struct config *snapshot = tree->snapshots[i];
        AUTO_FREE char *dir = tree_snapshot_dir(tree, &snapshot->snapshot);
        struct guid memory = snapshot->state_when_taken == STATE_OFF ? (struct guid){0} : snapshot->snapshot;
        assert_state(io, dir, &memory, &snapshot->nvram, where);
    }
}

/* What was sealed before and is still there has the same bytes (invariant 1). */
struct sealed {
    char *paths[16];
    struct buf bytes[16];
    size_t count;
};

static void sealed_take(const struct place *place, struct store *store, struct sealed *sealed)
{
    const struct tree *tree = store_tree(store);
    struct err err;

    for (size_t i = 0; i < tree->snapshot_count; i++, sealed->count++) {
        sealed->paths[sealed->count] = strdup(tree->snapshots[i]->disks[0].path);
        do_or_die(file_read_all(place->plain, sealed->paths[sealed->count], 64U << 20,
                                &sealed->bytes[sealed->count], &err),
                  &err);
    }
}

static void sealed_check(const struct place *place, const struct sealed *sealed, const char *where)
{
    struct err err;

    for (size_t i = 0; i < sealed->count; i++) {
        AUTO_BUF struct buf now = BUF_INIT;
        if (!io_exists(place->plain, sealed->paths[i]))
            continue;
        do_or_die(file_read_all(place->plain, sealed->paths[i], 64U << 20, &now, &err), &err);
        if (now.length != sealed->bytes[i].length || memcmp(now.data, sealed->bytes[i].data, now.length) != 0)
            fail_msg("%s: %s has changed", where, sealed->paths[i]);
    }
}

static void sealed_done(struct sealed *sealed)
{
    for (size_t i = 0; i < sealed->count; i++) {
        free(sealed->paths[i]);
        buf_done(&sealed->bytes[i]);
    }
}

/* What may be found: as before, as between two commits, as after an undisturbed run, or as that without a thumbnail. */
struct pictures {
    char *before, *between, *after, *bare;
};

static bool op_first_commit_only(struct place *place, struct store *store, struct err *err)
{
    /* Folders are synced: three before it, its own, and then the one of the saved memory, first for the thumbnail. */
    io_failing_set(place->failing, (struct io_fault){.calls = IO_CALL_SYNC_DIR, .nth = 6, .errnum = EIO});
    (void)!place_snapshot_live(place, store, err);
    io_failing_set(place->failing, (struct io_fault){0});
    return true;
}

/* Without the lines that name thumbnails. */
static char *picture_bare(const char *picture)
{
    struct buf text = BUF_INIT;

    for (const char *line = picture; *line != '\0';) {
        size_t length = strcspn(line, "\n") + 1;
        if (length < 5 || strncmp(line + length - 5, ".png", 4) != 0)
            buf_append(&text, line, length);
        line += length;
    }
    return buf_take_string(&text);
}

static char *picture_after(const struct operation *operation, operation_fn *run)
{
    struct place place;
    struct err err;

    operation->build(&place);
    struct store *store = place_open(&place);
    do_or_die(run(&place, store, &err), &err);
    store_close(store);
    char *picture = picture_of(&place);
    place_done(&place);
    return picture;
}

static void pictures_take(const struct operation *operation, struct pictures *ret_pictures)
{
    struct place place;

    operation->build(&place);
    ret_pictures->before = picture_of(&place);
    place_done(&place);
    ret_pictures->after = picture_after(operation, operation->run);
    bool is_live = operation->run == op_snapshot_live || operation->run == op_snapshot_refused;
    ret_pictures->between = picture_after(operation, is_live ? op_first_commit_only : operation->run);
    ret_pictures->bare = picture_bare(ret_pictures->after);
    assert_true((strcmp(ret_pictures->bare, ret_pictures->after) == 0) == (operation->run != op_snapshot_live));
    assert_string_not_equal(ret_pictures->before, ret_pictures->between);
    assert_true((strcmp(ret_pictures->before, ret_pictures->after) == 0) ==
                (operation->run == op_snapshot_refused));
}

static void pictures_done(struct pictures *pictures)
{
    free(pictures->before);
    free(pictures->between);
    free(pictures->after);
    free(pictures->bare);
}

static void assert_before_or_after(const struct place *place, const struct pictures *pictures,
                                   const char *where)
{
    AUTO_FREE char *now = picture_of(place);

    if (strcmp(now, pictures->before) == 0 || strcmp(now, pictures->between) == 0 ||
        strcmp(now, pictures->after) == 0 || strcmp(now, pictures->bare) == 0)
        return;
    fprintf(stderr, "%s\n--- before\n%s--- after\n%s--- now\n%s", where, pictures->before, pictures->after,
            now);
    fail_msg("%s: neither as before nor as after", where);
}

/* Recovery is itself cut off, at a call that the seed draws, and begins again. */
static void recover_twice(struct place *place, uint64_t seed)
{
    struct random random = {seed};
    struct store *store = NULL;
    struct err err;
    bool is_alive;

    io_failing_set(place->failing, (struct io_fault){.calls = IO_CALLS_CHANGES,
                                                     .nth = 1 + random_below(&random, 8),
                                                     .errnum = EIO,
                                                     .forever = true});
    if (store_open(place->io, place->vm_dir, "recover", true, &store, &is_alive, &err))
        store_close(store);
    io_failing_set(place->failing, (struct io_fault){0});
    io_memory_crash(place->memory, seed);
}

/* False: the operation was over before the call came. */
static bool cut_at(const struct operation *operation, uint64_t nth, uint64_t seed,
                   const struct pictures *pictures)
{
    struct place place;
    struct sealed sealed = {0};
    struct err err;
    char where[128];
    struct random random = {seed};
    bool is_done_anyway = random_below(&random, 2);
    uint64_t kind = random_below(&random, 3);

    snprintf(where, sizeof where, "%s, call %llu, seed %llu", operation->name, (unsigned long long)nth,
             (unsigned long long)seed);
    operation->build(&place);
    struct store *store = place_open(&place);
    sealed_take(&place, store, &sealed);
    io_failing_set(place.failing, (struct io_fault){.calls = IO_CALLS_CHANGES,
                                                    .nth = nth,
                                                    .errnum = EIO,
                                                    .done_anyway = is_done_anyway,
                                                    .forever = true});
    bool ok = operation->run(&place, store, &err);
    bool struck = io_failing_struck(place.failing);
    store_close(store);
    io_failing_set(place.failing, (struct io_fault){0});
    /* Now and then only the process dies, somebody recovers, and then the power goes. */
    if (kind == 1)
        store_close(place_open(&place));
    io_memory_crash(place.memory, seed);
    if (kind == 2)
        recover_twice(&place, seed);
    store = place_open(&place);
    assert_whole(place.plain, store, where);
    store_close(store);
    assert_before_or_after(&place, pictures, where);
    sealed_check(&place, &sealed, where);
    if (ok) { /* success was told: that it is lost would be a lie */
        AUTO_FREE char *now = picture_of(&place);
        assert_string_equal(now, pictures->after);
    }
    sealed_done(&sealed);
    place_done(&place);
    return struck;
}

static void a_power_cut_at_any_call_leaves_before_or_after(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(OPERATIONS); i++) {
        struct pictures pictures;
        pictures_take(&OPERATIONS[i], &pictures);
        uint64_t nth = 1;
        for (bool struck = true; struck; nth++) {
            struck = false;
            for (uint64_t seed = 1; seed <= seeds_per_call(); seed++)
                struck |= cut_at(&OPERATIONS[i], nth, seed * 1000 + nth, &pictures);
        }
        assert_true(nth > 3);
        pictures_done(&pictures);
    }
}

/* ENOSPC where the kernel may say so: not when something is removed. */
#define NO_SPACE_CALLS                                                                                       \
    (IO_CALL_CREATE | IO_CALL_WRITE | IO_CALL_TRUNCATE | IO_CALL_SYNC | IO_CALL_ALLOCATE | IO_CALL_RENAME |  \
     IO_CALL_LINK | IO_CALL_SYNC_DIR)

/* One call of the operation fails, or (pages not 0) the disk has room for so many pages more. */
static bool error_at(const struct operation *operation, const struct io_fault *fault, uint64_t pages,
                     const struct pictures *pictures)
{
    struct place place;
    struct err err = ERR_INIT;
    char where[128];

    snprintf(where, sizeof where, "%s, error %d at call %llu, %llu pages", operation->name, fault->errnum,
             (unsigned long long)fault->nth, (unsigned long long)pages);
    operation->build(&place);
    struct store *store = place_open(&place);
    io_failing_set(place.failing, *fault);
    if (pages)
        io_memory_limit(place.memory, io_memory_taken_bytes(place.memory) + (pages - 1) * 4096);
    bool ok = operation->run(&place, store, &err);
    bool struck = io_failing_struck(place.failing);
    bool is_uncertain = store_is_uncertain(store);
    if (!ok && fault->errnum == ENOSPC && err.code != ERR_NO_SPACE)
        fail_msg("%s: %s", where, err.text);
    io_failing_set(place.failing, (struct io_fault){0});
    io_memory_limit(place.memory, 0);
    /* The process cleans up by itself, and goes on with what is true. */
    if (!is_uncertain && fault->errnum == ENOSPC)
        assert_before_or_after(&place, pictures, where);
    assert_whole(place.plain, store, where);
    store_close(store);
    io_memory_crash(place.memory, fault->nth);
    store = place_open(&place);
    assert_whole(place.plain, store, where);
    store_close(store);
    assert_before_or_after(&place, pictures, where);
    place_done(&place);
    return struck;
}

static void a_full_disk_at_any_call_leaves_before_or_after(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(OPERATIONS); i++) {
        struct io_fault fault = {.calls = NO_SPACE_CALLS, .nth = 1, .errnum = ENOSPC};
        struct pictures pictures;
        pictures_take(&OPERATIONS[i], &pictures);
        while (error_at(&OPERATIONS[i], &fault, 0, &pictures))
            fault.nth++;
        assert_true(fault.nth > 2);
        fault.nth = 0;
        for (uint64_t pages = 1; pages < 12; pages++)
            error_at(&OPERATIONS[i], &fault, pages, &pictures);
        pictures_done(&pictures);
    }
}

static void an_error_of_any_call_leaves_before_or_after(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(OPERATIONS); i++) {
        struct io_fault fault = {.calls = IO_CALLS_ALL, .nth = 1, .errnum = EIO};
        struct pictures pictures;
        pictures_take(&OPERATIONS[i], &pictures);
        while (error_at(&OPERATIONS[i], &fault, 0, &pictures))
            fault.nth++;
        assert_true(fault.nth > 10);
        pictures_done(&pictures);
    }
}

/* What recovery cannot read must not look like garbage to it. */
static bool recovery_error_at(const struct operation *operation, uint64_t cut, uint64_t nth,
                              const struct pictures *pictures)
{
    struct place place;
    struct err err;
    bool is_alive;
    char where[128];

    snprintf(where, sizeof where, "%s, cut at %llu, recovery's call %llu", operation->name,
             (unsigned long long)cut, (unsigned long long)nth);
    operation->build(&place);
    struct store *store = place_open(&place);
    io_failing_set(place.failing,
                   (struct io_fault){.calls = IO_CALLS_CHANGES, .nth = cut, .errnum = EIO, .forever = true});
    (void)!operation->run(&place, store, &err);
    store_close(store);
    io_failing_set(place.failing, (struct io_fault){.calls = IO_CALLS_ALL, .nth = nth, .errnum = EIO});
    if (store_open(place.io, place.vm_dir, "recover", true, &store, &is_alive, &err))
        store_close(store);
    bool struck = io_failing_struck(place.failing);
    io_failing_set(place.failing, (struct io_fault){0});
    store = place_open(&place);
    assert_whole(place.plain, store, where);
    store_close(store);
    assert_before_or_after(&place, pictures, where);
    place_done(&place);
    return struck;
}

static void an_error_of_any_call_of_recovery_does_no_harm(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(OPERATIONS); i++) {
        struct pictures pictures;
        pictures_take(&OPERATIONS[i], &pictures);
        for (uint64_t cut = 5; cut < 50; cut += 15) {
            uint64_t nth = 1;
            while (recovery_error_at(&OPERATIONS[i], cut, nth, &pictures))
                nth++;
            assert_true(nth > 10);
        }
        pictures_done(&pictures);
    }
}

/* --- creating --- */

static void a_power_cut_while_creating_leaves_a_vm_or_none(void **state)
{
    bool struck = true;

    (void)state;
    for (uint64_t nth = 1; struck; nth++) {
        struct place place;
        struct err err;
        char **names, *dir = NULL;
        place_new(&place, IO_MEMORY_FORGETS);
        io_memory_sync_all(place.memory);
        io_failing_set(place.failing, (struct io_fault){.calls = IO_CALLS_CHANGES,
                                                        .nth = nth,
                                                        .errnum = EIO,
                                                        .done_anyway = nth & 1,
                                                        .forever = true});
        bool ok = place_create(&place, &err);
        struck = io_failing_struck(place.failing);
        io_failing_set(place.failing, (struct io_fault){0});
        io_memory_crash(place.memory, nth);
        do_or_die(store_list(place.io, &names, &err), &err);
        assert_true(!ok || names[0]);
        if (names[0]) {
            struct store *store = place_open(&place);
            assert_whole(place.plain, store, "create");
            store_close(store);
        } else {
            /* The next one takes away what is left. */
            AUTO_CONFIG struct config *vm = sample_vm(place.vm_dir);
            do_or_die(config_set_string(&vm->name, "next", &err) &&
                          store_create(place.io, vm, place_make_disk, (void *)place.io, &dir, &err),
                      &err);
            free(dir);
            AUTO_BUF struct buf text = BUF_INIT;
            place_list(place.plain, place.home, false, &text);
            assert_null(strstr((char *)text.data, ".new~"));
        }
        store_list_free(names);
        place_done(&place);
    }
}

static void a_full_disk_while_creating_leaves_none(void **state)
{
    bool struck = true;

    (void)state;
    for (uint64_t nth = 1; struck; nth++) {
        struct place place;
        struct err err = ERR_INIT;
        place_new(&place, IO_MEMORY_PLAIN);
        io_failing_set(
            place.failing,
            (struct io_fault){.calls = NO_SPACE_CALLS & ~IO_CALL_SYNC_DIR, .nth = nth, .errnum = ENOSPC});
        bool ok = place_create(&place, &err);
        struck = io_failing_struck(place.failing);
        AUTO_BUF struct buf text = BUF_INIT;
        place_list(place.plain, place.home, false, &text);
        assert_int_equal(ok, !struck);
        assert_true(ok || (err.code == ERR_NO_SPACE && text.length == 0));
        place_done(&place);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_power_cut_at_any_call_leaves_before_or_after),
        cmocka_unit_test(a_full_disk_at_any_call_leaves_before_or_after),
        cmocka_unit_test(an_error_of_any_call_leaves_before_or_after),
        cmocka_unit_test(an_error_of_any_call_of_recovery_does_no_harm),
        cmocka_unit_test(a_power_cut_while_creating_leaves_a_vm_or_none),
        cmocka_unit_test(a_full_disk_while_creating_leaves_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
