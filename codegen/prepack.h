/* prepack.h - what a model would make once before its first run, made for a file. */
#ifndef FG_CODEGEN_PREPACK_H
#define FG_CODEGEN_PREPACK_H

#include "codegen/compile.h"

/* A weight cut into panels: `panels` of ir/ops.def. */
typedef struct fg_prepacked {
    const fg_weight *w;
    int64_t k, n, width;
    bool trans;
    size_t bytes;
} fg_prepacked;

/* The program without its block `once`: packed tensors are constants whose data is a
 * row of *list, and constants that only that block read are gone. In arena a. */
const fg_program *fg_prepack(const fg_compiled *c, fg_arena *a, fg_prepacked **list,
                             int *n);
/* Writes p->bytes to dst. */
void fg_prepack_fill(const fg_prepacked *p, void *dst);

#endif
