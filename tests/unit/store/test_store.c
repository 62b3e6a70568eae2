/* A VM's folder: made, found, locked, changed, recovered. */
#include "store_sample.h"

#include "auto.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/wait.h>

#include <cmocka.h>

static void write_in(const struct place *place, const char *name)
{
    AUTO_FREE char *path = path_join(place->vm_dir, name);

    place_write(place, path, "x");
}

/* --- the home --- */

static void a_new_vm_has_the_folders_of_s1(void **state)
{
    struct place *place = *state;

    assert_true(place_exists(place, "web.vhd"));
    assert_true(place_exists(place, "Virtual Machines/" SAMPLE_VM ".xml"));
    assert_true(place_exists(place, "Virtual Machines/" SAMPLE_VM ".lock"));
    assert_true(place_exists(place, "Virtual Machines/" SAMPLE_VM));
    assert_true(place_exists(place, "Snapshots"));
    assert_false(place_exists(place, "Snapshots/" SAMPLE_VM));
}

static void a_taken_name_is_refused(void **state)
{
    struct place *place = *state;
    AUTO_FREE char *before = place_picture(place);
    struct err err;

    assert_false(place_create(place, &err));
    assert_int_equal(err.code, ERR_EXISTS);
    AUTO_FREE char *after = place_picture(place);
    assert_string_equal(before, after);
}

static void bad_names_and_settings_make_nothing(void **state)
{
    struct place *place = *state;
    static const char *const BAD[] = {"", "a/b", ".x", "..", "-x"};
    AUTO_BUF struct buf before = BUF_INIT;
    AUTO_BUF struct buf after = BUF_INIT;
    struct err err;

    place_list(place->plain, place->home, false, &before);
    for (size_t i = 0; i < ARRAY_SIZE(BAD); i++) {
        AUTO_CONFIG struct config *vm = sample_vm(place->vm_dir);
        char *dir;
        OK(config_set_string(&vm->name, BAD[i], &err));
        assert_false(store_create(place->io, vm, NULL, NULL, &dir, &err));
        assert_int_equal(err.code, ERR_INVALID);
        assert_false(store_find(place->io, BAD[i], &dir, &err));
        assert_int_equal(err.code, ERR_INVALID);
    }
    AUTO_CONFIG struct config *vm = sample_vm(place->vm_dir);
    char *dir;
    OK(config_set_string(&vm->name, "other", &err));
    vm->cpus = 0;
    assert_false(store_create(place->io, vm, NULL, NULL, &dir, &err));
    assert_int_equal(err.code, ERR_INVALID);
    place_list(place->plain, place->home, false, &after);
    assert_string_equal((char *)before.data, (char *)after.data);
}

static void vms_are_found_and_listed(void **state)
{
    struct place *place = *state;
    AUTO_CONFIG struct config *vm = sample_vm(place->vm_dir);
    struct err err;
    char *dir, **names;

    OK(config_set_string(&vm->name, "a b", &err));
    OK(store_create(place->io, vm, NULL, NULL, &dir, &err));
    free(dir);
    AUTO_FREE char *folder = path_join(place->home, "no vm");
    OK(io_make_dir(place->plain, folder, &err));
    AUTO_FREE char *hidden = path_join(place->home, ".hidden");
    OK(io_make_dir(place->plain, hidden, &err));
    OK(store_list(place->io, &names, &err));
    assert_string_equal(names[0], "a b");
    assert_string_equal(names[1], "web");
    assert_null(names[2]);
    store_list_free(names);
    OK(store_find(place->io, "web", &dir, &err));
    assert_string_equal(dir, place->vm_dir);
    free(dir);
    assert_false(store_find(place->io, "no vm", &dir, &err));
    assert_int_equal(err.code, ERR_NOT_FOUND);
    setenv("BOUGH_HOME", "/nonexistent/bough", 1);
    OK(store_list(place->io, &names, &err));
    assert_null(names[0]);
    store_list_free(names);
}

