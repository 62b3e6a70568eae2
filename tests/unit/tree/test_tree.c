/* The snapshot tree as a value. */
#include "tree_sample.h"

#include "auto.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* 1 - 2 - 3
 *       \ 4 - Now
 * 5 */
static struct tree *five(void)
{
    struct config *vm = sample_vm(SAMPLE_DIR);
    struct config *snapshots[] = {
        sample_listed(vm, 1, 0, STATE_OFF),     sample_listed(vm, 2, 1, STATE_RUNNING),
        sample_listed(vm, 3, 2, STATE_OFF),     sample_listed(vm, 4, 2, STATE_PAUSED),
        sample_listed(vm, 5, 0, STATE_RUNNING),
    };
    struct config *order[] = {snapshots[3], snapshots[0], snapshots[4], snapshots[2], snapshots[1]};

    vm->parent = sample_guid(4);
    return sample_tree(vm, order, 5);
}

static void snapshots_are_in_the_order_of_creation(void **state)
{
    AUTO_TREE struct tree *tree = five();

    (void)state;
    for (unsigned i = 0; i < 5; i++)
        assert_string_equal(tree->snapshots[i]->snapshot.text, sample_guid(i + 1).text);
}

static void parents_come_from_the_list(void **state)
{
    AUTO_TREE struct tree *tree = five();
    struct guid none = {0}, two = sample_guid(2), three = sample_guid(3), four = sample_guid(4);
    const struct config *children[2];

    (void)state;
    assert_string_equal(tree->snapshots[3]->parent.text, two.text);
    assert_int_equal(tree_children(tree, &none, children, 2), 2);
    assert_ptr_equal(children[1], tree->snapshots[4]);
    assert_int_equal(tree_children(tree, &two, children, 1), 2);
    assert_ptr_equal(children[0], tree->snapshots[2]);
    assert_true(tree_has_dependants(tree, &two));
    assert_true(tree_has_dependants(tree, &four));
    assert_false(tree_has_dependants(tree, &three));
}

static void images_that_settings_name_are_known(void **state)
{
    struct config *vm = sample_vm(SAMPLE_DIR);
    struct config *snapshots[] = {sample_listed(vm, 1, 0, STATE_OFF), sample_listed(vm, 2, 1, STATE_OFF)};

    (void)state;
    sample_disk(snapshots[1], BUS_VIRTIO, 0, false, "/elsewhere/data.vhd");
    sample_disk(snapshots[1], BUS_SCSI, 0, true, "/elsewhere/medium.iso");
    AUTO_TREE struct tree *tree = sample_tree(vm, snapshots, 2);
    assert_true(tree_names_disk(tree, SAMPLE_DIR "/web.vhd"));
    assert_true(tree_names_disk(tree, snapshots[0]->disks[0].path));
    assert_true(tree_names_disk(tree, "/elsewhere/data.vhd"));
    assert_false(tree_names_disk(tree, "/elsewhere/medium.iso"));
    assert_false(tree_names_disk(tree, "/elsewhere/data"));
    assert_false(tree_names_disk(tree, ""));
}

/* Each makes a tree that must be refused out of three good snapshots. */
struct parts {
    struct config *vm, *snapshots[3];
    size_t count;
};
static void own_parent(struct parts *parts)
{
    parts->vm->listed[1].parent = sample_guid(2);
}
static void circle(struct parts *parts)
{
    parts->vm->listed[0].parent = sample_guid(3);
}
static void lost_parent(struct parts *parts)
{
    parts->vm->listed[1].parent = sample_guid(9);
}
static void lost_now(struct parts *parts)
{
    parts->vm->parent = sample_guid(9);
}
static void not_there(struct parts *parts)
{
    config_free(parts->snapshots[--parts->count]);
}
static void not_listed(struct parts *parts)
{
    parts->vm->listed_count--;
}
static void another_one(struct parts *parts)
{
    parts->snapshots[0]->snapshot = sample_guid(9);
}
static void twice_there(struct parts *parts)
{
    parts->snapshots[0]->snapshot = sample_guid(2);
}
static void of_another_vm(struct parts *parts)
{
    parts->snapshots[0]->guid = sample_guid(9);
}
static void written_by_the_vm(struct parts *parts)
{
    struct err err;
    sample_check(config_set_string(&parts->vm->disks[0].path, parts->snapshots[1]->disks[0].path, &err),
                 &err);
}

