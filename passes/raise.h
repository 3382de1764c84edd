/* raise.h - idioms of exporters to single instructions; the first step of fuse_ops.
 *
 * A rule looks at one instruction, the root. It collects what it matched as parts, and
 * replaces the root alone: what lost its reader is dce's, what has others stays. A rule
 * that recognised an idiom by its core (the erf of a gelu, the root of a norm) and then
 * met something else says so; the furthest such word on each core is reported, unless the
 * core was raised from another root.
 */
#ifndef FG_PASSES_RAISE_H
#define FG_PASSES_RAISE_H

#include "passes/pass.h"

enum { FG_RAISE_PARTS = 24, FG_RAISE_FACTORS = 12 };

typedef struct fg_nearmiss {
    struct fg_nearmiss *next;
    const fg_inst *core;
    const char *idiom, *reason;
    int step; /* how far it came */
} fg_nearmiss;

typedef struct fg_raiser {
    fg_module *m;
    fg_report *report;
    fg_arena *scratch;
    uint32_t known; /* registers when the pass began */
    uint32_t *count;
    int npart;
    fg_inst *part[FG_RAISE_PARTS]; /* matched so far, for the node names */
    fg_bits done;                  /* results of instructions that were parts */
    fg_nearmiss *near;
    fg_spelling row, form; /* the rule that runs, and what it found inside */
    bool changed;
} fg_raiser;

/* x as c * f0 * f1 ..; small integer powers are repeated factors. */
typedef struct fg_factors {
    double c;
    int n;
    fg_reg f[FG_RAISE_FACTORS];
} fg_factors;

bool fg_raise_idioms(fg_module *m, fg_passctx *cx); /* true: something changed */

fg_inst *fg_raise_part(fg_raiser *r, fg_reg x); /* its definition, noted */
bool fg_raise_scalar(const fg_raiser *r, fg_reg x, double *v);
/* v is `want`, as far as the type of `like` can say. */
bool fg_raise_close(const fg_raiser *r, fg_reg like, double v, double want);
bool fg_raise_is(const fg_raiser *r, fg_reg x, double want);
bool fg_raise_factor(fg_raiser *r, fg_reg x, fg_factors *p); /* false: too many */
/* p is c * x^n, x itself taken apart like p. */
bool fg_raise_is_power(fg_raiser *r, const fg_factors *p, fg_reg x, int n, double *c);
/* Gives the builder the names of all parts. */
fg_build fg_raise_begin(fg_raiser *r, fg_inst *root);
void fg_raise_replace(fg_raiser *r, fg_inst *root, fg_reg with, const char *rule);
/* Returns false. */
bool fg_raise_miss(fg_raiser *r, const fg_inst *core, const char *idiom, int step,
                   const char *fmt, ...) __attribute__((format(printf, 5, 6)));

/* Rules of spellings.def; true: root was replaced. */
#define IDIOM(op, rule, kind) bool fg_raise_##rule(fg_raiser *r, fg_inst *root);
#include "passes/spellings.def"

#endif
