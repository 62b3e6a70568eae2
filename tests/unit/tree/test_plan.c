/* The shapes of plans: which steps, in which order, for each operation and state. */
#include "tree_sample.h"

#include "auto.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* "make-dir create-layer ... commit", without folders and their syncs, which all have. */
static char *shape(const struct plan *plan)
{
    struct buf text = BUF_INIT;

    for (size_t i = 0; i < plan->step_count; i++)
        if (plan->steps[i].kind != STEP_MAKE_DIR && plan->steps[i].kind != STEP_SYNC_DIR)
            assert_true(buf_printf(&text, "%s%s", text.length ? " " : "", step_name(plan->steps[i].kind)));
    return buf_take_string(&text);
}

static void assert_shape(const struct plan *plan, const char *expected)
{
    AUTO_FREE char *text = shape(plan);

    assert_string_equal(text, expected);
}

static const struct step *find_step(const struct plan *plan, enum step_kind kind, size_t number)
{
    for (size_t i = 0; i < plan->step_count; i++)
        if (plan->steps[i].kind == kind && number-- == 0)
            return &plan->steps[i];
    fail_msg("the plan has no such step");
    return NULL;
}

static bool has_path(const struct plan *plan, enum step_kind kind, const char *path)
{
    for (size_t i = 0; i < plan->step_count; i++)
        if (plan->steps[i].kind == kind && strcmp(plan->steps[i].path, path) == 0)
            return true;
    return false;
}

/* A VM of generation 2 with a disk in its folder, one outside, and a CD. */
static struct config *vm_with_all(void)
{
    struct config *vm = sample_vm(SAMPLE_DIR);

    free(vm->disks[0].path);
    vm->disk_count = 0;
    vm->generation = 2;
    vm->nvram = sample_guid(500);
    sample_disk(vm, BUS_SCSI, 0, false, SAMPLE_DIR "/web.vhd");
    sample_disk(vm, BUS_VIRTIO, 0, false, "/srv/data.vhd");
    sample_disk(vm, BUS_SCSI, 1, true, "/srv/a.iso");
    return vm;
}

static struct plan *take(const struct tree *tree, enum plan_machine machine, struct guid *guid)
{
    struct plan_snapshot request = {
        .machine = machine, .name = "s", .qemu_version = "7.2.1", .accel_used = ACCEL_TCG};
    unsigned counter = 100;
    struct plan_source source = SAMPLE_SOURCE(&counter);
    struct plan *plan;
    struct err err;

    if (!plan_snapshot(tree, &source, &request, &plan, guid, &err))
        fail_msg("%s", err.text);
    return plan;
}

static void a_snapshot_of_an_off_vm_is_one_commit(void **state)
{
    AUTO_TREE struct tree *tree = sample_tree(sample_vm(SAMPLE_DIR), NULL, 0);
    struct guid guid;
    AUTO_PLAN struct plan *plan = take(tree, MACHINE_OFF, &guid);
    AUTO_FREE char *dir = tree_snapshot_dir(tree, &guid);

    (void)state;
    assert_shape(plan, "create-layer write-config commit");
    const struct step *layer = find_step(plan, STEP_CREATE_LAYER, 0);
    assert_string_equal(layer->from, SAMPLE_DIR "/web.vhd");
    assert_true(tree_is_layer(tree, layer->path));
    const struct config *snapshot = find_step(plan, STEP_WRITE_CONFIG, 0)->config;
    assert_true(snapshot->is_snapshot);
    assert_string_equal(snapshot->disks[0].path, SAMPLE_DIR "/web.vhd");
    assert_int_equal(snapshot->state_when_taken, STATE_OFF);
    assert_false(guid_is_set(&snapshot->memory));
    const struct config *vm = find_step(plan, STEP_COMMIT, 0)->config;
    assert_string_equal(vm->disks[0].path, layer->path);
    assert_string_equal(vm->parent.text, guid.text);
    assert_int_equal(vm->listed_count, 1);
    assert_string_equal(vm->listed[0].guid.text, guid.text);
    assert_true(has_path(plan, STEP_MAKE_DIR, SAMPLE_LAYERS));
    assert_true(has_path(plan, STEP_MAKE_DIR, dir));
    assert_true(has_path(plan, STEP_SYNC_DIR, SAMPLE_LAYERS));
    assert_true(has_path(plan, STEP_SYNC_DIR, SAMPLE_DIR "/Snapshots"));
    assert_true(has_path(plan, STEP_SYNC_DIR, SAMPLE_DIR));
}

