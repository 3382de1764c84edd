/* ir.h - module, function, block, instruction, register.
 *
 *     func @main(%ids: i64[B,S]) -> f32[B,S,128] {
 *       %w = const {w=$0} : f32[50257,768]            !"wte"
 *       %x = gather %w, %ids : f32[B,S,768]            !"/transformer/wte/Gather"
 *       ..
 *       ret %y
 *     }
 *
 * A function is one block; control flow and kernels are instructions that own blocks
 * (regions). A register is an index into its module's register table and has one definition: an instruction, or
 * a block parameter. Regions may read registers of the blocks around them, except kernel
 * regions, which see only their parameters.
 * Everything is in the module's arena. Inside a block order is explicit: instructions are a doubly linked list.
 */
#ifndef FG_IR_IR_H
#define FG_IR_IR_H

/* clang-format off: members and their comments stand in columns */

#include "ir/op.h"

typedef uint32_t fg_reg; /* 0: no register */
typedef struct fg_module fg_module;
typedef struct fg_block fg_block;
typedef struct fg_inst fg_inst;

typedef enum { FG_STAGE_TENSOR, FG_STAGE_FUSED, FG_STAGE_PLACED } fg_stage;

struct fg_inst {
    fg_inst *prev, *next;
    fg_block *block;
    fg_op op;
    int nin, nout, nregion, nnode;
    fg_reg *in, *out;
    fg_attr *attr; /* by attribute id - info->attr0 */
    fg_block **region;
    const char **node; /* names of the ONNX nodes it stands for, interned */
    uint32_t mark;     /* scratch for one pass */
};

struct fg_block {
    fg_module *m;
    fg_inst *owner;   /* NULL for a function's block */
    fg_block *parent; /* block that holds the owner */
    fg_inst *first, *last;
    int nparam;
    fg_reg *param;
};

/* Where a register lives once it is placed (FUSED -> PLACED). */
typedef enum {
    FG_MEM_NONE,
    FG_MEM_INPUT,
    FG_MEM_OUTPUT,
    FG_MEM_CONST,
    FG_MEM_ARENA,
    FG_MEM_ALIAS,
    FG_MEM_DYNAMIC,
    FG_MEM_STATE,
    FG_MEM_ONCE /* made from constants before the first run, and kept */
} fg_memkind;

typedef struct fg_reginfo {
    fg_type type;
    const char *name; /* interned, without %; unique in the module */
    fg_inst *def;     /* NULL for a block parameter */
    fg_block *block;  /* that defines it */
    /* Elements of a small integer or bool tensor as expressions, row-major; NULL when not known. Kept by
     * fg_emit through ir/symval.c. Float tensors are never tracked except through cast
     * chains that symval.c understands. */
    const fg_expr *sym;
    int nsym;
    /* PLACED: */
    fg_memkind mem;
    fg_reg alias; /* FG_MEM_ALIAS: the register whose storage it shares, from its start */
    int64_t offset; /* FG_MEM_ARENA: under the bounds used for planning */
} fg_reginfo;

/* A constant tensor. Data is borrowed: a mapped file, or the module's arena. Equal
 * content (type, shape, bytes) is one weight. */
typedef struct fg_weight {
    fg_dtype dtype;
    int rank;
    int64_t dim[FG_MAXRANK];
    const void *data; /* any alignment; NULL: text whose file is not at hand */
    size_t bytes;
    const char *name; /* of the first initializer with this content; may be NULL */
    const char
        *file; /* that it is mapped from, relative to the model's folder; or NULL */
    uint64_t file_offset;
    bool mapped; /* data lies in a read-only mapping of the file */
    int uses;    /* how many initializers shared it */
} fg_weight;

typedef struct fg_origin { /* a node of the model file */
    const char *name, *op; /* interned; the name as instructions carry it */
    fg_reg reg;            /* of its first output when it was imported; 0: none */
} fg_origin;

typedef struct fg_weightcount {
    size_t bytes, shared; /* of all; of those whose content another one has */
    int tied;             /* how many the latter are */
} fg_weightcount;

