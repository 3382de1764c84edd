/* draft.c - guesses of what comes next: by a smaller model, or by the text itself.
 *
 *     .. the cat sat on the mat. Then the cat     ->  sat on the
 */
#include "tools/draft.h"

#define LONGEST 4 /* tokens that must have been there before, at most and at least */
#define SHORTEST 2

void
draft_begin(draft *d, fg_arena *a, lm *model, size_t most)
{
    *d = (draft){.a = a, .model = model, .most = most};
    d->v = FG_NEWN(a, int32_t, most + 1);
}

bool
draft_text(draft *d, const fg_ids *prompt)
{
    d->known.n = d->guessed = d->right = 0;
    for (size_t k = 0; k < prompt->n; k++)
        draft_known(d, prompt->v[k]);
    return !d->model || (lm_reset(d->model) && lm_read(d->model, prompt->v, prompt->n));
}

void
draft_known(draft *d, int32_t id)
{
    FG_PUSH(d->a, d->known.v, d->known.n, d->known.cap) = id;
    d->v[0] = id;
}

/* Where the last n tokens were before, the latest such place; its end, or 0. */
static size_t
before(const fg_ids *x, size_t n)
{
    size_t bytes = n * sizeof *x->v;

    for (size_t end = x->n; end-- > n;)
        if (!memcmp(x->v + end - n, x->v + x->n - n, bytes))
            return end;
    return 0;
}

static void
look_up(draft *d, size_t most)
{
    size_t at = 0;

    for (size_t n = LONGEST; !at && n >= SHORTEST; n--)
        at = d->known.n > n ? before(&d->known, n) : 0;
    for (; at && d->n < most && at < d->known.n; at++)
        d->v[++d->n] = d->known.v[at];
}

static int32_t
likeliest(const float *row, int32_t n)
{
    int32_t best = 0;

    for (int32_t k = 1; k < n; k++)
        best = row[k] > row[best] ? k : best;
    return best;
}

/* The model forgets what was guessed wrongly, and reads what it has not. */
static bool
ask(draft *d, size_t most)
{
    lm *x = d->model;
    size_t same = 0;

    while (same < x->n && same + 1 < d->known.n && x->ids[same] == d->known.v[same])
        same++;
    if (same < x->n && !lm_cut(x, same))
        return false;
    if (!lm_read(x, d->known.v + same, d->known.n - same))
        return false;
    while (d->n < most) {
        int32_t id = likeliest(lm_row(x, 0, 0), x->vocab);
        d->v[++d->n] = id;
        if (d->n < most && !lm_read(x, &id, 1))
            return false;
    }
    return true;
}

bool
draft_guess(draft *d, size_t most, int32_t vocab)
{
    most = most < d->most ? most : d->most;
    d->n = 0;
    if (!d->model)
        look_up(d, most);
    else if (most && !ask(d, most))
        return false;
    for (size_t k = 0; k < d->n; k++)
        if (d->v[k + 1] >= vocab)
            d->n = k;
    d->guessed += d->n;
    return true;
}
