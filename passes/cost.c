/* cost.c - the cost model.
 *
 *     kernel        max(flops / FLOPS, bytes / BYTES) + START
 *     computed      what a value is made of read, and the arithmetic as often as it is
 *                   wanted, against the value stored, by a kernel of its own, and read
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
#define ROW_FLOPS 8      /* an element of a norm, a sum, a softmax */
#define CLOSE 1.25       /* what differs by less is for fewer kernels to decide */
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
fg_cost_size(const fg_costs *c, fg_expr e)
{
    int64_t v;
    return fg_e_eval(c->m->ex, e, c->sym, &v) ? (double)v : 1;
}

double
fg_cost_scores(const fg_costs *c, const fg_inst *attention)
{
    const fg_type *q = fg_rt(c->m, attention->in[0]), *k = fg_rt(c->m, attention->in[1]);
    return fg_cost_size(c, q->dim[0]) * fg_cost_size(c, q->dim[1]) *
           fg_cost_size(c, q->dim[2]) * fg_cost_size(c, k->dim[2]);
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

/* Measured, in vectors of f32; all others are one or two instructions. */
double
fg_cost_element(fg_op op)
{
    static const struct {
        fg_op op;
        double flops;
    } dear[] = {
        {FG_OP_div, 10},      {FG_OP_recip, 10},     {FG_OP_sqrt, 20},
        {FG_OP_rsqrt, 25},    {FG_OP_exp, 50},       {FG_OP_atan, 55},
        {FG_OP_sigmoid, 70},  {FG_OP_silu, 70},      {FG_OP_gelu_tanh, 90},
        {FG_OP_log, 100},     {FG_OP_tanh, 100},     {FG_OP_sin, 110},
        {FG_OP_cos, 110},     {FG_OP_erf, 120},      {FG_OP_tan, 125},
        {FG_OP_gelu, 80},     {FG_OP_softplus, 220}, {FG_OP_asinh, 225},
        {FG_OP_acosh, 225},   {FG_OP_atanh, 225},    {FG_OP_asin, 225},
        {FG_OP_acos, 225},    {FG_OP_sinh, 225},     {FG_OP_cosh, 225},
        {FG_OP_pow, 300},     {FG_OP_mod, 500},      {FG_OP_fmod, 500},
        {FG_OP_quantize, 10},
    };
    for (size_t k = 0; k < sizeof dear / sizeof *dear; k++)
        if (dear[k].op == op)
            return dear[k].flops;
    return 1;
}

double
fg_cost_anchor(const fg_costs *c, const fg_inst *i)
{
    const fg_type *x = fg_rt(c->m, i->in[0]);
    double out = fg_cost_count(c, i->out[0]);
    if (i->op == FG_OP_attention)
        return 2 * fg_cost_scores(c, i) * fg_cost_size(c, x->dim[3]);
    if (i->op == FG_OP_matmul || i->op == FG_OP_matmul_panels)
        return out *
               fg_cost_size(
                   c, x->dim[x->rank - 1 -
                             (i->op == FG_OP_matmul && FG_GET(i, matmul, trans_a).i)]);
    if (i->op == FG_OP_conv)
        return out * fg_cost_count(c, i->in[1]) /
               fg_cost_size(c, fg_rt(c->m, i->in[1])->dim[0]);
    return ROW_FLOPS * fg_cost_count(c, i->in[0]);
}

/* One that other kernels compute alike is stored by one of them, for all. A kernel whose
 * result it is made of stores it instead of that; else it takes one of its own, and to do
 * without that decides what is close. */
double
fg_gain_computed(const fg_making *v, double *here, double *memory)
{
    double f = v->kernel_flops, b = v->kernel_bytes, without = fg_cost_kernel(f, b);
    double make = v->made ? (v->once / FLOPS_PER_US + v->store / BYTES_PER_US)
                          : fg_cost_kernel(v->once, v->read + v->store);
    *here = fg_cost_kernel(f + v->flops, b + v->more) - without +
            v->made / v->kernels / BYTES_PER_US;
    *memory =
        fg_cost_kernel(f, b + v->bytes) - without + (v->store ? make / v->kernels : 0);
    return *memory * (v->store && !v->made ? CLOSE : 1) - *here;
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

double
fg_gain_attention_of(const fg_costs *c, const fg_inst *attention)
{
    const fg_type *q = fg_rt(c->m, attention->in[0]);
    return fg_gain_attention(fg_cost_scores(c, attention), fg_dtypes[q->dtype].bits);
}
