/* Plans about a folder as a whole, done: all is made under a temporary name, and one rename says that it is there. */
#include "store_folder.h"

#include "store_private.h"

#include "buf.h"
#include "compare.h"
#include "convert.h"
#include "log.h"
#include "vhd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct folder_run {
    const struct io *io;
    struct plan *plan;
    const char *final; /* where the new folder will be: the settings are written as seen from there */
    const struct store_machine *machine;
    const struct progress *progress;
    uint64_t done_bytes, item_bytes, total_bytes;
};

/* --- progress of all as one --- */

static void report(void *context, const char *phase, uint64_t done, uint64_t total)
{
    const struct folder_run *run = context;
    double share = total > 0 ? (double)done / (double)total : 0;

    /* A flattened disk is written and then read again. */
    if (strcmp(phase, "convert") == 0)
        share /= 2;
    else if (strcmp(phase, "compare") == 0)
        share = (1 + share) / 2;
    progress_report(run->progress, phase, run->done_bytes + (uint64_t)(share * (double)run->item_bytes), run->total_bytes);
}

static bool cancelled(void *context)
{
    return progress_cancelled(((const struct folder_run *)context)->progress);
}

static bool file_bytes(const struct io *io, const struct step *step, uint64_t *ret_bytes, struct err *err)
{
    struct io_stat stat;

    if (step->kind == STEP_FLATTEN)
        return convert_data_bytes(io, step->from, ret_bytes, err);
    if (!io_stat_path(io, step->from, &stat, err)) {
        *ret_bytes = 0;
        return step->kind == STEP_COPY_OPTIONAL && err->code == ERR_NOT_FOUND;
    }
    *ret_bytes = stat.allocated_bytes;
    return true;
}

static bool makes_file(const struct step *step)
{
    return step->kind == STEP_COPY_FILE || step->kind == STEP_COPY_OPTIONAL || step->kind == STEP_FLATTEN;
}

bool store_folder_bytes(const struct io *io, const struct plan *plan, struct store_folder_bytes *ret_bytes, struct err *err)
{
    struct store_folder_bytes bytes = {0};

    for (size_t i = 0; i < plan->step_count; i++) {
        uint64_t file;
        if (!makes_file(&plan->steps[i]))
            continue;
        if (!file_bytes(io, &plan->steps[i], &file, err))
            return false;
        *(plan->steps[i].kind == STEP_FLATTEN ? &bytes.flattened : &bytes.copied) += file;
    }
    *ret_bytes = bytes;
    return true;
}

/* --- steps --- */

static bool copy_optional(const struct io *io, const struct step *step, const struct progress *progress, struct err *err)
{
    return !io_exists(io, step->from) || copy_file(io, step->from, step->path, progress, err);
}

static bool is_parent(const struct vhd *child, const struct io_stat *wanted)
{
    AUTO_VHD struct vhd *found = NULL;
    struct err ignored;

    return vhd_open_parent(child, &found, &ignored) && found->device == wanted->device && found->inode == wanted->inode;
}

/* A relative locator leads to the right file wherever the folder is; others lead back to where the copy came from. */
static bool link_parent(const struct io *io, const struct step *step, struct err *err)
{
    AUTO_VHD struct vhd *child = NULL;
    AUTO_VHD struct vhd *parent = NULL;
    struct io_stat wanted;

    if (!io_stat_path(io, step->from, &wanted, err) || !vhd_open(io, step->path, IO_READ_ONLY, &child, err))
        return false;
    if (is_parent(child, &wanted))
        return true;
    if (!vhd_open(io, step->from, IO_READ_ONLY, &parent, err))
        return false;
    if (memcmp(parent->footer.id, child->header.parent_id, VHD_ID_SIZE) != 0)
        return err_set(err, ERR_MISMATCH, "%s: wants a parent with another unique id than %s has", step->path, step->from);
    vhd_close(TAKE(child));
    return vhd_reparent(io, step->path, step->from, err);
}

static bool flatten(const struct io *io, const struct step *step, const struct progress *progress, struct err *err)
{
    struct convert_options options = {
        .from = step->from, .to = step->path, .from_format = IMAGE_VHD, .to_format = IMAGE_DYNAMIC};
    struct convert_result result;

    return convert_image(io, &options, progress, &result, err) &&
           convert_compare(io, step->from, step->path, progress, err);
}

static bool write_there(const struct folder_run *run, const struct step *step, struct err *err)
{
    AUTO_FREE char *xml = NULL;
    size_t length;
    bool renamed;

    return config_format(step->config, run->final, &xml, &length, err) &&
           file_replace(run->io, step->path, xml, length, &renamed, err);
}

/* It must not replace even an empty folder: somebody has put it there. */
static bool rename_folder(const struct io *io, const struct step *step, struct err *err)
{
    if (io_exists(io, step->path))
        return err_set(err, ERR_EXISTS, "%s: is there already", step->path);
    return io_rename(io, step->from, step->path, err);
}

static bool rename_sync(const struct io *io, const struct step *step, struct err *err)
{
    AUTO_FREE char *to_dir = path_dir(step->path);
    AUTO_FREE char *from_dir = path_dir(step->from);

    if (!to_dir || !from_dir)
        return err_oom(err);
    return io_sync_dir(io, to_dir, err) && (strcmp(to_dir, from_dir) == 0 || io_sync_dir(io, from_dir, err));
}

