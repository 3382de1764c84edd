/* split_gates.h - a step of fuse_ops. */
#ifndef FG_PASSES_SPLIT_GATES_H
#define FG_PASSES_SPLIT_GATES_H

#include "passes/pass.h"

/* Products whose halves gate each other become two; true: something changed. */
bool fg_split_gates(fg_module *m, fg_passctx *cx);

#endif
