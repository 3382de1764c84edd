/* ll.h - a thin layer over the LLVM C API: the words the CPU emitters are written in.
 *
 *     ll_loop l;
 *     fg_v acc = ll_zero(ll_vec(g->f32, g->W));
 *     ll_for(g, &l, ll_i(g, 0), n, ll_i(g, g->W), 1, &acc);
 *     fg_v x = ll_load(g, ll_vec(g->f32, g->W), ll_at(g, p, g->f32, l.i));
 *     ll_next(g, &l, (fg_v[]){ll_add(g, l.phi[0], x)});
 *     fg_v sum = ll_hsum(g, l.phi[0]);           // after ll_next: the values at the exit
 *
 * Values carry their type, so one ll_add serves integers and floats, scalars and vectors;
 * a vector of one lane is a scalar. Loops build their phis themselves, and no function
 * needs memory for its variables, so no IR pass has to run before code generation.
 *
 * These emitters are pure functions of the IR they read: they never fail, and every
 * mistake in using them is caught by the LLVM verifier in the tests.
 */
#ifndef FG_CODEGEN_CPU_LL_H
#define FG_CODEGEN_CPU_LL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <llvm-c/Core.h>
#include <llvm-c/TargetMachine.h>

#include "codegen/knobs.h"

typedef LLVMValueRef fg_v;
typedef LLVMTypeRef fg_t;
typedef LLVMBasicBlockRef fg_bb;

/* ---- the machine ---------------------------------------------------------------- */

typedef struct fg_machine {
    LLVMTargetRef target;
    char *triple, *cpu;    /* for people */
    char *base, *features; /* for LLVM: a CPU, and more than it has */
    char *isa;             /* as isa.h writes it; NULL: what `features` says */
    const char *tune;      /* the CPU to arrange code for; NULL: none */
    bool arm;
    int W;    /* f32 lanes of one vector register: 16, 8 or 4 */
    int nvec; /* vector registers: 32 or 16 */
    bool fma, f16c;
    bool masks;          /* predicated loads and stores cost nothing extra */
    bool vnni;           /* products of bytes summed by fours */
    bool dotprod, i8mm;  /* on ARM: of two signed, of an unsigned and a signed one */
    bool bf16;           /* products of bf16 summed by twos */
    int knob[FG_NKNOBS]; /* how code is generated for it: see knobs.def */
} fg_machine;

/* cpu NULL or "native": this machine; else as machine.c says. NULL with *why set (static text)
 * when there is no such CPU or LLVM has no code generator for it. */
fg_machine *ll_machine_new(const char *cpu, const char **why);
void ll_machine_free(fg_machine *t); /* takes NULL */
LLVMTargetMachineRef ll_target_machine(const fg_machine *t);

/* Drops LLVM's code from resident memory (trim.c). */
void fg_cpu_trim(void);

/* ---- module and function -------------------------------------------------------- */

#define LL_CACHE 64 /* declarations remembered, by name and type */

typedef struct fg_ll {
    const fg_machine *t;
    LLVMContextRef cx;
    LLVMModuleRef m;
    LLVMBuilderRef b;
    fg_t i1, i8, i16, i32, i64, f16, bf16, f32, f64, ptr, none;
    int W;              /* t->W */
    struct fg_ll *peer; /* module that will be linked with this one; NULL: none */
    fg_v fn;            /* function being built */
    fg_bb entry;        /* its first block: ends in a branch, see ll_entry */
    fg_v swept;         /* the last function that ll_sweep saw */
    int size;           /* instructions of those it saw */
    struct {
        const char *name;
        fg_t type;
        fg_v fn;
        fg_t fty;
    } cache[LL_CACHE];
} fg_ll;

fg_ll *ll_new(const fg_machine *t, const char *name);
void ll_free(fg_ll *g); /* takes NULL */

