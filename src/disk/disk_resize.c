#include "disk_check.h"
#include "disk_private.h"

#include <stdio.h>

struct chain {
    struct layer **layers;
    size_t depth;
};

static void chain_done(struct chain *chain)
{
    chain_free(chain->layers, chain->depth);
}

struct soundness {
    bool harm;
    char text[240];
};

static void judge(void *context, const struct disk_fault *fault)
{
    struct soundness *soundness = context;

    if (fault->harmless || soundness->harm)
        return;
    soundness->harm = true;
    snprintf(soundness->text, sizeof soundness->text, "%s", fault->text);
}

/* A size moves what is in sight; so all that is there must be what it seems. */
static bool check_sound(const struct vhd *vhd, const struct progress *progress, struct err *err)
{
    struct soundness soundness = {0};

    if (!disk_check_image(vhd, /* structures_only= */ true, judge, &soundness, progress, err))
        return false;
    if (soundness.harm)
        return err_set(err, ERR_CORRUPT, "%s: %s", vhd->path, soundness.text);
    return true;
}

static bool check_parents(const struct chain *chain, struct err *err)
{
    const struct vhd *top = chain->layers[chain->depth - 1]->vhd;

    for (size_t i = 0; i + 1 < chain->depth; i++) {
        const struct layer *layer = chain->layers[i];
        if (layer->vhd->size_bytes > top->size_bytes && layer->visible_bytes >= top->size_bytes)
            return err_set(err, ERR_UNSUPPORTED,
                           "%s: ends before %s does, and what that holds behind would come into sight",
                           top->path, layer->vhd->path);
    }
    return true;
}

bool disk_resize(const struct io *io, const char *path, uint64_t size_bytes, const struct progress *progress,
                 struct err *err)
{
    AUTO(chain_done) struct chain chain = {0};
    const struct disk_options options = {.io = io, .max_depth = DISK_DEFAULT_MAX_DEPTH};

    if (!chain_open(&options, path, &chain.layers, &chain.depth, err))
        return false;
    const struct vhd *top = chain.layers[chain.depth - 1]->vhd;
    if (size_bytes > top->size_bytes && !check_parents(&chain, err))
        return false;
    return check_sound(top, progress, err) && vhd_resize(io, path, size_bytes, err);
}
