/* What keeps a machine from being saved, known before anything is done. */
#include "machine_private.h"

#include "auto.h"
#include "buf.h"

#include <string.h>

#define REASONS_MAX_BYTES 400

bool machine_check_saved_state(struct machine *machine, char state[static 32], struct err *err)
{
    if (!machine_run_state(machine, state, err))
        return false;
    if (strcmp(state, "postmigrate") == 0 || strcmp(state, "finish-migrate") == 0 || strcmp(state, "inmigrate") == 0)
        return err_set(err, ERR_STATE, "QEMU cannot save in the state %s", state);
    if (strcmp(state, "suspended") == 0 && qmp_version_major(machine->qmp) < 9) /* it would come back awake */
        return err_set(err, ERR_STATE, "QEMU %s cannot save a guest that sleeps", qmp_version(machine->qmp));
    return true;
}

/* Devices, processor features and back ends that QEMU knows not to be movable tell so themselves. */
static bool check_reasons(const json_t *reasons, struct err *err)
{
    AUTO_BUF struct buf text = BUF_INIT;
    size_t i;
    const json_t *reason;

    json_array_foreach (reasons, i, reason) {
        const char *why = json_string_value(reason);
        if (!buf_printf(&text, "%s%.200s", i > 0 ? "; " : "", why ? why : "a reason that is no text"))
            return err_oom(err);
    }
    return json_array_size(reasons) == 0 ||
           err_set(err, ERR_UNSUPPORTED, "QEMU cannot save this VM while it runs: %.*s", REASONS_MAX_BYTES, (const char *)text.data);
}

bool machine_can_save(struct machine *machine, struct err *err)
{
    char state[32];
    json_t *value = NULL;

    if (!machine_check_saved_state(machine, state, err) ||
        !machine_execute(machine, "query-migrate", NULL, -1, &value, err))
        return false;
    bool can = check_reasons(json_object_get(value, "blocked-reasons"), err);
    json_decref(value);
    return can;
}
