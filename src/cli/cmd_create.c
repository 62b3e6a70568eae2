#include "bytes.h"
#include "cli_call.h"
#include "cli_commands.h"
#include "cli_output.h"
#include "cli_text.h"
#include "file.h"
#include "vm.h"

#include <stdio.h>
#include <string.h>

struct args {
    uint64_t memory_bytes, cpus, generation;
    struct cli_list disks, nics;
    const char *cdrom, *kernel, *initrd, *append, *cpu, *machine, *display, *accel, *clock, *notes;
    bool dry_run, json;
};

static const struct cli_option OPTIONS[] = {
    {"memory", CLI_SIZE, offsetof(struct args, memory_bytes), "SIZE", "such as 512M or 2G; default: 1G"},
    {"cpus", CLI_NUMBER, offsetof(struct args, cpus), "N", "default: 1"},
    {"cpu", CLI_TEXT, offsetof(struct args, cpu), "MODEL",
     "the processor that the guest sees, by QEMU's name"},
    {"machine", CLI_TEXT, offsetof(struct args, machine), "TYPE",
     "QEMU's machine type with its version, such as pc-i440fx-7.2;\n"
     "                             default: that of the installed QEMU"},
    {"disk", CLI_LIST, offsetof(struct args, disks), "DISK",
     "SIZE for a new disk, or FILE.vhd to use in place; then, if need be,\n"
     "                             ,bus=ide|scsi|virtio (a file whose name is a size: ./20G)"},
    {"cdrom", CLI_TEXT, offsetof(struct args, cdrom), "ISO", "what lies in the optical drive"},
    {"kernel", CLI_TEXT, offsetof(struct args, kernel), "FILE", "boot this Linux kernel instead of a disk"},
    {"initrd", CLI_TEXT, offsetof(struct args, initrd), "FILE", "its initial RAM disk"},
    {"append", CLI_TEXT, offsetof(struct args, append), "TEXT", "its command line"},
    {"nic", CLI_LIST, offsetof(struct args, nics), "NIC",
     "user[,forward=tcp:2222:22]... (the default: user), none,\n"
     "                             bridge=NAME or tap=NAME"},
    {"generation", CLI_NUMBER, offsetof(struct args, generation), "1|2", "1: BIOS; 2: UEFI; default: 1"},
    {"display", CLI_TEXT, offsetof(struct args, display), "none|vnc", "default: none"},
    {"accel", CLI_TEXT, offsetof(struct args, accel), "auto|kvm|tcg",
     "how the processor is made; default: auto"},
    {"clock", CLI_TEXT, offsetof(struct args, clock), "vm|host",
     "the time that the guest sees when one goes back"},
    {"notes", CLI_TEXT, offsetof(struct args, notes), "TEXT", "notes to keep with the VM"},
    CLI_DRY_RUN(struct args),
    CLI_JSON(struct args),
};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 1, 1};

#define DISK_OPTION ",bus="

/* One part of `a,b=c,d=e`: cuts it off *rest in place. NULL at the end. *ret_value: behind the `=`, or NULL.
 */
static char *part_next(char **rest, char **ret_value)
{
    char *part = strsep(rest, ",");

    if (!part)
        return NULL;
    *ret_value = strchr(part, '=');
    if (*ret_value)
        *(*ret_value)++ = '\0';
    return part;
}

/* SIZE or FILE without `,bus=...`; any other comma is part of the file's name. */
static size_t disk_what_length(const char *text)
{
    const char *options = strstr(text, DISK_OPTION);

    return options ? (size_t)(options - text) : strlen(text);
}

static bool disk_add(json_t *disks, const char *text, struct err *err)
{
    size_t length = disk_what_length(text);
    AUTO_FREE char *what = strndup(text, length);
    json_auto_t *disk = json_object();
    uint64_t size_bytes;

    if (!what || !disk)
        return err_oom(err);
    if (*what == '\0')
        return err_set(err, ERR_USAGE, "--disk: '%s' names no size and no file", text);
    if (text[length] != '\0' && !argument_text(disk, "bus", text + length + strlen(DISK_OPTION), err))
        return false;
    if (size_parse(what, &size_bytes)) {
        if (size_bytes > INT64_MAX)
            return err_set(err, ERR_USAGE, "--disk: '%s' is too large", what);
        json_object_set_new(disk, "size", json_integer((json_int_t)size_bytes));
    } else if (!argument_path(disk, "path", what, err)) {
        return false;
    }
    return json_array_append(disks, disk) == 0 || err_oom(err);
}

