/* emit.h - the pull emitter: code for the value of a register at an index.
 *
 *     kernel region                          pull(%4, [i, j..j+15])
 *       %2 = transpose %0 {perm=[1, 0]}        load %0 at [j..j+15, i]: a gather
 *       %3 = expand %1                         load %1 at [j..j+15]: a vector
 *       %4 = add %2, %3                        <16 x float> add
 *
 * A kernel emitter builds the loops; for each element (or W neighbours) of its results it
 * asks for the value and stores it. Pulling recurses over the region's instructions:
 * arithmetic becomes vector code, views only rewrite indices, parameters become loads. So
 * what lies between the operands and the results of a kernel never exists in memory.
 *
 * Values    One register representation per element type: f16 and bf16 are f32 (rounded
 *           once per instruction), bool is i1, 4-bit types are i8, the rest themselves. A
 *           value that is the same in all lanes is a scalar; fg_lanes makes it a vector.
 * Scopes    What was pulled is remembered by register and index, so shared
 *           subexpressions are emitted once. Code of a loop body or a branch does not
 *           dominate what follows it: bracket it with fg_scope / fg_unscope.
 */
#ifndef FG_CODEGEN_CPU_EMIT_H
#define FG_CODEGEN_CPU_EMIT_H

#include "codegen/target.h"
#include "codegen/cpu/ll.h"

/* One index per axis. Lane l stands at base + l step, or at vec[l] when vec is set. */
typedef struct fg_index {
    fg_v base; /* i64 */
    int64_t step;
    fg_v vec;  /* <lanes x i64> or NULL */
    int align; /* base is a multiple of this power of two, at most FG_ALIGN_MAX */
    /* Set: this is the quotient or the remainder of `whole` by `by`. */
    const struct fg_index *whole;
    fg_expr by;
    bool quotient;
} fg_index;

#define FG_ALIGN_MAX 64

typedef struct fg_em fg_em;
/* The value of a register whose code the kernel emitter makes itself (its anchor's
 * result). */
typedef fg_v fg_pullfn(fg_em *e, void *user, fg_reg r, const fg_index *ix);

struct fg_em {
    fg_ll *g;
    fg_module *m;
    fg_arena *a; /* of this kernel's compilation */
    fg_inst *kernel;
    fg_block *region;
    int lanes;                  /* of the code being emitted: 1 to 64 */
    fg_v mask;                  /* <lanes x i1>: lanes that exist; NULL: all */
    fg_v begin, end;            /* chunks to do */
    fg_v scratch;               /* this worker's memory */
    const struct fg_part *part; /* under way; its instructions have mark `label` */
    uint32_t label;

    /* What the emitter says about the kernel. */
    fg_expr chunks, scratch_bytes;
    fg_expr flops, bytes; /* FG_E_BAD: let the driver estimate */

    /* The emitter's own. */
    fg_expr *arg; /* expressions the code reads */
    fg_v *argv;
    int narg;
    size_t caparg, capargv;
    fg_v *buf;                /* addresses, loaded at entry */
    struct fg_source *source; /* by register of the module: operand or override */
    uint32_t question;        /* see fg_em_asked */
    struct fg_memo *memo;
    int nmemo;
    size_t capmemo;
    bool failed; /* a diagnostic is recorded */
};

/* Prepares e for one kernel: creates the function `name`. e->g, m, a, source are set. */
void fg_em_begin(fg_em *e, fg_inst *kernel, const char *name);
void fg_em_end(fg_em *e);
/* Room for `source`, once per module. */
struct fg_source *fg_em_sources(fg_arena *a, const fg_module *m);

/* Results of a kernel that share instructions, and the emitter that makes them. */
typedef bool fg_genfn(fg_em *e, fg_inst *anchor);
typedef struct fg_part {
    fg_genfn *gen;
    fg_inst *anchor; /* NULL: none */
    int nresult, *result;
} fg_part;
/* Sets everything but gen and anchor; instructions of part k are marked k + 1, dead ones
 * 0. */
int fg_parts_of(fg_module *m, fg_arena *a, const fg_block *region, fg_part **out);
bool fg_gen_parts(fg_em *e, int n, const fg_part *part);
/* What follows is about this part only: result k is its k-th. */
void fg_em_part(fg_em *e, const fg_part *part, int k);

/* ---- the kernel's operands and results
 * ------------------------------------------------- */

