/* The steps of plans, done to a model. */
#include "plan_model.h"

struct playing {
    struct plan *plan;
    const struct content *after;
    size_t last_commit;
};

static void must_be_there(struct model *model, const char *path)
{
    if (!model_find(model, path))
        BAD(model, "%s is used and not there", path);
}

static void make_layer(struct model *model, const struct step *step)
{
    must_be_there(model, step->from);
    model_add(model, step->path, false)->parent = strdup(step->from);
}

static void copy_file(struct model *model, const struct step *step)
{
    must_be_there(model, step->from);
    model_add(model, step->path, false);
}

/* Lists what was not: then it holds what the VM held at the instant. */
static void remember_listed(struct model *model, const struct tree *before)
{
    const struct config *vm = model->tree->vm;

    for (size_t i = 0; i < vm->listed_count; i++) {
        if (tree_by_guid(before, &vm->listed[i].guid))
            continue;
        model->taken = reallocarray(model->taken, model->taken_count + 1, sizeof *model->taken);
        model->taken[model->taken_count++] =
            (struct taken){.guid = vm->listed[i].guid, .content = model->instant};
    }
}

static void commit(struct model *model, const struct playing *playing, size_t index)
{
    const struct step *step = &playing->plan->steps[index];
    AUTO_TREE struct tree *before = TAKE(model->tree);

    model_put_config(model, step->path, step->config);
    model_find(model, step->path)->is_durable = true;
    model_reload(model);
    remember_listed(model, before);
    if (index == playing->last_commit && playing->after)
        model->now = *playing->after;
    if (strcmp(step->path, SAMPLE_DIR "/Virtual Machines/" SAMPLE_VM ".xml") != 0)
        BAD(model, "a commit replaces %s", step->path);
    model_check_durable(model);
}

/* As the store does when it writes a snapshot for the first time. */
static void note_ids(struct model *model, struct config *snapshot)
{
    for (size_t i = 0; i < snapshot->disk_count; i++)
        snprintf(snapshot->disks[i].image_id, sizeof snapshot->disks[i].image_id, "%032u",
                 model_find(model, snapshot->disks[i].path)->id);
}

/* A snapshot that is listed may get other words, and other names of the same content, by its own file. */
static void write_config(struct model *model, const struct step *step)
{
    if (!step->config->is_snapshot)
        BAD(model, "%s: the VM's file is replaced without a commit", step->path);
    if (model->has_ids && !model_find(model, step->path))
        note_ids(model, step->config);
    model_put_config(model, step->path, step->config);
    model_sync_dir(model, SAMPLE_DIR "/Snapshots");
    if (tree_by_guid(model->tree, &step->config->snapshot))
        model_reload(model);
}

static void save_memory(struct model *model, struct plan *plan, size_t index)
{
    const struct step *step = &plan->steps[index];
    AUTO_FREE char *nvram = plan_nvram_path(plan, index);

    if (!plan_memory_config(plan, index))
        BAD(model, "nothing names the memory that is saved");
    if (nvram) {
        must_be_there(model, step->from);
        model_add(model, nvram, false);
    }
    for (unsigned i = 0; i < 2; i++) {
        AUTO_FREE char *path = string_printf("%s%s", step->path, i ? ".vsv" : ".bin");
        model_add(model, path, false);
    }
    if (model->is_stopped)
        model_flush(model);
    /* The instant: the engines write to their new tops from now on, and what is sealed is the snapshot. */
    config_free(TAKE(model->engines));
    model->instant = model->now;
    model->is_stopped = step->state != STATE_RUNNING;
}

/* --- merging --- */
static struct entry *written(struct model *model, const char *path)
{
    struct entry *entry = model_find(model, path);

    must_be_there(model, path);
    if (entry->is_linked)
        BAD(model, "%s has another name, and is written to", path);
    return entry;
}

/* in_part: some of it is done. */
static void merge_data(struct model *model, const struct step *step, bool in_part)
{
    bool up = step->direction == MERGE_UP;
    const struct entry *from = model_find(model, up ? step->from : step->path);
    struct entry *to = written(model, up ? step->path : step->from);

    must_be_there(model, up ? step->from : step->path);
    if (strcmp(model_find(model, step->path)->parent, step->from) != 0)
        BAD(model, "%s is not over %s", step->path, step->from);
    for (unsigned i = 0; i < MODEL_SECTORS; i++) {
        if (!from->sectors[i] || (up && to->sectors[i]) || (in_part && model_draw(model, 2)))
            continue;
        to->sectors[i] = from->sectors[i];
        if (!in_part)
            to->durable[i] = to->sectors[i];
    }
}

static void empty_layer(struct model *model, const struct step *step, bool in_part)
{
    struct entry *entry = written(model, step->path);

    for (unsigned i = 0; i < MODEL_SECTORS; i++) {
        if (in_part && model_draw(model, 2))
            continue;
        entry->sectors[i] = 0;
        if (!in_part)
            entry->durable[i] = 0;
    }
}

static bool is_empty(struct model *model, const char *path)
{
    static const unsigned NOTHING[MODEL_SECTORS];

    must_be_there(model, path);
    return memcmp(model_find(model, path)->sectors, NOTHING, sizeof NOTHING) == 0;
}

