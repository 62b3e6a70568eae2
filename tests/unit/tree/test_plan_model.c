/* Any sequence of operations, planned and played on a model of the folder: after every step the committed
 * tree names only files that are there (invariants 2 and 3), after every plan nothing else is left (invariant
 * 5), and what a snapshot holds never changes and comes back exactly (invariant 1, S8, S9). */
#include "tree_sample.h"

#include "auto.h"
#include "file.h"
#include "random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define SECTORS 4 /* of each disk; 0: not in this layer */
#define DISKS   2

struct entry {
    char *path;
    bool is_dir;
    char *parent; /* a layer's */
    unsigned sectors[SECTORS];
    struct config *config; /* a settings file's */
};

/* What a guest would see. */
struct content {
    unsigned sectors[DISKS][SECTORS];
    unsigned cpus;
};

struct model {
    struct entry *entries;
    size_t count;
    struct tree *tree; /* as committed */
    enum plan_machine machine;
    struct config *engines; /* what a running machine writes to; NULL: what the tree names */
    struct content now;
    struct {
        struct guid guid;
        struct content content;
    } * taken;
    size_t taken_count;
    unsigned counter, writes;
    struct random random;
    uint64_t seed;
};

#define BAD(model, ...)                                                                                      \
    do {                                                                                                     \
        fprintf(stderr, "seed %llu: ", (unsigned long long)(model)->seed);                                   \
        fail_msg(__VA_ARGS__);                                                                               \
    } while (0)

/* --- files --- */

static struct entry *find(const struct model *model, const char *path)
{
    for (size_t i = 0; i < model->count; i++)
        if (strcmp(model->entries[i].path, path) == 0)
            return &model->entries[i];
    return NULL;
}

static struct entry *add(struct model *model, const char *path, bool is_dir)
{
    if (find(model, path))
        BAD(model, "%s is made twice", path);
    AUTO_FREE char *dir = path_dir(path);
    if (strncmp(path, SAMPLE_DIR "/", strlen(SAMPLE_DIR) + 1) == 0 && strcmp(dir, SAMPLE_DIR) != 0 &&
        !find(model, dir))
        BAD(model, "%s is made in a folder that is not there", path);
    model->entries = reallocarray(model->entries, model->count + 1, sizeof *model->entries);
    model->entries[model->count] = (struct entry){.path = strdup(path), .is_dir = is_dir};
    return &model->entries[model->count++];
}

static void drop(struct model *model, struct entry *entry)
{
    free(entry->path);
    free(entry->parent);
    config_free(entry->config);
    *entry = model->entries[--model->count];
}

static void drop_dir(struct model *model, const char *path)
{
    for (size_t i = model->count; i-- > 0;)
        if (strcmp(model->entries[i].path, path) == 0 || path_is_inside(model->entries[i].path, path))
            drop(model, &model->entries[i]);
}

static void put_config(struct model *model, const char *path, const struct config *config)
{
    struct entry *entry = find(model, path);

    if (!entry)
        entry = add(model, path, false);
    config_free(entry->config);
    entry->config = config_copy(config);
}

/* --- disks --- */

static void read_disk(const struct model *model, const char *path, unsigned sectors[SECTORS])
{
    for (const struct entry *layer = find(model, path); layer;
         layer = layer->parent ? find(model, layer->parent) : NULL)
        for (unsigned i = 0; i < SECTORS; i++)
            if (!sectors[i])
                sectors[i] = layer->sectors[i];
}

static struct content read_content(const struct model *model, const struct config *config)
{
    struct content content = {.cpus = config->cpus};

    for (size_t i = 0; i < config->disk_count; i++)
        read_disk(model, config->disks[i].path, content.sectors[i]);
    return content;
}

static void guest_writes(struct model *model)
{
    const struct config *config = model->engines ? model->engines : model->tree->vm;
    size_t disk = random_below(&model->random, DISKS);
    unsigned sector = (unsigned)random_below(&model->random, SECTORS);

    find(model, config->disks[disk].path)->sectors[sector] = ++model->writes;
    model->now.sectors[disk][sector] = model->writes;
}

/* --- invariants --- */

static void assert_there(struct model *model, const char *path)
{
    if (!find(model, path))
        BAD(model, "%s is needed and not there", path);
}

