/* The command line: everything pinned, and no value of the user that becomes an option. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "machine_private.h"
#include "scratch.h"

#include <string.h>

#define HOSTILE "/tmp/a,b=\"c'\\ ,id=x\n,,/\xc3\xa9.vhd"

static struct err err;
static struct config config;
static struct config_disk disks[100];
static struct config_nic nics[16];
static const char *sockets[100];
static struct qemu qemu;
static struct machine_launch launch;

static int settings_make(void **state)
{
    (void)state;
    config = (struct config){.name = (char *)"web",
                             .generation = 1,
                             .memory_bytes = 64 << 20,
                             .cpus = 2,
                             .machine = (char *)"pc-i440fx-7.2",
                             .cpu_model = (char *)"qemu64",
                             .disks = disks,
                             .nics = nics};
    strcpy(config.guid.text, "0F0E0D0C-0B0A-4908-8706-050403020100");
    qemu = (struct qemu){.path = "/usr/bin/qemu-system-x86_64", .version = "7.2.22", .major = 7, .minor = 2};
    launch = (struct machine_launch){.qemu = &qemu,
                                     .config = &config,
                                     .accel = ACCEL_TCG,
                                     .dir = "/run/b/vm1",
                                     .disk_sockets = sockets,
                                     .alive_fd = -1};
    err = ERR_INIT;
    return 0;
}

static void add_disk(enum config_bus bus, unsigned slot, bool is_cdrom, const char *path)
{
    sockets[config.disk_count] = is_cdrom ? NULL : "/run/b/vm1/disk.sock";
    disks[config.disk_count++] = (struct config_disk){.bus = bus, .slot = slot, .is_cdrom = is_cdrom, .path = (char *)path};
}

static void add_nic(enum config_nic_kind kind, const char *target)
{
    nics[config.nic_count] = (struct config_nic){.kind = kind, .target = (char *)target};
    snprintf(nics[config.nic_count].mac, 18, "52:54:00:00:00:%02x", (unsigned)config.nic_count);
    config.nic_count++;
}

static char **arguments(void)
{
    char **argv = NULL;
    if (!machine_arguments(&launch, &argv, &err))
        fail_msg("%s", err.text);
    return argv;
}

static enum err_code refused(void)
{
    char **argv = NULL;
    assert_false(machine_arguments(&launch, &argv, &err));
    assert_null(argv);
    return err.code;
}

/* The value of the nth such option, or NULL. */
static const char *value_of(char **argv, const char *option, unsigned nth)
{
    for (size_t i = 1; argv[i]; i++)
        if (strcmp(argv[i], option) == 0 && nth-- == 0)
            return argv[i + 1];
    return NULL;
}

static bool has(char **argv, const char *option, const char *value)
{
    const char *found;
    for (unsigned i = 0; (found = value_of(argv, option, i)); i++)
        if (strcmp(found, value) == 0)
            return true;
    return false;
}

/* The JSON value of the option whose key (id or node-name) is that; NULL. The caller's reference. */
static json_t *json_of(char **argv, const char *option, const char *key, const char *name)
{
    const char *text;
    for (unsigned i = 0; (text = value_of(argv, option, i)); i++) {
        json_t *value = text[0] == '{' ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
        const char *is = json_string_value(json_object_get(value, key));
        if (is && strcmp(is, name) == 0)
            return value;
        json_decref(value);
    }
    return NULL;
}

/* Does the device with that id have exactly these properties (a JSON text)? */
static void assert_device(char **argv, const char *id, const char *expected)
{
    json_t *is = json_of(argv, "-device", "id", id), *shall = json_loads(expected, 0, NULL);
    char *text = json_dumps(is, JSON_SORT_KEYS);
    assert_non_null(shall);
    if (!json_equal(is, shall))
        fail_msg("%s: %s", id, text ? text : "missing");
    free(text);
    json_decref(is);
    json_decref(shall);
}

