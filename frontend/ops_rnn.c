/* ops_rnn.c - RNN, GRU and LSTM as loops, and running products.
 *
 *     GRU x, w, r, b  ->  %g = add(matmul x, w {trans_b=1}, b)   all steps at once
 *                         %h, %y = loop T, h0 { .. }             what needs the state
 *
 * Gates of one direction lie side by side: RNN i; GRU z r h; LSTM i o f c. Rows of the
 * batch that end early keep their state and give 0. The reverse direction reads every
 * row from its own end.
 *
 * DynamicQuantizeLSTM has integer weights, the other way round, and rounds what meets them: all
 * inputs together, the state anew in each step.
 */
#include "frontend/ops.h"

#include <math.h>

enum { MAXGATES = 4 };

typedef struct cell cell;
struct cell {
    int gates;
    const char *act[3]; /* of the gates, of the candidate, of the output */
    double alpha[3], beta[3];
    double clip;  /* 0: none */
    bool linear;  /* GRU: reset after the product */
    bool coupled; /* LSTM: forget = 1 - input */
    fg_expr hidden;
    fg_reg x;           /* [T,B,gates*H]: x w' + biases */
    fg_reg r;           /* [gates*H, H] */
    fg_reg scale, zero; /* packed: of r, which is [H, gates*H]; 0 otherwise */
    fg_reg rb;          /* GRU: [H], bias of the candidate's recurrent part */
    fg_reg p;           /* LSTM: peepholes [3H] or 0 */
    fg_reg lens;        /* i64[B,1] or 0 */
};

static fg_reg
activate(fg_node *n, const cell *c, int k, fg_reg x)
{
    if (x && c->clip > 0)
        x = E2(min, E2(max, x, fg_num(n, x, -c->clip)), fg_num(n, x, c->clip));
    return x ? fg_activation(n, c->act[k], x, c->alpha[k], c->beta[k]) : 0;
}

/* Part k of the last axis (or of the only one), which holds parts of H. */
static fg_reg
part(fg_node *n, const cell *c, fg_reg x, int k, int count)
{
    if (!x)
        return 0;
    fg_expr start = fg_emul(n->ex, c->hidden, fg_c(n, k));
    return fg_emit_slice_axis(n->b, x, fg_rank(n, x) - 1, start,
                              fg_emul(n->ex, c->hidden, fg_c(n, count)));
}

/* x w' in floating point, or x w with x rounded and w in integers: one scale and zero point for
 * all of w or one of each column's. */
static fg_reg
weighted(fg_node *n, fg_reg x, fg_reg w, fg_reg scale, fg_reg zero)
{
    if (!scale)
        return fg_emit_matmul(n->b, x, w, false, true);
    fg_reg sx = 0, zx = 0, q = fg_quantize_dynamic(n, x, &sx, &zx);
    return fg_scaled_product(n, fg_matmul_int(n, q, w, zx, zero), sx, scale, 0);
}

/* h r' for gates [k, k+count). */
static fg_reg
recur(fg_node *n, const cell *c, fg_reg h, int k, int count)
{
    fg_expr start = fg_emul(n->ex, c->hidden, fg_c(n, k));
    fg_reg r = c->r;
    if (count < c->gates)
        r = fg_emit_slice_axis(n->b, r, 0, start,
                               fg_emul(n->ex, c->hidden, fg_c(n, count)));
    return weighted(n, h, r, c->scale, c->zero);
}

static fg_reg
rnn_cell(fg_node *n, const cell *c, fg_reg x, fg_reg h)
{
    return activate(n, c, 0, E2(add, x, recur(n, c, h, 0, 1)));
}

static fg_reg
gru_cell(fg_node *n, const cell *c, fg_reg x, fg_reg h)
{
    fg_reg both = activate(n, c, 0, E2(add, part(n, c, x, 0, 2), recur(n, c, h, 0, 2)));
    fg_reg z = part(n, c, both, 0, 1), r = part(n, c, both, 1, 1),
           own = part(n, c, x, 2, 1), new;

    if (c->linear)
        new = E2(mul, r, E2(add, recur(n, c, h, 2, 1), c->rb));
    else
        new = E2(add, recur(n, c, E2(mul, r, h), 2, 1), c->rb);
    new = activate(n, c, 1, E2(add, own, new));
    return E2(add, E2(mul, E2(sub, fg_num(n, h, 1), z), new), E2(mul, z, h));
}