static void every_hard_disk_gets_a_layer_and_a_cd_does_not(void **state)
{
    AUTO_TREE struct tree *tree = sample_tree(vm_with_all(), NULL, 0);
    struct guid guid;
    AUTO_PLAN struct plan *plan = take(tree, MACHINE_OFF, &guid);

    (void)state;
    assert_shape(plan, "create-layer create-layer copy-file write-config commit");
    assert_string_equal(find_step(plan, STEP_CREATE_LAYER, 1)->from, "/srv/data.vhd");
    const struct config *vm = find_step(plan, STEP_COMMIT, 0)->config;
    assert_string_equal(vm->disks[1].path, "/srv/a.iso");
    assert_string_equal(vm->nvram.text, tree->vm->nvram.text);
    const struct config *snapshot = find_step(plan, STEP_WRITE_CONFIG, 0)->config;
    assert_string_not_equal(snapshot->nvram.text, tree->vm->nvram.text);
    assert_non_null(strstr(find_step(plan, STEP_COPY_FILE, 0)->path, snapshot->nvram.text));
}

static void a_live_snapshot_takes_the_nvram_at_the_instant(void **state)
{
    AUTO_TREE struct tree *tree = sample_tree(vm_with_all(), NULL, 0);
    struct guid guid;
    AUTO_PLAN struct plan *plan = take(tree, MACHINE_RUNNING, &guid);

    (void)state;
    assert_shape(plan, "create-layer create-layer prepare-tops commit save-memory flush-sealed write-config commit");
    assert_non_null(strstr(find_step(plan, STEP_SAVE_MEMORY, 0)->from, tree->vm->nvram.text));
    const struct config *snapshot = find_step(plan, STEP_WRITE_CONFIG, 0)->config;
    assert_string_not_equal(snapshot->nvram.text, tree->vm->nvram.text);
}

static void a_live_snapshot_is_two_commits(void **state)
{
    AUTO_TREE struct tree *tree = sample_tree(sample_vm(SAMPLE_DIR), NULL, 0);
    struct guid guid;
    AUTO_PLAN struct plan *plan = take(tree, MACHINE_RUNNING, &guid);
    AUTO_PLAN struct plan *paused = take(tree, MACHINE_PAUSED, &guid);
    AUTO_FREE char *dir = tree_snapshot_dir(tree, &guid);
    AUTO_FREE char *prefix = tree_state_path(dir, &guid, "");

    (void)state;
    assert_shape(plan, "create-layer prepare-tops commit save-memory flush-sealed write-config commit");
    assert_shape(paused, "create-layer prepare-tops commit save-memory flush-sealed write-config commit");
    const struct config *first = find_step(plan, STEP_COMMIT, 0)->config;
    const struct config *second = find_step(plan, STEP_COMMIT, 1)->config;
    assert_string_equal(first->disks[0].path, find_step(plan, STEP_CREATE_LAYER, 0)->path);
    assert_int_equal(first->listed_count, 0);
    assert_false(guid_is_set(&first->parent));
    assert_string_equal(second->disks[0].path, first->disks[0].path);
    assert_int_equal(second->listed_count, 1);
    const struct step *save = find_step(plan, STEP_SAVE_MEMORY, 0);
    assert_int_equal(save->state, STATE_RUNNING);
    assert_int_equal(find_step(paused, STEP_SAVE_MEMORY, 0)->state, STATE_PAUSED);
    assert_string_equal(save->path, prefix);
    const struct config *snapshot = find_step(plan, STEP_WRITE_CONFIG, 0)->config;
    assert_string_equal(snapshot->disks[0].path, SAMPLE_DIR "/web.vhd");
    assert_int_equal(snapshot->state_when_taken, STATE_RUNNING);
    assert_true(guid_is_set(&snapshot->memory));
    assert_string_equal(snapshot->qemu_version, "7.2.1");
    assert_string_equal(find_step(plan, STEP_PREPARE_TOPS, 0)->config->disks[0].path, first->disks[0].path);
}

