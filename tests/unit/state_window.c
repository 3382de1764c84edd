/* state_window.c - caches of which attention reads only the last rows, beside some that it reads
 * whole. `test-state_window` prints `N passed, N failed`.
 *
 * Every element of a text's queries, keys and values is a number that its position tells, so that
 * what attention says can be computed here, plainly, wherever a run begins.
 */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/state.h"
#include "tests/unit/expect.h"
#include "tests/unit/moved.h"
#include "tests/unit/text_model.h"

enum { H = 4, G = 2, D = 16, LEFT = 7, MOST = 128, B = 2, SPARE = 16 };

/* Of the first layer the last positions are read, of the second one all. */
static const char text[] =
    "sym B in 1..\nsym P in 0..\nsym S in 1..\n"
    "func @main(%q: f32[B,4,S,16], %k: f32[B,2,S,16], %v: f32[B,2,S,16], %mask: "
    "bool[B,P+S],"
    " %wk: f32[B,2,P,16], %wv: f32[B,2,P,16], %ak: f32[B,2,P,16], %av: f32[B,2,P,16])"
    " -> f32[B,4,S,16], f32[B,4,S,16], f32[B,2,P+S,16], f32[B,2,P+S,16], f32[B,2,P+S,16],"
    " f32[B,2,P+S,16] {\n"
    "  %m = reshape %mask : bool[B,1,1,P+S]\n"
    "  %wk1 = concat %wk, %k {axis=2} : f32[B,2,P+S,16]\n"
    "  %wv1 = concat %wv, %v {axis=2} : f32[B,2,P+S,16]\n"
    "  %near = attention %q, %wk1, %wv1, %m {scale=0.25, causal=1, left=7} : "
    "f32[B,4,S,16]\n"
    "  %ak1 = concat %ak, %k {axis=2} : f32[B,2,P+S,16]\n"
    "  %av1 = concat %av, %v {axis=2} : f32[B,2,P+S,16]\n"
    "  %all = attention %q, %ak1, %av1, %m {scale=0.25, causal=1} : f32[B,4,S,16]\n"
    "  ret %near, %all, %wk1, %wv1, %ak1, %av1\n}\n";

/* Caches with positions in front of heads. */
static const char transposed[] =
    "sym B in 1..\nsym P in 0..\nsym S in 1..\n"
    "func @main(%q: f32[B,4,S,16], %k: f32[B,2,S,16], %v: f32[B,2,S,16], %mask: "
    "bool[B,P+S],"
    " %wk: f32[B,P,2,16], %wv: f32[B,P,2,16])"
    " -> f32[B,4,S,16], f32[B,P+S,2,16], f32[B,P+S,2,16] {\n"
    "  %m = reshape %mask : bool[B,1,1,P+S]\n"
    "  %kt = transpose %k {perm=[0,2,1,3]} : f32[B,S,2,16]\n"
    "  %vt = transpose %v {perm=[0,2,1,3]} : f32[B,S,2,16]\n"
    "  %wk1 = concat %wk, %kt {axis=1} : f32[B,P+S,2,16]\n"
    "  %wv1 = concat %wv, %vt {axis=1} : f32[B,P+S,2,16]\n"
    "  %kk = transpose %wk1 {perm=[0,2,1,3]} : f32[B,2,P+S,16]\n"
    "  %vv = transpose %wv1 {perm=[0,2,1,3]} : f32[B,2,P+S,16]\n"
    "  %near = attention %q, %kk, %vv, %m {scale=0.25, causal=1, left=7} : "
    "f32[B,4,S,16]\n"
    "  ret %near, %wk1, %wv1\n}\n";

/* Caches of the first layer that the model cuts to the last positions, #: how many there are
 * before, at first none or always as many; the others grow. */