typedef struct fg_port { /* an input or output of the model */
    const char *name;    /* as the model spells it */
    fg_reg reg;
    int64_t weight; /* input with a default value: its weight; else -1 */
} fg_port;

/* An input whose next value is an output (ir/state.c). */
typedef struct fg_state {
    int input, output;
    int axis;             /* along which it grows; -1: its size never changes */
    fg_expr length, next; /* in place: what is valid along the axis before and after the
                             run; FG_E_BAD: two tensors that change places */
    fg_expr at;   /* of a window, a symbol: the row behind the past; else FG_E_BAD */
    int64_t keep; /* of a window: rows of the past that are read, at most */
} fg_state;

struct fg_module {
    fg_ctx *cx;
    fg_arena *a;
    fg_exprs *ex;
    fg_stage stage;
    const char *name; /* model file's base name */
    fg_block *body;   /* of @main */
    fg_reginfo *reg;  /* [nreg]; [0] unused */
    uint32_t nreg;
    size_t capreg;
    fg_weight *weight;
    int nweight;
    size_t capweight;
    void *weights;           /* index of them by content */
    fg_port *input, *output; /* output[i].reg = operand i of ret */
    int ninput, noutput;
    fg_state *state;
    int nstate;
    int onnx_nodes;    /* in the model file, functions inlined */
    fg_origin *origin; /* those nodes, and calls of functions; not in text */
    int norigin;
    size_t caporigin;
    fg_weightcount
        initializers; /* every fg_weight_add counts; restore it around others */
    /* While a model is imported: what fg_unify could not solve, pairs. fg_inst_finish turns
     * them into `require` instructions; passes only redo what was checked then. */
    bool checks;
    fg_expr *unsolved;
    int nunsolved;
    size_t capunsolved;
    fg_expr *required; /* pairs that @main checks itself */
    int nrequired;
    size_t caprequired;
    /* What holds in a branch need not hold elsewhere: there nothing is solved, and these
     * pairs of equals, each behind a `require`, are what branches rely on. */
    int conditional; /* depth of the branches being imported */
    fg_expr *relied;
    int nrelied;
    size_t caprelied;
    uint32_t nname; /* for fresh names */
    void *names;    /* register names in use */
};

fg_module *fg_module_new(fg_ctx *cx, fg_arena *a, const char *name);

/* ---- registers and weights --------------------------------------------------------- */

fg_reg fg_reg_new(fg_module *m, fg_block *b, fg_type type,
                  const char *name); /* NULL: fresh number */
fg_reg fg_param(fg_module *m, fg_block *b, fg_type type,
                const char *name); /* new block parameter */
static inline fg_reginfo *
fg_ri(fg_module *m, fg_reg r)
{
    return &m->reg[r];
}
static inline const fg_type *
fg_rt(const fg_module *m, fg_reg r)
{
    return &m->reg[r].type;
}
/* The weight behind a register defined by `const`, else NULL. */
const fg_weight *fg_reg_weight(const fg_module *m, fg_reg r);
/* Element i of a `const` register as a number; false when not one or out of range. */
bool fg_const_f64(const fg_module *m, fg_reg r, int64_t i, double *v);
bool fg_const_i64(const fg_module *m, fg_reg r, int64_t i, int64_t *v);
/* True when r is a constant whose elements all equal *v (also through expand and cast). */
bool fg_const_splat(const fg_module *m, fg_reg r, double *v);

/* Adds a weight, or returns the index of one with equal content. w->data is kept. */
int fg_weight_add(fg_module *m, const fg_weight *w);

/* ---- blocks and instructions ------------------------------------------------------- */

fg_block *fg_block_new(fg_module *m, fg_inst *owner, fg_block *parent);

/* Where new instructions go: before `at`, or at the end of block when at is NULL; and the
 * ONNX nodes they stand for. */
typedef struct fg_build {
    fg_module *m;
    fg_block *block;
    fg_inst *at;
    const char **node; /* interned names; copied into each instruction */
    int nnode;
    const char *const *name; /* of the next instruction's results; NULL: fresh numbers */
} fg_build;

