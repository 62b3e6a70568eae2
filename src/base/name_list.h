/* A list of names, such as those in a folder: taken whole, since a folder is not changed while it is read, nor are two read at once. */
#pragma once

#include "io.h"

struct name_list {
    char **items; /* owned, as is each */
    size_t count;
};

void name_list_done(struct name_list *list);
#define AUTO_NAME_LIST AUTO(name_list_done)

bool name_list_add(struct name_list *list, const char *name, struct err *err) MUST_CHECK;
/* Adds every name but `.` and `..` that is in the folder. On failure those stay that could be read. */
bool name_list_read(const struct io *io, const char *dir, struct name_list *list, struct err *err) MUST_CHECK;
void name_list_sort(struct name_list *list);
