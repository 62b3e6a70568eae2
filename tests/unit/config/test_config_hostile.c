/* XML that anybody may have written: a clear error, in bounded time and memory, or a good value. */
#include "config_sample.h"

#include "auto.h"
#include "buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <time.h>

#include <cmocka.h>

static char *good_xml(struct config *config)
{
    struct err err;
    char *xml;
    size_t length;

    sample_check(config_format(config, SAMPLE_DIR, &xml, &length, &err), &err);
    config_free(config);
    return xml;
}

static void assert_refused(const void *xml, size_t length, enum err_code code, const char *words)
{
    struct config *config = NULL;
    struct err err;

    if (config_parse(xml, length, "bad.xml", SAMPLE_DIR, &config, &err)) {
        config_free(config);
        fail_msg("was taken; expected: %s", words);
    }
    assert_null(config);
    if (err.code != code || !strstr(err.text, "bad.xml") || !strstr(err.text, words))
        fail_msg("expected %s with '%s', got %s: %s", err_name(code), words, err_name(err.code), err.text);
}

/* xml with the first `from` replaced. */
static char *replaced(const char *xml, const char *from, const char *to)
{
    const char *at = strstr(xml, from);

    if (!at)
        fail_msg("the sample has no %s", from);
    return string_printf("%.*s%s%s", (int)(at - xml), xml, to, at + strlen(from));
}

static void assert_replacement_refused(const char *xml, const char *from, const char *to, const char *words)
{
    AUTO_FREE char *bad = replaced(xml, from, to);

    assert_refused(bad, strlen(bad), ERR_CORRUPT, words);
}

static void a_document_type_is_refused(void **state)
{
    AUTO_FREE char *xml = good_xml(sample_vm(SAMPLE_DIR));
    static const char LAUGHS[] =
        "<!DOCTYPE l [<!ENTITY a \"haha\"><!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;\">"
        "<!ENTITY c \"&b;&b;&b;&b;&b;&b;&b;&b;\"><!ENTITY d \"&c;&c;&c;&c;&c;&c;\">]>\n";
    AUTO_FREE char *bad = replaced(xml, "<configuration>", "");
    AUTO_FREE char *file = NULL;

    (void)state;
    free(bad);
    bad = string_printf("%s<configuration>&d;</configuration>", LAUGHS);
    assert_refused(bad, strlen(bad), ERR_CORRUPT, "DTD");
    file = string_printf("<!DOCTYPE x [<!ENTITY e SYSTEM \"file:///etc/passwd\">]><configuration>&e;"
                         "</configuration>");
    assert_refused(file, strlen(file), ERR_CORRUPT, "DTD");
    AUTO_FREE char *behind =
        string_printf("<?xml version=\"1.0\"?><!-- <!DOCTYPE --><!DOCTYPE x>%s", strchr(xml, '\n'));
    assert_refused(behind, strlen(behind), ERR_CORRUPT, "DTD");
}

static void an_undeclared_entity_is_refused(void **state)
{
    AUTO_FREE char *xml = good_xml(sample_vm(SAMPLE_DIR));

    (void)state;
    assert_replacement_refused(xml, ">web<", ">&e;<", "well-formed");
}

static void what_is_no_xml_is_refused(void **state)
{
    static const char *const BAD[] = {" ",        "x",        "<",
                                      "<a",       "<a>",      "<configuration>",
                                      "<a></b>",  "<a/><b/>", "<?xml version=\"1.0\"?>",
                                      "\xFF\xFE", "<a b=c/>", "<![CDATA[",
                                      "<!--"};
    AUTO_FREE char *xml = good_xml(sample_full_vm());

    (void)state;
    assert_refused("", 0, ERR_CORRUPT, "is empty");
    for (size_t i = 0; i < ARRAY_SIZE(BAD); i++)
        assert_refused(BAD[i], strlen(BAD[i]), ERR_CORRUPT, "well-formed");
    assert_refused("<html/>", 7, ERR_CORRUPT, "not a VM's configuration");
    assert_refused("<configuration/>", 16, ERR_CORRUPT, "properties: is missing");
    AUTO_FREE char *latin = replaced(xml, "w\xC3\xA9", "w\xE9");
    assert_refused(latin, strlen(latin), ERR_CORRUPT, "well-formed");
}