static const char cut[] =
    "sym B in 1..\nsym A in 0..\nsym P in 0..\nsym S in 1..\n"
    "func @main(%q: f32[B,4,S,16], %k: f32[B,2,S,16], %v: f32[B,2,S,16], %mask: "
    "bool[B,A+S], %last: bool[B,#+S],"
    " %wk: f32[B,2,#,16], %wv: f32[B,2,#,16], %ak: f32[B,2,A,16], %av: "
    "f32[B,2,A,16])"
    " -> f32[B,4,S,16], f32[B,4,S,16], f32[B,2,min(#+S,7),16], f32[B,2,min(#+S,7),16],"
    " f32[B,2,A+S,16], f32[B,2,A+S,16] {\n"
    "  %m = reshape %mask : bool[B,1,1,A+S]\n"
    "  %l = reshape %last : bool[B,1,1,#+S]\n"
    "  %wk2 = concat %wk, %k {axis=2} : f32[B,2,#+S,16]\n"
    "  %wv2 = concat %wv, %v {axis=2} : f32[B,2,#+S,16]\n"
    "  %wk1 = slice %wk2 {start=[0,0,#+S-min(#+S,7),0], step=[1,1,1,1]} : "
    "f32[B,2,min(#+S,7),16]\n"
    "  %wv1 = slice %wv2 {start=[0,0,#+S-min(#+S,7),0], step=[1,1,1,1]} : "
    "f32[B,2,min(#+S,7),16]\n"
    "  %near = attention %q, %wk2, %wv2, %l {scale=0.25, causal=1, left=7} : "
    "f32[B,4,S,16]\n"
    "  %ak1 = concat %ak, %k {axis=2} : f32[B,2,A+S,16]\n"
    "  %av1 = concat %av, %v {axis=2} : f32[B,2,A+S,16]\n"
    "  %all = attention %q, %ak1, %av1, %m {scale=0.25, causal=1} : f32[B,4,S,16]\n"
    "  ret %near, %all, %wk1, %wv1, %ak1, %av1\n}\n";

/* With positions in front, and no other cache beside: states are as long as the text. */
static const char cut_transposed[] =
    "sym B in 1..\nsym P in 0..\nsym S in 1..\n"
    "func @main(%q: f32[B,4,S,16], %k: f32[B,2,S,16], %v: f32[B,2,S,16], %last: "
    "bool[B,P+S],"
    " %wk: f32[B,P,2,16], %wv: f32[B,P,2,16])"
    " -> f32[B,4,S,16], f32[B,min(P+S,7),2,16], f32[B,min(P+S,7),2,16] {\n"
    "  %m = reshape %last : bool[B,1,1,P+S]\n"
    "  %kt = transpose %k {perm=[0,2,1,3]} : f32[B,S,2,16]\n"
    "  %vt = transpose %v {perm=[0,2,1,3]} : f32[B,S,2,16]\n"
    "  %wk2 = concat %wk, %kt {axis=1} : f32[B,P+S,2,16]\n"
    "  %wv2 = concat %wv, %vt {axis=1} : f32[B,P+S,2,16]\n"
    "  %wk1 = slice %wk2 {start=[0,P+S-min(P+S,7),0,0], step=[1,1,1,1]} : "
    "f32[B,min(P+S,7),2,16]\n"
    "  %wv1 = slice %wv2 {start=[0,P+S-min(P+S,7),0,0], step=[1,1,1,1]} : "
    "f32[B,min(P+S,7),2,16]\n"
    "  %kk = transpose %wk2 {perm=[0,2,1,3]} : f32[B,2,P+S,16]\n"
    "  %vv = transpose %wv2 {perm=[0,2,1,3]} : f32[B,2,P+S,16]\n"
    "  %near = attention %q, %kk, %vv, %m {scale=0.25, causal=1, left=7} : "
    "f32[B,4,S,16]\n"
    "  ret %near, %wk1, %wv1\n}\n";

typedef struct host {
    forge_ctx *cx;
    forge_model *m;
    forge_run *r;
    long allocs;
    int sequences;
    float q[B * H * MOST * D], k[B * G * MOST * D], v[B * G * MOST * D];
    uint8_t mask[B * MOST], last[B * MOST]; /* of all positions; of those near */
} host;

static bool
open_model(host *h, const char *source)
{
    memset(h, 0, sizeof *h);
    h->sequences = 1;
    open_counted(&h->allocs, &h->cx);
    return expect(!compile_text(h->cx, source, &h->m), "compile", forge_message(h->cx)) &&
           !forge_run_new(h->cx, h->m, &h->r) && !forge_run_threads(h->r, 1);
}

static void
close_model(host *h)
{
    forge_run_free(h->r);
    forge_model_free(h->m);
    forge_close(h->cx);
}

/* ---- what there should be -------------------------------------------------------------- */

static int fork_at; /* texts differ from there on */