static void the_home_follows_the_environment(void **state)
{
    struct err err;
    char *home;

    (void)state;
    setenv("BOUGH_HOME", "/b/./h/", 1);
    OK(store_home(&home, &err));
    assert_string_equal(home, "/b/h");
    free(home);
    unsetenv("BOUGH_HOME");
    setenv("XDG_DATA_HOME", "/data", 1);
    OK(store_home(&home, &err));
    assert_string_equal(home, "/data/bough");
    free(home);
    unsetenv("XDG_DATA_HOME");
    setenv("HOME", "/home/u", 1);
    OK(store_home(&home, &err));
    assert_string_equal(home, "/home/u/.local/share/bough");
    free(home);
}

static void a_leftover_of_a_creation_goes_with_the_next_one(void **state)
{
    struct place *place = *state;
    AUTO_CONFIG struct config *vm = sample_vm(place->vm_dir);
    AUTO_FREE char *leftover = string_printf("%s/.%s.new~/x", place->home, sample_guid(3).text);
    AUTO_FREE char *foreign = string_printf("%s/.config.new~", place->home);
    struct err err;
    char *dir;

    OK(dir_make_all(place->plain, leftover, &err) && dir_make_all(place->plain, foreign, &err));
    OK(config_set_string(&vm->name, "next", &err));
    OK(store_create(place->io, vm, NULL, NULL, &dir, &err));
    free(dir);
    assert_false(io_exists(place->plain, leftover));
    assert_true(io_exists(place->plain, foreign));
}

/* --- locks --- */

static void a_second_opener_is_told_who_has_it(void **state)
{
    struct place *place = *state;
    struct store *second;
    enum store_lock_state lock;
    struct store_owner owner;
    bool is_alive;
    struct err err;
    AUTO_FREE char *xml = string_printf("%s/Virtual Machines/" SAMPLE_VM ".xml", place->vm_dir);
    AUTO_FD int marker =
        open(xml, O_CREAT | O_WRONLY | O_CLOEXEC, 0600); /* store_probe() looks at the real disk */

    assert_true(marker >= 0);
    OK(store_probe(place->vm_dir, &lock, &owner, &err));
    assert_int_equal(lock, STORE_FREE);
    struct store *store = place_open(place);
    assert_false(store_open(place->io, place->vm_dir, "second", true, &second, &is_alive, &err));
    assert_int_equal(err.code, ERR_BUSY);
    assert_non_null(strstr(err.text, "'test'"));
    OK(store_probe(place->vm_dir, &lock, &owner, &err));
    assert_int_equal(lock, STORE_MANAGED);
    assert_int_equal(owner.pid, getpid());
    assert_string_equal(owner.what, "test");
    assert_true(owner.this_boot);
    store_close(store);
    OK(store_probe(place->vm_dir, &lock, &owner, &err));
    assert_int_equal(lock, STORE_FREE);
    store_close(place_open(place));
}

