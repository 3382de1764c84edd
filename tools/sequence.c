/* sequence.c - tokens to the text that is shown.
 *
 *     stop "END"    "the E"      shows "the ", holds "E"
 *                   "nd"         shows "End"
 *                   " END x"     shows " ", and that is all
 */
#include "tools/sequence.h"

#include <stdio.h>

const char *const ending_name[] = {"", "length", "eos", "stop", "context"};

void
sequence_begin(sequence *s, const sequence_rules *rules, fg_arena *a,
               const fg_sampling *o, int32_t vocab, const fg_ids *prompt)
{
    *s = (sequence){.rules = rules, .a = a, .prompt = prompt->n};
    s->held = fg_text_new(a);
    s->text = fg_text_new(a);
    fg_stream_init(&s->stream, rules->t, a, true);
    fg_sampler_init(&s->sampler, o, vocab, FG_NEWN(a, fg_candidate, (size_t)vocab + 1),
                    FG_NEWN(a, uint8_t, (size_t)vocab + 1));
    for (size_t k = 0; k < prompt->n; k++)
        fg_sampler_seen(&s->sampler, prompt->v[k]);
    if (!rules->most)
        s->end = END_LENGTH;
}

/* Longest end of the held text that a stop string begins with. */
static size_t
may_begin_stop(const sequence *s)
{
    const tool_list *stop = s->rules->stop;
    size_t most = 0;

    for (int k = 0; k < stop->n; k++) {
        size_t len = strlen(stop->v[k]);
        for (size_t n = s->held.n < len ? s->held.n : len; n > most; n--)
            if (!memcmp(s->held.s + s->held.n - n, stop->v[k], n))
                most = n;
    }
    return most;
}

static const char *
first_stop(const sequence *s)
{
    const tool_list *stop = s->rules->stop;
    const char *first = NULL;

    for (int k = 0; k < stop->n; k++) {
        const char *hit = *stop->v[k] ? strstr(s->held.s, stop->v[k]) : NULL;
        first = hit && (!first || hit < first) ? hit : first;
    }
    return first;
}

/* Shows what is certain; false when a stop string came. */
static bool
show(sequence *s, fg_str more, bool all)
{
    fg_put_str(&s->held, more);
    const char *first = first_stop(s);
    size_t n =
        first ? (size_t)(first - s->held.s) : s->held.n - (all ? 0 : may_begin_stop(s));
    fg_put_str(&s->text, (fg_str){s->held.s, n});
    if (s->rules->live) {
        fwrite(s->held.s, 1, n, stdout);
        fflush(stdout);
    }
    memmove(s->held.s, s->held.s + n, s->held.n - n + 1);
    s->held.n -= n;
    return !first;
}

static bool
is_eos(const sequence *s, int32_t id)
{
    for (size_t k = 0; k < s->rules->eos->n; k++)
        if (s->rules->eos->v[k] == id)
            return true;
    return false;
}

int32_t
sequence_next(sequence *s, const float *logits)
{
    int32_t id = fg_sampler_pick(&s->sampler, logits);

    if (id < 0)
        return id;
    fg_sampler_seen(&s->sampler, id);
    FG_PUSH(s->a, s->out.v, s->out.n, s->out.cap) = id;
    if (is_eos(s, id))
        sequence_end(s, END_EOS);
    else if (!show(s, fg_stream_push(&s->stream, id), false))
        s->end = END_STOP;
    else if (s->out.n == s->rules->most)
        sequence_end(s, END_LENGTH);
    return id;
}

void
sequence_end(sequence *s, ending why)
{
    s->end = show(s, fg_stream_end(&s->stream), true) ? why : END_STOP;
}
