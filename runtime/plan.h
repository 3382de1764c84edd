/* plan.h - offsets for tensors whose lifetimes and sizes are known. */
#ifndef FG_RUNTIME_PLAN_H
#define FG_RUNTIME_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#define FG_ALIGN 64 /* of every tensor: a cache line, and the widest vector */

typedef struct fg_planitem {
    int64_t bytes;       /* >= 0 */
    int32_t first, last; /* positions, inclusive; items sharing one never overlap */
    int64_t offset;      /* result */
} fg_planitem;

typedef struct fg_plansize {
    int64_t naive;   /* every item in memory of its own */
    int64_t planned; /* size of the one block that holds all */
    int64_t bound;   /* most bytes alive at one position: no plan is smaller */
} fg_plansize;

/* Scratch fg_plan needs for n items, in int64_t. */
#define FG_PLAN_SCRATCH(n) (4 * (int64_t)(n))

/* Sets offsets. False when the sizes overflow. */
bool fg_plan(fg_planitem *item, int n, int64_t *scratch, fg_plansize *out);

#endif