static void only_a_live_snapshot_of_a_vm_with_a_display_has_a_thumbnail(void **state)
{
    struct config *vm = sample_vm(SAMPLE_DIR);
    struct guid guid;

    (void)state;
    vm->display = DISPLAY_VNC;
    AUTO_TREE struct tree *tree = sample_tree(vm, NULL, 0);
    AUTO_PLAN struct plan *off = take(tree, MACHINE_OFF, &guid);
    AUTO_PLAN struct plan *paused = take(tree, MACHINE_PAUSED, &guid);
    AUTO_PLAN struct plan *plan = take(tree, MACHINE_RUNNING, &guid);
    AUTO_FREE char *dir = tree_snapshot_dir(tree, &guid);
    AUTO_FREE char *path = tree_state_path(dir, &guid, ".png");

    assert_shape(off, "create-layer write-config commit");
    assert_shape(plan, "create-layer prepare-tops commit save-memory save-thumbnail flush-sealed write-config commit");
    assert_shape(paused, "create-layer prepare-tops commit save-memory save-thumbnail flush-sealed write-config commit");
    assert_true(has_path(plan, STEP_SAVE_THUMBNAIL, path));
}

static void a_diskless_live_snapshot_needs_no_first_commit(void **state)
{
    struct config *vm = sample_vm(SAMPLE_DIR);
    struct guid guid;

    (void)state;
    vm->disks[0].is_cdrom = true;
    AUTO_TREE struct tree *tree = sample_tree(vm, NULL, 0);
    AUTO_PLAN struct plan *plan = take(tree, MACHINE_RUNNING, &guid);
    assert_shape(plan, "save-memory write-config commit");
}

static struct config *saved_vm(void)
{
    struct config *vm = sample_vm(SAMPLE_DIR);

    vm->saved = sample_guid(600);
    vm->memory = sample_guid(601);
    vm->saved_state = STATE_PAUSED;
    vm->accel_used = ACCEL_KVM;
    return vm;
}

static void a_snapshot_of_a_saved_vm_shares_its_memory(void **state)
{
    AUTO_TREE struct tree *tree = sample_tree(saved_vm(), NULL, 0);
    struct guid guid;
    AUTO_PLAN struct plan *plan = take(tree, MACHINE_SAVED, &guid);

    (void)state;
    assert_shape(plan, "create-layer share-file share-file write-config commit");
    assert_non_null(strstr(find_step(plan, STEP_SHARE_FILE, 0)->from, sample_guid(600).text));
    assert_non_null(strstr(find_step(plan, STEP_SHARE_FILE, 0)->path, guid.text));
    const struct config *snapshot = find_step(plan, STEP_WRITE_CONFIG, 0)->config;
    assert_int_equal(snapshot->state_when_taken, STATE_PAUSED);
    assert_string_equal(snapshot->memory.text, sample_guid(601).text);
    assert_int_equal(snapshot->accel_used, ACCEL_KVM);
    const struct config *vm = find_step(plan, STEP_COMMIT, 0)->config;
    assert_string_equal(vm->saved.text, sample_guid(600).text);
}

static void the_default_name_has_the_time_and_fits(void **state)
{
    struct config *vm = sample_vm(SAMPLE_DIR);
    struct plan_snapshot request = {.machine = MACHINE_OFF};
    unsigned counter = 1;
    struct plan_source source = SAMPLE_SOURCE(&counter);
    struct plan *plan;
    struct guid guid;
    struct err err;
    char longest[CONFIG_NAME_MAX + 1] = {0};

    (void)state;
    memset(longest, 'n', CONFIG_NAME_MAX);
    sample_check(config_set_string(&vm->name, longest, &err), &err);
    AUTO_TREE struct tree *tree = sample_tree(vm, NULL, 0);
    assert_true(plan_snapshot(tree, &source, &request, &plan, &guid, &err));
    const char *name = find_step(plan, STEP_WRITE_CONFIG, 0)->config->name;
    assert_int_equal(strlen(name), CONFIG_NAME_MAX);
    assert_non_null(strstr(name, "n - (2023-11-1"));
    plan_free(plan);
}