static bool forwards_add(json_t *forwards, char *rest, const char *text, struct err *err)
{
    char *part, *value;

    while ((part = part_next(&rest, &value))) {
        if (strcmp(part, "forward") != 0 || !value || *value == '\0')
            return err_set(err, ERR_USAGE, "--nic: '%s': only forward=PROTOCOL:HOSTPORT:GUESTPORT may follow",
                           text);
        if (json_array_append_new(forwards, json_string(value)) != 0)
            return err_set(err, ERR_USAGE, "--nic: '%s' is no valid UTF-8", value);
    }
    return true;
}

static bool nic_add(json_t *nics, const char *text, struct err *err)
{
    AUTO_FREE char *copy = strdup(text);
    json_auto_t *forwards = json_array();
    char *rest = copy, *target = NULL;

    if (!copy)
        return err_oom(err);
    const char *kind = part_next(&rest, &target);
    bool is_user = strcmp(kind, "user") == 0;
    if (!is_user && strcmp(kind, "bridge") != 0 && strcmp(kind, "tap") != 0)
        return err_set(err, ERR_USAGE, "--nic: '%s' is none of user, none, bridge=NAME, tap=NAME", text);
    if (is_user ? target != NULL : !target || *target == '\0')
        return err_set(err, ERR_USAGE, "--nic: '%s': %s", text,
                       is_user ? "user takes no name" : "the name is missing");
    if (!is_user && rest)
        return err_set(err, ERR_USAGE, "--nic: '%s': only a user NIC can forward", text);
    if (!forwards_add(forwards, rest, text, err))
        return false;
    json_auto_t *nic = json_pack("{s:s, s:s*, s:O}", "kind", kind, "target", target, "forwards", forwards);
    if (!nic)
        return err_set(err, ERR_USAGE, "--nic: '%s' is no valid UTF-8", text);
    return json_array_append(nics, nic) == 0 || err_oom(err);
}

/* No --nic: one user NIC. `--nic none` alone: none. */
static bool nics_fill(json_t *nics, const struct cli_list *list, struct err *err)
{
    if (list->count == 0)
        return nic_add(nics, "user", err);
    if (list->count == 1 && strcmp(list->items[0], "none") == 0)
        return true;
    for (size_t i = 0; i < list->count; i++)
        if (!nic_add(nics, list->items[i], err))
            return false;
    return true;
}

static bool arguments_fill(json_t *arguments, const char *name, const struct args *args, struct err *err)
{
    json_t *disks = json_array();
    json_t *nics = json_array();

    if (json_object_set_new(arguments, "disks", disks) != 0 ||
        json_object_set_new(arguments, "nics", nics) != 0 ||
        json_object_set_new(arguments, "memory", json_integer((json_int_t)args->memory_bytes)) != 0 ||
        json_object_set_new(arguments, "cpus", json_integer((json_int_t)args->cpus)) != 0 ||
        json_object_set_new(arguments, "generation", json_integer((json_int_t)args->generation)) != 0)
        return err_oom(err);
    for (size_t i = 0; i < args->disks.count; i++)
        if (!disk_add(disks, args->disks.items[i], err))
            return false;
    return nics_fill(nics, &args->nics, err) && argument_text(arguments, "name", name, err) &&
           argument_path(arguments, "cdrom", args->cdrom, err) &&
           argument_path(arguments, "kernel", args->kernel, err) &&
           argument_path(arguments, "initrd", args->initrd, err) &&
           argument_text(arguments, "append", args->append, err) &&
           argument_text(arguments, "cpu", args->cpu, err) &&
           argument_text(arguments, "machine", args->machine, err) &&
           argument_text(arguments, "display", args->display, err) &&
           argument_text(arguments, "accel", args->accel, err) &&
           argument_text(arguments, "clock", args->clock, err) &&
           argument_text(arguments, "notes", args->notes, err) &&
           argument_flag(arguments, "dry_run", args->dry_run, err);
}

static void print(const char *vm_name, const json_t *value)
{
    (void)vm_name;
    text_print(stdout, json_text(value, "guid"), TEXT_ONE_LINE);
    putchar('\n');
}

int cmd_create(int argc, char **argv)
{
    struct args args = {.memory_bytes = 1ULL << 30, .cpus = 1, .generation = 1};
    struct cli_operands operands;
    json_auto_t *arguments = json_object();
    json_auto_t *value = NULL;
    struct err err = ERR_INIT;
    int status;

    if (!cli_parse(&SYNTAX, argc, argv, &args, &operands, &status))
        return status;
    if (args.memory_bytes > INT64_MAX || args.cpus > INT64_MAX || args.generation > INT64_MAX)
        return cli_usage_error("a number is too large");
    if (!arguments_fill(arguments, operands.items[0], &args, &err))
        return err.code == ERR_USAGE ? cli_usage_error("%s", err.text) : cli_fail(operands.items[0], &err);
    if (!vm_create(arguments, &value, &err))
        return cli_fail(operands.items[0], &err);
    return print_value(operands.items[0], value, args.json, print);
}
