#include "io_node.h"

#include "bytes.h"

#include <stdlib.h>
#include <string.h>

#define SECTOR 512U

struct node *node_new(uint64_t inode, bool is_directory, bool forgets)
{
    struct node *node = calloc(1, sizeof *node);

    if (!node)
        abort();
    *node = (struct node){.inode = inode, .is_directory = is_directory, .references = 1, .forgets = forgets};
    return node;
}

struct node *node_ref(struct node *node)
{
    node->references++;
    return node;
}

static void op_free(struct node_op *op)
{
    free(op->bytes);
    free(op);
}

static void forget_ops(struct node *node)
{
    while (node->first) {
        struct node_op *op = node->first;
        node->first = op->next;
        op_free(op);
    }
    node->last = NULL;
}

void node_unref(struct node *node)
{
    if (--node->references > 0)
        return;
    forget_ops(node);
    pages_done(&node->now);
    pages_done(&node->durable);
    free(node);
}

static void apply(struct pages *pages, const struct node_op *op)
{
    switch (op->change) {
    case NODE_WRITE:
        pages_write(pages, op->offset, op->bytes, (size_t)op->length);
        break;
    case NODE_TRUNCATE:
        pages_truncate(pages, op->offset);
        break;
    case NODE_PUNCH:
        pages_punch(pages, op->offset, op->length);
        break;
    case NODE_RESERVE:
        pages_reserve(pages, op->offset, op->length);
        break;
    }
}

static void remember(struct node *node, const struct node_op *op)
{
    struct node_op *copy = malloc(sizeof *copy);

    if (!copy)
        abort();
    *copy = *op;
    copy->next = NULL;
    if (op->bytes) {
        copy->bytes = malloc((size_t)op->length + 1);
        if (!copy->bytes)
            abort();
        memcpy(copy->bytes, op->bytes, (size_t)op->length);
    }
    if (node->last)
        node->last->next = copy;
    else
        node->first = copy;
    node->last = copy;
}

void node_change(struct node *node, enum node_change change, uint64_t offset, uint64_t length,
                 const void *bytes)
{
    struct node_op op = {
        .change = change, .offset = offset, .length = length, .bytes = (uint8_t *)(uintptr_t)bytes};

    apply(&node->now, &op);
    if (node->forgets)
        remember(node, &op);
}

void node_sync(struct node *node)
{
    for (const struct node_op *op = node->first; op; op = op->next)
        apply(&node->durable, op);
    forget_ops(node);
}

/* A write of which each sector is kept or not by itself. */
static void apply_torn(struct pages *pages, const struct node_op *op, struct random *random)
{
    for (uint64_t done = 0; done < op->length;) {
        uint64_t part = min_u64(SECTOR - (op->offset + done) % SECTOR, op->length - done);
        if (random_below(random, 2) == 0)
            pages_write(pages, op->offset + done, op->bytes + done, (size_t)part);
        done += part;
    }
}

void node_crash(struct node *node, struct random *random)
{
    for (const struct node_op *op = node->first; op; op = op->next) {
        uint64_t choice = random_below(random, op->change == NODE_WRITE ? 3 : 2);
        if (choice == 0)
            apply(&node->durable, op);
        else if (choice == 2)
            apply_torn(&node->durable, op, random);
    }
    forget_ops(node);
    pages_copy(&node->now, &node->durable);
}