static void the_plain_machine_is_exactly_this(void **state)
{
    static const char *const golden[] = {
        "/usr/bin/qemu-system-x86_64",
        "-nodefaults",
        "-no-user-config",
        "-S",
        "-name",
        "guest=web",
        "-uuid",
        "0F0E0D0C-0B0A-4908-8706-050403020100",
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        "-machine",
        "pc-i440fx-7.2,memory-backend=pc.ram,dump-guest-core=off,graphics=off",
        "-object",
        "{\"qom-type\":\"memory-backend-ram\",\"id\":\"pc.ram\",\"size\":67108864}",
        "-accel",
        "tcg",
        "-cpu",
        "qemu64",
        "-smp",
        "2,sockets=1,cores=2,threads=1",
        "-rtc",
        "base=utc,clock=vm",
        "-chardev",
        "socket,id=monitor,path=/run/b/vm1/qmp.sock,server=on,wait=off",
        "-mon",
        "chardev=monitor,mode=control",
        "-chardev",
        "socket,id=console,path=/run/b/vm1/console.sock,server=on,wait=off",
        "-device",
        "{\"driver\":\"isa-serial\",\"id\":\"serial0\",\"chardev\":\"console\",\"index\":0}",
        "-display",
        "none",
        "-device",
        "vmgenid,guid=auto,id=vmgenid"};
    (void)state;
    char **argv = arguments();
    for (size_t i = 0; i < ARRAY_SIZE(golden); i++) {
        assert_non_null(argv[i]);
        assert_string_equal(argv[i], golden[i]);
    }
    assert_null(argv[ARRAY_SIZE(golden)]);
    machine_arguments_free(argv);
}

static void each_disk_has_its_pinned_place(void **state)
{
    (void)state;
    add_disk(BUS_IDE, 0, false, "/d/a.vhd");
    add_disk(BUS_IDE, 3, true, "/d/x.iso");
    add_disk(BUS_SCSI, 63, false, "/d/b.vhd");
    add_disk(BUS_SCSI, 1, true, NULL);
    add_disk(BUS_VIRTIO, 15, false, "/d/c.vhd");
    char **argv = arguments();
#define BEHAVIOUR                                                                                            \
    "\"werror\":\"enospc\",\"rerror\":\"report\",\"logical_block_size\":512,\"physical_block_size\":4096"
    assert_device(argv, "ide0",
                  "{\"driver\":\"ide-hd\",\"id\":\"ide0\",\"bus\":\"ide.0\",\"unit\":0,\"serial\":\"ide0\","
                  "\"bootindex\":1,\"drive\":\"disk-ide0\"," BEHAVIOUR "}");
    assert_device(argv, "scsi63",
                  "{\"driver\":\"scsi-hd\",\"id\":\"scsi63\",\"bus\":\"scsi.0\",\"channel\":0,\"scsi-id\":0,"
                  "\"lun\":63,\"serial\":\"scsi63\",\"bootindex\":2,\"drive\":\"disk-scsi63\"," BEHAVIOUR
                  "}");
    assert_device(
        argv, "virtio15",
        "{\"driver\":\"virtio-blk-pci\",\"id\":\"virtio15\",\"bus\":\"pci.0\",\"addr\":\"0x1b\","
        "\"num-queues\":2,\"serial\":\"virtio15\",\"bootindex\":3,\"drive\":\"disk-virtio15\"," BEHAVIOUR
        "}");
    assert_device(argv, "ide3",
                  "{\"driver\":\"ide-cd\",\"id\":\"ide3\",\"bus\":\"ide.1\",\"unit\":1,\"serial\":\"ide3\","
                  "\"bootindex\":4,\"drive\":\"disk-ide3\"}");
    assert_device(argv, "scsi1",
                  "{\"driver\":\"scsi-cd\",\"id\":\"scsi1\",\"bus\":\"scsi.0\",\"channel\":0,\"scsi-id\":0,"
                  "\"lun\":1,\"serial\":\"scsi1\",\"bootindex\":5}");
    assert_device(argv, "scsi",
                  "{\"driver\":\"virtio-scsi-pci\",\"id\":\"scsi\",\"bus\":\"pci.0\",\"addr\":\"0x03\",\"num_"
                  "queues\":2}");
    machine_arguments_free(argv);
}

