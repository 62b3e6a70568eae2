/* A temporary directory for a test program, as cmocka's setup and teardown. */
#pragma once

extern char scratch[64]; /* its path */

int scratch_make(void **state);
int scratch_remove(void **state);
/* A path in it; the buffer is good until the 8th call from then. */
const char *scratch_path(const char *name);
void scratch_write(const char *name, const void *bytes, unsigned long length);
/* An executable shell script. */
void scratch_script(const char *name, const char *body);
/* A file's content, owned, NUL behind it; "" if it is not there. */
char *scratch_read(const char *name);
