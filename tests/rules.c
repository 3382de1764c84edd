/* rules.c - every rewriting rule alone, before and after, by the evaluator.
 *
 *     test-rules [PART OF A LAW ..]
 *
 * rules/rules.def has a program for each rule. It is made for every type and several sizes, the
 * rule is applied wherever it applies, and both programs are evaluated on plain and odd
 * values: the results may differ only as the rule says. A rule without a program, a program
 * without its rule, and a rule that never applies are failures. So is one that applies to a
 * program where it would be wrong.
 */
#include "ir/distance.h"
#include "passes/algebra.h"
#include "passes/pass.h"
#include "passes/rewrite.h"
#include "tests/lab.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { NSIZES = 3, FILLS = 4 };

typedef struct row {
    const char *pass; /* NULL: a rule of the tables, for */
    fg_op op;
    const char *law, *types, *text;
    int differs; /* of a pass */
    bool never;
} row;

static const row rows[] = {
#define RULE(op, law, types, text) {NULL, FG_OP_##op, law, types, text, 0, false},
#define NEVER(op, law, types, text) {NULL, FG_OP_##op, law, types, text, 0, true},
#define PASS_RULE(pass, law, types, differs, text)                                       \
    {#pass, FG_OP_NONE, law, types, text, DIFFERS_##differs, false},
#define DIFFERS_NOWHERE FG_DIFFERS_ZERO_SIGN /* sums may begin elsewhere */
#define DIFFERS_ROUNDING FG_DIFFERS_SUMS
#include "tests/rules/rules.def"
};

static const fg_rule *const tables[] = {fg_rules_arith, fg_rules_cast,  fg_rules_view,
                                        fg_rules_index, fg_rules_quant, fg_rules_cache};

/* Sizes for A B C; symbols where `symbols`, worth that. */
static const struct {
    int v[NSIZES];
    bool symbols;
} sizes[] = {{{2, 3, 4}, false}, {{1, 1, 1}, false}, {{0, 3, 2}, false},
             {{3, 0, 1}, false}, {{1, 4, 2}, false}, {{2, 3, 4}, true},
             {{0, 1, 2}, true},  {{1, 2, 0}, true},  {{1, 1, 1}, true}};

static int passed, failed;

/* ---- text of a program ------------------------------------------------------------- */

typedef struct writer {
    fg_arena *a;
    const char *type; /* of `ntype` characters */
    int ntype, size;
    fg_text weights, body;
    int nweight;
    int64_t lo[16], hi[16]; /* of the parameters; none: lo > hi */
} writer;

static bool
name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           c == '%' || c == '.' || c == '_';
}

/* s[0..n) with type and sizes filled in. */
static void
put(const writer *w, fg_text *o, const char *s, size_t n)
{
    for (size_t k = 0; k < n; k++) {
        bool alone = (k == 0 || !name_char(s[k - 1])) && !name_char(s[k + 1]);
        if (alone && s[k] == 'T')
            fg_putf(o, "%.*s", w->ntype, w->type);
        else if (!alone || s[k] < 'A' || s[k] >= 'A' + NSIZES)
            fg_putc(o, s[k]);
        else if (sizes[w->size].symbols)
            fg_putf(o, "d%c", s[k]);
        else
            fg_putf(o, "%d", sizes[w->size].v[s[k] - 'A']);
    }
}

/* `%c = const T[] {1}` or another instruction. */
static void
put_statement(writer *w, const char *s, size_t n)
{
    const char *is = strstr(s, "= const ");
    if (!is || is > s + n) {
        fg_puts(&w->body, "  ");
        put(w, &w->body, s, n);
        fg_putc(&w->body, '\n');
        return;
    }
    const char *type = is + 8, *end = strchr(type, ']') + 1;
    fg_putf(&w->weights, "$%d = ", w->nweight);
    put(w, &w->weights, type, (size_t)(s + n - type));
    fg_putf(&w->body, "\n  %.*s= const {w=$%d} : ", (int)(is - s), s, w->nweight++);
    put(w, &w->body, type, (size_t)(end - type));
    fg_putc(&w->weights, '\n');
    fg_putc(&w->body, '\n');
}

/* Parameters without their ranges. */
static void
put_params(writer *w, fg_text *o, const char *s, const char *end)
{
    int k = 0, depth = 0;
    const char *from = s;
    for (; end > from && s <= end && k < 15; s++) {
        depth += (*s == '[') - (*s == ']');
        if (s < end && (*s != ',' || depth))
            continue;
        const char *in = strstr(from, " in ");
        if (in && in < s) {
            char *dots;
            w->lo[k] = strtoll(in + 4, &dots, 10);
            w->hi[k] = strtoll(dots + 2, NULL, 10);
        }
        k++;
        put(w, o, from, (size_t)((in && in < s ? in : s) - from));
        fg_puts(o, s < end ? "," : "");
        from = s + 1;
    }
}

