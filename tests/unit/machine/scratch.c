#include "scratch.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char scratch[64];

int scratch_make(void **state)
{
    (void)state;
    strcpy(scratch, "/tmp/bough-machine-XXXXXX");
    return mkdtemp(scratch) ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *place)
{
    (void)status, (void)kind, (void)place;
    return remove(path);
}

int scratch_remove(void **state)
{
    (void)state;
    return nftw(scratch, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

const char *scratch_path(const char *name)
{
    static char paths[8][256];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof(paths[0]), "%s/%s", scratch, name);
    return path;
}

void scratch_write(const char *name, const void *bytes, unsigned long length)
{
    FILE *file = fopen(scratch_path(name), "we");
    if (!file || fwrite(bytes, 1, length, file) != length || fclose(file) != 0)
        abort();
}

void scratch_script(const char *name, const char *body)
{
    char text[2048];
    int length = snprintf(text, sizeof(text), "#!/bin/sh\n%s\n", body);
    scratch_write(name, text, (unsigned long)length);
    if (chmod(scratch_path(name), 0700) != 0)
        abort();
}

char *scratch_read(const char *name)
{
    FILE *file = fopen(scratch_path(name), "re");
    char *text = calloc(1, 1U << 16);
    if (!text)
        abort();
    if (file) {
        if (fread(text, 1, (1U << 16) - 1, file) == 0 && ferror(file))
            abort();
        fclose(file);
    }
    return text;
}
