/* unfuse.h - instructions that the code generator takes for some types only. */
#ifndef FG_PASSES_UNFUSE_H
#define FG_PASSES_UNFUSE_H

#include "passes/pass.h"

/* Spells out every attention instruction on f64; false with a diagnostic. */
bool fg_unfuse_attention(fg_module *m);

#endif
