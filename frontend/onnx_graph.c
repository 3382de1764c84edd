/* onnx_graph.c - a graph's names, the order of its nodes, and one node at a time.
 *
 *     node { op_type MatMul, input "x" "w", output "y", name "/attn/MatMul" }
 *         =>  %41 = matmul %7, %3 : f32[B,S,768]   !"/attn/MatMul"        and "y" means %41
 *
 * A name is looked up in its own graph, then in those around it; a function body sees only its
 * own. Nodes are imported in the file's order when that is topological, as it should be, and
 * sorted when it is not.
 */
#include "frontend/model.h"

/* ---- scopes --------------------------------------------------------------------------- */

fg_scope
fg_scope_new(fg_import *im, fg_scope *up)
{
    fg_scope s = {.im = im, .up = up, .names = {.a = im->tmp}};
    if (up) {
        s.call = up->call;
        s.nopset = up->nopset;
        s.opset = up->opset;
    } else {
        s.nopset = im->f->model->n_opset_import;
        s.opset = im->f->model->opset_import;
    }
    return s;
}

bool
fg_scope_define(fg_scope *s, const char *name, fg_reg r)
{
    const char *key = fg_intern(s->im->cx, name);
    if (fg_names_get(&s->names, key) >= 0)
        return fg_error(s->im->cx, "value \"%s\" is defined twice", fg_show(s->im, name));
    fg_names_set(&s->names, key, (int)r);
    return true;
}

bool
fg_scope_find(fg_scope *s, const char *name, fg_reg *r)
{
    const char *key = fg_intern(s->im->cx, name);
    for (; s; s = s->up) {
        int v = fg_names_get(&s->names, key);
        if (v >= 0) {
            *r = (fg_reg)v;
            return true;
        }
    }
    return false;
}

/* ---- constants ------------------------------------------------------------------------ */

bool
fg_import_initializer(fg_import *im, const Onnx__TensorProto *t, fg_weight *w)
{
    const char *name = fg_show(im, t->name);
    w->name = fg_intern(im->cx, name);
    return fg_onnx_tensor(im->f, im->a, fg_format(im->tmp, "initializer \"%s\"", name), t,
                          w);
}

static bool
define_constant(fg_scope *s, fg_build *b, const char *name, const fg_weight *w)
{
    fg_build at = *b;
    at.node = fg_dup(s->im->a, &w->name, sizeof w->name);
    at.nnode = 1;
    fg_reg r = fg_import_weight(&at, w);
    return r && fg_scope_define(s, name, r);
}

bool
fg_import_constants(fg_scope *s, fg_build *b, const Onnx__GraphProto *g,
                    const fg_names *skip)
{
    fg_import *im = s->im;
    for (size_t i = 0; i < g->n_initializer; i++) {
        const char *name = g->initializer[i]->name;
        fg_weight w = {0};
        if (!name || !*name)
            return fg_error(im->cx, "initializer %zu has no name", i);
        if (skip && fg_names_get(skip, fg_intern(im->cx, name)) >= 0)
            continue;
        if (!fg_import_initializer(im, g->initializer[i], &w) ||
            !define_constant(s, b, name, &w))
            return false;
    }
    for (size_t i = 0; i < g->n_sparse_initializer; i++) {
        const Onnx__SparseTensorProto *t = g->sparse_initializer[i];
        const char *name = t->values ? t->values->name : NULL;
        fg_weight w = {.name = fg_intern(im->cx, fg_show(im, name))};
        if (!name || !*name)
            return fg_error(im->cx, "sparse initializer %zu has no name", i);
        if (!fg_onnx_sparse(im->f, im->a,
                            fg_format(im->tmp, "initializer \"%s\"", w.name), t, &w) ||
            !define_constant(s, b, name, &w))
            return false;
    }
    return true;
}

/* ---- order ---------------------------------------------------------------------------- */

typedef struct order {
    fg_import *im;
    fg_names producer;    /* value to index of the node that makes it */
    uint32_t *dep, *from; /* dep[from[i] .. from[i+1]): nodes that node i reads */
    uint32_t n;
    size_t capdep;
} order;

static void
add_dep(order *o, const char *name)
{
    if (!name || !*name)
        return;
    int at = fg_names_get(&o->producer, fg_intern(o->im->cx, name));
    if (at >= 0)
        FG_PUSH(o->im->tmp, o->dep, o->n, o->capdep) = (uint32_t)at;
}