static void every_cut_off_file_is_refused(void **state)
{
    AUTO_FREE char *xml = good_xml(sample_full_vm());
    size_t end = strlen(xml) - strlen("</configuration>\n");

    (void)state;
    for (size_t length = 0; length <= end; length++) {
        struct config *config = NULL;
        struct err err;
        if (config_parse(xml, length, "cut.xml", SAMPLE_DIR, &config, &err))
            fail_msg("taken when cut off at %zu", length);
        assert_int_equal(err.code, ERR_CORRUPT);
    }
}

static void every_missing_element_is_told(void **state)
{
    static const char *const NEEDED[] = {
        "global_id", "name",      "creation_time", "parent_snapshot", "version", "size",       "count",
        "machine",   "cpu_model", "accelerator",   "clock",           "display", "generation", "pathname",
        "type",      "kind",      "mac",           "memory_id",       "guid"};
    AUTO_FREE char *xml = good_xml(sample_full_vm());

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(NEEDED); i++) {
        AUTO_FREE char *open = string_printf("<%s type=", NEEDED[i]);
        AUTO_FREE char *close = string_printf("</%s>", NEEDED[i]);
        AUTO_FREE char *bad = replaced(xml, open, "<other type=");
        char *end = strstr(strstr(bad, "<other type="), close);
        assert_non_null(end);
        AUTO_FREE char *worse = string_printf("%.*s</other>%s", (int)(end - bad), bad, end + strlen(close));
        assert_refused(worse, strlen(worse), ERR_CORRUPT, NEEDED[i]);
    }
}

static void wrong_types_and_values_are_refused(void **state)
{
    AUTO_FREE char *xml = good_xml(sample_full_vm());

    (void)state;
    assert_replacement_refused(xml, "<count type=\"integer\">", "<count type=\"string\">",
                               "count: is not of type");
    assert_replacement_refused(xml, "<machine type=\"string\">", "<machine>", "machine: is not of type");
    assert_replacement_refused(xml, ">255<", "> 255<", "count");
    assert_replacement_refused(xml, ">255<", ">-1<", "count");
    assert_replacement_refused(xml, ">255<", ">0x10<", "count");
    assert_replacement_refused(xml, ">255<", "><", "count");
    assert_replacement_refused(xml, ">255<", ">99999999999999999999999<", "count");
    assert_replacement_refused(xml, ">255<", ">300<", "processors");
    assert_replacement_refused(xml, ">255<", "><b/>255<", "count");
    assert_replacement_refused(xml, ">kvm<", ">warp<", "unknown value");
    assert_replacement_refused(xml, ">VHD<", ">RAW<", "type: unknown value");
    assert_replacement_refused(xml, ">" SAMPLE_VM "<", ">11111111<", "no GUID");
    assert_replacement_refused(xml, ">paused<", ">off<", "saved state");
    assert_replacement_refused(xml, "2008-02-29T", "2007-02-29T", "creation_time");
    assert_replacement_refused(xml, "2008-02-29T", "2008-2-29T", "creation_time");
    assert_replacement_refused(xml, "2008-02-29T", "1900-02-28T", "creation_time");
    assert_replacement_refused(xml, "<count type=\"integer\">255</count>",
                               "<count type=\"integer\">1</count><count type=\"integer\">2</count>",
                               "stands twice");
    assert_replacement_refused(xml, ">web.vhd<", ">../../../../../../../../../etc/../a\nb<", "control");
}

static void lists_that_do_not_agree_are_refused(void **state)
{
    AUTO_FREE char *xml = good_xml(sample_full_vm());

    (void)state;
    static const char *const TIMES[] = {"", "1", "1.", "x.1", "1.1.1", "1.0000000001", "99999999999999999999.1", "1.1 ", " 1.1"};
    for (size_t i = 0; i < ARRAY_SIZE(TIMES); i++) {
        char wrong[64];
        snprintf(wrong, sizeof wrong, ">%s<", TIMES[i]);
        assert_replacement_refused(xml, ">1204286400.000000007<", wrong, "modified");
    }
    assert_replacement_refused(xml, ">/srv/disks/&lt;base&gt;.vhd<", "><", "file");
    assert_replacement_refused(xml, "<size type=\"integer\">3<", "<size type=\"integer\">2<", "size");
    assert_replacement_refused(xml, "<size type=\"integer\">3<", "<size type=\"integer\">4<", "size");
    assert_replacement_refused(xml, "<size type=\"integer\">3<", "<size type=\"integer\">999999999999<",
                               "size");
    assert_replacement_refused(xml, "</node0>", "</node0><node2/>", "size");
    assert_replacement_refused(xml, "0000000B-0000-4000-8000-00000000000B",
                               "0000000A-0000-4000-8000-00000000000A", "twice");
    assert_replacement_refused(xml, "</drive1>", "</drive1><drive2/>", "no such place");
    assert_replacement_refused(xml, "<nic0>", "<nic1>", "well-formed");
}

