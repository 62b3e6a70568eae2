#include "memory.h"

#include "auto.h"
#include "buf.h"
#include "ram.h"

#include <string.h>

bool memory_check(const char *state_path, const struct config *config, const struct guid *id, struct err *err)
{
    AUTO_FREE char *vsv = string_printf("%s.vsv", state_path);
    AUTO_FREE char *bin = string_printf("%s.bin", state_path);
    struct vsv_info info;

    if (!vsv || !bin)
        return err_oom(err);
    if (!ram_check(vsv, bin, &info, err))
        return false;
    if (info.memory_bytes != config->memory_bytes)
        return err_set(err, ERR_MISMATCH, "%s: memory of %llu bytes, the settings say %llu", vsv,
                       (unsigned long long)info.memory_bytes, (unsigned long long)config->memory_bytes);
    if (strcmp(info.machine, config->machine) != 0)
        return err_set(err, ERR_MISMATCH, "%s: state of a machine '%s', the settings say '%s'", vsv, info.machine,
                       config->machine);
    if (id && guid_is_set(id) && !guid_equal(&info.id, id))
        return err_set(err, ERR_MISMATCH, "%s: has the id %s, the settings name %s", vsv, info.id.text, id->text);
    return true;
}
