#include "plan_model.h"

static uint64_t hash_of(const char *path)
{
    uint64_t hash = 0xCBF29CE484222325U;

    for (; *path; path++)
        hash = (hash ^ (unsigned char)*path) * 0x100000001B3U;
    return hash;
}

/* --- files --- */

struct entry *model_find(const struct model *model, const char *path)
{
    uint64_t hash = hash_of(path);

    for (size_t i = 0; i < model->count; i++)
        if (model->entries[i].hash == hash && strcmp(model->entries[i].path, path) == 0)
            return &model->entries[i];
    return NULL;
}

struct entry *model_add(struct model *model, const char *path, bool is_dir)
{
    if (model_find(model, path))
        BAD(model, "%s is made twice", path);
    AUTO_FREE char *dir = path_dir(path);
    if (path_is_inside(path, SAMPLE_DIR) && strcmp(dir, SAMPLE_DIR) != 0 && !model_find(model, dir))
        BAD(model, "%s is made in a folder that is not there", path);
    model->entries = reallocarray(model->entries, model->count + 1, sizeof *model->entries);
    model->entries[model->count] =
        (struct entry){.hash = hash_of(path), .path = strdup(path), .is_dir = is_dir, .id = ++model->counter};
    return &model->entries[model->count++];
}

void model_drop(struct model *model, struct entry *entry)
{
    if (strcmp(entry->path, MODEL_BASE) == 0 || strcmp(entry->path, MODEL_OUTSIDE) == 0)
        BAD(model, "the base %s is removed", entry->path);
    free(entry->path);
    free(entry->parent);
    config_free(entry->config);
    *entry = model->entries[--model->count];
}

void model_drop_dir(struct model *model, const char *path)
{
    for (size_t i = model->count; i-- > 0;)
        if (strcmp(model->entries[i].path, path) == 0 || path_is_inside(model->entries[i].path, path))
            model_drop(model, &model->entries[i]);
}

void model_put_config(struct model *model, const char *path, const struct config *config)
{
    struct entry *entry = model_find(model, path);

    if (!entry)
        entry = model_add(model, path, false);
    config_free(entry->config);
    entry->config = config_copy(config);
}

void model_sync_dir(struct model *model, const char *path)
{
    for (size_t i = 0; i < model->count; i++) {
        AUTO_FREE char *dir = model->entries[i].is_durable ? NULL : path_dir(model->entries[i].path);
        model->entries[i].is_durable |= dir && strcmp(dir, path) == 0;
    }
}

static void assert_there(struct model *model, const char *path)
{
    if (!model_find(model, path))
        BAD(model, "%s is needed and not there", path);
}

void model_reload(struct model *model)
{
    AUTO_FREE char *vm_path = model->tree ? tree_vm_xml_path(model->tree)
                                          : strdup(SAMPLE_DIR "/Virtual Machines/" SAMPLE_VM ".xml");
    struct config *vm = config_copy(model_find(model, vm_path)->config);
    struct config **snapshots = calloc(vm->listed_count + 1, sizeof(struct config *));
    struct err err;

    for (size_t i = 0; i < vm->listed_count; i++) {
        AUTO_FREE char *path = string_printf(SAMPLE_DIR "/Snapshots/%s.xml", vm->listed[i].guid.text);
        assert_there(model, path);
        snapshots[i] = config_copy(model_find(model, path)->config);
    }
    tree_free(model->tree);
    model->tree = NULL;
    if (!tree_new(SAMPLE_DIR, vm, snapshots, vm->listed_count, &model->tree, &err))
        BAD(model, "%s", err.text);
}

/* --- disks --- */

static const struct entry *parent_of(const struct model *model, const struct entry *layer)
{
    return layer->parent ? model_find(model, layer->parent) : NULL;
}

static void read_disk(const struct model *model, const char *path, unsigned sectors[MODEL_SECTORS])
{
    for (const struct entry *layer = model_find(model, path); layer; layer = parent_of(model, layer))
        for (unsigned i = 0; i < MODEL_SECTORS; i++)
            if (!sectors[i])
                sectors[i] = layer->sectors[i];
}