static void trees_that_do_not_hold_together_are_refused(void **state)
{
    static void (*const SPOILERS[])(struct parts *) = {
        own_parent, circle,      lost_parent, lost_now,      not_there,
        not_listed, another_one, twice_there, of_another_vm, written_by_the_vm,
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(SPOILERS); i++) {
        struct config *vm = sample_vm(SAMPLE_DIR);
        struct parts parts = {.vm = vm, .count = 3};
        struct tree *tree = NULL;
        struct err err;
        for (unsigned j = 0; j < 3; j++)
            parts.snapshots[j] = sample_listed(vm, j + 1, j, STATE_OFF);
        SPOILERS[i](&parts);
        if (tree_new(SAMPLE_DIR, vm, parts.snapshots, parts.count, &tree, &err))
            fail_msg("number %zu was taken", i);
        assert_int_equal(err.code, ERR_CORRUPT);
        assert_null(tree);
        for (size_t j = 0; j < parts.count; j++)
            config_free(parts.snapshots[j]);
        config_free(vm);
    }
}

static void assert_found(const struct tree *tree, const char *selector, unsigned number)
{
    const struct config *found;
    struct err err;

    if (!tree_find(tree, selector, &found, &err))
        fail_msg("%s", err.text);
    assert_string_equal(found->snapshot.text, sample_guid(number).text);
}

static void assert_not_found(const struct tree *tree, const char *selector, enum err_code code)
{
    const struct config *found = NULL;
    struct err err;

    assert_false(tree_find(tree, selector, &found, &err));
    assert_int_equal(err.code, code);
    assert_null(found);
}

static void snapshots_are_found_by_guid_name_and_prefix(void **state)
{
    AUTO_TREE struct tree *tree = five();
    struct err err;

    (void)state;
    assert_found(tree, "00000003-0000-4000-8000-000000000003", 3);
    assert_found(tree, "snap 4", 4);
    assert_found(tree, "00000002", 2);
    assert_found(tree, "00000002-00", 2);
    assert_not_found(tree, "00000009", ERR_NOT_FOUND);
    assert_not_found(tree, "snap", ERR_NOT_FOUND);
    assert_not_found(tree, "", ERR_NOT_FOUND);
    assert_not_found(tree, "000", ERR_NOT_FOUND);
    assert_not_found(tree, "0000", ERR_AMBIGUOUS);
    /* A name that looks like another's GUID does not hide it; one that looks like a prefix goes before it. */
    sample_check(config_set_string(&tree->snapshots[0]->name, "00000003-0000-4000-8000-000000000003", &err),
                 &err);
    assert_found(tree, "00000003-0000-4000-8000-000000000003", 3);
    sample_check(config_set_string(&tree->snapshots[0]->name, "00000004", &err), &err);
    assert_found(tree, "00000004", 1);
}

static void an_ambiguous_name_lists_its_candidates(void **state)
{
    AUTO_TREE struct tree *tree = five();
    const struct config *found;
    struct err err;

    (void)state;
    sample_check(config_set_string(&tree->snapshots[0]->name, "same", &err) &&
                     config_set_string(&tree->snapshots[4]->name, "same", &err),
                 &err);
    assert_false(tree_find(tree, "same", &found, &err));
    assert_int_equal(err.code, ERR_AMBIGUOUS);
    assert_non_null(strstr(err.text, sample_guid(1).text));
    assert_non_null(strstr(err.text, sample_guid(5).text));
    assert_null(strstr(err.text, sample_guid(2).text));
}

