#include "crash_lab.h"

#include "auto.h"

/* --- lines --- */

static unsigned line_last(const struct lab_line *line, size_t sector)
{
    return line->count[sector] ? line->since[sector][line->count[sector] - 1] : line->flushed[sector];
}

static void line_write(struct lab_line *line, size_t sector, unsigned value)
{
    assert_true(line->count[sector] < LAB_SINCE);
    line->since[sector][line->count[sector]++] = value;
}

static void line_flushed(struct lab_line *line)
{
    for (size_t i = 0; i < LAB_SECTORS; i++) {
        line->flushed[i] = line_last(line, i);
        line->count[i] = 0;
    }
}

static bool line_allows(const struct lab_line *line, size_t sector, unsigned value)
{
    if (value == line->flushed[sector])
        return true;
    for (unsigned i = 0; i < line->count[sector]; i++)
        if (value == line->since[sector][i])
            return true;
    return false;
}

/* --- the guest --- */

/* Eight blocks, two places in each. */
static uint64_t sector_offset(size_t sector)
{
    return (uint64_t)(sector / 2) * (512U << 10) + (sector % 2) * (64U << 10);
}

static void guest_write(struct lab *lab, struct disk *disk, struct lab_line *line, size_t sector)
{
    unsigned words[128];
    struct err err;

    lab->writes++;
    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        words[i] = lab->writes;
    line_write(line, sector, lab->writes); /* it may be there also if its reply was lost */
    if (disk_write(disk, sector_offset(sector), words, sizeof words, &err) ||
        disk_write(disk, sector_offset(sector), words, sizeof words, &err))
        return;
    if (err.code == ERR_NO_SPACE)
        line->count[sector]--;
    else
        lab->is_dead = true; /* no flush covers it */
}

static bool guest_flush(struct lab *lab, struct disk *disk, struct lab_line *line, struct err *err)
{
    if (!disk_flush(disk, err))
        return false;
    if (!lab->is_dead)
        line_flushed(line);
    return true;
}

/* A little work of a guest that runs. */
static void guest_works(struct lab *lab)
{
    struct err ignored;

    if (!lab->present || lab->is_stopped || lab->is_dead || lab->machine != MACHINE_RUNNING)
        return;
    for (unsigned i = 0; i < 2; i++)
        guest_write(lab, lab->present, &lab->line, (lab->writes * 7 + 3) % LAB_SECTORS);
    if (lab->writes % 3 == 0)
        (void)!guest_flush(lab, lab->present, &lab->line, &ignored);
}

static struct disk *open_disk(const struct lab *lab, const char *path, bool writable, struct err *err)
{
    struct disk_options options = {.io = lab->place.io, .writable = writable};
    struct disk *disk;

    return disk_open(path, &options, &disk, err) ? disk : NULL;
}

static const char *vm_top(const struct lab *lab)
{
    return store_tree(lab->store)->vm->disks[0].path;
}

/* A VM that is Off was on for a moment. */
static void work_a_while(struct lab *lab, unsigned writes)
{
    struct err err;
    struct disk *disk = open_disk(lab, vm_top(lab), true, &err);

    LAB_OK(disk);
    for (unsigned i = 0; i < writes; i++)
        guest_write(lab, disk, &lab->line, (lab->writes * 5 + 1) % LAB_SECTORS);
    LAB_OK(guest_flush(lab, disk, &lab->line, &err));
    LAB_OK(disk_close(disk, &err));
}

/* --- memory --- */

static bool write_text(struct lab *lab, const char *path, const char *text, struct err *err)
{
    AUTO_IO struct io_file *file = NULL;

    return io_open(lab->place.io, path, IO_CREATE, &file, err) &&
           io_write(file, 0, text, strlen(text), err) && io_sync(file, err);
}

static bool write_memory(struct lab *lab, const char *path, const struct guid *memory, struct err *err)
{
    AUTO_FREE char *bin = string_printf("%s.bin", path);
    AUTO_FREE char *vsv = string_printf("%s.vsv", path);

    return write_text(lab, bin, memory->text, err) && write_text(lab, vsv, memory->text, err);
}

static bool holds_text(const struct lab *lab, const char *path, const char *text, struct err *err)
{
    AUTO_BUF struct buf content = BUF_INIT;

    if (!file_read_all(lab->place.plain, path, 1000, &content, err))
        return false;
    return strcmp((char *)content.data, text) == 0 ||
           err_set(err, ERR_CORRUPT, "%s holds '%.60s', not '%s'", path, (char *)content.data, text);
}

