/* What the rest of this folder needs of the monitor beyond qmp.h. */
#pragma once

#include "qmp.h"

/* The limit of qmp_execute() from now on, -1 for none: then it ends with QEMU's answer or with QEMU. Returns the one of
 * before. */
int qmp_set_timeout(struct qmp *qmp, int timeout_ms);
/* qmp_execute() with a limit of its own. */
bool qmp_execute_timeout(struct qmp *qmp, const char *command, json_t *arguments, int fd, int timeout_ms,
                         json_t **ret_value, struct err *err) MUST_CHECK;
/* Events (an array, stolen) that were taken but are somebody else's: in front of those that wait. */
void qmp_put_back(struct qmp *qmp, json_t *events);
