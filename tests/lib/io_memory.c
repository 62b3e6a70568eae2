#include "io_memory.h"

#include "bytes.h"
#include "file.h"
#include "io_names.h"

#include <errno.h>
#include <string.h>

struct io_memory {
    struct io io; /* first: an io is cast to its memory */
    enum io_memory_kind kind;
    uint64_t limit_bytes, next_inode, clock;
    struct node *root;
    struct names now, durable;
    struct name_op *first, *last; /* unsynced, oldest first */
};

struct memory_file {
    struct io_file file; /* first */
    struct node *node;
    bool writable;
};

static struct io_memory *memory_of(const struct io *io)
{
    return (struct io_memory *)(uintptr_t)io;
}

static struct node *node_of(struct io_file *file)
{
    return ((struct memory_file *)file)->node;
}

static struct node *find(const struct io_memory *memory, const char *path)
{
    AUTO_FREE char *clean = path_absolute(path);

    if (!clean)
        abort();
    return strcmp(clean, "/") == 0 ? memory->root : names_find(&memory->now, clean);
}

static void change_names(struct io_memory *memory, const char *remove, const char *set, struct node *node)
{
    AUTO_FREE char *clean_remove = remove ? path_absolute(remove) : NULL;
    AUTO_FREE char *clean_set = set ? path_absolute(set) : NULL;
    struct name_op *op = name_op_new(clean_remove, clean_set, node);

    names_apply(&memory->now, op);
    if (memory->kind == IO_MEMORY_PLAIN) {
        name_op_free(op);
        return;
    }
    if (memory->last)
        memory->last->next = op;
    else
        memory->first = op;
    memory->last = op;
}

/* 0 if a new name may be made there. */
static int check_new(const struct io_memory *memory, const char *path)
{
    AUTO_FREE char *clean = path_absolute(path);
    AUTO_FREE char *dir = clean ? path_dir(clean) : NULL;

    if (!dir)
        abort();
    const struct node *parent = find(memory, dir);
    if (!parent)
        return ENOENT;
    if (!parent->is_directory)
        return ENOTDIR;
    return strlen(path_base(clean)) > 255 ? ENAMETOOLONG : 0;
}

static int make_node(struct io_memory *memory, const char *path, bool is_directory)
{
    int errnum = check_new(memory, path);

    if (errnum != 0)
        return errnum;
    if (find(memory, path))
        return EEXIST;
    struct node *node = node_new(++memory->next_inode, is_directory, memory->kind == IO_MEMORY_FORGETS);
    node->changed = ++memory->clock;
    change_names(memory, NULL, path, node);
    node_unref(node);
    return 0;
}

static int memory_open(const struct io *io, const char *path, unsigned flags, struct io_file **ret_file)
{
    struct io_memory *memory = memory_of(io);
    int errnum = flags & IO_CREATE ? make_node(memory, path, false) : 0;

    if (errnum != 0)
        return errnum;
    struct node *node = find(memory, path);
    if (!node)
        return ENOENT;
    if (node->is_directory)
        return EISDIR;
    struct memory_file *file = calloc(1, sizeof *file);
    if (!file)
        abort();
    *file = (struct memory_file){.file = {.io = io, .path = strdup(path), .fd = -1},
                                 .node = node_ref(node),
                                 .writable = flags & (IO_WRITE | IO_CREATE)};
    *ret_file = &file->file;
    return 0;
}

static void memory_close(struct io_file *file)
{
    node_unref(node_of(file));
    free(file->path);
    free(file);
}

static int memory_read(struct io_file *file, uint64_t offset, void *bytes, size_t length, size_t *ret_length)
{
    *ret_length = pages_read(&node_of(file)->now, offset, bytes, length);
    return 0;
}

uint64_t io_memory_taken_bytes(const struct io_memory *memory)
{
    uint64_t pages = 0;

    for (size_t i = 0; i < memory->now.count; i++)
        pages += memory->now.name[i].node->now.taken_pages;
    return pages * PAGE_BYTES;
}

static int change(struct io_file *file, enum node_change what, uint64_t offset, uint64_t length,
                  const void *bytes)
{
    struct io_memory *memory = memory_of(file->io);
    struct node *node = node_of(file);
    bool takes = what == NODE_WRITE || what == NODE_RESERVE;

    if (!((struct memory_file *)file)->writable)
        return EBADF;
    if (takes && memory->limit_bytes != 0 &&
        io_memory_taken_bytes(memory) + pages_needed(&node->now, offset, length) * PAGE_BYTES >
            memory->limit_bytes)
        return ENOSPC;
    node->changed = ++memory->clock;
    node_change(node, what, offset, length, bytes);
    return 0;
}

