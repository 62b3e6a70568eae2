/* create, set, remove: a VM's life and its settings. */
#include "vm_priv.h"

#include "args.h"
#include "auto.h"
#include "bases.h"
#include "file.h"
#include "hardware.h"
#include "runtime.h"
#include "vhd.h"

#include <stdlib.h>
#include <string.h>

#define DEFAULT_MEMORY_BYTES (1ULL << 30)

/* A disk whose image is made with the VM, or with the setting. */
struct new_image {
    char *name; /* file name in the VM's folder */
    uint64_t size_bytes;
};

struct new_images {
    struct new_image *images;
    size_t count;
};

static void new_images_done(struct new_images *images)
{
    for (size_t i = 0; i < images->count; i++)
        free(images->images[i].name);
    free(images->images);
}

static bool new_images_add(struct new_images *images, const char *path, uint64_t size_bytes, struct err *err)
{
    struct new_image *grown = realloc(images->images, (images->count + 1) * sizeof *grown);

    if (!grown)
        return err_oom(err);
    images->images = grown;
    char *name = strdup(path_base(path));
    if (!name)
        return err_oom(err);
    grown[images->count++] = (struct new_image){.name = name, .size_bytes = size_bytes};
    return true;
}

static bool new_images_make(void *context, const char *dir, struct err *err)
{
    const struct new_images *images = context;

    for (size_t i = 0; i < images->count; i++) {
        AUTO_FREE char *path = path_join(dir, images->images[i].name);
        struct vhd_create_options options = {.type = VHD_DYNAMIC, .size_bytes = images->images[i].size_bytes};
        if (!path)
            return err_oom(err);
        if (!vhd_create(&io_real, path, &options, err))
            return false;
    }
    return true;
}

static void new_images_remove(const struct new_images *images, const char *dir)
{
    struct err ignored;

    for (size_t i = 0; i < images->count; i++) {
        AUTO_FREE char *path = path_join(dir, images->images[i].name);
        if (path)
            (void)!io_unlink(&io_real, path, &ignored);
    }
}

/* The disk goes to the place that hardware_disk_add() chose: the one path that was not there before. */
static bool disk_add(struct config *config, const char *vm_dir, const struct hardware_disk *disk,
                     struct new_images *images, struct err *err)
{
    AUTO_CONFIG struct config *before = config_copy(config);

    if (!before)
        return err_oom(err);
    if (!hardware_disk_add(config, vm_dir, disk, err))
        return false;
    for (size_t i = 0; i < config->disk_count && !disk->path; i++) {
        bool old = false;
        for (size_t j = 0; j < before->disk_count; j++)
            old |= before->disks[j].path && config->disks[i].path &&
                   strcmp(before->disks[j].path, config->disks[i].path) == 0;
        if (!old && !config->disks[i].is_cdrom)
            return new_images_add(images, config->disks[i].path, disk->size_bytes, err);
    }
    return true;
}

static bool disks_from_json(struct config *config, const json_t *args, const char *vm_dir,
                            struct new_images *images, struct err *err)
{
    const json_t *list;
    json_t *entry;
    size_t i;

    if (!args_array(args, "disks", &list, err))
        return false;
    json_array_foreach((json_t *)list, i, entry)
    {
        struct hardware_disk disk;
        if (!hardware_disk_from_json(entry, &disk, err) || !disk_add(config, vm_dir, &disk, images, err))
            return false;
    }
    return true;
}

static bool nics_from_json(struct config *config, const json_t *args, struct err *err)
{
    const json_t *list;
    json_t *entry;
    size_t i;

    if (!args_array(args, "nics", &list, err))
        return false;
    json_array_foreach((json_t *)list, i, entry)
    {
        if (!hardware_nic_add(config, entry, err))
            return false;
    }
    return true;
}

/* What QEMU needs to rebuild the same machine for ever is pinned now. */
static bool pin(struct config *config, struct err *err)
{
    enum config_accel accel;
    struct qemu qemu;

    if (!accel_resolve(config->accel, &accel, err) || !qemu_find(&qemu, err) ||
        (!config->machine && !qemu_default_machine(&qemu, config->generation, &config->machine, err)))
        return false;
    if (config->cpu_model)
        return true;
    return config_set_string(&config->cpu_model, accel == ACCEL_KVM ? "host" : "Nehalem-v1", err);
}

/* Keys of `create` that `set` knows too, as text. */
static bool settings_from_json(struct config *config, const json_t *args, struct err *err)
{
    static const char *const KEYS[] = {"accel", "append", "cdrom", "clock", "cpu",
                                       "display", "initrd", "kernel", "machine", "notes", NULL};
    bool live;

    for (const char *const *key = KEYS; *key; key++) {
        const char *value = NULL;
        if (!args_string(args, *key, &value, err) || (value && !hardware_set(config, *key, value, &live, err)))
            return false;
    }
    return true;
}

