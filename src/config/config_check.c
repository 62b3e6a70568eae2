/* What a setting may be. Every value passes here when it is read and before it is written: QEMU's command
 * line, file names and XML are made of them. */
#include "config.h"
#include "config_text.h"

#include "auto.h"
#include "file.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define MEMORY_UNIT_BYTES (1ULL << 20)
#define MEMORY_MIN_BYTES  (16ULL << 20)
#define MEMORY_MAX_BYTES  (4ULL << 40)
#define CPUS_MAX          255
#define NICS_MAX          8
#define FORWARDS_MAX      64
#define TARGET_MAX        15 /* IFNAMSIZ - 1 */
#define APPEND_MAX_BYTES  4095
#define PATH_MAX_BYTES    4095
#define NOTES_MAX_BYTES   (64U << 10)
#define VM_NAME_MAX_BYTES 200               /* a file name has 255, and we put suffixes behind it */
#define CREATED_MAX_MS    253402300799999LL /* the end of the year 9999 */

/* One character of well-formed UTF-8 at text, and its length in *ret_length; 0 if it is none. */
static uint32_t utf8_decode(const unsigned char *text, size_t *ret_length)
{
    static const uint32_t LEAST[] = {0, 0x80, 0x800, 0x10000};
    size_t more = text[0] < 0x80       ? 0
                  : text[0] >> 5 == 6  ? 1
                  : text[0] >> 4 == 14 ? 2
                  : text[0] >> 3 == 30 ? 3
                                       : 4;

    if (more == 4)
        return 0;
    uint32_t value = more == 0 ? text[0] : text[0] & (0x3FU >> more);
    for (size_t i = 1; i <= more; i++) {
        if (text[i] >> 6 != 2)
            return 0;
        value = value << 6 | (text[i] & 0x3F);
    }
    *ret_length = more + 1;
    return value < LEAST[more] || value > 0x10FFFF || value >> 11 == 0xD800 >> 11 ? 0 : value;
}

bool text_is_valid(const char *text, enum text_kind kind, size_t *ret_characters)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t characters = 0;

    for (size_t length = 0; *p != '\0'; p += length, characters++) {
        uint32_t value = utf8_decode(p, &length);
        if (value == 0 || value == 0xFFFE || value == 0xFFFF)
            return false;
        bool is_control = value < 0x20 || (value >= 0x7F && value < 0xA0);
        if (is_control && !(kind == TEXT_LINES && (value == '\n' || value == '\r' || value == '\t')))
            return false;
    }
    if (ret_characters)
        *ret_characters = characters;
    return true;
}

static bool is_blank(const char *text)
{
    return text[strspn(text, " \t\n\r\f\v")] == '\0';
}

static bool check_name(const char *what, const char *name, struct err *err)
{
    size_t characters;

    if (!text_is_valid(name, TEXT_LINE, &characters))
        return err_set(err, ERR_INVALID, "%s: holds control characters or is not UTF-8", what);
    if (is_blank(name))
        return err_set(err, ERR_INVALID, "%s: must not be blank", what);
    if (characters > CONFIG_NAME_MAX)
        return err_set(err, ERR_INVALID, "%s: %zu characters, at most %d are allowed", what, characters,
                       CONFIG_NAME_MAX);
    if (name[0] == '-')
        return err_set(err, ERR_INVALID, "%s '%s': must not begin with '-'", what, name);
    return true;
}

bool config_check_vm_name(const char *name, struct err *err)
{
    if (!check_name("VM name", name, err))
        return false;
    if (strchr(name, '/'))
        return err_set(err, ERR_INVALID, "VM name '%s': must not hold '/'", name);
    if (name[0] == '.')
        return err_set(err, ERR_INVALID, "VM name '%s': must not begin with '.'", name);
    if (strlen(name) > VM_NAME_MAX_BYTES)
        return err_set(err, ERR_INVALID, "VM name '%s': %zu bytes, at most %d are allowed", name,
                       strlen(name), VM_NAME_MAX_BYTES);
    return true;
}

bool config_check_snapshot_name(const char *name, struct err *err)
{
    return check_name("snapshot name", name, err);
}

