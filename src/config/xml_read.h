/* Reading typed values out of an XML document, with errors that name the file and the element. */
#pragma once

#include "err.h"
#include "guid.h"

#include <libxml/tree.h>
#include <stddef.h>
#include <stdint.h>

/* UTF-8, or UTF-16 with or without a byte order mark. Bounded, no network, no document type. The caller frees
 * with xmlFreeDoc(). */
bool xml_parse(const void *bytes, size_t length, const char *file, xmlDoc **ret_doc,
               struct err *err) MUST_CHECK;

struct xml_at {
    const char *file;
    const xmlNode *node; /* an element */
};

enum xml_need { XML_REQUIRED, XML_OPTIONAL };

/* The element at the path (names with '/' between) below at; twice the same name is an error. An optional one
 * that is not there: ret_child->node NULL, true. */
bool xml_find(struct xml_at at, const char *path, enum xml_need need, struct xml_at *ret_child,
              struct err *err) MUST_CHECK;
/* Values, with their type attribute checked. An optional one that is not there leaves its output as it is. */
bool xml_string(struct xml_at at, const char *path, enum xml_need need, char **ret_text,
                struct err *err) MUST_CHECK; /* owned; what *ret_text held is freed */
bool xml_integer(struct xml_at at, const char *path, enum xml_need need, uint64_t max, uint64_t *ret_value,
                 struct err *err) MUST_CHECK;
/* Empty text is an unset GUID. */
bool xml_guid(struct xml_at at, const char *path, enum xml_need need, struct guid *ret_guid,
              struct err *err) MUST_CHECK;
/* ERR_CORRUPT `file: /path/of/element[/path]: what` */
bool xml_bad(struct xml_at at, const char *path, struct err *err, const char *what);
/* Is it an element called prefix + decimal number without leading zeros below max? Then *ret_number is that.
 */
bool xml_is_numbered(const xmlNode *node, const char *prefix, unsigned max, unsigned *ret_number);