/* Names that a node's subgraphs may capture. A name that the subgraph makes itself cannot be made
 * outside too, so taking all of them is right. */
static void
add_deps(order *o, const Onnx__NodeProto *n)
{
    for (size_t i = 0; i < n->n_input; i++)
        add_dep(o, n->input[i]);
    for (size_t a = 0; a < n->n_attribute; a++) {
        const Onnx__GraphProto *g = n->attribute[a]->g;
        for (size_t i = 0; g && i < g->n_node; i++)
            add_deps(o, g->node[i]);
        for (size_t i = 0; g && i < g->n_output; i++)
            add_dep(o, g->output[i]->name);
    }
}

/* Depth first from each node in turn; what is met again while still open is a cycle. */
static bool
sort_nodes(order *o, size_t n, Onnx__NodeProto *const *node, uint32_t *out)
{
    enum { NEW, OPEN, DONE };
    uint8_t *state = FG_NEWN(o->im->tmp, uint8_t, n);
    uint32_t *stack = FG_NEWN(o->im->tmp, uint32_t, n),
             *next = FG_NEWN(o->im->tmp, uint32_t, n);
    uint32_t done = 0;
    for (uint32_t root = 0; root < n; root++) {
        uint32_t top = 0;
        if (state[root] != NEW)
            continue;
        stack[top++] = root;
        state[root] = OPEN;
        next[root] = o->from[root];
        while (top) {
            uint32_t i = stack[top - 1];
            if (next[i] == o->from[i + 1]) {
                state[i] = DONE;
                out[done++] = i;
                top--;
                continue;
            }
            uint32_t d = o->dep[next[i]++];
            if (state[d] == OPEN)
                return fg_error(o->im->cx, "%s \"%s\" is part of a cycle",
                                fg_show(o->im, node[d]->op_type),
                                fg_show(o->im, node[d]->name));
            if (state[d] == NEW) {
                state[d] = OPEN;
                next[d] = o->from[d];
                stack[top++] = d;
            }
        }
    }
    return true;
}

/* The order to import nodes in; out[n]. */
static bool
node_order(fg_import *im, size_t n, Onnx__NodeProto *const *node, uint32_t *out)
{
    order o = {.im = im, .producer = {.a = im->tmp}};
    bool sorted = true;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < node[i]->n_output; k++)
            if (*node[i]->output[k])
                fg_names_set(&o.producer, fg_intern(im->cx, node[i]->output[k]), (int)i);
    o.from = FG_NEWN(im->tmp, uint32_t, n + 1);
    for (size_t i = 0; i < n; i++) {
        add_deps(&o, node[i]);
        o.from[i + 1] = o.n;
        for (uint32_t k = o.from[i]; k < o.n; k++)
            sorted &= o.dep[k] < i;
        out[i] = (uint32_t)i;
    }
    return sorted || sort_nodes(&o, n, node, out);
}

/* ---- one node ------------------------------------------------------------------------- */

/* The short forms that the importer table uses: "" and "ms". */
static const char *
short_domain(const char *d)
{
    if (!d || !strcmp(d, "ai.onnx"))
        return "";
    return !strcmp(d, "com.microsoft") ? "ms" : d;
}

static bool
find_opset(fg_scope *s, fg_node *n)
{
    enum { NEWEST = 1000 }; /* anything above is no version */
    for (size_t i = 0; i < s->nopset; i++) {
        if (strcmp(short_domain(s->opset[i]->domain), n->domain))
            continue;
        n->opset = s->opset[i]->version;
        return (n->opset >= 1 && n->opset <= NEWEST) ||
               fg_error(s->im->cx, "opset version %lld of domain \"%s\" is out of range",
                        (long long)n->opset, fg_show(s->im, s->opset[i]->domain));
    }
    n->opset = 1;
    if (!strcmp(n->domain, "ms")) { /* left out by real writers */
        if (!s->im->noted_ms)
            fg_note(s->im->cx,
                    "com.microsoft is used but not imported: version 1 assumed");
        s->im->noted_ms = true;
        return true;
    }
    if (!*n->domain && s->im->f->model->ir_version < 3)
        return true;
    return fg_node_error(n, "its domain \"%s\" is not imported",
                         fg_show(s->im, *n->domain ? n->domain : "ai.onnx"));
}

typedef struct fg_controlrow {
    const char *op;
    bool (*run)(fg_node *n, fg_scope *s);
} fg_controlrow;