/* Addresses of operand i, of result k. */
fg_v fg_em_buf(fg_em *e, int i);
fg_v fg_em_result_buf(fg_em *e, int k);
/* Which operand a register of the region is; -1: none. */
int fg_em_param(const fg_em *e, fg_reg r);
/* Whether this question of the kernel (e->question, from 1) was last asked of r about the same two
 * axes; it is from now on. */
bool fg_em_asked(fg_em *e, fg_reg r, int p, int q);
/* The register that becomes result k, and how many there are. */
fg_reg fg_em_result(const fg_em *e, int k);
int fg_em_nresult(const fg_em *e);
/* An integer expression as i64: a constant, or an argument of the kernel. */
fg_v fg_em_expr(fg_em *e, fg_expr x);
fg_v fg_em_dim(fg_em *e, fg_reg r, int axis);
/* An integer whose expression is only known after the code that reads it. */
fg_v fg_em_later(fg_em *e, int *slot);
void fg_em_settle(fg_em *e, int slot, fg_expr x);
/* Asks for `bytes` of scratch more; the address, 64-aligned. */
fg_v fg_em_scratch(fg_em *e, fg_expr bytes);

/* ---- indices
 * ------------------------------------------------------------------------------ */

fg_index fg_ix(fg_em *e, fg_v base); /* the same in all lanes */
fg_index fg_ixc(fg_em *e, int64_t c);
fg_index fg_ix_run(fg_em *e, fg_v base, int align); /* base, base+1, .. */
fg_index fg_ix_vec(fg_em *e, fg_v vec);
fg_v fg_ix_value(fg_em *e, fg_index x); /* i64, scalar if uniform */
bool fg_ix_uniform(fg_index x);
fg_index fg_ix_add(fg_em *e, fg_index a, fg_index b);
fg_index fg_ix_addc(fg_em *e, fg_index a, fg_expr c);
fg_index fg_ix_mul(fg_em *e, fg_index a, fg_expr k);
/* Of indices that are not negative, by k >= 1. */
fg_index fg_ix_div(fg_em *e, fg_index a, fg_expr k);
fg_index fg_ix_mod(fg_em *e, fg_index a, fg_expr k);
/* Offset of an element in row-major storage, and back. */
fg_index fg_ix_linear(fg_em *e, int rank, const fg_expr *dim, const fg_index *ix);
void fg_ix_unlinear(fg_em *e, int rank, const fg_expr *dim, fg_index linear,
                    fg_index *ix);
/* ix of a result as the index of an operand of type t that broadcasts to it. */
void fg_ix_broadcast(fg_em *e, const fg_type *result, const fg_index *ix,
                     const fg_type *t, fg_index *to);

/* ---- values
 * --------------------------------------------------------------------------------- */

/* The value of r at ix[rank]: e->lanes lanes, or a scalar when the same in all. */
fg_v fg_pull(fg_em *e, fg_reg r, const fg_index *ix);
/* From now on r's value is fn's. */
void fg_em_override(fg_em *e, fg_reg r, fg_pullfn *fn, void *user);
/* Stores a value of result k's representation at ix, under e->mask. */
void fg_em_store(fg_em *e, int k, const fg_index *ix, fg_v v);
/* Pulls result k at ix and stores it. */
void fg_em_put(fg_em *e, int k, const fg_index *ix);

fg_t fg_em_type(fg_em *e, fg_dtype d); /* representation of one element */
fg_v fg_lanes(fg_em *e, fg_v v);       /* splat a scalar to e->lanes */
/* Elements of packed memory of type d at p, at offset `at`; under e->mask. */
fg_v fg_em_load(fg_em *e, fg_dtype d, fg_v p, fg_index at);
void fg_em_store_to(fg_em *e, fg_dtype d, fg_v p, fg_index at, fg_v v);
/* What an element of type d keeps of v: rounding for f16 and bf16. */
fg_v fg_em_round(fg_em *e, fg_dtype d, fg_v v);
fg_v fg_em_cast(fg_em *e, fg_v v, fg_dtype from, fg_dtype to);
/* One elementwise instruction on values. */
fg_v fg_em_elem(fg_em *e, const fg_inst *i, const fg_v *v);

typedef struct fg_scopemark {
    int nmemo;
} fg_scopemark;
fg_scopemark fg_scope(fg_em *e);
void fg_unscope(fg_em *e, fg_scopemark s);

/* ---- loops
 * ------------------------------------------------------------------------------------ */

/* Elements under these dims, as a value: also when the product is too large for an
 * expression. */