static void assert_state_there(struct model *model, char *dir, const struct guid *memory,
                               const struct guid *nvram)
{
    static const char *const SUFFIXES[] = {".bin", ".vsv", ".nvram"};

    for (unsigned i = 0; i < 3; i++) {
        const struct guid *guid = i < 2 ? memory : nvram;
        AUTO_FREE char *path = tree_state_path(dir, guid, SUFFIXES[i]);
        if (guid_is_set(guid))
            assert_there(model, path);
    }
    free(dir);
}

static void assert_chains_there(struct model *model, const struct config *config)
{
    for (size_t i = 0; i < config->disk_count; i++) {
        const char *path = config->disks[i].path;
        while (path) {
            assert_there(model, path);
            path = find(model, path)->parent;
        }
    }
}

/* Invariant 2; 3 is tree_new()'s. */
static void assert_named_is_there(struct model *model)
{
    const struct tree *tree = model->tree;

    assert_chains_there(model, tree->vm);
    assert_state_there(model, tree_vm_state_dir(tree), &tree->vm->saved, &tree->vm->nvram);
    for (size_t i = 0; i < tree->snapshot_count; i++) {
        const struct config *snapshot = tree->snapshots[i];
        struct guid memory = snapshot->state_when_taken != STATE_OFF ? snapshot->snapshot : (struct guid){0};
        AUTO_FREE char *dir = tree_snapshot_dir(tree, &snapshot->snapshot);
        assert_there(model, dir);
        assert_chains_there(model, snapshot);
        assert_state_there(model, strdup(dir), &memory, &snapshot->nvram);
    }
}

static bool chain_holds(const struct model *model, const struct config *config, const char *path)
{
    for (size_t i = 0; i < config->disk_count; i++)
        for (const struct entry *at = find(model, config->disks[i].path); at;
             at = at->parent ? find(model, at->parent) : NULL)
            if (strcmp(at->path, path) == 0)
                return true;
    return false;
}

static bool is_needed(const struct model *model, const struct entry *entry)
{
    const struct tree *tree = model->tree;
    struct guid guid = {0};
    const char *name = path_base(entry->path);

    if (strstr(name, ".vhd") || strcmp(name, "Snapshots") == 0 || strcmp(name, "Virtual Machines") == 0 ||
        strstr(name, SAMPLE_VM) || chain_holds(model, tree->vm, entry->path))
        return true;
    for (size_t i = 0; i < tree->snapshot_count; i++)
        if (strstr(entry->path, tree->snapshots[i]->snapshot.text) ||
            chain_holds(model, tree->snapshots[i], entry->path))
            return true;
    snprintf(guid.text, sizeof guid.text, "%.36s", name);
    return guid_is_set(&guid) && (guid_equal(&guid, &tree->vm->saved) || guid_equal(&guid, &tree->vm->nvram));
}

/* Invariant 5, and the bases stay. */
static void assert_rest_is_gone(struct model *model)
{
    for (size_t i = 0; i < model->count; i++)
        if (!is_needed(model, &model->entries[i]))
            BAD(model, "%s is left", model->entries[i].path);
    assert_there(model, SAMPLE_DIR "/web.vhd");
    assert_there(model, "/srv/data.vhd");
}

static void assert_same(struct model *model, const struct content *content, const struct content *expected,
                        const char *what)
{
    if (memcmp(content, expected, sizeof *content) != 0)
        BAD(model, "the content of %s has changed", what);
}

static void assert_contents(struct model *model)
{
    struct content vm = read_content(model, model->tree->vm);

    assert_same(model, &vm, &model->now, "the VM");
    for (size_t i = 0; i < model->tree->snapshot_count; i++) {
        const struct config *snapshot = model->tree->snapshots[i];
        struct content content = read_content(model, snapshot);
        for (size_t j = 0; j < model->taken_count; j++)
            if (guid_equal(&model->taken[j].guid, &snapshot->snapshot))
                assert_same(model, &content, &model->taken[j].content, snapshot->name);
    }
}

/* --- playing a plan --- */