static const fg_controlrow control_ops[] = {
    {"If", fg_import_if},
    {"Loop", fg_import_loop},
    {"Scan", fg_import_scan},
};

/* Operators that take sequences where others take tensors. */
static const char *const sequence_ops[] = {
    "SequenceAt",
    "SequenceInsert",
    "SequenceErase",
    "SequenceLength",
    "ConcatFromSequence",
    "Identity",
    "If",
    "Loop",
    "Optional",
    "OptionalGetElement",
    "OptionalHasElement",
};

static bool
takes_sequences(const fg_node *n)
{
    for (size_t i = 0; i < sizeof sequence_ops / sizeof *sequence_ops; i++)
        if (!*n->domain && !strcmp(n->op, sequence_ops[i]))
            return true;
    return false;
}

/* Before opset 7 the second operand was aligned where attribute `axis` said. */
static bool
old_broadcast(fg_node *n, fg_reg *in)
{
    static const char *const ops[] = {"Add", "Sub", "Mul",   "Div",  "Pow",    "And",
                                      "Or",  "Xor", "Equal", "Less", "Greater"};
    bool one = false;
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        one |= !strcmp(n->op, ops[i]);
    if (*n->domain || n->opset >= 7 || !one || n->nin != 2 || !in[0] || !in[1] ||
        !fg_attr_has(n, "axis"))
        return true;
    fg_type a = *fg_rt(n->m, in[0]), b = *fg_rt(n->m, in[1]);
    int64_t axis = fg_attr_int(n, "axis", 0);
    if (axis < 0)
        axis += a.rank;
    if (axis < 0 || axis + b.rank > a.rank)
        return fg_node_error(n, "axis does not fit the shapes");
    while (axis + b.rank < a.rank)
        b.dim[b.rank++] = fg_ec(n->ex, 1);
    in[1] = fg_emit_reshape(n->b, in[1], b.rank, b.dim);
    return in[1] != 0;
}

static const fg_importrow *
find_row(const fg_node *n)
{
    const fg_importrow *row = fg_importer_find(n->domain, n->op);
    if (!row &&
        !*n->domain) /* operators of com.microsoft strayed into the default domain */
        row = fg_importer_find("ms", n->op);
    return row;
}

static bool
arity_ok(fg_node *n, const fg_importrow *row)
{
    int nout = n->nout;
    while (nout && !*n->pb->output[nout - 1])
        nout--;
    if (n->nin < row->min_in || (row->max_in >= 0 && n->nin > row->max_in))
        return fg_node_error(n, "has %d operands, but it takes %d to %d", n->nin,
                             row->min_in, row->max_in < 0 ? n->nin + 1 : row->max_in);
    if (nout < row->min_out || (row->max_out >= 0 && nout > row->max_out))
        return fg_node_error(n, "has %d outputs, but it gives %d to %d", nout,
                             row->min_out, row->max_out);
    return true;
}

static bool
run_importer(fg_node *n, fg_scope *s, fg_reg *in)
{
    const Onnx__FunctionProto *fn = fg_import_function(n->im, n->pb);
    for (int k = 0; !fn && k < n->nin; k++)
        if (fg_seq_is(n->im, in[k]) && !takes_sequences(n))
            return fg_node_unsupported(n, "operand %d is a sequence of tensors", k);
    if (fn)
        return fg_import_call(n, s, fn);
    if (!find_opset(s, n))
        return false;
    for (size_t i = 0; !*n->domain && i < sizeof control_ops / sizeof *control_ops; i++)
        if (!strcmp(n->op, control_ops[i].op))
            return control_ops[i].run(n, s);
    const fg_importrow *row = find_row(n);
    if (!row)
        return fg_node_unsupported(n, "there is no importer for it");
    return arity_ok(n, row) && old_broadcast(n, in) && row->run(n);
}

/* Operand registers; *poison when one comes from an unsupported node. */
static bool
find_operands(fg_node *n, fg_scope *s, fg_reg *in, bool *poison)
{
    *poison = false;
    for (size_t i = 0; i < n->pb->n_input; i++) {
        const char *name = n->pb->input[i];
        if (*name && !fg_scope_find(s, name, &in[i]))
            return fg_node_error(n, "reads \"%s\", which is not defined",
                                 fg_show(n->im, name));
        if (in[i] == FG_UNMADE)
            return fg_node_unsupported(n,
                                       "it reads \"%s\", an output that is not computed",
                                       fg_show(n->im, name));
        *poison |= in[i] == FG_POISON;
        if (in[i])
            n->nin = (int)i + 1;
    }
    return true;
}

