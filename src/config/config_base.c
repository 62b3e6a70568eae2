/* What images below the VM's own layers were when they were noted. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

const struct config_base *config_base_find(const struct config *config, const char *path)
{
    for (size_t i = 0; i < config->base_count; i++)
        if (strcmp(config->bases[i].path, path) == 0)
            return &config->bases[i];
    return NULL;
}

bool config_base_forget(struct config *config, const char *path)
{
    const struct config_base *found = config_base_find(config, path);

    if (!found)
        return false;
    size_t index = (size_t)(found - config->bases);
    free(config->bases[index].path);
    config->base_count--;
    memmove(config->bases + index, config->bases + index + 1, (config->base_count - index) * sizeof *config->bases);
    return true;
}

bool config_base_set(struct config *config, const struct config_base *base, struct err *err)
{
    struct config_base noted = *base; /* it may be one of config's own */

    if (!(noted.path = strdup(base->path)))
        return err_oom(err);
    struct config_base *grown = reallocarray(config->bases, config->base_count + 1, sizeof *grown);
    if (!grown) {
        free(noted.path);
        return err_oom(err);
    }
    config->bases = grown;
    config_base_forget(config, noted.path);
    grown[config->base_count++] = noted;
    return true;
}

void config_bases_clear(struct config *config)
{
    for (size_t i = 0; i < config->base_count; i++)
        free(config->bases[i].path);
    free(config->bases);
    config->bases = NULL;
    config->base_count = 0;
}

bool config_bases_copy(struct config *to, const struct config *from, struct err *err)
{
    config_bases_clear(to);
    for (size_t i = 0; i < from->base_count; i++)
        if (!config_base_set(to, &from->bases[i], err))
            return false;
    return true;
}