struct content model_content(const struct model *model, const struct config *config)
{
    struct content content = {.cpus = config->cpus};

    for (size_t i = 0; i < config->disk_count; i++)
        read_disk(model, config->disks[i].path, content.sectors[i]);
    return content;
}

void model_guest_writes(struct model *model)
{
    const struct config *config = model->engines ? model->engines : model->tree->vm;
    size_t disk = model_draw(model, MODEL_DISKS);
    unsigned sector = (unsigned)model_draw(model, MODEL_SECTORS);

    model_find(model, config->disks[disk].path)->sectors[sector] = ++model->writes;
    if (strcmp(config->disks[disk].path, MODEL_OUTSIDE) == 0)
        model->outside[sector] = model->writes;
    model->now.sectors[disk][sector] = model->writes;
    if (model_draw(model, 3) == 0)
        model_flush(model);
}

void model_flush(struct model *model)
{
    for (size_t i = 0; i < model->count; i++)
        memcpy(model->entries[i].durable, model->entries[i].sectors, sizeof model->entries[i].durable);
}

/* Something that either direction may be the cheaper by. */
static uint64_t allocated_bytes(const struct entry *entry)
{
    uint64_t bytes = 1 + entry->id % 3;

    for (unsigned i = 0; i < MODEL_SECTORS; i++)
        bytes += entry->sectors[i] ? 10 : 0;
    return bytes;
}

/* Sometimes not empty at all: a plan must not trust it. */
static bool may_be_empty(const struct entry *entry)
{
    unsigned filled = 0;

    if (!entry->parent || entry->is_not_empty || entry->id % 4 == 3)
        return false;
    for (unsigned i = 0; i < MODEL_SECTORS; i++)
        filled += entry->sectors[i] != 0;
    return filled <= (entry->id % 8 == 0);
}

void model_layers(const struct model *model, struct plan_layer **ret_layers, size_t *ret_count)
{
    struct plan_layer *layers = calloc(model->count + 1, sizeof *layers);
    size_t count = 0;

    for (size_t i = 0; i < model->count; i++) {
        const struct entry *entry = &model->entries[i];
        if (!strstr(entry->path, "vhd") || entry->is_dir)
            continue;
        layers[count] = (struct plan_layer){.path = strdup(entry->path),
                                            .parent = entry->parent ? strdup(entry->parent) : NULL,
                                            .size_bytes = 1U << 30,
                                            .allocated_bytes = allocated_bytes(entry),
                                            .is_linked = entry->is_linked,
                                            .may_be_empty = may_be_empty(entry)};
        snprintf(layers[count++].id, sizeof layers->id, "%032u", entry->id);
    }
    *ret_layers = layers;
    *ret_count = count;
}

void model_layers_free(struct plan_layer *layers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free((char *)layers[i].path);
        free((char *)layers[i].parent);
    }
    free(layers);
}

/* --- what is needed --- */

typedef void needed_fn(struct model *model, const char *path);

static void each_state(struct model *model, char *dir, const struct guid *memory, const struct guid *nvram,
                       needed_fn *each)
{
    static const char *const SUFFIXES[] = {".bin", ".vsv", ".nvram"};

    for (unsigned i = 0; i < ARRAY_SIZE(SUFFIXES); i++) {
        const struct guid *guid = i < 2 ? memory : nvram;
        AUTO_FREE char *path = tree_state_path(dir, guid, SUFFIXES[i]);
        if (guid_is_set(guid))
            each(model, path);
    }
    if (guid_is_set(memory) || guid_is_set(nvram))
        each(model, dir);
    free(dir);
}

static void each_image(struct model *model, const struct config *config, needed_fn *each)
{
    for (size_t i = 0; i < config->disk_count; i++) {
        each(model, config->disks[i].path);
        for (const struct entry *layer = model_find(model, config->disks[i].path); layer && layer->parent;
             layer = parent_of(model, layer))
            each(model, layer->parent);
    }
}

