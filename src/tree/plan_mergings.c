/* Which images are to be merged, in which direction, and which are kept and why. */
#include "tree_private.h"

#include "bytes.h"
#include "file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct node {
    const struct plan_layer *layer;
    struct node *parent, *first_child, *next_child;
    size_t child_count, depth; /* depth: of unneeded ones alone */
    bool is_point, is_top;
    bool is_changed; /* a snapshot that names it means an image with another id */
};

struct graph {
    const struct tree *tree;
    const struct plan_merge *request;
    struct node *nodes; /* by path, each path once */
    size_t count;
};

struct verdict {
    enum merge_kept kept;
    const struct plan_layer *layer; /* of whom it is said */
};

/* --- the graph --- */
static int compare_path(const void *a, const void *b)
{
    return strcmp(((const struct node *)a)->layer->path, ((const struct node *)b)->layer->path);
}

static struct node *find(const struct graph *graph, const char *path)
{
    const struct plan_layer layer = {.path = path};
    const struct node key = {.layer = &layer};

    if (!path || graph->count == 0)
        return NULL;
    return bsearch(&key, graph->nodes, graph->count, sizeof key, compare_path);
}

static void link_children(struct graph *graph)
{
    for (size_t i = graph->count; i-- > 0;) {
        struct node *node = &graph->nodes[i];
        node->parent = find(graph, node->layer->parent);
        if (!node->parent)
            continue;
        node->next_child = node->parent->first_child;
        node->parent->first_child = node;
        node->parent->child_count++;
    }
}

static void mark_points(struct graph *graph, const struct config *config, bool is_vm)
{
    for (size_t i = 0; i < config->disk_count; i++) {
        const struct config_disk *disk = &config->disks[i];
        struct node *node = disk->is_cdrom ? NULL : find(graph, disk->path);
        if (!node)
            continue;
        node->is_point = true;
        node->is_top |= is_vm;
        if (disk->image_id[0] != '\0' && strcmp(disk->image_id, node->layer->id) != 0)
            node->is_changed = true;
    }
}

static bool graph_new(struct graph *graph)
{
    const struct plan_merge *request = graph->request;
    size_t kept = 0;

    graph->nodes = calloc(request->layer_count + 1, sizeof *graph->nodes);
    if (!graph->nodes)
        return false;
    for (size_t i = 0; i < request->layer_count; i++)
        graph->nodes[i].layer = &request->layers[i];
    qsort(graph->nodes, request->layer_count, sizeof *graph->nodes, compare_path);
    for (size_t i = 0; i < request->layer_count; i++)
        if (kept == 0 || compare_path(&graph->nodes[kept - 1], &graph->nodes[i]) != 0)
            graph->nodes[kept++] = graph->nodes[i];
    graph->count = kept;
    link_children(graph);
    mark_points(graph, graph->tree->vm, /* is_vm= */ true);
    for (size_t i = 0; i < graph->tree->snapshot_count; i++)
        mark_points(graph, graph->tree->snapshots[i], /* is_vm= */ false);
    return true;
}

/* --- verdicts --- */
static bool keep(struct verdict *verdict, enum merge_kept kept, const struct node *node)
{
    *verdict = (struct verdict){.kept = kept, .layer = node->layer};
    return false;
}

static bool is_inside(const struct graph *graph, const struct node *node)
{
    return !node->layer->is_elsewhere && path_is_inside(node->layer->path, graph->tree->vm_dir);
}

/* May it be written to, its header aside? */
static bool may_write(const struct graph *graph, const struct node *node, struct verdict *verdict)
{
    if (!is_inside(graph, node))
        return keep(verdict, MERGE_KEPT_OUTSIDE, node);
    return !node->layer->is_linked || keep(verdict, MERGE_KEPT_LINKED, node);
}

static bool may_remove(const struct graph *graph, const struct node *node, struct verdict *verdict)
{
    if (!is_inside(graph, node))
        return keep(verdict, MERGE_KEPT_OUTSIDE, node);
    if (node->layer->user)
        return keep(verdict, MERGE_KEPT_USED, node);
    return tree_is_layer(graph->tree, node->layer->path) || keep(verdict, MERGE_KEPT_NAME, node);
}