/* Element of the query (0), key (1) or value (2) of a position, in one of several texts. */
static float
element(int text_no, int which, int position, int head, int d)
{
    text_no = position < fork_at ? 0 : text_no;
    uint32_t x =
        (uint32_t)(((text_no * 3 + which) * 4096 + position) * 64 + head * D + d);

    x = (x ^ (x >> 7)) * 2654435761u;
    x ^= x >> 15;
    return (float)(x % 2001) * 1e-3f - 1;
}

/* Attention of a position, over the `left` before it (all: -1) that are not hidden. */
static void
plainly(int text_no, int at, int head, int left, const uint8_t *mask, double *y)
{
    double weight[MOST], sum = 0;

    for (int d = 0; d < D; d++)
        y[d] = 0;
    for (int j = 0; j <= at; j++) {
        double dot = 0;
        for (int d = 0; d < D; d++)
            dot += (double)element(text_no, 0, at, head, d) *
                   element(text_no, 1, j, head / 2, d);
        bool hidden = (left >= 0 && j < at - left) || (mask && !mask[j]);
        sum += weight[j] = hidden ? 0 : exp(dot / 4);
    }
    for (int j = 0; j <= at; j++)
        for (int d = 0; d < D; d++)
            y[d] += weight[j] / sum * element(text_no, 2, j, head / 2, d);
}

static void
check_output(host *h, const char *name, int text_no, int from, int to, int left,
             const char *what)
{
    const float *got = forge_output(h->r, name, NULL, NULL, NULL);
    double want[D], worst = 0;

    if (!got)
        return;
    for (int b = 0; b < h->sequences; b++)
        for (int head = 0; head < H; head++)
            for (int t = from; t < to; t++, got += D) {
                if (!h->mask[b * to + t])
                    continue;
                plainly(text_no, t, head, left, h->mask + b * to, want);
                for (int d = 0; d < D; d++)
                    worst = fmax(worst, fabs(got[d] - want[d]));
            }
    expect(worst < 1e-5, what, name);
}

/* ---- runs ------------------------------------------------------------------------------ */

static void
fill(host *h, float *to, int which, int heads, int text_no, int from, int n)
{
    for (int b = 0; b < h->sequences; b++)
        for (int head = 0; head < heads; head++)
            for (int t = from; t < from + n; t++)
                for (int d = 0; d < D; d++)
                    *to++ = element(text_no, which, t, head, d);
}

/* Positions before the first of a run that it has of cache `k`: `at` of them are in the text. */
static int
past_rows(const host *h, int k, int at)
{
    const fg_program *p = h->m->program;
    const fg_statedef *d = &p->state[k];

    if (fg_starts_full(p, d))
        return LEFT;
    return fg_is_cut(p, d) && at > LEFT ? LEFT : at;
}

/* Positions [from, to) of a text into the attached state. */
static forge_status
feed(host *h, int text_no, int from, int to)
{
    const int64_t n = to - from, q[] = {h->sequences, H, n, D},
                  k[] = {h->sequences, G, n, D}, m[] = {h->sequences, to},
                  last[] = {h->sequences, past_rows(h, 0, from) + n};

    for (int b = 0; b < h->sequences; b++)
        for (int j = 0; j < last[1]; j++) {
            int at = to - (int)last[1] + j;
            h->last[b * last[1] + j] = at >= 0 && h->mask[b * to + at];
        }

    fill(h, h->q, 0, H, text_no, from, (int)n);
    fill(h, h->k, 1, G, text_no, from, (int)n);
    fill(h, h->v, 2, G, text_no, from, (int)n);
    forge_bind_input(h->r, "q", FORGE_F32, 4, q, h->q);
    forge_bind_input(h->r, "k", FORGE_F32, 4, k, h->k);
    forge_bind_input(h->r, "v", FORGE_F32, 4, k, h->v);
    forge_bind_input(h->r, "mask", FORGE_BOOL, 2, m, h->mask);
    forge_bind_input(h->r, "last", FORGE_BOOL, 2, last, h->last);
    return forge_execute(h->r);
}

static void
run(host *h, int text_no, int from, int to, const char *what)
{
    memset(h->mask, 1, sizeof h->mask);
    if (!expect(!feed(h, text_no, from, to), what, forge_message(h->cx)))
        return;
    check_output(h, "near", text_no, from, to, LEFT, what);
    check_output(h, "all", text_no, from, to, -1, what);
}