static void a_live_machine_outlives_its_manager_and_bars_recovery(void **state)
{
    struct place *place = *state;
    struct store *store = place_open(place);
    enum store_lock_state lock;
    struct store_owner owner;
    struct err err;
    bool is_alive;
    int alive_fd, pipe_fds[2];
    AUTO_FREE char *xml = string_printf("%s/Virtual Machines/" SAMPLE_VM ".xml", place->vm_dir);
    AUTO_FD int marker = open(xml, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

    assert_true(marker >= 0 && pipe(pipe_fds) == 0);
    OK(store_alive_lock(store, &alive_fd, &err));
    pid_t machine = fork();
    if (machine == 0) { /* the machine: holds what it inherited until it is told to end */
        char byte;
        close(pipe_fds[1]);
        _exit(read(pipe_fds[0], &byte, 1) == 0 ? 0 : 1);
    }
    close(pipe_fds[0]);
    /* Of the manager's descriptors only byte 1's is inherited by exec; here fork passes both on, so that the
     * manager's must be seen to end with exec. */
    assert_true(fcntl(alive_fd, F_GETFD) & FD_CLOEXEC);
    store_alive_unlock(store);
    assert_false(store_alive_lock(store, &alive_fd, &err));
    assert_int_equal(err.code, ERR_BUSY);
    close(pipe_fds[1]);
    assert_int_equal(waitpid(machine, NULL, 0), machine);
    OK(store_alive_lock(store, &alive_fd, &err));
    store_alive_unlock(store);
    /* Byte 1 alone is held, as our machines hold it. */
    store_close(store);
    AUTO_FREE char *lock_path = string_printf("%s/Virtual Machines/" SAMPLE_VM ".lock", place->vm_dir);
    AUTO_FD int other = open(lock_path, O_RDWR | O_CLOEXEC);
    struct flock held = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 1, .l_len = 1};
    assert_int_equal(fcntl(other, F_OFD_SETLK, &held), 0);
    OK(store_probe(place->vm_dir, &lock, &owner, &err));
    assert_int_equal(lock, STORE_UNMANAGED);
    assert_true(owner.machine_is_alive);
    write_in(place, "Virtual Machines/" SAMPLE_VM "/00000001-0000-4000-8000-000000000001.bin");
    OK(store_open(place->io, place->vm_dir, "adopt", true, &store, &is_alive, &err));
    assert_true(is_alive);
    assert_true(place_exists(place, "Virtual Machines/" SAMPLE_VM "/00000001-0000-4000-8000-000000000001.bin"));
    /* Who adopts it holds the byte beside it: a machine that he starts is alive when the first one has ended. */
    assert_false(store_alive_lock(store, &alive_fd, &err));
    OK(store_alive_share(store, &err));
    OK(store_alive_lock(store, &alive_fd, &err));
    held.l_type = F_UNLCK;
    assert_int_equal(fcntl(other, F_OFD_SETLK, &held), 0);
    OK(store_probe(place->vm_dir, &lock, &owner, &err));
    assert_int_equal(lock, STORE_MANAGED);
    assert_true(owner.machine_is_alive);
    store_alive_unlock(store);
    OK(store_probe(place->vm_dir, &lock, &owner, &err));
    assert_false(owner.machine_is_alive);
    store_close(store);
}

/* --- operations --- */

static void the_seeds_case_one_step_by_step(void **state)
{
    struct place *place = *state;
    struct store *store = place_open(place);
    struct err err;

    OK(place_snapshot(place, store, MACHINE_OFF, &err));
    const struct tree *tree = store_tree(store);
    assert_int_equal(tree->snapshot_count, 1);
    const struct config *snapshot = tree->snapshots[0];
    AUTO_FREE char *first_top = strdup(tree->vm->disks[0].path);
    assert_true(place_exists(place, "Snapshots/%s.xml", snapshot->snapshot.text));
    assert_true(place_exists(place, "Snapshots/%s", snapshot->snapshot.text));
    assert_true(tree_is_layer(tree, first_top));
    assert_true(io_exists(place->plain, first_top));
    OK(place_apply(place, store, 0, (struct plan_apply){.machine = MACHINE_OFF}, &err));
    tree = store_tree(store);
    assert_false(io_exists(place->plain, first_top));
    assert_string_not_equal(tree->vm->disks[0].path, first_top);
    assert_true(io_exists(place->plain, tree->vm->disks[0].path));
    AUTO_FREE char *second_top = strdup(tree->vm->disks[0].path);
    OK(place_snapshot(place, store, MACHINE_OFF, &err));
    tree = store_tree(store);
    assert_string_equal(tree->snapshots[1]->disks[0].path, second_top);
    assert_string_equal(tree->snapshots[1]->parent.text, tree->snapshots[0]->snapshot.text);
    store_close(store);
}

