#include "fake_client.h"

#include "client.h"
#include "vm.h"

#include <stdio.h>
#include <stdlib.h>

struct fake_call fake_call;
const char *fake_answer;
int fake_error_code;
const char *fake_error_text;
void (*fake_during)(const struct progress *progress);

void fake_reset(void)
{
    free(fake_call.arguments);
    fake_call = (struct fake_call){0};
    fake_answer = "{}";
    fake_error_code = ERR_NONE;
    fake_error_text = "";
    fake_during = NULL;
}

static bool answer(const char *vm_name, const char *operation, const json_t *arguments, json_t **ret_value,
                   struct err *err)
{
    fake_call.count++;
    snprintf(fake_call.vm_name, sizeof fake_call.vm_name, "%s", vm_name);
    snprintf(fake_call.operation, sizeof fake_call.operation, "%s", operation);
    free(fake_call.arguments);
    fake_call.arguments =
        json_dumps(arguments ? arguments : json_null(), JSON_SORT_KEYS | JSON_COMPACT | JSON_ENCODE_ANY);
    if (fake_error_code != ERR_NONE)
        return err_set(err, (enum err_code)fake_error_code, "%s", fake_error_text);
    *ret_value = json_loads(fake_answer, 0, NULL);
    return *ret_value != NULL || err_set(err, ERR_INTERNAL, "the test's answer is no JSON");
}

bool client_call(const char *vm_name, const char *operation, json_t *arguments,
                 const struct progress *progress, json_t **ret_value, struct err *err)
{
    json_auto_t *owned = arguments;

    if (fake_during)
        fake_during(progress);
    return answer(vm_name, operation, owned, ret_value, err);
}

bool client_check(const char *vm_name, const struct progress *progress, json_t **ret_value, struct err *err)
{
    (void)progress;
    return answer(vm_name, "check", NULL, ret_value, err);
}

bool client_repair(const char *vm_name, const struct vm_repair_options *options, const struct progress *progress, json_t **ret_value,
                   struct err *err)
{
    (void)options;
    return client_check(vm_name, progress, ret_value, err);
}

bool client_status(const char *vm_name, json_t **ret_status, struct err *err)
{
    return answer(vm_name, "status", NULL, ret_status, err);
}

bool vm_create(const json_t *arguments, json_t **ret_value, struct err *err)
{
    return answer("", "create", arguments, ret_value, err);
}

bool client_export(const char *vm_name, const json_t *arguments, const struct progress *progress, json_t **ret_value,
                   struct err *err)
{
    (void)progress;
    return answer(vm_name, "export", arguments, ret_value, err);
}

bool vm_import(const json_t *arguments, const struct progress *progress, json_t **ret_value, struct err *err)
{
    (void)progress;
    return answer("", "import", arguments, ret_value, err);
}

bool client_unlock(const char *vm_name, const char *host, struct err *err)
{
    json_auto_t *arguments = json_pack("{s:s}", "host", host);
    json_auto_t *value = NULL;

    return answer(vm_name, "unlock", arguments, &value, err);
}
