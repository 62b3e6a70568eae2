#include "xml_scan.h"

#include <stdbool.h>
#include <string.h>

struct scan {
    const char *at, *end;
    unsigned depth, elements;
};

static bool starts_with(const struct scan *scan, const char *text)
{
    size_t length = strlen(text);

    return (size_t)(scan->end - scan->at) >= length && memcmp(scan->at, text, length) == 0;
}

/* Behind the next `close`, or at the end: the parser will tell what is wrong with that. */
static void skip_to(struct scan *scan, const char *close)
{
    const char *found = memmem(scan->at, (size_t)(scan->end - scan->at), close, strlen(close));

    scan->at = found ? found + strlen(close) : scan->end;
}

/* From `<` to behind `>`; a `>` in quotes does not count. */
static bool scan_tag(struct scan *scan, struct err *err)
{
    const char *start = scan->at;
    char quote = '\0';

    for (; scan->at < scan->end && (quote || *scan->at != '>'); scan->at++) {
        if (scan->at - start > (ptrdiff_t)XML_SCAN_MAX_TAG_BYTES)
            return err_set(err, ERR_CORRUPT, "a tag is longer than %u bytes", XML_SCAN_MAX_TAG_BYTES);
        if (quote ? *scan->at == quote : *scan->at == '"' || *scan->at == '\'')
            quote = quote ? '\0' : *scan->at;
    }
    bool is_end = scan->at - start > 1 && start[1] == '/';
    bool is_empty = scan->at - start > 1 && scan->at[-1] == '/';
    if (scan->at < scan->end)
        scan->at++;
    if (is_end) {
        scan->depth -= scan->depth > 0;
        return true;
    }
    if (++scan->elements > XML_SCAN_MAX_ELEMENTS)
        return err_set(err, ERR_CORRUPT, "more than %u elements", XML_SCAN_MAX_ELEMENTS);
    scan->depth += !is_empty;
    if (scan->depth > XML_SCAN_MAX_DEPTH)
        return err_set(err, ERR_CORRUPT, "elements nested more than %u deep", XML_SCAN_MAX_DEPTH);
    return true;
}

bool xml_scan(const char *text, size_t length, struct err *err)
{
    struct scan scan = {.at = text, .end = text + length};

    for (;;) {
        const char *open = memchr(scan.at, '<', (size_t)(scan.end - scan.at));
        if (!open)
            return true;
        scan.at = open;
        if (starts_with(&scan, "<!--"))
            skip_to(&scan, "-->");
        else if (starts_with(&scan, "<![CDATA["))
            skip_to(&scan, "]]>");
        else if (starts_with(&scan, "<?"))
            skip_to(&scan, "?>");
        else if (starts_with(&scan, "<!"))
            return err_set(err, ERR_CORRUPT, "holds a document type (DTD), which is not accepted");
        else if (!scan_tag(&scan, err))
            return false;
    }
}
