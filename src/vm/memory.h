/* Saved memory and the settings that name it. */
#pragma once

#include "config.h"

/* All that can be known without reading the memory itself: <state_path>.vsv and .bin are whole, of one another's size, of the
 * settings' memory and machine type, and, where id is set (it may be NULL), carry it. ERR_NOT_FOUND, ERR_CORRUPT, ERR_MISMATCH,
 * naming the file. */
bool memory_check(const char *state_path, const struct config *config, const struct guid *id, struct err *err) MUST_CHECK;
