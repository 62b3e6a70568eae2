/* reconnect: bases that somebody else has changed are taken as they are now. */
#include "vm_priv.h"

#include "args.h"
#include "auto.h"
#include "bases.h"
#include "disk_id.h"

static void tell(void *context, const struct config_base *was, const struct config_base *is)
{
    char before[80], now[80];

    json_array_append_new(context, json_pack("{s:s, s:s, s:s}", "file", was->path, "was", base_text(was, before), "is",
                                             base_text(is, now)));
}

bool op_reconnect(struct vm *vm, const json_t *args, const struct progress *progress, json_t **ret_value, struct err *err)
{
    AUTO_CONFIG struct config *config = config_copy(vm_config(vm));
    AUTO_PLAN struct plan *plan = NULL;
    struct vm_plan_run run = {.progress = progress};
    json_auto_t *accepted = json_array();
    bool dry_run = false, changed = false, noted = false;

    if (!config || !accepted)
        return err_oom(err);
    if (!args_bool(args, "dry_run", &dry_run, err))
        return false;
    if (vm->present)
        return err_set(err, ERR_STATE, "reconnect: %s: the VM runs: stop it first", config->name);
    if (!bases_accept(config, vm->dir, tell, accepted, &changed, err) ||
        !disk_chains_check(config, err) || !bases_note(config, vm->dir, vm_config(vm), /* with_tops= */ false, &noted, err) ||
        !plan_settings(store_tree(vm->store), config, "reconnect", &plan, err))
        return err_prefix(err, "reconnect: %s", vm_config(vm)->name);
    if (dry_run)
        return vm_answer_plan(plan, ret_value, err);
    if ((changed || noted) && !vm_run_plan(vm, plan, &run, err))
        return err_prefix(err, "reconnect: %s", vm_config(vm)->name);
    return vm_answer(json_pack("{s:O}", "accepted", accepted), ret_value, err);
}