fg_v fg_em_count(fg_em *e, int n, const fg_expr *dim);
/* Items are what n dims count. Chunks of `per` consecutive ones (FG_E_BAD: one chunk
 * of all): sets e->chunks and starts the loop over the items of this call. l->i is the
 * item; end it with ll_next. */
void fg_em_items(fg_em *e, ll_loop *l, int n, const fg_expr *dim, fg_expr per);
/* for i in [0, n) in steps of `lanes`, body(e, user, index of the run): full vectors,
 * then the rest under a mask. Nothing is carried. `align`: what the caller's index is
 * a multiple of at i = 0. */
typedef void fg_runfn(fg_em *e, void *user, fg_v i);
void fg_em_run(fg_em *e, fg_v lo, fg_v hi, bool whole, fg_runfn *body, void *user);

/* ---- kernel emitters
 * ---------------------------------------------------------------------------- */

/* Each fills the body of one kernel function. `anchor` is the region's instruction of
 * that kind. The diagnostic is recorded when false. */
bool fg_gen_loops(fg_em *e, fg_inst *anchor);   /* one index space; loops.c */
bool fg_gen_append(fg_em *e, fg_inst *anchor);  /* to rows found running; append.c */
bool fg_gen_rows(fg_em *e, fg_inst *anchor);    /* reductions over rows; rows.c */
bool fg_gen_library(fg_em *e, fg_inst *anchor); /* sequential operations; library.c */
bool fg_gen_matmul(fg_em *e, fg_inst *anchor);  /* gemm.c */
bool fg_gen_panels(fg_em *e, fg_inst *anchor);  /* panels.c */
/* clamp(round(x / s) + z) - z, by the grid of type d: x, s and z f32 or f64, as many lanes;
 * `scale` is where s is from. */
fg_v fg_grid_steps(fg_em *e, fg_v x, fg_reg scale, fg_v s, fg_v z,
                   fg_dtype d);                       /* grid.c */
bool fg_gen_quantize_rows(fg_em *e, fg_inst *anchor); /* quant_rows.c */
bool fg_gen_attention(fg_em *e, fg_inst *anchor);     /* attention.c */
bool fg_gen_conv(fg_em *e, fg_inst *anchor);          /* conv.c */
/* Whether the fast emitter takes this instruction (types, shapes); else loops do. */
bool fg_rows_append(fg_module *m, const fg_inst *anchor);
bool fg_rows_takes(fg_module *m, const fg_inst *anchor);
bool fg_matmul_takes(fg_module *m, const fg_inst *anchor);
bool fg_matmul_twins(const fg_module *m, const fg_inst *a, const fg_inst *b);
bool fg_attention_takes(fg_module *m, const fg_inst *anchor);
bool fg_conv_takes(fg_module *m, const fg_inst *anchor);

/* ---- vector math: f32, any lanes, about 2 ulp; no calls
 * -------------------------------------------- */

fg_v vm_exp(fg_ll *g, fg_v x);
fg_v vm_exp_neg(fg_ll *g, fg_v x); /* x <= 0 or -inf: softmax */
#define FG_LOG2_E 1.4426950408889634
fg_v vm_exp2(fg_ll *g, fg_v x); /* x < 127, also -inf, within 1e-7 of 1: attention */
fg_v vm_log(fg_ll *g, fg_v x);
fg_v vm_log1p(fg_ll *g, fg_v x);
fg_v vm_sin(fg_ll *g, fg_v x);
fg_v vm_cos(fg_ll *g, fg_v x);
fg_v vm_tan(fg_ll *g, fg_v x);
fg_v vm_asin(fg_ll *g, fg_v x);
fg_v vm_acos(fg_ll *g, fg_v x);
fg_v vm_atan(fg_ll *g, fg_v x);
fg_v vm_sinh(fg_ll *g, fg_v x);
fg_v vm_cosh(fg_ll *g, fg_v x);
fg_v vm_asinh(fg_ll *g, fg_v x);
fg_v vm_acosh(fg_ll *g, fg_v x);
fg_v vm_atanh(fg_ll *g, fg_v x);
fg_v vm_tanh(fg_ll *g, fg_v x);
fg_v vm_sigmoid(fg_ll *g, fg_v x);
fg_v vm_erf(fg_ll *g, fg_v x);
fg_v vm_gelu(fg_ll *g, fg_v x);
fg_v vm_gelu_tanh(fg_ll *g, fg_v x);
fg_v vm_silu(fg_ll *g, fg_v x);
fg_v vm_softplus(fg_ll *g, fg_v x);
fg_v vm_pow(fg_ll *g, fg_v x, fg_v y);

#endif
