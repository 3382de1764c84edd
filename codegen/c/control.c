/* control.c - blocks: kernels in order, branches, loops, and sizes that data decides.
 *
 *     n_ = x[0];                                        readsym
 *     for (; go0 && l0 < trip0; l0++) {                 loop
 *         k1_matmul(b2, w0, b3);
 *         go0 = w1[0] != 0;
 *         copy(b2, b3, 4 * batch * 32);                 yielded values to parameters
 *     }
 *
 * Values that flow into, around and out of a region are copied to memory of their own. They flow
 * as if all at once: sizes and symbols are computed before any of them changes, and a value
 * whose memory an earlier one overwrites is first copied away.
 */
#include "codegen/c/module.h"

typedef struct flow {
    fg_reg src, dst;
    const char *from;                    /* where src is */
    const char *dim[FG_MAXRANK], *bytes; /* of src, before anything flows */
    const char *stack; /* dst has an axis in front, and this is the place on it */
} flow;

typedef struct flows {
    flow *f;
    int n;
    size_t cap;
} flows;

static void
add_flow(cc_module *x, flows *list, fg_reg src, fg_reg dst, const char *stack)
{
    FG_PUSH(x->c.a, list->f, list->n, list->cap) =
        (flow){.src = src, .dst = dst, .from = x->place[src], .stack = stack};
}

static const char *
sized(cc_module *x, const char *value)
{
    const char *name = fg_format(x->c.a, "s%d", x->nsize++);

    cc_call(x, "const int64_t %s = %s;", name, value);
    return name;
}

/* Whether axis k of f's destination has a size that the flow decides. */
static bool
sets(const cc_module *x, const flow *f, int k, const fg_attr *syms, fg_sym *s)
{
    if (!fg_e_single(x->c.m->ex, fg_rt(x->c.m, f->dst)->dim[k], s))
        return false;
    for (int j = 0; j < syms->n; j++)
        if ((fg_sym)syms->is[j] == *s)
            return true;
    return false;
}

/* What the sources' sizes are, while they are what they were. */
static void
take_sizes(cc_module *x, const flows *list, const fg_attr *syms)
{
    for (int k = 0; k < list->n; k++) {
        flow *f = &list->f[k];
        const fg_type *s = fg_rt(x->c.m, f->src), *d = fg_rt(x->c.m, f->dst);
        int shift = f->stack != NULL;
        bool open = cc_is_open(x, s);
        f->bytes = open ? sized(x, cc_bytes(x, s)) : cc_bytes(x, s);
        for (int a = 0; a < s->rank; a++) {
            fg_sym y;
            const char *n = cc_expr(&x->c, s->dim[a]);
            if (s->dim[a] != d->dim[a + shift] || open || sets(x, f, a + shift, syms, &y))
                f->dim[a] = open ? sized(x, n) : n;
        }
    }
}

/* A value that is overwritten before it flows. */
static void
save_sources(cc_module *x, const flows *list)
{
    for (int k = 0; k < list->n; k++)
        for (int j = 0; j < k; j++) {
            flow *f = &list->f[k];
            if (strcmp(f->from, x->place[list->f[j].dst]) ||
                !strcmp(f->from, x->place[f->dst]))
                continue;
            f->from = cc_new_buffer(x, fg_rt(x->c.m, f->src), "on its way");
            cc_call(x, "copy(%s, %s, %s);", f->from, x->place[f->src], f->bytes);
            break;
        }
}

static void
set_symbols(cc_module *x, const flows *list, const fg_attr *syms)
{
    for (int k = 0; k < list->n; k++) {
        const flow *f = &list->f[k];
        int shift = f->stack != NULL;
        fg_sym y;
        for (int a = 0; a < fg_rt(x->c.m, f->src)->rank; a++)
            if (sets(x, f, a + shift, syms, &y))
                cc_call(x, "%s = %s;", x->c.symbol[y], f->dim[a]);
    }
    for (int k = 0; k < list->n; k++) {
        const flow *f = &list->f[k];
        int shift = f->stack != NULL;
        for (int a = 0; a < fg_rt(x->c.m, f->src)->rank; a++) {
            const char *n = cc_expr(&x->c, fg_rt(x->c.m, f->dst)->dim[a + shift]);
            if (f->dim[a] && strcmp(f->dim[a], n)) {
                cc_call(x, "if (%s != %s)", f->dim[a], n);
                cc_call(x, "    return 2;");
            }
        }
    }
}

