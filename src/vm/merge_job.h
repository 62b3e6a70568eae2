/* The copying of one merge beside a machine that runs, on a thread of its own: two images become one file's content, and an engine that
 * had both reads that one alone from then on. All that settings and other images say of it comes behind, by a plan (plan_merge()). */
#pragma once

#include "disk_tools.h"
#include "engine.h"
#include "plan.h"

struct merge_job;

struct merge_job_options {
    const struct plan_merging *merging; /* what it names is copied */
    struct engine *engine;              /* that has the images in its chain; NULL: none */
    struct engine *const *engines;      /* of the machine: who waits for the disk too */
    size_t engine_count;
    bool hurries; /* does not leave the disk to the machine */
    int over_fd;  /* an eventfd, written to at the end; borrowed */
    const struct disk_merge_mark *mark; /* of an earlier job of this process; NULL: none */
};

/* The engines must stay until merge_job_join(). */
bool merge_job_start(const struct merge_job_options *options, struct merge_job **ret_job, struct err *err) MUST_CHECK;
/* Nothing is begun until it may go on. */
void merge_job_pause(struct merge_job *job, bool paused);
bool merge_job_is_over(struct merge_job *job);
/* Stops it if it is not over: what has been copied stays, and the images are whole. True: all was done. Then merge_job_free(). */
bool merge_job_join(struct merge_job *job, struct err *err) MUST_CHECK;
void merge_job_free(struct merge_job *job);
AUTO_DEFINE(auto_merge_job_free, struct merge_job, merge_job_free)

/* Behind merge_job_join(): how far it came that was broken off. */
const struct disk_merge_mark *merge_job_mark(const struct merge_job *job);

const struct plan_merging *merge_job_merging(const struct merge_job *job);
void merge_job_progress(struct merge_job *job, uint64_t *ret_done, uint64_t *ret_total);