static void bad_requests_are_refused(void **state)
{
    AUTO_TREE struct tree *tree = sample_tree(saved_vm(), NULL, 0);
    struct plan_snapshot request = {.machine = MACHINE_SAVED, .name = " "};
    unsigned counter = 1;
    struct plan_source source = SAMPLE_SOURCE(&counter);
    struct plan_apply apply = {.snapshot = sample_guid(9)};
    struct plan *plan;
    struct guid guid = sample_guid(9);
    struct err err;
    AUTO_CONFIG struct config *changed = config_copy(tree->vm);

    (void)state;
    assert_false(plan_snapshot(tree, &source, &request, &plan, &guid, &err));
    assert_int_equal(err.code, ERR_INVALID);
    request = (struct plan_snapshot){.machine = MACHINE_OFF};
    assert_false(plan_snapshot(tree, &source, &request, &plan, &guid, &err));
    assert_false(plan_apply(tree, &source, &apply, &plan, &err));
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_false(plan_delete(tree, &guid, false, NULL, 0, &plan, &err));
    assert_int_equal(err.code, ERR_NOT_FOUND);
    changed->cpus = 0;
    assert_false(plan_settings(tree, changed, "set", &plan, &err));
    assert_int_equal(err.code, ERR_INVALID);
    changed->cpus = 1;
    changed->parent = sample_guid(9);
    assert_false(plan_settings(tree, changed, "set", &plan, &err));
}

/* One snapshot with memory, the VM on a working layer over it. */
static struct tree *one_snapshot(enum config_state taken, bool is_saved)
{
    struct config *vm = is_saved ? saved_vm() : sample_vm(SAMPLE_DIR);
    struct config *snapshot = sample_listed(vm, 1, 0, taken);
    struct err err;

    vm->parent = snapshot->snapshot;
    sample_check(config_set_string(&vm->disks[0].path,
                                   SAMPLE_LAYERS "/web_0000000F-0000-4000-8000-00000000000F.avhd", &err) &&
                     config_set_string(&snapshot->disks[0].path, SAMPLE_DIR "/web.vhd", &err),
                 &err);
    snapshot->memory_bytes = 128U << 20;
    return sample_tree(vm, &snapshot, 1);
}

static struct plan *go_back(const struct tree *tree, struct plan_apply request)
{
    static const struct plan_layer LAYERS[] = {
        {.path = SAMPLE_LAYERS "/web_0000000F-0000-4000-8000-00000000000F.avhd", .parent = SAMPLE_DIR "/web.vhd"},
        {.path = SAMPLE_DIR "/web.vhd"},
    };
    unsigned counter = 200;
    struct plan_source source = SAMPLE_SOURCE(&counter);
    struct plan *plan;
    struct err err;

    request.snapshot = sample_guid(1);
    request.layers = LAYERS;
    request.layer_count = 2;
    if (!plan_apply(tree, &source, &request, &plan, &err))
        fail_msg("%s", err.text);
    return plan;
}

static void assert_apply(enum config_state taken, struct plan_apply request, const char *expected)
{
    AUTO_TREE struct tree *tree = one_snapshot(taken, request.machine == MACHINE_SAVED);
    AUTO_PLAN struct plan *plan = go_back(tree, request);
    const struct config *vm = find_step(plan, STEP_COMMIT, 0)->config;
    bool ends_saved = taken != STATE_OFF && request.no_start && !request.disks_only;

    assert_shape(plan, expected);
    assert_string_equal(vm->name, "web");
    assert_true(vm->memory_bytes == 128U << 20);
    assert_false(vm->is_snapshot);
    assert_string_equal(vm->parent.text, sample_guid(1).text);
    assert_int_equal(vm->listed_count, 1);
    assert_string_equal(vm->disks[0].path, find_step(plan, STEP_CREATE_LAYER, 0)->path);
    assert_string_equal(find_step(plan, STEP_CREATE_LAYER, 0)->from, SAMPLE_DIR "/web.vhd");
    assert_int_equal(guid_is_set(&vm->saved), ends_saved);
    assert_int_equal(guid_is_set(&vm->memory), ends_saved);
    assert_true(
        has_path(plan, STEP_REMOVE_FILE, SAMPLE_LAYERS "/web_0000000F-0000-4000-8000-00000000000F.avhd"));
    assert_false(has_path(plan, STEP_REMOVE_FILE, SAMPLE_DIR "/web.vhd"));
}