static void a_hard_disk_reconnects_for_a_day(void **state)
{
    (void)state;
    add_disk(BUS_VIRTIO, 0, false, "/d/a.vhd");
    char **argv = arguments();
    json_t *node = json_of(argv, "-blockdev", "node-name", "disk-virtio0");
    assert_string_equal(json_string_value(json_object_get(node, "driver")), "nbd");
    assert_int_equal(json_integer_value(json_object_get(node, "reconnect-delay")), 86400);
    assert_string_equal(json_string_value(json_object_get(node, "discard")), "unmap");
    assert_string_equal(json_string_value(json_object_get(json_object_get(node, "server"), "path")),
                        "/run/b/vm1/disk.sock");
    json_decref(node);
    machine_arguments_free(argv);
}

/* All PCI addresses of a machine with all that it can have differ. */
static void a_full_machine_has_no_address_twice(void **state)
{
    bool taken[256] = {false};
    const char *text;
    unsigned devices = 0;
    (void)state;
    config.display = DISPLAY_VNC;
    for (unsigned i = 0; i < 16; i++)
        add_disk(BUS_VIRTIO, i, false, "/d/a.vhd");
    for (unsigned i = 0; i < 64; i++)
        add_disk(BUS_SCSI, i, false, "/d/a.vhd");
    for (unsigned i = 0; i < 8; i++)
        add_nic(NIC_USER, NULL);
    char **argv = arguments();
    for (unsigned i = 0; (text = value_of(argv, "-device", i)); i++) {
        json_t *device = json_loads(text, 0, NULL);
        const char *address = json_string_value(json_object_get(device, "addr"));
        if (address) {
            unsigned long slot = strtoul(address, NULL, 16);
            assert_in_range(slot, 2, 0x1e);
            assert_false(taken[slot]);
            taken[slot] = true;
            devices++;
        }
        json_decref(device);
    }
    assert_int_equal(devices, 16 + 8 + 1 + 1);
    machine_arguments_free(argv);
}

static void disks_keep_their_places_when_others_go(void **state)
{
    (void)state;
    add_disk(BUS_VIRTIO, 0, false, "/d/a.vhd");
    add_disk(BUS_VIRTIO, 5, false, "/d/b.vhd");
    char **both = arguments();
    json_t *before = json_of(both, "-device", "id", "virtio5");
    disks[0] = disks[1];
    config.disk_count = 1;
    char **one = arguments();
    json_t *after = json_of(one, "-device", "id", "virtio5");
    assert_string_equal(json_string_value(json_object_get(before, "addr")), "0x11");
    json_object_del(before, "bootindex"), json_object_del(after, "bootindex");
    assert_true(json_equal(before, after));
    json_decref(before), json_decref(after);
    machine_arguments_free(both), machine_arguments_free(one);
}

static void hostile_paths_stay_inside_their_values(void **state)
{
    (void)state;
    config.name = (char *)"a,process=b";
    config.kernel = (char *)HOSTILE;
    config.append = (char *)"console=ttyS0,115200 -S \"x\"";
    add_disk(BUS_SCSI, 0, true, HOSTILE);
    add_disk(BUS_SCSI, 1, false, "/d");
    sockets[1] = HOSTILE;
    add_nic(NIC_TAP, "tap0,script=/bin/sh");
    launch.dir = "/tmp/x,server=off";
    char **argv = arguments();
    json_t *optical = json_of(argv, "-blockdev", "node-name", "disk-scsi0");
    json_t *disk = json_of(argv, "-blockdev", "node-name", "disk-scsi1");
    assert_string_equal(json_string_value(json_object_get(optical, "filename")), HOSTILE);
    assert_int_equal(json_object_size(optical), 4);
    assert_string_equal(json_string_value(json_object_get(json_object_get(disk, "server"), "path")), HOSTILE);
    assert_true(has(argv, "-name", "guest=a,,process=b"));
    assert_true(has(argv, "-kernel", HOSTILE));
    assert_true(has(argv, "-append", config.append));
    assert_true(
        has(argv, "-chardev", "socket,id=monitor,path=/tmp/x,,server=off/qmp.sock,server=on,wait=off"));
    assert_true(has(argv, "-netdev", "tap,id=net0,ifname=tap0,,script=/bin/sh,script=no,downscript=no"));
    json_decref(optical), json_decref(disk);
    machine_arguments_free(argv);
}

