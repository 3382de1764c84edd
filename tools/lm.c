/* lm.c - feeding a language model.
 *
 *     prefill  input_ids [1,P]  past [1,H,0,D]   -> logits [1,P,V]
 *     step i   input_ids [1,1]  past [1,H,P+i,D] -> logits [1,1,V]
 *
 * The cache is a state of the run: nothing is copied from step to step. Several sequences
 * are rows of a batch. They begin as copies of one, or with prompts of their own that are
 * filled up behind to one length; then the mask hides what fills, and positions go on
 * where each prompt ended:
 *
 *     tokens     a b c | d e      mask  1 1 1 1 1     position  0 1 2 3 4
 *                f . . | g h            1 0 0 1 1               0 1 2 1 2
 */
#include <stdio.h>
#include <stdlib.h>

#include "runtime/rt.h"
#include "tools/lm.h"

#define ROOM 256  /* positions of the cache at first */
#define CHUNK 256 /* tokens of a prefill at a time: bounds the logits' memory */

enum { OTHER, IDS, MASK, POSITION, SEQLENS, TOTAL, TYPES, CACHED, STATE };

static bool
fail(lm *x)
{
    return fg_error(x->cx, "%s", forge_message(x->fcx));
}

/* ---- the contract --------------------------------------------------------------------- */

static const struct {
    const char *part;
    uint8_t role;
} names[] = {{"attention_mask", MASK},
             {"position", POSITION},
             {"token_type", TYPES},
             {"seqlens_k", SEQLENS},
             {"total_sequence_length", TOTAL},
             {"use_cache_branch", CACHED},
             {"input_ids", IDS},
             {"token", IDS}};

static uint8_t
role_of(const char *name)
{
    for (size_t k = 0; k < sizeof names / sizeof *names; k++)
        if (strstr(name, names[k].part))
            return names[k].role;
    return OTHER;
}

static bool
of_state(const lm *x, const char *name)
{
    const char *output;

    for (int k = 0; k < forge_model_states(x->m); k++) {
        const char *input = forge_model_state(x->m, k, &output);
        if (!strcmp(name, input) || (output && !strcmp(name, output)))
            return true;
    }
    return false;
}

static bool
find_logits(lm *x)
{
    for (int k = 0; k < forge_model_outputs(x->m); k++) {
        forge_dtype t;
        int rank;
        const char *name = forge_model_output(x->m, k, &t, &rank);
        bool number = t == FORGE_F32 || t == FORGE_F16 || t == FORGE_BF16;
        if (number && rank >= 2 && (strstr(name, "logits") || x->logits < 0) &&
            !of_state(x, name))
            x->logits = k;
    }
    return x->logits >= 0 || fg_error(x->cx, "no language model: no output of logits");
}

static bool
find_inputs(lm *x)
{
    int ids = -1;

    for (int i = 0; i < forge_model_inputs(x->m); i++) {
        forge_dtype t;
        int rank;
        const char *name = forge_model_input(x->m, i, &t, &rank);
        x->role[i] = of_state(x, name) ? STATE : role_of(name);
        if (x->role[i] == IDS) {
            if (ids >= 0 || rank < 1 || (t != FORGE_I64 && t != FORGE_I32))
                return fg_error(x->cx,
                                "no language model: input \"%s\" is not a "
                                "sequence of token numbers",
                                name);
            ids = i;
            x->batches = rank > 1 && forge_model_input_dim(x->m, i, 0, NULL) < 0;
            x->fixed = forge_model_input_dim(x->m, i, rank - 1, NULL);
        }
    }
    return ids >= 0 || fg_error(x->cx, "no language model: no input of token numbers");
}

bool
lm_begin(lm *x, fg_ctx *cx, fg_arena *a, forge_ctx *fcx, const forge_model *m,
         forge_run *r)
{
    int nin = forge_model_inputs(m);

    *x = (lm){.cx = cx, .a = a, .fcx = fcx, .m = m, .r = r, .logits = -1, .batch = 1};
    x->role = FG_NEWN(a, uint8_t, (size_t)nin + 1);
    x->fed = FG_NEWN(a, void *, (size_t)nin + 1);
    x->fedcap = FG_NEWN(a, size_t, (size_t)nin + 1);
    if (!find_inputs(x) || !find_logits(x))
        return false;
    x->fixed = x->fixed > 0 ? x->fixed : 0;
    for (int i = 0; i < nin; i++)
        if (x->role[i] == OTHER && !m->program->input[i].dflt)
            return fg_error(cx, "no text-only decoder: input \"%s\" is not known",
                            forge_model_input(m, i, NULL, NULL));
    return lm_reset(x);
}

/* ---- sequences ------------------------------------------------------------------------ */

static bool
use_state(lm *x, forge_state *s)
{
    if (forge_run_attach(x->r, s)) {
        forge_state_free(s);
        return fail(x);
    }
    forge_state_free(x->state);
    x->state = s;
    return true;
}