static forge_state *
attach_new(host *h, int64_t capacity)
{
    forge_state *s = NULL;

    expect(!forge_state_new(h->cx, h->m, h->sequences, capacity, 0, &s) &&
               !forge_run_attach(h->r, s),
           "new", forge_message(h->cx));
    return s;
}

static int64_t
rows_of_window(const forge_state *s)
{
    return s->buf[0].room;
}

/* ---- what is tested -------------------------------------------------------------------- */

/* Far beyond the window: what it takes does not grow, and nothing is allocated. */
static void
step_by_step(host *h)
{
    forge_state *s = attach_new(h, 64);
    long before = 0;

    expect(fg_is_window(&s->p->state[0]), "the first cache", "is no window");
    for (int t = 0; t < 60; t++) {
        run(h, 0, t, t + 1, "step by step");
        before = t ? before : h->allocs;
        expect(rows_of_window(s) <= LEFT + SPARE, "a window", "grows");
    }
    expect(h->allocs == before, "steps", "allocate");
    expect(forge_state_length(s) == 60, "length", "is that of all positions");
    forge_run_attach(h->r, NULL);
    forge_state_free(s);
}

/* Beyond the window a step reads what attention sees and writes what is new: no cache is written
 * anew, whoever cuts it. Of models that have no other caches. */
static void
steady(host *h)
{
    enum { ROW = G * D * 4, SEEN = 2 * (LEFT + 1) * ROW, QUERY = H * D * 4 };
    int64_t most = 2 * QUERY + SEEN + 4 * ROW + 100, moved = 0;

    if (forge_model_states(h->m) > 2)
        return;
    forge_state *s = attach_new(h, 64);
    for (int t = 0; t < 60; t++) {
        run(h, 0, t, t + 1, "steady");
        expect(t < 30 || moved == bytes_moved(h->r), "steady", "a later step moves more");
        moved = bytes_moved(h->r);
    }
    expect(moved <= most, "steady", "moves caches");
    forge_run_attach(h->r, NULL);
    forge_state_free(s);
}

/* A prompt that is longer than the window, then steps: memory for the prompt is given back. */
static void
long_prompt(host *h)
{
    forge_state *s = attach_new(h, 4);

    run(h, 0, 0, 50, "a long prompt");
    expect(rows_of_window(s) >= 50, "a prompt", "is not there");
    for (int t = 50; t < 80; t++)
        run(h, 0, t, t + 1, "after a long prompt");
    expect(rows_of_window(s) <= LEFT + 1 + SPARE, "a window",
           "stays as large as the prompt");
    forge_run_attach(h->r, NULL);
    forge_state_free(s);
}

static void
in_chunks(host *h)
{
    for (int n = 2; n < 20; n += 3) {
        forge_state *s = attach_new(h, 10);
        for (int t = 0; t + n <= 100; t += n)
            run(h, 0, t, t + n, "in chunks");
        forge_run_attach(h->r, NULL);
        forge_state_free(s);
    }
}

/* What the last run appended can always be taken back; further back only what is there. */
static void
back(host *h)
{
    forge_state *s = attach_new(h, 10);
    int at = 0, refused = 0, taken = 0;

    for (int k = 0; k < 40 && at < 90; k++) {
        int n = k % 11 + 1;
        run(h, 0, at, at + n, "forth");
        expect(!forge_state_truncate(s, at + n / 2), "back", forge_message(h->cx));
        at += n / 2;
        expect(!feed(h, 1, at, at + 1), "a guess", forge_message(h->cx));
        expect(!forge_state_truncate(s, at), "back by one", forge_message(h->cx));
        run(h, 0, at, at + 3, "and on");
        at += 3;
        if (at < 30)
            continue;
        forge_status e = forge_state_truncate(s, at - 13);
        refused += e == FORGE_UNSUPPORTED && strstr(forge_message(h->cx), "are gone");
        taken += !e;
        at = (int)forge_state_length(s);
        run(h, 0, at, at + 1 + 13 * !e, "as if nothing had been");
        at += 1 + 13 * !e;
    }
    expect(refused && taken, "far back",
           refused ? "was never done" : "was never refused");
    expect(!forge_state_truncate(s, 0), "back to 0", forge_message(h->cx));
    run(h, 1, 0, 12, "anew");
    forge_run_attach(h->r, NULL);
    forge_state_free(s);
}

