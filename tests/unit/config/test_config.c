/* Settings as a value, and to XML and back. */
#include "config_sample.h"

#include "auto.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static char *format(const struct config *config, const char *vm_dir)
{
    struct err err;
    char *xml;
    size_t length;

    if (!config_format(config, vm_dir, &xml, &length, &err))
        fail_msg("%s", err.text);
    assert_int_equal(strlen(xml), length);
    return xml;
}

static struct config *parse(const char *xml, const char *vm_dir)
{
    struct err err;
    struct config *config;

    if (!config_parse(xml, strlen(xml), "test.xml", vm_dir, &config, &err))
        fail_msg("%s", err.text);
    return config;
}

static void assert_same_trip(const struct config *config)
{
    AUTO_FREE char *first = format(config, SAMPLE_DIR);
    AUTO_CONFIG struct config *again = parse(first, SAMPLE_DIR);
    AUTO_FREE char *second = format(again, SAMPLE_DIR);

    assert_string_equal(first, second);
}

static void a_round_trip_is_exact_to_the_byte(void **state)
{
    AUTO_CONFIG struct config *small = sample_vm(SAMPLE_DIR);
    AUTO_CONFIG struct config *full = sample_full_vm();
    AUTO_CONFIG struct config *snapshot = sample_snapshot();

    (void)state;
    small->generation_id = guid_new();
    assert_same_trip(small);
    assert_same_trip(full);
    assert_same_trip(snapshot);
    snapshot->state_when_taken = STATE_OFF;
    config_clear_saved(snapshot);
    snapshot->nvram = (struct guid){0};
    assert_same_trip(snapshot);
}

static void a_round_trip_keeps_every_field(void **state)
{
    AUTO_CONFIG struct config *full = sample_full_vm();
    AUTO_FREE char *xml = format(full, SAMPLE_DIR);
    AUTO_CONFIG struct config *again = parse(xml, SAMPLE_DIR);

    (void)state;
    assert_string_equal(again->guid.text, SAMPLE_VM);
    assert_string_equal(again->name, full->name);
    assert_string_equal(again->notes, full->notes);
    assert_true(again->created_ms == full->created_ms);
    assert_string_equal(again->parent.text, full->parent.text);
    assert_int_equal(again->generation, 1);
    assert_true(again->memory_bytes == 4ULL << 40);
    assert_int_equal(again->cpus, 255);
    assert_string_equal(again->machine, "pc-i440fx-7.2");
    assert_string_equal(again->cpu_model, "qemu64");
    assert_int_equal(again->accel, ACCEL_KVM);
    assert_int_equal(again->clock, CLOCK_HOST);
    assert_int_equal(again->display, DISPLAY_VNC);
    assert_string_equal(again->kernel, full->kernel);
    assert_string_equal(again->initrd, full->initrd);
    assert_string_equal(again->append, full->append);
    assert_string_equal(again->saved.text, full->saved.text);
    assert_string_equal(again->memory.text, full->memory.text);
    assert_int_equal(again->saved_state, STATE_PAUSED);
    assert_string_equal(again->qemu_version, "7.2.22");
    assert_int_equal(again->accel_used, ACCEL_KVM);
    assert_int_equal(again->listed_count, 3);
    assert_string_equal(again->listed[0].parent.text, "");
    assert_string_equal(again->listed[2].parent.text, full->listed[1].guid.text);
    assert_int_equal(again->base_count, 2);
    for (size_t i = 0; i < 2; i++) {
        const struct config_base *base = config_base_find(again, full->bases[i].path);
        assert_non_null(base);
        assert_true(base->size_bytes == full->bases[i].size_bytes && base->mtime_seconds == full->bases[i].mtime_seconds &&
                    base->mtime_ns == full->bases[i].mtime_ns && base->inode == full->bases[i].inode);
    }
}

static void a_base_is_noted_once_and_can_be_forgotten(void **state)
{
    AUTO_CONFIG struct config *config = sample_full_vm();
    struct config_base base = {.path = (char *)"/srv/disks/<base>.vhd", .size_bytes = 9};
    struct err err;

    (void)state;
    assert_true(config_base_set(config, &base, &err));
    assert_int_equal(config->base_count, 2);
    assert_int_equal(config_base_find(config, base.path)->size_bytes, 9);
    assert_true(config_base_set(config, config_base_find(config, base.path), &err)); /* itself */
    assert_true(config_base_forget(config, base.path));
    assert_false(config_base_forget(config, base.path));
    assert_int_equal(config->base_count, 1);
    assert_null(config_base_find(config, base.path));
}