static bool config_from_json(struct config *config, const json_t *args, const char *vm_dir,
                             struct new_images *images, struct err *err)
{
    uint64_t generation = 1, cpus = 1;
    struct plan_source source = vm_plan_source();
    bool ignored;

    config->memory_bytes = DEFAULT_MEMORY_BYTES;
    if (!args_uint(args, "memory", INT64_MAX, &config->memory_bytes, err) ||
        !args_uint(args, "cpus", 255, &cpus, err) || !args_uint(args, "generation", 2, &generation, err))
        return false;
    config->guid = guid_new();
    config->generation_id = guid_new();
    config->created_ms = source.now_ms;
    config->generation = (unsigned)generation;
    config->cpus = (unsigned)cpus;
    if (config->generation == 2)
        config->nvram = guid_new();
    return settings_from_json(config, args, err) && disks_from_json(config, args, vm_dir, images, err) &&
           nics_from_json(config, args, err) && pin(config, err) && config_check(config, err) &&
           bases_note(config, vm_dir, config, /* with_tops= */ false, &ignored, err);
}

/* UEFI starts with empty variables. */
static bool nvram_make(const struct config *config, const char *dir, struct err *err);

struct create_files {
    const struct config *config;
    struct new_images images;
};

static bool create_files_make(void *context, const char *dir, struct err *err)
{
    struct create_files *files = context;

    return new_images_make(&files->images, dir, err) &&
           (!guid_is_set(&files->config->nvram) || nvram_make(files->config, dir, err));
}

static bool nvram_make(const struct config *config, const char *dir, struct err *err)
{
    AUTO_FREE char *state_dir = string_printf("%s/Virtual Machines/%s", dir, config->guid.text);
    AUTO_FREE char *path = state_dir ? tree_state_path(state_dir, &config->nvram, ".nvram") : NULL;
    AUTO_BUF struct buf variables = BUF_INIT;
    const char *code, *template;
    bool renamed;

    if (!path)
        return err_oom(err);
    return machine_firmware(&code, &template, err) &&
           file_read_all(&io_real, template, 64U << 20, &variables, err) &&
           file_replace(&io_real, path, variables.data, variables.length, &renamed, err);
}

/* One step of a plan that is only told. */
static void step_tell(json_t *steps, const char *step, char *taken_path, const char *from)
{
    AUTO_FREE char *path = taken_path;

    json_array_append_new(steps, path ? json_pack("{s:s, s:s, s:s*}", "step", step, "path", path, "from", from) : NULL);
}

/* What store_create() would make of it, in its order. It makes all under a temporary name; the paths are those of the end. */
static bool create_answer_plan(const struct config *config, const struct new_images *images, const char *dir,
                               json_t **ret_value, struct err *err)
{
    const char *guid = config->guid.text, *code, *template;
    json_t *steps = json_array();

    if (!steps)
        return err_oom(err);
    step_tell(steps, "make-dir", strdup(dir), NULL);
    step_tell(steps, "make-dir", string_printf("%s/Virtual Machines", dir), NULL);
    step_tell(steps, "make-dir", string_printf("%s/Virtual Machines/%s", dir, guid), NULL);
    step_tell(steps, "make-dir", string_printf("%s/Snapshots", dir), NULL);
    for (size_t i = 0; i < images->count; i++)
        step_tell(steps, "create-image", path_join(dir, images->images[i].name), NULL);
    if (guid_is_set(&config->nvram)) {
        if (!machine_firmware(&code, &template, err)) {
            json_decref(steps);
            return false;
        }
        step_tell(steps, "copy-file", string_printf("%s/Virtual Machines/%s/%s.nvram", dir, guid, config->nvram.text),
                  template);
    }
    step_tell(steps, "create-lock", string_printf("%s/Virtual Machines/%s.lock", dir, guid), NULL);
    step_tell(steps, "commit", string_printf("%s/Virtual Machines/%s.xml", dir, guid), NULL);
    json_t *summary = json_sprintf("create %s", config->name);
    return vm_answer(json_pack("{s:{s:o, s:o}}", "plan", "summary", summary, "steps", steps), ret_value, err);
}