static void reload(struct model *model)
{
    AUTO_FREE char *vm_path = model->tree ? tree_vm_xml_path(model->tree)
                                          : strdup(SAMPLE_DIR "/Virtual Machines/" SAMPLE_VM ".xml");
    struct config *vm = config_copy(find(model, vm_path)->config);
    struct config **snapshots = calloc(vm->listed_count + 1, sizeof(struct config *));
    struct err err;

    for (size_t i = 0; i < vm->listed_count; i++) {
        AUTO_FREE char *path = string_printf(SAMPLE_DIR "/Snapshots/%s.xml", vm->listed[i].guid.text);
        assert_there(model, path);
        snapshots[i] = config_copy(find(model, path)->config);
    }
    tree_free(model->tree);
    if (!tree_new(SAMPLE_DIR, vm, snapshots, vm->listed_count, &model->tree, &err))
        BAD(model, "%s", err.text);
}

static void copy_entry(struct model *model, const struct step *step)
{
    assert_there(model, step->from);
    add(model, step->path, false);
}

static void make_layer(struct model *model, const struct step *step)
{
    assert_there(model, step->from);
    add(model, step->path, false)->parent = strdup(step->from);
}

static void save_memory(struct model *model, struct plan *plan, size_t index)
{
    const struct step *step = &plan->steps[index];
    AUTO_FREE char *nvram = plan_nvram_path(plan, index);

    if (nvram) {
        assert_there(model, step->from);
        add(model, nvram, false);
    }
    for (unsigned i = 0; i < 2; i++) {
        AUTO_FREE char *path = string_printf("%s%s", step->path, i ? ".vsv" : ".bin");
        add(model, path, false);
    }
    /* The instant: the engines write to their new tops from now on, and what is sealed is the snapshot. */
    config_free(TAKE(model->engines));
}

static void make_dir(struct model *model, const struct step *step)
{
    if (!find(model, step->path))
        add(model, step->path, true);
}

static void remove_one(struct model *model, const struct step *step)
{
    struct entry *entry = find(model, step->path);

    if (entry)
        drop(model, entry);
}

static void play_step(struct model *model, struct plan *plan, size_t index)
{
    const struct step *step = &plan->steps[index];

    switch (step->kind) {
    case STEP_MAKE_DIR:
        make_dir(model, step);
        break;
    case STEP_CREATE_LAYER:
        make_layer(model, step);
        break;
    case STEP_SHARE_FILE:
    case STEP_COPY_FILE:
        copy_entry(model, step);
        break;
    case STEP_COMMIT:
    case STEP_WRITE_CONFIG:
        put_config(model, step->path, step->config);
        if (step->kind == STEP_COMMIT)
            reload(model);
        break;
    case STEP_SYNC_DIR:
        if (strcmp(step->path, SAMPLE_DIR) != 0)
            assert_there(model, step->path);
        break;
    case STEP_REMOVE_FILE:
        remove_one(model, step);
        break;
    case STEP_REMOVE_DIR:
        drop_dir(model, step->path);
        break;
    case STEP_SAVE_MEMORY:
        save_memory(model, plan, index);
        break;
    case STEP_SAVE_THUMBNAIL:
        if (model->writes % 3 != 0) /* now and then there is no picture */
            add(model, step->path, false);
        break;
    default:
        break;
    }
}

/* Plays up to end; a guest that runs writes between the steps. */
static void play(struct model *model, struct plan *plan, size_t end)
{
    bool is_stopped = model->machine != MACHINE_RUNNING;

    for (size_t i = 0; i < end; i++) {
        const struct step *step = &plan->steps[i];
        if (step->kind == STEP_PREPARE_TOPS)
            model->engines = config_copy(model->tree->vm);
        if (step->kind == STEP_STOP_PRESENT || step->kind == STEP_SAVE_MEMORY)
            is_stopped = true;
        play_step(model, plan, i);
        assert_named_is_there(model);
        if (!is_stopped)
            guest_writes(model);
    }
}

/* --- operations --- */

static struct plan_source source(struct model *model)
{
    struct plan_source plain = SAMPLE_SOURCE(&model->counter);

    plain.now_ms += model->counter;
    return plain;
}

static void layers_of(const struct model *model, struct plan_layer **ret_layers, size_t *ret_count)
{
    struct plan_layer *layers = calloc(model->count + 1, sizeof *layers);
    size_t count = 0;

    for (size_t i = 0; i < model->count; i++)
        if (strstr(model->entries[i].path, "vhd") && !model->entries[i].is_dir)
            layers[count++] = (struct plan_layer){model->entries[i].path, model->entries[i].parent};
    for (size_t i = 0; i < count; i++) /* the model's names move as it changes */
        layers[i] =
            (struct plan_layer){strdup(layers[i].path), layers[i].parent ? strdup(layers[i].parent) : NULL};
    *ret_layers = layers;
    *ret_count = count;
}

