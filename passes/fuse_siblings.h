/* fuse_siblings.h - the second half of fuse_ops. */
#ifndef FG_PASSES_FUSE_SIBLINGS_H
#define FG_PASSES_FUSE_SIBLINGS_H

#include "passes/pass.h"

/* Joins kernels that do not depend on each other, where that pays. */
void fg_fuse_siblings(fg_module *m, fg_passctx *cx);

#endif