static void a_round_trip_keeps_disks_and_adapters(void **state)
{
    AUTO_CONFIG struct config *full = sample_full_vm();
    AUTO_FREE char *xml = format(full, SAMPLE_DIR);
    AUTO_CONFIG struct config *again = parse(xml, SAMPLE_DIR);

    (void)state;
    assert_int_equal(again->disk_count, 5);
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(again->disks[i].bus, full->disks[i].bus);
        assert_int_equal(again->disks[i].slot, full->disks[i].slot);
        assert_int_equal(again->disks[i].is_cdrom, full->disks[i].is_cdrom);
        if (full->disks[i].path)
            assert_string_equal(again->disks[i].path, full->disks[i].path);
        else
            assert_null(again->disks[i].path);
    }
    assert_int_equal(again->nic_count, 3);
    assert_int_equal(again->nics[0].forward_count, 2);
    assert_string_equal(again->nics[0].forwards[1], "udp:5353:53");
    assert_string_equal(again->nics[1].target, "br0");
    assert_int_equal(again->nics[2].kind, NIC_TAP);
    assert_string_equal(again->nics[2].mac, "52:54:00:12:34:58");
}

static void a_snapshot_keeps_its_part(void **state)
{
    AUTO_CONFIG struct config *snapshot = sample_snapshot();
    static const char image_id[] = "00112233445566778899aabbccddeeff";
    snapshot->generation_id = guid_new();
    memcpy(snapshot->disks[0].image_id, image_id, sizeof image_id);
    AUTO_FREE char *xml = format(snapshot, SAMPLE_DIR);
    AUTO_CONFIG struct config *again = parse(xml, SAMPLE_DIR);

    (void)state;
    assert_string_equal(again->generation_id.text, snapshot->generation_id.text);
    assert_string_equal(again->disks[0].image_id, image_id);
    struct config *wrong = NULL;
    struct err err;
    strstr(xml, "ddeeff<")[5] = 'g';
    assert_false(config_parse(xml, strlen(xml), "a.xml", SAMPLE_DIR, &wrong, &err));
    assert_int_equal(err.code, ERR_CORRUPT);
    assert_non_null(strstr(err.text, "snapshot/images/"));
    assert_true(again->is_snapshot);
    assert_string_equal(again->snapshot.text, snapshot->snapshot.text);
    assert_string_equal(again->name, "before /etc");
    assert_int_equal(again->state_when_taken, STATE_RUNNING);
    assert_string_equal(again->nvram.text, snapshot->nvram.text);
    assert_string_equal(again->memory.text, snapshot->memory.text);
    assert_string_equal(again->qemu_version, "7.2.22");
    assert_int_equal(again->accel_used, ACCEL_TCG);
    assert_true(again->pause_us == 4711);
    assert_true(again->is_scheduled);
    assert_int_equal(again->listed_count, 0);
}

static void paths_in_the_folder_move_with_it(void **state)
{
    AUTO_CONFIG struct config *full = sample_full_vm();
    AUTO_FREE char *xml = format(full, SAMPLE_DIR);
    AUTO_CONFIG struct config *moved = parse(xml, "/mnt/other");

    (void)state;
    assert_non_null(strstr(xml, ">web.vhd<"));
    assert_null(strstr(xml, SAMPLE_DIR));
    assert_string_equal(moved->disks[0].path, "/mnt/other/web.vhd");
    assert_string_equal(moved->disks[4].path, "/srv/disks/data.vhd");
    assert_string_equal(moved->initrd, "/mnt/other/initrd <new>.img");
}

static void guids_are_read_in_any_case_and_written_upper(void **state)
{
    AUTO_CONFIG struct config *config = sample_vm(SAMPLE_DIR);
    AUTO_FREE char *xml = NULL;

    (void)state;
    assert_true(guid_parse("abcdefab-cdef-4abc-8def-abcdefabcdef", &config->guid));
    xml = format(config, SAMPLE_DIR);
    char *at = strstr(xml, "ABCDEFAB-CDEF");
    assert_non_null(at);
    memcpy(at, "abcdefab-cdef", 13);
    AUTO_CONFIG struct config *again = parse(xml, SAMPLE_DIR);
    assert_string_equal(again->guid.text, "ABCDEFAB-CDEF-4ABC-8DEF-ABCDEFABCDEF");
}

