/* What `apply` and `revert` have in common: the present is lost, and the machine runs again soon. */
#pragma once

#include "cli_output.h"

/* Asks whether the VM's present shall be kept as a snapshot first (with_snapshot) or may be lost. Asks
 * nothing, and answers ANSWER_NO ("no snapshot, go on"), where nobody can answer. ANSWER_CANCEL: do nothing.
 */
enum answer back_ask(const char *vm_name, bool with_snapshot);
/* people_print: the state, how long it took, and the snapshot that was taken first. */
void back_print(const char *vm_name, const json_t *value);
