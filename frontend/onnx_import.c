/* onnx_import.c - a model file becomes a module.
 *
 *     graph { input ids: i64[batch, seq], initializer wte: f32[50257,768],
 *             node Gather "wte" "ids" -> "h", output h }
 *         =>  func @main(%ids: i64[batch,seq]) -> f32[batch,seq,768] {
 *               %1 = const {w=$0} : f32[50257,768]       !"wte"
 *               %2 = gather %1, %ids : f32[batch,seq,768] !"Gather_0"
 *               ret %2
 *             }
 *
 * An initializer that is also an input can be replaced by the caller, so it becomes a
 * parameter with a default. Before IR version 4 every initializer had to be listed so, and none is
 * meant to be replaced: such a parameter only keeps its place, and nodes read the constant. What the file says about shapes of outputs is compared with what was
 * inferred, never trusted.
 */
#include "frontend/model.h"

enum { MAX_PORTS = 16384, NEWEST_IR = 14, NEWEST_OPSET = 28, OVERRIDABLE_IR = 4 };

/* ---- versions ------------------------------------------------------------------------- */

static bool
check_versions(fg_import *im)
{
    const Onnx__ModelProto *m = im->f->model;
    if (!m->graph)
        return fg_error(im->cx, "not an ONNX model: there is no graph");
    if (!m->has_ir_version || m->ir_version < 1 || m->ir_version > 1000)
        return fg_error(im->cx, "IR version %lld is out of range",
                        (long long)m->ir_version);
    if (m->ir_version > NEWEST_IR)
        fg_note(im->cx, "IR version %lld is newer than %d", (long long)m->ir_version,
                NEWEST_IR);
    if (!m->n_opset_import && m->ir_version >= 3)
        return fg_error(im->cx, "the model imports no operator set");
    for (size_t i = 0; i < m->n_opset_import; i++) {
        const Onnx__OperatorSetIdProto *o = m->opset_import[i];
        const char *d = o->domain ? o->domain : "";
        if (o->version < 1 || o->version > 1000)
            return fg_error(im->cx, "opset version %lld of domain \"%s\" is out of range",
                            (long long)o->version, fg_show(im, d));
        if (!*d && o->version > NEWEST_OPSET)
            fg_note(im->cx,
                    "opset %lld is newer than %d, which is what operators are read as",
                    (long long)o->version, NEWEST_OPSET);
        const char *key = fg_intern(im->cx, strcmp(d, "ai.onnx") ? d : "");
        int before = fg_names_get(&im->opsets, key);
        if (before >= 0 && before != (int)o->version)
            return fg_error(im->cx, "domain \"%s\" is imported in versions %d and %lld",
                            fg_show(im, d), before, (long long)o->version);
        fg_names_set(&im->opsets, key, (int)o->version);
    }
    return true;
}

/* ---- inputs --------------------------------------------------------------------------- */

static const Onnx__TensorProto *
find_initializer(const Onnx__GraphProto *g, const fg_names *index, const char *key)
{
    int at = fg_names_get(index, key);
    return at < 0 ? NULL : g->initializer[at];
}

/* A default's own shape, when the input declares none. */
static bool
input_type(fg_import *im, const Onnx__ValueInfoProto *v, const fg_weight *dflt,
           fg_type *t)
{
    if (!dflt || (v->type && v->type->tensor_type && v->type->tensor_type->shape)) {
        if (!fg_import_type(im, v, t))
            return false;
        if (dflt && (dflt->dtype != t->dtype || dflt->rank != t->rank))
            return fg_error(im->cx, "input \"%s\": its initializer is of another type",
                            fg_show(im, v->name));
        return true;
    }
    *t = fg_type_scalar(dflt->dtype);
    for (int d = 0; d < dflt->rank; d++)
        t->dim[t->rank++] = fg_ec(im->m->ex, dflt->dim[d]);
    return true;
}

/* Token ids, masks and positions are never empty, whereas a cache may be. Knowing that a
 * sequence has an element decides most comparisons of sizes in exported graphs. */
