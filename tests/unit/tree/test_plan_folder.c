/* Plans about a folder as a whole: what goes where, and what the settings there say. */
#include "tree_sample.h"

#include "auto.h"
#include "plan_folder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define NEW_DIR "/backup/web"
#define TEMPORARY "/backup/.x.new~"

static const struct plan_target TARGET = {.dir = NEW_DIR, .temporary = TEMPORARY};

/* web.vhd <- d0_<1> <- d0_<2> <- top, and a disk over /srv/data.vhd; the second snapshot has memory, and so has the VM, the same one. */
static struct config *vm_of_two(struct config *snapshots[2])
{
    struct config *vm = sample_vm(SAMPLE_DIR);
    struct err err;

    sample_disk(vm, BUS_VIRTIO, 0, false, "/srv/data.vhd");
    sample_disk(vm, BUS_IDE, 2, true, SAMPLE_DIR "/media/cd.iso");
    sample_disk(vm, BUS_IDE, 3, true, "/srv/other.iso");
    sample_nics(vm);
    snapshots[0] = sample_listed(vm, 1, 0, STATE_OFF);
    snapshots[1] = sample_listed(vm, 2, 1, STATE_RUNNING);
    for (size_t s = 0; s < 2; s++) /* sample_listed() made layers of the media too */
        for (size_t i = 0; i < vm->disk_count; i++)
            if (vm->disks[i].is_cdrom)
                sample_check(config_set_string(&snapshots[s]->disks[i].path, vm->disks[i].path, &err), &err);
    vm->saved = sample_guid(70);
    vm->saved_state = STATE_RUNNING;
    vm->memory = snapshots[1]->memory;
    vm->accel_used = ACCEL_TCG;
    return vm;
}

static struct tree *tree_of_two(void)
{
    struct config *snapshots[2];
    struct config *vm = vm_of_two(snapshots);

    return sample_tree(vm, snapshots, 2);
}

static const struct step *find(const struct plan *plan, enum step_kind kind, const char *path)
{
    for (size_t i = 0; i < plan->step_count; i++)
        if (plan->steps[i].kind == kind && strcmp(plan->steps[i].path, path) == 0)
            return &plan->steps[i];
    fail_msg("no step %s %s", step_name(kind), path);
    return NULL;
}

static void assert_from(const struct plan *plan, enum step_kind kind, const char *path, const char *from)
{
    assert_string_equal(find(plan, kind, path)->from, from);
}

static const struct config *settings(const struct plan *plan, bool of_snapshot)
{
    for (size_t i = 0; i < plan->step_count; i++)
        if (plan->steps[i].kind == STEP_WRITE_CONFIG && plan->steps[i].config->is_snapshot == of_snapshot)
            return plan->steps[i].config;
    fail_msg("no settings are written");
    return NULL;
}

static struct plan *copy_plan(const struct tree *tree, bool new_identity)
{
    const struct plan_layer layers[] = {
        {.path = SAMPLE_DIR "/web.vhd"},
        {.path = "/srv/data.vhd"},
        {.path = "/elsewhere/web.vhd"},
        {.path = SAMPLE_LAYERS "/d0_x.avhd", .parent = SAMPLE_DIR "/web.vhd"},
        {.path = SAMPLE_LAYERS "/d1_x.avhd", .parent = "/srv/data.vhd"},
        {.path = SAMPLE_LAYERS "/d2_x.avhd", .parent = "/elsewhere/web.vhd"},
    };
    unsigned counter = 100;
    struct plan_source source = SAMPLE_SOURCE(&counter);
    struct plan *plan;
    struct err err;

    if (!plan_copy(tree, &source, &TARGET, new_identity, layers, sizeof layers / sizeof layers[0], &plan, &err))
        fail_msg("%s", err.text);
    return plan;
}

static void the_commit_is_one_rename_and_stands_last(void **state)
{
    AUTO_TREE struct tree *tree = tree_of_two();
    AUTO_PLAN struct plan *plan = copy_plan(tree, false);
    size_t renames = 0;

    (void)state;
    for (size_t i = 0; i < plan->step_count; i++) {
        renames += plan->steps[i].kind == STEP_RENAME;
        assert_int_not_equal(plan->steps[i].kind, STEP_COMMIT);
        if (plan->steps[i].kind != STEP_RENAME)
            assert_int_equal(strncmp(plan->steps[i].path, TEMPORARY, strlen(TEMPORARY)), 0);
    }
    assert_int_equal(renames, 1);
    assert_int_equal(plan->steps[plan->step_count - 1].kind, STEP_RENAME);
    assert_from(plan, STEP_RENAME, NEW_DIR, TEMPORARY);
}

static void what_lies_outside_is_taken_along_under_a_free_name(void **state)
{
    AUTO_TREE struct tree *tree = tree_of_two();
    AUTO_PLAN struct plan *plan = copy_plan(tree, false);

    (void)state;
    assert_from(plan, STEP_COPY_FILE, TEMPORARY "/web.vhd", SAMPLE_DIR "/web.vhd");
    assert_from(plan, STEP_COPY_FILE, TEMPORARY "/data.vhd", "/srv/data.vhd");
    assert_from(plan, STEP_COPY_FILE, TEMPORARY "/web_2.vhd", "/elsewhere/web.vhd");
    assert_from(plan, STEP_LINK_PARENT, TEMPORARY "/Snapshots/" SAMPLE_VM "/d2_x.avhd", TEMPORARY "/web_2.vhd");
    assert_from(plan, STEP_COPY_FILE, TEMPORARY "/media/cd.iso", SAMPLE_DIR "/media/cd.iso");
    const struct config *vm = settings(plan, false);
    assert_string_equal(vm->disks[0].path, NEW_DIR "/web.vhd");
    assert_string_equal(vm->disks[1].path, NEW_DIR "/media/cd.iso");
    assert_string_equal(vm->disks[2].path, "/srv/other.iso"); /* no disk: it stays where it is */
    assert_string_equal(vm->disks[3].path, NEW_DIR "/data.vhd");
    assert_true(guid_equal(&vm->guid, &tree->vm->guid));
    assert_string_equal(vm->nics[0].mac, "52:54:00:12:34:56");
}

