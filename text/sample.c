/* sample.c - choosing the next token. */
#include "text/sample.h"

#include <math.h>
#include <stdlib.h>

void
fg_sampling_init(fg_sampling *s)
{
    *s = (fg_sampling){.top_p = 1, .repetition_penalty = 1};
}

/* ---- random numbers ------------------------------------------------------------------- */

uint64_t
fg_random_next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

double
fg_random_unit(uint64_t *state)
{
    return (double)(fg_random_next(state) >> 11) * 0x1p-53;
}

/* ---- candidates ----------------------------------------------------------------------- */

void
fg_sampler_init(fg_sampler *s, const fg_sampling *o, int32_t vocab, fg_candidate *v,
                uint8_t *seen)
{
    *s = (fg_sampler){*o, o->seed, v, seen, vocab};
}

void
fg_sampler_seen(fg_sampler *s, int32_t id)
{
    if (id >= 0 && id < s->vocab)
        s->seen[id] = 1;
}

/* Towards less likely, whichever sign the logit has. */
static float
penalised(const fg_sampler *s, const float *logits, int32_t id)
{
    float x = logits[id];

    if (!s->seen[id] || s->s.repetition_penalty == 1)
        return x;
    return (float)(x > 0 ? x / s->s.repetition_penalty : x * s->s.repetition_penalty);
}

static int
likelier_first(const void *x, const void *y)
{
    const fg_candidate *a = x, *b = y;

    if (a->logit != b->logit)
        return a->logit > b->logit ? -1 : 1;
    return (a->id > b->id) - (a->id < b->id);
}

static bool
below(const fg_candidate *a, const fg_candidate *b)
{
    return likelier_first(a, b) > 0;
}

static void
sift(fg_candidate *h, int32_t n, int32_t i)
{
    fg_candidate x = h[i];

    for (int32_t k; (k = 2 * i + 1) < n; i = k) {
        k += k + 1 < n && below(&h[k + 1], &h[k]);
        if (!below(&h[k], &x))
            break;
        h[i] = h[k];
    }
    h[i] = x;
}

/* The k likeliest to the front: a heap of them, with the least likely on top. */
static int32_t
keep_top(fg_candidate *v, int32_t n, int32_t k)
{
    if (k <= 0 || k >= n)
        return n;
    for (int32_t i = k / 2; i-- > 0;)
        sift(v, k, i);
    for (int32_t i = k; i < n; i++)
        if (below(&v[0], &v[i])) {
            v[0] = v[i];
            sift(v, k, 0);
        }
    return k;
}

static double
fill_p(fg_candidate *v, int32_t n, double temperature)
{
    float top = v[0].logit;
    double sum = 0;

    for (int32_t i = 1; i < n; i++)
        top = v[i].logit > top ? v[i].logit : top;
    for (int32_t i = 0; i < n; i++)
        sum += v[i].p = exp(((double)v[i].logit - top) / temperature);
    return sum;
}

/* Leaves out what cannot matter, so that little is left to sort: all tokens less likely
 * than (1 - top_p) / n weigh less than 1 - top_p together, so the nucleus is complete
 * without them; and min-p falls on them with certainty if it does before top-p. */
static int32_t
drop_unlikely(fg_candidate *v, int32_t n, double sum, double top_p)
{
    double least = top_p < 1 ? (1 - top_p) / n * sum : 0;
    int32_t m = 0;

    for (int32_t i = 0; i < n; i++)
        if (v[i].p >= least)
            v[m++] = v[i];
    return m;
}

int32_t
fg_sampler_candidates(fg_sampler *s, const float *logits)
{
    fg_candidate *v = s->v;
    double sum = 0, total = 0;
    int32_t n = 0, m = 0;

    for (int32_t i = 0; i < s->vocab; i++) {
        float x = penalised(s, logits, i);
        if (x > -INFINITY && x < INFINITY)
            v[n++] = (fg_candidate){x, i, 0};
    }
    if (!n)
        return 0;
    n = keep_top(v, n, s->s.top_k);
    sum = fill_p(v, n, s->s.temperature);
    n = drop_unlikely(v, n, sum, s->s.top_p);
    qsort(v, (size_t)n, sizeof *v, likelier_first);
    while (m < n && (!m || (total < s->s.top_p * sum && v[m].p >= s->s.min_p * v[0].p)))
        total += v[m++].p;
    for (int32_t i = 0; i < m; i++)
        v[i].p /= total;
    return m;
}

/* ---- the choice ----------------------------------------------------------------------- */

static int32_t
likeliest(const fg_sampler *s, const float *logits)
{
    int32_t best = -1;
    float top = 0;

    for (int32_t i = 0; i < s->vocab; i++) {
        float x = penalised(s, logits, i);
        if (x == x && (best < 0 || x > top)) {
            best = i;
            top = x;
        }
    }
    return best;
}

int32_t
fg_sampler_pick(fg_sampler *s, const float *logits)
{
    if (s->s.temperature <= 0)
        return likeliest(s, logits);
    int32_t n = fg_sampler_candidates(s, logits), i = 0;
    if (!n)
        return likeliest(s, logits);
    double u = fg_random_unit(&s->state);
    while (i + 1 < n && u >= s->v[i].p)
        u -= s->v[i++].p;
    return s->v[i].id;
}
