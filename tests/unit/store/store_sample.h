/* A home of VMs in a file system in memory, with faults in front of it, for tests of store/. Locks are the
 * kernel's: each VM has a folder on the real disk, under the same path, that holds its lock file alone. */
#pragma once

#include "io_failing.h"
#include "io_memory.h"
#include "store.h"
#include "tree_sample.h"
#include "vhd.h"

#include "file.h"
#include "ok.h"

#include <errno.h>
#include <ftw.h>
#include <sys/stat.h>

#define PLACE_MEMORY_FILE "what was in memory"

struct place {
    char home[64], vm_dir[128];
    struct io_memory *memory;
    struct io_failing *failing;
    const struct io *io;    /* with the faults */
    const struct io *plain; /* without */
    unsigned counter;       /* of GUIDs */
    bool with_nvram;        /* a VM of generation 2 */
    bool machine_refuses;   /* to save memory: it finds no space */
};

static inline int place_remove_one(const char *path, const struct stat *stat, int type, struct FTW *walk)
{
    (void)stat;
    (void)walk;
    return type == FTW_DP ? rmdir(path) : unlink(path);
}

static inline void place_new(struct place *place, enum io_memory_kind kind)
{
    const char *tmp = getenv("TMPDIR");
    char real[512];
    struct err err = ERR_INIT;

    *place = (struct place){.counter = 1000};
    snprintf(place->home, sizeof place->home, "%s/bough-store-XXXXXX",
             tmp && strlen(tmp) < 30 ? tmp : "/tmp");
    sample_check(mkdtemp(place->home) != NULL && setenv("BOUGH_HOME", place->home, 1) == 0, &err);
    snprintf(place->vm_dir, sizeof place->vm_dir, "%s/web", place->home);
    snprintf(real, sizeof real, "%s/Virtual Machines", place->vm_dir);
    sample_check(dir_make_all(&io_real, real, &err), &err);
    place->memory = io_memory_new(kind);
    place->plain = io_memory_io(place->memory);
    place->failing = io_failing_new(place->plain);
    place->io = io_failing_io(place->failing);
    sample_check(dir_make_all(place->plain, place->home, &err), &err);
}

