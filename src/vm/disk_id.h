/* Is an image still the one that a snapshot's settings mean? */
#pragma once

#include "config.h"

/* ERR_MISMATCH if its unique id is another, naming both; the errors of vhd_open(). Nothing is asked of a disk whose settings say
 * none. */
bool disk_id_check(const struct config_disk *disk, struct err *err) MUST_CHECK;
bool disk_ids_check(const struct config *config, struct err *err) MUST_CHECK;
/* Can each disk be opened, with all that lies below it? Nobody has them open: a chain that cannot must not become a snapshot's
 * (invariant 2), and is not gone back to. */
bool disk_chains_check(const struct config *config, struct err *err) MUST_CHECK;