static void reparent(struct model *model, const struct step *step)
{
    struct entry *entry = written(model, step->path);

    must_be_there(model, step->from);
    free(entry->parent);
    entry->parent = strdup(step->from);
}

static void remove_file(struct model *model, const char *path)
{
    struct entry *entry = model_find(model, path);

    if (entry)
        model_drop(model, entry);
}

static void play_file_step(struct model *model, const struct step *step)
{
    switch (step->kind) {
    case STEP_MAKE_DIR:
        if (!model_find(model, step->path))
            model_add(model, step->path, true);
        break;
    case STEP_CREATE_LAYER:
        make_layer(model, step);
        break;
    case STEP_SHARE_FILE:
    case STEP_COPY_FILE:
        copy_file(model, step);
        break;
    case STEP_WRITE_CONFIG:
        write_config(model, step);
        break;
    case STEP_SYNC_DIR:
        if (strcmp(step->path, SAMPLE_DIR) != 0)
            must_be_there(model, step->path);
        model_sync_dir(model, step->path);
        break;
    case STEP_SYNC_FILE:
        must_be_there(model, step->path);
        break;
    case STEP_MERGE_DATA:
        merge_data(model, step, /* in_part= */ false);
        break;
    case STEP_EMPTY_LAYER:
        empty_layer(model, step, /* in_part= */ false);
        break;
    case STEP_REPARENT:
        reparent(model, step);
        break;
    case STEP_REMOVE_FILE:
        remove_file(model, step->path);
        break;
    case STEP_REMOVE_DIR:
        model_drop_dir(model, step->path);
        break;
    default:
        BAD(model, "step %s is unknown", step_name(step->kind));
    }
}

static void play_step(struct model *model, const struct playing *playing, size_t index)
{
    const struct step *step = &playing->plan->steps[index];

    switch (step->kind) {
    case STEP_CHECK_EMPTY:
        break;
    case STEP_COMMIT:
        commit(model, playing, index);
        break;
    case STEP_PREPARE_TOPS:
        model->engines = config_copy(model->tree->vm);
        break;
    case STEP_SAVE_MEMORY:
        save_memory(model, playing->plan, index);
        break;
    case STEP_SAVE_THUMBNAIL:
        if (model->writes % 3 != 0) /* now and then there is no picture */
            model_add(model, step->path, false);
        break;
    case STEP_FLUSH_SEALED:
        model_flush(model);
        break;
    case STEP_STOP_PRESENT:
        model->is_stopped = true;
        break;
    case STEP_DROP_PRESENT:
        model_flush(model); /* its disks are closed */
        model->machine = MACHINE_OFF;
        break;
    case STEP_START_TARGET:
        for (unsigned i = 0; i < 2; i++) {
            AUTO_FREE char *path = string_printf("%s%s", step->path, i ? ".vsv" : ".bin");
            must_be_there(model, path);
        }
        break;
    case STEP_RUN_TARGET:
        model->machine = step->state == STATE_RUNNING ? MACHINE_RUNNING : MACHINE_PAUSED;
        model->is_stopped = step->state != STATE_RUNNING;
        break;
    default:
        play_file_step(model, step);
    }
}

/* A file step must not come to what is sealed or named before the commit that frees it: model_check() sees it. */
void model_play_to(struct model *model, struct plan *plan, size_t end, bool is_torn, const struct content *after)
{
    struct playing playing = {.plan = plan, .after = after};

    for (size_t i = 0; i < plan->step_count; i++)
        if (plan->steps[i].kind == STEP_COMMIT)
            playing.last_commit = i;
    model->plans++;
    model->instant = model->now;
    model->is_stopped = model->machine != MACHINE_RUNNING;
    for (size_t i = 0; i < end; i++) {
        if (plan->steps[i].kind == STEP_CHECK_EMPTY && !is_empty(model, plan->steps[i].path)) {
            model_find(model, plan->steps[i].path)->is_not_empty = true; /* the plan ends, and nobody tries again */
            return;
        }
        play_step(model, &playing, i);
        model_check(model);
        if (model->machine == MACHINE_RUNNING && !model->is_stopped)
            model_guest_writes(model);
        model->steps++;
    }
    if (is_torn && end < plan->step_count && plan->steps[end].kind == STEP_MERGE_DATA)
        merge_data(model, &plan->steps[end], /* in_part= */ true);
    if (is_torn && end < plan->step_count && plan->steps[end].kind == STEP_EMPTY_LAYER)
        empty_layer(model, &plan->steps[end], /* in_part= */ true);
    model_check(model);
}

bool model_play(struct model *model, struct plan *plan, const struct content *after)
{
    if (model_draw(model, 4) != 0) {
        model_play_to(model, plan, plan->step_count, /* is_torn= */ false, after);
        model->is_stopped = false;
        return true;
    }
    model_play_to(model, plan, model_draw(model, plan->step_count + 1), /* is_torn= */ true, after);
    model->cuts++;
    if (model_draw(model, 2))
        model_power_cut(model);
    model_recover(model);
    model_check_clean(model);
    return false;
}
