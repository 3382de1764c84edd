/* lm.h - a language model behind its file: token numbers in, a row of logits out.
 *
 * What an input is for is told by its name, as exporters spell it. With a KV cache a step
 * reads the new tokens only; without one all of them again.
 */
#ifndef FG_TOOLS_LM_H
#define FG_TOOLS_LM_H

#include "tools/tool.h"

typedef struct lm {
    fg_ctx *cx; /* for diagnostics */
    fg_arena *a;
    forge_ctx *fcx;
    const forge_model *m;
    forge_run *r;
    uint8_t *role; /* by input */
    void **fed;    /* by input: what is bound, with room for fedcap bytes */
    size_t *fedcap;
    forge_state *state; /* the cache; NULL: the model has none */
    int logits;
    int32_t vocab;
    int64_t fixed; /* length that ids must have; 0: any */
    int64_t past;  /* tokens the cache holds */
    int32_t *ids;  /* all tokens so far */
    size_t nids, capids;
    float *row;   /* logits of the last token */
    double bytes; /* that the last step read and wrote */
} lm;

/* Finds the model's contract; false with a diagnostic when it is no language model. */
bool lm_begin(lm *x, fg_ctx *cx, fg_arena *a, forge_ctx *fcx, const forge_model *m,
              forge_run *r);
/* Reads n more tokens; logits of the last are in x->row then. */
bool lm_read(lm *x, const int32_t *ids, size_t n);
void lm_end(lm *x);

#endif
