/* forge_test.c - runs text tests.
 *
 *     ; RUN: --pass=dce
 *     ; The softmax has no reader.
 *     func @main(%x: f32[4,8]) -> f32[4,8] {
 *       %dead = softmax %x {axis=1} : f32[4,8]
 *       ret %x
 *     }
 *     ; EXPECT
 *     ; func @main(%x: f32[4,8]) -> f32[4,8] {
 *     ;   ret %x
 *     ; }
 *
 * A line of dashes (----) separates the cases of a file. What a case does (RUN):
 *
 *     --parse         read and print; without EXPECT, what is printed must be the case itself
 *     --verify        and the module must be valid
 *     --pass=a,b      and these passes run, at check level 2; -O=N runs the pipeline of a level
 *     --placed        and nothing in it is overwritten too early
 *     --eval          and @main is evaluated on the literals of `; IN:` lines, which must give those
 *                     of `; OUT:` lines, exactly or within `~ tolerance` at the end of the line
 *     --every-op      and at the end, every operation has occurred in some case
 *     --every-spelling   likewise every row of spellings.def: taken, and refused where it can be
 *
 * Passes must not change what @main computes: it is evaluated before and after on made-up
 * inputs (integers below 4, or --ints=N; floats may differ by --tolerance=T), unless RUN says
 * --no-eval. With the option --run of the command, whatever is evaluated also runs as
 * machine code of levels 0 and 1.
 *
 * What the output must hold: a whole text (EXPECT, rewritten by --bless), or `; CHECK: text`
 * lines in order and `; CHECK-NOT: text`; `; MISS: text` in some reason why something was not
 * fused. `; ERROR: text` at the end of a line: the first complaint is about that line and
 * contains the text.
 */
#include "codegen/compile.h"
#include "ir/eval.h"
#include "passes/place.h"
#include "runtime/rt.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

static int passed, failed;
static bool bless, run_code, every_op, seen[FG_NOPS];
static bool every_spelling;
static fg_spelled spelled[FG_NSPELLINGS]; /* in all cases */

typedef struct run {
    fg_ctx *cx;
    fg_arena *a;
    const char *file, *dir; /* dir: the file's folder, NULL: the current one */
    int line;               /* of the case in the file, 0-based */
    const char *text;       /* the case, preceded by its line number of line ends */
    char *output;           /* what was printed; NULL when it failed before */
    const char *why;        /* first failure of the test itself */
    fg_report report;
} run;

__attribute__((format(printf, 2, 3))) static bool
fail(run *r, const char *fmt, ...)
{
    fg_text t = fg_text_new(r->a);
    va_list ap;
    va_start(ap, fmt);
    fg_vputf(&t, fmt, ap);
    va_end(ap);
    if (!r->why)
        r->why = t.s;
    return false;
}

/* ---- directives --------------------------------------------------------------------- */

/* The next comment `; WORD..`, from *at; what follows WORD up to the line's end. */
static char *
directive(run *r, const char **at, const char *word)
{
    size_t n = strlen(word);
    for (const char *s = *at; (s = strchr(s, ';')); s++) {
        const char *w = s + 1 + strspn(s + 1, " ");
        if (strncmp(w, word, n))
            continue;
        *at = w + strcspn(w, "\n");
        w += n + strspn(w + n, " ");
        char *v = fg_dup(r->a, w, (size_t)(*at - w) + 1);
        v[*at - w] = 0;
        for (size_t k = strlen(v); k && v[k - 1] == ' '; k--)
            v[k - 1] = 0;
        return v;
    }
    return NULL;
}

