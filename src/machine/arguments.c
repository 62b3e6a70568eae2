/* QEMU's command line. Everything that decides the virtual hardware comes from the settings alone and is
 * pinned (types, addresses, identifiers, serial numbers), so that a saved state finds the same machine years
 * later.
 *
 * Values of the user never meet QEMU's option syntax unescaped: devices, block nodes and objects are JSON, in
 * other options every comma is doubled.
 *
 * PCI slots (bus pci.0 of generation 1, pcie.0 of generation 2):
 *   0x01 (generation 1) chipset and IDE     0x04-0x0b  network interfaces 0-7
 *   0x02 VGA                                0x0c-0x1b  virtio disks 0-15
 *   0x03 virtio-scsi                        0x1f (generation 2) chipset and SATA */
#include "machine_private.h"

#include "auto.h"
#include "buf.h"
#include "file.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>

#define SLOT_VGA          0x02
#define SLOT_SCSI         0x03
#define SLOT_NIC          0x04
#define SLOT_VIRTIO       0x0c
#define VIRTIO_DISK_MAX   16
#define QUEUES_MAX        4
#define RECONNECT_DELAY_S 86400 /* a guest outlives the restart of its worker */

struct arguments {
    const struct machine_launch *launch;
    const struct config *config;
    const char *bus;
    char **items; /* owned, one NULL at the end */
    size_t count;
    struct err *err;
};

/* --- adding --- */

/* Takes value. */
static bool add(struct arguments *arguments, const char *option, char *value)
{
    AUTO_FREE char *owned = value;
    AUTO_FREE char *name = strdup(option);
    char **items = reallocarray(arguments->items, arguments->count + 3, sizeof(*items));
    if (items)
        arguments->items = items;
    if (!items || !name || !owned)
        return err_oom(arguments->err);
    items[arguments->count++] = TAKE(name);
    items[arguments->count++] = TAKE(owned);
    items[arguments->count] = NULL;
    return true;
}

static bool add_text(struct arguments *arguments, const char *option, const char *value)
{
    return add(arguments, option, strdup(value));
}

static bool add_flag(struct arguments *arguments, const char *option)
{
    if (!add_text(arguments, option, ""))
        return false;
    free(arguments->items[--arguments->count]);
    arguments->items[arguments->count] = NULL;
    return true;
}

/* Steals object; what names the thing if a string of the user broke it. */
static bool add_json(struct arguments *arguments, const char *option, json_t *object, const char *what)
{
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    if (!text)
        return err_set(arguments->err, ERR_INVALID, "%s: a path or name is not UTF-8", what);
    return add(arguments, option, text);
}

/* An owned copy as a value in QEMU's option syntax. */
static char *escape(const char *value)
{
    AUTO_BUF struct buf buf = BUF_INIT;
    for (const char *at = value; *at; at++)
        if (!buf_append(&buf, *at == ',' ? ",," : at, *at == ',' ? 2 : 1))
            return NULL;
    return buf.length > 0 ? buf_take_string(&buf) : strdup("");
}

/* Words that stand in option syntax as they are: only characters that mean nothing there. */
static bool check_word(struct arguments *arguments, const char *what, const char *word, const char *also)
{
    for (const char *at = word; at && *at; at++)
        if (!isalnum((unsigned char)*at) && !strchr(also, *at))
            return err_set(arguments->err, ERR_INVALID, "%s %s: the character %c is not possible", what, word,
                           *at);
    if (!word || !word[0] || word[0] == '-')
        return err_set(arguments->err, ERR_INVALID, "%s: is missing", what);
    return true;
}

/* --- sockets of the runtime directory --- */