static bool
begin_batch(lm *x, int64_t batch)
{
    forge_state *s = NULL;

    if (forge_model_states(x->m) && forge_state_new(x->fcx, x->m, batch, ROOM, 0, &s))
        return fail(x);
    x->n = 0;
    x->past = x->rows = 0;
    x->batch = batch;
    x->own = NULL;
    x->first = NULL;
    return use_state(x, s);
}

bool
lm_reset(lm *x)
{
    return begin_batch(x, 1);
}

bool
lm_repeat(lm *x, int64_t batch)
{
    forge_state *s = NULL;
    int32_t *ids = FG_NEWN(x->a, int32_t, x->n *(size_t)batch + 1);

    if (x->state && forge_state_repeat(x->state, batch, &s))
        return fail(x);
    for (size_t k = 0; k < x->n * (size_t)batch; k++)
        ids[k] = x->ids[k / (size_t)batch];
    x->ids = ids;
    x->cap = x->n * (size_t)batch;
    x->batch = batch;
    return use_state(x, s);
}

bool
lm_cut(lm *x, size_t n)
{
    bool held = x->state && (int64_t)n < forge_state_length(x->state);

    if (held && forge_state_truncate(x->state, (int64_t)n))
        return fail(x);
    x->past = x->state ? (int64_t)n : 0;
    x->n = n;
    x->rows = 0;
    return true;
}

/* ---- feeding -------------------------------------------------------------------------- */

static void *
room(void **p, size_t *cap, size_t bytes)
{
    if (bytes > *cap) {
        free(*p);
        *cap = bytes * 2;
        *p = malloc(*cap);
        *cap = *p ? *cap : 0;
    }
    return *p;
}

/* Token k of sequence s: whether it is one, and its place among those that are. */
static bool
counts(const lm *x, int64_t s, int64_t k)
{
    return !x->own || k < (int64_t)x->own[s] || k >= (int64_t)x->most;
}

static int64_t
position(const lm *x, int64_t s, int64_t k)
{
    return x->own && k >= (int64_t)x->most ? k - (int64_t)x->most + (int64_t)x->own[s]
                                           : k;
}

/* Column k of sequence s. */
static int64_t
value_of(const lm *x, uint8_t role, int64_t s, int64_t k, int64_t n, int64_t real)
{
    switch (role) {
    case IDS:
        return k < real ? x->ids[((int64_t)x->n - real + k) * x->batch + s] : 0;
    case MASK:
        return k < x->past + real && counts(x, s, k);
    case POSITION:
        return position(x, s, x->past + k);
    case SEQLENS:
        return x->past + n - 1;
    case TOTAL:
        return x->past + n;
    case CACHED:
        return x->past > 0;
    default:
        return 0;
    }
}

/* An input that is no state, for `n` tokens of which `real` are tokens and the rest fills
 * a fixed length up. */
static bool
feed(lm *x, int i, int64_t n, int64_t real)
{
    uint8_t role = x->role[i];
    bool row = role == IDS || role == MASK || role == POSITION || role == TYPES;
    int64_t dims[FG_MAXRANK], last = role == MASK ? x->past + n : n;
    forge_dtype dtype;
    int rank;
    const char *name = forge_model_input(x->m, i, &dtype, &rank);
    fg_tensor t = {.dtype = (fg_dtype)dtype, .rank = rank, .count = 1};

    for (int k = 0; k < rank; k++) {
        dims[k] = forge_model_input_dim(x->m, i, k, NULL);
        dims[k] = row && k == rank - 1 ? last : dims[k] > 0 ? dims[k] : k ? 1 : x->batch;
        if (__builtin_mul_overflow(t.count, dims[k], &t.count) || t.count > 1 << 30)
            return fg_error(x->cx, "input \"%s\" is too large", name);
    }
    t.data = room(&x->fed[i], &x->fedcap[i], (size_t)t.count * 8 + 8);
    if (!t.data)
        fg_raise_memory(x->cx);
    int64_t width = row && last ? last : 1;
    for (int64_t k = 0; k < t.count; k++)
        fg_tensor_set_i64(&t, k,
                          value_of(x, role, k / width % x->batch, k % width, n, real));
    return forge_bind_input(x->r, name, dtype, rank, dims, t.data) ? fail(x) : true;
}

/* ---- steps -------------------------------------------------------------------------- */

/* A row for each of n tokens, of which what is behind `real` fills up, or for the last
 * only. */
static bool
take_rows(lm *x, int64_t n, int64_t real)
{
    fg_tensor *t = &x->out;

    if (!tool_output(x->r, x->m, x->logits, t) || t->rank < 2 || !t->count)
        return fg_error(x->cx, "the model gave no logits");
    int64_t vocab = t->dim[t->rank - 1], rows = t->count / vocab;
    if (vocab > 1 << 24)
        return fg_error(x->cx, "no language model: rows of %lld logits",
                        (long long)vocab);
    if (rows % x->batch)
        return fg_error(x->cx, "%lld rows of logits for %lld sequences", (long long)rows,
                        (long long)x->batch);
    if (!x->row || vocab != x->vocab)
        x->row = FG_NEWN(x->a, float, (size_t)vocab + 1);
    x->vocab = (int32_t)vocab;
    rows /= x->batch;
    x->read = x->batch;
    x->rows = rows == n ? real : 1;
    x->last = rows == n ? real - 1 : rows - 1;
    return true;
}

