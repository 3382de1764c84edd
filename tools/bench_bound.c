/* bench_bound.c - the least time that a kernel can take on this machine: operations at the
 * measured peak of their kind, bytes at the measured speed of the memory they lie in.
 *
 *     matmul of u8 and i8, 44 MFLOP, 3.1 MB        0.10 ms at 450 GFLOP/s of bytes
 *       weights, of a model of 170 MB              0.14 ms at 21 GB/s of memory
 *       activations, 0.1 MB                        0.001 ms at 100 GB/s of L2
 *
 * Weights and caches of a run are read once each and return after all the others, so where they
 * lie their sum decides; what kernels hand on to each other is as near as its own size
 * allows. Both err to the fast side: a bound is not to be beaten.
 */
#include <math.h>

#include "tools/bench.h"

/* The arithmetic of two operands of a kind, if the processor has any. */
static tool_math
math_of(const fg_program *p, const fg_step *s)
{
    int pairs = 0, bytes = 0;

    for (uint32_t k = 0; k < s->nbuf; k++) {
        if (s->buf[k] == FG_NONE)
            continue;
        uint8_t d = p->tensor[s->buf[k]].dtype;
        pairs += d == FG_bf16;
        bytes += d == FG_i8 || d == FG_u8 || d == FG_i4 || d == FG_u4;
    }
    return bytes > 1 ? TOOL_BYTES : pairs > 1 ? TOOL_BF16 : TOOL_F32;
}

static double
kept_bytes(const forge_run *r, const fg_step *s)
{
    double bytes = 0;

    for (uint32_t k = 0; k < s->nbuf; k++) {
        if (s->buf[k] == FG_NONE)
            continue;
        const fg_tensordef *x = &r->p->tensor[r->root[s->buf[k]]];
        bool kept = x->storage == FG_ST_CONST || x->storage == FG_ST_ONCE ||
                    x->storage == FG_ST_STATE;
        bytes += kept ? (double)fg_val(r, x->bytes) : 0;
    }
    return fmin(bytes, bench_step_work(r, s, false));
}

static double
ms(double work, double rate)
{
    return rate > 0 ? work / rate * 1e-6 : 0;
}

bench_bound
bench_step_bound(const bench *b, const fg_step *s)
{
    double bytes = bench_step_work(b->r, s, false), kept = kept_bytes(b->r, s);
    tool_level far = tool_level_of(b->threads, b->kept),
               near = tool_level_of(b->threads, bytes - kept);
    bench_bound x = {.flops = bench_step_work(b->r, s, true), .bytes = bytes};

    x.math = math_of(b->r->p, s);
    x.math_ms = ms(x.flops, b->peak.gflops[x.math]);
    x.level = kept > bytes - kept ? far : near;
    x.memory_ms = ms(kept, b->peak.gbps[far]) + ms(bytes - kept, b->peak.gbps[near]);
    return x;
}

/* Sums; the kind and the level of what takes longest. */
bench_bound
bench_run_bound(const bench *b)
{
    const fg_program *p = b->r->p;
    const fg_blockdef *main = &p->block[0];
    bench_bound sum = {0};
    double math[TOOL_NMATH] = {0}, memory[TOOL_NLEVELS] = {0};

    for (uint32_t i = main->first; i < main->first + main->count; i++) {
        bench_bound x = bench_step_bound(b, &p->step[i]);
        sum.flops += x.flops;
        sum.bytes += x.bytes;
        sum.math_ms += x.math_ms;
        sum.memory_ms += x.memory_ms;
        math[x.math] += x.math_ms;
        memory[x.level] += x.memory_ms;
    }
    for (int k = 0; k < TOOL_NMATH; k++)
        if (math[k] > math[sum.math])
            sum.math = (tool_math)k;
    for (int k = 0; k < TOOL_NLEVELS; k++)
        if (memory[k] > memory[sum.level])
            sum.level = (tool_level)k;
    return sum;
}

/* Before and after the runs, and the largest counts: other work makes a peak look lower, never
 * higher. */
void
bench_measure_peak(bench *b)
{
    const fg_blockdef *main = &b->r->p->block[0];

    b->kept = 0;
    for (uint32_t i = main->first; i < main->first + main->count; i++)
        if (b->r->p->step[i].kind == FG_STEP_KERNEL)
            b->kept += kept_bytes(b->r, &b->r->p->step[i]);
    tool_peak now = tool_measure_peak(b->threads, b->kept);
    b->peak.threads = b->threads;
    for (int k = 0; k < TOOL_NMATH; k++)
        b->peak.gflops[k] = fmax(b->peak.gflops[k], now.gflops[k]);
    for (int k = 0; k < TOOL_NLEVELS; k++)
        b->peak.gbps[k] = fmax(b->peak.gbps[k], now.gbps[k]);
}
