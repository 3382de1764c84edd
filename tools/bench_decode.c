/* bench_decode.c - one token at a time on a model with a KV cache: presents become pasts.
 *
 *     prefill  input_ids [1,P]  past [1,H,0,D]   -> logits, present [1,H,P,D]
 *     step i   input_ids [1,1]  past [1,H,P+i,D] -> logits, present [1,H,P+i+1,D]
 *
 * The outputs of a step are the inputs of the next, so they alternate between two sets
 * of buffers with room for all steps. What an input is for is told by its name, as
 * exporters spell it.
 */
#include <stdio.h>
#include <stdlib.h>

#include "runtime/rt.h"
#include "tools/bench.h"

#define STEPS 32 /* tokens before the cache is reset to the prefill */

typedef enum {
    ROLE_OTHER,
    ROLE_IDS,
    ROLE_MASK,
    ROLE_POSITION,
    ROLE_SEQLENS,
    ROLE_TOTAL,
    ROLE_STATE
} role;

typedef struct state { /* one past input and the present output that feeds it */
    int input, output;
    int64_t dim[FG_MAXRANK], base_dim[FG_MAXRANK];
    void *base, *buf[2];
    size_t cap;
} state;

struct bench_decode {
    role *roles; /* by input */
    state *states;
    int nstate, step, logits;
    int64_t ids[STEPS];
};

/* ---- names ---------------------------------------------------------------------------- */

static const struct {
    const char *part;
    role r;
} names[] = {{"attention_mask", ROLE_MASK}, {"position", ROLE_POSITION},
             {"seqlens_k", ROLE_SEQLENS},   {"total_sequence_length", ROLE_TOTAL},
             {"input_ids", ROLE_IDS},       {"token", ROLE_IDS}};

static role
role_of(const char *name)
{
    for (size_t k = 0; k < sizeof names / sizeof *names; k++)
        if (strstr(name, names[k].part))
            return names[k].r;
    return ROLE_OTHER;
}

/* "present.3.key", "present_key_values.3.key" and "past_key_values.3.key" alike leave
 * "3key": what is left without the word present or past and what goes with it, letters
 * and digits only. */
static void
stem(const char *name, char *out, size_t n)
{
    static const char *const drop[] = {"present", "past", "key_values", "state"};
    size_t k = 0;

    while (*name && k + 1 < n) {
        size_t skip = 0;
        for (size_t d = 0; d < sizeof drop / sizeof *drop; d++)
            if (!strncmp(name, drop[d], strlen(drop[d])))
                skip = strlen(drop[d]);
        if (!skip && ((*name >= '0' && *name <= '9') || (*name >= 'a' && *name <= 'z')))
            out[k++] = *name;
        name += skip ? skip : 1;
    }
    out[k] = '\0';
}

static int
input_for(const bench *b, const char *output)
{
    char want[200], have[200];

    stem(output, want, sizeof want);
    for (int i = 0; i < forge_model_inputs(b->m); i++) {
        const char *name = forge_model_input(b->m, i, NULL, NULL);
        stem(name, have, sizeof have);
        if (strstr(name, "past") && !strcmp(want, have))
            return i;
    }
    return -1;
}

/* By name; when names do not say, the k-th present feeds the k-th past. */
static bool
find_states(bench *b, bench_decode *d)
{
    int nin = forge_model_inputs(b->m), nout = forge_model_outputs(b->m), next = 0;
    bool by_name = true;

    d->states = FG_NEWN(b->a, state, (size_t)nout + 1);
    d->roles = FG_NEWN(b->a, role, (size_t)nin + 1);
    d->logits = -1;
    for (int i = 0; i < nin; i++)
        d->roles[i] = role_of(forge_model_input(b->m, i, NULL, NULL));
    for (int k = 0; k < nout; k++) {
        const char *name = forge_model_output(b->m, k, NULL, NULL);
        if (!strstr(name, "present")) {
            d->logits = d->logits < 0 ? k : d->logits;
            continue;
        }
        state *s = &d->states[d->nstate++];
        s->output = k;
        s->input = input_for(b, name);
        by_name = by_name && s->input >= 0;
    }
    for (int k = 0; k < d->nstate && !by_name; k++) {
        while (next < nin && !strstr(forge_model_input(b->m, next, NULL, NULL), "past"))
            next++;
        if (next == nin)
            return bench_fail(b, "output \"%s\" has no input that it feeds",
                              forge_model_output(b->m, d->states[k].output, NULL, NULL));
        d->states[k].input = next++;
    }
    for (int k = 0; k < d->nstate; k++)
        d->roles[d->states[k].input] = ROLE_STATE;
    if (!d->nstate || d->logits < 0)
        return bench_fail(
            b, "not a model with a KV cache: no present outputs and past inputs");
    return true;
}