static void shared_memory_is_shared_in_the_copy_too(void **state)
{
    AUTO_TREE struct tree *tree = tree_of_two();
    AUTO_PLAN struct plan *plan = copy_plan(tree, false);
    AUTO_FREE char *snapshot =
        string_printf(TEMPORARY "/Snapshots/%s/%s.bin", sample_guid(2).text, sample_guid(2).text);
    AUTO_FREE char *vm = string_printf(TEMPORARY "/Virtual Machines/" SAMPLE_VM "/%s.bin", sample_guid(70).text);

    (void)state;
    find(plan, STEP_COPY_FILE, snapshot);
    assert_from(plan, STEP_SHARE_FILE, vm, snapshot);
}

static void another_identity_is_in_every_name_and_all_settings(void **state)
{
    AUTO_TREE struct tree *tree = tree_of_two();
    AUTO_PLAN struct plan *plan = copy_plan(tree, true);
    const struct config *vm = settings(plan, false), *snapshot = settings(plan, true);

    (void)state;
    assert_false(guid_equal(&vm->guid, &tree->vm->guid));
    assert_true(guid_equal(&vm->guid, &snapshot->guid));
    assert_false(guid_equal(&vm->generation_id, &tree->vm->generation_id));
    for (size_t i = 0; i < plan->step_count; i++)
        assert_null(strstr(plan->steps[i].path, SAMPLE_VM));
    for (size_t i = 0; i < vm->nic_count; i++) {
        assert_string_not_equal(vm->nics[i].mac, tree->vm->nics[i].mac);
        assert_string_equal(vm->nics[i].mac, snapshot->nics[i].mac);
        assert_int_equal(strncmp(vm->nics[i].mac, "52:54:00:", 9), 0);
    }
    assert_string_not_equal(vm->nics[0].mac, vm->nics[1].mac);
    assert_true(guid_equal(&vm->listed[1].guid, &tree->vm->listed[1].guid)); /* snapshots keep theirs */
}

static struct plan *extract_plan(const struct tree *tree, bool disks_only)
{
    struct guid snapshot = sample_guid(2);
    unsigned counter = 100;
    struct plan_source source = SAMPLE_SOURCE(&counter);
    struct plan *plan;
    struct err err;

    if (!plan_extract(tree, &source, &TARGET, &snapshot, disks_only, &plan, &err))
        fail_msg("%s", err.text);
    return plan;
}

static void one_snapshot_is_a_vm_without_snapshots(void **state)
{
    AUTO_TREE struct tree *tree = tree_of_two();
    AUTO_PLAN struct plan *plan = extract_plan(tree, false);
    const struct config *vm = settings(plan, false);
    struct err err;

    (void)state;
    assert_true(config_check(vm, &err));
    assert_int_equal(vm->listed_count, 0);
    assert_false(guid_is_set(&vm->parent));
    assert_false(guid_equal(&vm->guid, &tree->vm->guid));
    assert_true(guid_is_set(&vm->saved));
    assert_true(guid_equal(&vm->memory, &tree->snapshots[1]->memory));
    assert_string_equal(vm->name, "web");
    assert_from(plan, STEP_FLATTEN, TEMPORARY "/d0.vhd", tree->snapshots[1]->disks[0].path);
    assert_string_equal(vm->disks[0].path, NEW_DIR "/d0.vhd");
    assert_string_equal(vm->nics[0].mac, "52:54:00:12:34:56");
}

static void disks_only_leaves_the_memory_out(void **state)
{
    AUTO_TREE struct tree *tree = tree_of_two();
    AUTO_PLAN struct plan *plan = extract_plan(tree, true);
    const struct config *vm = settings(plan, false);

    (void)state;
    assert_false(guid_is_set(&vm->saved) || guid_is_set(&vm->memory));
    for (size_t i = 0; i < plan->step_count; i++)
        assert_int_not_equal(plan->steps[i].kind, STEP_VERIFY_MEMORY);
}

static void removing_is_a_rename_first(void **state)
{
    AUTO_TREE struct tree *tree = tree_of_two();
    AUTO_PLAN struct plan *plan = NULL;
    struct err err;

    (void)state;
    assert_true(plan_remove(tree, "/home/user/vms/.x.removed~", &plan, &err));
    assert_int_equal(plan->step_count, 2);
    assert_from(plan, STEP_RENAME, "/home/user/vms/.x.removed~", SAMPLE_DIR);
    assert_int_equal(plan->steps[1].kind, STEP_REMOVE_TREE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_commit_is_one_rename_and_stands_last),
        cmocka_unit_test(what_lies_outside_is_taken_along_under_a_free_name),
        cmocka_unit_test(shared_memory_is_shared_in_the_copy_too),
        cmocka_unit_test(another_identity_is_in_every_name_and_all_settings),
        cmocka_unit_test(one_snapshot_is_a_vm_without_snapshots),
        cmocka_unit_test(disks_only_leaves_the_memory_out),
        cmocka_unit_test(removing_is_a_rename_first),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