static bool memory_holds(const struct lab *lab, const char *path, const struct guid *memory, struct err *err)
{
    AUTO_FREE char *bin = string_printf("%s.bin", path);
    AUTO_FREE char *vsv = string_printf("%s.vsv", path);

    return holds_text(lab, bin, memory->text, err) && holds_text(lab, vsv, memory->text, err);
}

/* --- the machine --- */

static bool prepare_tops(struct lab *lab, const struct step *step, struct err *err)
{
    const char *path = step->config->disks[0].path;

    snprintf(lab->next_path, sizeof lab->next_path, "%s", path);
    return disk_next_top_open(lab->present, path, &lab->next, err);
}

static void switch_tops(struct lab *lab)
{
    if (lab->next)
        disk_seal_and_push(lab->present, TAKE(lab->next));
}

static bool save_memory(struct lab *lab, struct plan *plan, size_t index, struct err *err)
{
    const struct step *step = &plan->steps[index];
    const struct config *naming = plan_memory_config(plan, index);
    AUTO_FREE char *nvram = plan_nvram_path(plan, index);

    if (lab->place.machine_refuses)
        return err_set(err, ERR_NO_SPACE, "no space for the memory");
    if (!guest_flush(lab, lab->present, &lab->line, err) || !write_memory(lab, step->path, &naming->memory, err))
        return false;
    guest_works(lab);
    switch_tops(lab);
    for (size_t i = 0; i < LAB_SECTORS; i++)
        lab->instant[i] = line_last(&lab->line, i);
    lab->is_stopped |= step->state != STATE_RUNNING;
    return !nvram || write_text(lab, nvram, PLACE_MEMORY_FILE, err);
}

static bool start_target(struct lab *lab, const struct step *step, struct err *err)
{
    snprintf(lab->target_path, sizeof lab->target_path, "%s", step->config->disks[0].path);
    return memory_holds(lab, step->path, &step->config->memory, err) &&
           (lab->target = open_disk(lab, lab->target_path, true, err));
}

/* A top that the plan removes need not reach the disk. */
static bool drop_present(struct lab *lab, struct err *err)
{
    if (lab->removes_top)
        disk_drop(TAKE(lab->present));
    else if (!disk_close(TAKE(lab->present), err))
        return false;
    return true;
}

static bool run_target(struct lab *lab, const struct step *step)
{
    lab->present = TAKE(lab->target);
    lab->line = lab->target_line;
    lab->target_ran = true;
    lab->is_stopped = step->state != STATE_RUNNING;
    lab->machine = step->state == STATE_RUNNING ? MACHINE_RUNNING : MACHINE_PAUSED;
    return true;
}

static bool machine_do(struct lab *lab, struct plan *plan, size_t index, struct err *err)
{
    const struct step *step = &plan->steps[index];

    switch (step->kind) {
    case STEP_PREPARE_TOPS:
        return prepare_tops(lab, step, err);
    case STEP_SAVE_MEMORY:
        return save_memory(lab, plan, index, err);
    case STEP_SAVE_THUMBNAIL:
        return place_thumbnail(&lab->place, step->path);
    case STEP_FLUSH_SEALED:
        return guest_flush(lab, lab->present, &lab->line, err);
    case STEP_START_TARGET:
        return start_target(lab, step, err);
    case STEP_STOP_PRESENT:
        lab->is_stopped = true;
        return true;
    case STEP_DROP_PRESENT:
        return drop_present(lab, err);
    case STEP_RUN_TARGET:
        return run_target(lab, step);
    default:
        return err_set(err, ERR_INTERNAL, "step %s needs no machine", step_name(step->kind));
    }
}

static bool machine_step(void *context, struct plan *plan, size_t index, struct err *err)
{
    struct lab *lab = context;

    guest_works(lab);
    if (!machine_do(lab, plan, index, err))
        return false;
    guest_works(lab);
    return true;
}

static void machine_abort(void *context, const struct plan *plan, size_t index)
{
    struct lab *lab = context;

    (void)plan;
    (void)index;
    disk_abandon(TAKE(lab->target));
    if (lab->next && !store_is_uncertain(lab->store) && strcmp(vm_top(lab), lab->next_path) == 0)
        switch_tops(lab);
    disk_next_top_abandon(TAKE(lab->next));
    lab->is_stopped = store_is_uncertain(lab->store);
    guest_works(lab);
}

static bool machine_may_go_back(void *context)
{
    return ((struct lab *)context)->next != NULL;
}