/* ---- feeding
 * ---------------------------------------------------------------------------- */

static bool
bind(bench *b, int i, const fg_tensor *t)
{
    if (forge_bind_input(b->r, forge_model_input(b->m, i, NULL, NULL),
                         (forge_dtype)t->dtype, t->rank, t->dim, t->data))
        return bench_fail(b, "%s", forge_message(b->fcx));
    return true;
}

/* Inputs that are not states, for `n` tokens after `past`; their ids, or NULL for
 * random ones. */
static bool
feed(bench *b, int64_t past, int64_t n, const int64_t *ids)
{
    bench_decode *d = b->decode;

    for (int i = 0; i < forge_model_inputs(b->m); i++) {
        role what = d->roles[i];
        forge_dtype dtype;
        fg_tensor t;
        int rank;
        int64_t dims[FG_MAXRANK], length = what == ROLE_MASK ? past + n : n;
        const char *name = forge_model_input(b->m, i, &dtype, &rank);
        if (what == ROLE_STATE || (what == ROLE_OTHER && b->m->program->input[i].dflt))
            continue;
        if (!tool_input_shape(b->m, i, 0, dims))
            return bench_fail(b, "out of memory");
        if (what == ROLE_IDS || what == ROLE_MASK || what == ROLE_POSITION)
            for (int k = 0; k < rank; k++)
                dims[k] = k == rank - 1 ? length : 1;
        if (!fg_tensor_new(b->a, &t, (fg_dtype)dtype, rank, dims))
            return bench_fail(b, "%s", fg_first_error(b->cx));
        tool_random_fill(name, &t, 0);
        for (int64_t k = 0;
             k < t.count && (what != ROLE_IDS || ids) && what != ROLE_OTHER; k++)
            fg_tensor_set_i64(&t, k,
                              what == ROLE_IDS       ? ids[k]
                              : what == ROLE_MASK    ? 1
                              : what == ROLE_SEQLENS ? past + n - 1
                              : what == ROLE_TOTAL   ? past + n
                                                     : past + k);
        if (!bind(b, i, &t))
            return false;
    }
    return true;
}

/* The cache before the first token: dims that are not fixed have length 0. */
static bool
feed_empty(bench *b)
{
    bench_decode *d = b->decode;

    for (int k = 0; k < d->nstate; k++) {
        state *s = &d->states[k];
        forge_dtype dtype;
        fg_tensor t;
        int rank;
        int64_t dims[FG_MAXRANK];
        forge_model_input(b->m, s->input, &dtype, &rank);
        for (int x = 0; x < rank; x++) {
            dims[x] = forge_model_input_dim(b->m, s->input, x, NULL);
            dims[x] = dims[x] >= 0 ? dims[x] : x == 0 ? 1 : 0;
        }
        if (!fg_tensor_new(b->a, &t, (fg_dtype)dtype, rank, dims) ||
            !bind(b, s->input, &t))
            return bench_fail(b, "%s", fg_first_error(b->cx));
    }
    return true;
}

/* Inputs given on the command line replace the made ones; decode_ids are the tokens of
 * the steps. */
static bool
feed_given(bench *b)
{
    for (int k = 0; k < b->in.given.n; k++) {
        const char *text = b->in.given.v[k];
        size_t n = strcspn(text, "=");
        fg_tensor t;
        if (!text[n] || !tool_read_value(b->cx, b->a, text + n + 1, &t))
            return bench_fail(b, "%s",
                              *fg_first_error(b->cx) ? fg_first_error(b->cx)
                                                     : "--input: expected NAME=VALUE");
        if (n == 10 && !strncmp(text, "decode_ids", n)) {
            for (int64_t i = 0; i < STEPS && i < t.count; i++)
                b->decode->ids[i] = fg_tensor_i64(&t, i);
            continue;
        }
        int i = 0;
        while (i < forge_model_inputs(b->m) &&
               strcmp(forge_model_input(b->m, i, NULL, NULL),
                      fg_format(b->a, "%.*s", (int)n, text)))
            i++;
        if (i == forge_model_inputs(b->m))
            return bench_fail(b, "the model has no input \"%.*s\"", (int)n, text);
        if (!bind(b, i, &t))
            return false;
    }
    return true;
}

