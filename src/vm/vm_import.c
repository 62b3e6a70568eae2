/* import: a VM's folder from anywhere becomes a VM of this home. Nothing of it is trusted: not its settings, not its links. */
#include "vm_priv.h"

#include "args.h"
#include "auto.h"
#include "dirty_log.h"
#include "disk_id.h"
#include "file.h"
#include "folder.h"
#include "memory.h"
#include "runtime.h"
#include "store_folder.h"

#include <errno.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct import_request {
    const char *name;  /* borrowed; NULL: the one in its settings */
    bool copy, trust, dry_run;
    char *dir, *home;  /* owned; links resolved */
    bool is_in_home;
};

static void request_done(struct import_request *request)
{
    free(request->dir);
    free(request->home);
}

/* --- what is in the folder --- */

static char strange_path[480]; /* nftw() has no context */
static const char *strange_what;

static int look_at(const char *path, const struct stat *stat, int type, struct FTW *walk)
{
    (void)walk;
    if (type == FTW_DNR || type == FTW_NS)
        strange_what = "cannot be read";
    else if (type == FTW_SL || S_ISLNK(stat->st_mode))
        strange_what = "is a symbolic link, and may lead anywhere";
    else if (!S_ISREG(stat->st_mode) && !S_ISDIR(stat->st_mode))
        strange_what = "is neither a file nor a folder";
    else
        return 0;
    strncpy(strange_path, path, sizeof strange_path - 1);
    return 1;
}

/* Before anything in it is opened. */
static bool files_check(const char *dir, struct err *err)
{
    int found = nftw(dir, look_at, 16, FTW_PHYS);

    if (found > 0)
        return err_set(err, ERR_INVALID, "%s: %s", strange_path, strange_what);
    return found == 0 || err_sys(err, errno, "look through %s", dir);
}

static bool path_check(const struct import_request *request, const char *what, const char *path, struct err *err)
{
    if (!path || request->trust || path_is_inside(path, request->dir))
        return true;
    return err_set(err, ERR_INVALID, "%s: lies outside of the folder, and the VM has it as its %s; --trust takes it all the same",
                   path, what);
}

static bool paths_check(const struct import_request *request, const struct config *config, struct err *err)
{
    for (size_t i = 0; i < config->disk_count; i++)
        if (!path_check(request, config->disks[i].is_cdrom ? "optical medium" : "disk", config->disks[i].path, err))
            return false;
    return path_check(request, "kernel", config->kernel, err) && path_check(request, "initial RAM disk", config->initrd, err);
}

static bool memory_of_check(const struct tree *tree, const struct config *config, struct err *err)
{
    bool has_memory = config->is_snapshot ? config->state_when_taken != STATE_OFF : guid_is_set(&config->saved);
    AUTO_FREE char *dir = config->is_snapshot ? tree_snapshot_dir(tree, &config->snapshot) : tree_vm_state_dir(tree);
    AUTO_FREE char *path = dir ? tree_state_path(dir, config->is_snapshot ? &config->snapshot : &config->saved, "") : NULL;

    if (!path)
        return err_oom(err);
    return !has_memory || memory_check(path, config, &config->memory, err);
}

/* Chains once for each end: those of others are part of them. */
static bool config_verify(const struct tree *tree, const struct config *config, struct err *err)
{
    bool is_end = !config->is_snapshot || !tree_has_dependants(tree, &config->snapshot);

    return disk_ids_check(config, err) && (!is_end || disk_chains_check(config, err)) &&
           memory_of_check(tree, config, err);
}

static bool layers_check(const struct import_request *request, const struct plan_layer *layers, size_t count, struct err *err)
{
    for (size_t i = 0; i < count; i++)
        if (!path_check(request, "parent disk", layers[i].path, err))
            return false;
    return true;
}

/* All paths first: only then is anything opened. */
static bool tree_verify(const struct import_request *request, const struct tree *tree, struct err *err)
{
    if (!paths_check(request, tree->vm, err))
        return false;
    for (size_t i = 0; i < tree->snapshot_count; i++)
        if (!paths_check(request, tree->snapshots[i], err))
            return err_prefix(err, "snapshot '%s'", tree->snapshots[i]->name);
    if (!config_verify(tree, tree->vm, err))
        return false;
    for (size_t i = 0; i < tree->snapshot_count; i++)
        if (!config_verify(tree, tree->snapshots[i], err))
            return err_prefix(err, "snapshot '%s'", tree->snapshots[i]->name);
    return true;
}

/* --- is there one already? --- */

