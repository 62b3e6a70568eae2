/* Which layers nothing needs any more (invariant 5). */
#include "tree_private.h"

#include <stdlib.h>
#include <string.h>

struct known_layer {
    const char *path, *parent; /* borrowed */
    size_t depth;              /* layers under it; only of those that go */
    bool needed;
};

struct known_layers {
    struct known_layer *layers; /* by path */
    size_t count;
};

static int compare_path(const void *a, const void *b)
{
    return strcmp(((const struct known_layer *)a)->path, ((const struct known_layer *)b)->path);
}

static struct known_layer *known_find(const struct known_layers *known, const char *path)
{
    struct known_layer key = {.path = path};

    if (!path || known->count == 0)
        return NULL;
    return bsearch(&key, known->layers, known->count, sizeof key, compare_path);
}

/* A layer twice in the list would be removed though its twin is needed. */
static void drop_twins(struct known_layers *known)
{
    size_t kept = 0;

    for (size_t i = 0; i < known->count; i++) {
        struct known_layer *last = kept > 0 ? &known->layers[kept - 1] : NULL;
        if (!last || strcmp(last->path, known->layers[i].path) != 0)
            known->layers[kept++] = known->layers[i];
        else if (!last->parent)
            last->parent = known->layers[i].parent;
    }
    known->count = kept;
}

/* All that the caller knows, and the VM's tops, which nothing but the VM can need. */
static bool known_new(const struct tree *tree, const struct plan_layer *layers, size_t layer_count,
                      struct known_layers *known)
{
    const struct config *vm = tree->vm;

    known->layers = calloc(layer_count + vm->disk_count + 1, sizeof *known->layers);
    if (!known->layers)
        return false;
    for (size_t i = 0; i < layer_count; i++)
        known->layers[known->count++] =
            (struct known_layer){.path = layers[i].path, .parent = layers[i].parent};
    for (size_t i = 0; i < vm->disk_count; i++)
        if (!vm->disks[i].is_cdrom)
            known->layers[known->count++] = (struct known_layer){.path = vm->disks[i].path};
    qsort(known->layers, known->count, sizeof *known->layers, compare_path);
    drop_twins(known);
    return true;
}

/* The disks of config, and all under them. */
static void need_disks(const struct known_layers *known, const struct config *config)
{
    for (size_t i = 0; i < config->disk_count; i++) {
        struct known_layer *layer =
            config->disks[i].is_cdrom ? NULL : known_find(known, config->disks[i].path);
        for (; layer && !layer->needed; layer = known_find(known, layer->parent))
            layer->needed = true;
    }
}

static void measure_depth(const struct known_layers *known, struct known_layer *layer)
{
    const struct known_layer *under = layer;

    /* The count bounds the walk: the list is not ours, and might go in a circle. */
    while (layer->depth < known->count && (under = known_find(known, under->parent)))
        layer->depth++;
}

static int compare_depth(const void *a, const void *b)
{
    const struct known_layer *first = a, *second = b;

    if (first->depth != second->depth)
        return first->depth > second->depth ? -1 : 1;
    return compare_path(a, b);
}

/* What is above goes first: a crash in between leaves no layer without its parent. */
static void remove_unneeded(struct build *build, struct known_layers *known)
{
    size_t gone = 0;

    for (size_t i = 0; i < known->count; i++) {
        struct known_layer *layer = &known->layers[i];
        if (!layer->needed && tree_is_layer(build->tree, layer->path))
            measure_depth(known, layer);
    }
    for (size_t i = 0; i < known->count; i++)
        if (!known->layers[i].needed && tree_is_layer(build->tree, known->layers[i].path))
            known->layers[gone++] = known->layers[i];
    qsort(known->layers, gone, sizeof *known->layers, compare_depth);
    for (size_t i = 0; i < gone; i++)
        build_step(build, STEP_REMOVE_FILE, strdup(known->layers[i].path));
}

void build_remove_layers(struct build *build, const struct config *now, const bool *deleted,
                         const struct plan_layer *layers, size_t layer_count)
{
    const struct tree *tree = build->tree;
    struct known_layers known = {0};

    if (!known_new(tree, layers, layer_count, &known)) {
        build_fail(build);
        return;
    }
    need_disks(&known, now);
    for (size_t i = 0; i < tree->snapshot_count; i++)
        if (!deleted || !deleted[i])
            need_disks(&known, tree->snapshots[i]);
    remove_unneeded(build, &known);
    free(known.layers);
}
