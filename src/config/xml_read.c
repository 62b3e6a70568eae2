#include "xml_read.h"
#include "xml_scan.h"

#include "auto.h"
#include "utf16.h"

#include <inttypes.h>
#include <libxml/parser.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

static bool is_utf16(const uint8_t *bytes, size_t length, enum utf16_order *ret_order)
{
    if (length < 2)
        return false;
    bool little = (bytes[0] == 0xFF && bytes[1] == 0xFE) || (bytes[0] == '<' && bytes[1] == 0);
    bool big = (bytes[0] == 0xFE && bytes[1] == 0xFF) || (bytes[0] == 0 && bytes[1] == '<');
    *ret_order = little ? UTF16_LE : UTF16_BE;
    return little || big;
}

static bool parse_text(const char *text, size_t length, const char *file, xmlDoc **ret_doc, struct err *err)
{
    /* No XML_PARSE_HUGE: the library's own limits stay. No XML_PARSE_NOENT: nothing is expanded. The encoding
     * given here wins over the one that the text tells of itself, which was true before it was decoded. */
    int options = XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING | XML_PARSE_NOCDATA;

    if (!xml_scan(text, length, err))
        return err_prefix(err, "%s", file);
    xmlParserCtxt *parser = xmlNewParserCtxt();
    if (!parser)
        return err_oom(err);
    xmlDoc *doc = xmlCtxtReadMemory(parser, text, (int)length, file, "UTF-8", options);
    const xmlError *error = xmlCtxtGetLastError(parser);
    bool ok = doc && !doc->intSubset && !doc->extSubset && xmlDocGetRootElement(doc);
    if (ok)
        *ret_doc = doc;
    else if (error && error->code == XML_ERR_NO_MEMORY)
        err_set_text(err, ERR_NO_MEMORY, 0, "%s: out of memory", file);
    else
        err_set_text(err, ERR_CORRUPT, 0, "%s: line %d: is no well-formed XML: %.*s", file,
                     error ? error->line : 0,
                     error && error->message ? (int)strcspn(error->message, "\n") : 0,
                     error && error->message ? error->message : "");
    if (!ok)
        xmlFreeDoc(doc);
    xmlFreeParserCtxt(parser);
    return ok;
}

bool xml_parse(const void *bytes, size_t length, const char *file, xmlDoc **ret_doc, struct err *err)
{
    enum utf16_order order;

    if (length == 0 || length > INT_MAX / 2)
        return err_set(err, ERR_CORRUPT, "%s: %s", file, length == 0 ? "is empty" : "is too large");
    if (!is_utf16(bytes, length, &order))
        return parse_text(bytes, length, file, ret_doc, err);
    AUTO_FREE char *text = utf16_decode(bytes, length, order);
    if (!text)
        return err_oom(err);
    return parse_text(text, strlen(text), file, ret_doc, err);
}

bool xml_bad(struct xml_at at, const char *path, struct err *err, const char *what)
{
    xmlChar *where = xmlGetNodePath(at.node);

    err_set_text(err, ERR_CORRUPT, 0, "%s: %s%s%s: %s", at.file, where ? (const char *)where : "?",
                 *path ? "/" : "", path, what);
    xmlFree(where);
    return false;
}

bool xml_find(struct xml_at at, const char *path, enum xml_need need, struct xml_at *ret_child,
              struct err *err)
{
    struct xml_at found = at;

    for (const char *name = path; found.node && *name != '\0';) {
        int length = (int)strcspn(name, "/");
        const xmlNode *parent = found.node;
        found.node = NULL;
        for (const xmlNode *child = parent->children; child; child = child->next) {
            if (child->type != XML_ELEMENT_NODE || xmlStrncmp(child->name, BAD_CAST name, length) != 0 ||
                child->name[length] != '\0')
                continue;
            if (found.node)
                return xml_bad(at, path, err, "stands twice");
            found.node = child;
        }
        name += length + (name[length] == '/');
    }
    if (!found.node && need == XML_REQUIRED)
        return xml_bad(at, path, err, "is missing");
    *ret_child = found;
    return true;
}

/* The text of a value element whose type attribute is as told; NULL where an optional one is missing. */
static bool value_text(struct xml_at at, const char *path, enum xml_need need, const char *type,
                       char **ret_text, struct err *err)
{
    struct xml_at value;

    if (!xml_find(at, path, need, &value, err))
        return false;
    if (!value.node) {
        *ret_text = NULL;
        return true;
    }
    for (const xmlNode *child = value.node->children; child; child = child->next)
        if (child->type != XML_TEXT_NODE && child->type != XML_COMMENT_NODE)
            return xml_bad(at, path, err, "holds something that is no plain text");
    xmlChar *named = xmlGetNoNsProp(value.node, BAD_CAST "type");
    bool matches = named && strcmp((const char *)named, type) == 0;
    xmlFree(named);
    if (!matches)
        return xml_bad(at, path, err,
                       strcmp(type, "string") == 0 ? "is not of type string" : "is not of type integer");
    xmlChar *content = xmlNodeGetContent(value.node);
    char *text = content ? strdup((const char *)content) : NULL;
    xmlFree(content);
    if (!text)
        return err_oom(err);
    *ret_text = text;
    return true;
}

bool xml_string(struct xml_at at, const char *path, enum xml_need need, char **ret_text, struct err *err)
{
    char *text = NULL;

    if (!value_text(at, path, need, "string", &text, err))
        return false;
    if (text) {
        free(*ret_text);
        *ret_text = text;
    }
    return true;
}

/* Decimal digits alone; *end is behind them. */
static bool decimal_parse(const char *text, uint64_t max, uint64_t *ret_value)
{
    uint64_t value = 0;

    if (*text == '\0')
        return false;
    for (; *text >= '0' && *text <= '9'; text++)
        if (__builtin_mul_overflow(value, 10U, &value) ||
            __builtin_add_overflow(value, (unsigned)(*text - '0'), &value))
            return false;
    if (*text != '\0' || value > max)
        return false;
    *ret_value = value;
    return true;
}

bool xml_integer(struct xml_at at, const char *path, enum xml_need need, uint64_t max, uint64_t *ret_value,
                 struct err *err)
{
    AUTO_FREE char *text = NULL;

    if (!value_text(at, path, need, "integer", &text, err))
        return false;
    if (text && !decimal_parse(text, max, ret_value))
        return xml_bad(at, path, err, "is no number, or out of its range");
    return true;
}

bool xml_guid(struct xml_at at, const char *path, enum xml_need need, struct guid *ret_guid, struct err *err)
{
    AUTO_FREE char *text = NULL;
    struct guid guid = {0};

    if (!value_text(at, path, need, "string", &text, err))
        return false;
    if (!text)
        return true;
    if (*text != '\0' && !guid_parse(text, &guid))
        return xml_bad(at, path, err, "is no GUID");
    *ret_guid = guid;
    return true;
}

bool xml_is_numbered(const xmlNode *node, const char *prefix, unsigned max, unsigned *ret_number)
{
    const char *name = (const char *)node->name;
    size_t length = strlen(prefix);
    uint64_t number;

    if (node->type != XML_ELEMENT_NODE || strncmp(name, prefix, length) != 0)
        return false;
    name += length;
    if ((name[0] == '0' && name[1] != '\0') || max == 0 || !decimal_parse(name, max - 1, &number))
        return false;
    *ret_number = (unsigned)number;
    return true;
}