/* The module's function of that name, defined here or by the peer; NULL: by neither. */
fg_v ll_known_function(fg_ll *g, const char *name, fg_t ret, int n, const fg_t *param);
/* Removes what nothing uses from the functions made since the last time. */
void ll_sweep(fg_ll *g);
/* Starts a function; the builder stands in its first working block. Internal ones are
 * seen by the peer only. When another function is under construction, save and restore
 * with ll_save / ll_restore. */
fg_v ll_function(fg_ll *g, const char *name, fg_t ret, int n, const fg_t *param,
                 bool internal);
fg_v ll_param(fg_ll *g, int i);
fg_v ll_call(fg_ll *g, fg_v fn, int n, const fg_v *arg);
void ll_ret(fg_ll *g, fg_v v); /* NULL: nothing */
typedef struct ll_place {
    fg_v fn;
    fg_bb entry, at;
} ll_place;
ll_place ll_save(fg_ll *g);
void ll_restore(fg_ll *g, ll_place p);
/* Code between ll_entry and the ll_back of what it returned runs once, at entry. */
fg_bb ll_entry(fg_ll *g);
void ll_back(fg_ll *g, fg_bb at);
fg_v ll_slot(fg_ll *g, fg_t t, int n); /* stack memory for n of t, 64-aligned */

/* ---- types and constants -------------------------------------------------------- */

fg_t ll_vec(fg_t elem, int lanes); /* lanes 1: elem itself */
fg_t ll_elem(fg_t t);
int ll_lanes_of(fg_t t);
static inline int
ll_lanes(fg_v v)
{
    return ll_lanes_of(LLVMTypeOf(v));
}
fg_t ll_like(fg_v v, fg_t elem); /* elem in as many lanes as v */
bool ll_isfp(fg_t t);

fg_v ll_ci(fg_t t, int64_t x); /* of an integer type, splat if vector */
fg_v ll_cf(fg_t t, double x);  /* of a float type, splat if vector */
fg_v ll_c(fg_t t, double x);   /* of either */
fg_v ll_zero(fg_t t);
fg_v ll_undef(fg_t t);
static inline fg_v
ll_i(fg_ll *g, int64_t x)
{
    return ll_ci(g->i64, x);
}
static inline fg_v
ll_i32(fg_ll *g, int64_t x)
{
    return ll_ci(g->i32, x);
}
bool ll_const(fg_v v, int64_t *x);  /* a scalar integer constant */
fg_v ll_iota(fg_t elem, int lanes); /* <0, 1, 2, ..> */

/* ---- arithmetic ----------------------------------------------------------------- */

/* By type: integer or float. x+0, x*1 and the like fold. */
fg_v ll_add(fg_ll *g, fg_v a, fg_v b);
fg_v ll_sub(fg_ll *g, fg_v a, fg_v b);
fg_v ll_mul(fg_ll *g, fg_v a, fg_v b);
fg_v ll_div(fg_ll *g, fg_v a, fg_v b); /* signed */
fg_v ll_rem(fg_ll *g, fg_v a, fg_v b); /* signed; floats: not here */
fg_v ll_udiv(fg_ll *g, fg_v a, fg_v b);
fg_v ll_urem(fg_ll *g, fg_v a, fg_v b);
fg_v ll_neg(fg_ll *g, fg_v a);
fg_v ll_fma(fg_ll *g, fg_v a, fg_v b, fg_v c); /* a b + c; fused where the machine can */
fg_v ll_and(fg_ll *g, fg_v a, fg_v b);
fg_v ll_or(fg_ll *g, fg_v a, fg_v b);
fg_v ll_xor(fg_ll *g, fg_v a, fg_v b);
fg_v ll_not(fg_ll *g, fg_v a);
fg_v ll_shl(fg_ll *g, fg_v a, fg_v b);
fg_v ll_shr(fg_ll *g, fg_v a, fg_v b); /* logical */
fg_v ll_sar(fg_ll *g, fg_v a, fg_v b); /* arithmetic */
fg_v ll_sel(fg_ll *g, fg_v c, fg_v a, fg_v b);

