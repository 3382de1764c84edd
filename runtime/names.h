/* names.h - names of generated code for perf and gdb. */
#ifndef FG_RUNTIME_NAMES_H
#define FG_RUNTIME_NAMES_H

#include "runtime/link.h"
#include "runtime/rt.h"

enum { FG_NAMES_PERF = 1, FG_NAMES_GDB = 2 };

/* The words "perf" and "gdb" of a comma list; *unknown: there are others. NULL: none. */
int fg_names_read(const char *list, bool *unknown);
/* Tells who asked for it (cx->names) which kernels the functions of m's code are; until
 * fg_names_drop. What goes wrong is logged: a model runs without. */
void fg_names_add(forge_ctx *cx, forge_model *m, const fg_image *im);
void fg_names_drop(forge_model *m);

#endif
