/* states.h - what states.c (which inputs are caches) and state_windows.c (how much of them is
 * read) share. */
#ifndef FG_PASSES_STATES_H
#define FG_PASSES_STATES_H

#include "passes/pass.h"

/* Whether the instruction, or one in its regions, reads r. */
bool fg_reads(const fg_inst *i, fg_reg r);
/* What was only read by what is spelled anew goes: it would count as a reader. */
void fg_drop_unread(fg_module *m, fg_arena *a);
/* Of a window, whose length, next and keep are set: the row behind its past and its capacity.
 * Those that grow alike, by `more` rows, have one of each. */
void fg_window_symbols(fg_module *m, const fg_state *s, fg_expr more, fg_expr *at,
                       fg_expr *capacity);
/* States of which only the last rows are read become windows; true when something changed. */
bool fg_state_windows(fg_module *m, fg_passctx *cx);

#endif