static bool check_path(const char *what, const char *path, struct err *err)
{
    if (!text_is_valid(path, TEXT_LINE, NULL))
        return err_set(err, ERR_INVALID, "%s: the path holds control characters or is not UTF-8", what);
    if (strlen(path) > PATH_MAX_BYTES)
        return err_set(err, ERR_INVALID, "%s: the path is longer than %d bytes", what, PATH_MAX_BYTES);
    if (path[0] != '/')
        return err_set(err, ERR_INVALID, "%s '%s': the path is not absolute", what, path);
    AUTO_FREE char *clean = path_absolute(path);
    if (!clean)
        return err_oom(err);
    if (strcmp(clean, path) != 0)
        return err_set(err, ERR_INVALID, "%s '%s': the path holds '.', '..' or doubled slashes", what, path);
    return true;
}

/* A word that goes into QEMU's command line as it is. */
static bool check_word(const char *what, const char *word, const char *more, size_t max, struct err *err)
{
    if (!word || word[0] == '\0')
        return err_set(err, ERR_INVALID, "%s: is missing", what);
    if (strlen(word) > max)
        return err_set(err, ERR_INVALID, "%s: longer than %zu bytes", what, max);
    for (const char *p = word; *p != '\0'; p++)
        if (!isascii((unsigned char)*p) || (!isalnum((unsigned char)*p) && !strchr(more, *p)))
            return err_set(err, ERR_INVALID, "%s '%.64s': holds a character that is not allowed", what, word);
    if (!isalnum((unsigned char)word[0]))
        return err_set(err, ERR_INVALID, "%s '%.64s': must begin with a letter or digit", what, word);
    return true;
}

static bool check_guid(const char *what, const struct guid *guid, struct err *err)
{
    struct guid same;

    if (memchr(guid->text, '\0', sizeof guid->text) && guid_parse(guid->text, &same))
        return true;
    return err_set(err, ERR_INVALID, "%s: is no GUID", what);
}

static bool check_optional_guid(const char *what, const struct guid *guid, struct err *err)
{
    return !guid_is_set(guid) || check_guid(what, guid, err);
}

static bool check_identity(const struct config *config, struct err *err)
{
    if (!check_guid("global_id", &config->guid, err) ||
        !check_optional_guid("parent_snapshot", &config->parent, err))
        return false;
    if (!config->name || !config->notes)
        return err_set(err, ERR_INVALID, "%s: is missing", config->name ? "notes" : "name");
    if (!(config->is_snapshot ? config_check_snapshot_name(config->name, err)
                              : config_check_vm_name(config->name, err)))
        return false;
    if (!text_is_valid(config->notes, TEXT_LINES, NULL))
        return err_set(err, ERR_INVALID, "notes: hold control characters or are not UTF-8");
    if (strlen(config->notes) > NOTES_MAX_BYTES)
        return err_set(err, ERR_INVALID, "notes: longer than %u bytes", NOTES_MAX_BYTES);
    if (config->created_ms < 0 || config->created_ms > CREATED_MAX_MS)
        return err_set(err, ERR_INVALID, "creation_time: out of range");
    return true;
}

static bool check_processor(const struct config *config, struct err *err)
{
    if (config->generation != 1 && config->generation != 2)
        return err_set(err, ERR_INVALID, "generation %u: 1 and 2 are known", config->generation);
    if (config->memory_bytes % MEMORY_UNIT_BYTES != 0 || config->memory_bytes < MEMORY_MIN_BYTES ||
        config->memory_bytes > MEMORY_MAX_BYTES)
        return err_set(err, ERR_INVALID, "memory of %llu bytes: must be 16 MiB to 4 TiB in whole MiB",
                       (unsigned long long)config->memory_bytes);
    if (config->cpus < 1 || config->cpus > CPUS_MAX)
        return err_set(err, ERR_INVALID, "%u processors: must be 1 to %d", config->cpus, CPUS_MAX);
    if ((unsigned)config->accel > ACCEL_TCG || (unsigned)config->clock > CLOCK_HOST ||
        (unsigned)config->display > DISPLAY_VNC)
        return err_set(err, ERR_INVALID, "accelerator, clock or display: unknown value");
    return check_word("machine type", config->machine, "._-", 63, err) &&
           check_word("processor model", config->cpu_model, "._-+=,", 255, err);
}