static fg_reg
peep(fg_node *n, const cell *c, fg_reg gate, int k, fg_reg state)
{
    return c->p ? E2(add, gate, E2(mul, part(n, c, c->p, k, 1), state)) : gate;
}

static fg_reg
lstm_cell(fg_node *n, const cell *c, fg_reg x, fg_reg h, fg_reg *state)
{
    fg_reg g = E2(add, x, recur(n, c, h, 0, 4)), old = *state;
    fg_reg i = activate(n, c, 0, peep(n, c, part(n, c, g, 0, 1), 0, old)), f;

    if (c->coupled)
        f = E2(sub, fg_num(n, h, 1), i);
    else
        f = activate(n, c, 0, peep(n, c, part(n, c, g, 2, 1), 2, old));
    *state = E2(add, E2(mul, f, old), E2(mul, i, activate(n, c, 1, part(n, c, g, 3, 1))));
    fg_reg o = activate(n, c, 0, peep(n, c, part(n, c, g, 1, 1), 1, *state));
    return E2(mul, o, fg_activation(n, c->act[2], *state, c->alpha[2], c->beta[2]));
}

static bool
step(fg_node *n, void *arg, fg_reg t, const fg_reg *state, fg_reg *next, fg_reg *out)
{
    const cell *c = arg;
    fg_reg x = fg_emit_gather(n->b, c->x, t, 0);
    fg_reg new[2] = {0, c->gates == 4 ? state[1] : 0};

    if (c->gates == 4)
        new[0] = lstm_cell(n, c, x, state[0], &new[1]);
    else
        new[0] =
            c->gates == 3 ? gru_cell(n, c, x, state[0]) : rnn_cell(n, c, x, state[0]);
    *out = new[0];
    if (c->lens) {
        fg_reg live = E2(lt, t, c->lens);
        *out = new[0] ? E3(where, live, new[0], fg_num(n, new[0], 0)) : 0;
        for (int k = 0; k < (c->gates == 4 ? 2 : 1); k++)
            new[k] = E3(where, live, new[k], state[k]);
    }
    next[0] = new[0];
    if (c->gates == 4)
        next[1] = new[1];
    return *out && next[0] && (c->gates < 4 || next[1]);
}

/* ---- attributes and operands ----------------------------------------------------- */

/* String i of an attribute that lists them; dflt when it is not there. */
static const char *
listed(fg_node *n, const char *name, size_t i, const char *dflt)
{
    for (size_t k = 0; k < n->pb->n_attribute; k++) {
        const Onnx__AttributeProto *a = n->pb->attribute[k];
        if (!strcmp(a->name, name) && i < a->n_strings)
            return fg_intern(n->m->cx,
                             fg_printable(n->m->a, (const char *)a->strings[i].data,
                                          a->strings[i].len, 100));
    }
    return dflt;
}

static void
cell_activations(fg_node *n, cell *c, int dir)
{
    static const char *const usual[MAXGATES + 1][3] = {
        [1] = {"Tanh"},
        [3] = {"Sigmoid", "Tanh"},
        [4] = {"Sigmoid", "Tanh", "Tanh"},
    };
    const float *alpha, *beta;
    int na = fg_attr_floats(n, "activation_alpha", &alpha),
        nb = fg_attr_floats(n, "activation_beta", &beta);
    int each = c->gates == 1 ? 1 : c->gates - 1;

    for (int k = 0; k < each; k++) {
        int i = dir * each + k;
        c->act[k] = listed(n, "activations", (size_t)i, usual[c->gates][k]);
        c->alpha[k] = i < na ? (double)alpha[i] : NAN;
        c->beta[k] = i < nb ? (double)beta[i] : NAN;
    }
}

/* Element dir of axis 0, that axis dropped; 0 stays 0. */
static fg_reg
direction(fg_node *n, fg_reg r, int dir)
{
    fg_expr dim[FG_MAXRANK];

    if (!r)
        return 0;
    int rank = fg_rank(n, r);
    for (int a = 1; a < rank; a++)
        dim[a - 1] = fg_dim(n, r, a);
    r = fg_part(n, r, 0, dir, 1);
    return r ? fg_emit_reshape(n->b, r, rank - 1, dim) : 0;
}

