/* round_rows.h - activations in the form that packed weights meet. */
#ifndef FG_PASSES_ROUND_ROWS_H
#define FG_PASSES_ROUND_ROWS_H

#include "ir/ir.h"

bool fg_round_rows(fg_module *m, fg_arena *scratch, bool *changed);

#endif
