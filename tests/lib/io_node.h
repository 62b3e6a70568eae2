/* A file or folder of the file system in memory, and what of it the disk is not sure to hold. */
#pragma once

#include "io_pages.h"
#include "random.h"

#include <stdbool.h>

enum node_change { NODE_WRITE, NODE_TRUNCATE, NODE_PUNCH, NODE_RESERVE };

struct node_op {
    enum node_change change;
    uint64_t offset, length; /* NODE_TRUNCATE: offset is the new size */
    uint8_t *bytes;          /* NODE_WRITE: owned */
    struct node_op *next;
};

struct node {
    uint64_t inode;
    bool is_directory;
    unsigned references; /* names in both tables and in unsynced operations, open files */
    uint64_t changed;    /* logical time of the last change */
    struct pages now;
    /* Only where the file system forgets: */
    bool forgets;
    struct pages durable;
    struct node_op *first, *last; /* unsynced, oldest first */
};

struct node *node_new(uint64_t inode, bool is_directory, bool forgets);
struct node *node_ref(struct node *node);
void node_unref(struct node *node);

/* Takes effect now; on the disk only after node_sync(). bytes for NODE_WRITE alone. */
void node_change(struct node *node, enum node_change change, uint64_t offset, uint64_t length,
                 const void *bytes);
void node_sync(struct node *node);
/* Keeps, drops or tears each unsynced change; what is left is what there is. */
void node_crash(struct node *node, struct random *random);