bool vm_create(const json_t *arguments, json_t **ret_value, struct err *err)
{
    static const char *const KNOWN[] = {"accel", "append", "cdrom", "clock", "cpu", "cpus",
                                        "disks", "display", "dry_run", "generation", "initrd", "kernel", "machine",
                                        "memory", "name", "nics", "notes", NULL};
    AUTO_CONFIG struct config *config = config_new();
    AUTO_FREE char *home = NULL;
    AUTO_FREE char *dir = NULL;
    AUTO_FREE char *vm_dir = NULL;
    struct create_files files = {.config = config};
    const char *name;
    bool dry_run = false;

    if (!config)
        return err_oom(err);
    if (!args_known(arguments, KNOWN, err) || !args_bool(arguments, "dry_run", &dry_run, err) || !args_required(arguments, "name", &name, err) ||
        !config_check_vm_name(name, err) || !store_home(&home, err))
        return err_prefix(err, "create");
    if (!(dir = path_join(home, name)))
        return err_oom(err);
    if (io_exists(&io_real, dir))
        return err_set(err, ERR_EXISTS, "create: %s: the name is taken", name);
    bool created = config_set_string(&config->name, name, err) &&
                   config_from_json(config, arguments, dir, &files.images, err) &&
                   (dry_run ? create_answer_plan(config, &files.images, dir, ret_value, err)
                            : store_create(&io_real, config, create_files_make, &files, &vm_dir, err));
    new_images_done(&files.images);
    if (!created)
        return err_prefix(err, "create: %s", name);
    if (dry_run)
        return true;
    return vm_answer(json_pack("{s:s, s:s}", "guid", config->guid.text, "path", vm_dir), ret_value, err);
}

/* disk=+SIZE|FILE is written as disk=SIZE|FILE: it adds. nic=none takes all NICs away. */
static bool setting_apply(struct vm *vm, struct config *config, const char *key, const char *value,
                          struct new_images *images, bool *live, struct err *err)
{
    if (strcmp(key, "disk") == 0) {
        AUTO_FREE char *path = NULL;
        struct hardware_disk disk;
        *live = false;
        return hardware_disk_from_text(value, &disk, &path, err) &&
               disk_add(config, vm->dir, &disk, images, err);
    }
    if (strcmp(key, "nic") == 0) {
        *live = false;
        return hardware_nics_set(config, value, err);
    }
    return hardware_set(config, key, value, live, err);
}

static bool settings_apply(struct vm *vm, struct config *config, const json_t *settings,
                           struct new_images *images, struct err *err)
{
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)settings, key, value)
    {
        bool live;
        if (!json_is_string(value))
            return err_set(err, ERR_USAGE, "the value of '%.40s' must be text", key);
        if (!setting_apply(vm, config, key, json_string_value(value), images, &live, err))
            return false;
        if (live)
            continue;
        if (vm->present)
            return err_set(err, ERR_STATE, "%s cannot change while the VM runs: stop it first", key);
        if (guid_is_set(&config->saved))
            return err_set(err, ERR_STATE, "%s cannot change while the VM is saved: start and stop it first", key);
    }
    return config_check(config, err);
}

/* New images are there, with their names, before the commit; they go again if it does not come. */
static bool settings_commit(struct vm *vm, struct plan *plan, const struct new_images *images,
                            struct vm_plan_run *run, struct err *err)
{
    if (images->count == 0)
        return vm_run_plan(vm, plan, run, err);
    bool done = new_images_make((void *)images, vm->dir, err) && io_sync_dir(&io_real, vm->dir, err) &&
                vm_run_plan(vm, plan, run, err);
    if (!done && !store_is_uncertain(vm->store))
        new_images_remove(images, vm->dir);
    return done;
}

static json_t *object_keys(const json_t *object)
{
    json_t *keys = json_array();
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)object, key, value)
    {
        json_array_append_new(keys, json_string(key));
    }
    return keys;
}

bool op_set(struct vm *vm, const json_t *args, const struct progress *progress, json_t **ret_value,
            struct err *err)
{
    AUTO_CONFIG struct config *config = config_copy(vm_config(vm));
    AUTO_PLAN struct plan *plan = NULL;
    struct vm_plan_run run = {.progress = progress};
    struct new_images images = {0};
    const json_t *settings = json_object_get(args, "settings");
    bool dry_run = false, noted;

    if (!config)
        return err_oom(err);
    if (!json_is_object(settings) || json_object_size(settings) == 0)
        return err_set(err, ERR_USAGE, "set: nothing to set");
    bool done = args_bool(args, "dry_run", &dry_run, err) && settings_apply(vm, config, settings, &images, err) &&
                (vm->present || bases_note(config, vm->dir, config, /* with_tops= */ false, &noted, err)) &&
                plan_settings(store_tree(vm->store), config, "set", &plan, err);
    if (done && dry_run) {
        new_images_done(&images);
        return vm_answer_plan(plan, ret_value, err);
    }
    done = done && settings_commit(vm, plan, &images, &run, err) &&
           vm_answer(json_pack("{s:o}", "changed", object_keys(settings)), ret_value, err);
    new_images_done(&images);
    return done || err_prefix(err, "set: %s", vm_config(vm)->name);
}
