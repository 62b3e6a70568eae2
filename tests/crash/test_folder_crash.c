/* A VM's folder is copied, one snapshot of it exported, it is renamed and removed, and cut off at every call that changes the disk: the
 * new folder is there, whole, or not at all; the old one is as it was, or (renamed, removed) not at all; what is left of a copy is cleared
 * away by the next one who makes something there.
 *
 * $BOUGH_TEST_SEEDS power cuts at each call. */
#include "crash_lab.h"

#include "auto.h"
#include "random.h"
#include "store_folder.h"

static unsigned long long points;

enum what { COPY, COPY_AS_ANOTHER, EXTRACT, EXTRACT_DISKS, MOVE, REMOVE };

static const struct {
    const char *name;
    enum what what;
    enum plan_machine machine;
} CASES[] = {
    {"export", COPY, MACHINE_OFF},
    {"export, saved", COPY, MACHINE_SAVED},
    {"import as another VM", COPY_AS_ANOTHER, MACHINE_SAVED},
    {"export of a snapshot", EXTRACT, MACHINE_OFF},
    {"export of a snapshot's disks", EXTRACT_DISKS, MACHINE_OFF},
    {"rename", MOVE, MACHINE_SAVED},
    {"remove", REMOVE, MACHINE_OFF},
};

struct names {
    char target[128], temporary[160];
};

static struct names names_of(const struct lab *lab)
{
    struct names names;

    snprintf(names.target, sizeof names.target, "%s/other", lab->place.home);
    snprintf(names.temporary, sizeof names.temporary, "%s/.%s.new~", lab->place.home, sample_guid(77).text);
    return names;
}

/* Its lock files lie on the real disk. */
static void make_real_folder(const struct names *names)
{
    AUTO_FREE char *path = path_join(names->target, "Virtual Machines");
    struct err err;

    LAB_OK(dir_make_all(&io_real, path, &err));
}

static bool make_plan(struct lab *lab, enum what what, const struct names *names, struct plan **ret_plan, struct err *err)
{
    const struct tree *tree = store_tree(lab->store);
    struct plan_target target = {.dir = names->target, .temporary = names->temporary, .name = "other"};
    struct plan_source source = lab_source(lab);
    struct plan_layer *layers;
    size_t count;

    if (what == MOVE)
        return plan_move(tree, names->target, ret_plan, err);
    if (what == REMOVE) {
        AUTO_FREE char *away = string_printf("%s/.%s.removed~", lab->place.home, sample_guid(78).text);
        return plan_remove(tree, away, ret_plan, err);
    }
    if (what == EXTRACT || what == EXTRACT_DISKS)
        return plan_extract(tree, &source, &target, &lab->taken[2].guid, what == EXTRACT_DISKS, ret_plan, err);
    if (!store_layers(lab->store, &layers, &count, err))
        return false;
    bool ok = plan_copy(tree, &source, &target, what == COPY_AS_ANOTHER, layers, count, ret_plan, err);
    store_layers_free(layers, count);
    return ok;
}

/* The memory of the lab is no memory of a machine. */
static bool memory_is_there(void *context, struct plan *plan, size_t index, struct err *err)
{
    const struct lab *lab = context;
    AUTO_FREE char *bin = string_printf("%s.bin", plan->steps[index].path);

    return io_exists(lab->place.plain, bin) || err_set(err, ERR_NOT_FOUND, "%s: is missing", bin);
}

static bool run(struct lab *lab, enum what what, struct err *err)
{
    struct store_machine machine = {.step = memory_is_there, .context = lab};
    struct names names = names_of(lab);
    AUTO_PLAN struct plan *plan = NULL;

    return make_plan(lab, what, &names, &plan, err) && store_run_folder(lab->place.io, plan, &machine, NULL, err);
}

/* --- what is there --- */

static bool has_vm(const struct lab *lab, const char *dir)
{
    AUTO_FREE char *path = path_join(dir, "Virtual Machines");

    return io_exists(lab->place.plain, path);
}

static void check_extract(struct lab *lab, const char *where)
{
    const struct config *vm = store_tree(lab->store)->vm;
    unsigned sectors[LAB_SECTORS];
    struct plan_layer *layers;
    size_t count;
    struct err err;

    lab_read(lab, vm->disks[0].path, sectors, where);
    if (memcmp(sectors, lab->taken[2].sectors, sizeof sectors) != 0 || vm->listed_count != 0)
        fail_msg("%s: the exported snapshot is another one", where);
    LAB_OK(store_layers(lab->store, &layers, &count, &err));
    assert_int_equal(count, 1);
    store_layers_free(layers, count);
}