static void
move(cc_module *x, const flow *f)
{
    const char *to = x->place[f->dst];

    if (!f->stack) {
        if (!strcmp(f->from, to))
            return;
        if (x->slot[f->dst])
            cc_fit(x, f->dst, f->bytes);
        cc_call(x, "copy(%s, %s, %s);", to, f->from, f->bytes);
        return;
    }
    if (x->slot[f->dst]) {
        cc_fit(x, f->dst, fg_format(x->c.a, "times(%s + 1, %s)", f->stack, f->bytes));
    } else {
        cc_call(x, "if (%s >= %s)", f->stack,
                cc_expr(&x->c, fg_rt(x->c.m, f->dst)->dim[0]));
        cc_call(x, "    return 2;");
    }
    cc_call(x, "copy((char *)%s + %s * (%s), %s, %s);", to, f->stack, f->bytes, f->from,
            f->bytes);
}

static void
put_flows(cc_module *x, const flows *list, const fg_attr *syms)
{
    take_sizes(x, list, syms);
    save_sources(x, list);
    set_symbols(x, list, syms);
    for (int k = 0; k < list->n; k++)
        move(x, &list->f[k]);
}

/* ---- branches and loops --------------------------------------------------------------------- */

static void
open(cc_module *x, const char *line)
{
    cc_call(x, "%s", line);
    x->depth++;
}

static void
close(cc_module *x, const char *line)
{
    x->depth--;
    cc_call(x, "%s", line);
}

static const char *
first_node(const fg_inst *i)
{
    return i->nnode ? i->node[0] : fg_op_info(i->op)->name;
}

static void
put_if(cc_module *x, const fg_inst *i)
{
    for (int k = 0; k < i->nout; k++)
        cc_declare(x, i->out[k], first_node(i));
    open(x, fg_format(x->c.a, "if (%s[0]) {", x->place[i->in[0]]));
    for (int b = 0; b < 2; b++) {
        const fg_inst *yield = i->region[b]->last;
        flows out = {0};
        cc_put_block(x, i->region[b]);
        for (int k = 0; k < i->nout && !x->c.failed; k++)
            add_flow(x, &out, yield->in[k], i->out[k], NULL);
        put_flows(x, &out, &FG_GET(i, if, syms));
        close(x, b ? "}" : "} else {");
        x->depth += !b;
    }
}

/* What n iterations have stacked. When there was none, so are sizes that only an iteration
 * would tell. */
static void
finish_stacks(cc_module *x, const fg_inst *i, const char *n)
{
    const fg_attr *syms = &FG_GET(i, loop, syms);

    for (int k = (int)FG_GET(i, loop, carried).i; k < i->nout; k++) {
        const fg_type *t = fg_rt(x->c.m, i->out[k]);
        flow f = {.dst = i->out[k]};
        fg_sym y;
        if (fg_e_single(x->c.m->ex, t->dim[0], &y) && x->c.symbol[y] &&
            fg_sym_info(x->c.m->ex, y)->kind == FG_SYM_RUN) {
            cc_call(x, "%s = %s;", x->c.symbol[y], n);
        } else {
            cc_call(x, "if (%s != %s)", n, cc_expr(&x->c, t->dim[0]));
            cc_call(x, "    return 2;");
        }
        for (int a = 1; a < t->rank; a++)
            if (sets(x, &f, a, syms, &y))
                cc_call(x, "%s = %s ? %s : 0;", x->c.symbol[y], n, x->c.symbol[y]);
        if (x->slot[i->out[k]])
            cc_fit(x, i->out[k], cc_bytes(x, t));
    }
}

static void
put_body(cc_module *x, const fg_inst *i, const char *at, const char *go)
{
    const fg_block *b = i->region[0];
    const fg_attr *syms = &FG_GET(i, loop, syms);
    int carried = (int)FG_GET(i, loop, carried).i;
    flows next = {0};

    cc_put_block(x, b);
    for (int k = 0; k < i->nout && !x->c.failed; k++)
        add_flow(x, &next, b->last->in[k + 1], k < carried ? b->param[k + 2] : i->out[k],
                 k < carried ? NULL : at);
    cc_call(x, "%s = %s[0] != 0;", go, x->place[b->last->in[0]]);
    put_flows(x, &next, syms);
}

