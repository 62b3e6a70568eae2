/* Why a VM's machine came to an end that nobody asked for: kept in the VM's runtime directory until it is started again. */
#pragma once

#include "err.h"

#include <jansson.h>

/* What a machine's end is called. */
#define END_GUEST_SHUTDOWN "guest-shutdown" /* it switched itself off */
#define END_GUEST_PANICKED "guest-panicked" /* and QEMU ended with it */
#define END_QEMU_ENDED     "qemu-ended"     /* in order, by a signal or a reason that nobody saw */
#define END_QEMU_FAILED    "qemu-failed"    /* killed, crashed, or by an error of its own */

/* What fails is logged: it is told to people alone. */
void last_end_write(const char *runtime_dir, const char *code, const char *text);
/* {"code","message"}, or null; also of a machine that has ended while nobody managed it, by what its process directory holds. Nothing of
 * the VM may be alive. */
json_t *last_end_read(const char *runtime_dir);
/* Nothing of the VM is alive, and its process directories are about to go: what they tell is kept. */
void last_end_keep(const char *runtime_dir);
void last_end_forget(const char *runtime_dir);
/* Is it worth a word beside the VM's state? A guest that switches itself off is nothing to be told unasked. */
bool last_end_is_fault(const json_t *end);