static bool check_boot(const struct config *config, struct err *err)
{
    if (!config->kernel && (config->initrd || config->append))
        return err_set(err, ERR_INVALID, "initrd, append: need a kernel");
    if (config->append &&
        (!text_is_valid(config->append, TEXT_LINE, NULL) || strlen(config->append) > APPEND_MAX_BYTES))
        return err_set(err, ERR_INVALID, "append: longer than %d bytes, or holds control characters",
                       APPEND_MAX_BYTES);
    return (!config->kernel || check_path("kernel", config->kernel, err)) &&
           (!config->initrd || check_path("initrd", config->initrd, err));
}

static bool check_disk(const struct config *config, const struct config_disk *disk, struct err *err)
{
    unsigned slots = config_bus_slots(disk->bus);

    if (slots == 0)
        return err_set(err, ERR_INVALID, "disk: unknown bus");
    if (disk->slot >= slots)
        return err_set(err, ERR_INVALID, "%s slot %u: the bus has %u", config_bus_name(disk->bus), disk->slot,
                       slots);
    if (config->generation == 2 && disk->bus == BUS_IDE && !disk->is_cdrom)
        return err_set(err, ERR_INVALID, "ide slot %u: generation 2 has no IDE hard disks", disk->slot);
    if (disk->bus == BUS_VIRTIO && disk->is_cdrom)
        return err_set(err, ERR_INVALID, "virtio slot %u: an optical drive needs ide or scsi", disk->slot);
    if (!disk->path)
        return disk->is_cdrom || err_set(err, ERR_INVALID, "%s slot %u: a hard disk without an image",
                                         config_bus_name(disk->bus), disk->slot);
    return check_path("disk", disk->path, err);
}

static bool check_disks(const struct config *config, struct err *err)
{
    for (size_t i = 0; i < config->disk_count; i++) {
        const struct config_disk *disk = &config->disks[i];
        if (!check_disk(config, disk, err))
            return false;
        for (size_t j = 0; j < i; j++) {
            const struct config_disk *other = &config->disks[j];
            if (other->bus == disk->bus && other->slot == disk->slot)
                return err_set(err, ERR_INVALID, "%s slot %u: is taken twice", config_bus_name(disk->bus),
                               disk->slot);
            if (!other->is_cdrom && !disk->is_cdrom && strcmp(other->path, disk->path) == 0)
                return err_set(err, ERR_INVALID, "disk '%s': is attached twice", disk->path);
        }
    }
    return true;
}

static bool mac_is_valid(const char *mac)
{
    if (strnlen(mac, 18) != 17)
        return false;
    for (unsigned i = 0; i < 17; i++)
        if (i % 3 == 2 ? mac[i] != ':' : !isxdigit((unsigned char)mac[i]))
            return false;
    return !(strtoul(mac, NULL, 16) & 1); /* the lowest bit marks a group of receivers */
}

/* 1 to 65535 in decimal, ending at `end`; 0 if it is none. */
static unsigned port_parse(const char *text, char end, const char **ret_rest)
{
    unsigned port = 0;
    size_t digits = strspn(text, "0123456789");

    if (digits == 0 || digits > 5 || text[digits] != end || text[0] == '0')
        return 0;
    for (size_t i = 0; i < digits; i++)
        port = port * 10 + (unsigned)(text[i] - '0');
    *ret_rest = text + digits + (end != '\0');
    return port <= 65535 ? port : 0;
}

static bool forward_is_valid(const char *forward)
{
    const char *rest;

    if (strncmp(forward, "tcp:", 4) != 0 && strncmp(forward, "udp:", 4) != 0)
        return false;
    return port_parse(forward + 4, ':', &rest) != 0 && port_parse(rest, '\0', &rest) != 0;
}

static bool check_nic(const struct config_nic *nic, struct err *err)
{
    if ((unsigned)nic->kind > NIC_TAP)
        return err_set(err, ERR_INVALID, "network adapter: unknown kind");
    if (!mac_is_valid(nic->mac))
        return err_set(err, ERR_INVALID, "network adapter: '%.17s' is no MAC address of one adapter",
                       nic->mac);
    if (nic->kind == NIC_USER && nic->target)
        return err_set(err, ERR_INVALID, "network adapter %s: a user network has no interface", nic->mac);
    if (nic->kind != NIC_USER && !check_word("network interface", nic->target, "._-", TARGET_MAX, err))
        return false;
    if (nic->forward_count > (nic->kind == NIC_USER ? FORWARDS_MAX : 0))
        return err_set(err, ERR_INVALID, "network adapter %s: too many forwarded ports for its kind",
                       nic->mac);
    for (size_t i = 0; i < nic->forward_count; i++)
        if (!forward_is_valid(nic->forwards[i]))
            return err_set(err, ERR_INVALID, "forward '%.64s': must be tcp:HOSTPORT:GUESTPORT or udp:...",
                           nic->forwards[i]);
    return true;
}

