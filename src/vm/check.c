/* check: every file of a VM, also of one that no other command can open. Done by who asks, not by the worker that has the VM: it only
 * reads, what it reads of a VM that runs is sealed, and what damaged files do to it must not be done to a running guest. */
#include "check.h"

#include "auto.h"
#include "bases.h"
#include "buf.h"
#include "bytes.h"
#include "file.h"
#include "memory.h"
#include "ram.h"
#include "repair.h"
#include "text_json.h"
#include "vm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THUMBNAIL_MAX_BYTES (4U << 20)
/* EFI_FIRMWARE_VOLUME_HEADER, UEFI Platform Initialization Specification, volume 3. */
#define VOLUME_HEADER_BYTES 48
#define VOLUME_LENGTH       32
#define VOLUME_SIGNATURE    40

/* --- findings --- */

void check_tell(struct check *check, const char *kind, bool harmless, const char *path, const char *text)
{
    size_t length = strlen(path);

    if (strncmp(text, path, length) == 0 && strncmp(text + length, ": ", 2) == 0)
        text += length + 2;
    json_array_append_new(check->faults, json_pack("{s:s, s:o, s:o, s:b}", "kind", kind, "file", text_json(path), "text",
                                                   text_json(text), "harmless", (int)harmless));
}

bool check_tell_err(struct check *check, const char *kind, const char *path, const struct err *err)
{
    if (err->code == ERR_NO_MEMORY || err->code == ERR_CANCELLED)
        return false;
    check_tell(check, kind, /* harmless= */ false, path, err->text);
    return true;
}

static void tell_store_fault(void *context, const struct store_fault *fault)
{
    check_tell(context, fault->kind, fault->harmless, fault->path, fault->text);
}

void check_done(struct check *check)
{
    for (size_t i = 0; i < check->image_count; i++)
        free(check->images[i].path);
    free(check->images);
    for (size_t i = 0; i < check->memory_count; i++)
        free(check->memories[i].state_path);
    free(check->memories);
    json_decref(check->faults);
}

/* --- progress --- */

static void report(void *context, const char *phase, uint64_t done, uint64_t total)
{
    const struct check *check = context;
    double share = total > 0 ? (double)done / (double)total : 0;

    (void)phase;
    progress_report(check->progress, "verify", check->done_bytes + (uint64_t)(share * (double)check->item_bytes),
                    check->total_bytes);
}

static bool cancelled(void *context)
{
    return progress_cancelled(((const struct check *)context)->progress);
}

struct progress check_progress(struct check *check)
{
    return (struct progress){.report = report, .cancelled = cancelled, .context = check};
}

/* --- memory --- */

static bool memory_add(struct check *check, const char *state_path, struct err *err)
{
    AUTO_FREE char *bin = string_printf("%s.bin", state_path);
    struct io_stat stat;

    if (!bin)
        return err_oom(err);
    if (!io_stat_path(&io_real, bin, &stat, err))
        return check_tell_err(check, "memory", bin, err);
    for (size_t i = 0; i < check->memory_count; i++) /* shared by a snapshot of a Saved VM */
        if (check->memories[i].device == stat.device && check->memories[i].inode == stat.inode)
            return true;
    struct check_memory *grown = reallocarray(check->memories, check->memory_count + 1, sizeof *grown);
    if (!grown)
        return err_oom(err);
    check->memories = grown;
    char *copy = strdup(state_path);
    if (!copy)
        return err_oom(err);
    grown[check->memory_count++] = (struct check_memory){
        .state_path = copy, .device = stat.device, .inode = stat.inode, .allocated_bytes = stat.allocated_bytes};
    return true;
}

/* Which of the two it is about stands at the beginning of the error's text. */
static bool tell_memory_err(struct check *check, const char *state_path, const struct err *err, struct err *ret_err)
{
    AUTO_FREE char *bin = string_printf("%s.bin", state_path);
    AUTO_FREE char *vsv = string_printf("%s.vsv", state_path);

    if (!bin || !vsv)
        return err_oom(ret_err);
    bool is_bin = strncmp(err->text, bin, strlen(bin)) == 0;
    return check_tell_err(check, "memory", is_bin ? bin : vsv, err);
}