static const char *
program(writer *w, const char *text)
{
    fg_text o = fg_text_new(w->a), params = fg_text_new(w->a);
    const char *end = strstr(text, ") "), *s = end + 2, *type = text;
    for (int k = 0; k < 16; k++)
        w->lo[k] = 1 + (w->hi[k] = 0);
    w->weights = fg_text_new(w->a);
    w->body = fg_text_new(w->a);
    put_params(w, &params, text + 1, end);
    for (const char *next; *s; s = next) {
        size_t n = strcspn(s, ";");
        next = s + n + strspn(s + n, "; ");
        put_statement(w, s, n);
    }
    for (const char *t = text; (t = strstr(t, " : ")); t += 3)
        type = t + 3;
    for (int k = 0; sizes[w->size].symbols && k < NSIZES; k++)
        fg_putf(&o, "sym d%c in 0..\n", 'A' + k);
    if (sizes[w->size].symbols) /* a shape that gives each its value */
        fg_putf(&params, "%s%%all: bool[dA,dB,dC]", params.n ? ", " : "");
    fg_putf(&o, "%s\nfunc @main(%s) -> ", w->weights.s, params.s);
    put(w, &o, type, strlen(type));
    fg_putf(&o, " {\n%s  ret %%y\n}\n", w->body.s);
    return o.s;
}

/* ---- one program ------------------------------------------------------------------- */

typedef struct attempt {
    const row *row;
    const fg_rule *rule;
    writer w;
    fg_ctx *cx;
    const char *text;
    bool applied;
    char why[600];
} attempt;

static bool
apply_rule(attempt *t, fg_module *m)
{
    fg_rewrite w = fg_rewrite_new(m, t->w.a);
    fg_each_inst(m->body, i) {
        fg_rewrite_operands(&w, i);
        if (i->nout != 1 || (t->rule->op != i->op && t->rule->op != FG_OP_NONE))
            continue;
        fg_build b = fg_build_before(i);
        fg_reg fresh = m->nreg, x = t->rule->run(&b, i);
        if (!x)
            continue;
        if (!fg_type_equal(fg_rt(m, x), fg_rt(m, i->out[0])))
            return fg_error(m->cx, "gives another type");
        fg_rewrite_replace(&w, i, x, fresh);
        t->applied = true;
    }
    fg_rewrite_done(&w);
    return m->cx->nerror == 0 && fg_verify(m);
}

static bool
apply_pass(attempt *t, fg_module *m)
{
    fg_report report = {.a = t->w.a};
    fg_pipeline p = {
        .passes = t->row->pass, .check = 2, .opt = 1, .rounds = 1, .alpha = 1};
    if (!fg_run_passes(m, &p, &report))
        return false;
    for (const fg_count *c = report.fusions; c; c = c->next)
        t->applied |= !strcmp(c->rule, t->row->law);
    return true;
}

static bool
make_inputs(attempt *t, fg_module *m, int fill, fg_tensor *in)
{
    uint64_t state = (uint64_t)fill * 977 + 5;
    int64_t *sym = FG_NEWN(t->w.a, int64_t, fg_sym_count(m->ex) + 1);
    for (fg_sym s = 0; s < fg_sym_count(m->ex); s++)
        sym[s] = sizes[t->w.size].v[fg_sym_info(m->ex, s)->name[1] - 'A'];
    for (int k = 0; k < m->ninput; k++) {
        const fg_type *type = fg_rt(m, m->input[k].reg);
        int64_t dim[FG_MAXRANK];
        for (int d = 0; d < type->rank; d++)
            if (!fg_e_eval(m->ex, type->dim[d], sym, &dim[d]))
                return false;
        if (!fg_tensor_new(t->w.a, &in[k], type->dtype, type->rank, dim))
            return false;
        if (t->w.lo[k] <= t->w.hi[k])
            lab_fill_range(&in[k], t->w.lo[k], t->w.hi[k], &state);
        else
            lab_fill(&in[k], fill % FILLS ? LAB_ODD : LAB_PLAIN, &state);
    }
    return true;
}

/* Where a type's numbers are so small that products of the rules lose bits on the way. */
static double
smallest_sure(fg_dtype d)
{
    return d == FG_f16 ? 2 : d == FG_f64 ? 0x1p-1000 : 0x1p-110;
}

static bool
may_differ(int differs, fg_dtype d, double got, double want)
{
    static const double unit[FG_NDTYPES] = {
        [FG_f32] = 2e-6, [FG_f64] = 1e-12, [FG_f16] = 8e-3, [FG_bf16] = 6e-2};
    double ulp = fg_ulps(d, got, want);
    bool lost = !isfinite(got) || !isfinite(want) ||
                fmax(fabs(got), fabs(want)) < smallest_sure(d);
    return ulp == 0 || (differs == FG_DIFFERS_ZERO_SIGN && got == want) ||
           (differs == FG_DIFFERS_ROUNDING && (ulp <= 1 || lost)) ||
           (differs == FG_DIFFERS_SUMS &&
            (lost || fabs(got - want) <= unit[d] * (1 + fabs(want))));
}