static void layers_are_told_with_their_parents(void **state)
{
    struct place *place = *state;
    struct store *store = place_open(place);
    struct plan_layer *layers;
    size_t count, bases = 0;
    struct err err;

    for (unsigned i = 0; i < 3; i++)
        OK(place_snapshot(place, store, MACHINE_OFF, &err));
    OK(store_layers(store, &layers, &count, &err));
    assert_int_equal(count, 4);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(layers[i].parent == NULL, strstr(layers[i].path, "web.vhd") != NULL);
        bases += !layers[i].parent;
    }
    assert_int_equal(bases, 1);
    store_layers_free(layers, count);
    store_close(store);
}

static void layers_of_the_present_end_at_a_snapshots_image_or_are_all(void **state)
{
    struct place *place = *state;
    struct store *store = place_open(place);
    struct plan_layer *layers;
    size_t count;
    struct err err;

    for (unsigned i = 0; i < 3; i++)
        OK(place_snapshot(place, store, MACHINE_OFF, &err));
    OK(store_present_layers(store, &layers, &count, &err));
    assert_int_equal(count, 2);
    assert_string_equal(layers[0].path, store_tree(store)->vm->disks[0].path);
    assert_string_equal(layers[0].parent, store_tree(store)->snapshots[2]->disks[0].path);
    store_layers_free(layers, count);
    OK(place_delete(store, 2, /* subtree= */ false, &err)); /* what the VM lies over has no name now */
    OK(store_present_layers(store, &layers, &count, &err));
    assert_int_equal(count, 4);
    store_layers_free(layers, count);
    store_close(store);
}

/* What the VM alone had over an image that nobody names goes with it; what others have over it stays. */
static void apply_removes_no_unnamed_layer_that_another_needs(void **state)
{
    struct place *place = *state;
    struct store *store = place_open(place);
    const struct tree *tree;
    struct plan_layer *layers;
    size_t count;
    struct err err;

    OK(place_snapshot(place, store, MACHINE_OFF, &err));
    OK(place_snapshot(place, store, MACHINE_OFF, &err));
    OK(place_snapshot(place, store, MACHINE_OFF, &err));
    OK(place_apply(place, store, 1, (struct plan_apply){0}, &err)); /* Now and the third lie over the second's image */
    OK(place_delete(store, 1, /* subtree= */ false, &err));
    OK(place_apply(place, store, 0, (struct plan_apply){0}, &err));
    tree = store_tree(store);
    OK(store_chains_check(place->io, tree->snapshots[1], &err));
    OK(store_layers(store, &layers, &count, &err));
    assert_int_equal(count, 4); /* the base, the unnamed one, the third's, the VM's */
    store_layers_free(layers, count);
    store_close(store);
}

static void a_saved_vms_memory_goes_into_its_snapshot_and_back(void **state)
{
    struct place *place = *state;
    struct store *store = place_open(place);
    struct io_stat stat;
    struct err err;

    OK(place_save(place, store, &err));
    OK(place_snapshot(place, store, MACHINE_SAVED, &err));
    const struct config *snapshot = store_tree(store)->snapshots[0];
    AUTO_FREE char *dir = tree_snapshot_dir(store_tree(store), &snapshot->snapshot);
    AUTO_FREE char *bin = tree_state_path(dir, &snapshot->snapshot, ".bin");
    OK(io_stat_path(place->plain, bin, &stat, &err));
    assert_int_equal(stat.links, 2);
    OK(place_apply(place, store, 0, (struct plan_apply){.machine = MACHINE_SAVED, .no_start = true}, &err));
    OK(io_stat_path(place->plain, bin, &stat, &err));
    assert_int_equal(stat.links, 2); /* the old saved state's is gone, the new one's is there */
    OK(place_apply(place, store, 0, (struct plan_apply){.machine = MACHINE_SAVED, .disks_only = true}, &err));
    OK(io_stat_path(place->plain, bin, &stat, &err));
    assert_int_equal(stat.links, 1);
    assert_false(guid_is_set(&store_tree(store)->vm->saved));
    store_close(store);
}