static void words_that_would_be_options_are_refused(void **state)
{
    (void)state;
    const char *const machines[] = {"pc-i440fx-7.2,accel=kvm", "", "-i440fx", "pc-i440fx 7.2", "pc-q35-7.2"};
    for (size_t i = 0; i < ARRAY_SIZE(machines); i++) {
        config.machine = (char *)machines[i];
        assert_int_equal(refused(), ERR_INVALID);
    }
    config.machine = (char *)"pc-i440fx-7.2";
    config.cpu_model = (char *)"max;x";
    assert_int_equal(refused(), ERR_INVALID);
    config.cpu_model = NULL;
    assert_int_equal(refused(), ERR_INVALID);
}

static void paths_that_are_no_text_are_refused(void **state)
{
    (void)state;
    add_disk(BUS_VIRTIO, 0, false, "/d/a.vhd");
    sockets[0] = "/run/\xff\xfe";
    assert_int_equal(refused(), ERR_INVALID);
}

static void a_runtime_directory_too_long_for_sockets_is_refused(void **state)
{
    static char dir[108];
    (void)state;
    memset(dir, 'd', sizeof(dir) - 1);
    dir[0] = '/';
    launch.dir = dir;
    assert_int_equal(refused(), ERR_INVALID);
    assert_non_null(strstr(err.text, "too long"));
}

static void places_that_do_not_exist_are_refused(void **state)
{
    static const struct config_disk wrong[] = {
        {.bus = BUS_IDE, .slot = 4}, {.bus = BUS_VIRTIO, .slot = 16}, {.bus = BUS_VIRTIO, .is_cdrom = true}};
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        config.disk_count = 0;
        add_disk(wrong[i].bus, wrong[i].slot, wrong[i].is_cdrom, "/d/a");
        assert_int_equal(refused(), ERR_INVALID);
    }
}

static void restored_memory_is_the_file_mapped_privately(void **state)
{
    (void)state;
    char *zeros = calloc(1, 1 << 20);
    scratch_write("memory, \"1\".bin", zeros, 1 << 20);
    free(zeros);
    config.memory_bytes = 1 << 20;
    launch.memory_file = scratch_path("memory, \"1\".bin");
    launch.incoming = true;
    for (unsigned newer = 0; newer < 2; newer++) {
        qemu.major = newer ? 8 : 7;
        char **argv = arguments();
        json_t *memory = json_of(argv, "-object", "id", "pc.ram");
        assert_string_equal(json_string_value(json_object_get(memory, "qom-type")), "memory-backend-file");
        assert_string_equal(json_string_value(json_object_get(memory, "mem-path")), launch.memory_file);
        assert_true(json_is_false(json_object_get(memory, "share")));
        assert_int_equal(json_is_true(json_object_get(memory, "readonly")), newer);
        assert_int_equal(json_object_get(memory, "rom") != NULL, newer);
        assert_true(has(argv, "-incoming", "defer"));
        json_decref(memory);
        machine_arguments_free(argv);
    }
}

