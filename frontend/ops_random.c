/* ops_random.c - random numbers as a function of the element's place and the node's seed.
 *
 *     RandomUniform  ->  %h = mix(iota n, seed)         low + (high - low) h / 2^23
 *     RandomNormal   ->  %h, %k = two of them           mean + scale sqrt(-2 ln h) cos(2 pi k)
 *
 * There is no state, so the numbers do not depend on the order in which kernels and threads compute
 * them, and any part of a tensor can be made alone. A node without a seed has one made of its place in
 * the model: nodes differ, while each run of a model gives the same.
 */
#include "frontend/ops.h"

#include <math.h>

static const double TURN = 6.283185307179586;

static fg_reg
word(fg_node *n, uint32_t v)
{
    return fg_emit_f(n->b, FG_u32, (double)v);
}

/* Every bit of the result depends on every bit of x: shifts and products that can be undone, so that
 * different places stay different. */
static fg_reg
mix(fg_node *n, fg_reg x)
{
    x = E2(mul, E2(bitxor, x, E2(shr, x, word(n, 16))), word(n, 0x7feb352du));
    x = E2(mul, E2(bitxor, x, E2(shr, x, word(n, 15))), word(n, 0x846ca68bu));
    return E2(bitxor, x, E2(shr, x, word(n, 16)));
}

/* Evenly within 0..1, neither of them: 23 bits and a half, which f32 holds exactly. */
static fg_reg
uniform(fg_node *n, fg_reg at, uint32_t seed)
{
    fg_reg h = mix(n, E2(add, mix(n, E2(bitxor, at, word(n, seed))), word(n, seed)));
    h = E2(shr, h, word(n, 9));
    h = h ? fg_emit_cast(n->b, h, FG_f32) : 0;
    return E2(mul, E2(add, h, fg_emit_f(n->b, FG_f32, 0.5)),
              fg_emit_f(n->b, FG_f32, 1.0 / 8388608));
}

static uint32_t
seed_of(fg_node *n)
{
    float given = (float)fg_attr_float(n, "seed", 0);
    uint32_t v;
    if (!fg_attr_has(n, "seed"))
        return (uint32_t)n->m->onnx_nodes * 0x9e3779b9u + 1;
    memcpy(&v, &given, sizeof v);
    return v;
}

bool
fg_onnx_random(fg_node *n)
{
    fg_reg like = n->nin ? fg_need(n, 0) : 0;
    const int64_t *shape = NULL;
    int rank = n->nin ? 0 : fg_attr_ints(n, "shape", &shape);
    fg_expr dim[FG_MAXRANK], count = fg_c(n, 1);

    if (n->nin && !like)
        return false;
    fg_dtype to = fg_attr_has(n, "dtype")
                      ? fg_dtype_by_onnx((int)fg_attr_int(n, "dtype", 0))
                  : like ? fg_elem(n, like)
                         : FG_f32;
    if (!fg_is_float(to))
        return fg_node_error(n, "the result must be of floating point");
    if (like)
        rank = fg_rank(n, like);
    if (rank < 0 || rank > FG_MAXRANK)
        return fg_node_error(n, "%d dimensions", rank);
    for (int a = 0; a < rank; a++) {
        if (!like && shape[a] < 0)
            return fg_node_error(n, "dimension %d is negative", a);
        dim[a] = like ? fg_dim(n, like, a) : fg_c(n, shape[a]);
        count = fg_emul(n->ex, count, dim[a]);
    }
    fg_reg at = fg_emit_iota(n->b, count, fg_c(n, 0), 1, FG_u32);
    uint32_t seed = seed_of(n);
    fg_reg y = uniform(n, at, seed);
    double low = fg_attr_float(n, "low", 0), width = fg_attr_float(n, "high", 1) - low;
    if (strstr(n->op, "Normal")) {
        low = fg_attr_float(n, "mean", 0);
        width = fg_attr_float(n, "scale", 1);
        fg_reg angle = E2(mul, uniform(n, at, ~seed), fg_emit_f(n->b, FG_f32, TURN));
        y = E2(mul, E1(sqrt, E2(mul, E1(log, y), fg_emit_f(n->b, FG_f32, -2))),
               E1(cos, angle));
    }
    y = E2(add, E2(mul, y, fg_emit_f(n->b, FG_f32, width)), fg_emit_f(n->b, FG_f32, low));
    y = y ? fg_emit_reshape(n->b, y, rank, dim) : 0;
    return fg_yield(n, y ? fg_emit_cast(n->b, y, to) : 0);
}