static void going_back_follows_the_table_of_states(void **state)
{
    (void)state;
    /* taken off */
    assert_apply(STATE_OFF, (struct plan_apply){.machine = MACHINE_OFF}, "create-layer commit remove-file");
    assert_apply(STATE_OFF, (struct plan_apply){.machine = MACHINE_OFF, .no_start = true},
                 "create-layer commit remove-file");
    assert_apply(STATE_OFF, (struct plan_apply){.machine = MACHINE_RUNNING},
                 "create-layer stop-present commit drop-present remove-file");
    assert_apply(STATE_OFF, (struct plan_apply){.machine = MACHINE_PAUSED},
                 "create-layer stop-present commit drop-present remove-file");
    assert_apply(STATE_OFF, (struct plan_apply){.machine = MACHINE_SAVED},
                 "create-layer commit remove-file remove-file remove-file");
    /* taken with memory */
    assert_apply(STATE_RUNNING, (struct plan_apply){.machine = MACHINE_OFF},
                 "create-layer start-target commit run-target remove-file");
    assert_apply(STATE_PAUSED, (struct plan_apply){.machine = MACHINE_RUNNING},
                 "create-layer start-target stop-present commit drop-present run-target remove-file");
    assert_apply(STATE_RUNNING, (struct plan_apply){.machine = MACHINE_SAVED},
                 "create-layer start-target commit run-target remove-file remove-file remove-file");
    assert_apply(STATE_RUNNING, (struct plan_apply){.machine = MACHINE_OFF, .no_start = true},
                 "create-layer share-file share-file commit remove-file");
    assert_apply(STATE_RUNNING, (struct plan_apply){.machine = MACHINE_RUNNING, .no_start = true},
                 "create-layer share-file share-file stop-present commit drop-present remove-file");
    assert_apply(STATE_RUNNING, (struct plan_apply){.machine = MACHINE_RUNNING, .disks_only = true},
                 "create-layer stop-present commit drop-present remove-file");
}

static void a_target_is_told_its_memory_and_state(void **state)
{
    AUTO_TREE struct tree *tree = one_snapshot(STATE_PAUSED, false);
    AUTO_PLAN struct plan *plan = go_back(tree, (struct plan_apply){.machine = MACHINE_RUNNING});
    AUTO_PLAN struct plan *saved =
        go_back(tree, (struct plan_apply){.machine = MACHINE_OFF, .no_start = true});
    const struct step *start = find_step(plan, STEP_START_TARGET, 0);
    const struct config *after = find_step(saved, STEP_COMMIT, 0)->config;

    (void)state;
    assert_string_equal(start->config->memory.text, tree->snapshots[0]->memory.text);
    assert_string_equal(start->config->disks[0].path, find_step(plan, STEP_CREATE_LAYER, 0)->path);
    assert_non_null(strstr(start->path, tree->snapshots[0]->snapshot.text));
    assert_int_equal(find_step(plan, STEP_RUN_TARGET, 0)->state, STATE_PAUSED);
    /* Saved memory keeps its id under a fresh name. */
    assert_string_equal(after->memory.text, tree->snapshots[0]->memory.text);
    assert_string_not_equal(after->saved.text, tree->snapshots[0]->snapshot.text);
    assert_non_null(strstr(find_step(saved, STEP_SHARE_FILE, 1)->path, after->saved.text));
    assert_int_equal(after->saved_state, STATE_PAUSED);
}