static void utf16_is_read(void **state)
{
    AUTO_CONFIG struct config *full = sample_full_vm();
    AUTO_FREE char *xml = format(full, SAMPLE_DIR);
    static const char HEAD[] = "<?xml version=\"1.0\" encoding=\"UTF-16\" standalone=\"yes\"?>";
    const char *body = strchr(xml, '\n');

    (void)state;
    for (unsigned variant = 0; variant < 4; variant++) {
        bool big = variant & 1, mark = variant & 2;
        AUTO_FREE char *text = malloc(strlen(xml) + sizeof HEAD);
        sprintf(text, "%s%s", HEAD, body);
        size_t size = 2 * (strlen(text) + 1), length = 0;
        AUTO_FREE uint8_t *bytes = malloc(size);
        if (mark) {
            bytes[0] = big ? 0xFE : 0xFF;
            bytes[1] = big ? 0xFF : 0xFE;
            length = 2;
        }
        /* By hand: all that the sample has is in the basic plane. */
        for (const unsigned char *p = (const unsigned char *)text; *p;) {
            unsigned unit = *p;
            unsigned more = *p < 0x80 ? 0 : *p < 0xE0 ? 1 : 2;
            if (more)
                unit = *p & (0x3FU >> more);
            for (p++; more > 0; more--)
                unit = unit << 6 | (*p++ & 0x3FU);
            bytes[length + big] = (uint8_t)unit;
            bytes[length + !big] = (uint8_t)(unit >> 8);
            length += 2;
        }
        struct config *again;
        struct err err;
        if (!config_parse(bytes, length, "utf16.xml", SAMPLE_DIR, &again, &err))
            fail_msg("variant %u: %s", variant, err.text);
        AUTO_FREE char *second = format(again, SAMPLE_DIR);
        assert_string_equal(second, xml);
        config_free(again);
    }
}

static void unknown_elements_are_ignored(void **state)
{
    AUTO_CONFIG struct config *config = sample_vm(SAMPLE_DIR);
    AUTO_FREE char *xml = format(config, SAMPLE_DIR);
    AUTO_FREE char *more = malloc(strlen(xml) + 300);
    char *at = strstr(xml, "<settings>");
    AUTO_CONFIG struct config *again = NULL;

    (void)state;
    sprintf(more,
            "%.*s<integration><x type=\"bool\">True</x></integration><?pi?><!-- <a> --><settings><y/>%s",
            (int)(at - xml), xml, at + strlen("<settings>"));
    again = parse(more, SAMPLE_DIR);
    AUTO_FREE char *second = format(again, SAMPLE_DIR);
    assert_string_equal(second, xml);
}

static void a_copy_is_deep_and_equal(void **state)
{
    AUTO_CONFIG struct config *full = sample_full_vm();
    AUTO_CONFIG struct config *copy = config_copy(full);
    AUTO_FREE char *first = format(full, SAMPLE_DIR);
    AUTO_FREE char *second = format(copy, SAMPLE_DIR);

    (void)state;
    assert_string_equal(first, second);
    copy->disks[0].path[0] = 'X';
    copy->nics[0].forwards[0][0] = 'X';
    copy->notes[0] = 'X';
    copy->listed[0].guid.text[0] = 'X';
    AUTO_FREE char *third = format(full, SAMPLE_DIR);
    assert_string_equal(first, third);
}

static void disks_stand_in_the_order_of_their_places(void **state)
{
    AUTO_CONFIG struct config *full = sample_full_vm();
    static const unsigned SLOTS[] = {0, 3, 7, 63, 15};

    (void)state;
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(full->disks[i].slot, SLOTS[i]);
}