/* Signed comparisons; floats ordered (false for NaN) except NE. */
typedef enum { LL_EQ, LL_NE, LL_LT, LL_LE, LL_GT, LL_GE } ll_cond;
fg_v ll_cmp(fg_ll *g, ll_cond c, fg_v a, fg_v b);
fg_v ll_ucmp(fg_ll *g, ll_cond c, fg_v a, fg_v b); /* unsigned */
fg_v ll_isnan(fg_ll *g, fg_v a);
/* a < b ? a : b and a > b ? a : b: b when either is NaN. Signed integers too. */
fg_v ll_min(fg_ll *g, fg_v a, fg_v b);
fg_v ll_max(fg_ll *g, fg_v a, fg_v b);
fg_v ll_umin(fg_ll *g, fg_v a, fg_v b);
fg_v ll_umax(fg_ll *g, fg_v a, fg_v b);

fg_v ll_sqrt(fg_ll *g, fg_v a);
fg_v ll_abs(fg_ll *g, fg_v a);   /* integers wrap */
fg_v ll_round(fg_ll *g, fg_v a); /* half to even */
fg_v ll_floor(fg_ll *g, fg_v a);
fg_v ll_ceil(fg_ll *g, fg_v a);

/* Conversions keep the number of lanes. */
fg_v ll_bits(fg_ll *g, fg_v a, fg_t t);    /* bitcast */
fg_v ll_sext(fg_ll *g, fg_v a, fg_t elem); /* or truncate, or nothing */
fg_v ll_zext(fg_ll *g, fg_v a, fg_t elem);
fg_v ll_fcast(fg_ll *g, fg_v a, fg_t elem); /* float to float */
fg_v ll_fromint(fg_ll *g, fg_v a, fg_t elem, bool is_signed);
fg_v ll_toint(fg_ll *g, fg_v a, fg_t elem); /* signed; only in range */
fg_v ll_toint_sat(fg_ll *g, fg_v a, fg_t elem,
                  bool is_signed); /* saturates, NaN gives 0 */

/* Any intrinsic: types it is overloaded on, then arguments. `name` is a literal. */
fg_v ll_intrinsic(fg_ll *g, const char *name, int ntype, const fg_t *type, int n,
                  const fg_v *arg);
fg_v ll_intr1(fg_ll *g, const char *name, fg_v a); /* overloaded on a's type */
fg_v ll_intr2(fg_ll *g, const char *name, fg_v a, fg_v b);
/* Calls a libm function of one or two doubles, lane by lane. */
fg_v ll_libm(fg_ll *g, const char *name, int n, const fg_v *arg);

/* ---- vectors -------------------------------------------------------------------- */

fg_v ll_splat(fg_ll *g, fg_v scalar, int lanes); /* of a vector: itself */
fg_v ll_extract(fg_ll *g, fg_v v, int lane);     /* of a scalar: itself */
fg_v ll_insert(fg_ll *g, fg_v v, fg_v x, int lane);
fg_v ll_shuffle(fg_ll *g, fg_v a, fg_v b, int n,
                const int *mask);          /* b NULL: a only; -1: any */
fg_v ll_half(fg_ll *g, fg_v v, int which); /* low (0) or high (1) half */
fg_v ll_join(fg_ll *g, fg_v lo, fg_v hi);
fg_v ll_hsum(fg_ll *g, fg_v v); /* across lanes, as a tree */
/* The same of each of n vectors, side by side in one; n at most their lanes, powers of two. */
fg_v ll_hsums(fg_ll *g, int n, fg_v *v);
fg_v ll_hmax(fg_ll *g, fg_v v); /* ll_max as a tree */
fg_v ll_hreduce(fg_ll *g, fg_v v, fg_v (*op)(fg_ll *, fg_v, fg_v));
fg_v ll_first(fg_ll *g, fg_v n, int lanes); /* mask of lanes < n (i64) */
fg_v ll_any(fg_ll *g, fg_v mask);           /* i1: some lane set */

