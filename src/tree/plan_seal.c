/* A new top for one disk of a VM that runs, so that the old one can be merged. */
#include "tree_private.h"

#include "file.h"

#include <stdlib.h>
#include <string.h>

static struct config_disk *disk_find(struct config *config, const char *top)
{
    for (size_t i = 0; i < config->disk_count; i++)
        if (!config->disks[i].is_cdrom && strcmp(config->disks[i].path, top) == 0)
            return &config->disks[i];
    return NULL;
}

bool plan_seal(const struct tree *tree, const struct plan_source *source, const char *top, struct plan **ret_plan,
               struct err *err)
{
    AUTO_CONFIG struct config *config = config_copy(tree->vm);
    struct config_disk *disk = config ? disk_find(config, top) : NULL;
    struct build build;

    if (!config)
        return err_oom(err);
    if (!disk)
        return err_set(err, ERR_INTERNAL, "%s: is no top of the VM", top);
    build_begin(&build, tree, source, err);
    build_snapshot_dirs(&build, /* snapshot= */ NULL);
    build_new_layer(&build, disk);
    build_step(&build, STEP_SYNC_DIR, tree_layers_dir(tree));
    build_snapshot_tops(&build, config);
    return build_end(&build, ret_plan, "merge %s: %s is sealed", tree->vm->name, path_base(top));
}