/* A result that no machine holds is a mistake in the model, better found here than when running. */
static bool
size_ok(fg_node *n, fg_reg r)
{
    const fg_type *t = fg_rt(n->m, r);
    int64_t dim[FG_MAXRANK], count = 1;
    size_t bytes;
    bool ok = true, empty = false;
    if (t->dtype == FG_NODTYPE || !fg_type_static(n->ex, t, dim))
        return true;
    for (int k = 0; k < t->rank; k++) {
        empty |= dim[k] == 0;
        ok &= !__builtin_mul_overflow(count, dim[k], &count);
    }
    return empty ||
           (ok && fg_dtype_bytes(t->dtype, count, &bytes) && bytes <= FG_MAX_TENSOR) ||
           fg_node_error(n, "makes %s, which is too large", fg_type_text(n->m, t));
}

static bool
define_outputs(fg_node *n, fg_scope *s, bool poison)
{
    bool any = false;
    for (int k = 0; k < n->nout; k++) {
        if (!*n->pb->output[k])
            continue;
        any |= n->out[k] != 0;
        fg_reg r = poison ? FG_POISON : n->out[k] ? n->out[k] : FG_UNMADE;
        if (!fg_scope_define(s, n->pb->output[k], r))
            return false;
        if (r != FG_POISON && r != FG_UNMADE && !size_ok(n, r))
            return false;
    }
    return any || poison || n->nout == 0 ||
           fg_node_error(n, "computes none of its outputs");
}

static const char *
node_name(fg_scope *s, const Onnx__NodeProto *pb)
{
    fg_import *im = s->im;
    const char *name = pb->name && *pb->name ? pb->name : NULL;
    for (size_t i = 0; !name && i < pb->n_output; i++)
        if (*pb->output[i])
            name = pb->output[i];
    if (!name)
        name = "";
    if (s->call)
        name = fg_format(im->tmp, "%s%s", s->call->prefix, name);
    return fg_intern(im->cx, fg_printable(im->tmp, name, strlen(name), 300));
}

static bool
import_node(fg_scope *s, fg_build *b, const Onnx__NodeProto *pb)
{
    enum { MOST = 65536 };
    fg_import *im = s->im;
    fg_build at = *b;
    fg_node n = {.im = im, .m = im->m, .ex = im->m->ex, .b = &at, .pb = pb};
    bool poison = false;
    n.name = node_name(s, pb);
    n.op = fg_intern(im->cx, fg_show(im, pb->op_type));
    n.domain = fg_intern(im->cx, short_domain(pb->domain));
    if (++im->work > FG_MAX_NODES)
        return fg_error(im->cx, "more than %d nodes after functions are expanded",
                        FG_MAX_NODES);
    if (!*n.op)
        return fg_error(im->cx, "node \"%s\" has no operator", n.name);
    if (pb->n_input > MOST || pb->n_output > MOST)
        return fg_node_error(&n, "too many operands");
    if (!(n.pb = fg_import_resolve(s, n.name, pb)))
        return false;
    at.node = fg_dup(im->a, &n.name, sizeof n.name);
    at.nnode = 1;
    fg_reg *in = FG_NEWN(im->tmp, fg_reg, pb->n_input + 1);
    n.in = in;
    n.nout = (int)pb->n_output;
    n.out = FG_NEWN(im->tmp, fg_reg,
                    pb->n_output + 16); /* importers may fill all they have */
    im->m->onnx_nodes++;
    im->failed = im->unsupported = false;
    int nerror = im->cx->nerror;
    bool ok = fg_node_attributes_ok(&n) && find_operands(&n, s, in, &poison);
    if (ok && poison)
        ok = fg_import_function(im, pb) || find_row(&n) || !strcmp(n.op, "If") ||
             !strcmp(n.op, "Loop") || !strcmp(n.op, "Scan") ||
             fg_node_unsupported(&n, "there is no importer for it");
    else if (ok)
        ok = run_importer(&n, s, in);
    if (!ok && im->unsupported && !im->failed && nerror == im->cx->nerror)
        ok = poison = true; /* listed; go on */
    if (ok && (im->failed || nerror != im->cx->nerror))
        ok = false;
    im->failed = im->unsupported = false;
    if (!ok && nerror == im->cx->nerror)
        return fg_node_error(&n, "cannot be imported");
    if (!ok)
        return false;
    fg_module *m = im->m;
    FG_PUSH(m->a, m->origin, m->norigin, m->caporigin) =
        (fg_origin){n.name, n.op, n.nout ? n.out[0] : 0};
    return define_outputs(&n, s, poison);
}

