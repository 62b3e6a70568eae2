/* A VM's files checked as a whole, damaged or not. Inside of `check`. */
#pragma once

#include "disk_tools.h"
#include "store_look.h"

#include <jansson.h>

/* What is known of one image, however many chains go through it. */
struct check_image {
    char *path; /* owned */
    uint64_t device, inode, allocated_bytes;
    size_t walk;     /* the chain in which it was first met */
    bool is_written; /* somebody has it open for writing: only what does not change is looked at */
};

/* Memory of a snapshot or of a Saved VM whose .vsv is whole. */
struct check_memory {
    char *state_path; /* owned */
    uint64_t device, inode, allocated_bytes; /* of the .bin */
};

struct check {
    const struct store_look *look;
    json_t *faults;             /* a reference of its own */
    const struct progress *progress; /* the caller's */
    struct check_image *images;
    size_t image_count, walks;
    bool chains_are_broken;     /* not all images are known */
    struct check_memory *memories;
    size_t memory_count;
    uint64_t done_bytes, total_bytes; /* of all contents, for progress */
    uint64_t item_bytes;              /* of the file that is read now */
};

void check_done(struct check *check);
/* A finding. text may begin with the path. */
void check_tell(struct check *check, const char *kind, bool harmless, const char *path, const char *text);
/* Each set of settings with the files that it names; the images of the chains are known behind it. */
bool check_settings(struct check *check, struct err *err) MUST_CHECK;
/* The same from an error. False if the error is none of the file's, but of this process. */
bool check_tell_err(struct check *check, const char *kind, const char *path, const struct err *err) MUST_CHECK;
/* Of the file that is read now, as part of all. */
struct progress check_progress(struct check *check);

/* --- check_disks.c --- */
/* The disks of these settings: headers, parents and their ids. */
bool check_chains(struct check *check, const struct config *config, struct err *err) MUST_CHECK;
/* Tables, bitmaps and strays of all that the chains go through. */
bool check_images(struct check *check, struct err *err) MUST_CHECK;
bool check_holds(void *context, uint64_t device, uint64_t inode);