static bool
compare(attempt *t, const fg_tensor *got, const fg_tensor *want)
{
    int differs = t->rule ? (int)t->rule->differs : t->row->differs;
    for (int64_t k = 0; k < want->count; k++) {
        double g = fg_tensor_f64(got, k), w = fg_tensor_f64(want, k);
        bool same = fg_is_float(want->dtype)
                        ? may_differ(differs, want->dtype, g, w)
                        : fg_tensor_i64(got, k) == fg_tensor_i64(want, k);
        if (!same)
            return fg_error(t->cx, "element %lld is %.17g after, %.17g before",
                            (long long)k, g, w);
    }
    return true;
}

static bool
same_results(attempt *t, fg_module *before, fg_module *after, int fill)
{
    fg_tensor in[16], got, want;
    if (!make_inputs(t, before, fill, in))
        return false;
    return fg_eval(before, t->w.a, in, &want, NULL) &&
           fg_eval(after, t->w.a, in, &got, NULL) && compare(t, &got, &want);
}

static void
perform(void *arg)
{
    attempt *t = arg;
    t->text = program(&t->w, t->row->text);
    fg_module *before = fg_parse(t->cx, t->w.a, "rule", t->text, NULL);
    fg_module *after = fg_parse(t->cx, t->w.a, "rule", t->text, NULL);
    if (!before || !after)
        return;
    if (t->rule ? !apply_rule(t, after) : !apply_pass(t, after))
        return;
    for (int fill = 0; t->applied && fill < FILLS; fill++)
        if (!same_results(t, before, after, fill))
            return;
}

/* False when it went wrong; a program that these sizes make impossible is none. */
static bool
attempt_row(attempt *t)
{
    t->applied = false;
    t->cx = fg_ctx_new(NULL);
    t->w.a = fg_arena_new(t->cx);
    t->w.nweight = 0;
    fg_raise raise = fg_protect(t->cx, perform, t);
    const char *error = fg_first_error(t->cx);
    bool unparsed = !strncmp(error, "rule:", 5) && !t->applied;
    if (*error || raise)
        snprintf(t->why, sizeof t->why, "%s\n%s", *error ? error : "unwound", t->text);
    fg_arena_free(t->w.a);
    fg_ctx_free(t->cx);
    return unparsed || (!*error && !raise);
}

/* ---- all of them ------------------------------------------------------------------- */

static void
complain(const row *r, const char *type, int n, const char *what)
{
    printf("%s \"%s\" %.*s: %s\n", r->pass ? r->pass : fg_op_info(r->op)->name, r->law, n,
           type, what);
    failed++;
}

static void
run_row(const row *r, const fg_rule *rule)
{
    for (const char *s = lab_types(r->types); *s; s += *s == ',') {
        attempt t = {
            .row = r, .rule = rule, .w = {.type = s, .ntype = (int)strcspn(s, ",")}};
        bool applied = false, ok = true;
        for (size_t k = 0; ok && k < sizeof sizes / sizeof *sizes; k++) {
            t.w.size = (int)k;
            ok = attempt_row(&t);
            applied |= t.applied;
        }
        s += t.w.ntype;
        if (ok && applied != r->never)
            passed++;
        else
            complain(r, t.w.type, t.w.ntype,
                     *t.why     ? t.why
                     : r->never ? "applies"
                                : "does not apply");
    }
}

static bool
serves(const row *r, const fg_rule *rule)
{
    return !r->pass && r->op == rule->op && !strcmp(r->law, rule->law);
}

static bool
wanted(const char *law, int argc, char **argv)
{
    for (int k = 1; k < argc; k++)
        if (strstr(law, argv[k]))
            return true;
    return argc < 2;
}

int
main(int argc, char **argv)
{
    enum { NROWS = sizeof rows / sizeof *rows };
    bool used[NROWS] = {false};
    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++)
        for (const fg_rule *rule = tables[t]; rule->run; rule++) {
            bool any = false;
            for (int k = 0; k < NROWS; k++) {
                if (!serves(&rows[k], rule))
                    continue;
                used[k] = true;
                any |= !rows[k].never;
                if (wanted(rule->law, argc, argv))
                    run_row(&rows[k], rule);
            }
            if (!any)
                complain(&(row){.op = rule->op, .law = rule->law}, "", 0, "has no test");
        }
    for (int k = 0; k < NROWS; k++)
        if (rows[k].pass && wanted(rows[k].law, argc, argv))
            run_row(&rows[k], NULL);
        else if (!rows[k].pass && !used[k])
            complain(&rows[k], "", 0, "is no rule");
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
