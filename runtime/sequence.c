/* sequence.c - sequences of a batch that end at different positions.
 *
 *     length 6, two sequences     0: x x x . . x   4 count        mask for 1 more
 *                                 1: x x x x x x   6 count        1 1 1 0 0 1 1 / 1 1 1 1 1 1 1
 *
 * All sequences of a batch grow together, so one that has less is padded: its positions that
 * do not count stay in memory and the mask hides them. They are noted from the first
 * forge_state_rewind on; before that all positions count.
 */
#include "runtime/state.h"

#include <string.h>

static uint8_t *
counted(const forge_state *s, int64_t sequence)
{
    return s->counts ? s->counts + sequence * s->capacity : NULL;
}

/* Position behind the n-th that counts; the end of the last one for all of them. */
static int64_t
end_of(const forge_state *s, int64_t sequence, int64_t n)
{
    const uint8_t *c = counted(s, sequence);
    int64_t end = 0;

    if (!c)
        return n;
    for (int64_t k = 0; k < s->length && n; k++)
        if (c[k]) {
            end = k + 1;
            n--;
        }
    return end;
}

int64_t
forge_state_sequence(const forge_state *s, int64_t sequence)
{
    int64_t n = 0;

    if (sequence < 0 || sequence >= s->batch)
        return -1;
    const uint8_t *c = counted(s, sequence);
    for (int64_t k = 0; c && k < s->length; k++)
        n += c[k];
    return c ? n : s->length;
}

forge_status
fg_sequences_grow(forge_state *s, forge_ctx *cx, int64_t capacity)
{
    int64_t bytes;
    uint8_t *c;

    if (__builtin_mul_overflow(capacity, s->batch, &bytes) ||
        !(c = s->cx->alloc(s->cx->user, (size_t)bytes)))
        return fg_fail(cx, FORGE_OUT_OF_MEMORY,
                       "out of memory: a state of %lld positions", (long long)capacity);
    memset(c, 1, (size_t)bytes);
    for (int64_t b = 0; s->counts && b < s->batch; b++)
        memcpy(c + b * capacity, counted(s, b), (size_t)s->length);
    if (s->counts)
        s->cx->release(s->cx->user, s->counts);
    s->counts = c;
    return FORGE_OK;
}

forge_status
fg_sequences_copy(forge_state *t, const forge_state *s)
{
    forge_status e;

    if (!s->counts)
        return FORGE_OK;
    if ((e = fg_sequences_grow(t, fg_state_context(s), t->capacity)))
        return e;
    for (int64_t b = 0; b < t->batch; b++)
        memcpy(counted(t, b), counted(s, b % s->batch), (size_t)s->length);
    return FORGE_OK;
}

void
fg_sequences_append(forge_state *s, int64_t length)
{
    for (int64_t b = 0; s->counts && b < s->batch; b++)
        memset(counted(s, b) + s->length, 1, (size_t)(length - s->length));
}

forge_status
forge_state_rewind(forge_state *s, int64_t sequence, int64_t length)
{
    int64_t had = forge_state_sequence(s, sequence), last = 0;
    forge_status e;

    if (length < 0 || length > had)
        return fg_fail(fg_state_context(s), FORGE_USAGE,
                       "sequence %lld of %lld, of length %lld, cut to %lld",
                       (long long)sequence, (long long)s->batch, (long long)had,
                       (long long)length);
    if (length == had)
        return FORGE_OK;
    for (int64_t b = 0; b < s->batch; b++) {
        int64_t ends = end_of(s, b, b == sequence ? length : s->length);
        last = ends > last ? ends : last;
    }
    if ((e = fg_state_has_history(s)) || (last && (e = fg_state_holds(s, last))) ||
        (!s->counts && (e = fg_sequences_grow(s, fg_state_context(s), s->capacity))))
        return e;
    int64_t end = end_of(s, sequence, length);
    memset(counted(s, sequence) + end, 0, (size_t)(s->length - end));
    return last < s->length ? forge_state_truncate(s, last) : FORGE_OK;
}

forge_status
forge_state_mask(const forge_state *s, int64_t more, int64_t *mask, size_t n)
{
    int64_t width, all;

    if (more < 0 || __builtin_add_overflow(s->length, more, &width) ||
        __builtin_mul_overflow(width, s->batch, &all) || n < (size_t)all)
        return fg_fail(fg_state_context(s), FORGE_USAGE,
                       "a mask of %zu elements for %lld sequences of %lld and %lld more",
                       n, (long long)s->batch, (long long)s->length, (long long)more);
    for (int64_t b = 0; b < s->batch; b++)
        for (int64_t k = 0; k < width; k++) {
            const uint8_t *c = counted(s, b);
            mask[b * width + k] = !c || k >= s->length || c[k];
        }
    return FORGE_OK;
}
