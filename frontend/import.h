/* import.h - inside the importer: what one operator's importer sees and may call.
 * Only frontend/ includes this (it is where Onnx__* lives). */
#ifndef FG_FRONTEND_IMPORT_H
#define FG_FRONTEND_IMPORT_H

#include "ir/ir.h"
#include "onnx.pb-c.h"

typedef struct fg_import fg_import;

/* One ONNX node being imported. Operands are registers (0: omitted); the importer fills
 * out[]. Domain "" is ai.onnx. */
typedef struct fg_node {
    fg_import *im;
    fg_module *m;
    fg_exprs *ex;
    fg_build *b; /* emits with this node's name */
    const Onnx__NodeProto *pb;
    const char *op, *domain, *name; /* interned, printable */
    int64_t opset;                  /* version of its domain that the model imports */
    int nin, nout;                  /* trailing omitted operands not counted */
    const fg_reg *in;
    fg_reg *out;
} fg_node;

/* One importer per operator. False: a diagnostic was recorded. */
typedef bool fg_importer(fg_node *n);

/* "OP \"name\": text"; returns false. fg_node_unsupported marks it as not implemented (for check). */
bool fg_node_error(fg_node *n, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
bool fg_node_unsupported(fg_node *n, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static inline fg_reg
fg_in(const fg_node *n, int k)
{
    return k < n->nin ? n->in[k] : 0;
}
/* Operand k, which must be there; else diagnostic and 0. */
fg_reg fg_need(fg_node *n, int k);
static inline const fg_type *
fg_in_type(const fg_node *n, int k)
{
    return fg_rt(n->m, n->in[k]);
}

/* Attributes. A wrong type is a diagnostic and *ok = false when ok is given... these set
 * n->im's failure flag, checked after the importer returns. */
bool fg_attr_has(const fg_node *n, const char *name);
int64_t fg_attr_int(fg_node *n, const char *name, int64_t dflt);
double fg_attr_float(fg_node *n, const char *name, double dflt);
const char *fg_attr_str(fg_node *n, const char *name, const char *dflt); /* interned */
/* Count; -1 when absent. */
int fg_attr_ints(fg_node *n, const char *name, const int64_t **v);
int fg_attr_floats(fg_node *n, const char *name, const float **v);
/* A const register, a sparse tensor made dense; 0 when absent. */
fg_reg fg_attr_tensor(fg_node *n, const char *name);

/* Operand k as integers known at compile time, as expressions over symbols. _opt: false (no
 * diagnostic) when it is computed from data. fg_in_exprs reads what is not known at run time
 * (fg_emit_readsym, bounds lo..hi), so it fails only when the length is not known. */
bool fg_in_exprs_opt(fg_node *n, int k, const fg_expr **v, int *count);
bool fg_in_exprs(fg_node *n, int k, int64_t lo, int64_t hi, const fg_expr **v,
                 int *count);
/* Operand k as plain constants; diagnostic when it is not. */
bool fg_in_ints(fg_node *n, int k, const int64_t **v, int *count);
bool fg_in_scalar_f(fg_node *n, int k, double *v);

/* Axis made non-negative and checked against rank. */
bool fg_axis(fg_node *n, int64_t axis, int rank, int *out);
/* Ascending, unique, checked axes from attribute `axes` (old opsets) or operand k (new);
 * *count = -1 when neither is there. */
bool fg_axes(fg_node *n, int k, int rank, int64_t *axes, int *count);

/* Sequences of tensors exist only at import time: a "register" that stands for a list. */
fg_reg fg_seq_new(fg_node *n, int count, const fg_reg *items);
int fg_seq_items(fg_node *n, fg_reg seq, const fg_reg **items); /* -1: not a sequence */

/* Runs a com.microsoft or ONNX operator's importer on registers, for operators defined by others. */
bool fg_import_as(fg_node *n, const char *domain, const char *op, int64_t opset, int nin,
                  const fg_reg *in, int nout, fg_reg *out);

typedef struct fg_importrow {
    const char *domain, *op;
    int min_in, max_in, min_out, max_out; /* max -1: open */
    fg_importer *run;
} fg_importrow;
/* Rows of onnx_ops.def, sorted by (domain, op). */
const fg_importrow *fg_importer_find(const char *domain, const char *op);

/* Every importer of onnx_ops.def. Row: ONNX_OP(domain, op, min_in, max_in, min_out, max_out, function) */
#define ONNX_OP(domain, op, imin, imax, omin, omax, fn) fg_importer fg_onnx_##fn;
#include "frontend/onnx_ops.def"

#endif