static bool socket_path(struct arguments *arguments, const char *name, char **ret_escaped)
{
    AUTO_FREE char *path = path_join(arguments->launch->dir, name);
    if (!path)
        return err_oom(arguments->err);
    if (strlen(path) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
        return err_set(arguments->err, ERR_INVALID, "%s: too long for the path of a socket", path);
    char *escaped = escape(path);
    if (!escaped)
        return err_oom(arguments->err);
    *ret_escaped = escaped;
    return true;
}

static bool add_socket(struct arguments *arguments, const char *id, const char *name)
{
    AUTO_FREE char *path = NULL;
    return socket_path(arguments, name, &path) &&
           add(arguments, "-chardev", string_printf("socket,id=%s,path=%s,server=on,wait=off", id, path));
}

/* --- the board --- */

bool machine_firmware(const char **ret_code, const char **ret_variables, struct err *err)
{
    static const char *const pairs[][2] = {
        {"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"},
        {"/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"},
        {"/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"},
        {"/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"},
        {"/usr/share/edk2-ovmf/x64/OVMF_CODE.fd", "/usr/share/edk2-ovmf/x64/OVMF_VARS.fd"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
        if (access(pairs[i][0], R_OK) == 0 && access(pairs[i][1], R_OK) == 0) {
            *ret_code = pairs[i][0];
            *ret_variables = pairs[i][1];
            return true;
        }
    }
    return err_set(err, ERR_NOT_FOUND, "no UEFI firmware on this host; is OVMF (package ovmf) installed?");
}

static bool add_firmware(struct arguments *arguments)
{
    const char *code, *variables;
    if (arguments->config->generation != 2)
        return true;
    if (!arguments->launch->nvram)
        return err_set(arguments->err, ERR_INVALID, "generation 2: the file of UEFI variables is missing");
    return machine_firmware(&code, &variables, arguments->err) &&
           add_json(arguments, "-blockdev",
                    json_pack("{s:s, s:s, s:s, s:b}", "driver", "file", "node-name", "firmware", "filename",
                              code, "read-only", 1),
                    code) &&
           add_json(arguments, "-blockdev",
                    json_pack("{s:s, s:s, s:s}", "driver", "file", "node-name", "nvram", "filename",
                              arguments->launch->nvram),
                    arguments->launch->nvram);
}

static bool add_board(struct arguments *arguments)
{
    const struct config *config = arguments->config;
    const char *chip = config->generation == 2 ? "q35" : "i440fx";
    if (!check_word(arguments, "machine type", config->machine, "-._"))
        return false;
    if (config->generation != 1 && config->generation != 2)
        return err_set(arguments->err, ERR_INVALID, "generation %u: there is no such", config->generation);
    if (!strstr(config->machine, chip))
        return err_set(arguments->err, ERR_INVALID, "generation %u does not go with the machine type %s",
                       config->generation, config->machine);
    return add_firmware(arguments) &&
           add(arguments, "-machine",
               string_printf("%s,memory-backend=pc.ram,dump-guest-core=off%s%s", config->machine,
                             config->display == DISPLAY_NONE ? ",graphics=off" : "",
                             config->generation == 2 ? ",pflash0=firmware,pflash1=nvram" : ""));
}

/* From 8.2 on the file can be opened read-only behind writable private memory: nothing in QEMU can then punch
 * holes into a snapshot. */
static bool has_read_only_memory(const struct qemu *qemu)
{
    return qemu->major > 8 || (qemu->major == 8 && qemu->minor >= 2);
}

/* QEMU would make a missing file, of zeros, and grow a short one. */
static bool check_memory_file(struct arguments *arguments)
{
    const char *path = arguments->launch->memory_file;
    struct io_stat status;
    if (!io_stat_path(&io_real, path, &status, arguments->err))
        return false;
    if (!status.is_regular || status.size_bytes != arguments->config->memory_bytes)
        return err_set(arguments->err, ERR_MISMATCH, "%s: has %llu bytes, the memory of the VM %llu", path,
                       (unsigned long long)status.size_bytes,
                       (unsigned long long)arguments->config->memory_bytes);
    return true;
}

static bool add_memory(struct arguments *arguments)
{
    const struct machine_launch *launch = arguments->launch;
    json_int_t size = (json_int_t)arguments->config->memory_bytes;
    if (!launch->memory_file)
        return add_json(
            arguments, "-object",
            json_pack("{s:s, s:s, s:I}", "qom-type", "memory-backend-ram", "id", "pc.ram", "size", size),
            "memory");
    if (!check_memory_file(arguments))
        return false;
    json_t *object = json_pack("{s:s, s:s, s:I, s:s, s:b}", "qom-type", "memory-backend-file", "id", "pc.ram",
                               "size", size, "mem-path", launch->memory_file, "share", 0);
    if (object && has_read_only_memory(launch->qemu)) {
        json_object_set_new(object, "readonly", json_true());
        json_object_set_new(object, "rom", json_string("off"));
    }
    return add_json(arguments, "-object", object, launch->memory_file);
}

static bool add_processors(struct arguments *arguments)
{
    const struct config *config = arguments->config;
    return check_word(arguments, "processor model", config->cpu_model, "-._,+=") &&
           add_text(arguments, "-accel", arguments->launch->accel == ACCEL_KVM ? "kvm" : "tcg") &&
           add_text(arguments, "-cpu", config->cpu_model) &&
           add(arguments, "-smp",
               string_printf("%u,sockets=1,cores=%u,threads=1", config->cpus, config->cpus)) &&
           add(arguments, "-rtc",
               string_printf("base=utc,clock=%s", config->clock == CLOCK_HOST ? "host" : "vm"));
}

/* Files of the user for direct boot: QEMU takes these options as they are. */
static bool add_kernel(struct arguments *arguments)
{
    const struct config *config = arguments->config;
    if (!config->kernel)
        return true;
    return add_text(arguments, "-kernel", config->kernel) &&
           (!config->initrd || add_text(arguments, "-initrd", config->initrd)) &&
           (!config->append || add_text(arguments, "-append", config->append));
}

/* --- disks --- */

static json_t *pci_device(struct arguments *arguments, const char *driver, const char *id, unsigned slot)
{
    char address[8];
    snprintf(address, sizeof(address), "0x%02x", slot);
    return json_pack("{s:s, s:s, s:s, s:s}", "driver", driver, "id", id, "bus", arguments->bus, "addr",
                     address);
}

static unsigned queue_count(const struct config *config)
{
    return config->cpus < QUEUES_MAX ? config->cpus : QUEUES_MAX;
}

void machine_disk_id(const struct config_disk *disk, char id[static 32])
{
    snprintf(id, 32, "%s%u", config_bus_name(disk->bus), disk->slot);
}

/* The block node of a drive. An empty optical drive has none. */
static bool add_node(struct arguments *arguments, const struct config_disk *disk, const char *socket,
                     const char *node)
{
    if (!disk->is_cdrom)
        return add_json(arguments, "-blockdev",
                        json_pack("{s:s, s:s, s:{s:s, s:s}, s:s, s:i, s:s, s:s}", "driver", "nbd",
                                  "node-name", node, "server", "type", "unix", "path", socket, "export", "",
                                  "reconnect-delay", RECONNECT_DELAY_S, "discard", "unmap", "detect-zeroes",
                                  "off"),
                        socket);
    if (!disk->path)
        return true;
    return add_json(arguments, "-blockdev",
                    json_pack("{s:s, s:s, s:s, s:b}", "driver", "file", "node-name", node, "filename",
                              disk->path, "read-only", 1),
                    disk->path);
}

/* The device at its pinned place, without its drive; NULL also if the place does not exist. */
static json_t *disk_device(struct arguments *arguments, const struct config_disk *disk, const char *id)
{
    char ide[8];
    bool sata = arguments->config->generation == 2; /* a bus for each unit */
    switch (disk->bus) {
    case BUS_IDE:
        if (disk->slot > 3 || (sata && !disk->is_cdrom))
            return NULL;
        snprintf(ide, sizeof(ide), "ide.%u", sata ? disk->slot : disk->slot / 2);
        return json_pack("{s:s, s:s, s:s, s:i}", "driver", disk->is_cdrom ? "ide-cd" : "ide-hd", "id", id,
                         "bus", ide, "unit", sata ? 0 : (int)disk->slot % 2);
    case BUS_SCSI:
        return json_pack("{s:s, s:s, s:s, s:i, s:i, s:i}", "driver", disk->is_cdrom ? "scsi-cd" : "scsi-hd",
                         "id", id, "bus", "scsi.0", "channel", 0, "scsi-id", 0, "lun", (int)disk->slot);
    case BUS_VIRTIO:
        if (disk->slot >= VIRTIO_DISK_MAX || disk->is_cdrom)
            return NULL;
        json_t *device = pci_device(arguments, "virtio-blk-pci", id, SLOT_VIRTIO + disk->slot);
        json_object_set_new(device, "num-queues", json_integer(queue_count(arguments->config)));
        return device;
    }
    return NULL;
}

/* A full disk under the image stops the guest, which goes on where it was when there is space; any other
 * error is the guest's to handle. Guests that align to the physical block keep the image's writes aligned. */
static bool disk_behaviour(json_t *device)
{
    return json_object_update_new(device,
                                  json_pack("{s:s, s:s, s:i, s:i}", "werror", "enospc", "rerror", "report",
                                            "logical_block_size", 512, "physical_block_size", 4096)) == 0;
}

static bool add_disk(struct arguments *arguments, size_t index, int boot_index)
{
    const struct config_disk *disk = &arguments->config->disks[index];
    const char *const *sockets = arguments->launch->disk_sockets;
    const char *socket = sockets ? sockets[index] : NULL;
    char id[32], node[40];
    machine_disk_id(disk, id);
    snprintf(node, sizeof(node), MACHINE_DISK_NODE "%s", id);
    if (!disk->is_cdrom && !socket)
        return err_set(arguments->err, ERR_INTERNAL, "%s: the disk has no NBD socket", id);
    json_t *device = disk_device(arguments, disk, id);
    if (!device)
        return err_set(arguments->err, ERR_INVALID, "%s%s: there is no such place in generation %u", id,
                       disk->is_cdrom ? " (optical)" : "", arguments->config->generation);
    bool ok = (disk->is_cdrom || disk_behaviour(device)) &&
              json_object_set_new(device, "serial", json_string(id)) == 0 &&
              json_object_set_new(device, "bootindex", json_integer(boot_index)) == 0;
    if (ok && (!disk->is_cdrom || disk->path))
        ok = json_object_set_new(device, "drive", json_string(node)) == 0;
    if (!ok) {
        json_decref(device);
        return err_oom(arguments->err);
    }
    if (!add_node(arguments, disk, socket, node)) {
        json_decref(device);
        return false;
    }
    return add_json(arguments, "-device", device, id);
}

static bool add_disks(struct arguments *arguments)
{
    const struct config *config = arguments->config;
    bool has_scsi = false;
    int boot_index = 1; /* 0 is QEMU's own, for a kernel booted directly */
    for (size_t i = 0; i < config->disk_count; i++)
        has_scsi |= config->disks[i].bus == BUS_SCSI;
    if (has_scsi) {
        json_t *controller = pci_device(arguments, "virtio-scsi-pci", "scsi", SLOT_SCSI);
        json_object_set_new(controller, "num_queues", json_integer(queue_count(config)));
        if (!add_json(arguments, "-device", controller, "scsi"))
            return false;
    }
    for (int optical = 0; optical < 2; optical++)
        for (size_t i = 0; i < config->disk_count; i++)
            if (config->disks[i].is_cdrom == (optical == 1) && !add_disk(arguments, i, boot_index++))
                return false;
    return true;
}

/* --- network --- */

bool forward_parse(const char *forward, char ret_rule[static 64], struct err *err)
{
    char protocol[4];
    unsigned host, guest;
    int end = 0;
    if (sscanf(forward, "%3[a-z]:%5u:%5u%n", protocol, &host, &guest, &end) != 3 || forward[end] != '\0' ||
        (strcmp(protocol, "tcp") != 0 && strcmp(protocol, "udp") != 0) || host < 1 || host > 65535 ||
        guest < 1 || guest > 65535)
        return err_set(err, ERR_INVALID, "%s: a forwarded port is written tcp:HOST:GUEST", forward);
    snprintf(ret_rule, 64, "%s:127.0.0.1:%u-:%u", protocol, host, guest);
    return true;
}

static char *user_netdev(struct arguments *arguments, const struct config_nic *nic, size_t index)
{
    AUTO_BUF struct buf buf = BUF_INIT;
    char rule[64];
    if (!buf_printf(&buf, "user,id=net%zu", index))
        return NULL;
    for (size_t i = 0; i < nic->forward_count && !arguments->launch->hold_host_resources; i++)
        if (!forward_parse(nic->forwards[i], rule, arguments->err) || !buf_printf(&buf, ",hostfwd=%s", rule))
            return NULL;
    return buf_take_string(&buf);
}

/* fd: the next bridge's descriptor in the process. */
static char *netdev(struct arguments *arguments, const struct config_nic *nic, size_t index, int *fd)
{
    if (nic->kind == NIC_USER)
        return user_netdev(arguments, nic, index);
    if (nic->kind == NIC_BRIDGE) /* opened by machine_start(): QEMU in its sandbox cannot run the helper */
        return string_printf("tap,id=net%zu,fd=%d", index, (*fd)++);
    if (arguments->launch->hold_host_resources) {
        err_set_text(arguments->err, ERR_STATE, 0, "%s: a TAP interface belongs to one process", nic->target);
        return NULL;
    }
    AUTO_FREE char *target = escape(nic->target);
    return target ? string_printf("tap,id=net%zu,ifname=%s,script=no,downscript=no", index, target) : NULL;
}

static bool add_nics(struct arguments *arguments)
{
    const struct config *config = arguments->config;
    int fd = PROCESS_FIRST_BRIDGE_FD;
    if (config->nic_count > MACHINE_NIC_MAX)
        return err_set(arguments->err, ERR_UNSUPPORTED, "%zu network interfaces: at most %d are possible",
                       config->nic_count, MACHINE_NIC_MAX);
    for (size_t i = 0; i < config->nic_count; i++) {
        char node[32], id[32];
        snprintf(node, sizeof(node), "net%zu", i);
        snprintf(id, sizeof(id), "nic%zu", i);
        *arguments->err = ERR_INIT;
        char *value = netdev(arguments, &config->nics[i], i, &fd);
        if (!value)
            return arguments->err->code == ERR_NONE ? err_oom(arguments->err) : false;
        if (!add(arguments, "-netdev", value))
            return false;
        json_t *device = pci_device(arguments, "virtio-net-pci", id, SLOT_NIC + (unsigned)i);
        /* No option ROM: the network is nothing to boot from, and the package of ROMs need not be there. */
        json_object_update_new(
            device, json_pack("{s:s, s:s, s:s}", "netdev", node, "mac", config->nics[i].mac, "romfile", ""));
        if (!add_json(arguments, "-device", device, id))
            return false;
    }
    return true;
}

/* --- monitor, console, screen --- */

static bool add_display(struct arguments *arguments)
{
    AUTO_FREE char *path = NULL;
    if (arguments->config->display == DISPLAY_NONE)
        return add_text(arguments, "-display", "none");
    json_t *vga = pci_device(arguments, "VGA", "vga", SLOT_VGA);
    json_object_set_new(vga, "vgamem_mb", json_integer(16));
    return add_json(arguments, "-device", vga, "vga") && socket_path(arguments, "vnc.sock", &path) &&
           add(arguments, "-vnc", string_printf("unix:%s", path));
}

static bool add_sockets(struct arguments *arguments)
{
    return add_socket(arguments, "monitor", MACHINE_MONITOR_SOCKET) &&
           add_text(arguments, "-mon", "chardev=monitor,mode=control") &&
           add_socket(arguments, "console", "console.sock") &&
           add_json(arguments, "-device",
                    json_pack("{s:s, s:s, s:s, s:i}", "driver", "isa-serial", "id", "serial0", "chardev",
                              "console", "index", 0),
                    "serial0");
}

static bool add_process(struct arguments *arguments)
{
    AUTO_FREE char *name = escape(arguments->config->name ? arguments->config->name : "");
    if (!name)
        return err_oom(arguments->err);
    return add_flag(arguments, "-nodefaults") && add_flag(arguments, "-no-user-config") &&
           add_flag(arguments, "-S") && add(arguments, "-name", string_printf("guest=%s", name)) &&
           add_text(arguments, "-uuid", arguments->config->guid.text) &&
           add_text(arguments, "-sandbox",
                    "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
}

static bool add_generation_id(struct arguments *arguments)
{
    const struct guid *id = &arguments->launch->config->generation_id;
    char text[32 + GUID_LENGTH];
    snprintf(text, sizeof(text), "vmgenid,guid=%s,id=vmgenid", guid_is_set(id) ? id->text : "auto");
    return add_text(arguments, "-device", text);
}

bool machine_arguments(const struct machine_launch *launch, char ***ret_argv, struct err *err)
{
    struct arguments arguments = {
        .launch = launch,
        .config = launch->config,
        .bus = launch->config->generation == 2 ? "pcie.0" : "pci.0",
        .items = calloc(2, sizeof(char *)),
        .count = 1,
        .err = err,
    };
    if (!arguments.items || !(arguments.items[0] = strdup(launch->qemu->path))) {
        free(arguments.items);
        return err_oom(err);
    }
    bool ok = add_process(&arguments) && add_board(&arguments) && add_memory(&arguments) &&
              add_processors(&arguments) && add_kernel(&arguments) && add_sockets(&arguments) &&
              add_display(&arguments) && add_disks(&arguments) && add_nics(&arguments) &&
              add_generation_id(&arguments) &&
              (!launch->incoming || add_text(&arguments, "-incoming", "defer"));
    if (!ok) {
        machine_arguments_free(arguments.items);
        return false;
    }
    *ret_argv = arguments.items;
    return true;
}

void machine_arguments_free(char **argv)
{
    for (char **at = argv; at && *at; at++)
        free(*at);
    free(argv);
}