static bool hand_over(const struct folder_run *run, size_t index, struct err *err)
{
    if (run->machine)
        return run->machine->step(run->machine->context, run->plan, index, err);
    return err_set(err, ERR_INTERNAL, "step %s: nobody does it", step_name(run->plan->steps[index].kind));
}

static bool do_step(const struct folder_run *run, size_t index, const struct progress *progress, struct err *err)
{
    const struct step *step = &run->plan->steps[index];

    log_debug("%s: %s %s", run->plan->summary, step_name(step->kind), step->path);
    switch (step->kind) {
    case STEP_MAKE_DIR:
        return make_dir(run->io, step->path, err);
    case STEP_COPY_FILE:
        return copy_file(run->io, step->from, step->path, progress, err);
    case STEP_COPY_OPTIONAL:
        return copy_optional(run->io, step, progress, err);
    case STEP_SHARE_FILE:
        return share_file(run->io, step, err);
    case STEP_LINK_PARENT:
        return link_parent(run->io, step, err);
    case STEP_FLATTEN:
        return flatten(run->io, step, progress, err);
    case STEP_WRITE_CONFIG:
        return write_there(run, step, err);
    case STEP_SYNC_DIR:
        return io_sync_dir(run->io, step->path, err);
    case STEP_RENAME:
        return rename_folder(run->io, step, err);
    case STEP_CHECK_MEMORY:
    case STEP_VERIFY_MEMORY:
        return hand_over(run, index, err);
    default:
        return err_set(err, ERR_INTERNAL, "step %s: is none of a folder's", step_name(step->kind));
    }
}

static bool run_step(struct folder_run *run, size_t index, struct err *err)
{
    struct progress progress = {.report = report, .cancelled = cancelled, .context = run};
    const struct step *step = &run->plan->steps[index];

    if (progress_cancelled(run->progress))
        return err_set(err, ERR_CANCELLED, "%s: cancelled", run->plan->summary);
    run->item_bytes = 0;
    if (makes_file(step) && !file_bytes(run->io, step, &run->item_bytes, err))
        return false;
    if (!do_step(run, index, &progress, err))
        return false;
    run->done_bytes += run->item_bytes;
    return true;
}

/* Behind the commit: what is not removed now, the next one who makes or removes a VM there removes. */
static void run_behind(const struct folder_run *run, size_t start)
{
    for (size_t i = start; i < run->plan->step_count; i++) {
        const struct step *step = &run->plan->steps[i];
        if (step->kind == STEP_REMOVE_TREE)
            remove_all(run->io, step->path);
        if (io_exists(run->io, step->path))
            log_warning("%s: could not be removed as a whole", step->path);
    }
}

/* The index of the plan's commit. */
static bool find_commit(const struct plan *plan, size_t *ret_index, struct err *err)
{
    for (size_t i = 0; i < plan->step_count; i++) {
        if (plan->steps[i].kind != STEP_RENAME)
            continue;
        *ret_index = i;
        return true;
    }
    return err_set(err, ERR_INTERNAL, "%s: the plan is none about a folder", plan->summary);
}

/* Was the folder that gets its name made by this plan? Then it is nobody's until it has it. */
static bool makes_folder(const struct plan *plan, size_t commit)
{
    return plan->steps[0].kind == STEP_MAKE_DIR && strcmp(plan->steps[0].path, plan->steps[commit].from) == 0;
}

static bool run_to_commit(struct folder_run *run, size_t commit, struct err *err)
{
    const struct step *rename = &run->plan->steps[commit];
    bool made = makes_folder(run->plan, commit);

    /* Before anything is made: a folder of that name is not ours to remove. */
    if (io_exists(run->io, rename->path))
        return err_set(err, ERR_EXISTS, "%s: is there already", rename->path);
    for (size_t i = 0; i <= commit; i++) {
        if (run_step(run, i, err))
            continue;
        if (made)
            remove_all(run->io, rename->from);
        return false;
    }
    if (rename_sync(run->io, rename, err))
        return true;
    return err_prefix(err, "%s: it is done, but a power cut may undo it", run->plan->summary);
}

bool store_run_folder(const struct io *io, struct plan *plan, const struct store_machine *machine,
                      const struct progress *progress, struct err *err)
{
    struct folder_run run = {.io = io, .plan = plan, .machine = machine, .progress = progress};
    struct store_folder_bytes bytes;
    size_t commit;

    if (!find_commit(plan, &commit, err) || !store_folder_bytes(io, plan, &bytes, err))
        return false;
    run.total_bytes = bytes.copied + bytes.flattened;
    run.final = plan->steps[commit].path;
    AUTO_FREE char *dir = path_dir(run.final);
    if (!dir)
        return err_oom(err);
    AUTO_FD int lock_fd = home_lock(io, dir);
    (void)lock_fd; /* held until the end */
    if (!run_to_commit(&run, commit, err))
        return false;
    run_behind(&run, commit + 1);
    return true;
}

static char *hidden_beside(const char *dir, const char *suffix)
{
    AUTO_FREE char *parent = path_dir(dir);
    struct guid guid = guid_new();

    return parent ? string_printf("%s/.%s%s", parent, guid.text, suffix) : NULL;
}

char *store_temporary_dir(const char *dir)
{
    return hidden_beside(dir, NEW_SUFFIX);
}

char *store_removed_dir(const char *dir)
{
    return hidden_beside(dir, REMOVED_SUFFIX);
}