/* The VM of this home that has the GUID in its files' names; NULL: none. */
static bool find_same(const struct import_request *request, const struct guid *guid, char **ret_name, struct err *err)
{
    char **names;

    *ret_name = NULL;
    if (!store_list(&io_real, &names, err))
        return false;
    for (size_t i = 0; names[i] && !*ret_name; i++) {
        AUTO_FREE char *xml = string_printf("%s/%s/Virtual Machines/%s.xml", request->home, names[i], guid->text);
        if (xml && io_exists(&io_real, xml))
            *ret_name = strdup(names[i]);
    }
    store_list_free(names);
    return true;
}

static bool identity_check(const struct import_request *request, const struct config *vm, struct err *err)
{
    AUTO_FREE char *same = NULL;

    if (request->copy)
        return true;
    if (!find_same(request, &vm->guid, &same, err))
        return false;
    return !same || err_set(err, ERR_EXISTS, "it is the VM '%s', which is here already; --copy makes another VM of it", same);
}

/* --- doing --- */

static int look_for_lock(void *context, const char *name)
{
    const char *end = strrchr(name, '.');

    *(bool *)context |= end && strcmp(end, ".lock") == 0;
    return 0;
}

/* Where there is none nobody has ever used it, and what is imported from stays as it is. */
static bool has_lock_file(const struct import_request *request)
{
    AUTO_FREE char *dir = path_join(request->dir, "Virtual Machines");
    bool found = false;
    struct err ignored;

    return dir && io_list(&io_real, dir, look_for_lock, &found, &ignored) && found;
}

/* Such a folder is nobody's to start either. */
static bool cannot_be_written(const struct err *err)
{
    return err->sys == EACCES || err->sys == EPERM || err->sys == EROFS;
}

/* Nobody starts or changes it meanwhile. */
static bool lock_take(const struct import_request *request, struct store **ret_store, struct err *err)
{
    enum store_lock_state state;
    struct store_owner owner;
    bool alive = false;

    if (!store_probe(request->dir, &state, &owner, err))
        return false;
    if (state == STORE_ELSEWHERE)
        return err_set(err, ERR_STATE,
                       "the host '%s' has not let it go; once you know that nothing of it runs there, remove the .lock file in "
                       "'Virtual Machines'", owner.host);
    *ret_store = NULL;
    if (state == STORE_FREE && !request->is_in_home && !has_lock_file(request))
        return true;
    if (!store_open(&io_real, request->dir, "import", /* recover= */ false, ret_store, &alive, err))
        return state == STORE_FREE && !request->is_in_home && cannot_be_written(err);
    if (!alive)
        return true;
    store_close(TAKE(*ret_store));
    return err_set(err, ERR_STATE, "%s: its guest runs", request->dir);
}

/* What a worker that was killed had answered is no part of the files yet. */
static bool source_settle(const struct import_request *request, const struct store *store, struct err *err)
{
    AUTO_FREE char *log_dir = NULL;
    AUTO_FREE char *layers_dir = NULL;

    if (!store || request->dry_run)
        return true;
    if (!(layers_dir = tree_layers_dir(store_tree(store))))
        return err_oom(err);
    return runtime_dirty_dir(&log_dir, err) && dirty_log_replay_all(&io_real, log_dir, request->dir, err) &&
           dirty_log_replay_all(&io_real, log_dir, layers_dir, err);
}

static bool source_open(const struct import_request *request, struct store **ret_store, struct tree **ret_tree, struct err *err)
{
    AUTO_STORE struct store *store = NULL;
    unsigned waited_ms = 0;

    while (!lock_take(request, &store, err))
        if (err->code != ERR_BUSY || !folder_wait(request->dir, &waited_ms))
            return false;
    if (!source_settle(request, store, err) || !store_read(&io_real, request->dir, ret_tree, err))
        return false;
    *ret_store = TAKE(store);
    return true;
}

static bool answer(const char *name, const char *path, const struct guid *guid, json_t **ret_value, struct err *err)
{
    return vm_answer(json_pack("{s:s, s:s, s:s}", "name", name, "guid", guid->text, "path", path), ret_value, err);
}

/* The GUID that the plan gives to the VM. */
static struct guid plan_guid(const struct plan *plan)
{
    struct guid guid = {0};

    for (size_t i = 0; i < plan->step_count; i++)
        if (plan->steps[i].kind == STEP_WRITE_CONFIG && !plan->steps[i].config->is_snapshot)
            guid = plan->steps[i].config->guid;
    return guid;
}