/* The value of option `--name` or `--name=value` in the RUN line; NULL when not there. */
static const char *
option(run *r, const char *name)
{
    const char *at = r->text, *words = directive(r, &at, "RUN:");
    size_t n = strlen(name);
    for (const char *w = words; w && *w; w += strspn(w, " ")) {
        size_t len = strcspn(w, " ");
        if (len >= n && !strncmp(w, name, n) && (len == n || w[n] == '=')) {
            const char *v = w + n + (len > n);
            char *copy = fg_dup(r->a, v, (size_t)(w + len - v) + 1);
            copy[w + len - v] = 0;
            return copy;
        }
        w += len;
    }
    return NULL;
}

/* The EXPECT block: its lines without their `; `. */
static const char *
expected(run *r, const char **begin)
{
    const char *s = r->text;
    fg_text t = fg_text_new(r->a);
    while (s && strncmp(s, "; EXPECT\n", 9))
        s = (s = strchr(s, '\n')) ? s + 1 : NULL;
    *begin = s;
    if (!s)
        return NULL;
    for (s += 9; *s == ';'; s += *s == '\n') {
        s += s[1] == ' ' ? 2 : 1;
        for (; *s && *s != '\n'; s++)
            fg_putc(&t, *s);
        fg_putc(&t, '\n');
    }
    return t.s;
}

/* The case without lines of comment and without blank lines around it. */
static const char *
bare_text(run *r)
{
    fg_text t = fg_text_new(r->a);
    for (const char *s = r->text; *s;) {
        size_t n = strcspn(s, "\n");
        if (*s != ';' && (n || t.n))
            for (size_t k = 0; k <= n && s[k]; k++)
                fg_putc(&t, s[k]);
        s += n + (s[n] == '\n');
    }
    while (t.n > 1 && t.s[t.n - 2] == '\n')
        t.s[--t.n] = 0;
    return t.s;
}

/* ---- evaluation --------------------------------------------------------------------- */

static fg_tensor
tensor_of(const fg_weight *w)
{
    fg_tensor t = {
        .dtype = w->dtype, .rank = w->rank, .count = 1, .data = (void *)w->data};
    for (int k = 0; k < w->rank; k++) {
        t.dim[k] = w->dim[k];
        t.count *= w->dim[k];
    }
    return t;
}

static bool
literals(run *r, const char *word, int n, fg_tensor *out, double *tolerance)
{
    const char *at = r->text, *why;
    for (int k = 0; k < n; k++) {
        const char *s = directive(r, &at, word);
        fg_weight w;
        if (!s)
            return fail(r, "%s lines are missing: %d of %d", word, n - k, n);
        if (!fg_parse_literal(r->a, &s, &w, &why))
            return fail(r, "%s %s at: %s", word, why, s);
        out[k] = tensor_of(&w);
        const char *tilde = strchr(s, '~');
        if (tolerance)
            tolerance[k] = tilde ? strtod(tilde + 1, NULL) : 0;
    }
    return !directive(r, &at, word) || fail(r, "more %s lines than %d", word, n);
}

static bool
same_tensor(run *r, const char *what, const fg_tensor *got, const fg_tensor *want,
            double tol)
{
    if (got->dtype != want->dtype || got->rank != want->rank ||
        memcmp(got->dim, want->dim, sizeof got->dim[0] * (size_t)got->rank))
        return fail(r, "%s has another type", what);
    for (int64_t i = 0; i < got->count; i++) {
        double a = fg_tensor_f64(got, i), b = fg_tensor_f64(want, i);
        bool same =
            fg_is_float(got->dtype)
                ? a == b || (isnan(a) && isnan(b)) || fabs(a - b) <= tol * (1 + fabs(b))
                : fg_tensor_i64(got, i) == fg_tensor_i64(want, i);
        if (!same)
            return fail(r, "%s[%lld] is %.9g, not %.9g", what, (long long)i, a, b);
    }
    return true;
}