static void where_there_are_no_links_memory_is_copied(void **state)
{
    struct place *place = *state;
    struct store *store = place_open(place);
    AUTO_BUF struct buf content = BUF_INIT;
    struct io_stat stat;
    struct err err;

    OK(place_save(place, store, &err));
    io_failing_set(place->failing, (struct io_fault){.calls = IO_CALL_LINK, .nth = 1, .errnum = EPERM});
    OK(place_snapshot(place, store, MACHINE_SAVED, &err));
    const struct config *snapshot = store_tree(store)->snapshots[0];
    AUTO_FREE char *dir = tree_snapshot_dir(store_tree(store), &snapshot->snapshot);
    AUTO_FREE char *bin = tree_state_path(dir, &snapshot->snapshot, ".bin");
    OK(io_stat_path(place->plain, bin, &stat, &err));
    assert_int_equal(stat.links, 1);
    OK(file_read_all(place->plain, bin, 1000, &content, &err));
    assert_string_equal((char *)content.data, PLACE_MEMORY_FILE);
    store_close(store);
}

static void a_snapshots_text_is_read_again(void **state)
{
    struct place *place = *state;
    struct store *store = place_open(place);
    AUTO_PLAN struct plan *plan = NULL;
    struct err err;

    OK(place_snapshot(place, store, MACHINE_OFF, &err));
    struct guid guid = store_tree(store)->snapshots[0]->snapshot;
    OK(plan_snapshot_text(store_tree(store), &guid, "renamed", "noted", &plan, &err));
    OK(store_run(store, plan, NULL, NULL, &err));
    assert_string_equal(store_tree(store)->snapshots[0]->name, "renamed");
    assert_string_equal(store_tree(store)->snapshots[0]->notes, "noted");
    store_close(store);
}

/* --- damage --- */

static void assert_refused_unchanged(struct place *place, const char *words)
{
    AUTO_FREE char *before = place_picture(place);
    struct store *store;
    struct tree *tree;
    struct err err;
    bool is_alive;

    assert_false(store_open(place->io, place->vm_dir, "test", true, &store, &is_alive, &err));
    if (err.code != ERR_CORRUPT || !strstr(err.text, words))
        fail_msg("expected '%s', got %s: %s", words, err_name(err.code), err.text);
    assert_false(store_read(place->io, place->vm_dir, &tree, &err));
    assert_int_equal(err.code, ERR_CORRUPT);
    AUTO_FREE char *after = place_picture(place);
    assert_string_equal(before, after);
}

static void overwrite(const struct place *place, const char *path, const char *text)
{
    struct err err;

    OK(io_unlink(place->plain, path, &err));
    place_write(place, path, text);
}

static void damaged_settings_are_told_and_nothing_is_changed(void **state)
{
    struct place *place = *state;
    struct store *store = place_open(place);
    struct err err;

    OK(place_snapshot(place, store, MACHINE_OFF, &err));
    OK(place_snapshot(place, store, MACHINE_OFF, &err));
    AUTO_FREE char *snapshot =
        tree_snapshot_xml_path(store_tree(store), &store_tree(store)->snapshots[0]->snapshot);
    AUTO_FREE char *vm = tree_vm_xml_path(store_tree(store));
    store_close(store);
    write_in(place, "Virtual Machines/" SAMPLE_VM "/00000001-0000-4000-8000-000000000001.bin"); /* garbage */
    overwrite(place, snapshot, "<configuration>");
    assert_refused_unchanged(place, path_base(snapshot));
    OK(io_unlink(place->plain, snapshot, &err));
    assert_refused_unchanged(place, "missing");
    AUTO_BUF struct buf xml = BUF_INIT;
    OK(file_read_all(place->plain, vm, 100000, &xml, &err));
    place_write(place, snapshot, (char *)xml.data);
    assert_refused_unchanged(place, "is a VM's file");
    overwrite(place, vm, "");
    assert_refused_unchanged(place, "is empty");
    write_in(place, "Virtual Machines/00000001-0000-4000-8000-000000000001.xml");
    assert_refused_unchanged(place, "more than one VM");
}