/* Calls each for all that the tree names, and all that that needs. */
static void each_needed(struct model *model, needed_fn *each)
{
    const struct tree *tree = model->tree;

    each_image(model, tree->vm, each);
    each_state(model, tree_vm_state_dir(tree), &tree->vm->saved, &tree->vm->nvram, each);
    for (size_t i = 0; i < tree->snapshot_count; i++) {
        const struct config *snapshot = tree->snapshots[i];
        struct guid memory = snapshot->state_when_taken != STATE_OFF ? snapshot->snapshot : (struct guid){0};
        AUTO_FREE char *dir = tree_snapshot_dir(tree, &snapshot->snapshot);
        AUTO_FREE char *xml = tree_snapshot_xml_path(tree, &snapshot->snapshot);
        each(model, dir);
        each(model, xml);
        each_image(model, snapshot, each);
        each_state(model, strdup(dir), &memory, &snapshot->nvram, each);
    }
}

static bool chain_holds(const struct model *model, const struct config *config, const struct entry *entry)
{
    for (size_t i = 0; i < config->disk_count; i++)
        for (const struct entry *at = model_find(model, config->disks[i].path); at; at = parent_of(model, at))
            if (at == entry)
                return true;
    return false;
}

static bool is_in_use(const struct model *model, const struct entry *entry)
{
    if (chain_holds(model, model->tree->vm, entry))
        return true;
    for (size_t i = 0; i < model->tree->snapshot_count; i++)
        if (chain_holds(model, model->tree->snapshots[i], entry))
            return true;
    return false;
}

/* `<GUID><any of the ends>` */
static bool guid_name(const char *name, struct guid *ret_guid)
{
    char text[GUID_LENGTH + 1] = "";

    snprintf(text, sizeof text, "%.36s", name);
    return strlen(text) == GUID_LENGTH && guid_parse(text, ret_guid);
}

/* What recovery may remove: by the names that Bough gives, in the places where it gives them, and only if nothing needs it. */
static bool is_garbage(const struct model *model, const struct entry *entry)
{
    const struct tree *tree = model->tree;
    AUTO_FREE char *dir = path_dir(entry->path);
    AUTO_FREE char *snapshots = tree_snapshots_dir(tree);
    AUTO_FREE char *state = tree_vm_state_dir(tree);
    struct guid guid;

    if (tree_is_layer(tree, entry->path))
        return !is_in_use(model, entry);
    if (strcmp(dir, state) == 0)
        return guid_name(path_base(entry->path), &guid) && !guid_equal(&guid, &tree->vm->saved) &&
               !guid_equal(&guid, &tree->vm->nvram);
    const char *owner = strcmp(dir, snapshots) == 0 ? path_base(entry->path) : path_base(dir);
    return path_is_inside(entry->path, snapshots) && guid_name(owner, &guid) && !tree_by_guid(tree, &guid) &&
           !guid_equal(&guid, &tree->vm->guid);
}

/* --- what must hold --- */

static void assert_same(struct model *model, const struct content *content, const struct content *expected,
                        const char *what)
{
    if (memcmp(content, expected, sizeof *content) != 0)
        BAD(model, "the content of %s has changed", what);
}

/* Invariant 1, S8 and S9. */
static void check_contents(struct model *model)
{
    for (size_t i = 0; i < model->tree->snapshot_count; i++) {
        const struct config *snapshot = model->tree->snapshots[i];
        struct content content = model_content(model, snapshot);
        bool is_known = false;
        for (size_t j = model->taken_count; j-- > 0 && !is_known;) {
            if (!guid_equal(&model->taken[j].guid, &snapshot->snapshot))
                continue;
            assert_same(model, &content, &model->taken[j].content, snapshot->snapshot.text);
            is_known = true;
        }
        if (!is_known)
            BAD(model, "%s is listed and was never taken", snapshot->snapshot.text);
    }
}

/* What the VM reads is what its guest wrote, also while the engines write to other tops than its file names. */
static void check_vm(struct model *model)
{
    struct content vm = model_content(model, model->engines ? model->engines : model->tree->vm);

    vm.cpus = model->now.cpus;
    assert_same(model, &vm, &model->now, "the VM");
    vm = model_content(model, model->tree->vm);
    vm.cpus = model->now.cpus;
    assert_same(model, &vm, &model->now, "the VM's file");
}