/* Copies what the prefill left, and makes room for the steps: the axis that grew grows
 * on. */
static bool
keep_state(bench *b, state *s)
{
    fg_tensor t;
    int64_t empty, bytes;

    if (!tool_output(b->r, b->m, s->output, &t))
        return bench_fail(b, "no output");
    bytes = tool_bytes(&t);
    s->cap = (size_t)bytes;
    for (int x = 0; x < t.rank; x++) {
        s->base_dim[x] = s->dim[x] = t.dim[x];
        empty = b->r->in[s->input].dim[x];
        if (empty != t.dim[x] && t.dim[x])
            s->cap = (size_t)(bytes / t.dim[x] * (t.dim[x] + STEPS));
    }
    s->base = fg_dup(b->a, t.data, (size_t)bytes);
    s->buf[0] = fg_alloc(b->a, s->cap + 1);
    s->buf[1] = fg_alloc(b->a, s->cap + 1);
    return true;
}

bool
bench_decode_begin(bench *b)
{
    bench_decode *d = b->decode = FG_NEW(b->a, bench_decode);

    for (int i = 0; i < STEPS; i++)
        d->ids[i] = 5 + i * 37 % 90;
    if (!find_states(b, d) || !feed(b, 0, b->past, NULL) || !feed_empty(b) ||
        !feed_given(b))
        return false;
    if (forge_execute(b->r))
        return bench_fail(b, "%s", forge_message(b->fcx));
    for (int k = 0; k < d->nstate; k++)
        if (!keep_state(b, &d->states[k]))
            return false;
    d->step = STEPS;
    return true;
}

bool
bench_decode_bind(bench *b)
{
    bench_decode *d = b->decode;

    if (d->step >= STEPS) {
        d->step = 0;
        for (int k = 0; k < d->nstate; k++)
            memcpy(d->states[k].dim, d->states[k].base_dim, sizeof d->states[k].dim);
    }
    if (!feed(b, b->past + d->step, 1, &d->ids[d->step]))
        return false;
    for (int k = 0; k < d->nstate; k++) {
        state *s = &d->states[k];
        forge_dtype dtype;
        int rank;
        const char *name = forge_model_input(b->m, s->input, &dtype, &rank);
        if (forge_bind_input(b->r, name, dtype, rank, s->dim,
                             d->step ? s->buf[(d->step - 1) & 1] : s->base) ||
            forge_bind_output(b->r, forge_model_output(b->m, s->output, NULL, NULL),
                              s->buf[d->step & 1], s->cap))
            return bench_fail(b, "%s", forge_message(b->fcx));
    }
    return true;
}

bool
bench_decode_next(bench *b)
{
    bench_decode *d = b->decode;

    for (int k = 0; k < d->nstate; k++) {
        fg_tensor t;
        if (!tool_output(b->r, b->m, d->states[k].output, &t))
            return bench_fail(b, "no output");
        memcpy(d->states[k].dim, t.dim, sizeof t.dim);
    }
    d->step++;
    return true;
}

bool
bench_write_out(bench *b, int output, bool last_row)
{
    fg_tensor t, f;
    int64_t dims[FG_MAXRANK], count = 1, first;
    int rank = 0;

    if (!tool_output(b->r, b->m, output, &t) || !t.rank)
        return bench_fail(b, "no output to write");
    for (int x = last_row ? t.rank - 1 : t.rank > 1; x < t.rank; x++) {
        dims[rank++] = t.dim[x];
        count *= t.dim[x];
    }
    first = last_row ? t.count - count : 0;
    if (t.dtype == FG_f32 && count <= t.count) {
        f = t;
        f.rank = rank;
        memcpy(f.dim, dims, sizeof dims);
        f.count = count;
        f.data = (float *)t.data + first;
    } else {
        if (!fg_tensor_new(b->a, &f, FG_f32, rank, dims))
            return bench_fail(b, "%s", fg_first_error(b->cx));
        for (int64_t i = 0; i < count && first + i < t.count; i++)
            fg_tensor_set_f64(&f, i, fg_tensor_f64(&t, first + i));
    }
    if (tool_npy_write(b->out, &f))
        b->code = TOOL_FAILED;
    return b->code == TOOL_OK;
}