static void a_folder_without_a_vm_is_not_found(void **state)
{
    struct place *place = *state;
    struct store *store;
    struct tree *tree;
    struct err err;
    bool is_alive;

    assert_false(store_open(place->io, "/nowhere", "test", true, &store, &is_alive, &err));
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_false(store_read(place->io, place->home, &tree, &err));
    assert_int_equal(err.code, ERR_NOT_FOUND);
}

/* --- recovery --- */

static void recovery_takes_our_garbage_and_nothing_else(void **state)
{
    struct place *place = *state;
    static const char *const GARBAGE[] = {
        "Virtual Machines/" SAMPLE_VM ".xml.tmp~",
        "Virtual Machines/" SAMPLE_VM "/00000001-0000-4000-8000-000000000001.bin",
        "Virtual Machines/" SAMPLE_VM "/00000001-0000-4000-8000-000000000001.vsv",
        "Virtual Machines/" SAMPLE_VM "/00000001-0000-4000-8000-000000000001.nvram",
        "Virtual Machines/" SAMPLE_VM "/00000001-0000-4000-8000-000000000001.vsv.tmp~",
        "Snapshots/00000001-0000-4000-8000-000000000001.xml",
        "Snapshots/00000001-0000-4000-8000-000000000001.xml.tmp~",
        "Snapshots/00000002-0000-4000-8000-000000000002/00000002-0000-4000-8000-000000000002.bin",
        "Snapshots/00000002-0000-4000-8000-000000000002/00000002-0000-4000-8000-000000000002.png",
        "Snapshots/00000002-0000-4000-8000-000000000002/00000002-0000-4000-8000-000000000002.png.tmp~",
        "Snapshots/" SAMPLE_VM "/web_00000001-0000-4000-8000-000000000001.avhd",
    };
    static const char *const FOREIGN[] = {
        "notes.txt",
        "00000001-0000-4000-8000-000000000001.xml",
        "other.vhd",
        "web_00000001-0000-4000-8000-000000000001.avhd",
        "Virtual Machines/notes.xml",
        "Virtual Machines/" SAMPLE_VM "/readme",
        "Virtual Machines/" SAMPLE_VM "/00000001-0000-4000-8000-000000000001.vhd",
        "Snapshots/notes.xml",
        "Snapshots/" SAMPLE_VM "/data.vhd",
        "Snapshots/" SAMPLE_VM "/data_00000001-0000-4000-8000-000000000001.vhd",
        "Snapshots/" SAMPLE_VM "/data.avhd",
        "Snapshots/00000003-0000-4000-8000-000000000003/thesis.doc",
        "Snapshots/mine/00000002-0000-4000-8000-000000000002.bin",
    };
    static const char *const FOLDERS[] = {"Snapshots/00000002-0000-4000-8000-000000000002",
                                          "Snapshots/00000003-0000-4000-8000-000000000003", "Snapshots/mine",
                                          "Snapshots/00000004-0000-4000-8000-000000000004"};
    struct err err;
    struct store *store = place_open(place);

    OK(place_snapshot(place, store, MACHINE_OFF, &err));
    store_close(store);
    AUTO_FREE char *clean = place_picture(place);
    for (size_t i = 0; i < ARRAY_SIZE(FOLDERS); i++) {
        AUTO_FREE char *path = path_join(place->vm_dir, FOLDERS[i]);
        OK(dir_make_all(place->plain, path, &err));
    }
    for (size_t i = 0; i < ARRAY_SIZE(GARBAGE); i++)
        write_in(place, GARBAGE[i]);
    for (size_t i = 0; i < ARRAY_SIZE(FOREIGN); i++)
        write_in(place, FOREIGN[i]);
    store_close(place_open(place));
    for (size_t i = 0; i < ARRAY_SIZE(GARBAGE); i++)
        if (place_exists(place, "%s", GARBAGE[i]))
            fail_msg("%s is still there", GARBAGE[i]);
    assert_false(place_exists(place, "%s", FOLDERS[0]));
    assert_false(place_exists(place, "%s", FOLDERS[3]));
    for (size_t i = 0; i < ARRAY_SIZE(FOREIGN); i++) {
        AUTO_FREE char *path = path_join(place->vm_dir, FOREIGN[i]);
        if (!io_exists(place->plain, path))
            fail_msg("%s is gone", FOREIGN[i]);
        OK(io_unlink(place->plain, path, &err));
    }
    for (size_t i = 1; i < 3; i++) {
        AUTO_FREE char *path = path_join(place->vm_dir, FOLDERS[i]);
        OK(io_remove_dir(place->plain, path, &err));
    }
    AUTO_FREE char *after = place_picture(place);
    assert_string_equal(clean, after);
}

