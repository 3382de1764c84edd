/* as_c.h - a module as C: printed, compiled by a C compiler, loaded and called. */
#ifndef FG_TESTS_AS_C_H
#define FG_TESTS_AS_C_H

#include "codegen/compile.h"
#include "ir/eval.h"

/* c holds a module of stage FUSED; symbols named d7 are 7. got: [noutput], in c->a. False with the
 * reason in `why`. */
bool as_c_run(fg_compiled *c, const fg_tensor *in, fg_tensor *got, char *why, size_t n);

#endif