static int memory_write(struct io_file *file, uint64_t offset, const void *bytes, size_t length)
{
    return change(file, NODE_WRITE, offset, length, bytes);
}

static int memory_truncate(struct io_file *file, uint64_t size_bytes)
{
    return change(file, NODE_TRUNCATE, size_bytes, 0, NULL);
}

static int memory_punch(struct io_file *file, uint64_t offset, uint64_t length)
{
    return length == 0 ? EINVAL : change(file, NODE_PUNCH, offset, length, NULL);
}

static int memory_allocate(struct io_file *file, uint64_t offset, uint64_t length)
{
    return length == 0 ? EINVAL : change(file, NODE_RESERVE, offset, length, NULL);
}

static int memory_sync(struct io_file *file)
{
    node_sync(node_of(file));
    return 0;
}

static void stat_node(const struct io_memory *memory, const struct node *node, struct io_stat *ret_stat)
{
    uint64_t links = 0;

    for (size_t i = 0; i < memory->now.count; i++)
        links += memory->now.name[i].node == node;
    *ret_stat = (struct io_stat){
        .size_bytes = node->now.size_bytes,
        .allocated_bytes = node->now.taken_pages * PAGE_BYTES,
        .device = 1,
        .inode = node->inode,
        .links = links,
        .mtime_seconds = 1700000000 + (int64_t)(node->changed / 1000),
        .mtime_ns = (uint32_t)(node->changed % 1000) * 1000000,
        .uid = getuid(),
        .is_directory = node->is_directory,
        .is_regular = !node->is_directory,
    };
}

static int memory_stat_file(struct io_file *file, struct io_stat *ret_stat)
{
    stat_node(memory_of(file->io), node_of(file), ret_stat);
    return 0;
}

static int memory_stat(const struct io *io, const char *path, struct io_stat *ret_stat)
{
    const struct node *node = find(memory_of(io), path);

    if (!node)
        return ENOENT;
    stat_node(memory_of(io), node, ret_stat);
    return 0;
}

static int memory_rename(const struct io *io, const char *from, const char *to)
{
    struct io_memory *memory = memory_of(io);
    struct node *node = find(memory, from);
    const struct node *old = find(memory, to);
    int errnum = check_new(memory, to);

    if (!node || errnum != 0)
        return node ? errnum : ENOENT;
    if (old == node)
        return 0;
    if (old && old->is_directory != node->is_directory)
        return old->is_directory ? EISDIR : ENOTDIR;
    AUTO_FREE char *clean_to = path_absolute(to);
    if (!clean_to)
        abort();
    if (old && old->is_directory && names_inside(&memory->now, clean_to) > 0)
        return ENOTEMPTY;
    change_names(memory, from, to, node);
    return 0;
}

static int memory_link(const struct io *io, const char *from, const char *to)
{
    struct io_memory *memory = memory_of(io);
    struct node *node = find(memory, from);
    int errnum = check_new(memory, to);

    if (!node || errnum != 0)
        return node ? errnum : ENOENT;
    if (node->is_directory)
        return EPERM;
    if (find(memory, to))
        return EEXIST;
    change_names(memory, NULL, to, node);
    return 0;
}

static int memory_unlink(const struct io *io, const char *path)
{
    struct node *node = find(memory_of(io), path);

    if (!node)
        return ENOENT;
    if (node->is_directory)
        return EISDIR;
    change_names(memory_of(io), path, NULL, node);
    return 0;
}

static int memory_make_dir(const struct io *io, const char *path)
{
    return make_node(memory_of(io), path, true);
}

static int memory_remove_dir(const struct io *io, const char *path)
{
    struct io_memory *memory = memory_of(io);
    struct node *node = find(memory, path);
    AUTO_FREE char *clean = path_absolute(path);

    if (!node)
        return ENOENT;
    if (!node->is_directory)
        return ENOTDIR;
    if (!clean)
        abort();
    if (names_inside(&memory->now, clean) > 0)
        return ENOTEMPTY;
    if (node == memory->root)
        return EBUSY;
    change_names(memory, path, NULL, node);
    return 0;
}