bool
fg_import_nodes(fg_scope *s, fg_build *b, size_t n, Onnx__NodeProto *const *node)
{
    uint32_t *at = FG_NEWN(s->im->tmp, uint32_t, n);
    if (!node_order(s->im, n, node, at))
        return false;
    for (size_t i = 0; i < n; i++)
        if (!import_node(s, b, node[at[i]]))
            return false;
    return true;
}

/* ---- subgraphs ------------------------------------------------------------------------ */

static bool
find_results(fg_scope *s, const Onnx__GraphProto *g, fg_reg *result)
{
    for (size_t i = 0; i < g->n_output; i++) {
        const char *name = g->output[i]->name;
        if (!name || !fg_scope_find(s, name, &result[i]) || !result[i])
            return fg_error(s->im->cx, "graph \"%s\": output \"%s\" is not defined",
                            fg_show(s->im, g->name), fg_show(s->im, name));
        if (result[i] == FG_UNMADE)
            return fg_error(s->im->cx, "graph \"%s\": output \"%s\" is not supported",
                            fg_show(s->im, g->name), fg_show(s->im, name));
    }
    return true;
}

bool
fg_import_subgraph(fg_scope *up, fg_build *b, const Onnx__GraphProto *g, int nparam,
                   const fg_reg *param, fg_reg *result)
{
    fg_import *im = up->im;
    fg_scope s = fg_scope_new(im, up);
    if (im->depth >= FG_MAX_DEPTH)
        return fg_error(im->cx, "graphs are nested too deeply");
    if (g->n_input != (size_t)nparam)
        return fg_error(im->cx, "graph \"%s\" has %zu inputs, but %d are needed",
                        fg_show(im, g->name), g->n_input, nparam);
    for (int i = 0; i < nparam; i++)
        if (!g->input[i]->name || !fg_scope_define(&s, g->input[i]->name, param[i]))
            return fg_error(im->cx, "graph \"%s\": input %d cannot be named",
                            fg_show(im, g->name), i);
    im->depth++;
    bool ok = fg_import_constants(&s, b, g, NULL) &&
              fg_import_nodes(&s, b, g->n_node, g->node) && find_results(&s, g, result);
    im->depth--;
    return ok;
}

/* Subgraph nesting is bounded by the scan, so this may recurse. */
int
fg_graph_nodes(const Onnx__GraphProto *g)
{
    int n = (int)g->n_node;
    for (size_t i = 0; i < g->n_node; i++)
        for (size_t a = 0; a < g->node[i]->n_attribute; a++)
            if (g->node[i]->attribute[a]->g)
                n += fg_graph_nodes(g->node[i]->attribute[a]->g);
    return n;
}

/* ---- the operator table --------------------------------------------------------------- */

static const fg_importrow rows[] = {
#define ONNX_OP(domain, op, imin, imax, omin, omax, fn)                                  \
    {domain, op, imin, imax, omin, omax, fg_onnx_##fn},
#include "frontend/onnx_ops.def"
};

/* The table is kept sorted by hand, which the first look-up of a test build would notice: a row out of
 * place is not found. */
const fg_importrow *
fg_importer_find(const char *domain, const char *op)
{
    size_t lo = 0, hi = sizeof rows / sizeof *rows;
    domain = short_domain(domain);
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = strcmp(domain, rows[mid].domain);
        if (!c)
            c = strcmp(op, rows[mid].op);
        if (!c)
            return &rows[mid];
        if (c < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}

bool
fg_import_as(fg_node *n, const char *domain, const char *op, int64_t opset, int nin,
             const fg_reg *in, int nout, fg_reg *out)
{
    const fg_importrow *row = fg_importer_find(domain, op);
    if (!row)
        return fg_node_unsupported(n, "it needs %s", op);
    fg_node as = *n;
    as.domain = short_domain(domain);
    as.op = fg_intern(n->m->cx, op);
    as.opset = opset;
    as.nin = nin;
    as.in = in;
    as.nout = nout;
    as.out = out;
    while (as.nin && !in[as.nin - 1])
        as.nin--;
    return row->run(&as);
}