static void check_vm_at(struct lab *lab, const char *dir, bool is_extract, const char *where)
{
    struct place place = lab->place;
    struct err err;
    bool is_alive;

    AUTO_FREE char *copy = strdup(dir);
    snprintf(lab->place.vm_dir, sizeof lab->place.vm_dir, "%s", copy);
    if (!store_open(lab->place.io, copy, "test", true, &lab->store, &is_alive, &err))
        fail_msg("%s: %s", where, err.text);
    if (is_extract)
        check_extract(lab, where);
    else
        lab_check(lab, where);
    store_close(TAKE(lab->store));
    lab->place = place;
}

/* Whoever makes or removes something in the home next clears away what is left. */
static void check_cleared(struct lab *lab, const char *where)
{
    AUTO_CONFIG struct config *vm = sample_vm(lab->place.vm_dir);
    AUTO_BUF struct buf text = BUF_INIT;
    AUTO_FREE char *dir = NULL;
    struct err err;

    LAB_OK(config_set_string(&vm->name, "next", &err));
    LAB_OK(store_create(lab->place.io, vm, place_make_disk, (void *)lab->place.io, &dir, &err));
    place_list(lab->place.plain, lab->place.home, false, &text);
    if (strstr((char *)text.data, ".new~") || strstr((char *)text.data, ".removed~"))
        fail_msg("%s: something is left:\n%s", where, (char *)text.data);
}

static void check_all(struct lab *lab, enum what what, const char *before, const char *where)
{
    struct names names = names_of(lab);
    bool is_there = has_vm(lab, lab->place.vm_dir), is_new = has_vm(lab, names.target);

    if ((what == MOVE && is_there == is_new) || (what != MOVE && what != REMOVE && !is_there))
        fail_msg("%s: the VM is %s, the other is %s", where, is_there ? "there" : "gone", is_new ? "there" : "not");
    if (is_there) {
        check_vm_at(lab, lab->place.vm_dir, false, where);
        AUTO_FREE char *now = lab_picture(lab);
        if (strcmp(now, before) != 0)
            fail_msg("%s: the VM's folder has changed", where);
    }
    if (is_new)
        check_vm_at(lab, names.target, what == EXTRACT || what == EXTRACT_DISKS, where);
    check_cleared(lab, where);
}

/* --- cuts --- */

static void begin(size_t index, struct lab *lab, char **ret_picture)
{
    lab_new(lab, true);
    lab_prepare(lab, CASES[index].machine);
    struct names names = names_of(lab);
    make_real_folder(&names);
    *ret_picture = lab_picture(lab);
}

static bool fail_at(size_t index, struct io_fault fault, uint64_t seed)
{
    AUTO_FREE char *before = NULL;
    struct lab lab;
    struct err err;
    char where[160];

    snprintf(where, sizeof where, "%s, error %d at call %llu, seed %llu", CASES[index].name, fault.errnum,
             (unsigned long long)fault.nth, (unsigned long long)seed);
    begin(index, &lab, &before);
    io_failing_set(lab.place.failing, fault);
    bool ok = run(&lab, CASES[index].what, &err);
    bool struck = io_failing_struck(lab.place.failing);
    if (!struck && !ok)
        fail_msg("%s: %s", where, err.text);
    lab_kill(&lab);
    if (fault.forever)
        io_memory_crash(lab.place.memory, seed);
    check_all(&lab, CASES[index].what, before, where);
    struct names names = names_of(&lab);
    if (ok && CASES[index].what != REMOVE && !has_vm(&lab, names.target))
        fail_msg("%s: success was told", where);
    lab_done(&lab);
    points += struck;
    return struck;
}

static unsigned seeds(void)
{
    const char *text = getenv("BOUGH_TEST_SEEDS");

    return text && strtoul(text, NULL, 10) > 0 ? (unsigned)strtoul(text, NULL, 10) : 1;
}

static void a_folder_cut_off_at_any_call_is_whole_or_not_there(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(CASES); i++) {
        uint64_t nth = 1;
        for (bool struck = true; struck; nth++) {
            struck = false;
            for (uint64_t seed = 1; seed <= seeds(); seed++)
                struck |= fail_at(i,
                                  (struct io_fault){.calls = IO_CALLS_CHANGES,
                                                    .nth = nth,
                                                    .errnum = EIO,
                                                    .done_anyway = (nth + seed) % 2,
                                                    .forever = true},
                                  seed * 1000 + nth);
        }
        assert_true(nth > 2);
    }
    printf("%zu operations on folders: %llu power cuts\n", ARRAY_SIZE(CASES), points);
}

static void an_error_at_any_call_leaves_the_folder_whole_or_not_there(void **state)
{
    unsigned stride = seeds() > 1 ? 1 : 7;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(CASES); i++)
        for (uint64_t nth = 1 + i % stride;
             fail_at(i, (struct io_fault){.calls = IO_CALLS_ALL, .nth = nth, .errnum = nth % 2 ? EIO : ENOSPC}, 0);
             nth += stride)
            ;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_folder_cut_off_at_any_call_is_whole_or_not_there),
        cmocka_unit_test(an_error_at_any_call_leaves_the_folder_whole_or_not_there),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