static void memory_of_another_size_is_refused(void **state)
{
    (void)state;
    scratch_write("short.bin", "abc", 3);
    launch.memory_file = scratch_path("short.bin");
    assert_int_equal(refused(), ERR_MISMATCH);
    launch.memory_file = scratch_path("missing.bin");
    assert_int_equal(refused(), ERR_NOT_FOUND);
    assert_int_equal(access(launch.memory_file, F_OK), -1); /* and not made */
}

static void nothing_that_gives_memory_back_is_configured(void **state)
{
    (void)state;
    add_disk(BUS_VIRTIO, 0, false, "/d/a.vhd");
    add_nic(NIC_USER, NULL);
    char **argv = arguments();
    for (size_t i = 0; argv[i]; i++)
        assert_null(strstr(argv[i], "balloon"));
    machine_arguments_free(argv);
}

static void forwards_bind_the_loopback_alone(void **state)
{
    char *forwards[] = {(char *)"tcp:2222:22", (char *)"udp:5353:53"};
    (void)state;
    add_nic(NIC_USER, NULL);
    nics[0].forwards = forwards;
    nics[0].forward_count = 2;
    char **argv = arguments();
    assert_true(
        has(argv, "-netdev", "user,id=net0,hostfwd=tcp:127.0.0.1:2222-:22,hostfwd=udp:127.0.0.1:5353-:53"));
    machine_arguments_free(argv);
    launch.hold_host_resources = true;
    argv = arguments();
    assert_true(has(argv, "-netdev", "user,id=net0"));
    assert_device(argv, "nic0",
                  "{\"driver\":\"virtio-net-pci\",\"id\":\"nic0\",\"bus\":\"pci.0\",\"addr\":\"0x04\","
                  "\"netdev\":\"net0\","
                  "\"mac\":\"52:54:00:00:00:00\",\"romfile\":\"\"}");
    machine_arguments_free(argv);
}

static void malformed_forwards_are_refused(void **state)
{
    static const char *const wrong[] = {"",
                                        "tcp",
                                        "tcp:1:2:3",
                                        "tcp:0:22",
                                        "tcp:22:65536",
                                        "sctp:1:2",
                                        "tcp:22:22,restrict=on",
                                        "tcp:-1:2",
                                        "tcp:99999999999:1"};
    (void)state;
    add_nic(NIC_USER, NULL);
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        char *forwards[] = {(char *)wrong[i]};
        nics[0].forwards = forwards;
        nics[0].forward_count = 1;
        assert_int_equal(refused(), ERR_INVALID);
    }
}

static void a_tap_interface_cannot_be_held_back(void **state)
{
    (void)state;
    add_nic(NIC_BRIDGE, "br0");
    assert_true(machine_can_hold(&config));
    add_nic(NIC_TAP, "tap0");
    assert_false(machine_can_hold(&config));
    launch.hold_host_resources = true;
    assert_int_equal(refused(), ERR_STATE);
}

static void bridges_get_descriptors_in_order(void **state)
{
    (void)state;
    add_nic(NIC_BRIDGE, "br0");
    add_nic(NIC_USER, NULL);
    add_nic(NIC_BRIDGE, "br1");
    char **argv = arguments();
    assert_true(has(argv, "-netdev", "tap,id=net0,fd=4"));
    assert_true(has(argv, "-netdev", "tap,id=net2,fd=5"));
    machine_arguments_free(argv);
}

static void nine_interfaces_are_too_many(void **state)
{
    (void)state;
    for (int i = 0; i < 9; i++)
        add_nic(NIC_USER, NULL);
    assert_int_equal(refused(), ERR_UNSUPPORTED);
}