static void names_of_vms_are_checked(void **state)
{
    static const char *const GOOD[] = {"a", "web 1", "\xE2\x82\xAC", "a.b", "(x)", "a-b"};
    static const char *const BAD[] = {"",
                                      " ",
                                      "\t",
                                      ".",
                                      "..",
                                      ".a",
                                      "-a",
                                      "a/b",
                                      "a\nb",
                                      "/",
                                      "a\x7f",
                                      "\xC3",
                                      "\xFF",
                                      "\xED\xA0\x80",
                                      "\xC0\xAF",
                                      "\xC2\x85",
                                      "\xF4\x90\x80\x80",
                                      "\xEF\xBF\xBE"};
    char longest[CONFIG_NAME_MAX + 2];
    struct err err;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(GOOD); i++)
        assert_true(config_check_vm_name(GOOD[i], &err));
    for (size_t i = 0; i < ARRAY_SIZE(BAD); i++) {
        if (config_check_vm_name(BAD[i], &err))
            fail_msg("name %zu was taken", i);
        assert_int_equal(err.code, ERR_INVALID);
    }
    memset(longest, 'x', sizeof longest);
    longest[CONFIG_NAME_MAX] = '\0';
    assert_true(config_check_vm_name(longest, &err));
    longest[CONFIG_NAME_MAX] = 'x';
    longest[CONFIG_NAME_MAX + 1] = '\0';
    assert_false(config_check_vm_name(longest, &err));
    assert_true(config_check_snapshot_name("web - (1/2/2008 - 3:04)", &err));
    assert_true(config_check_snapshot_name(".hidden", &err));
    assert_false(config_check_snapshot_name("  ", &err));
    assert_false(config_check_snapshot_name(longest, &err));
}

/* Each changes one thing in a good VM so that it must be refused. */
static void too_little_memory(struct config *c)
{
    c->memory_bytes = 15U << 20;
}
static void half_a_mib(struct config *c)
{
    c->memory_bytes += 1U << 19;
}
static void too_much_memory(struct config *c)
{
    c->memory_bytes = 5ULL << 40;
}
static void no_processor(struct config *c)
{
    c->cpus = 0;
}
static void too_many_processors(struct config *c)
{
    c->cpus = 256;
}
static void generation_3(struct config *c)
{
    c->generation = 3;
}
static void generation_2_with_ide(struct config *c)
{
    c->generation = 2;
}
static void no_machine(struct config *c)
{
    c->machine[0] = '\0';
}
static void machine_with_option(struct config *c)
{
    memcpy(c->machine, "pc,a=b", 7);
}
static void model_like_an_option(struct config *c)
{
    c->cpu_model[0] = '-';
}
static void ide_slot_4(struct config *c)
{
    c->disks[0].slot = 4;
}
static void place_taken_twice(struct config *c)
{
    sample_disk(c, BUS_IDE, 0, true, NULL);
}
static void image_attached_twice(struct config *c)
{
    sample_disk(c, BUS_IDE, 1, false, SAMPLE_DIR "/web.vhd");
}
static void disk_without_image(struct config *c)
{
    sample_disk(c, BUS_IDE, 1, false, NULL);
}
static void relative_path(struct config *c)
{
    sample_disk(c, BUS_IDE, 1, false, "a.vhd");
}
static void dotted_path(struct config *c)
{
    sample_disk(c, BUS_IDE, 1, false, "/a/../b.vhd");
}
static void path_with_newline(struct config *c)
{
    sample_disk(c, BUS_IDE, 1, false, "/a\nb.vhd");
}
static void path_not_utf8(struct config *c)
{
    sample_disk(c, BUS_IDE, 1, false, "/a\xFF.vhd");
}
static void virtio_cdrom(struct config *c)
{
    sample_disk(c, BUS_VIRTIO, 1, true, "/a.iso");
}
static void unknown_bus(struct config *c)
{
    c->disks[0].bus = (enum config_bus)9;
}
static void nvram_in_generation_1(struct config *c)
{
    c->nvram = sample_guid(1);
}
static void memory_without_saved(struct config *c)
{
    c->memory = sample_guid(1);
}
static void saved_without_memory(struct config *c)
{
    c->saved = sample_guid(1), c->saved_state = STATE_RUNNING;
}
static void no_guid(struct config *c)
{
    c->guid.text[0] = '\0';
}
static void bad_parent(struct config *c)
{
    memcpy(c->parent.text, "x", 2);
}
static void time_before_1970(struct config *c)
{
    c->created_ms = -1;
}
static void notes_with_bell(struct config *c)
{
    struct err err;
    sample_check(config_set_string(&c->notes, "a\ab", &err), &err);
}
static void initrd_without_kernel(struct config *c)
{
    struct err err;
    sample_check(config_set_string(&c->initrd, "/i", &err), &err);
}
static void listed_twice(struct config *c)
{
    struct config_listed listed = {.guid = sample_guid(5)};
    struct err err;
    sample_check(config_add_listed(c, &listed, &err) && config_add_listed(c, &listed, &err), &err);
}
static void add_nic(struct config *c, enum config_nic_kind kind, const char *mac, const char *target,
                    const char *forward)
{
    char *forwards[] = {(char *)forward};
    struct config_nic nic = {
        .kind = kind, .target = (char *)target, .forwards = forwards, .forward_count = !!forward};
    struct err err;
    snprintf(nic.mac, sizeof nic.mac, "%s", mac);
    sample_check(config_add_nic(c, &nic, &err), &err);
}
static void mac_of_a_group(struct config *c)
{
    add_nic(c, NIC_USER, "53:54:00:00:00:01", NULL, NULL);
}
static void mac_too_short(struct config *c)
{
    add_nic(c, NIC_USER, "52:54:00:00:00", NULL, NULL);
}
static void bridge_without_name(struct config *c)
{
    add_nic(c, NIC_BRIDGE, "52:54:00:00:00:01", NULL, NULL);
}
static void tap_with_comma(struct config *c)
{
    add_nic(c, NIC_TAP, "52:54:00:00:00:01", "t,script=x", NULL);
}
static void forward_of_port_0(struct config *c)
{
    add_nic(c, NIC_USER, "52:54:00:00:00:01", NULL, "tcp:0:22");
}
static void forward_too_high(struct config *c)
{
    add_nic(c, NIC_USER, "52:54:00:00:00:01", NULL, "tcp:65536:22");
}
static void forward_of_a_tap(struct config *c)
{
    add_nic(c, NIC_TAP, "52:54:00:00:00:01", "tap0", "tcp:1:22");
}
static void forward_with_more(struct config *c)
{
    add_nic(c, NIC_USER, "52:54:00:00:00:01", NULL, "tcp:1:22,x");
}

