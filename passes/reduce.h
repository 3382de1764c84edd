/* reduce.h - the smallest part of a module that still shows a fault. */
#ifndef FG_PASSES_REDUCE_H
#define FG_PASSES_REDUCE_H

#include "ir/ir.h"

/* Whether the fault shows in m, which is the callee's to change. Diagnostics it causes are
 * forgotten; it must not unwind. */
typedef bool fg_fault_fn(void *user, fg_module *m);

/* The text of what is left, in arena a, when nothing more can go. `text` shows the fault; weights
 * kept in files are lent by `like`. `focus`, unless NULL, names the register where the fault
 * is probably to be seen: if it is, little else is looked at. */
const char *fg_reduce(fg_module *like, fg_arena *a, const char *text, const char *focus,
                      fg_fault_fn *shows, void *user);

#endif