/* x [T,B,..] with every row of the batch turned round within its own length. */
static fg_reg
turn(fg_node *n, fg_reg x, fg_reg lens)
{
    if (!x)
        return 0;
    int rank = fg_rank(n, x);
    fg_reg t = fg_iota_along(n, fg_dim(n, x, 0), 0, rank, FG_i64);
    fg_reg len =
        lens ? fg_along(n, fg_emit_reshape(n->b, lens, 1, (fg_expr[]){fg_dim(n, x, 1)}),
                        1, rank)
             : fg_sym_scalar(n, fg_dim(n, x, 0), FG_i64);
    fg_reg back = E2(sub, E2(sub, len, fg_emit_f(n->b, FG_i64, 1)), t);
    fg_reg in[2] = {x, fg_expand_like(n, E3(where, E2(lt, t, len), back, t), x)};
    if (!in[1])
        return 0;
    fg_inst *i = fg_inst_begin(n->b, FG_OP_gather_elements, 2, in);
    FG_SET(i, gather_elements, axis).i = 0;
    return fg_inst_finish(n->b, i, NULL, 0) ? i->out[0] : 0;
}

/* x w' with the biases that do not depend on the state. */
static bool
cell_inputs(fg_node *n, cell *c, fg_reg x, int dir)
{
    fg_reg w = direction(n, n->in[1], dir), b = direction(n, fg_in(n, 3), dir), sum;

    c->r = direction(n, n->in[2], dir);
    c->p = direction(n, fg_in(n, 7), dir);
    c->scale = direction(n, fg_in(n, 10), dir);
    c->zero = direction(n, fg_in(n, 11), dir);
    c->x =
        weighted(n, x, w, direction(n, fg_in(n, 8), dir), direction(n, fg_in(n, 9), dir));
    if (!c->x || !c->r)
        return false;
    c->rb = fg_num(n, c->x, 0);
    if (!b)
        return c->rb != 0;
    int held = c->gates == 3 ? 2 : c->gates;
    fg_reg wb = part(n, c, b, 0, c->gates), rb = part(n, c, b, c->gates, held);
    if (c->gates == 3) {
        c->rb = part(n, c, b, 5, 1);
        sum = E2(add, part(n, c, wb, 0, 2), rb);
        fg_reg last = part(n, c, wb, 2, 1);
        sum = sum && last ? fg_emit_concat(n->b, 2, (fg_reg[]){sum, last}, 0) : 0;
    } else {
        sum = E2(add, wb, rb);
    }
    c->x = E2(add, c->x, sum);
    return c->x && c->rb;
}

static bool
run_direction(fg_node *n, cell *c, fg_reg x, bool reverse, int dir, fg_reg *final,
              fg_reg *y)
{
    fg_expr dim[3] = {fg_dim(n, x, 1), c->hidden};
    fg_reg start[2];

    cell_activations(n, c, dir);
    if (!cell_inputs(n, c, reverse ? turn(n, x, c->lens) : x, dir))
        return false;
    for (int k = 0; k < 2; k++) {
        start[k] = direction(n, fg_in(n, 5 + k), dir);
        if (!fg_in(n, 5 + k) || (k && c->gates < 4))
            start[k] = fg_emit_expand(n->b, fg_num(n, x, 0), 2, dim);
    }
    if (!fg_steps(n, fg_dim(n, x, 0), c->gates == 4 ? 2 : 1, start, step, c, final, y))
        return false;
    if (reverse)
        *y = turn(n, *y, c->lens);
    return *y != 0;
}

/* Both directions side by side on a new axis. */
static fg_reg
stack(fg_node *n, int count, const fg_reg *r, int axis)
{
    fg_reg part[2];

    for (int k = 0; k < count; k++)
        if (!(part[k] = fg_insert1(n, r[k], axis, 1)))
            return 0;
    return count == 1 ? part[0] : fg_emit_concat(n->b, count, part, axis);
}

static bool
check_operands(fg_node *n, cell *c, int dirs)
{
    bool packed = n->nin > 8; /* integer weights, transposed */
    static const int ranks[] = {3, 3, 3, 2, 1, 3, 3, 2};

    for (int k = 0; k < n->nin && k < 8; k++)
        if (n->in[k] && fg_rank(n, n->in[k]) != ranks[k])
            return fg_node_error(n, "operand %d, %s, must have rank %d", k,
                                 fg_type_text(n->m, fg_rt(n->m, n->in[k])), ranks[k]);
    for (int k = 8; k < n->nin; k++)
        if (!fg_need(n, k) || fg_rank(n, n->in[k]) < 1 || fg_rank(n, n->in[k]) > 2)
            return fg_node_error(n, "operand %d must have rank 1 or 2", k);
    fg_reg w = fg_need(n, 1), r = fg_need(n, 2);
    if (!w || !r || !fg_need(n, 0))
        return false;
    int rows_at = packed ? 2 : 1;
    c->hidden = fg_dim(n, r, packed ? 1 : 2);
    fg_expr rows = fg_emul(n->ex, c->hidden, fg_c(n, c->gates));
    if (!fg_e_is(n->ex, fg_dim(n, w, 0), dirs) || fg_dim(n, w, rows_at) != rows ||
        fg_dim(n, r, rows_at) != rows)
        return fg_node_error(n, "weights %s and %s", fg_type_text(n->m, fg_rt(n->m, w)),
                             fg_type_text(n->m, fg_rt(n->m, r)));
    return true;
}

