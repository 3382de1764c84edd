/* sample.h - the next token from a row of logits.
 *
 *     repetition penalty -> temperature -> top-k -> top-p -> min-p -> draw
 *
 * Each step sees only what the one before left. The same seed gives the same tokens on
 * every machine that gives the same logits.
 */
#ifndef FG_TEXT_SAMPLE_H
#define FG_TEXT_SAMPLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct fg_sampling {
    double temperature;        /* 0: the likeliest, of equals the first */
    int top_k;                 /* 0: all */
    double top_p, min_p;       /* 1 and 0: all */
    double repetition_penalty; /* 1: none */
    uint64_t seed;
} fg_sampling;
void fg_sampling_init(fg_sampling *s); /* greedy */

/* SplitMix64: the state counts up by a fixed odd step and is mixed; a double takes the top
 * 53 bits. */
uint64_t fg_random_next(uint64_t *state);
double fg_random_unit(uint64_t *state); /* 0 <= u < 1 */

typedef struct fg_candidate {
    float logit;
    int32_t id;
    double p;
} fg_candidate;

typedef struct fg_sampler {
    fg_sampling s;
    uint64_t state;
    fg_candidate *v; /* [vocab] */
    uint8_t *seen;   /* [vocab]: tokens the penalty falls on */
    int32_t vocab;
} fg_sampler;

/* `v` and `seen` (zeroed) are the caller's. */
void fg_sampler_init(fg_sampler *s, const fg_sampling *o, int32_t vocab, fg_candidate *v,
                     uint8_t *seen);
void fg_sampler_seen(fg_sampler *s, int32_t id);
/* What may be drawn, likeliest first, with p summing to 1; its number, at least 1. */
int32_t fg_sampler_candidates(fg_sampler *s, const float *logits);
/* One of them, or the likeliest at temperature 0; -1 when no logit is a number. */
int32_t fg_sampler_pick(fg_sampler *s, const float *logits);

#endif