/* Invariant 5: bases stay, and what is neither needed nor part of the folder's frame can be told as garbage. */
static bool is_frame(const struct entry *entry)
{
    return strcmp(entry->path, SAMPLE_DIR "/Virtual Machines") == 0 ||
           strcmp(entry->path, SAMPLE_DIR "/Virtual Machines/" SAMPLE_VM) == 0 ||
           strcmp(entry->path, SAMPLE_DIR "/Virtual Machines/" SAMPLE_VM ".xml") == 0 ||
           strcmp(entry->path, SAMPLE_DIR "/Snapshots") == 0 || strcmp(entry->path, SAMPLE_LAYERS) == 0 ||
           strcmp(entry->path, MODEL_BASE) == 0 || strcmp(entry->path, MODEL_OUTSIDE) == 0;
}

static bool is_needed(const struct model *model, const struct entry *entry)
{
    struct guid guid;
    AUTO_FREE char *dir = path_dir(entry->path);

    if (is_frame(entry))
        return true;
    if (tree_is_layer(model->tree, entry->path))
        return is_in_use(model, entry);
    if (strcmp(dir, SAMPLE_DIR "/Virtual Machines/" SAMPLE_VM) == 0)
        return guid_name(path_base(entry->path), &guid) &&
               (guid_equal(&guid, &model->tree->vm->saved) || guid_equal(&guid, &model->tree->vm->nvram));
    const char *owner = strcmp(dir, SAMPLE_DIR "/Snapshots") == 0 ? path_base(entry->path) : path_base(dir);
    return guid_name(owner, &guid) && tree_by_guid(model->tree, &guid);
}

/* An image of that name with another id would not be gone back to. */
static void check_ids(struct model *model)
{
    for (size_t i = 0; i < model->tree->snapshot_count; i++) {
        const struct config *snapshot = model->tree->snapshots[i];
        for (size_t j = 0; j < snapshot->disk_count; j++) {
            const struct config_disk *disk = &snapshot->disks[j];
            char id[33];
            snprintf(id, sizeof id, "%032u", model_find(model, disk->path)->id);
            if (disk->image_id[0] != '\0' && strcmp(disk->image_id, id) != 0)
                BAD(model, "%s means another image than %s", snapshot->snapshot.text, disk->path);
        }
    }
}

/* Others may depend on it. */
static void check_others(struct model *model)
{
    const struct entry *outside = model_find(model, MODEL_OUTSIDE);

    if (!model->may_fill_base && memcmp(outside->sectors, model->outside, sizeof model->outside) != 0)
        BAD(model, "%s was written to", MODEL_OUTSIDE);
}

static void check_rest(struct model *model)
{
    assert_there(model, MODEL_BASE);
    assert_there(model, MODEL_OUTSIDE);
    for (size_t i = 0; i < model->count; i++) {
        const struct entry *entry = &model->entries[i];
        if (!is_needed(model, entry) && !is_garbage(model, entry))
            BAD(model, "%s: no recovery would know that it is garbage", entry->path);
        if (entry->parent && !parent_of(model, entry))
            BAD(model, "%s is left without its parent", entry->path);
    }
}

void model_check(struct model *model)
{
    each_needed(model, assert_there); /* invariant 2; 3 is tree_new()'s */
    check_contents(model);
    check_ids(model);
    check_vm(model);
    check_others(model);
    check_rest(model);
}

void model_check_clean(struct model *model)
{
    model_check(model);
    for (size_t i = 0; i < model->count; i++)
        if (is_garbage(model, &model->entries[i]))
            BAD(model, "%s is left", model->entries[i].path);
}

static void assert_durable(struct model *model, const char *path)
{
    AUTO_FREE char *at = strdup(path);

    while (path_is_inside(at, SAMPLE_DIR)) {
        const struct entry *entry = model_find(model, at);
        if (!entry || !entry->is_durable)
            BAD(model, "%s is named by a commit, and %s is not durable", path, at);
        char *dir = path_dir(at);
        free(at);
        at = dir;
    }
}