/* Two that go on differently from any position, each across the end of its storage; memory that
 * they share is not moved under the other one. */
static void
forks(host *h)
{
    for (int at = 1; at < 45; at += 4) {
        forge_state *s = attach_new(h, 10), *f = NULL, *two = NULL;
        fork_at = at;
        for (int t = 0; t < at; t++)
            run(h, 0, t, t + 1, "before a fork");
        expect(!forge_state_fork(s, &f), "fork", forge_message(h->cx));
        for (int t = at; t < at + 20; t++)
            for (int k = 0; k < 2; k++) {
                forge_run_attach(h->r, k ? f : s);
                run(h, k, t, t + 1, "after a fork");
            }
        if (expect(!forge_state_repeat(f, 2, &two), "repeat", forge_message(h->cx))) {
            h->sequences = 2;
            forge_run_attach(h->r, two);
            for (int t = at + 20; t < at + 32; t++)
                run(h, 1, t, t + 1, "two that were one");
            h->sequences = 1;
        }
        forge_run_attach(h->r, NULL);
        forge_state_free(two);
        forge_state_free(s);
        forge_state_free(f);
    }
    fork_at = 0;
}

/* Of two sequences one is cut back, which hides its positions. */
static void
hidden(host *h)
{
    int64_t mask[B * MOST];
    h->sequences = 2;
    forge_state *s = attach_new(h, 10);

    run(h, 0, 0, 40, "two sequences");
    expect(!forge_state_rewind(s, 1, 36), "rewind", forge_message(h->cx));
    for (int t = 40; t < 60; t++) {
        expect(!forge_state_mask(s, 1, mask, B * MOST), "mask", forge_message(h->cx));
        for (int k = 0; k < 2 * (t + 1); k++)
            h->mask[k] = (uint8_t)mask[k];
        if (!expect(!feed(h, 0, t, t + 1), "hidden", forge_message(h->cx)))
            break;
        check_output(h, "near", 0, t, t + 1, LEFT, "hidden");
        check_output(h, "all", 0, t, t + 1, -1, "hidden");
    }
    expect(forge_state_sequence(s, 1) == 56, "hidden", "are counted");
    forge_run_attach(h->r, NULL);
    forge_state_free(s);
    h->sequences = 1;
}

/* Binds all pasts before position AT of text 0, and zeros for those before `gone` of windows. */
static void
bind_pasts(host *h, int at, int64_t gone)
{
    static float cache[4][G * MOST * D];

    for (int k = 0; k < forge_model_states(h->m); k++) {
        const fg_statedef *d = &h->m->program->state[k];
        bool heads_first = d->axis == 2;
        int n = past_rows(h, k, at);
        int64_t dims[] = {1, heads_first ? G : n, heads_first ? n : G, D};
        for (int row = 0; row < n; row++)
            for (int g = 0; g < G; g++)
                for (int e = 0; e < D; e++) {
                    int t = at - n + row;
                    bool none = fg_is_window(d) && t < gone;
                    cache[k][(heads_first ? g * n + row : row * G + g) * D + e] =
                        none ? 0 : element(0, 1 + k % 2, t, g, e);
                }
        forge_bind_input(h->r, forge_model_state(h->m, k, NULL), FORGE_F32, 4, dims,
                         cache[k]);
    }
}

/* A host that keeps the caches itself gets the same bits; what a state still has of a window are
 * its last rows, or those that the model cuts it to. */
