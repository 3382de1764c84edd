/* rewrite.h - renaming registers during one forward walk.
 *
 * A pass that finds %b to equal %a notes it, and every later instruction it visits reads
 * %a instead. Definitions stand before readers, so one walk suffices and no use list is
 * needed. fg_rewrite_done renames the model's outputs.
 */
#ifndef FG_PASSES_REWRITE_H
#define FG_PASSES_REWRITE_H

#include "ir/ir.h"

typedef struct fg_rewrite {
    fg_module *m;
    fg_arena *a;
    fg_reg *to; /* [n]: 0 or what to read instead */
    uint32_t n;
    bool changed;
} fg_rewrite;

fg_rewrite fg_rewrite_new(fg_module *m, fg_arena *scratch);
fg_reg fg_rewrite_find(fg_rewrite *w, fg_reg r);
void fg_rewrite_set(fg_rewrite *w, fg_reg from, fg_reg to);
void fg_rewrite_operands(fg_rewrite *w,
                         fg_inst *i); /* regions are the walker's to visit */
void fg_rewrite_done(fg_rewrite *w);

/* The one result of `old` is now computed as register `by`, of the same type. When `by`
 * was made for this (its number is at least `fresh`), its instruction takes over the old
 * register, so that names survive; else readers are renamed. `old` is unlinked. */
void fg_rewrite_replace(fg_rewrite *w, fg_inst *old, fg_reg by, fg_reg fresh);

#endif
