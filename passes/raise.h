/* raise.h - idioms of exporters to single instructions; the first step of fuse_ops. */
#ifndef FG_PASSES_RAISE_H
#define FG_PASSES_RAISE_H

#include "passes/pass.h"

bool fg_raise_idioms(fg_module *m, fg_passctx *cx); /* true: something changed */
/* root is an add; true when it was replaced by rope. */
bool fg_raise_rope(fg_module *m, fg_inst *root, fg_report *report);

#endif