/* Binds, executes, fetches. */
static bool
execute(run *r, forge_ctx *cx, const fg_module *m, forge_run *fr, const fg_tensor *in,
        fg_tensor *out)
{
    for (int k = 0; k < m->ninput; k++)
        if (forge_bind_input(fr, m->input[k].name, (forge_dtype)in[k].dtype, in[k].rank,
                             in[k].dim, in[k].data))
            return fail(r, "%s", forge_message(cx));
    if (forge_execute(fr))
        return fail(r, "%s", forge_message(cx));
    for (int k = 0; k < m->noutput; k++) {
        forge_dtype t;
        const int64_t *dim;
        size_t bytes;
        const void *data = forge_output(fr, m->output[k].name, &t, &out[k].rank, &dim);
        out[k].dtype = (fg_dtype)t;
        out[k].count = 1;
        for (int d = 0; d < out[k].rank; d++)
            out[k].count *= out[k].dim[d] = dim[d];
        if (fg_dtype_bytes(out[k].dtype, out[k].count, &bytes))
            out[k].data = fg_dup(r->a, data, bytes);
    }
    return true;
}

/* Of the sizes that a run found, those that code may be made for. */
static const char *
sizes_of(run *r, const fg_module *m, const forge_run *fr)
{
    fg_text o = fg_text_new(r->a);
    for (fg_sym s = 0; s < fg_sym_count(m->ex); s++) {
        const fg_syminfo *i = fg_sym_info(m->ex, s);
        bool room = false; /* of a state, which is not bound */
        for (int k = 0; k < m->nstate && !room; k++)
            room = m->state[k].length != FG_E_BAD &&
                   fg_state_capacity(m, &m->state[k]) == fg_es(m->ex, s);
        if (i->kind == FG_SYM_INPUT && i->is == FG_E_BAD && !room)
            fg_putf(&o, "%s%s=%lld", o.n ? "+" : "", i->name, (long long)fr->sym[s]);
    }
    return o.n ? o.s : NULL;
}

/* The outputs of the case's module as machine code of a level, with code of their own for
 * some sizes; which sizes there were. */
static bool
run_compiled(run *r, int level, const char *variants, const char **sizes,
             const fg_tensor *in, fg_tensor *out)
{
    fg_compiled c = {.cx = r->cx, .a = r->a};
    forge_options o;
    forge_ctx *cx = NULL;
    forge_run *fr = NULL;
    forge_options_init(&o);
    o.opt = level;
    o.check = 2;
    o.variants = variants;
    c.m = fg_parse(r->cx, r->a, r->file, r->text, r->dir);
    o.passes = c.m && c.m->stage != FG_STAGE_TENSOR ? "" : NULL;
    bool ok = c.m && fg_compile_module(&c, &o) && !forge_open(NULL, &cx);
    forge_model model = {.program = c.program};
    bool ready = ok;
    if (ready)
        fg_model_init(&model, cx);
    if (ok && forge_run_new(cx, &model, &fr))
        ok = fail(r, "%s", forge_message(cx));
    ok = ok && execute(r, cx, c.m, fr, in, out);
    if (ok)
        *sizes = sizes_of(r, c.m, fr);
    forge_run_free(fr);
    if (ready)
        fg_model_done(&model);
    forge_close(cx);
    fg_cpu_free(c.code);
    return ok;
}

static bool
same_outputs(run *r, const fg_module *m, const char *when, const fg_tensor *got,
             const fg_tensor *want, const double *tol)
{
    for (int k = 0; k < m->noutput; k++)
        if (!same_tensor(r, fg_format(r->a, "%s%s", when, m->output[k].name), &got[k],
                         &want[k], tol[k]))
            return false;
    return true;
}

