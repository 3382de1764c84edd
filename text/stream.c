/* stream.c - decoding token by token.
 *
 * A token's text depends on those before it (the first loses its space, bytes need the
 * rest of their character), so a window of tokens is decoded again each time. It moves on
 * whenever its text is whole; until then what ends in U+FFFD may still become a
 * character and is held back.
 */
#include "text/tok.h"

#define HOLD 64 /* tokens; by then it will not become one */

void
fg_stream_init(fg_stream *s, const fg_tokenizer *t, fg_arena *a, bool skip)
{
    *s = (fg_stream){.t = t, .a = a, .skip = skip};
}

static fg_str
text_of(fg_stream *s, fg_arena *a, size_t from)
{
    return fg_tokenizer_decode(s->t, a, s->ids.v + from, s->ids.n - from, s->skip);
}

static fg_str
keep(fg_stream *s, fg_str text)
{
    if (text.n + 1 > s->cap) {
        s->cap = (text.n + 1) * 2;
        s->text = fg_alloc(s->a, s->cap);
    }
    memcpy(s->text, text.s, text.n);
    s->text[text.n] = '\0';
    return (fg_str){s->text, text.n};
}

static fg_str
advance(fg_stream *s, bool all)
{
    fg_arena *scratch = fg_arena_new(fg_arena_ctx(s->a));
    fg_str text = text_of(s, scratch, s->window), out = {0};
    size_t whole = text.n;

    while (!all && whole >= 3 && !memcmp(text.s + whole - 3, "\xef\xbf\xbd", 3))
        whole -= 3;
    if (whole > s->sent) {
        out = keep(s, (fg_str){text.s + s->sent, whole - s->sent});
        s->sent = whole;
    }
    /* The next window begins with the tokens of this one's end, for their context; tokens
     * without text give none. */
    fg_str next = {0};
    if (whole == text.n)
        next = text_of(s, scratch, s->shown);
    if (next.n) {
        s->window = s->shown;
        s->sent = next.n;
    }
    if (whole == text.n)
        s->shown = s->ids.n;
    fg_arena_free(scratch);
    return out;
}

fg_str
fg_stream_push(fg_stream *s, int32_t id)
{
    fg_id_add(&s->ids, s->a, id);
    return advance(s, s->ids.n - s->shown > HOLD);
}

fg_str
fg_stream_end(fg_stream *s)
{
    return advance(s, true);
}