static bool memory_look(struct check *check, const struct config *config, const char *state_path, struct err *err)
{
    struct err finding;

    if (memory_check(state_path, config, &config->memory, &finding))
        return memory_add(check, state_path, err);
    if (!tell_memory_err(check, state_path, &finding, err)) {
        *err = finding;
        return false;
    }
    return true;
}

static bool memories_read(struct check *check, struct err *err)
{
    for (size_t i = 0; i < check->memory_count; i++) {
        const struct check_memory *memory = &check->memories[i];
        const struct progress progress = check_progress(check);
        AUTO_FREE char *vsv = string_printf("%s.vsv", memory->state_path);
        AUTO_FREE char *bin = string_printf("%s.bin", memory->state_path);
        struct err finding;
        if (!vsv || !bin)
            return err_oom(err);
        check->item_bytes = memory->allocated_bytes;
        if (!ram_verify(vsv, bin, &progress, &finding) && !tell_memory_err(check, memory->state_path, &finding, err)) {
            *err = finding;
            return false;
        }
        check->done_bytes += memory->allocated_bytes;
    }
    return true;
}

/* --- one set of settings --- */

static bool nvram_look(struct check *check, const char *dir, const struct config *config, struct err *err)
{
    AUTO_FREE char *path = string_printf("%s/%s.nvram", dir, config->nvram.text);
    struct io_stat stat;

    if (!path)
        return err_oom(err);
    if (!io_stat_path(&io_real, path, &stat, err))
        return check_tell_err(check, "nvram", path, err);
    uint8_t header[VOLUME_HEADER_BYTES] = {0};
    AUTO_IO struct io_file *file = NULL;
    if (!stat.is_regular || !io_open(&io_real, path, IO_READ_ONLY, &file, err) || !io_read(file, 0, header, sizeof header, err) ||
        memcmp(header + VOLUME_SIGNATURE, "_FVH", 4) != 0)
        check_tell(check, "nvram", false, path, "holds no UEFI variables");
    else if (get_le64(header + VOLUME_LENGTH) > stat.size_bytes)
        check_tell(check, "nvram", false, path, "is cut off");
    return true;
}