/* dir NULL: the changes of all folders. */
static void sync_names(struct io_memory *memory, const char *dir)
{
    struct name_op **link = &memory->first;

    memory->last = NULL;
    while (*link) {
        struct name_op *op = *link;
        if (!dir || strcmp(op->dir, dir) == 0 || (op->other_dir && strcmp(op->other_dir, dir) == 0)) {
            names_apply(&memory->durable, op);
            *link = op->next;
            name_op_free(op);
        } else {
            memory->last = op;
            link = &op->next;
        }
    }
}

static int memory_sync_dir(const struct io *io, const char *path)
{
    struct io_memory *memory = memory_of(io);
    const struct node *node = find(memory, path);
    AUTO_FREE char *clean = path_absolute(path);

    if (!node || !node->is_directory)
        return node ? ENOTDIR : ENOENT;
    if (!clean)
        abort();
    sync_names(memory, clean);
    return 0;
}

static int memory_list(const struct io *io, const char *path, int (*each)(void *context, const char *name),
                       void *context)
{
    struct io_memory *memory = memory_of(io);
    const struct node *node = find(memory, path);
    AUTO_FREE char *clean = path_absolute(path);
    int errnum = 0;

    if (!node || !node->is_directory)
        return node ? ENOTDIR : ENOENT;
    if (!clean)
        abort();
    /* A copy: each() may change the folder. */
    struct names names = {0};
    names_copy(&names, &memory->now);
    for (size_t i = 0; i < names.count && errnum == 0; i++) {
        const char *name = name_inside(names.name[i].path, clean);
        if (name)
            errnum = each(context, name);
    }
    names_done(&names);
    return errnum;
}

static const struct io_ops MEMORY_OPS = {
    .open = memory_open,
    .close = memory_close,
    .read = memory_read,
    .write = memory_write,
    .stat_file = memory_stat_file,
    .truncate = memory_truncate,
    .sync = memory_sync,
    .punch = memory_punch,
    .allocate = memory_allocate,
    .stat = memory_stat,
    .rename = memory_rename,
    .link = memory_link,
    .unlink = memory_unlink,
    .make_dir = memory_make_dir,
    .remove_dir = memory_remove_dir,
    .sync_dir = memory_sync_dir,
    .list = memory_list,
};

struct io_memory *io_memory_new(enum io_memory_kind kind)
{
    struct io_memory *memory = calloc(1, sizeof *memory);

    if (!memory)
        abort();
    *memory = (struct io_memory){.io = {.ops = &MEMORY_OPS}, .kind = kind, .next_inode = 1};
    memory->root = node_new(1, true, false);
    return memory;
}

void io_memory_free(struct io_memory *memory)
{
    if (!memory)
        return;
    sync_names(memory, NULL);
    names_done(&memory->now);
    names_done(&memory->durable);
    node_unref(memory->root);
    free(memory);
}

const struct io *io_memory_io(struct io_memory *memory)
{
    return &memory->io;
}

void io_memory_limit(struct io_memory *memory, uint64_t bytes)
{
    memory->limit_bytes = bytes;
}

static void keep_or_drop_names(struct io_memory *memory, struct random *random)
{
    while (memory->first) {
        struct name_op *op = memory->first;
        memory->first = op->next;
        if (random_below(random, 2) == 0)
            names_apply(&memory->durable, op);
        name_op_free(op);
    }
    memory->last = NULL;
    names_drop_orphans(&memory->durable);
}

static int by_inode(const void *a, const void *b)
{
    const struct name *x = a, *y = b;

    return x->node->inode < y->node->inode ? -1 : x->node->inode > y->node->inode;
}

void io_memory_crash(struct io_memory *memory, uint64_t seed)
{
    struct random random = {.state = seed};

    if (memory->kind != IO_MEMORY_FORGETS)
        abort();
    keep_or_drop_names(memory, &random);
    names_copy(&memory->now, &memory->durable);
    /* In the order of their making, so that a seed means the same each time; a second link finds nothing
     * unsynced. */
    if (memory->now.count > 0)
        qsort(memory->now.name, memory->now.count, sizeof *memory->now.name, by_inode);
    for (size_t i = 0; i < memory->now.count; i++)
        node_crash(memory->now.name[i].node, &random);
}

void io_memory_sync_all(struct io_memory *memory)
{
    sync_names(memory, NULL);
    for (size_t i = 0; i < memory->now.count; i++)
        node_sync(memory->now.name[i].node);
}
