/* Between the files of the engine. */
#pragma once

#include "engine.h"
#include "engine_core.h"

/* Runs on the disk's thread and is waited for: at once, or at an instant with no request at work. */
typedef bool engine_call_fn(struct core *core, void *context, struct err *err);
bool engine_call(struct engine *engine, bool at_instant, engine_call_fn *call, void *context,
                 struct err *err) MUST_CHECK;