static void a_newer_major_version_is_told(void **state)
{
    AUTO_FREE char *xml = good_xml(sample_vm(SAMPLE_DIR));
    AUTO_FREE char *newer = replaced(xml, ">1.0<", ">2.0<");
    AUTO_FREE char *minor = replaced(xml, ">1.0<", ">1.7<");
    struct config *config;
    struct err err;

    (void)state;
    assert_refused(newer, strlen(newer), ERR_UNSUPPORTED, "newer");
    assert_true(config_parse(minor, strlen(minor), "minor.xml", SAMPLE_DIR, &config, &err));
    config_free(config);
    assert_replacement_refused(xml, ">1.0<", ">1<", "version");
    assert_replacement_refused(xml, ">1.0<", ">1.0.0<", "version");
}

static void assert_refused_soon(struct buf *xml, const char *words)
{
    struct timespec start, end;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &start);
    assert_refused(xml->data, xml->length, ERR_CORRUPT, words);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
    assert_true(end.tv_sec - start.tv_sec < 20);
    buf_done(xml);
}

static void size_and_shape_are_bounded(void **state)
{
    struct buf xml = BUF_INIT;

    (void)state;
    for (unsigned i = 0; i < 100000; i++)
        assert_true(buf_printf(&xml, "<a>"));
    assert_refused_soon(&xml, "deep");
    assert_true(buf_printf(&xml, "<configuration"));
    for (unsigned i = 0; i < 1000000; i++)
        assert_true(buf_printf(&xml, " a%u='>'", i));
    assert_true(buf_printf(&xml, "/>"));
    assert_refused_soon(&xml, "tag");
    assert_true(buf_printf(&xml, "<configuration>"));
    for (unsigned i = 0; i < 1100000; i++)
        assert_true(buf_printf(&xml, "<a/>"));
    assert_refused_soon(&xml, "elements");
    uint8_t *room = buf_reserve(&xml, CONFIG_XML_MAX_BYTES + 1);
    assert_non_null(room);
    memset(room, ' ', CONFIG_XML_MAX_BYTES + 1);
    xml.length = CONFIG_XML_MAX_BYTES + 1;
    assert_refused_soon(&xml, "larger than");
}

static void every_flipped_byte_is_an_error_or_a_good_value(void **state)
{
    AUTO_FREE char *xml = good_xml(sample_full_vm());
    size_t length = strlen(xml), taken = 0;

    (void)state;
    for (size_t i = 0; i < length; i++) {
        for (unsigned bit = 0; bit < 8; bit += 3) {
            struct config *config;
            struct err err;
            xml[i] = (char)(xml[i] ^ 1 << bit);
            if (config_parse(xml, length, "flip.xml", SAMPLE_DIR, &config, &err)) {
                assert_true(config_check(config, &err));
                config_free(config);
                taken++;
            } else {
                assert_true(err.code == ERR_CORRUPT || err.code == ERR_UNSUPPORTED);
            }
            xml[i] = (char)(xml[i] ^ 1 << bit);
        }
    }
    assert_true(taken > 0 && taken < length * 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_document_type_is_refused),
        cmocka_unit_test(an_undeclared_entity_is_refused),
        cmocka_unit_test(what_is_no_xml_is_refused),
        cmocka_unit_test(every_cut_off_file_is_refused),
        cmocka_unit_test(every_missing_element_is_told),
        cmocka_unit_test(wrong_types_and_values_are_refused),
        cmocka_unit_test(lists_that_do_not_agree_are_refused),
        cmocka_unit_test(a_newer_major_version_is_told),
        cmocka_unit_test(size_and_shape_are_bounded),
        cmocka_unit_test(every_flipped_byte_is_an_error_or_a_good_value),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