static void note_plan(struct lab *lab, const struct plan *plan)
{
    size_t count = 0;

    memset(lab->commits, 0, sizeof lab->commits);
    lab->steps = plan->step_count;
    lab->removes_top = false;
    snprintf(lab->top_before, sizeof lab->top_before, "%s", vm_top(lab));
    for (size_t i = 0; i < plan->step_count; i++) {
        const struct step *step = &plan->steps[i];
        if (step->kind == STEP_COMMIT && count < ARRAY_SIZE(lab->commits))
            lab->commits[count++] = i + 1;
        lab->removes_top |= step->kind == STEP_REMOVE_FILE && strcmp(step->path, vm_top(lab)) == 0;
    }
    for (size_t i = 0; i < LAB_SECTORS; i++)
        lab->instant[i] = line_last(&lab->line, i);
}

/* It makes a folder that is there: nothing. Its settings still tell earlier steps what memory is for. */
static void step_void(const struct lab *lab, struct step *step)
{
    free(step->path);
    step->path = strdup(lab->place.vm_dir);
    step->kind = STEP_MAKE_DIR;
}

bool lab_run(struct lab *lab, struct plan *plan, struct err *err)
{
    struct store_machine machine = {
        .step = machine_step, .abort = machine_abort, .may_go_back = machine_may_go_back, .context = lab};

    note_plan(lab, plan);
    for (size_t i = lab->stop_after; lab->stop_after && i < plan->step_count; i++)
        step_void(lab, &plan->steps[i]);
    return store_run(lab->store, plan, &machine, NULL, err);
}

bool lab_delete(struct lab *lab, const struct guid *snapshot, bool subtree, struct err *err)
{
    AUTO_PLAN struct plan *plan = NULL;
    struct plan_layer *layers;
    size_t count;

    if (!store_layers(lab->store, &layers, &count, err))
        return false;
    bool ok = plan_delete(store_tree(lab->store), snapshot, subtree, layers, count, &plan, err) && lab_run(lab, plan, err);
    store_layers_free(layers, count);
    return ok;
}

/* --- the VM --- */

struct plan_source lab_source(struct lab *lab)
{
    struct plan_source source = place_source(&lab->place);

    source.now_ms += lab->place.counter;
    return source;
}

static struct lab_taken *taken_find(struct lab *lab, const struct guid *guid)
{
    for (size_t i = 0; i < lab->taken_count; i++)
        if (guid_equal(&lab->taken[i].guid, guid))
            return &lab->taken[i];
    return NULL;
}

void lab_goes_back(struct lab *lab, const struct guid *snapshot)
{
    const struct lab_taken *taken = taken_find(lab, snapshot);

    lab->goes_back = true;
    memset(&lab->target_line, 0, sizeof lab->target_line);
    memcpy(lab->target_line.flushed, taken->sectors, sizeof taken->sectors);
}

bool lab_settings(struct lab *lab, const struct config *vm, const char *what, struct err *err)
{
    AUTO_PLAN struct plan *plan = NULL;

    return plan_settings(store_tree(lab->store), vm, what, &plan, err) && lab_run(lab, plan, err);
}

void lab_snapshot(struct lab *lab, enum plan_machine machine)
{
    struct plan_source source = lab_source(lab);
    struct plan_snapshot request = {.machine = machine, .name = "taken"};
    AUTO_PLAN struct plan *plan = NULL;
    struct lab_taken *taken = &lab->taken[lab->taken_count++];
    struct err err;

    LAB_OK(plan_snapshot(store_tree(lab->store), &source, &request, &plan, &taken->guid, &err) &&
           lab_run(lab, plan, &err));
    memcpy(taken->sectors, lab->instant, sizeof taken->sectors);
}

void lab_apply(struct lab *lab, size_t index, struct plan_apply request)
{
    struct guid guid = lab->taken[index].guid;
    struct plan_source source = lab_source(lab);
    AUTO_PLAN struct plan *plan = NULL;
    struct plan_layer *layers;
    struct err err;

    lab_goes_back(lab, &guid);
    LAB_OK(store_layers(lab->store, &layers, &request.layer_count, &err));
    request.snapshot = guid;
    request.layers = layers;
    LAB_OK(plan_apply(store_tree(lab->store), &source, &request, &plan, &err) && lab_run(lab, plan, &err));
    store_layers_free(layers, request.layer_count);
    lab->line = lab->target_line;
    lab->goes_back = false;
}

static void build_saved(struct lab *lab)
{
    AUTO_CONFIG struct config *vm = config_copy(store_tree(lab->store)->vm);
    AUTO_FREE char *dir = tree_vm_state_dir(store_tree(lab->store));
    struct err err;

    vm->saved = sample_guid(++lab->place.counter);
    vm->memory = sample_guid(++lab->place.counter);
    vm->saved_state = STATE_RUNNING;
    AUTO_FREE char *path = tree_state_path(dir, &vm->saved, "");
    LAB_OK(write_memory(lab, path, &vm->memory, &err) && lab_settings(lab, vm, "save", &err));
}