/* With --run, machine code must give the same, but for its own order of operations. */
static bool
check_code(run *r, const fg_module *m, const fg_tensor *in, const fg_tensor *want,
           double *tol)
{
    fg_tensor *got = FG_NEWN(r->a, fg_tensor, (size_t)m->noutput);
    for (int k = 0; k < m->noutput; k++) {
        double least = fg_dtypes[want[k].dtype].bits == 16 ? 4e-3 : 1e-5;
        tol[k] = tol[k] < least ? least : tol[k];
    }
    static const char *const how[] = {"-O0: ", "-O1: ", "-O1, of these sizes: "};
    const char *sizes = NULL;
    for (int k = 0; run_code && k < (sizes ? 3 : 2); k++)
        if (!run_compiled(r, k > 0, k == 2 ? sizes : NULL, &sizes, in, got) ||
            !same_outputs(r, m, how[k], got, want, tol))
            return false;
    return true;
}

static bool
check_eval(run *r, fg_module *m)
{
    fg_tensor *in = FG_NEWN(r->a, fg_tensor, (size_t)m->ninput);
    fg_tensor *want = FG_NEWN(r->a, fg_tensor, (size_t)m->noutput);
    fg_tensor *got = FG_NEWN(r->a, fg_tensor, (size_t)m->noutput);
    double *tol = FG_NEWN(r->a, double, (size_t)m->noutput);
    return literals(r, "IN:", m->ninput, in, NULL) &&
           literals(r, "OUT:", m->noutput, want, tol) &&
           fg_eval(m, r->a, in, got, NULL) && same_outputs(r, m, "", got, want, tol) &&
           check_code(r, m, in, want, tol);
}

/* Sizes for the symbols, small and mostly different; another choice for every `attempt`. */
static void
choose_symbols(fg_module *m, int64_t *sym, uint32_t attempt)
{
    for (fg_sym s = 0; s < fg_sym_count(m->ex); s++) {
        const fg_syminfo *info = fg_sym_info(m->ex, s);
        int64_t v = 2 + (s + attempt * (s + 1)) % 5;
        sym[s] = v < info->lo ? info->lo : v > info->hi ? info->hi : v;
    }
}

static bool
input_dims(fg_module *m, int k, const int64_t *sym, int64_t *dim)
{
    fg_type t = fg_input_type(m, k);
    for (int d = 0; d < t.rank; d++)
        if (!fg_e_eval(m->ex, t.dim[d], sym, &dim[d]) || dim[d] < 0)
            return false;
    return true;
}

/* Inputs of any values, the same for the same types: numbers in -2..2, small integers, which
 * also serve as indices. */
static bool
made_up(run *r, fg_module *m, fg_tensor *in)
{
    enum { ATTEMPTS = 16 };
    int64_t *sym = FG_NEWN(r->a, int64_t, fg_sym_count(m->ex));
    int64_t dim[FG_MAXRANK];
    const char *limit = option(r, "--ints");
    uint32_t state = 1, attempt = 0, ints = limit ? (uint32_t)atoi(limit) : 4;
    for (int k = 0; k < m->ninput && attempt < ATTEMPTS;) {
        if (!k)
            choose_symbols(m, sym, attempt);
        bool fits = input_dims(m, k, sym, dim);
        attempt += !fits;
        k = fits ? k + 1 : 0;
    }
    if (attempt == ATTEMPTS)
        return fail(r, "no sizes found that fit the inputs; use --no-eval");
    for (int k = 0; k < m->ninput; k++) {
        const fg_type *t = fg_rt(m, m->input[k].reg);
        input_dims(m, k, sym, dim);
        if (!fg_tensor_new(r->a, &in[k], t->dtype, t->rank, dim))
            return false;
        for (int64_t i = 0; i < in[k].count; i++) {
            state = state * 1664525 + 1013904223;
            if (fg_is_float(t->dtype))
                fg_tensor_set_f64(&in[k], i, (double)(state >> 8) / (1 << 22) - 2);
            else
                fg_tensor_set_i64(&in[k], i,
                                  (state >> 16) % (t->dtype == FG_bool ? 2 : ints));
        }
    }
    return true;
}

/* m, made of `before` by passes, computes the same. Its inputs decide the sizes: passes may have
 * learned that some must be equal. */
