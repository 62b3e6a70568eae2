/* Makes TCG forget which pages its processors may write without telling.
 *
 * QEMU drops what TCG remembers of the guest's memory whenever the map of its address space changes, in every processor
 * before it runs again. The smallest change of the map that a monitor can ask for, and that the guest does not see
 * while it stands, is one bit of the host bridge, turned and turned back: the first bit of PAM1, which says whether reads of
 * C0000h to C3FFFh come from memory (Intel 82441FX and 82Q35). It is reached as the guest would: by the
 * two ports of PCI's configuration mechanism 1, of which the guest may be in the middle
 * of using the first.
 *
 * Should this process be killed in between, what was there before stands in a file of QEMU's directory, for whoever adopts QEMU. */
#include "save_private.h"

#include "auto.h"
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ADDRESS_PORT 0xcf8U
#define DATA_PORT    0xcfcU
#define BRIDGE       0x80000000U /* bus 0, device 0, function 0, register 0: device and vendor */
#define PAM1_READS   1U
#define NOTE_FILE    "bridge"
#define NOTE_FORMAT  "%08x %02x %02x\n" /* the first port; a register, 0 for none yet; what it held */
#define NOTE_LENGTH  15

static const struct bridge {
    uint32_t id;
    uint8_t pam1;
} bridges[] = {
    {0x12378086, 0x5a}, /* i440fx */
    {0x29c08086, 0x91}, /* q35 */
};

/* format: 'w' for four bytes, 'b' for one, as the monitor has them. Its answer: "portl[0x0cf8] = 0x80000000". */
static bool port_read(struct machine *machine, unsigned port, char format, uint32_t *ret_value, struct err *err)
{
    char line[32], answer[MACHINE_ANSWER_BYTES], *end = NULL;
    snprintf(line, sizeof(line), "i /x%c 0x%x", format, port);
    if (!machine_ask(machine, line, answer, err))
        return false;
    const char *sign = strstr(answer, "= 0x");
    unsigned long value = sign ? strtoul(sign + 2, &end, 16) : 0;
    if (!sign || end == sign + 2 || value > UINT32_MAX)
        return err_set(err, ERR_QEMU, "QEMU's monitor cannot read a port: %s", answer);
    *ret_value = (uint32_t)value;
    return true;
}

static bool port_write(struct machine *machine, unsigned port, char format, uint32_t value, struct err *err)
{
    char line[40], answer[MACHINE_ANSWER_BYTES];
    snprintf(line, sizeof(line), "o /%c 0x%x 0x%x", format, port, value);
    return machine_ask(machine, line, answer, err) &&
           (answer[0] == '\0' || err_set(err, ERR_QEMU, "QEMU's monitor cannot write a port: %s", answer));
}

static bool find_bridge(struct machine *machine, const struct bridge **ret_bridge, struct err *err)
{
    uint32_t id;
    if (!port_write(machine, ADDRESS_PORT, 'w', BRIDGE, err) || !port_read(machine, DATA_PORT, 'w', &id, err))
        return false;
    for (size_t i = 0; i < ARRAY_SIZE(bridges); i++)
        if (bridges[i].id == id) {
            *ret_bridge = &bridges[i];
            return true;
        }
    return err_set(err, ERR_UNSUPPORTED, "a host bridge %08x is not known", id);
}

/* In one write, which is done or not. */
static bool note(int fd, uint32_t address, unsigned reg, uint32_t before, struct err *err)
{
    char text[NOTE_LENGTH + 1];
    snprintf(text, sizeof(text), NOTE_FORMAT, address, reg, before & 0xff);
    return pwrite(fd, text, NOTE_LENGTH, 0) == NOTE_LENGTH || err_sys(err, errno, "note what QEMU's host bridge holds");
}

static bool turn(struct machine *machine, int note_fd, uint32_t address, struct err *err)
{
    const struct bridge *bridge;
    uint32_t before, turned = 0;
    struct err ignored;
    if (!find_bridge(machine, &bridge, err) ||
        !port_write(machine, ADDRESS_PORT, 'w', BRIDGE | (bridge->pam1 & ~3U), err))
        return false;
    unsigned port = DATA_PORT + bridge->pam1 % 4;
    if (!port_read(machine, port, 'b', &before, err) || !note(note_fd, address, bridge->pam1, before, err))
        return false;
    bool ok = port_write(machine, port, 'b', before ^ PAM1_READS, err) && port_read(machine, port, 'b', &turned, err);
    if (!port_write(machine, port, 'b', before, ok ? err : &ignored))
        return false;
    return ok && (turned == (before ^ PAM1_READS) || err_set(err, ERR_QEMU, "the host bridge keeps its map of memory"));
}

bool machine_forget_written(struct machine *machine, struct err *err)
{
    uint32_t address;
    struct err ignored;
    AUTO_FREE char *path = path_join(machine->dir, NOTE_FILE);
    AUTO_FD int fd = path ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (fd < 0)
        return err_sys(err, errno, "make a file beside QEMU's monitor");
    if (!port_read(machine, ADDRESS_PORT, 'w', &address, err) || !note(fd, address, 0, 0, err))
        return false;
    bool ok = turn(machine, fd, address, err);
    ok = port_write(machine, ADDRESS_PORT, 'w', address, ok ? err : &ignored) && ok;
    unlink(path);
    return ok;
}

bool machine_unturn(struct machine *machine, struct err *err)
{
    AUTO_FREE char *path = path_join(machine->dir, NOTE_FILE);
    AUTO_BUF struct buf text = BUF_INIT;
    unsigned address, reg, before;
    if (!path)
        return err_oom(err);
    if (!file_read_all(&io_real, path, NOTE_LENGTH, &text, err))
        return err->code == ERR_NOT_FOUND;
    if (text.length == NOTE_LENGTH && buf_append(&text, "", 1) &&
        sscanf((const char *)text.data, NOTE_FORMAT, &address, &reg, &before) == 3) {
        if (reg != 0 && (!port_write(machine, ADDRESS_PORT, 'w', BRIDGE | (reg & ~3U), err) ||
                         !port_write(machine, DATA_PORT + reg % 4, 'b', before, err)))
            return false;
        if (!port_write(machine, ADDRESS_PORT, 'w', address, err))
            return false;
    }
    unlink(path);
    return true;
}
