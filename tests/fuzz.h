/* fuzz.h - random programs. */
#ifndef FG_TESTS_FUZZ_H
#define FG_TESTS_FUZZ_H

#include "ir/ir.h"

/* A module of about `size` instructions, the same for the same seed; NULL when none came out. */
fg_module *fuzz_module(fg_ctx *cx, fg_arena *a, uint64_t seed, int size);

#endif
