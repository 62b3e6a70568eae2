#include "io_names.h"

#include "file.h"

#include <stdlib.h>
#include <string.h>

static char *must_copy(const char *text)
{
    char *copy = text ? strdup(text) : NULL;

    if (text && !copy)
        abort();
    return copy;
}

static void remove_at(struct names *names, size_t index)
{
    free(names->name[index].path);
    node_unref(names->name[index].node);
    names->name[index] = names->name[--names->count];
}

void names_done(struct names *names)
{
    while (names->count > 0)
        remove_at(names, names->count - 1);
    free(names->name);
    *names = (struct names){0};
}

static struct name *find(const struct names *names, const char *path)
{
    for (size_t i = 0; i < names->count; i++)
        if (strcmp(names->name[i].path, path) == 0)
            return &names->name[i];
    return NULL;
}

struct node *names_find(const struct names *names, const char *path)
{
    const struct name *name = find(names, path);

    return name ? name->node : NULL;
}

const char *name_inside(const char *path, const char *dir)
{
    size_t length = strcmp(dir, "/") == 0 ? 0 : strlen(dir);

    if (strncmp(path, dir, length) != 0 || path[length] != '/' || path[length + 1] == '\0')
        return NULL;
    return strchr(path + length + 1, '/') ? NULL : path + length + 1;
}

size_t names_inside(const struct names *names, const char *dir)
{
    size_t inside = 0;

    for (size_t i = 0; i < names->count; i++)
        inside += name_inside(names->name[i].path, dir) != NULL;
    return inside;
}

static void set(struct names *names, const char *path, struct node *node)
{
    struct name *name = find(names, path);

    node_ref(node);
    if (name) {
        node_unref(name->node);
        name->node = node;
        return;
    }
    if (names->count == names->capacity) {
        names->capacity = names->capacity * 2 + 16;
        names->name = realloc(names->name, names->capacity * sizeof *names->name);
        if (!names->name)
            abort();
    }
    names->name[names->count++] = (struct name){.path = must_copy(path), .node = node};
}

/* What lies below a folder moves with it. */
static void move_below(struct names *names, const char *from, const char *to)
{
    size_t length = strlen(from);

    for (size_t i = 0; i < names->count; i++) {
        struct name *name = &names->name[i];
        if (strncmp(name->path, from, length) != 0 || name->path[length] != '/')
            continue;
        char *moved = string_printf("%s%s", to, name->path + length);
        if (!moved)
            abort();
        free(name->path);
        name->path = moved;
    }
}

void names_apply(struct names *names, const struct name_op *op)
{
    const struct name *gone = op->remove ? find(names, op->remove) : NULL;

    if (gone && gone->node == op->node)
        remove_at(names, (size_t)(gone - names->name));
    if (!op->set)
        return;
    if (op->remove && op->node->is_directory)
        move_below(names, op->remove, op->set);
    set(names, op->set, op->node);
}

void names_copy(struct names *to, const struct names *from)
{
    names_done(to);
    for (size_t i = 0; i < from->count; i++)
        set(to, from->name[i].path, from->name[i].node);
}

static bool is_orphan(const struct names *names, const char *path)
{
    AUTO_FREE char *dir = path_dir(path);

    if (!dir)
        abort();
    if (strcmp(dir, "/") == 0)
        return false;
    const struct node *node = names_find(names, dir);
    return !node || !node->is_directory;
}

void names_drop_orphans(struct names *names)
{
    for (bool again = true; again;) {
        again = false;
        for (size_t i = names->count; i-- > 0;) {
            if (is_orphan(names, names->name[i].path)) {
                remove_at(names, i);
                again = true;
            }
        }
    }
}

struct name_op *name_op_new(const char *remove, const char *set_path, struct node *node)
{
    struct name_op *op = calloc(1, sizeof *op);
    char *from = remove ? path_dir(remove) : NULL;
    char *to = set_path ? path_dir(set_path) : NULL;

    if (!op || (remove && !from) || (set_path && !to))
        abort();
    *op = (struct name_op){.remove = must_copy(remove), .set = must_copy(set_path), .node = node_ref(node)};
    op->dir = to ? to : from;
    op->other_dir = to ? from : NULL;
    return op;
}

void name_op_free(struct name_op *op)
{
    free(op->dir);
    free(op->other_dir);
    free(op->remove);
    free(op->set);
    node_unref(op->node);
    free(op);
}