static void recovery_keeps_every_layer_when_a_chain_is_broken(void **state)
{
    struct place *place = *state;
    struct store *store = place_open(place);
    struct err err;

    for (unsigned i = 0; i < 3; i++)
        OK(place_snapshot(place, store, MACHINE_OFF, &err));
    AUTO_FREE char *lost = strdup(store_tree(store)->snapshots[1]->disks[0].path);
    store_close(store);
    OK(io_unlink(place->plain, lost, &err));
    write_in(place, "Snapshots/" SAMPLE_VM "/web_00000001-0000-4000-8000-000000000001.avhd");
    AUTO_FREE char *before = place_picture(place);
    store_close(place_open(place));
    AUTO_FREE char *after = place_picture(place);
    assert_string_equal(before, after);
}

static void without_recovery_nothing_is_removed(void **state)
{
    struct place *place = *state;
    struct store *store;
    struct err err;
    bool is_alive;

    write_in(place, "Virtual Machines/" SAMPLE_VM "/00000001-0000-4000-8000-000000000001.bin");
    AUTO_FREE char *before = place_picture(place);
    OK(store_open(place->io, place->vm_dir, "look", false, &store, &is_alive, &err));
    store_close(store);
    AUTO_FREE char *after = place_picture(place);
    assert_string_equal(before, after);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_new_vm_has_the_folders_of_s1),
        TEST(a_taken_name_is_refused),
        TEST(bad_names_and_settings_make_nothing),
        TEST(vms_are_found_and_listed),
        TEST(the_home_follows_the_environment),
        TEST(a_leftover_of_a_creation_goes_with_the_next_one),
        TEST(a_second_opener_is_told_who_has_it),
        TEST(a_live_machine_outlives_its_manager_and_bars_recovery),
        TEST(the_seeds_case_one_step_by_step),
        TEST(layers_are_told_with_their_parents),
        TEST(layers_of_the_present_end_at_a_snapshots_image_or_are_all),
        TEST(apply_removes_no_unnamed_layer_that_another_needs),
        TEST(layers_of_the_present_end_at_a_snapshots_image_or_are_all),
        TEST(apply_removes_no_unnamed_layer_that_another_needs),
        TEST(a_saved_vms_memory_goes_into_its_snapshot_and_back),
        TEST(where_there_are_no_links_memory_is_copied),
        TEST(a_snapshots_text_is_read_again),
        TEST(damaged_settings_are_told_and_nothing_is_changed),
        TEST(a_folder_without_a_vm_is_not_found),
        TEST(recovery_takes_our_garbage_and_nothing_else),
        TEST(recovery_keeps_every_layer_when_a_chain_is_broken),
        TEST(without_recovery_nothing_is_removed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