static void going_back_keeps_the_nvram_of_both(void **state)
{
    struct config *vm = vm_with_all();
    struct config *snapshot = sample_listed(vm, 1, 0, STATE_OFF);

    (void)state;
    snapshot->nvram = sample_guid(501);
    vm->parent = snapshot->snapshot;
    AUTO_TREE struct tree *tree = sample_tree(vm, &snapshot, 1);
    AUTO_PLAN struct plan *plan = go_back(tree, (struct plan_apply){.machine = MACHINE_OFF});
    const struct config *after = find_step(plan, STEP_COMMIT, 0)->config;
    const struct step *copy = find_step(plan, STEP_COPY_FILE, 0);
    assert_non_null(strstr(copy->from, sample_guid(501).text));
    assert_non_null(strstr(copy->path, after->nvram.text));
    assert_string_not_equal(after->nvram.text, sample_guid(501).text);
    assert_true(has_path(plan, STEP_REMOVE_FILE,
                         SAMPLE_DIR "/Virtual Machines/" SAMPLE_VM
                                    "/000001F4-0000-4000-8000-0000000001F4.nvram"));
    /* Its disks: base images, one of them not ours. */
    assert_false(has_path(plan, STEP_REMOVE_FILE, SAMPLE_DIR "/web.vhd"));
    assert_false(has_path(plan, STEP_REMOVE_FILE, "/srv/data.vhd"));
}

static void deleting_reparents_children_and_the_vm(void **state)
{
    struct config *vm = sample_vm(SAMPLE_DIR);
    struct config *snapshots[] = {sample_listed(vm, 1, 0, STATE_OFF), sample_listed(vm, 2, 1, STATE_OFF),
                                  sample_listed(vm, 3, 2, STATE_OFF)};
    struct guid two = sample_guid(2);
    struct plan *plan, *subtree;
    struct err err;

    (void)state;
    vm->parent = two;
    AUTO_TREE struct tree *tree = sample_tree(vm, snapshots, 3);
    assert_true(plan_delete(tree, &two, false, NULL, 0, &plan, &err));
    const struct config *after = find_step(plan, STEP_COMMIT, 0)->config;
    assert_int_equal(after->listed_count, 2);
    assert_string_equal(after->listed[1].guid.text, sample_guid(3).text);
    assert_string_equal(after->listed[1].parent.text, sample_guid(1).text);
    assert_string_equal(after->parent.text, sample_guid(1).text);
    assert_shape(plan, "commit remove-file remove-dir");
    plan_free(plan);
    assert_true(plan_delete(tree, &two, true, NULL, 0, &subtree, &err));
    after = find_step(subtree, STEP_COMMIT, 0)->config;
    assert_int_equal(after->listed_count, 1);
    assert_string_equal(after->parent.text, sample_guid(1).text);
    assert_shape(subtree, "commit remove-file remove-dir remove-file remove-dir");
    plan_free(subtree);
}

/* base <- 1 <- 2 <- 3 <- VM's; 1 <- 4 */
static void deleting_frees_layers_upward(void **state)
{
    struct config *vm = sample_vm(SAMPLE_DIR);
    struct config *snapshots[] = {sample_listed(vm, 1, 0, STATE_OFF), sample_listed(vm, 2, 1, STATE_OFF),
                                  sample_listed(vm, 3, 2, STATE_OFF), sample_listed(vm, 4, 1, STATE_OFF)};
    struct guid two = sample_guid(2), four = sample_guid(4);
    struct plan *plan;
    struct err err;

    (void)state;
    vm->parent = sample_guid(4);
    const char *one = snapshots[0]->disks[0].path, *middle = snapshots[1]->disks[0].path;
    const char *three = snapshots[2]->disks[0].path, *fourth = snapshots[3]->disks[0].path;
    const char *top = SAMPLE_LAYERS "/web_0000000F-0000-4000-8000-00000000000F.avhd";
    sample_check(config_set_string(&vm->disks[0].path, top, &err), &err);
    struct plan_layer layers[] = {
        {.path = one, .parent = SAMPLE_DIR "/web.vhd"},
        {.path = middle, .parent = one},
        {.path = three, .parent = middle},
        {.path = fourth, .parent = one},
        {.path = top, .parent = fourth},
        {.path = SAMPLE_DIR "/web.vhd"}};
    AUTO_TREE struct tree *tree = sample_tree(vm, snapshots, 4);
    assert_true(plan_delete(tree, &two, true, layers, 6, &plan, &err));
    assert_shape(plan, "commit remove-file remove-dir remove-file remove-dir remove-file remove-file");
    assert_string_equal(plan->steps[plan->step_count - 2].path, three); /* the upper one first */
    assert_string_equal(plan->steps[plan->step_count - 1].path, middle);
    plan_free(plan);
    /* What the VM's chain needs stays. */
    assert_true(plan_delete(tree, &four, false, layers, 6, &plan, &err));
    assert_shape(plan, "commit remove-file remove-dir");
    plan_free(plan);
}