/* acc + products of four unsigned bytes of a and four signed ones of b, per lane of 32
 * bits. `small`: no two neighbouring products can sum to more than 16 bits hold. */
fg_v ll_dot_u8s8(fg_ll *g, fg_v acc, fg_v a, fg_v b, bool small);
/* acc + products of two bf16 of a and two of b, per lane of 32 bits. */
fg_v ll_dot_bf16(fg_ll *g, fg_v acc, fg_v a, fg_v b);

/* ---- memory: any alignment ------------------------------------------------------ */

fg_v ll_at(fg_ll *g, fg_v p, fg_t elem, fg_v index); /* &((elem *)p)[index] */
fg_v ll_atc(fg_ll *g, fg_v p, fg_t elem, int64_t index);
fg_v ll_load(fg_ll *g, fg_t t, fg_v p);
void ll_store(fg_ll *g, fg_v v, fg_v p);
fg_v ll_load_aligned(fg_ll *g, fg_t t, fg_v p, int align);
void ll_store_aligned(fg_ll *g, fg_v v, fg_v p, int align);
fg_v ll_mload(fg_ll *g, fg_t t, fg_v p,
              fg_v mask); /* 0 where the mask is clear; mask NULL: all */
void ll_mstore(fg_ll *g, fg_v v, fg_v p, fg_v mask);
fg_v ll_gather(fg_ll *g, fg_t t, fg_v base, fg_v offset,
               fg_v mask); /* elements base[offset[lane]] */
void ll_scatter(fg_ll *g, fg_v v, fg_v base, fg_v offset, fg_v mask);
void ll_prefetch(fg_ll *g, fg_v p);        /* for reading, keep */
void ll_prefetch_second(fg_ll *g, fg_v p); /* no nearer than the second-level cache */
void ll_prefetch_write(fg_ll *g, fg_v p);

/* ---- control
 * --------------------------------------------------------------------------- */

fg_bb ll_block(fg_ll *g);
fg_bb ll_here(fg_ll *g);
void ll_go(fg_ll *g, fg_bb to); /* branch, and stand there */
void ll_br(fg_ll *g, fg_bb to);
void ll_cbr(fg_ll *g, fg_v c, fg_bb yes, fg_bb no);
void ll_stand(fg_ll *g, fg_bb at);
fg_v ll_phi2(fg_ll *g, fg_v a, fg_bb from_a, fg_v b, fg_bb from_b);

/* for (i = lo; i < hi; i += step): any number of turns, also none. Inside, phi[] are
 * the carried values of this turn; after ll_next, those at the exit. */
#define LL_MAXPHI 72
typedef struct ll_loop {
    fg_v i, hi, step;
    int n;
    fg_v phi[LL_MAXPHI], init[LL_MAXPHI];
    fg_bb guard, body, exit;
    bool runs; /* known to turn at least once: no guard */
} ll_loop;
void ll_for(fg_ll *g, ll_loop *l, fg_v lo, fg_v hi, fg_v step, int n, const fg_v *init);
/* The same, promised to turn at least once. */
void ll_for1(fg_ll *g, ll_loop *l, fg_v lo, fg_v hi, fg_v step, int n, const fg_v *init);
void ll_next(fg_ll *g, ll_loop *l, const fg_v *next);

/* ll_if(c) .. ll_else .. ll_end: the values of both sides merge into out. ll_else may
 * be left out when n is 0. */
#define LL_MAXMERGE 32
typedef struct ll_branch {
    fg_bb no, exit, from_yes;
    int n;
    bool has_else;
    fg_v yes[LL_MAXMERGE];
} ll_branch;
void ll_if(fg_ll *g, ll_branch *s, fg_v c);
void ll_else(fg_ll *g, ll_branch *s, int n, const fg_v *yes);
void ll_end(fg_ll *g, ll_branch *s, const fg_v *no, fg_v *out);

#endif