static bool
check_same(run *r, fg_module *before, fg_module *m)
{
    fg_tensor *in = FG_NEWN(r->a, fg_tensor, (size_t)m->ninput);
    fg_tensor *want = FG_NEWN(r->a, fg_tensor, (size_t)m->noutput);
    fg_tensor *got = FG_NEWN(r->a, fg_tensor, (size_t)m->noutput);
    double *tol = FG_NEWN(r->a, double, (size_t)m->noutput);
    const char *tolerance = option(r, "--tolerance");
    if (!made_up(r, m, in) || !fg_eval(before, r->a, in, want, NULL) ||
        !fg_eval(m, r->a, in, got, NULL))
        return false;
    for (int k = 0; k < m->noutput; k++) {
        tol[k] = fg_dtypes[want[k].dtype].bits == 16 ? 0.02 : 2e-5;
        tol[k] = tolerance ? atof(tolerance) : tol[k];
    }
    return same_outputs(r, m, "after the passes, ", got, want, tol) &&
           check_code(r, m, in, want, tol);
}

/* ---- one case ----------------------------------------------------------------------- */

static void
mark_seen(const fg_block *b)
{
    fg_each_inst(b, i) {
        seen[i->op] = true;
        for (int k = 0; k < i->nregion; k++)
            mark_seen(i->region[k]);
    }
}

static char *
print(run *r, fg_module *m)
{
    fg_text t = fg_text_new(r->a);
    fg_print(&t, m);
    return t.s;
}

/* Everything that may fail on account of the text; the outcome is judged afterwards. */
static void
perform(void *arg)
{
    run *r = arg;
    const char *passes = option(r, "--pass"), *level = option(r, "-O");
    const char *slash = strrchr(r->file, '/');
    if (slash)
        r->dir = fg_format(r->a, "%.*s", (int)(slash - r->file) + 1, r->file);
    fg_module *m = fg_parse(r->cx, r->a, r->file, r->text, r->dir);
    if (!m)
        return;
    mark_seen(m->body);
    if (!option(r, "--parse") && !fg_verify(m))
        return;
    if (option(r, "--placed") && !fg_check_place(m, r->a))
        return;
    if (passes || level) {
        const char *rounds = option(r, "--rounds"), *alpha = option(r, "--alpha");
        fg_module *before = fg_parse(r->cx, r->a, r->file, r->text, r->dir);
        fg_pipeline p = {.passes = passes,
                         .check = 2,
                         .opt = level ? atoi(level) : 1,
                         .rounds = rounds ? atoi(rounds) : 0,
                         .alpha = alpha ? atof(alpha) : 1};
        r->report.explain = true;
        if (!fg_run_passes(m, &p, &r->report))
            return;
        if (!option(r, "--no-eval"))
            check_same(r, before, m);
    }
    if (option(r, "--eval"))
        check_eval(r, m);
    char *text = print(r, m);
    fg_module *again = fg_parse_again(m, r->a, "printed", text);
    if (!again)
        return;
    if (strcmp(print(r, again), text))
        fail(r, "printing what was parsed gives another text");
    r->output = text;
}

/* The ERROR line, if there is one, must be what went wrong. */
static bool
judge_error(run *r, fg_raise raise)
{
    const char *at = r->text, *want = directive(r, &at, "ERROR:");
    const char *got = fg_first_error(r->cx);
    if (!want) {
        if (!*got && !raise && r->output)
            return true;
        return fail(r, "%s", *got ? got : "unwound without a diagnostic");
    }
    if (!*got)
        return fail(r, "no error, but expected: %s", want);
    if (!strstr(got, want))
        return fail(r, "expected error: %s\n    got: %s", want, got);
    int line = 1;
    for (const char *s = r->text; s < at; s++)
        line += *s == '\n';
    const char *prefix = fg_format(r->a, "%s:", r->file);
    if (!strncmp(got, prefix, strlen(prefix)) && atoi(got + strlen(prefix)) != line)
        return fail(r, "error is not at line %d: %s", line, got);
    return true;
}

