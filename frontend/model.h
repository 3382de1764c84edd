/* model.h - between the parts of the importer's core: the mapped file, its tensors, and the
 * state of one import. Operator importers see frontend/import.h instead. */
#ifndef FG_FRONTEND_MODEL_H
#define FG_FRONTEND_MODEL_H

#include "frontend/import.h"
#include "frontend/onnx.h"
#include "ir/eval.h"

/* ---- limits: what no honest model reaches ------------------------------------------- */

enum {
    FG_MAX_DEPTH = 100, /* nested messages, graphs and calls */
    FG_MAX_MESSAGES = 2000000,
    FG_MAX_STRINGS = 4000000,
    FG_MAX_SCALARS = 16 << 20,   /* elements of dims, ints, floats */
    FG_MAX_CHUNKS = 1024,        /* pieces of one tensor's data */
    FG_MAX_SLIM = 256 << 20,     /* bytes of a model without its weights */
    FG_MAX_UNPACKED = 640 << 20, /* and of that as messages in memory */
    FG_MAX_TYPED = 512 << 20,    /* bytes of one tensor that must be converted */
    FG_MAX_NODES = 400000,       /* nodes imported, functions expanded */
    FG_MAX_EXTERNAL = 65536      /* files beside the model */
};
#define FG_MAX_TENSOR ((size_t)1 << 40) /* bytes of a value whose size is known */

/* Names to numbers; keys are interned strings. */
typedef struct fg_names {
    fg_arena *a; /* of the table; the first set allocates */
    const char **key;
    int *value;
    uint32_t n, cap;
} fg_names;
int fg_names_get(const fg_names *t, const char *key); /* -1: none */
void fg_names_set(fg_names *t, const char *key, int value);

/* ---- the file (onnx_read.c) --------------------------------------------------------- */

typedef struct fg_map { /* a whole file, read-only */
    const uint8_t *data;
    size_t size;
    const char *name;  /* for diagnostics */
    const char *local; /* relative to the model's folder: fg_weight.file */
} fg_map;

struct fg_onnx_file {
    fg_ctx *cx;
    fg_arena *a;
    const char *path;  /* as given */
    const char *shown; /* printable */
    const char *base;  /* last component without .onnx */
    fg_map map;
    int dir; /* descriptor of the model's folder; -1 */
    Onnx__ModelProto *model;
    fg_map *ext; /* files beside the model that hold weights */
    int next;
    size_t capext;
    struct fg_names *locations; /* to indices of ext */
    struct fg_unsupported *bad;
    int nbad;
    size_t capbad;
};

/* The external file at `location`, mapped; NULL with a diagnostic that begins with `what`. */
const fg_map *fg_onnx_external(fg_onnx_file *f, const char *what, const char *location);

void fg_onnx_imported(fg_onnx_file *f); /* weights are about to be used */

/* Unpacks the mapped file as a message of that kind; data of tensors stays where it is. */
ProtobufCMessage *fg_onnx_unpack(fg_onnx_file *f, fg_arena *tmp,
                                 const ProtobufCMessageDescriptor *kind);
/* Puts the file's path before the text of every diagnostic recorded after `last`. */
void fg_onnx_prefix(fg_onnx_file *f, fg_diag *last);

/* ---- wire scan (onnx_scan.c) --------------------------------------------------------- */

/* Checks the bytes of map as a message of `kind` and writes a copy for protobuf-c into
 * arena a: known fields only, tensor data replaced by references into the map. */
bool fg_onnx_scan(fg_onnx_file *f, fg_arena *a, const ProtobufCMessageDescriptor *kind,
                  const uint8_t **slim, size_t *nslim);

/* ---- tensors (onnx_tensor.c): the one way from TensorProto to data --------------------- */

/* `what` names the tensor in diagnostics. Data stays mapped where the file's layout is ours, and goes
 * to arena a otherwise. */
bool fg_onnx_tensor(fg_onnx_file *f, fg_arena *a, const char *what,
                    const Onnx__TensorProto *t, fg_weight *w);
const char *fg_onnx_type_name(fg_arena *a, int code); /* of a type that is not ours */
bool fg_onnx_sparse(fg_onnx_file *f, fg_arena *a, const char *what,
                    const Onnx__SparseTensorProto *t, fg_weight *w);

/* ---- import --------------------------------------------------------------------------- */

/* What a name may stand for besides a register and 0 (an omitted argument of a function). */
#define FG_POISON ((fg_reg)INT32_MAX) /* of an unsupported node, while checking */
#define FG_UNMADE (FG_POISON - 1)     /* output that its importer leaves out */

/* A graph or function body on its way in: its names, and where its instructions go. */
typedef struct fg_scope {
    fg_import *im;
    struct fg_scope *up;        /* enclosing graph; NULL for @main and function bodies */
    fg_names names;             /* to registers */
    const struct fg_call *call; /* innermost function call this is part of; NULL */
    size_t nopset;
    Onnx__OperatorSetIdProto *const *opset;
} fg_scope;