bool
fg_onnx_rnn(fg_node *n)
{
    const char *how = fg_attr_str(n, "direction", "forward");
    bool both = !strcmp(how, "bidirectional"), back = !strcmp(how, "reverse");
    bool batch_first = fg_attr_int(n, "layout", 0) != 0;
    int dirs = both ? 2 : 1;
    cell c = {.gates = strstr(n->op, "LSTM")   ? 4
                       : !strcmp(n->op, "GRU") ? 3
                                               : 1,
              .clip = fg_attr_float(n, "clip", 0),
              .linear = fg_attr_int(n, "linear_before_reset", 0) != 0,
              .coupled = fg_attr_int(n, "input_forget", 0) != 0};
    fg_reg x = fg_need(n, 0), y[2], final[2][2], last[2];

    if (!both && !back && strcmp(how, "forward"))
        return fg_node_error(n, "direction \"%s\"", how);
    if (!x || !check_operands(n, &c, dirs))
        return false;
    if (batch_first && (fg_in(n, 5) || fg_in(n, 6)))
        return fg_node_unsupported(n, "initial states with layout=1");
    if (batch_first)
        x = fg_emit_transpose(n->b, x, (int64_t[]){1, 0, 2});
    if (x && fg_in(n, 4))
        c.lens = fg_insert1(n, fg_emit_cast(n->b, n->in[4], FG_i64), 1, 1);
    for (int d = 0; x && d < dirs; d++)
        if (!run_direction(n, &c, x, back || d == 1, d, final[d], &y[d]))
            return false;
    fg_reg all = x ? stack(n, dirs, y, 1) : 0;
    if (batch_first)
        all = all ? fg_emit_transpose(n->b, all, (int64_t[]){2, 0, 1, 3}) : 0;
    for (int k = 0; all && k < (c.gates == 4 ? 2 : 1); k++) {
        for (int d = 0; d < dirs; d++)
            last[d] = final[d][k];
        fg_reg s = stack(n, dirs, last, 0);
        if (batch_first)
            s = s ? fg_emit_transpose(n->b, s, (int64_t[]){1, 0, 2}) : 0;
        if (!s || !fg_yield_at(n, 1 + k, s))
            return false;
    }
    return fg_yield(n, all);
}

/* ---- running products ------------------------------------------------------------ */

typedef struct product {
    fg_reg x;
    bool exclusive;
} product;

static bool
product_step(fg_node *n, void *arg, fg_reg t, const fg_reg *state, fg_reg *next,
             fg_reg *out)
{
    const product *p = arg;

    next[0] = E2(mul, state[0], fg_emit_gather(n->b, p->x, t, 0));
    *out = p->exclusive ? state[0] : next[0];
    return next[0] != 0;
}

static fg_reg
cumprod(fg_node *n, fg_reg x, int axis)
{
    int64_t perm[FG_MAXRANK];
    fg_expr dim[FG_MAXRANK];
    bool reverse = fg_attr_int(n, "reverse", 0) != 0;
    fg_reg start, y;
    int rank = fg_rank(n, x);

    for (int a = 0; a < rank; a++)
        perm[a] = a == 0 ? axis : a == axis ? 0 : a;
    x = fg_emit_transpose(n->b, x, perm);
    x = reverse ? turn(n, x, 0) : x;
    for (int a = 1; x && a < rank; a++)
        dim[a - 1] = fg_dim(n, x, a);
    product p = {x, fg_attr_int(n, "exclusive", 0) != 0};
    start = x ? fg_emit_expand(n->b, fg_num(n, x, 1), rank - 1, dim) : 0;
    if (!start || !fg_steps(n, fg_dim(n, x, 0), 1, &start, product_step, &p, &start, &y))
        return 0;
    y = reverse ? turn(n, y, 0) : y;
    return y ? fg_emit_transpose(n->b, y, perm) : 0;
}

bool
fg_onnx_cumprod(fg_node *n)
{
    return fg_along_axis(n, 1, cumprod);
}
