/* expr.h - integer expressions over the model's symbols: shapes, offsets, trip counts.
 *
 *     symbols     B in 1..,  S in 1..4096,  P in 0..
 *     shapes      f32[B, 12, P+S, 64]
 *
 * Every expression is a polynomial in canonical form over atoms (symbols, and floordiv,
 * mod, min, max, eq, lt of two expressions) and is interned, so equal ids mean equal
 * values and most proofs are one comparison. Ids belong to the table that made them.
 * Arithmetic is exact int64; what overflows becomes FG_E_BAD, which is contagious.
 */
#ifndef FG_IR_EXPR_H
#define FG_IR_EXPR_H

/* clang-format off: members and their comments stand in columns */

#include "ir/base.h"

typedef uint32_t fg_expr;
#define FG_E_BAD 0u /* overflow or unknown */

typedef uint32_t fg_sym; /* index into the table's symbols */

typedef enum {
    FG_SYM_INPUT, /* bound from the shapes of the inputs */
    FG_SYM_RUN    /* computed while the program runs (readsym, if, loop) */
} fg_symkind;

typedef struct fg_syminfo {
    const char *name; /* interned; unique in the table */
    fg_symkind kind;
    int64_t lo, hi; /* inclusive bounds; hi = INT64_MAX when open */
    int64_t usual;  /* what plans and costs are made for; 0: not said */
    fg_expr is;     /* after unification: what it equals; FG_E_BAD while free */
} fg_syminfo;

typedef struct fg_exprs fg_exprs;

fg_exprs *fg_exprs_new(fg_arena *a);
/* How deep operations may nest that are no polynomial: beyond it, FG_E_BAD. A model's own sizes
 * are held to less than the default, so that passes and code generators can compute
 * with every size that a model has. */
enum { FG_DEPTH_OF_MODELS = 8, FG_DEPTH = 16 };
void fg_exprs_limit(fg_exprs *t, int depth);

/* Symbols. fg_sym_new makes the name unique by a suffix when `name` is taken; name may
 * be NULL. fg_sym_find returns the symbol of that name or -1. */
fg_sym fg_sym_new(fg_exprs *t, const char *name, fg_symkind kind, int64_t lo, int64_t hi);
int64_t fg_sym_find(const fg_exprs *t, const char *name);
fg_syminfo *fg_sym_info(fg_exprs *t, fg_sym s); /* valid until the next fg_sym_new */
uint32_t fg_sym_count(const fg_exprs *t);

/* Construction: canonical, with symbols that were unified already replaced. */
fg_expr fg_ec(fg_exprs *t, int64_t v);
fg_expr fg_es(fg_exprs *t, fg_sym s);
fg_expr fg_eadd(fg_exprs *t, fg_expr a, fg_expr b);
fg_expr fg_esub(fg_exprs *t, fg_expr a, fg_expr b);
fg_expr fg_emul(fg_exprs *t, fg_expr a, fg_expr b);
fg_expr fg_ediv(fg_exprs *t, fg_expr a, fg_expr b); /* floor; exact when provable */
fg_expr fg_emod(fg_exprs *t, fg_expr a, fg_expr b); /* sign of b */
fg_expr fg_emin(fg_exprs *t, fg_expr a, fg_expr b);
fg_expr fg_emax(fg_exprs *t, fg_expr a, fg_expr b);
fg_expr fg_eeq(fg_exprs *t, fg_expr a, fg_expr b); /* 0 or 1 */
fg_expr fg_elt(fg_exprs *t, fg_expr a, fg_expr b);
fg_expr fg_eselect(fg_exprs *t, fg_expr c, fg_expr a,
                   fg_expr b); /* c ? a : b, c 0 or 1 */

/* Questions. */
bool fg_e_const(const fg_exprs *t, fg_expr e, int64_t *v);
bool fg_e_is(const fg_exprs *t, fg_expr e, int64_t v); /* provably equal to v */
int64_t fg_e_lo(fg_exprs *t, fg_expr e);               /* bounds; INT64_MIN / MAX: open */
int64_t fg_e_hi(fg_exprs *t, fg_expr e);
bool fg_e_le(fg_exprs *t, fg_expr a, fg_expr b);             /* provably a <= b */
bool fg_e_divides(fg_exprs *t, int64_t k, fg_expr e);        /* provably k | e */
bool fg_e_single(const fg_exprs *t, fg_expr e, fg_sym *s);   /* exactly one bare symbol */
bool fg_e_mentions(fg_exprs *t, fg_expr e, fg_symkind kind); /* any symbol of that kind */
void fg_e_symbols(fg_exprs *t, fg_expr e, fg_bits into);     /* every symbol in it */

/* Structure, for code generators: a sum of terms, each coef * product of atoms. */
typedef enum {
    FG_ATOM_SYM,
    FG_ATOM_DIV,
    FG_ATOM_MOD,
    FG_ATOM_MIN,
    FG_ATOM_MAX,
    FG_ATOM_EQ,
    FG_ATOM_LT
} fg_atomkind;
typedef struct fg_atom {
    fg_atomkind kind;
    fg_sym sym;
    fg_expr a, b;
} fg_atom;
int fg_e_nterms(const fg_exprs *t, fg_expr e); /* 0 for the constant 0 */
int64_t fg_e_term(const fg_exprs *t, fg_expr e, int i, const uint32_t **atoms,
                  int *natoms);
fg_atom fg_atom_get(const fg_exprs *t, uint32_t atom);

/* Declares a == b. If they differ and one can be solved for a symbol (coefficient +-1, not
 * inside an atom), that symbol is replaced everywhere from now on and *changed is set: the
 * caller then renews the expressions it holds with fg_e_renew. False when they are
 * provably different; true (nothing done) when it cannot be solved. */
bool fg_e_unify(fg_exprs *t, fg_expr a, fg_expr b, bool *changed);
fg_expr fg_e_renew(fg_exprs *t, fg_expr e);
/* Declares a <= b: records it as a bound when it limits one symbol. False when it is neither
 * provable nor such a bound. */
bool fg_e_assume_le(fg_exprs *t, fg_expr a, fg_expr b, bool *changed);

/* Value under sym[fg_sym]; false on overflow or division by zero. */
bool fg_e_eval(const fg_exprs *t, fg_expr e, const int64_t *sym, int64_t *out);
/* Replace symbols by map[sym] (FG_E_BAD: keep). */
fg_expr fg_e_subst(fg_exprs *t, fg_expr e, const fg_expr *map);

/* Text: "2*S+P", "(S+1)/2", "S%4", "min(S,8)", "max(..)", "eq(a,b)", "lt(a,b)".
 * The parser takes the same and Max/Min/floor(a/b)/"a // b" as exporters write them; names it does
 * not know are made with `make` (FG_SYM_INPUT, 0..) or refused when make is false.
 * Returns FG_E_BAD and leaves *s at the place when it cannot read. Stops at , ] } or end. */
void fg_put_expr(fg_text *o, const fg_exprs *t, fg_expr e);
fg_expr fg_parse_expr(fg_exprs *t, const char **s, bool make);
/* A symbol by name, unified or not; reading takes names nobody declared, and gives NULL when
 * there is none. */
void fg_put_symbol(fg_text *o, const fg_exprs *t, fg_sym s);
const char *fg_parse_symbol(fg_exprs *t, const char **s);

/* clang-format on */
#endif