static void build_tree(struct lab *lab)
{
    lab_snapshot(lab, MACHINE_OFF);
    work_a_while(lab, 4);
    lab_snapshot(lab, MACHINE_OFF);
    lab_apply(lab, 0, (struct plan_apply){.machine = MACHINE_OFF});
    work_a_while(lab, 5);
    build_saved(lab);
    lab_snapshot(lab, MACHINE_SAVED);
    lab_apply(lab, 2, (struct plan_apply){.machine = MACHINE_SAVED, .disks_only = true});
    work_a_while(lab, 6);
    lab_snapshot(lab, MACHINE_OFF);
}

void lab_new(struct lab *lab, bool with_tree)
{
    struct err err;

    *lab = (struct lab){0};
    place_new(&lab->place, IO_MEMORY_FORGETS);
    lab->place.with_nvram = true;
    LAB_OK(place_create(&lab->place, &err));
    lab->store = place_open(&lab->place);
    work_a_while(lab, 10);
    if (with_tree)
        build_tree(lab);
    io_memory_sync_all(lab->place.memory);
}

void lab_prepare(struct lab *lab, enum plan_machine machine)
{
    struct err err;

    work_a_while(lab, 3);
    lab->machine = machine;
    if (machine == MACHINE_SAVED)
        build_saved(lab);
    if (machine == MACHINE_RUNNING || machine == MACHINE_PAUSED)
        LAB_OK(lab->present = open_disk(lab, vm_top(lab), true, &err));
    io_memory_sync_all(lab->place.memory);
    lab->is_stopped = machine == MACHINE_PAUSED;
    guest_works(lab);
}

void lab_stop(struct lab *lab)
{
    struct err err;

    guest_works(lab);
    disk_next_top_abandon(TAKE(lab->next));
    disk_abandon(TAKE(lab->target));
    if (lab->present && guest_flush(lab, lab->present, &lab->line, &err))
        (void)!disk_close(TAKE(lab->present), &err);
    disk_abandon(TAKE(lab->present));
}

void lab_kill(struct lab *lab)
{
    disk_next_top_abandon(TAKE(lab->next));
    disk_abandon(TAKE(lab->target));
    disk_abandon(TAKE(lab->present));
    store_close(TAKE(lab->store));
    io_failing_set(lab->place.failing, (struct io_fault){0});
}

void lab_power_cut(struct lab *lab, uint64_t seed)
{
    lab_kill(lab);
    io_memory_crash(lab->place.memory, seed);
}

void lab_recover(struct lab *lab)
{
    lab->store = place_open(&lab->place);
}

void lab_done(struct lab *lab)
{
    lab_kill(lab);
    place_done(&lab->place);
}

/* --- what must hold --- */

void lab_read_open(struct disk *disk, unsigned sectors[LAB_SECTORS], const char *where)
{
    struct err err;

    for (size_t i = 0; i < LAB_SECTORS; i++) {
        unsigned words[128];
        if (!disk_read(disk, sector_offset(i), words, sizeof words, &err))
            fail_msg("%s: %s", where, err.text);
        sectors[i] = words[0];
        for (size_t j = 1; j < ARRAY_SIZE(words); j++)
            if (words[j] != words[0])
                fail_msg("%s: sector %zu is torn", where, i);
    }
}

void lab_read(const struct lab *lab, const char *path, unsigned sectors[LAB_SECTORS], const char *where)
{
    struct disk_options options = {.io = lab->place.plain};
    AUTO_DISK struct disk *disk = NULL;
    struct err err;

    if (!disk_open(path, &options, &disk, &err))
        fail_msg("%s: %s", where, err.text);
    lab_read_open(disk, sectors, where);
}

const struct lab_taken *lab_taken_of(struct lab *lab, const struct guid *snapshot)
{
    return taken_find(lab, snapshot);
}

static void check_snapshot(struct lab *lab, const struct config *snapshot, const char *where)
{
    const struct lab_taken *taken = taken_find(lab, &snapshot->snapshot);
    const unsigned *expected = taken ? taken->sectors : lab->instant;
    unsigned sectors[LAB_SECTORS];

    if (!taken && !guid_equal(&snapshot->snapshot, &lab->taking))
        fail_msg("%s: %s was never taken", where, snapshot->snapshot.text);
    lab_read(lab, snapshot->disks[0].path, sectors, where);
    for (size_t i = 0; i < LAB_SECTORS; i++)
        if (sectors[i] != expected[i])
            fail_msg("%s: sector %zu of %s is %u, was %u", where, i, snapshot->snapshot.text, sectors[i],
                     expected[i]);
}

