/* The names of the file system in memory: a flat table path -> node, and one change of it as a value. */
#pragma once

#include "io_node.h"

struct name {
    char *path; /* absolute and clean; owned */
    struct node *node;
};

struct names {
    struct name *name;
    size_t count, capacity;
};

/* A change in at most two folders. It can be applied to any table, whatever that holds: this is what lets a
 * power cut keep one change and drop the one before it. */
struct name_op {
    char *dir, *other_dir; /* owned; other_dir only where a rename goes to another folder */
    char *remove;          /* owned; NULL: nothing goes */
    char *set;             /* owned; NULL: nothing comes */
    struct node *node;     /* what goes or comes; a reference */
    struct name_op *next;
};

void names_done(struct names *names);
struct node *names_find(const struct names *names, const char *path); /* borrowed; NULL: no such name */
size_t names_inside(const struct names *names, const char *dir);      /* how many names lie directly in dir */
void names_apply(struct names *names, const struct name_op *op);
void names_copy(struct names *to, const struct names *from);
/* Drops names whose folder is not there. */
void names_drop_orphans(struct names *names);

/* The name below dir if path lies directly in it, else NULL. */
const char *name_inside(const char *path, const char *dir);
/* Owned copies and references are taken. */
struct name_op *name_op_new(const char *remove, const char *set, struct node *node);
void name_op_free(struct name_op *op);