/* A picture that is not whole shows nothing, and nothing else is the matter. */
static bool thumbnail_look(struct check *check, const char *dir, const struct config *snapshot, struct err *err)
{
    static const uint8_t BEGIN[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
    static const uint8_t END[8] = {'I', 'E', 'N', 'D', 0xAE, 0x42, 0x60, 0x82};
    AUTO_FREE char *path = string_printf("%s/%s.png", dir, snapshot->snapshot.text);
    AUTO_BUF struct buf picture = BUF_INIT;

    if (!path)
        return err_oom(err);
    if (!io_exists(&io_real, path))
        return true;
    if (!file_read_all(&io_real, path, THUMBNAIL_MAX_BYTES, &picture, err) && err->code == ERR_NO_MEMORY)
        return false;
    if (picture.length < sizeof BEGIN + sizeof END || memcmp(picture.data, BEGIN, sizeof BEGIN) != 0 ||
        memcmp(picture.data + picture.length - sizeof END, END, sizeof END) != 0)
        check_tell(check, "thumbnail", true, path, "is no whole picture");
    return true;
}

static bool boot_files_look(struct check *check, const struct config *config)
{
    const char *const files[] = {config->kernel, config->initrd};

    for (size_t i = 0; i < ARRAY_SIZE(files); i++)
        if (files[i] && !io_exists(&io_real, files[i]))
            check_tell(check, "medium", false, files[i], "is not there: no VM starts with it");
    return true;
}

static bool config_look(struct check *check, const struct config *config, struct err *err)
{
    const char *vm_dir = check->look->vm_dir;
    AUTO_FREE char *dir = config->is_snapshot ? string_printf("%s/Snapshots/%s", vm_dir, config->snapshot.text)
                                              : string_printf("%s/Virtual Machines/%s", vm_dir, config->guid.text);
    const struct guid *name = config->is_snapshot ? &config->snapshot : &config->saved;
    bool has_memory = config->is_snapshot ? config->state_when_taken != STATE_OFF : guid_is_set(&config->saved);
    AUTO_FREE char *state_path = dir ? string_printf("%s/%s", dir, name->text) : NULL;

    if (!state_path)
        return err_oom(err);
    return check_chains(check, config, err) && (!has_memory || memory_look(check, config, state_path, err)) &&
           (!guid_is_set(&config->nvram) || nvram_look(check, dir, config, err)) && boot_files_look(check, config) &&
           (!config->is_snapshot || thumbnail_look(check, dir, config, err));
}

static bool bases_compare(struct check *check, const struct config *vm, struct err *err)
{
    char was[80], is[80], text[240];

    for (size_t i = 0; i < vm->base_count; i++) {
        struct config_base now;
        if (!base_read(vm->bases[i].path, &now, err)) {
            if (err->code != ERR_NOT_FOUND && !check_tell_err(check, "disk", vm->bases[i].path, err))
                return false;
            continue; /* who lies over it tells */
        }
        if (base_is_as_noted(&vm->bases[i], &now, check->look->vm_dir))
            continue;
        snprintf(text, sizeof text, "was changed by somebody else: noted are %s, now it has %s", base_text(&vm->bases[i], was),
                 base_text(&now, is));
        check_tell(check, "disk", /* harmless= */ false, vm->bases[i].path, text);
    }
    return true;
}

bool check_settings(struct check *check, struct err *err)
{
    const struct store_look *look = check->look;

    if (look->vm && (!config_look(check, look->vm, err) || !bases_compare(check, look->vm, err)))
        return false;
    for (size_t i = 0; i < look->snapshot_count; i++) {
        if (progress_cancelled(check->progress))
            return err_set(err, ERR_CANCELLED, "the check was cancelled");
        if (!config_look(check, look->snapshots[i], err))
            return false;
    }
    return true;
}

static bool mode_tell(void *context, const char *path, unsigned mode, unsigned better, struct err *err)
{
    char text[80];

    (void)err;
    snprintf(text, sizeof text, "its mode is %04o: %s", mode,
             (mode | better) == better ? "its owner cannot use it" : "others may write it");
    check_tell(context, "mode", /* harmless= */ true, path, text);
    return true;
}

/* First all that is cheap, so that the worst is known early; then the contents. */
static bool look_at_all(struct check *check, struct err *err)
{
    const struct store_look *look = check->look;
    const struct store_look_images images = {.holds = check_holds, .context = check};

    if (!check_settings(check, err) || !modes_look(look->vm_dir, mode_tell, check, err))
        return false;
    for (size_t i = 0; i < check->image_count; i++)
        check->total_bytes += check->images[i].allocated_bytes;
    for (size_t i = 0; i < check->memory_count; i++)
        check->total_bytes += check->memories[i].allocated_bytes;
    return check_images(check, err) && memories_read(check, err) &&
           store_look_extras(look, check->chains_are_broken ? NULL : &images, tell_store_fault, check, err);
}

static bool answer(const struct check *check, json_t **ret_value, struct err *err)
{
    json_t *in_use = json_array();

    for (size_t i = 0; in_use && i < check->image_count; i++)
        if (check->images[i].is_written)
            json_array_append_new(in_use, text_json(check->images[i].path));
    json_t *value = json_pack("{s:O, s:I, s:I, s:I, s:I, s:o}", "faults", check->faults, "snapshots",
                              (json_int_t)check->look->snapshot_count, "images", (json_int_t)check->image_count, "memories",
                              (json_int_t)check->memory_count, "bytes", (json_int_t)check->total_bytes, "in_use", in_use);
    if (!value)
        return err_oom(err);
    *ret_value = value;
    return true;
}

bool vm_check(const char *vm_dir, const struct progress *progress, json_t **ret_value, struct err *err)
{
    AUTO(check_done) struct check check = {.progress = progress, .faults = json_array()};
    struct store_look *look;

    if (!check.faults)
        return err_oom(err);
    if (!store_look_open(&io_real, vm_dir, "check", tell_store_fault, &check, &look, err))
        return false;
    check.look = look;
    bool ok = look_at_all(&check, err);
    if (ok && json_array_size(check.faults) > 0 && store_look_has_changed(look))
        ok = err_set(err, ERR_BUSY, "%s: the VM was changed while it was checked: check it again", vm_dir);
    ok = ok && answer(&check, ret_value, err);
    store_look_close(look);
    return ok;
}