static void
assume_tokens(fg_module *m, const fg_type *t)
{
    fg_expr one = fg_ec(m->ex, 1);
    fg_sym s;
    if (t->rank > 2 || (t->dtype != FG_i64 && t->dtype != FG_i32 && t->dtype != FG_bool))
        return;
    for (int k = 0; k < t->rank; k++)
        if (fg_e_single(m->ex, fg_e_renew(m->ex, t->dim[k]), &s))
            fg_assume_le(m, one, t->dim[k]);
}

/* Defaults of inputs go to `replaceable`, unless it is NULL: then none is. */
static bool
import_inputs(fg_import *im, fg_scope *s, const Onnx__GraphProto *g,
              fg_names *replaceable)
{
    fg_module *m = im->m;
    fg_names index = {.a = im->tmp};
    size_t cap = 0;
    if (g->n_input > MAX_PORTS || g->n_output > MAX_PORTS)
        return fg_error(im->cx, "more than %d inputs or outputs", MAX_PORTS);
    for (size_t i = 0; i < g->n_initializer; i++)
        if (g->initializer[i]->name)
            fg_names_set(&index, fg_intern(im->cx, g->initializer[i]->name), (int)i);
    for (size_t i = 0; i < g->n_input; i++) {
        const Onnx__ValueInfoProto *v = g->input[i];
        fg_port port = {.weight = -1};
        fg_weight w = {0};
        fg_type t;
        if (!v->name || !*v->name)
            return fg_error(im->cx, "input %zu has no name", i);
        port.name = fg_intern(im->cx, v->name);
        const Onnx__TensorProto *dflt = find_initializer(g, &index, port.name);
        if (dflt) {
            if (!fg_import_initializer(im, dflt, &w))
                return false;
            port.weight = fg_weight_add(m, &w);
        }
        if (!input_type(im, v, dflt ? &w : NULL, &t))
            return false;
        port.reg = fg_param(m, m->body, t, fg_import_word(im, v->name));
        assume_tokens(m, &t);
        if (dflt && replaceable)
            fg_names_set(replaceable, port.name, 1);
        if ((!dflt || replaceable) && !fg_scope_define(s, v->name, port.reg))
            return false;
        FG_PUSH(im->a, m->input, m->ninput, cap) = port;
    }
    return true;
}

/* ---- outputs -------------------------------------------------------------------------- */

static void
compare_declared(fg_import *im, const Onnx__ValueInfoProto *v, fg_reg r)
{
    const Onnx__TypeProto__Tensor *d = v->type ? v->type->tensor_type : NULL;
    const fg_type *t = fg_rt(im->m, r);
    bool same = true;
    int64_t have;
    if (!d)
        return;
    if (d->elem_type && fg_dtype_by_onnx(d->elem_type) != t->dtype)
        same = false;
    if (d->shape && d->shape->n_dim != t->rank)
        same = false;
    for (int k = 0; same && d->shape && k < t->rank; k++)
        if (d->shape->dim[k]->has_dim_value && fg_e_const(im->m->ex, t->dim[k], &have))
            same = d->shape->dim[k]->dim_value == have;
    if (!same)
        fg_warn(im->cx, "output \"%s\" is %s, not as declared", fg_show(im, v->name),
                fg_type_text(im->m, t));
}

