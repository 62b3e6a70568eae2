/* A VM's hardware as the user writes it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "auto.h"
#include "hardware.h"
#include "vhd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[64];

static int dir_make(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/bough-hw-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    setenv("BOUGH_HOME", dir, 1);
    return 0;
}

static int dir_remove(void **state)
{
    (void)state;
    return rmdir(dir);
}

static struct config *fresh(unsigned generation)
{
    struct config *config = config_new();
    struct err err;

    assert_non_null(config);
    assert_true(config_set_string(&config->name, "vm", &err));
    config->generation = generation;
    config->guid = guid_new();
    return config;
}

static void a_disk_is_a_size_or_a_file_with_an_optional_bus(void **state)
{
    struct hardware_disk disk;
    struct err err;
    char *path;

    (void)state;
    assert_true(hardware_disk_from_text("20G", &disk, &path, &err));
    assert_int_equal(disk.size_bytes, 20ULL << 30);
    assert_null(path);
    assert_false(disk.has_bus);
    assert_true(hardware_disk_from_text("/x/y,z.vhd,bus=virtio", &disk, &path, &err));
    assert_string_equal(path, "/x/y,z.vhd");
    assert_true(disk.has_bus && disk.bus == BUS_VIRTIO);
    free(path);
    assert_false(hardware_disk_from_text("20G,bus=floppy", &disk, &path, &err));
    assert_false(hardware_disk_from_text("", &disk, &path, &err));
}

static void disks_take_the_first_free_place_of_the_bus_of_their_generation(void **state)
{
    AUTO_CONFIG struct config *first = fresh(1);
    AUTO_CONFIG struct config *second = fresh(2);
    struct hardware_disk disk = {.size_bytes = 1 << 20};
    struct err err;

    (void)state;
    for (unsigned i = 0; i < 4; i++)
        assert_true(hardware_disk_add(first, dir, &disk, &err));
    assert_int_equal(first->disks[3].bus, BUS_IDE);
    assert_int_equal(first->disks[3].slot, 3);
    assert_false(hardware_disk_add(first, dir, &disk, &err));
    assert_int_equal(err.code, ERR_INVALID);
    assert_true(hardware_disk_add(second, dir, &disk, &err));
    assert_int_equal(second->disks[0].bus, BUS_SCSI);
}

static void new_disks_have_names_of_their_own(void **state)
{
    AUTO_CONFIG struct config *config = fresh(1);
    struct hardware_disk disk = {.size_bytes = 1 << 20};
    struct err err;

    (void)state;
    assert_true(hardware_disk_add(config, dir, &disk, &err) && hardware_disk_add(config, dir, &disk, &err));
    assert_string_not_equal(config->disks[0].path, config->disks[1].path);
    assert_non_null(strstr(config->disks[0].path, "/vm.vhd"));
    assert_non_null(strstr(config->disks[1].path, "/vm_2.vhd"));
}

static void a_disk_that_is_no_vhd_or_no_multiple_of_a_sector_is_refused(void **state)
{
    AUTO_CONFIG struct config *config = fresh(1);
    struct hardware_disk text = {.path = "/etc/passwd"}, missing = {.path = "/nonexistent.vhd"}, odd = {.size_bytes = 1000};
    struct err err;

    (void)state;
    assert_false(hardware_disk_add(config, dir, &text, &err));
    assert_int_equal(err.code, ERR_CORRUPT);
    assert_false(hardware_disk_add(config, dir, &missing, &err));
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_false(hardware_disk_add(config, dir, &odd, &err));
    assert_int_equal(err.code, ERR_INVALID);
    assert_int_equal(config->disk_count, 0);
}

static void an_image_serves_one_vm_once(void **state)
{
    AUTO_CONFIG struct config *config = fresh(1);
    char path[96];
    struct vhd_create_options options = {.type = VHD_DYNAMIC, .size_bytes = 1 << 20};
    struct hardware_disk disk = {.path = path};
    struct err err;

    (void)state;
    snprintf(path, sizeof path, "%s/image.vhd", dir);
    assert_true(vhd_create(&io_real, path, &options, &err));
    bool once = hardware_disk_add(config, dir, &disk, &err);
    bool twice = hardware_disk_add(config, dir, &disk, &err);
    unlink(path);
    assert_true(once);
    assert_false(twice);
    assert_int_equal(err.code, ERR_EXISTS);
}

static void an_optical_drive_is_replaced_and_emptied_not_multiplied(void **state)
{
    AUTO_CONFIG struct config *config = fresh(1);
    struct err err;

    (void)state;
    assert_true(hardware_cdrom_set(config, "/etc/passwd", &err));
    assert_string_equal(config->disks[0].path, "/etc/passwd");
    assert_true(hardware_cdrom_set(config, "", &err));
    assert_int_equal(config->disk_count, 1);
    assert_true(config->disks[0].is_cdrom && !config->disks[0].path);
    assert_false(hardware_cdrom_set(config, "/nonexistent.iso", &err));
    assert_false(hardware_cdrom_set(config, "/etc", &err));
}

static void each_nic_has_an_address_of_its_own(void **state)
{
    AUTO_CONFIG struct config *config = fresh(1);
    struct err err;

    (void)state;
    assert_true(hardware_nics_set(config, "user,forward=tcp:2222:22,forward=udp:53:53", &err));
    assert_true(hardware_nics_set(config, "bridge=br0", &err));
    assert_int_equal(config->nic_count, 2);
    assert_int_equal(config->nics[0].forward_count, 2);
    assert_string_equal(config->nics[0].forwards[1], "udp:53:53");
    assert_string_equal(config->nics[1].target, "br0");
    assert_string_not_equal(config->nics[0].mac, config->nics[1].mac);
    assert_memory_equal(config->nics[0].mac, "52:54:00:", 9);
    assert_false(hardware_nics_set(config, "wifi", &err));
    assert_false(hardware_nics_set(config, "", &err));
    assert_true(hardware_nics_set(config, "none", &err));
    assert_int_equal(config->nic_count, 0);
}

static void settings_take_their_values_and_no_others(void **state)
{
    static const struct {
        const char *key, *good, *bad;
    } CASES[] = {{"memory", "512M", "lots"}, {"cpus", "4", "0"},        {"cpus", "1", "1x"},     {"display", "vnc", "x11"},
                 {"accel", "tcg", "xen"},    {"clock", "host", "noon"}, {"kernel", "", "/none"}};
    static const char *const MACHINES[] = {"pc", "q35", "pc-q35-7.2", "pc-i440fx-99.9", ""};
    AUTO_CONFIG struct config *config = fresh(1);
    struct err err;
    bool live;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(CASES); i++) {
        assert_true(hardware_set(config, CASES[i].key, CASES[i].good, &live, &err));
        assert_false(live);
        assert_false(hardware_set(config, CASES[i].key, CASES[i].bad, &live, &err));
        assert_non_null(strstr(err.text, CASES[i].bad[0] == '/' ? "kernel" : CASES[i].bad));
    }
    for (size_t i = 0; i < ARRAY_SIZE(MACHINES); i++)
        assert_false(hardware_set(config, "machine", MACHINES[i], &live, &err));
    assert_null(config->machine);
    assert_int_equal(config->memory_bytes, 512ULL << 20);
    assert_true(hardware_set(config, "notes", "any text", &live, &err) && live);
    assert_false(hardware_set(config, "colour", "red", &live, &err));
    assert_non_null(strstr(err.text, "memory"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_disk_is_a_size_or_a_file_with_an_optional_bus),
        cmocka_unit_test(disks_take_the_first_free_place_of_the_bus_of_their_generation),
        cmocka_unit_test(new_disks_have_names_of_their_own),
        cmocka_unit_test(a_disk_that_is_no_vhd_or_no_multiple_of_a_sector_is_refused),
        cmocka_unit_test(an_image_serves_one_vm_once),
        cmocka_unit_test(an_optical_drive_is_replaced_and_emptied_not_multiplied),
        cmocka_unit_test(each_nic_has_an_address_of_its_own),
        cmocka_unit_test(settings_take_their_values_and_no_others),
    };

    return cmocka_run_group_tests(tests, dir_make, dir_remove);
}
