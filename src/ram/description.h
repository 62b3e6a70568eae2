/* QEMU's description of the device state that it has written: JSON behind the end of the stream.
 *
 *   {"page_size": 4096, "devices": [{"name", "instance_id", "version"?, "fields": [FIELD...], "subsections"?: [STRUCT...]}...]}
 *   FIELD:  {"name", "size": bytes of one element, "array_len"?: elements, "struct"?: STRUCT}
 *   STRUCT: {"vmsd_name", "version", "fields"?, "subsections"?}
 *
 * The devices stand in the stream's order. Each takes 04, u32 section id, str8 name, u32 instance, u32 version, its fields, its
 * subsections (05, str8 name, u32 version, fields, subsections), 7e, u32 section id (migration/savevm.c, vmstate.c). */
#pragma once

#include "err.h"

#include <stddef.h>
#include <stdint.h>

/* Is the state what its description says, section by section, field by field, to the end? state is what the stream holds
 * from the first device to its end, description the offset of the JSON, of which stream_check_state() knows that it is there.
 * ERR_CORRUPT names the byte of the state. */
bool description_check(const uint8_t *state, size_t length, size_t description, struct err *err) MUST_CHECK;