fg_build fg_build_end(fg_block *b);   /* append; no nodes */
fg_build fg_build_before(fg_inst *i); /* and take over i's nodes */
fg_build fg_build_before2(fg_inst *at, fg_inst *a, fg_inst *b); /* nodes of a and b */
void fg_build_add_nodes(fg_build *b, const fg_inst *from);

/* Making an instruction: begin, set attributes, finish. finish checks operand count and classes,
 * infers the result types (or takes `given` for shape rule "given"), symbolic values, and
 * links it in. On failure a diagnostic is recorded and NULL returned.
 *
 *     fg_inst *i = fg_inst_begin(b, FG_OP_softmax, 1, (fg_reg[]){x});
 *     FG_SET(i, softmax, axis).i = 3;
 *     if (!fg_inst_finish(b, i, NULL, 0)) return 0;                                   */
fg_inst *fg_inst_begin(fg_build *b, fg_op op, int nin, const fg_reg *in);
fg_inst *fg_inst_finish(fg_build *b, fg_inst *i, const fg_type *given, int ngiven);
/* The parts of finish, for the verifier: operand count and classes; result types into out[nout]. */
bool fg_inst_operands_ok(fg_module *m, const fg_inst *i);
bool fg_inst_infer(fg_module *m, fg_inst *i, const fg_type *given, fg_type *out);
#define FG_SET(i, op, name)                                                              \
    ((i)->attr[FG_AT_##op##_##name - fg_op_info(FG_OP_##op)->attr0])
#define FG_GET(i, op, name) FG_SET(i, op, name)
void fg_set_exprs(fg_module *m, fg_attr *a, int n, const fg_expr *v);
void fg_set_ints(fg_module *m, fg_attr *a, int n, const int64_t *v);
static inline void
fg_set_word(fg_module *m, fg_attr *a, const char *s)
{
    a->s = fg_intern(m->cx, s);
}

/* Shorthands; 0 on failure (diagnostic recorded) and when an operand is 0 that must not be, so
 * calls nest and one check at the end suffices. */
fg_reg fg_emit1(fg_build *b, fg_op op, fg_reg x);
fg_reg fg_emit2(fg_build *b, fg_op op, fg_reg x, fg_reg y);
fg_reg fg_emit3(fg_build *b, fg_op op, fg_reg x, fg_reg y, fg_reg z);
fg_reg fg_emit_cast(fg_build *b, fg_reg x, fg_dtype to); /* x itself if already */
fg_reg fg_emit_reshape(fg_build *b, fg_reg x, int rank,
                       const fg_expr *dims); /* x itself if equal */
fg_reg fg_emit_expand(fg_build *b, fg_reg x, int rank,
                      const fg_expr *dims); /* x itself if equal */
fg_reg fg_emit_transpose(fg_build *b, fg_reg x,
                         const int64_t *perm); /* x itself if identity */
fg_reg fg_emit_slice(fg_build *b, fg_reg x, const fg_expr *start, const int64_t *step,
                     const fg_expr *size);
fg_reg fg_emit_slice_axis(fg_build *b, fg_reg x, int axis, fg_expr start, fg_expr size);
fg_reg fg_emit_concat(fg_build *b, int n, const fg_reg *x, int axis);
fg_reg fg_emit_reduce(fg_build *b, fg_op op, fg_reg x, int naxes, const int64_t *axes,
                      bool keep);
fg_reg fg_emit_gather(fg_build *b, fg_reg x, fg_reg index, int axis);
fg_reg fg_emit_matmul(fg_build *b, fg_reg x, fg_reg y, bool trans_a, bool trans_b);
fg_reg fg_emit_matmul_rounded(fg_build *b, fg_reg x, fg_reg y, bool trans_a, bool trans_b,
                              int64_t round); /* attribute `round` */
fg_reg fg_emit_softmax(fg_build *b, fg_reg x, int axis);
fg_reg fg_emit_iota(fg_build *b, fg_expr n, fg_expr start, int64_t step, fg_dtype to);
fg_reg fg_emit_symvec(fg_build *b, int n, const fg_expr *v, fg_dtype to, bool scalar);
fg_reg fg_emit_const(fg_build *b, fg_dtype d, int rank, const int64_t *dims,
                     const void *data);              /* copies data */
fg_reg fg_emit_f(fg_build *b, fg_dtype d, double v); /* scalar constant of any type */
/* A fresh run-time symbol read from element `at` of x, as an expression. */
fg_expr fg_emit_readsym(fg_build *b, fg_reg x, int64_t at, int64_t lo, int64_t hi);

void fg_inst_remove(fg_inst *i); /* unlink; registers stay typed */
void fg_inst_move_before(fg_inst *i, fg_inst *at);
fg_inst *fg_inst_clone(fg_build *b, const fg_inst *i,
                       const fg_reg *map); /* map[reg] or 0: keep; regions too */
/* Every read of `from` (in b and all regions below; and outputs) becomes `to`. */
void fg_replace_uses(fg_block *b, fg_reg from, fg_reg to);
static inline bool
fg_has_effect(const fg_inst *i)
{
    return fg_op_is(i->op, FG_T_EFFECT);
}
static inline fg_inst *
fg_def(const fg_module *m, fg_reg r)
{
    return r ? m->reg[r].def : NULL;
}
static inline bool
fg_is_op(const fg_inst *i, fg_op op)
{
    return i && i->op == op;
}

/* How often each register is read, regions included: count[nreg]. */
uint32_t *fg_count_uses(fg_module *m, fg_arena *a);
/* All instructions of a block, in order / backwards; safe against removal of i. */
#define fg_each_inst(b, i)                                                               \
    for (fg_inst *i = (b)->first, *i##_n = i ? i->next : NULL; i;                        \
         i = i##_n, i##_n = i ? i->next : NULL)
#define fg_each_inst_back(b, i)                                                          \
    for (fg_inst *i = (b)->last, *i##_p = i ? i->prev : NULL; i;                         \
         i = i##_p, i##_p = i ? i->prev : NULL)
int
fg_inst_count(const fg_block *b); /* regions of if and loop included, kernels count 1 */

/* As fg_unify; while a model is imported, what it cannot solve is checked here at run time. */
bool fg_require(fg_build *b, fg_expr x, fg_expr y);
/* The same, but nothing is solved for: the run compares. */
bool fg_require_checked(fg_build *b, fg_expr x, fg_expr y);
/* Declares two dimensions equal; renews every type, attribute and symbolic value of the
 * module when a symbol was replaced. False when they are provably different. */
bool fg_unify(fg_module *m, fg_expr a, fg_expr b);
/* Declares a <= b the same way, by a bound on a symbol; false when that cannot express it, and
 * in a branch, which must not bind the rest, when it cannot be proved. */
bool fg_assume_le(fg_module *m, fg_expr a, fg_expr b);

/* A kernel of @main that lays out constants for others: it runs once, not in every run. */
bool fg_kernel_once(const fg_module *m, const fg_inst *i);

/* Text for diagnostics: `MatMul "/layer.3/attn/MatMul"` from the instruction's nodes, or its op name and result. */
const char *fg_inst_where(const fg_module *m, const fg_inst *i);

/* ---- shape inference (ir/shape*.c implements fg_shape_<rule>) ------------------------ */

typedef struct fg_infer {
    fg_module *m;
    fg_inst *i;           /* attributes set, operands set, nout known */
    const fg_type *in;    /* [nin]; dtype FG_NODTYPE for an absent operand */
    const fg_type *given; /* for the rule "given"; NULL otherwise */
    fg_type *out;         /* [nout], to fill */
} fg_infer;
/* A rule's complaint, prefixed with the node: return fg_infer_error(s, "inner sizes ..."). */
bool fg_infer_error(fg_infer *s, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* Common: NumPy broadcast of two dims (unifies symbols); false when impossible. */
bool fg_bcast_dim(fg_module *m, fg_expr a, fg_expr b, fg_expr *out);
bool fg_bcast_type(fg_module *m, const fg_type *a, const fg_type *b,
                   fg_type *out);                         /* shape only */
const char *fg_type_text(fg_module *m, const fg_type *t); /* for messages */

/* The steps of fg_inst_finish, for the parser and the verifier. */
bool fg_inst_operands_ok(fg_module *m, const fg_inst *i); /* counts and classes */
bool fg_inst_infer(fg_module *m, fg_inst *i, const fg_type *given, fg_type *out);
void fg_inst_link(fg_build *b, fg_inst *i);
void fg_rely(fg_module *m, fg_expr a, fg_expr b); /* a branch relies on a == b */
void fg_inst_renew(fg_module *m, fg_inst *i);     /* its expressions, after unification */

/* ---- states (ir/state.c) -------------------------------------------------------------- */

const fg_state *fg_state_of_input(const fg_module *m, int input); /* NULL: not a state */
const fg_state *fg_state_of_output(const fg_module *m, int output);
/* The type under which the host binds an input: of a state in place, what is valid. */
fg_type fg_input_type(const fg_module *m, int input);
fg_expr fg_state_capacity(const fg_module *m, const fg_state *s); /* of one in place */
/* Rows of its storage that are in use after the run; of a window, rows that it appends. */
fg_expr fg_state_rows(const fg_module *m, const fg_state *s);
fg_expr fg_state_more(const fg_module *m, const fg_state *s);
/* A window whose present is the last `next` of those rows, and not all. */
bool fg_state_cut(const fg_module *m, const fg_state *s);
/* The append, in a kernel or not, that makes r; *x: the register it appends
 * to. NULL when something else makes r. */
const fg_inst *fg_append_of(const fg_module *m, fg_reg r, fg_reg *x);
/* r is a state in place, or such a state with something appended. */
bool fg_in_state(const fg_module *m, fg_reg r);
/* i, in a kernel or not yet, appends to one: it writes what is new and nothing else. */
bool fg_appends_in_place(fg_module *m, const fg_inst *i);

/* ---- symbolic values (ir/symval.c) ---------------------------------------------------- */
#define FG_MAXSYM 256                     /* tensors with more elements are not tracked */
void fg_symval(fg_module *m, fg_inst *i); /* sets reg[out].sym where it can */
/* Element i (row-major) alone, also where others are not known; FG_E_BAD: not known. */
fg_expr fg_sym_at(fg_module *m, fg_reg r, int64_t i);

/* ---- attention: roundings (ir/shape_nn.c) ----------------------------------------------- */
typedef enum { FG_ROUND_SCORES, FG_ROUND_MASKED, FG_ROUND_WEIGHTS } fg_roundat;
typedef struct fg_rounding {
    fg_roundat at;
    fg_reg scale, zero;
} fg_rounding;
enum { FG_MAXROUND = 6 };
extern const char *const fg_round_text[]; /* by fg_roundat */
/* What an attention instruction rounds, in order; -1: words and operands do not match. */
int fg_attention_rounds(const fg_inst *i, fg_rounding *out);

/* ---- text (ir/print.c, ir/parse.c) ----------------------------------------------------- */
void fg_print(fg_text *o, fg_module *m);
void fg_print_block(fg_text *o, fg_module *m, const fg_block *b, int indent);
void fg_print_inst(fg_text *o, fg_module *m, const fg_inst *i, int indent);
/* `text` as printed; weights kept in files are read relative to dir (NULL: current). NULL
 * with a diagnostic "NAME:LINE:COL: ..". */
fg_module *fg_parse(fg_ctx *cx, fg_arena *a, const char *name, const char *text,
                    const char *dir);
/* The same; weights kept in files are borrowed from `like`, the module that was printed. */
fg_module *fg_parse_again(fg_module *like, fg_arena *a, const char *name,
                          const char *text);
/* A constant tensor, `f32[2] {1.0, 2.0}`. Reading leaves *s behind it, or at the place with
 * *why when it cannot. */
void fg_put_literal(fg_text *o, const fg_weight *w);
bool fg_parse_literal(fg_arena *a, const char **s, fg_weight *w, const char **why);

/* ---- verify (ir/verify.c) ------------------------------------------------------------- */
bool fg_verify(fg_module *m); /* against the rules of m->stage; diagnostics recorded */

/* clang-format on */
#endif