static void generation_2_has_firmware_and_sata_optical_drives(void **state)
{
    const char *code, *variables;
    (void)state;
    if (!machine_firmware(&code, &variables, &err))
        skip();
    config.generation = 2;
    config.machine = (char *)"pc-q35-7.2";
    assert_int_equal(refused(), ERR_INVALID); /* without variables */
    launch.nvram = "/v/n,1.nvram";
    config.clock = CLOCK_HOST;
    add_disk(BUS_IDE, 3, true, NULL);
    add_disk(BUS_VIRTIO, 0, false, "/d/a.vhd");
    char **argv = arguments();
    json_t *nvram = json_of(argv, "-blockdev", "node-name", "nvram");
    assert_string_equal(json_string_value(json_object_get(nvram, "filename")), "/v/n,1.nvram");
    assert_true(has(
        argv, "-machine",
        "pc-q35-7.2,memory-backend=pc.ram,dump-guest-core=off,graphics=off,pflash0=firmware,pflash1=nvram"));
    assert_true(has(argv, "-rtc", "base=utc,clock=host"));
    assert_device(argv, "ide3",
                  "{\"driver\":\"ide-cd\",\"id\":\"ide3\",\"bus\":\"ide.3\",\"unit\":0,\"serial\":\"ide3\","
                  "\"bootindex\":2}");
    json_decref(nvram);
    machine_arguments_free(argv);
    add_disk(BUS_IDE, 0, false, "/d/b.vhd");
    assert_int_equal(refused(), ERR_INVALID);
}

static void kvm_works_only_where_the_processor_shows_it(void **state)
{
    const char *why = NULL;
    (void)state;
    scratch_write("kvm", "", 0);
    scratch_write("intel", "processor : 0\nflags\t\t: fpu vmx sse\n", 36);
    scratch_write("amd", "processor : 0\nflags\t\t: fpu sse svm\n", 36);
    scratch_write("none", "model name : vmx svm\nflags\t\t: fpu vmxish xsvm vmx_\nbugs : svm\n", 63);
    assert_true(kvm_works(scratch_path("kvm"), scratch_path("intel"), &why));
    assert_true(kvm_works(scratch_path("kvm"), scratch_path("amd"), &why));
    assert_false(kvm_works(scratch_path("kvm"), scratch_path("none"), &why));
    assert_non_null(strstr(why, "vmx"));
    assert_false(kvm_works(scratch_path("kvm"), scratch_path("nowhere"), &why));
    assert_false(kvm_works(scratch_path("nowhere"), scratch_path("intel"), &why));
    assert_non_null(strstr(why, "/dev/kvm"));
}

static void tcg_is_always_to_be_had(void **state)
{
    enum config_accel accel = ACCEL_AUTO;
    (void)state;
    assert_true(accel_resolve(ACCEL_TCG, &accel, &err));
    assert_int_equal(accel, ACCEL_TCG);
    assert_true(accel_resolve(ACCEL_AUTO, &accel, &err));
    assert_int_not_equal(accel, ACCEL_AUTO);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, settings_make)
    static const struct CMUnitTest tests[] = {
        TEST(the_plain_machine_is_exactly_this),
        TEST(each_disk_has_its_pinned_place),
        TEST(a_hard_disk_reconnects_for_a_day),
        TEST(a_full_machine_has_no_address_twice),
        TEST(disks_keep_their_places_when_others_go),
        TEST(hostile_paths_stay_inside_their_values),
        TEST(words_that_would_be_options_are_refused),
        TEST(paths_that_are_no_text_are_refused),
        TEST(a_runtime_directory_too_long_for_sockets_is_refused),
        TEST(places_that_do_not_exist_are_refused),
        TEST(restored_memory_is_the_file_mapped_privately),
        TEST(memory_of_another_size_is_refused),
        TEST(nothing_that_gives_memory_back_is_configured),
        TEST(forwards_bind_the_loopback_alone),
        TEST(malformed_forwards_are_refused),
        TEST(a_tap_interface_cannot_be_held_back),
        TEST(bridges_get_descriptors_in_order),
        TEST(nine_interfaces_are_too_many),
        TEST(generation_2_has_firmware_and_sata_optical_drives),
        TEST(kvm_works_only_where_the_processor_shows_it),
        TEST(tcg_is_always_to_be_had),
    };
    return cmocka_run_group_tests_name("arguments", tests, scratch_make, scratch_remove);
}