/* Results are registers of their own: not parameters, not constants, each returned once. */
static bool
import_outputs(fg_import *im, fg_scope *s, fg_build *b, const Onnx__GraphProto *g)
{
    fg_module *m = im->m;
    fg_names taken = {.a = im->tmp};
    fg_reg *out = FG_NEWN(im->tmp, fg_reg, g->n_output);
    fg_bits used = fg_bits_new(im->tmp, m->nreg);
    uint32_t known = m->nreg;
    if (!g->n_output)
        return fg_error(im->cx, "the graph has no outputs");
    m->output = FG_NEWN(im->a, fg_port, g->n_output);
    for (size_t i = 0; i < g->n_output; i++) {
        const char *name = g->output[i]->name;
        fg_reg r = 0;
        if (!name || !*name || !fg_scope_find(s, name, &r) || !r)
            return fg_error(im->cx, "output \"%s\" is not defined", fg_show(im, name));
        if (fg_names_get(&taken, fg_intern(im->cx, name)) >= 0)
            return fg_error(im->cx, "output \"%s\" is listed twice", fg_show(im, name));
        fg_names_set(&taken, fg_intern(im->cx, name), 1);
        if (r == FG_POISON) /* listed already */
            return false;
        if (r == FG_UNMADE || fg_seq_is(im, r))
            return fg_error(im->cx, "output \"%s\" is not supported: %s",
                            fg_show(im, name),
                            r == FG_UNMADE ? "its operator's importer leaves it out"
                                           : "it is a sequence of tensors");
        compare_declared(im, g->output[i], r);
        if (!fg_def(m, r) || fg_is_op(fg_def(m, r), FG_OP_const) ||
            (r < known && fg_bits_has(used, r)))
            r = fg_emit1(b, FG_OP_copy, r);
        if (!r)
            return false;
        if (r < known)
            fg_bits_add(used, r);
        out[i] = r;
        m->output[m->noutput++] =
            (fg_port){.name = fg_intern(im->cx, name), .reg = r, .weight = -1};
    }
    return fg_inst_finish(b, fg_inst_begin(b, FG_OP_ret, m->noutput, out), NULL, 0) !=
           NULL;
}

/* ---- the whole ------------------------------------------------------------------------ */

static bool
import_model(fg_import *im)
{
    const Onnx__GraphProto *g = im->f->model->graph;
    fg_names names = {.a = im->tmp};
    if (!check_versions(im))
        return false;
    fg_names *replaceable = im->f->model->ir_version < OVERRIDABLE_IR ? NULL : &names;
    fg_scope s = fg_scope_new(im, NULL);
    fg_build b = fg_build_end(im->m->body);
    if (!fg_import_functions(im) || !fg_import_symbols(im, g) ||
        !import_inputs(im, &s, g, replaceable) || !fg_import_dim_options(im) ||
        !fg_import_constants(&s, &b, g, replaceable) ||
        !fg_import_nodes(&s, &b, g->n_node, g->node))
        return false;
    return import_outputs(im, &s, &b, g) && !im->f->nbad;
}

typedef struct importing {
    fg_onnx_file *f;
    fg_arena *a, *tmp;
    const fg_import_options *o;
    fg_module *m;
    bool ok;
} importing;

static void
do_import(void *arg)
{
    importing *j = arg;
    fg_onnx_file *f = j->f;
    j->tmp = fg_arena_new(f->cx);
    fg_import im = {.f = f, .cx = f->cx, .a = j->a, .tmp = j->tmp, .o = j->o};
    im.functions.a = im.dims.a = im.plain.a = im.opsets.a = j->tmp;
    j->m = im.m = fg_module_new(f->cx, j->a, f->base);
    im.m->checks = true;
    fg_exprs_limit(im.m->ex, FG_DEPTH_OF_MODELS);
    j->ok = import_model(&im);
    fg_exprs_limit(im.m->ex, FG_DEPTH);
    im.m->checks = false;
}

fg_module *
fg_onnx_import(fg_onnx_file *f, fg_arena *a, const fg_import_options *o)
{
    importing j = {.f = f, .a = a, .o = o};
    fg_ctx *cx = f->cx;
    fg_diag *last = cx->last_diag;
    int nerror = cx->nerror;
    f->nbad = 0;
    fg_raise raise = fg_protect(cx, do_import, &j);
    fg_arena_free(j.tmp);
    if (raise == FG_RAISE_MEMORY)
        fg_raise_memory(cx);
    if (raise == FG_RAISE_BUG)
        FG_BUG(cx, "while importing a model");
    if (!j.ok && cx->nerror == nerror)
        fg_error(cx, "%d nodes are not supported, first %s \"%s\": %s", f->nbad,
                 f->nbad ? f->bad[0].op : "", f->nbad ? f->bad[0].node : "",
                 f->nbad ? f->bad[0].reason : "");
    fg_onnx_prefix(f, last);
    fg_onnx_imported(f);
    return j.ok ? j.m : NULL;
}