static void layers_free(struct plan_layer *layers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free((char *)layers[i].path);
        free((char *)layers[i].parent);
    }
    free(layers);
}

static void remember(struct model *model, const struct guid *guid, const struct content *content)
{
    model->taken = reallocarray(model->taken, model->taken_count + 1, sizeof *model->taken);
    model->taken[model->taken_count].guid = *guid;
    model->taken[model->taken_count++].content = *content;
}

static void do_snapshot(struct model *model)
{
    struct plan_source from = source(model);
    struct plan_snapshot request = {
        .machine = model->machine, .qemu_version = "7.2.1", .accel_used = ACCEL_TCG};
    AUTO_PLAN struct plan *plan = NULL;
    struct guid guid;
    struct err err;

    if (!plan_snapshot(model->tree, &from, &request, &plan, &guid, &err))
        BAD(model, "%s", err.text);
    play(model, plan, plan->step_count);
    remember(model, &guid, &model->now);
    assert_contents(model);
}

static void do_apply(struct model *model)
{
    const struct config *snapshot =
        model->tree->snapshots[random_below(&model->random, model->tree->snapshot_count)];
    struct plan_apply request = {.machine = model->machine,
                                 .snapshot = snapshot->snapshot,
                                 .no_start = random_below(&model->random, 2),
                                 .disks_only = random_below(&model->random, 4) == 0};
    struct plan_source from = source(model);
    enum config_state taken = request.disks_only ? STATE_OFF : snapshot->state_when_taken;
    AUTO_PLAN struct plan *plan = NULL;
    struct plan_layer *layers;
    struct err err;

    layers_of(model, &layers, &request.layer_count);
    request.layers = layers;
    if (!plan_apply(model->tree, &from, &request, &plan, &err))
        BAD(model, "%s", err.text);
    play(model, plan, plan->step_count);
    layers_free(layers, request.layer_count);
    for (size_t i = 0; i < model->taken_count; i++)
        if (guid_equal(&model->taken[i].guid, &request.snapshot))
            model->now = model->taken[i].content;
    model->machine = taken == STATE_OFF       ? MACHINE_OFF
                     : request.no_start       ? MACHINE_SAVED
                     : taken == STATE_RUNNING ? MACHINE_RUNNING
                                              : MACHINE_PAUSED;
    assert_contents(model);
}

static void do_delete(struct model *model)
{
    struct guid guid =
        model->tree->snapshots[random_below(&model->random, model->tree->snapshot_count)]->snapshot;
    AUTO_PLAN struct plan *plan = NULL;
    struct plan_layer *layers;
    size_t count;
    struct err err;

    layers_of(model, &layers, &count);
    if (!plan_delete(model->tree, &guid, random_below(&model->random, 4) == 0, layers, count, &plan, &err))
        BAD(model, "%s", err.text);
    play(model, plan, plan->step_count);
    layers_free(layers, count);
    if (tree_by_guid(model->tree, &guid))
        BAD(model, "%s is still listed", guid.text);
}

static void do_settings(struct model *model, bool drop_saved)
{
    AUTO_CONFIG struct config *vm = config_copy(model->tree->vm);
    AUTO_PLAN struct plan *plan = NULL;
    struct err err;

    if (drop_saved)
        vm->saved = (struct guid){0};
    else
        vm->cpus = model->now.cpus = 1 + (unsigned)random_below(&model->random, 16);
    if (!plan_settings(model->tree, vm, "set", &plan, &err))
        BAD(model, "%s", err.text);
    play(model, plan, plan->step_count);
}

static void do_save(struct model *model)
{
    struct plan_source from = source(model);
    struct plan_save request = {.machine = model->machine, .qemu_version = "7.2.1", .accel_used = ACCEL_TCG};
    AUTO_PLAN struct plan *plan = NULL;
    struct err err;

    if (!plan_save(model->tree, &from, &request, &plan, &err))
        BAD(model, "%s", err.text);
    play(model, plan, plan->step_count);
    model->machine = MACHINE_SAVED;
}

