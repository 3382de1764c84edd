/* onnx_function.c - functions that the model brings along are expanded where they are called.
 *
 *     functions { name Norm, domain "my", input "x", output "y",
 *                 node { ReduceMean "x" -> "t", axes = @axes } .. }
 *     node { my.Norm, input "h", output "z", name "n1", axes [1] }
 *         =>  %9 = reduce_mean %h {axes=[1]}   !"n1/ReduceMean"
 *
 * A body has names of its own, versions of its own, and takes attributes of the call by reference.
 * A function may call others, but not itself by any route; the number of nodes that come out is bounded.
 */
#include "frontend/model.h"

static const char *
function_key(fg_import *im, const char *domain, const char *name, const char *overload)
{
    if (!domain || !strcmp(domain, "ai.onnx"))
        domain = "";
    return fg_intern(im->cx, fg_format(im->tmp, "%s\n%s\n%s", domain, name ? name : "",
                                       overload ? overload : ""));
}

bool
fg_import_functions(fg_import *im)
{
    const Onnx__ModelProto *m = im->f->model;
    for (size_t i = 0; i < m->n_functions; i++) {
        const Onnx__FunctionProto *fn = m->functions[i];
        const char *key = function_key(im, fn->domain, fn->name, fn->overload);
        if (!fn->name || !*fn->name)
            return fg_error(im->cx, "function %zu has no name", i);
        if (fg_names_get(&im->functions, key) >= 0)
            return fg_error(im->cx, "function \"%s\" is defined twice",
                            fg_show(im, fn->name));
        fg_names_set(&im->functions, key, (int)i);
    }
    return true;
}

const Onnx__FunctionProto *
fg_import_function(fg_import *im, const Onnx__NodeProto *pb)
{
    if (!im->functions.n)
        return NULL;
    int at = fg_names_get(&im->functions,
                          function_key(im, pb->domain, pb->op_type, pb->overload));
    return at < 0 ? NULL : im->f->model->functions[at];
}

/* ---- attributes by reference ---------------------------------------------------------- */

static const Onnx__AttributeProto *
attribute_named(size_t n, Onnx__AttributeProto *const *a, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (a[i]->name && !strcmp(a[i]->name, name))
            return a[i];
    return NULL;
}

static bool
refers(const Onnx__AttributeProto *a)
{
    return a->ref_attr_name && *a->ref_attr_name;
}

const Onnx__NodeProto *
fg_import_resolve(fg_scope *s, const char *where, const Onnx__NodeProto *pb)
{
    fg_arena *tmp = s->im->tmp;
    bool any = false;
    for (size_t i = 0; i < pb->n_attribute; i++)
        any |= refers(pb->attribute[i]);
    if (!any)
        return pb;
    if (!s->call) {
        fg_error(
            s->im->cx,
            "%s \"%s\": an attribute refers to a function's, outside of any function",
            fg_show(s->im, pb->op_type), where);
        return NULL;
    }
    Onnx__NodeProto *copy = fg_dup(tmp, pb, sizeof *pb);
    copy->attribute = FG_NEWN(tmp, Onnx__AttributeProto *, pb->n_attribute);
    copy->n_attribute = 0;
    for (size_t i = 0; i < pb->n_attribute; i++) {
        Onnx__AttributeProto *a = pb->attribute[i];
        if (refers(a)) {
            const Onnx__NodeProto *call = s->call->node;
            const Onnx__FunctionProto *fn = s->call->fn;
            const Onnx__AttributeProto *v =
                attribute_named(call->n_attribute, call->attribute, a->ref_attr_name);
            if (!v)
                v = attribute_named(fn->n_attribute_proto, fn->attribute_proto,
                                    a->ref_attr_name);
            if (!v) /* neither given nor defaulted: absent here too */
                continue;
            Onnx__AttributeProto *given = fg_dup(tmp, v, sizeof *v);
            given->name = a->name;
            a = given;
        }
        copy->attribute[copy->n_attribute++] = a;
    }
    return copy;
}

/* ---- calls ---------------------------------------------------------------------------- */

bool
fg_import_call(fg_node *n, fg_scope *s, const Onnx__FunctionProto *fn)
{
    fg_import *im = n->im;
    fg_scope body = fg_scope_new(im, NULL);
    fg_call call = {.up = s->call, .fn = fn, .node = n->pb};
    for (const fg_call *c = s->call; c; c = c->up)
        if (c->fn == fn)
            return fg_node_error(n, "function \"%s\" calls itself",
                                 fg_show(im, fn->name));
    if (im->depth >= FG_MAX_DEPTH)
        return fg_node_error(n, "calls are nested too deeply");
    if ((size_t)n->nin > fn->n_input || (size_t)n->nout > fn->n_output)
        return fg_node_error(n,
                             "has %d operands and %d outputs, its function %zu and %zu",
                             n->nin, n->nout, fn->n_input, fn->n_output);
    call.prefix = fg_format(im->tmp, "%s/", n->name);
    body.call = &call;
    if (fn->n_opset_import) {
        body.nopset = fn->n_opset_import;
        body.opset = fn->opset_import;
    }
    for (size_t i = 0; i < fn->n_input; i++)
        if (!fg_scope_define(&body, fn->input[i], i < (size_t)n->nin ? n->in[i] : 0))
            return false;
    im->depth++;
    im->m->onnx_nodes--; /* its nodes count, not the call */
    bool ok = fg_import_nodes(&body, n->b, fn->n_node, fn->node);
    im->depth--;
    for (int k = 0; ok && k < n->nout; k++) {
        if (!*n->pb->output[k])
            continue;
        if (!fg_scope_find(&body, fn->output[k], &n->out[k]))
            ok = fg_node_error(n, "output \"%s\" of its function is not defined",
                               fg_show(im, fn->output[k]));
    }
    return ok;
}
