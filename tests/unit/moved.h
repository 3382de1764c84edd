/* moved.h - for test programs: how much a run reads and writes. */
#ifndef FG_TESTS_MOVED_H
#define FG_TESTS_MOVED_H

#include "runtime/rt.h"

/* Bytes that the kernels and copies of the last run read and wrote. */
static inline int64_t
bytes_moved(const forge_run *r)
{
    const fg_blockdef *b = &r->p->block[0];
    int64_t sum = 0;

    for (uint32_t k = b->first; k < b->first + b->count; k++) {
        const fg_step *s = &r->p->step[k];
        if (s->kind == FG_STEP_COPY)
            sum += 2 * r->value[r->p->tensor[s->buf[0]].bytes];
        else
            sum += fg_val(r, s->bytes);
    }
    return sum;
}

#endif