static bool
judge_checks(run *r)
{
    const char *at = r->text, *s = r->output;
    for (const char *w; (w = directive(r, &at, "CHECK:"));) {
        if (!(s = strstr(s, w)))
            return fail(r, "not found (in order): %s\n%s", w, r->output);
        s += strlen(w);
    }
    at = r->text;
    for (const char *w; (w = directive(r, &at, "CHECK-NOT:"));)
        if (strstr(r->output, w))
            return fail(r, "found: %s\n%s", w, r->output);
    at = r->text;
    for (const char *w; (w = directive(r, &at, "MISS:"));) {
        fg_text all = fg_text_new(r->a);
        for (fg_miss *x = r->report.missed; x; x = x->next)
            fg_putf(&all, "%s: %s: %s\n", x->pass, x->node, x->reason);
        if (!strstr(all.s, w))
            return fail(r, "no miss says: %s\n%s", w, all.s);
    }
    return true;
}

/* Output against the whole text wanted; on --bless, out gets the block instead. */
static bool
judge_text(run *r, bool *rewrite)
{
    const char *begin, *want = expected(r, &begin);
    if (!want && option(r, "--parse"))
        want = bare_text(r);
    if (!want || !strcmp(want, r->output))
        return true;
    *rewrite = bless && begin;
    return *rewrite || fail(r, "expected:\n%s  got:\n%s", want, r->output);
}

static void
put_blessed(fg_text *out, const run *r, const char *text)
{
    fg_puts(out, "; EXPECT\n");
    for (const char *s = r->output; *s; s += *s == '\n') {
        size_t n = strcspn(s, "\n");
        fg_putf(out, n ? "; %.*s\n" : ";\n", (int)n, s);
        s += n;
    }
    /* What followed the old block. */
    const char *s = strstr(text, "; EXPECT\n") + 9;
    while (*s == ';')
        s += strcspn(s, "\n") + (s[strcspn(s, "\n")] == '\n');
    fg_puts(out, s);
}

/* Runs the case text[0..n) that begins at `line`; appends it to out, blessed if need be. */
static bool
run_case(const char *file, int line, const char *text, size_t n, fg_text *out)
{
    run r = {.cx = fg_ctx_new(NULL), .file = file, .line = line};
    r.a = fg_arena_new(r.cx);
    r.report.a = r.a;
    r.report.explain = true;
    fg_text t = fg_text_new(r.a);
    for (int k = 0; k < line; k++)
        fg_putc(&t, '\n');
    size_t start = t.n;
    for (size_t k = 0; k < n; k++)
        fg_putc(&t, text[k]);
    r.text = t.s;
    bool rewrite = false;
    const char *at = r.text;
    if (!directive(&r, &at, "RUN:"))
        fail(&r, "no RUN line");
    every_op |= option(&r, "--every-op") != NULL;
    every_spelling |= option(&r, "--every-spelling") != NULL;
    fg_raise raise = fg_protect(r.cx, perform, &r);
    if (judge_error(&r, raise) && r.output && judge_checks(&r))
        judge_text(&r, &rewrite);
    for (int k = 0; k < FG_NSPELLINGS; k++) {
        spelled[k].taken += r.report.spelled[k].taken;
        spelled[k].refused += r.report.spelled[k].refused;
    }
    passed += !r.why;
    failed += r.why != NULL;
    if (r.why)
        printf("%s:%d: %s\n", file, line + 1, r.why);
    const char *end = rewrite ? strstr(t.s + start, "; EXPECT\n") : t.s + t.n;
    for (const char *s = t.s + start; s < end; s++)
        fg_putc(out, *s);
    if (rewrite)
        put_blessed(out, &r, t.s + start);
    fg_arena_free(r.a);
    fg_ctx_free(r.cx);
    return rewrite;
}

/* ---- files and folders -------------------------------------------------------------- */