static void saving_stops_first_and_commits_what_it_saved(void **state)
{
    AUTO_TREE struct tree *tree = sample_tree(sample_vm(SAMPLE_DIR), NULL, 0);
    unsigned counter = 300;
    struct plan_source source = SAMPLE_SOURCE(&counter);
    struct plan_save request = {.machine = MACHINE_PAUSED, .qemu_version = "7.2.1", .accel_used = ACCEL_TCG};
    AUTO_PLAN struct plan *plan = NULL;
    struct err err;

    (void)state;
    assert_true(plan_save(tree, &source, &request, &plan, &err));
    assert_shape(plan, "stop-present save-memory commit drop-present");
    const struct config *after = find_step(plan, STEP_COMMIT, 0)->config;
    assert_int_equal(after->saved_state, STATE_PAUSED);
    assert_int_equal(find_step(plan, STEP_SAVE_MEMORY, 0)->state, STATE_PAUSED);
    assert_non_null(strstr(find_step(plan, STEP_SAVE_MEMORY, 0)->path, after->saved.text));
    assert_true(guid_is_set(&after->memory));
    request.machine = MACHINE_OFF;
    struct plan *none;
    assert_false(plan_save(tree, &source, &request, &none, &err));
    assert_int_equal(err.code, ERR_STATE);
}

static void dropping_saved_memory_removes_it_behind_the_commit(void **state)
{
    AUTO_TREE struct tree *tree = sample_tree(saved_vm(), NULL, 0);
    AUTO_CONFIG struct config *started = config_copy(tree->vm);
    AUTO_PLAN struct plan *plan = NULL;
    struct err err;

    (void)state;
    started->saved = (struct guid){0};
    assert_true(plan_settings(tree, started, "start", &plan, &err));
    assert_shape(plan, "commit remove-file remove-file");
    assert_int_equal(plan->steps[0].kind, STEP_COMMIT);
    assert_false(guid_is_set(&plan->steps[0].config->memory));
}

static void a_snapshots_text_is_its_own_files_alone(void **state)
{
    AUTO_TREE struct tree *tree = one_snapshot(STATE_OFF, false);
    struct guid guid = sample_guid(1);
    AUTO_PLAN struct plan *plan = NULL;
    struct plan *none;
    struct err err;

    (void)state;
    assert_true(plan_snapshot_text(tree, &guid, NULL, "notes\nmore", &plan, &err));
    assert_shape(plan, "write-config");
    assert_string_equal(plan->steps[0].config->notes, "notes\nmore");
    assert_string_equal(plan->steps[0].config->name, tree->snapshots[0]->name);
    assert_false(plan_snapshot_text(tree, &guid, "", NULL, &none, &err));
    assert_false(plan_snapshot_text(tree, &guid, NULL, "\a", &none, &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_snapshot_of_an_off_vm_is_one_commit),
        cmocka_unit_test(every_hard_disk_gets_a_layer_and_a_cd_does_not),
        cmocka_unit_test(a_live_snapshot_takes_the_nvram_at_the_instant),
        cmocka_unit_test(only_a_live_snapshot_of_a_vm_with_a_display_has_a_thumbnail),
        cmocka_unit_test(a_live_snapshot_is_two_commits),
        cmocka_unit_test(a_diskless_live_snapshot_needs_no_first_commit),
        cmocka_unit_test(a_snapshot_of_a_saved_vm_shares_its_memory),
        cmocka_unit_test(the_default_name_has_the_time_and_fits),
        cmocka_unit_test(bad_requests_are_refused),
        cmocka_unit_test(going_back_follows_the_table_of_states),
        cmocka_unit_test(a_target_is_told_its_memory_and_state),
        cmocka_unit_test(going_back_keeps_the_nvram_of_both),
        cmocka_unit_test(deleting_reparents_children_and_the_vm),
        cmocka_unit_test(deleting_frees_layers_upward),
        cmocka_unit_test(saving_stops_first_and_commits_what_it_saved),
        cmocka_unit_test(dropping_saved_memory_removes_it_behind_the_commit),
        cmocka_unit_test(a_snapshots_text_is_its_own_files_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
