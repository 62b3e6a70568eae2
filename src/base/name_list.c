#include "name_list.h"

#include <errno.h>
#include <string.h>

void name_list_done(struct name_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->items[i]);
    free(list->items);
    *list = (struct name_list){0};
}

static int add(void *context, const char *name)
{
    struct name_list *list = context;
    char **grown = reallocarray(list->items, list->count + 1, sizeof *grown);

    if (!grown)
        return ENOMEM;
    list->items = grown;
    if (!(grown[list->count] = strdup(name)))
        return ENOMEM;
    list->count++;
    return 0;
}

bool name_list_add(struct name_list *list, const char *name, struct err *err)
{
    return add(list, name) == 0 || err_oom(err);
}

bool name_list_read(const struct io *io, const char *dir, struct name_list *list, struct err *err)
{
    return io_list(io, dir, add, list, err);
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

void name_list_sort(struct name_list *list)
{
    if (list->count > 0)
        qsort(list->items, list->count, sizeof *list->items, compare);
}
