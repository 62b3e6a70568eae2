/* A VM is made, and the power goes, or the disk is full, at each call: it is there, whole, or nothing of it is. */
#include "store_sample.h"

#include "auto.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define NO_SPACE_CALLS                                                                                       \
    (IO_CALL_CREATE | IO_CALL_WRITE | IO_CALL_TRUNCATE | IO_CALL_SYNC | IO_CALL_ALLOCATE | IO_CALL_RENAME |  \
     IO_CALL_LINK)

static void place_ok(bool ok, const struct err *err)
{
    if (!ok)
        fail_msg("%s", err->text);
}

static void assert_whole(struct store *store)
{
    struct plan_layer *layers;
    size_t count;
    struct err err;

    place_ok(store_layers(store, &layers, &count, &err), &err);
    assert_int_equal(count, 1);
    store_layers_free(layers, count);
}

static void a_power_cut_while_creating_leaves_a_vm_or_none(void **state)
{
    bool struck = true;

    (void)state;
    for (uint64_t nth = 1; struck; nth++) {
        struct place place;
        struct err err;
        char **names, *dir = NULL;
        place_new(&place, IO_MEMORY_FORGETS);
        io_memory_sync_all(place.memory);
        io_failing_set(place.failing, (struct io_fault){.calls = IO_CALLS_CHANGES,
                                                        .nth = nth,
                                                        .errnum = EIO,
                                                        .done_anyway = nth & 1,
                                                        .forever = true});
        bool ok = place_create(&place, &err);
        struck = io_failing_struck(place.failing);
        io_failing_set(place.failing, (struct io_fault){0});
        io_memory_crash(place.memory, nth);
        place_ok(store_list(place.io, &names, &err), &err);
        assert_true(!ok || names[0]);
        if (names[0]) {
            struct store *store = place_open(&place);
            assert_whole(store);
            store_close(store);
        } else {
            /* The next one takes away what is left. */
            AUTO_CONFIG struct config *vm = sample_vm(place.vm_dir);
            place_ok(config_set_string(&vm->name, "next", &err) &&
                          store_create(place.io, vm, place_make_disk, (void *)place.io, &dir, &err),
                      &err);
            free(dir);
            AUTO_BUF struct buf text = BUF_INIT;
            place_list(place.plain, place.home, false, &text);
            assert_null(strstr((char *)text.data, ".new~"));
        }
        store_list_free(names);
        place_done(&place);
    }
}

static void a_full_disk_while_creating_leaves_none(void **state)
{
    bool struck = true;

    (void)state;
    for (uint64_t nth = 1; struck; nth++) {
        struct place place;
        struct err err = ERR_INIT;
        place_new(&place, IO_MEMORY_PLAIN);
        io_failing_set(
            place.failing,
            (struct io_fault){.calls = NO_SPACE_CALLS, .nth = nth, .errnum = ENOSPC});
        bool ok = place_create(&place, &err);
        struck = io_failing_struck(place.failing);
        AUTO_BUF struct buf text = BUF_INIT;
        place_list(place.plain, place.home, false, &text);
        assert_int_equal(ok, !struck);
        assert_true(ok || (err.code == ERR_NO_SPACE && text.length == 0));
        place_done(&place);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_power_cut_while_creating_leaves_a_vm_or_none),
        cmocka_unit_test(a_full_disk_while_creating_leaves_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
