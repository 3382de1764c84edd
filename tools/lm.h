/* lm.h - a language model behind its file: token numbers in, rows of logits out.
 *
 * What an input is for is told by its name, as exporters spell it. With a KV cache a step
 * reads the new tokens only; without one all of them again. Several sequences are read together,
 * and so are the model's weights for them.
 */
#ifndef FG_TOOLS_LM_H
#define FG_TOOLS_LM_H

#include "text/tokenizer.h"
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
    bool batches;  /* takes more than one sequence */
    int64_t fixed; /* length that ids must have; 0: any */
    int64_t batch; /* sequences */
    int64_t past;  /* tokens the cache holds */
    int32_t *ids;  /* all tokens so far, of every sequence one after the other */
    size_t n, cap; /* tokens of a sequence, those that fill it up too; room in ids */
    size_t *own; /* tokens of each prompt, filled up to `most`; NULL: all of one length */
    size_t most;
    float *first; /* rows of logits behind these prompts, until a token is read */
    int64_t read; /* sequences of the last step: what has become several since was one */
    int64_t rows; /* of logits that it left for each */
    int64_t last; /* where the last token's is among a sequence's rows in `out` */
    fg_tensor out;
    float *row;   /* the one asked for, when it is converted */
    double bytes; /* that all steps read and wrote */
} lm;

/* Finds the model's contract; false with a diagnostic when it is no language model. */
bool lm_begin(lm *x, fg_ctx *cx, fg_arena *a, forge_ctx *fcx, const forge_model *m,
              forge_run *r);
/* Reads n more tokens; of several sequences the first of each, then the second of each. */
bool lm_read(lm *x, const int32_t *ids, size_t n);
/* Logits of sequence s behind its last token but `back`; back < rows. */
const float *lm_row(lm *x, int64_t s, size_t back);
/* Whether prompts of several lengths can be read together: what fills the shorter ones up is
 * hidden by the mask, and the positions of what follows are given. */
bool lm_mixes(const lm *x);
/* Begins anew with these prompts, one for each sequence. */
bool lm_read_prompts(lm *x, const fg_ids *prompt, size_t n);
size_t lm_length(const lm *x, int64_t s); /* tokens of sequence s */
/* Forgets all tokens but the first n. */
bool lm_cut(lm *x, size_t n);
/* Goes on as `batch` copies of the one sequence that there is. */
bool lm_repeat(lm *x, int64_t batch);
/* Back to one sequence without tokens. */
bool lm_reset(lm *x);
void lm_end(lm *x);

#endif