static void assert_layer(const struct tree *tree, const char *parent, const char *name)
{
    struct guid guid = sample_guid(7);
    AUTO_FREE char *path = tree_layer_path(tree, parent, &guid);
    AUTO_FREE char *expected = string_printf(SAMPLE_LAYERS "/%s_%s.avhd", name, guid.text);

    assert_string_equal(path, expected);
    assert_true(tree_is_layer(tree, path));
}

static void layers_are_named_after_their_base(void **state)
{
    AUTO_TREE struct tree *tree = five();
    struct guid guid = sample_guid(7);
    char longest[300];

    (void)state;
    assert_layer(tree, "/a/web.vhd", "web");
    assert_layer(tree, "/a/web.VHD", "web");
    assert_layer(tree, "/a/web.vhdx", "web");
    assert_layer(tree, "/a/web.x", "web.x");
    assert_layer(tree, "/a/.vhd", "disk");
    assert_layer(tree, "/a/my_disk.vhd", "my_disk");
    assert_layer(tree, "/a/web_00000001-0000-4000-8000-000000000001.avhd", "web");
    assert_layer(tree, "/a/w_00000001-0000-4000-8000-000000000001_00000001-0000-4000-8000-000000000002.avhd",
                 "w");
    assert_layer(tree, "/a/_00000001-0000-4000-8000-000000000001.avhd", "disk");
    snprintf(longest, sizeof longest, "/a/%0*d.vhd", 250, 1);
    for (size_t i = 3; i < 253; i += 2)
        memcpy(longest + i, "\xC3\xA9", 2);
    AUTO_FREE char *path = tree_layer_path(tree, longest, &guid);
    assert_true(strlen(strrchr(path, '/') + 1) <= 255);
    assert_int_equal(strcspn(strrchr(path, '/'), "_") % 2, 1); /* no half character */
}

static void only_own_names_in_the_own_folder_are_layers(void **state)
{
    AUTO_TREE struct tree *tree = five();
    static const char *const FOREIGN[] = {
        SAMPLE_DIR "/web_00000001-0000-4000-8000-000000000001.avhd",
        SAMPLE_LAYERS "/web.avhd",
        SAMPLE_LAYERS "/web_00000001-0000-4000-8000-000000000001.vhd",
        SAMPLE_LAYERS "/_00000001-0000-4000-8000-000000000001.avhd",
        SAMPLE_LAYERS "/web_00000001-0000-4000-8000-00000000000.avhd",
        SAMPLE_LAYERS "/sub/web_00000001-0000-4000-8000-000000000001.avhd",
        SAMPLE_LAYERS "x/web_00000001-0000-4000-8000-000000000001.avhd",
        "/other/Snapshots/" SAMPLE_VM "/web_00000001-0000-4000-8000-000000000001.avhd",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(FOREIGN); i++)
        if (tree_is_layer(tree, FOREIGN[i]))
            fail_msg("%s", FOREIGN[i]);
}

static void a_thousand_generations_are_fast(void **state)
{
    struct config *vm = sample_vm(SAMPLE_DIR);
    struct config **snapshots = calloc(2000, sizeof(struct config *));
    struct tree *tree;
    struct err err;

    (void)state;
    for (unsigned i = 0; i < 2000; i++)
        snapshots[i] = sample_listed(vm, i + 1, i, STATE_OFF);
    vm->parent = sample_guid(2000);
    assert_true(tree_new(SAMPLE_DIR, vm, snapshots, 2000, &tree, &err));
    assert_found(tree, "snap 1999", 1999);
    tree_free(tree);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(snapshots_are_in_the_order_of_creation),
        cmocka_unit_test(parents_come_from_the_list),
        cmocka_unit_test(images_that_settings_name_are_known),
        cmocka_unit_test(trees_that_do_not_hold_together_are_refused),
        cmocka_unit_test(snapshots_are_found_by_guid_name_and_prefix),
        cmocka_unit_test(an_ambiguous_name_lists_its_candidates),
        cmocka_unit_test(layers_are_named_after_their_base),
        cmocka_unit_test(only_own_names_in_the_own_folder_are_layers),
        cmocka_unit_test(a_thousand_generations_are_fast),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