static void
without_state(host *h)
{
    enum { AT = 50, CACHE = G * (AT + 1) * D };
    static float now[H * D], rows[CACHE];
    const int64_t *dims, *given;
    const char *present;
    forge_state *s = attach_new(h, 10);
    int axis = s->p->state[0].axis;
    bool is_cut = fg_is_cut(s->p, &s->p->state[0]);

    for (int t = 0; t <= AT; t++)
        run(h, 0, t, t + 1, "state");
    memcpy(now, forge_output(h->r, "near", NULL, NULL, NULL), sizeof now);
    forge_run_attach(h->r, NULL);
    bind_pasts(h, AT, 0);
    run(h, 0, AT, AT + 1, "pasts that are bound");
    expect(!memcmp(now, forge_output(h->r, "near", NULL, NULL, NULL), sizeof now),
           "pasts that are bound", "other bits than with a state");
    forge_model_state(h->m, 0, &present);
    const float *whole = forge_output(h->r, present, NULL, NULL, &given);
    if (expect(!forge_state_read(s, present, &dims, rows, sizeof rows), "read",
               forge_message(h->cx))) {
        int64_t n = dims[axis], first = AT + 1 - n;
        expect(is_cut ? n == LEFT : n >= LEFT + 1 && n <= LEFT + SPARE + 1, "read",
               "another number of rows");
        expect(rows[0] == element(0, 1, (int)first, 0, 0) &&
                   rows[(axis == 2 ? n - 1 : (n - 1) * G) * D] == element(0, 1, AT, 0, 0),
               "read", "other rows");
        expect(given[axis] == (is_cut ? LEFT : AT + 1), "present", "of another size");
        expect(!is_cut || !memcmp(whole, rows, sizeof *rows * LEFT * G * D), "present",
               "other rows");
    }
    forge_state_free(s);
}

/* A host that binds presents gets them there: also what is cut, in the memory of the past. */
static void
bound_presents(host *h)
{
    enum { AT = 20 };
    static float now[G * MOST * D];
    const char *present;
    int rows = past_rows(h, 0, AT + 1);

    forge_model_state(h->m, 0, &present);
    bind_pasts(h, AT, 0);
    forge_bind_output(h->r, present, now, sizeof now);
    run(h, 0, AT, AT + 1, "a present that is bound");
    expect(now[0] == element(0, 1, AT + 1 - rows, 0, 0), "a present that is bound",
           "other rows");
    forge_bind_output(h->r, present, now, sizeof now[0]);
    expect(feed(h, 0, AT, AT + 1) == FORGE_USAGE, "a present that is too small",
           "accepted");
    forge_bind_output(h->r, present, NULL, 0);
}

/* A record of a run with a state has whole pasts and presents, zeros for what is gone, and the
 * same kernels do the same when they are bound. */
static void
recorded(host *h)
{
    enum { AT = 50, ROOM = 1 << 20 };
    static char one[ROOM], two[ROOM];
    char path[2][60];
    forge_state *s = attach_new(h, 10);
    size_t n[2];

    for (int k = 0; k < 2; k++)
        snprintf(path[k], sizeof path[k], "/tmp/forge-window-%ld-%d.record",
                 (long)getpid(), k);
    for (int t = 0; t < AT; t++)
        run(h, 0, t, t + 1, "before a record");
    bind_pasts(h, AT, s->buf[0].gone);
    forge_run_record(h->r, path[0]);
    run(h, 0, AT, AT + 1, "recorded");
    forge_run_attach(h->r, NULL);
    forge_run_record(h->r, path[1]);
    run(h, 0, AT, AT + 1, "recorded");
    for (int k = 0; k < 2; k++) {
        FILE *f = fopen(path[k], "rb");
        n[k] = f ? fread(k ? two : one, 1, ROOM, f) : 0;
        if (f)
            fclose(f);
        unlink(path[k]);
    }
    expect(n[0] > 1000 && n[0] == n[1] && !memcmp(one, two, n[0]), "records",
           "differ with and without a state");
    forge_state_free(s);
}

/* A text with every # replaced. */
static const char *
put_size(const char *from, char size, char *to)
{
    size_t n = strlen(from);

    for (size_t k = 0; k <= n; k++)
        to[k] = from[k] == '#' ? size : from[k];
    return to;
}

int
main(void)
{
    static char grows[sizeof cut], full[sizeof cut];
    const struct {
        const char *name, *text;
    } all[] = {{"heads first", text},
               {"positions first", transposed},
               {"cut", put_size(cut, 'P', grows)},
               {"cut, always full", put_size(cut, '7', full)},
               {"cut, positions first", cut_transposed}};

    for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
        static host h;
        subject = all[k].name;
        if (open_model(&h, all[k].text)) {
            step_by_step(&h);
            steady(&h);
            long_prompt(&h);
            in_chunks(&h);
            back(&h);
            forks(&h);
            hidden(&h);
            without_state(&h);
            bound_presents(&h);
            recorded(&h);
        }
        close_model(&h);
    }
    return verdict();
}