/* A live snapshot whose saving fails: a layer without a name stays in the VM's chain. */
static void do_failed_snapshot(struct model *model)
{
    struct plan_source from = source(model);
    struct plan_snapshot request = {
        .machine = model->machine, .qemu_version = "7.2.1", .accel_used = ACCEL_TCG};
    AUTO_PLAN struct plan *plan = NULL;
    struct guid guid;
    struct err err;
    size_t end = 0;

    if (!plan_snapshot(model->tree, &from, &request, &plan, &guid, &err))
        BAD(model, "%s", err.text);
    while (plan->steps[end].kind != STEP_SAVE_MEMORY)
        end++;
    play(model, plan, end);
    config_free(TAKE(model->engines));
    AUTO_FREE char *dir = tree_snapshot_dir(model->tree, &guid);
    drop_dir(model, dir);
}

static void do_power(struct model *model)
{
    bool is_alive = model->machine == MACHINE_RUNNING || model->machine == MACHINE_PAUSED;

    if (model->machine == MACHINE_SAVED)
        do_settings(model, /* drop_saved= */ true);
    model->machine = is_alive                          ? MACHINE_OFF
                     : random_below(&model->random, 2) ? MACHINE_RUNNING
                                                       : MACHINE_PAUSED;
}

static void do_something(struct model *model)
{
    bool is_alive = model->machine == MACHINE_RUNNING || model->machine == MACHINE_PAUSED;
    bool has_snapshots = model->tree->snapshot_count > 0;
    uint64_t what = random_below(&model->random, 16);

    if (what < 5)
        do_snapshot(model);
    else if (what < 8 && has_snapshots)
        do_apply(model);
    else if (what < 10 && has_snapshots)
        do_delete(model);
    else if (what < 11 && is_alive)
        do_save(model);
    else if (what < 12 && is_alive)
        do_failed_snapshot(model);
    else if (what < 14)
        do_power(model);
    else if (model->machine == MACHINE_OFF)
        do_settings(model, /* drop_saved= */ false);
    if (model->machine != MACHINE_SAVED)
        guest_writes(model);
    assert_named_is_there(model);
    assert_rest_is_gone(model);
    assert_contents(model);
}

/* --- a run --- */

static void model_new(struct model *model, uint64_t seed)
{
    struct config *vm = sample_vm(SAMPLE_DIR);

    *model = (struct model){.random = {seed}, .seed = seed, .counter = 100000, .machine = MACHINE_OFF};
    vm->generation = 2;
    vm->display = DISPLAY_VNC;
    vm->disks[0].bus = BUS_SCSI;
    vm->nvram = sample_guid(900);
    sample_disk(vm, BUS_VIRTIO, 0, false, "/srv/data.vhd");
    add(model, SAMPLE_DIR "/Virtual Machines", true);
    add(model, SAMPLE_DIR "/Virtual Machines/" SAMPLE_VM, true);
    add(model, SAMPLE_DIR "/Snapshots", true);
    add(model, SAMPLE_DIR "/web.vhd", false);
    add(model, "/srv/data.vhd", false);
    AUTO_FREE char *nvram =
        string_printf(SAMPLE_DIR "/Virtual Machines/" SAMPLE_VM "/%s.nvram", vm->nvram.text);
    add(model, nvram, false);
    put_config(model, SAMPLE_DIR "/Virtual Machines/" SAMPLE_VM ".xml", vm);
    model->now.cpus = vm->cpus;
    config_free(vm);
    reload(model);
}

static void model_done(struct model *model)
{
    while (model->count > 0)
        drop(model, &model->entries[0]);
    free(model->entries);
    free(model->taken);
    config_free(model->engines);
    tree_free(model->tree);
}

static void any_sequence_of_operations_keeps_the_invariants(void **state)
{
    const char *text = getenv("BOUGH_TEST_SEEDS");
    uint64_t seeds = text ? strtoul(text, NULL, 10) : 0;

    (void)state;
    for (uint64_t seed = 1; seed <= (seeds ? seeds : 30); seed++) {
        struct model model;
        model_new(&model, seed);
        for (unsigned i = 0; i < 60; i++)
            do_something(&model);
        model_done(&model);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_sequence_of_operations_keeps_the_invariants),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