static char *
read_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    size_t n = 0, cap = 1 << 16;
    char *s = malloc(cap);
    while (f && s) {
        size_t got = fread(s + n, 1, cap - n - 1, f);
        if (!got)
            break;
        n += got;
        if (cap - n < 2)
            s = realloc(s, cap *= 2);
    }
    if (f)
        fclose(f);
    if (!f || !s) {
        free(s);
        return NULL;
    }
    s[n] = 0;
    return s;
}

static void
run_file(const char *path)
{
    char *text = read_file(path);
    if (!text) {
        printf("%s: cannot be read\n", path);
        failed++;
        return;
    }
    fg_ctx *cx = fg_ctx_new(NULL);
    fg_arena *a = fg_arena_new(cx);
    fg_text out = fg_text_new(a);
    bool rewrite = false;
    int line = 0;
    for (const char *s = text; *s;) {
        const char *end = s;
        int lines = 0;
        while (*end && strncmp(end, "----", 4)) {
            end += strcspn(end, "\n");
            end += *end == '\n';
            lines++;
        }
        rewrite |= run_case(path, line, s, (size_t)(end - s), &out);
        size_t dashes = strcspn(end, "\n") + (strchr(end, '\n') != NULL);
        for (size_t k = 0; k < dashes; k++)
            fg_putc(&out, end[k]);
        line += lines + 1;
        s = end + dashes;
    }
    FILE *f = rewrite ? fopen(path, "wb") : NULL;
    if (f) {
        fwrite(out.s, 1, out.n, f);
        fclose(f);
        printf("%s: blessed\n", path);
    }
    fg_arena_free(a);
    fg_ctx_free(cx);
    free(text);
}

static void
run_path(const char *path)
{
    struct dirent **entry;
    struct stat st;
    size_t n = strlen(path);
    if (!stat(path, &st) && !S_ISDIR(st.st_mode)) {
        run_file(path);
        return;
    }
    int count = scandir(path, &entry, NULL, alphasort);
    if (count < 0) {
        printf("%s: cannot be read\n", path);
        failed++;
        return;
    }
    for (int k = 0; k < count; k++) {
        const char *name = entry[k]->d_name, *dot = strrchr(name, '.');
        char *sub = malloc(n + strlen(name) + 2);
        sprintf(sub, "%s/%s", path, name);
        if (name[0] != '.' &&
            ((dot && !strcmp(dot, ".fir")) || (!stat(sub, &st) && S_ISDIR(st.st_mode))))
            run_path(sub);
        free(sub);
        free(entry[k]);
    }
    free(entry);
}

int
main(int argc, char **argv)
{
    int first = 1;
    for (; first < argc && argv[first][0] == '-'; first++)
        if (!strcmp(argv[first], "--bless"))
            bless = true;
        else if (!strcmp(argv[first], "--run"))
            run_code = true;
        else
            first = argc;
    if (first >= argc) {
        fprintf(stderr, "usage: forge-test [--bless] [--run] FILE.fir|FOLDER..\n");
        return 2;
    }
    for (int k = first; k < argc; k++)
        run_path(argv[k]);
    for (int op = 1; every_op && op < FG_NOPS; op++)
        if (!seen[op]) {
            printf("no test mentions operation %s\n", fg_op_info((fg_op)op)->name);
            failed++;
        }
    for (int k = 0; every_spelling && k < FG_NSPELLINGS; k++) {
        const fg_spellinfo *i = &fg_spellings[k];
        bool taken = spelled[k].taken, refused = spelled[k].refused;
        if (taken && refused == (i->kind == FG_CHECKED))
            continue;
        printf("spellings.def: %s %s %s is %s\n", i->list, i->op, i->name,
               !taken    ? "never taken"
               : refused ? "refused, but is said to fit always"
                         : "never refused by something close to it");
        failed++;
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed ? 1 : 0;
}