static void check_state(const struct lab *lab, const char *dir, const struct guid *saved, const struct guid *memory,
                        const struct guid *nvram, const char *where)
{
    AUTO_FREE char *path = tree_state_path(dir, saved, "");
    AUTO_FREE char *nvram_path = tree_state_path(dir, nvram, ".nvram");
    struct err err;

    if ((guid_is_set(saved) && !memory_holds(lab, path, memory, &err)) ||
        (guid_is_set(nvram) && !holds_text(lab, nvram_path, PLACE_MEMORY_FILE, &err)))
        fail_msg("%s: %s", where, err.text);
}

static bool vm_is_over(const struct lab *lab, const char *path)
{
    struct disk_options options = {.io = lab->place.plain};
    AUTO_DISK struct disk *disk = NULL;
    struct err err;

    LAB_OK(disk_open(vm_top(lab), &options, &disk, &err));
    for (size_t i = 0; i < disk_depth(disk); i++) {
        struct disk_layer layer;
        disk_layer_get(disk, i, &layer);
        if (strcmp(layer.path, path) == 0)
            return true;
    }
    return false;
}

static void check_vm(const struct lab *lab, const char *where)
{
    bool is_back = lab->goes_back && !vm_is_over(lab, lab->top_before);
    const struct lab_line *line = is_back && !lab->target_ran ? &lab->target_line : &lab->line;
    unsigned sectors[LAB_SECTORS];

    lab_read(lab, vm_top(lab), sectors, where);
    for (size_t i = 0; i < LAB_SECTORS; i++)
        if (!line_allows(line, i, sectors[i]))
            fail_msg("%s: sector %zu of the VM (%s) is %u, was flushed as %u", where, i,
                     is_back ? "gone back" : "as it was", sectors[i], line->flushed[i]);
}

void lab_check(struct lab *lab, const char *where)
{
    const struct tree *tree = store_tree(lab->store);
    AUTO_FREE char *state_dir = tree_vm_state_dir(tree);
    struct plan_layer *layers;
    size_t count;
    struct err err;

    if (!store_layers(lab->store, &layers, &count, &err))
        fail_msg("%s: %s", where, err.text);
    store_layers_free(layers, count);
    check_state(lab, state_dir, &tree->vm->saved, &tree->vm->memory, &tree->vm->nvram, where);
    check_vm(lab, where);
    for (size_t i = 0; i < tree->snapshot_count; i++) {
        const struct config *snapshot = tree->snapshots[i];
        AUTO_FREE char *dir = tree_snapshot_dir(tree, &snapshot->snapshot);
        struct guid saved = snapshot->state_when_taken == STATE_OFF ? (struct guid){0} : snapshot->snapshot;
        check_state(lab, dir, &saved, &snapshot->memory, &snapshot->nvram, where);
        check_snapshot(lab, snapshot, where);
    }
}

/* --- pictures --- */

/* Images draw their unique ids. */
static void ids_mask(char *picture)
{
    for (char *at = picture; (at = strchr(at, '>')) != NULL;) {
        at++;
        if (strspn(at, "0123456789abcdef") == 32 && at[32] == '<')
            memset(at, 'X', 32);
    }
}

/* The thumbnail of a snapshot that is there: it may be missing, and so is left out. Others are garbage that a picture shows. */
static bool is_thumbnail(const struct lab *lab, const char *line, size_t length)
{
    struct guid guid;
    char text[GUID_LENGTH + 1] = "";

    if (length < GUID_LENGTH + 4 || strncmp(line + length - 4, ".png", 4) != 0)
        return false;
    memcpy(text, line + length - 4 - GUID_LENGTH, GUID_LENGTH);
    AUTO_FREE char *xml = string_printf("%s/Snapshots/%s.xml", lab->place.vm_dir, text);
    return guid_parse(text, &guid) && io_exists(lab->place.plain, xml);
}

/* Homes have names of their own: pictures are compared without. */
char *lab_picture(const struct lab *lab)
{
    AUTO_FREE char *picture = place_picture(&lab->place);
    struct buf text = BUF_INIT;
    size_t home = strlen(lab->place.home);

    ids_mask(picture);
    for (const char *line = picture; *line != '\0';) {
        size_t length = strcspn(line, "\n");
        if (!is_thumbnail(lab, line, length)) {
            size_t skip = strncmp(line, lab->place.home, home) == 0 ? home : 0;
            buf_append(&text, line + skip, length - skip + 1);
        }
        line += length + 1;
    }
    return buf_take_string(&text);
}