typedef struct fg_call { /* a function being expanded */
    const struct fg_call *up;
    const Onnx__FunctionProto *fn;
    const Onnx__NodeProto *node; /* the caller, its own references resolved */
    const char *prefix;          /* of the names of the nodes inside */
} fg_call;

typedef struct fg_seq {
    fg_reg reg;
    int n;
    fg_reg *item;
} fg_seq;

struct fg_import {
    fg_onnx_file *f;
    fg_module *m;
    fg_ctx *cx;
    fg_arena *a;   /* the module's */
    fg_arena *tmp; /* dies with the import */
    const fg_import_options *o;
    bool failed;      /* an accessor complained */
    bool unsupported; /* fg_node_unsupported was called for the current node */
    int depth;        /* graphs and calls entered */
    int work;         /* nodes visited, against FG_MAX_NODES */
    fg_seq *seq;
    int nseq;
    size_t capseq;
    fg_names functions; /* "domain\nname\noverload" to index */
    fg_names dims;      /* text of a dim_param to the index in dimexpr */
    fg_expr *dimexpr;
    int ndimexpr;
    size_t capdimexpr;
    fg_names plain;  /* dim_params of inputs that are bare names */
    fg_names opsets; /* domain to version */
    bool noted_ms;   /* com.microsoft was used without being imported */
};

/* onnx_types.c */
bool fg_import_type(fg_import *im, const Onnx__ValueInfoProto *v, fg_type *out);
bool fg_import_symbols(fg_import *im, const Onnx__GraphProto *g);
bool fg_import_dim_options(fg_import *im);
/* Usable as the name of a register. */
const char *fg_import_word(fg_import *im, const char *name);

/* onnx_graph.c */
fg_scope fg_scope_new(fg_import *im, fg_scope *up);
bool fg_scope_define(fg_scope *s, const char *name, fg_reg r);
bool fg_scope_find(fg_scope *s, const char *name, fg_reg *r); /* here or around */
/* Initializers, but those in `skip`. */
bool fg_import_constants(fg_scope *s, fg_build *b, const Onnx__GraphProto *g,
                         const fg_names *skip);
bool fg_import_initializer(fg_import *im, const Onnx__TensorProto *t, fg_weight *w);
bool fg_import_nodes(fg_scope *s, fg_build *b, size_t n, Onnx__NodeProto *const *node);
/* A subgraph with parameters bound to registers; result[g->n_output], any may be FG_POISON. */
bool fg_import_subgraph(fg_scope *s, fg_build *b, const Onnx__GraphProto *g, int nparam,
                        const fg_reg *param, fg_reg *result);
fg_reg fg_import_weight(fg_build *b, const fg_weight *w);
bool fg_seq_is(const fg_import *im, fg_reg r);

/* onnx_control.c, onnx_loop.c: importers that need the scope. */
bool fg_import_if(fg_node *n, fg_scope *s);
bool fg_import_loop(fg_node *n, fg_scope *s);
bool fg_import_scan(fg_node *n, fg_scope *s);

bool fg_any_poison(int n, const fg_reg *r);
bool fg_all_poison(fg_node *n);                         /* all outputs; true */
bool fg_known_scalar(fg_node *n, fg_reg r, int64_t *v); /* integer or bool, known now */
/* r as rank 0; 0 with a diagnostic unless it is one element of type d. */
fg_reg fg_one_element(fg_node *n, fg_build *b, fg_reg r, fg_dtype d, const char *what);
/* A new run-time symbol for a dimension, noted in syms. */
fg_expr fg_fresh_dim(fg_node *n, int64_t lo, int64_t hi, int64_t *syms, int *nsym);
bool fg_import_yield(fg_build *b, int n, const fg_reg *r);

/* How the import stood; taken before something that may be tried again another way. */
typedef struct fg_attempt {
    fg_diag *last;
    int nerror, nbad, nodes, nrelied;
} fg_attempt;
fg_attempt fg_attempt_begin(fg_import *im);
void fg_attempt_undo(fg_import *im, fg_attempt t);
int fg_graph_nodes(const Onnx__GraphProto *g); /* subgraphs included */

/* onnx_function.c */
bool fg_import_functions(fg_import *im); /* index, check */
const Onnx__FunctionProto *fg_import_function(fg_import *im, const Onnx__NodeProto *pb);
bool fg_import_call(fg_node *n, fg_scope *s, const Onnx__FunctionProto *fn);
/* The node with references to attributes of the call replaced; NULL with a diagnostic. */
const Onnx__NodeProto *fg_import_resolve(fg_scope *s, const char *where,
                                         const Onnx__NodeProto *pb);

/* onnx_node.c */
bool fg_node_attributes_ok(fg_node *n);
const Onnx__GraphProto *fg_attr_graph(fg_node *n, const char *name);

const char *fg_show(fg_import *im, const char *s); /* printable, short */

#endif