const float *
lm_row(lm *x, int64_t s, size_t back)
{
    if (x->first)
        return x->first + s * x->vocab;
    int64_t each = x->out.count / x->vocab / x->read;
    int64_t at = ((s < x->read ? s : 0) * each + x->last - (int64_t)back) * x->vocab;

    if (x->out.dtype == FG_f32)
        return (const float *)x->out.data + at;
    for (int64_t k = 0; k < x->vocab; k++)
        x->row[k] = (float)fg_tensor_f64(&x->out, at + k);
    return x->row;
}

/* Runs the last `real` of the tokens. */
static bool
step(lm *x, int64_t real)
{
    int64_t n = x->fixed ? x->fixed : real;

    if (real > n)
        return fg_error(x->cx, "the model reads %lld tokens at most", (long long)n);
    for (int i = 0; i < forge_model_inputs(x->m); i++)
        if (x->role[i] != STATE && x->role[i] != OTHER && !feed(x, i, n, real))
            return false;
    if (forge_execute(x->r))
        return fail(x);
    if (!take_rows(x, n, real))
        return false;
    x->bytes += tool_run_bytes(x->r);
    x->past += x->state ? real : 0;
    return true;
}

/* After a step over `real` tokens: logits of the prompts that end there. */
static bool
keep_first(lm *x, int64_t real)
{
    if (x->rows < real)
        return fg_error(x->cx, "prompts of several lengths cannot be read together: the "
                               "model gives logits of the last token only");
    float *first = x->first;
    if (!first)
        first = FG_NEWN(x->a, float, (size_t)(x->batch * x->vocab));
    x->first = NULL;
    for (int64_t s = 0; s < x->batch; s++) {
        int64_t back = (int64_t)(x->n - x->own[s]);
        if (back >= 0 && back < real)
            memcpy(first + s * x->vocab, lm_row(x, s, (size_t)back),
                   (size_t)x->vocab * sizeof *first);
    }
    x->first = first;
    return true;
}

bool
lm_read(lm *x, const int32_t *ids, size_t n)
{
    size_t most = !x->state ? SIZE_MAX : x->fixed ? (size_t)x->fixed : CHUNK;

    for (size_t done = 0, part; done < n; done += part) {
        part = n - done < most ? n - done : most;
        if (x->state && x->fixed && part != most)
            return fg_error(x->cx, "the model reads %lld tokens at a time",
                            (long long)x->fixed);
        size_t have = x->n * (size_t)x->batch, more = part * (size_t)x->batch;
        for (size_t k = 0; k < more; k++)
            FG_PUSH(x->a, x->ids, have, x->cap) = ids[done * (size_t)x->batch + k];
        x->n += part;
        if (!step(x, (int64_t)(x->state ? part : x->n)))
            return false;
        if (x->own && x->n <= x->most && !keep_first(x, (int64_t)part))
            return false;
        if (x->n > x->most)
            x->first = NULL;
    }
    return true;
}

bool
lm_mixes(const lm *x)
{
    bool mask = false, positions = false;

    for (int i = 0; i < forge_model_inputs(x->m); i++) {
        mask = mask || x->role[i] == MASK;
        positions = positions || x->role[i] == POSITION;
    }
    for (uint32_t k = 0; k < x->m->program->nstate; k++) {
        const fg_statedef *d = &x->m->program->state[k];
        if (d->axis < 0 || d->at != FG_NONE)
            return false;
    }
    return x->state && x->batches && !x->fixed && mask && positions;
}

bool
lm_read_prompts(lm *x, const fg_ids *prompt, size_t n)
{
    size_t most = 0;

    for (size_t s = 0; s < n; s++)
        most = prompt[s].n > most ? prompt[s].n : most;
    int32_t *ids = FG_NEWN(x->a, int32_t, most *n + 1);
    for (size_t k = 0; k < most * n; k++)
        ids[k] = k / n < prompt[k % n].n ? prompt[k % n].v[k / n] : 0;
    if (!begin_batch(x, (int64_t)n))
        return false;
    x->own = FG_NEWN(x->a, size_t, n);
    x->most = most;
    for (size_t s = 0; s < n; s++)
        x->own[s] = prompt[s].n;
    return lm_read(x, ids, most);
}

size_t
lm_length(const lm *x, int64_t s)
{
    return (size_t)position(x, s, (int64_t)x->n);
}

void
lm_end(lm *x)
{
    for (int i = 0; x->fed && i < forge_model_inputs(x->m); i++)
        free(x->fed[i]);
    forge_state_free(x->state);
}