/* Do these images get another parent? */
static bool may_reparent_children(const struct graph *graph, const struct node *node, struct verdict *verdict)
{
    for (const struct node *child = node->first_child; child; child = child->next_child)
        if (!may_write(graph, child, verdict))
            return false;
    return true;
}

/* What lies under the parent must not come into sight where the parent has ended. */
static bool ends_before(const struct node *under, uint64_t seen_bytes, uint64_t end_bytes)
{
    return !under || min_u64(under->layer->size_bytes, seen_bytes) <= end_bytes;
}

static bool may_go_down(const struct graph *graph, const struct node *parent, const struct node *child,
                        struct verdict *verdict)
{
    uint64_t size = parent->layer->size_bytes, child_size = child->layer->size_bytes;
    bool asked = graph->request->into_base && !parent->layer->parent;

    if (!asked && !is_inside(graph, parent))
        return keep(verdict, MERGE_KEPT_OUTSIDE, parent);
    if (parent->layer->is_linked)
        return keep(verdict, MERGE_KEPT_LINKED, parent);
    if (parent->layer->user)
        return keep(verdict, MERGE_KEPT_USED, parent);
    if (!may_remove(graph, child, verdict) || !may_reparent_children(graph, child, verdict))
        return false;
    if (child->first_child && child->layer->is_linked)
        return keep(verdict, MERGE_KEPT_LINKED, child); /* it is emptied */
    if (size > child_size || (size < child_size && !ends_before(parent->parent, child_size, size)))
        return keep(verdict, MERGE_KEPT_SIZE, parent);
    return !child->is_changed || keep(verdict, MERGE_KEPT_CHANGED, child);
}

static bool may_go_up(const struct graph *graph, const struct node *parent, const struct node *child,
                      struct verdict *verdict)
{
    if (!parent->parent)
        return keep(verdict, MERGE_KEPT_OUTSIDE, parent);
    if (!may_remove(graph, parent, verdict) || !may_write(graph, child, verdict))
        return false;
    if (child->layer->user)
        return keep(verdict, MERGE_KEPT_USED, child);
    return ends_before(parent->parent, child->layer->size_bytes, parent->layer->size_bytes) ||
           keep(verdict, MERGE_KEPT_SIZE, parent);
}

/* Nothing is copied: what lies over it gets what lies under it. */
static bool may_be_taken_out(const struct graph *graph, const struct node *node)
{
    struct verdict ignored;

    if (!node->layer->may_be_empty || !node->parent || !may_remove(graph, node, &ignored) ||
        !may_reparent_children(graph, node, &ignored))
        return false;
    for (const struct node *child = node->first_child; child; child = child->next_child)
        if (!ends_before(node->parent, child->layer->size_bytes, node->layer->size_bytes))
            return false;
    return true;
}

static bool is_alive(enum plan_machine machine)
{
    return machine == MACHINE_RUNNING || machine == MACHINE_PAUSED;
}

static struct plan_merging judge_pair(const struct graph *graph, const struct node *parent, const struct node *child)
{
    struct plan_merging merging = {
        .parent = parent->layer->path, .child = child->layer->path, .child_is_top = child->is_top};
    uint64_t down_bytes = child->layer->allocated_bytes, up_bytes = parent->layer->allocated_bytes;
    struct verdict down = {0}, up = {0};
    bool may_down = may_go_down(graph, parent, child, &down), may_up = may_go_up(graph, parent, child, &up);

    merging.direction = may_up && (!may_down || up_bytes < down_bytes) ? MERGE_UP : MERGE_DOWN;
    merging.bytes = merging.direction == MERGE_UP ? up_bytes : down_bytes;
    if (!may_up && !may_down) {
        merging.kept = down.kept;
        merging.kept_path = down.layer->path;
        merging.kept_user = down.layer->user;
    } else if (child->is_top && is_alive(graph->request->machine)) {
        merging.kept = MERGE_KEPT_WRITTEN;
        merging.kept_path = merging.child;
    }
    return merging;
}