static void
put_loop(cc_module *x, const fg_inst *i)
{
    const fg_block *b = i->region[0];
    const fg_attr *syms = &FG_GET(i, loop, syms);
    int carried = (int)FG_GET(i, loop, carried).i, id = x->nloop++;
    const char *at = fg_format(x->c.a, "l%d", id), *go = fg_format(x->c.a, "go%d", id),
               *trip = fg_format(x->c.a, "trip%d", id);
    flows in = {0}, out = {0};

    for (int k = 0; k < i->nout; k++)
        cc_declare(x, i->out[k], first_node(i));
    for (int k = 0; k < carried; k++)
        cc_declare(x, b->param[k + 2], first_node(i));
    x->place[b->param[0]] = fg_format(x->c.a, "(&%s)", at);
    x->place[b->param[1]] = fg_format(x->c.a, "(&%s)", go);
    open(x, "{");
    cc_call(x, "const int64_t %s = %s%s;", trip, i->in[0] ? x->place[i->in[0]] : "",
            i->in[0] ? "[0]" : "INT64_MAX");
    cc_call(x, "uint8_t %s = %s%s;", go, i->in[1] ? x->place[i->in[1]] : "1",
            i->in[1] ? "[0] != 0" : "");
    cc_call(x, "int64_t %s = 0;", at);
    for (int k = 0; k < carried; k++)
        add_flow(x, &in, i->in[k + 2], b->param[k + 2], NULL);
    put_flows(x, &in, syms);
    open(x, fg_format(x->c.a, "for (; %s && %s < %s; %s++) {", go, at, trip, at));
    put_body(x, i, at, go);
    close(x, "}");
    finish_stacks(x, i, at);
    for (int k = 0; k < carried; k++)
        add_flow(x, &out, b->param[k + 2], i->out[k], NULL);
    put_flows(x, &out, syms);
    close(x, "}");
}

/* ---- sizes that data decides ------------------------------------------------------------------ */

static void
put_readsym(cc_module *x, const fg_inst *i)
{
    fg_sym s = (fg_sym)FG_GET(i, readsym, sym).i;
    int64_t at = FG_GET(i, readsym, at).i, n;
    const fg_syminfo *info = fg_sym_info(x->c.m->ex, s);
    const fg_type *t = fg_rt(x->c.m, i->in[0]);
    const char *v = fg_format(x->c.a, "%s[%lld]", x->place[i->in[0]], (long long)at);

    if (!fg_e_const(x->c.m->ex, fg_type_count(x->c.m->ex, t), &n) || at < 0 || at >= n) {
        cc_call(x, "if (%lld >= %s)", (long long)at, cc_count(&x->c, t, 0));
        cc_call(x, "    return 2;");
    }
    if (info->is != FG_E_BAD) { /* kernels use what it was found to equal */
        cc_call(x, "if ((int64_t)%s != %s)", v, cc_expr(&x->c, info->is));
        cc_call(x, "    return 2;");
        return;
    }
    cc_call(x, "%s = (int64_t)%s;", x->c.symbol[s], v);
    cc_call(x, "if (%s)", cc_bounds(x, s));
    cc_call(x, "    return 1;");
}

static void
put_require(cc_module *x, const fg_inst *i)
{
    cc_call(x, "if (%s != %s)", cc_expr(&x->c, FG_GET(i, require, a).e),
            cc_expr(&x->c, FG_GET(i, require, b).e));
    cc_call(x, "    return 2;");
}

void
cc_put_block(cc_module *x, const fg_block *b)
{
    fg_each_inst(b, i) {
        if (x->c.failed)
            return;
        x->c.kernel = i;
        switch (i->op) {
        case FG_OP_const:
            x->place[i->out[0]] =
                cc_new_weight(x, FG_GET(i, const, w).i, fg_rt(x->c.m, i->out[0]));
            break;
        case FG_OP_kernel:
            cc_put_kernel(x, i);
            break;
        case FG_OP_if:
            put_if(x, i);
            break;
        case FG_OP_loop:
            put_loop(x, i);
            break;
        case FG_OP_readsym:
            put_readsym(x, i);
            break;
        case FG_OP_require:
            put_require(x, i);
            break;
        case FG_OP_ret:
        case FG_OP_yield:
            break;
        default:
            cc_refuse(&x->c, i, "outside of a kernel");
        }
    }
}
