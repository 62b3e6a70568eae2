/* A file that is made out of sight: in a folder of its own beside its final place, which it takes only when
 * it is whole. So nobody ever finds half of it under its name, whatever ends the maker. */
#pragma once

#include "io.h"

struct staging {
    const struct io *io;
    char *to;   /* where it will be; owned, as are: */
    char *dir;  /* TO's folder/bough-convert-XXXXXXXX.tmp~ */
    char *path; /* in dir, with the final name: some formats hold their own */
};

/* ERR_EXISTS if there is something at to. On failure nothing is to be undone. */
bool staging_begin(const struct io *io, const char *to, struct staging *ret_staging,
                   struct err *err) MUST_CHECK;
/* The file at path, durable already, is now at to, and durable there. Never replaces anything. */
bool staging_publish(struct staging *staging, struct err *err) MUST_CHECK;
/* Removes what has not been published. To be called in any case. */
void staging_done(struct staging *staging);
#define AUTO_STAGING AUTO(staging_done)