static struct plan_merging judge(const struct graph *graph, const struct node *node)
{
    if (may_be_taken_out(graph, node))
        return (struct plan_merging){
            .parent = node->parent->layer->path, .child = node->layer->path, .child_is_empty = true};
    if (node->child_count == 1)
        return judge_pair(graph, node, node->first_child);
    return (struct plan_merging){.parent = node->layer->path,
                                 .kept = MERGE_KEPT_FORK,
                                 .kept_path = node->layer->path,
                                 .dependants = node->child_count};
}

/* --- all of them --- */
static int compare_depth(const void *a, const void *b)
{
    const struct node *const *first = a, *const *second = b;

    if ((*first)->depth != (*second)->depth)
        return (*first)->depth < (*second)->depth ? -1 : 1;
    return compare_path(*first, *second);
}

/* No point, and something lies over it. *ret_unneeded is owned. */
static bool find_unneeded(const struct graph *graph, const struct node ***ret_unneeded, size_t *ret_count)
{
    const struct node **unneeded = calloc(graph->count + 1, sizeof(struct node *));
    size_t count = 0;

    if (!unneeded)
        return false;
    for (size_t i = 0; i < graph->count; i++) {
        struct node *node = &graph->nodes[i];
        if (node->is_point || !node->first_child)
            continue;
        /* The count bounds the walk: the list is not ours, and might go in a circle. */
        for (const struct node *under = node->parent; under && node->depth < graph->count; under = under->parent)
            node->depth++;
        unneeded[count++] = node;
    }
    qsort(unneeded, count, sizeof *unneeded, compare_depth);
    *ret_unneeded = unneeded;
    *ret_count = count;
    return true;
}

bool plan_mergings(const struct tree *tree, const struct plan_merge *request, struct plan_merging **ret_mergings,
                   size_t *ret_count, struct err *err)
{
    struct graph graph = {.tree = tree, .request = request};
    AUTO_FREE const struct node **unneeded = NULL;
    struct plan_merging *mergings = NULL;
    size_t count = 0;

    if (graph_new(&graph) && find_unneeded(&graph, &unneeded, &count))
        mergings = calloc(count + 1, sizeof *mergings);
    for (size_t i = 0; mergings && i < count; i++)
        mergings[i] = judge(&graph, unneeded[i]);
    free(graph.nodes);
    if (!mergings)
        return err_oom(err);
    *ret_mergings = mergings;
    *ret_count = count;
    return true;
}

/* --- what is told of one --- */
const char *merging_gone(const struct plan_merging *merging)
{
    return merging->kept == MERGE_KEPT_FORK || merging->direction == MERGE_UP ? merging->parent : merging->child;
}

const char *merging_stays(const struct plan_merging *merging)
{
    if (merging->kept == MERGE_KEPT_FORK)
        return NULL;
    return merging->direction == MERGE_UP ? merging->child : merging->parent;
}

void merging_reason(const struct plan_merging *merging, char *text, size_t size)
{
    static const char *const WHY[] = {
        [MERGE_NOT_KEPT] = "",
        [MERGE_KEPT_WRITTEN] = "is written to: it is merged when the VM is off, or behind its next snapshot",
        [MERGE_KEPT_FORK] = "is needed by several others",
        [MERGE_KEPT_OUTSIDE] = "lies outside the VM's folder, where others may use it",
        [MERGE_KEPT_LINKED] = "has another name in the file system, where others may use it",
        [MERGE_KEPT_USED] = "is used by another VM",
        [MERGE_KEPT_SIZE] = "is of another size, by which something hidden would come into sight",
        [MERGE_KEPT_NAME] = "would have to be removed, and was not made by Bough",
        [MERGE_KEPT_CHANGED] = "is not the image that a snapshot means",
    };
    const char *name = merging->kept_path ? path_base(merging->kept_path) : "";

    if (merging->kept == MERGE_KEPT_USED && merging->kept_user)
        snprintf(text, size, "%s is used by the VM '%s'", name, merging->kept_user);
    else if (merging->kept == MERGE_KEPT_FORK)
        snprintf(text, size, "%s is needed by %zu others", name, merging->dependants);
    else
        snprintf(text, size, "%s%s%s", name, *name != '\0' ? " " : "", WHY[merging->kept]);
}
