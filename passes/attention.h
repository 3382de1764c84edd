/* attention.h - one candidate of fuse_attention, between the walk and the emission.
 *
 *     scores = floor(round(outer * factor * here + terms))     (going up from the softmax)
 *     y      = factor * round(probabilities) v                 (going down to the product)
 */
#ifndef FG_PASSES_ATTENTION_H
#define FG_PASSES_ATTENTION_H

#include "passes/pass.h"

enum { FG_ATT_TERMS = 5, FG_ATT_FACTORS = 4, FG_ATT_EXTRA = 24 };

/* Axes of a register on the way. label[k] names axis k by where the softmax's operand
 * has it, counted from its end: 0 is the last. Transposes permute labels; a reshape of the
 * leading axes renews theirs. */
typedef struct fg_attplace {
    fg_type type;
    int8_t label[FG_MAXRANK];
} fg_attplace;

/* A term of the mask: a tensor added, or where(cond, x, fill), or where(cond, fill, x). */
typedef struct fg_attterm {
    fg_reg value, cond;
    bool hides; /* where cond is true */
    double fill, outer;
    fg_attplace place;
} fg_attterm;

/* A tensor that scales whole rows of the scores or of the probabilities. */
typedef struct fg_attfactor {
    fg_reg value;
    bool divides;
    fg_attplace place;
} fg_attfactor;

typedef struct fg_attuses {
    uint32_t n; /* registers known when the pass began */
    uint32_t *count;
    fg_inst **first; /* a reader; the one that tests or bounds when there is one */
} fg_attuses;

typedef struct fg_attwalk {
    fg_module *m;
    fg_report *report;
    const fg_attuses *uses;
    fg_inst *softmax, *qk, *pv;
    fg_reg probabilities; /* what pv reads of them */
    bool flip;            /* the product has keys in rows: its operands change places */
    bool right;           /* the probabilities are the right side of their product */
    fg_attplace qk_at;    /* axes of the first product's result */
    fg_attplace pv_at;    /* of the probabilities at the second */
    fg_attplace wide;     /* the scores with the most axes they had on the way */
    double outer;         /* factor between the final scores and where the walk stands */
    double softcap;
    double floor; /* scores below become this; -inf: none */
    bool guarded; /* rows of NaN become zero */
    fg_reg sink;  /* concatenated to the scores, as it is there; 0: none */
    bool sink_first, sliced;
    fg_attplace sink_at;
    int nterm, npre, npost, nround;
    fg_attterm term[FG_ATT_TERMS];
    fg_attfactor pre[FG_ATT_FACTORS], post[FG_ATT_FACTORS];
    struct {
        double scale, zero;
        fg_dtype type;
        fg_roundat at;
        int terms;        /* found before it */
    } round[FG_MAXROUND]; /* from the softmax outwards */
    int nextra;
    fg_inst *extra[FG_ATT_EXTRA]; /* what lies between, for the node names */
    const fg_inst *step;          /* the furthest it came */
    const char *reason;           /* and why not further */
} fg_attwalk;

/* Records why not; false. */
bool fg_att_miss(fg_attwalk *w, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* A floating-point scalar constant, whatever its shape. */
bool fg_att_scalar(const fg_attwalk *w, fg_reg r, double *v);
/* d computes in * c or in / c with a scalar constant c. */
bool fg_att_scaled(const fg_attwalk *w, const fg_inst *d, fg_reg *in, double *c);
/* Does a product of two computed tensors lie above r, through what the walk passes? */
bool fg_att_leads_to_product(const fg_attwalk *w, fg_reg r);
bool fg_att_walk_up(fg_attwalk *w);   /* from the softmax to the product of Q and K */
bool fg_att_walk_down(fg_attwalk *w); /* and to the product with V */
bool fg_att_emit(fg_attwalk *w);      /* in front of pv; false leaves no trace */

/* What a candidate may be spelled as; true: something was rewritten. */
bool fg_att_respell(fg_module *m, fg_passctx *cx);
/* Masks that go by position become limits, where nothing else changes; true: some did. */
bool fg_att_limits(fg_module *m, fg_passctx *cx);
fg_attuses fg_att_uses(fg_module *m, fg_arena *a);
/* The next instruction of the block that reads r; NULL: none near. */
fg_inst *fg_att_next_reader(const fg_inst *i, fg_reg r);

#endif