static void contradictions_are_refused(void **state)
{
    static void (*const SPOILERS[])(struct config *) = {
        too_little_memory,
        half_a_mib,
        too_much_memory,
        no_processor,
        too_many_processors,
        generation_3,
        generation_2_with_ide,
        no_machine,
        machine_with_option,
        model_like_an_option,
        ide_slot_4,
        place_taken_twice,
        image_attached_twice,
        disk_without_image,
        relative_path,
        dotted_path,
        path_with_newline,
        path_not_utf8,
        virtio_cdrom,
        unknown_bus,
        nvram_in_generation_1,
        memory_without_saved,
        saved_without_memory,
        no_guid,
        bad_parent,
        time_before_1970,
        notes_with_bell,
        initrd_without_kernel,
        listed_twice,
        mac_of_a_group,
        mac_too_short,
        bridge_without_name,
        tap_with_comma,
        forward_of_port_0,
        forward_too_high,
        forward_of_a_tap,
        forward_with_more,
    };
    struct err err;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(SPOILERS); i++) {
        AUTO_CONFIG struct config *config = sample_vm(SAMPLE_DIR);
        char *xml;
        size_t length;
        assert_true(config_check(config, &err));
        SPOILERS[i](config);
        if (config_check(config, &err))
            fail_msg("number %zu was taken", i);
        assert_int_equal(err.code, ERR_INVALID);
        assert_false(config_format(config, SAMPLE_DIR, &xml, &length, &err));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_round_trip_is_exact_to_the_byte),
        cmocka_unit_test(a_round_trip_keeps_every_field),
        cmocka_unit_test(a_base_is_noted_once_and_can_be_forgotten),
        cmocka_unit_test(a_round_trip_keeps_disks_and_adapters),
        cmocka_unit_test(a_snapshot_keeps_its_part),
        cmocka_unit_test(paths_in_the_folder_move_with_it),
        cmocka_unit_test(guids_are_read_in_any_case_and_written_upper),
        cmocka_unit_test(utf16_is_read),
        cmocka_unit_test(unknown_elements_are_ignored),
        cmocka_unit_test(a_copy_is_deep_and_equal),
        cmocka_unit_test(disks_stand_in_the_order_of_their_places),
        cmocka_unit_test(names_of_vms_are_checked),
        cmocka_unit_test(contradictions_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