static inline void place_done(struct place *place)
{
    io_failing_free(place->failing);
    io_memory_free(place->memory);
    nftw(place->home, place_remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static inline void place_write(const struct place *place, const char *path, const char *text)
{
    struct io_file *file;
    struct err err = ERR_INIT;

    sample_check(io_open(place->plain, path, IO_CREATE, &file, &err), &err);
    sample_check(io_write(file, 0, text, strlen(text), &err), &err);
    io_close(file);
}

static inline bool place_make_disk(void *context, const char *dir, struct err *err)
{
    struct vhd_create_options options = {
        .type = VHD_DYNAMIC, .size_bytes = 4U << 20, .block_bytes = 512U << 10};
    AUTO_FREE char *path = path_join(dir, "web.vhd");

    return vhd_create(context, path, &options, err);
}

static inline bool place_make_files(void *context, const char *dir, struct err *err)
{
    const struct place *place = context;
    char path[512];

    if (!place_make_disk((void *)place->io, dir, err))
        return false;
    if (!place->with_nvram)
        return true;
    struct io_file *file;
    snprintf(path, sizeof path, "%s/Virtual Machines/" SAMPLE_VM "/%s.nvram", dir, sample_guid(900).text);
    if (!io_open(place->io, path, IO_CREATE, &file, err))
        return false;
    bool ok = io_write(file, 0, PLACE_MEMORY_FILE, strlen(PLACE_MEMORY_FILE), err) && io_sync(file, err);
    io_close(file);
    return ok;
}

static inline bool place_create(const struct place *place, struct err *err)
{
    AUTO_CONFIG struct config *vm = sample_vm(place->vm_dir);
    char *dir = NULL;

    vm->display = DISPLAY_VNC;
    if (place->with_nvram) {
        vm->generation = 2;
        vm->disks[0].bus = BUS_SCSI;
        vm->nvram = sample_guid(900);
    }
    bool ok = store_create(place->io, vm, place_make_files, (void *)place, &dir, err);
    free(dir);
    return ok;
}

static inline struct store *place_open(const struct place *place)
{
    struct store *store;
    struct err err = ERR_INIT;
    bool is_alive;

    sample_check(store_open(place->io, place->vm_dir, "test", true, &store, &is_alive, &err), &err);
    sample_check(!is_alive, &err);
    return store;
}

static inline struct plan_source place_source(struct place *place)
{
    return SAMPLE_SOURCE(&place->counter);
}

/* --- operations; each false with *err --- */
static inline bool place_snapshot(struct place *place, struct store *store, enum plan_machine machine,
                                  struct err *err)
{
    struct plan_source source = place_source(place);
    struct plan_snapshot request = {.machine = machine, .name = "taken"};
    AUTO_PLAN struct plan *plan = NULL;
    struct guid guid;

    source.now_ms += place->counter;
    return plan_snapshot(store_tree(store), &source, &request, &plan, &guid, err) &&
           store_run(store, plan, NULL, NULL, err);
}

static inline bool place_apply(struct place *place, struct store *store, size_t index,
                               struct plan_apply request, struct err *err)
{
    struct plan_source source = place_source(place);
    AUTO_PLAN struct plan *plan = NULL;
    struct plan_layer *layers;
    size_t count;

    if (!store_present_layers(store, &layers, &count, err))
        return false;
    request.snapshot = store_tree(store)->snapshots[index]->snapshot;
    request.layers = layers;
    request.layer_count = count;
    bool ok = plan_apply(store_tree(store), &source, &request, &plan, err) &&
              store_run(store, plan, NULL, NULL, err);
    store_layers_free(layers, count);
    return ok;
}

static inline bool place_delete(struct store *store, size_t index, bool subtree, struct err *err)
{
    struct guid guid = store_tree(store)->snapshots[index]->snapshot;
    AUTO_PLAN struct plan *plan = NULL;
    struct plan_layer *layers;
    size_t count;

    if (!store_layers(store, &layers, &count, err))
        return false;
    bool ok = plan_delete(store_tree(store), &guid, subtree, layers, count, &plan, err) &&
              store_run(store, plan, NULL, NULL, err);
    store_layers_free(layers, count);
    return ok;
}

/* The VM is Saved, as if a machine had left its memory. */
static inline bool place_save(struct place *place, struct store *store, struct err *err)
{
    AUTO_CONFIG struct config *vm = config_copy(store_tree(store)->vm);
    AUTO_FREE char *dir = tree_vm_state_dir(store_tree(store));
    AUTO_PLAN struct plan *plan = NULL;

    vm->saved = sample_guid(++place->counter);
    vm->memory = vm->saved;
    vm->saved_state = STATE_RUNNING;
    AUTO_FREE char *bin = tree_state_path(dir, &vm->saved, ".bin");
    AUTO_FREE char *vsv = tree_state_path(dir, &vm->saved, ".vsv");
    place_write(place, bin, PLACE_MEMORY_FILE);
    place_write(place, vsv, PLACE_MEMORY_FILE);
    return plan_settings(store_tree(store), vm, "save", &plan, err) &&
           store_run(store, plan, NULL, NULL, err);
}

static inline bool place_may_go_back(void *context)
{
    return ((const struct place *)context)->machine_refuses;
}

/* A picture that cannot be had is no failure. */
static inline bool place_thumbnail(const struct place *place, const char *path)
{
    struct err ignored;
    bool renamed;

    (void)!file_replace(place->io, path, PLACE_MEMORY_FILE, strlen(PLACE_MEMORY_FILE), &renamed, &ignored);
    return true;
}

/* A machine that leaves something as its memory, or has no space for it. */
static inline bool place_machine_step(void *context, struct plan *plan, size_t index, struct err *err)
{
    const struct place *place = context;
    const struct step *step = &plan->steps[index];

    if (step->kind == STEP_SAVE_THUMBNAIL)
        return place_thumbnail(place, step->path);
    if (step->kind != STEP_SAVE_MEMORY)
        return true;
    if (place->machine_refuses)
        return err_set(err, ERR_NO_SPACE, "no space for the memory");
    for (unsigned i = 0; i < 2; i++) {
        AUTO_FREE char *path = string_printf("%s%s", step->path, i ? ".vsv" : ".bin");
        AUTO_IO struct io_file *file = NULL;
        if (!io_open(place->io, path, IO_CREATE, &file, err) ||
            !io_write(file, 0, PLACE_MEMORY_FILE, strlen(PLACE_MEMORY_FILE), err) || !io_sync(file, err))
            return false;
    }
    AUTO_FREE char *nvram = plan_nvram_path(plan, index);
    AUTO_IO struct io_file *variables = NULL;
    return !nvram || (io_open(place->io, nvram, IO_CREATE, &variables, err) &&
                      io_write(variables, 0, PLACE_MEMORY_FILE, strlen(PLACE_MEMORY_FILE), err) &&
                      io_sync(variables, err));
}

static inline bool place_snapshot_live(struct place *place, struct store *store, struct err *err)
{
    struct plan_source source = place_source(place);
    struct plan_snapshot request = {
        .machine = MACHINE_RUNNING, .name = "live", .qemu_version = "7.2.1", .accel_used = ACCEL_TCG};
    struct store_machine machine = {
        .step = place_machine_step, .may_go_back = place_may_go_back, .context = place};
    AUTO_PLAN struct plan *plan = NULL;
    struct guid guid;

    source.now_ms += place->counter;
    return plan_snapshot(store_tree(store), &source, &request, &plan, &guid, err) &&
           store_run(store, plan, &machine, NULL, err);
}

/* --- what is there --- */
struct place_walk {
    const struct io *io;
    const char *dir;
    struct buf *text;
    char *names[512];
    size_t count;
};

static inline int place_collect(void *context, const char *name)
{
    struct place_walk *walk = context;

    walk->names[walk->count++] = strdup(name);
    return walk->count == 512 ? E2BIG : 0;
}

static inline int place_compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* One line for each file and folder below dir, sorted; settings with their text, the contents of others only
 * if with_content. */
static inline void place_list(const struct io *io, const char *dir, bool with_content, struct buf *text)
{
    struct place_walk walk = {.io = io, .dir = dir};
    struct err err = ERR_INIT;

    sample_check(io_list(io, dir, place_collect, &walk, &err), &err);
    qsort(walk.names, walk.count, sizeof(char *), place_compare);
    for (size_t i = 0; i < walk.count; i++) {
        AUTO_FREE char *path = path_join(dir, walk.names[i]);
        struct io_stat stat;
        sample_check(io_stat_path(io, path, &stat, &err), &err);
        buf_printf(text, "%s%s\n", path, stat.is_directory ? "/" : "");
        if (stat.is_directory) {
            place_list(io, path, with_content, text);
        } else if (strstr(path, ".xml") || with_content) {
            AUTO_BUF struct buf content = BUF_INIT;
            sample_check(file_read_all(io, path, 64U << 20, &content, &err), &err);
            if (strstr(path, ".xml"))
                buf_printf(text, "%s", content.data);
            else
                for (size_t j = 0; j < content.length; j++)
                    buf_printf(text, "%02x", content.data[j]);
        }
        free(walk.names[i]);
    }
}

static inline char *place_picture(const struct place *place)
{
    struct buf text = BUF_INIT;

    if (io_exists(place->plain, place->vm_dir))
        place_list(place->plain, place->vm_dir, false, &text);
    buf_printf(&text, "\n");
    return buf_take_string(&text);
}

/* --- for cmocka --- */
static inline int place_setup(void **state)
{
    struct place *place = calloc(1, sizeof *place);
    struct err err;

    place_new(place, IO_MEMORY_PLAIN);
    sample_check(place_create(place, &err), &err);
    *state = place;
    return 0;
}

static inline int place_teardown(void **state)
{
    place_done(*state);
    free(*state);
    return 0;
}

static inline bool place_exists(const struct place *place, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static inline bool place_exists(const struct place *place, const char *format, ...)
{
    char name[256];
    va_list args;

    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    AUTO_FREE char *path = path_join(place->vm_dir, name);
    return io_exists(place->plain, path);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, place_setup, place_teardown)
