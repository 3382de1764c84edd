/* cost.c - the cost model.
 *
 *     kernel        max(flops / FLOPS, bytes / BYTES) + START
 *     side by side  a start and the second read of what both read, against results that
 *                   wait while other kernels run
 *     attention     the scores written and read by every step, against never in memory
 *
 * Numbers are one core of a current server and were measured there: what counts is their
 * ratio, since every decision compares two sums. Memory and arithmetic overlap, so a
 * kernel takes the longer of both. Sizes are nominal (batch 1, length 128, inside the
 * bounds): decisions are made once, for all sizes the program will see.
 */
#include "passes/cost.h"
#include "passes/place.h"

#define FLOPS_PER_US 1e5 /* multiply-adds of a product */
#define BYTES_PER_US 2e4 /* memory, one direction at a time */
#define START_US 0.3     /* a kernel's start and its barrier */
#define CACHED 262144    /* bytes that survive in cache while another kernel runs */
#define SCORE_PASSES 3   /* product, scale and mask, softmax: each writes all scores */

const fg_rates fg_cost_rates = {FLOPS_PER_US, BYTES_PER_US, START_US};

fg_costs
fg_costs_new(fg_module *m, fg_arena *a)
{
    return (fg_costs){m, fg_nominal_symbols(m, a)};
}

double
fg_cost_bytes(const fg_costs *c, fg_reg r)
{
    int64_t bytes = r ? fg_reg_bytes(c->m, r, c->sym) : 0;
    return bytes > 0 ? (double)bytes : 0;
}

double
fg_cost_count(const fg_costs *c, fg_reg r)
{
    return fg_cost_bytes(c, r) * 8 / fg_dtypes[fg_rt(c->m, r)->dtype].bits;
}

double
fg_cost_kernel_at(const fg_rates *r, double flops, double bytes)
{
    double compute = flops / r->flops, memory = bytes / r->bytes;
    return (compute > memory ? compute : memory) + r->start_us;
}

double
fg_cost_kernel(double flops, double bytes)
{
    return fg_cost_kernel_at(&fg_cost_rates, flops, bytes);
}

double
fg_gain_beside(const fg_costs *c, const fg_inst *b, double shared, bool between)
{
    double waiting = 0;
    for (int k = 0; between && k < b->nout; k++)
        waiting += fg_cost_bytes(c, b->out[k]);
    if (waiting <= CACHED)
        waiting = 0;
    return START_US + (shared - 2 * waiting) / BYTES_PER_US;
}

double
fg_gain_attention(double scores, int bits)
{
    return SCORE_PASSES * (2 * scores * bits / 8 / BYTES_PER_US + START_US);
}

static double
size_of(const fg_costs *c, fg_expr e)
{
    int64_t v;
    return fg_e_eval(c->m->ex, e, c->sym, &v) ? (double)v : 1;
}

double
fg_gain_attention_of(const fg_costs *c, const fg_inst *attention)
{
    const fg_type *q = fg_rt(c->m, attention->in[0]), *k = fg_rt(c->m, attention->in[1]);
    double scores = size_of(c, q->dim[0]) * size_of(c, q->dim[1]) *
                    size_of(c, q->dim[2]) * size_of(c, k->dim[2]);
    return fg_gain_attention(scores, fg_dtypes[q->dtype].bits);
}