static bool check_nics(const struct config *config, struct err *err)
{
    if (config->nic_count > NICS_MAX)
        return err_set(err, ERR_INVALID, "%zu network adapters: at most %d", config->nic_count, NICS_MAX);
    for (size_t i = 0; i < config->nic_count; i++) {
        if (!check_nic(&config->nics[i], err))
            return false;
        for (size_t j = 0; j < i; j++)
            if (strcasecmp(config->nics[i].mac, config->nics[j].mac) == 0)
                return err_set(err, ERR_INVALID, "MAC address %s: is taken twice", config->nics[i].mac);
    }
    return true;
}

static int compare_guids(const void *a, const void *b)
{
    return strcasecmp(((const struct guid *)a)->text, ((const struct guid *)b)->text);
}

static bool check_listed(const struct config *config, struct err *err)
{
    if (config->listed_count == 0)
        return true;
    AUTO_FREE struct guid *guids = calloc(config->listed_count, sizeof *guids);
    if (!guids)
        return err_oom(err);
    for (size_t i = 0; i < config->listed_count; i++) {
        if (!check_guid("snapshots/list: guid", &config->listed[i].guid, err) ||
            !check_optional_guid("snapshots/list: parent", &config->listed[i].parent, err))
            return false;
        guids[i] = config->listed[i].guid;
    }
    qsort(guids, config->listed_count, sizeof *guids, compare_guids);
    for (size_t i = 1; i < config->listed_count; i++)
        if (guid_equal(&guids[i - 1], &guids[i]))
            return err_set(err, ERR_INVALID, "snapshots/list: %s stands twice", guids[i].text);
    return true;
}

static bool check_memory(const struct config *config, bool has_memory, struct err *err)
{
    if (!has_memory)
        return !guid_is_set(&config->memory) || err_set(err, ERR_INVALID, "memory id without saved memory");
    if ((unsigned)config->accel_used > ACCEL_TCG)
        return err_set(err, ERR_INVALID, "accelerator of the saved memory: unknown value");
    if (config->qemu_version && !check_word("QEMU version", config->qemu_version, ".-+~", 31, err))
        return false;
    return check_guid("memory id", &config->memory, err);
}

static bool check_snapshot_part(const struct config *config, struct err *err)
{
    if (!check_guid("snapshot id", &config->snapshot, err))
        return false;
    if ((unsigned)config->state_when_taken > STATE_PAUSED)
        return err_set(err, ERR_INVALID, "state when taken: unknown value");
    if (guid_is_set(&config->saved) || config->listed_count > 0)
        return err_set(err, ERR_INVALID, "a snapshot has no saved state and no list of its own");
    return check_memory(config, config->state_when_taken != STATE_OFF, err);
}

static bool check_vm_part(const struct config *config, struct err *err)
{
    bool is_saved = guid_is_set(&config->saved);

    if (!check_optional_guid("saved state", &config->saved, err))
        return false;
    if (is_saved && config->saved_state != STATE_RUNNING && config->saved_state != STATE_PAUSED)
        return err_set(err, ERR_INVALID, "saved state: must be running or paused");
    return check_memory(config, is_saved, err) && check_listed(config, err);
}

bool config_check(const struct config *config, struct err *err)
{
    if (guid_is_set(&config->nvram) && config->generation != 2)
        return err_set(err, ERR_INVALID, "nvram: generation 1 has none");
    return check_identity(config, err) && check_processor(config, err) && check_boot(config, err) &&
           check_disks(config, err) && check_nics(config, err) &&
           check_optional_guid("generation_id", &config->generation_id, err) &&
           check_optional_guid("nvram", &config->nvram, err) &&
           (config->is_snapshot ? check_snapshot_part(config, err) : check_vm_part(config, err));
}