static bool is_dirty(const struct model *model, const struct config *config)
{
    for (size_t i = 0; i < config->disk_count; i++)
        for (const struct entry *at = model_find(model, config->disks[i].path); at; at = parent_of(model, at))
            if (memcmp(at->sectors, at->durable, sizeof at->sectors) != 0)
                return true;
    return false;
}

void model_check_durable(struct model *model)
{
    const struct tree *tree = model->tree;

    each_needed(model, assert_durable);
    for (size_t i = 0; i < tree->snapshot_count; i++)
        if (is_dirty(model, tree->snapshots[i]))
            BAD(model, "%s is listed, and its disks are not durable", tree->snapshots[i]->snapshot.text);
    if (guid_is_set(&tree->vm->saved) && is_dirty(model, tree->vm))
        BAD(model, "the VM is saved, and its disks are not durable");
}

/* --- ends of plans that come early --- */

static void lose_names(struct model *model)
{
    for (size_t i = model->count; i-- > 0;) {
        if (i >= model->count || model->entries[i].is_durable || model_draw(model, 2))
            continue;
        AUTO_FREE char *path = strdup(model->entries[i].path);
        model_drop_dir(model, path);
    }
}

void model_power_cut(struct model *model)
{
    lose_names(model);
    for (size_t i = 0; i < model->count; i++) {
        struct entry *entry = &model->entries[i];
        for (unsigned j = 0; j < MODEL_SECTORS; j++)
            if (model_draw(model, 2))
                entry->sectors[j] = entry->durable[j];
        memcpy(entry->durable, entry->sectors, sizeof entry->durable);
        entry->is_durable = true;
    }
    memcpy(model->outside, model_find(model, MODEL_OUTSIDE)->sectors, sizeof model->outside);
    config_free(TAKE(model->engines));
    model_reload(model);
    struct content now = model_content(model, model->tree->vm);
    memcpy(model->now.sectors, now.sectors, sizeof now.sectors);
}

static void recover_one_pass(struct model *model)
{
    for (size_t i = model->count; i-- > 0;)
        if (i < model->count && is_garbage(model, &model->entries[i]))
            model_drop(model, &model->entries[i]);
}

void model_recover(struct model *model)
{
    config_free(TAKE(model->engines));
    recover_one_pass(model);
    for (size_t i = 0; i < model->count; i++)
        model->entries[i].is_durable = true;
    model_flush(model);
    model->machine = guid_is_set(&model->tree->vm->saved) ? MACHINE_SAVED : MACHINE_OFF;
    model->is_stopped = false;
}

/* --- a model --- */

void model_new(struct model *model, uint64_t seed)
{
    struct config *vm = sample_vm(SAMPLE_DIR);

    *model = (struct model){
        .random = {seed}, .seed = seed, .counter = 100000, .machine = MACHINE_OFF, .what = "make", .has_ids = seed % 4};
    vm->generation = 2;
    vm->display = DISPLAY_VNC;
    vm->disks[0].bus = BUS_SCSI;
    vm->nvram = sample_guid(900);
    sample_disk(vm, BUS_VIRTIO, 0, false, MODEL_OUTSIDE);
    model_add(model, SAMPLE_DIR "/Virtual Machines", true);
    model_add(model, SAMPLE_DIR "/Virtual Machines/" SAMPLE_VM, true);
    model_add(model, SAMPLE_DIR "/Snapshots", true);
    model_add(model, MODEL_BASE, false)->is_linked = seed % 3 == 0;
    model_add(model, MODEL_OUTSIDE, false);
    AUTO_FREE char *nvram = string_printf(SAMPLE_DIR "/Virtual Machines/" SAMPLE_VM "/%s.nvram", vm->nvram.text);
    model_add(model, nvram, false);
    model_put_config(model, SAMPLE_DIR "/Virtual Machines/" SAMPLE_VM ".xml", vm);
    model->now.cpus = vm->cpus;
    config_free(vm);
    model_reload(model);
    model_recover(model);
}

void model_done(struct model *model)
{
    for (size_t i = 0; i < model->count; i++) {
        free(model->entries[i].path);
        free(model->entries[i].parent);
        config_free(model->entries[i].config);
    }
    free(model->entries);
    free(model->taken);
    config_free(model->engines);
    tree_free(model->tree);
}