static bool import_plan(const struct import_request *request, const struct tree *tree, const char *name,
                        const struct folder_target *folder, struct plan **ret_plan, struct err *err)
{
    struct plan_target target = {.dir = folder->dir, .temporary = folder->temporary, .name = name};
    struct plan_source source = vm_plan_source();
    struct plan_layer *layers;
    size_t layer_count;

    if (!store_tree_layers(&io_real, tree, &layers, &layer_count, err))
        return false;
    bool planned = layers_check(request, layers, layer_count, err) &&
                   plan_copy(tree, &source, &target, request->copy, layers, layer_count, ret_plan, err);
    store_layers_free(layers, layer_count);
    return planned;
}

static bool import_copy(const struct import_request *request, const struct tree *tree, const struct progress *progress,
                        json_t **ret_value, struct err *err)
{
    const char *name = request->name ? request->name : tree->vm->name;
    AUTO_FREE char *wanted = path_join(request->home, name);
    AUTO(folder_target_done) struct folder_target folder = {0};
    AUTO_PLAN struct plan *plan = NULL;

    if (!wanted)
        return err_oom(err);
    if (!config_check_vm_name(name, err) || !identity_check(request, tree->vm, err))
        return false;
    if (io_exists(&io_real, wanted))
        return err_set(err, ERR_EXISTS, "the name '%s' is taken; --name gives another one", name);
    if (!folder_target_set(wanted, &folder, err) || !import_plan(request, tree, name, &folder, &plan, err))
        return false;
    if (request->dry_run)
        return folder_answer_plan(plan, ret_value, err);
    struct guid guid = plan_guid(plan);
    return folder_make(plan, progress, err) && answer(name, folder.dir, &guid, ret_value, err);
}

/* It lies where VMs lie: it is one already, but for its name. */
static bool import_in_place(const struct import_request *request, const struct tree *tree, json_t **ret_value, struct err *err)
{
    const char *name = request->name ? request->name : path_base(request->dir);
    AUTO_FREE char *wanted = path_join(request->home, name);
    AUTO_PLAN struct plan *plan = NULL;
    struct plan_layer *layers;
    size_t layer_count;

    if (!wanted)
        return err_oom(err);
    if (!config_check_vm_name(name, err) || !store_tree_layers(&io_real, tree, &layers, &layer_count, err))
        return false;
    bool moves = strcmp(wanted, request->dir) != 0;
    /* As for a rename: parent links of others lead to it by its name. */
    bool sound = layers_check(request, layers, layer_count, err) &&
                 (!moves || vm_others_spare_inside(request->dir, layers, layer_count, err));
    store_layers_free(layers, layer_count);
    if (!sound || !plan_move(tree, wanted, &plan, err))
        return false;
    if (request->dry_run)
        return vm_answer_plan(moves ? plan : &(struct plan){.summary = plan->summary}, ret_value, err);
    if (moves && !store_run_folder(&io_real, plan, NULL, NULL, err))
        return false;
    return answer(name, wanted, &tree->vm->guid, ret_value, err);
}

static bool import(const struct import_request *request, const struct progress *progress, json_t **ret_value, struct err *err)
{
    AUTO_TREE struct tree *tree = NULL;
    AUTO_STORE struct store *lock = NULL; /* until all is done */

    if (!files_check(request->dir, err) || !source_open(request, &lock, &tree, err) || !tree_verify(request, tree, err))
        return false;
    return request->is_in_home && !request->copy ? import_in_place(request, tree, ret_value, err)
                                                 : import_copy(request, tree, progress, ret_value, err);
}

static bool home_find(struct import_request *request, struct err *err)
{
    AUTO_FREE char *home = NULL;
    AUTO_FREE char *parent = NULL;

    if (!store_home(&home, err) || !dir_make_all(&io_real, home, err))
        return false;
    if (!(request->home = realpath(home, NULL)))
        return err_sys(err, errno, "%s", home);
    if (!(parent = path_dir(request->dir)))
        return err_oom(err);
    request->is_in_home = strcmp(parent, request->home) == 0;
    return true;
}

bool vm_import(const json_t *arguments, const struct progress *progress, json_t **ret_value, struct err *err)
{
    static const char *const KNOWN[] = {"copy", "dir", "dry_run", "name", "trust", NULL};
    AUTO(request_done) struct import_request request = {0};
    const char *dir;

    if (!args_known(arguments, KNOWN, err) || !args_required(arguments, "dir", &dir, err) ||
        !args_string(arguments, "name", &request.name, err) || !args_bool(arguments, "copy", &request.copy, err) ||
        !args_bool(arguments, "trust", &request.trust, err) || !args_bool(arguments, "dry_run", &request.dry_run, err))
        return false;
    if (!(request.dir = realpath(dir, NULL)))
        return err_sys(err, errno, "%s", dir);
    return home_find(&request, err) && import(&request, progress, ret_value, err);
}
