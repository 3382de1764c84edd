/* kernels.c - every operation through the code generator, against the evaluator.
 *
 *     test-kernels [-O0|-O1] [--cpu=NAME] [--c] [OP|programs ..]
 *
 * Elementwise operations are taken from ops.def, on all their types and on shapes that
 * broadcast in every way; the rest from kernels.def. Cases of one operation make one
 * module: instructions that have nothing to do with each other, operands as inputs,
 * results as outputs. Whole modules are in programs.def. Each is evaluated, compiled,
 * and run on one thread and on three, which must agree bit for bit. --c: as C instead.
 */
#include "codegen/compile.h"
#include "ir/eval.h"
#include "runtime/rt.h"
#include "tests/as_c.h"
#include "tests/lab.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAXCASES = 48, MAXTEXT = 1024, MAXOPERAND = 12, S = 1 };

typedef struct row {
    const char *types;
    int flags;
    double tol;
    const char *text;
} row;

static const row rows[] = {
#define ROW(...) {__VA_ARGS__},
#include "tests/kernels.def"
};

static const char *const programs[][2] = {
#define PROGRAM(question, text) {question, text},
#include "tests/programs.def"
};

/* One instruction, and where its operands' values come from. */
typedef struct kase {
    char text[MAXTEXT];     /* as in kernels.def, T replaced */
    bool symbolic, natural; /* natural: no negative integers */
    bool special;           /* operands hold infinities, NaN and the like */
    double tol;
    int nin, nout;
    bool ranged[MAXOPERAND];
    double lo[MAXOPERAND], hi[MAXOPERAND];
} kase;

static kase cases[MAXCASES];
static int ncases, passed, failed, level = 1;
static const char *cpu; /* NULL: this machine */
static char *const *only;
static int nonly;
static bool as_c;

/* ---- text of a module -------------------------------------------------------------- */

/* Appends n characters of a type; of a symbolic case, sizes above 1 become symbols. */
static void
put_type(fg_text *o, const char *s, size_t n, const kase *c)
{
    bool inside = false;

    for (size_t k = 0; k < n; k++) {
        bool digit = s[k] >= '0' && s[k] <= '9';

        inside = s[k] == '[' || (inside && s[k] != ']');
        if (c->symbolic && inside && digit && (s[k - 1] == '[' || s[k - 1] == ',') &&
            (s[k] > '1' || (s[k + 1] >= '0' && s[k + 1] <= '9')))
            fg_putc(o, 'd');
        fg_putc(o, s[k]);
    }
}

/* The end of the next item of a list: a comma outside brackets, or one of `stop`. */
static const char *
item_end(const char *s, const char *stop)
{
    for (int depth = 0; *s; s++) {
        depth += (*s == '[') - (*s == ']');
        if (!depth && strchr(stop, *s))
            break;
    }
    return s;
}

static const char *
skip_blank(const char *s)
{
    return s + strspn(s, " ");
}

/* Takes `TYPE in LO..HI` apart. */
static size_t
operand_type(kase *c, int k, const char *s, const char *end)
{
    const char *in = strstr(s, " in ");

    if (!in || in > end)
        return (size_t)(end - s);
    c->ranged[k] = true;
    c->lo[k] = strtod(in + 4, NULL);
    c->hi[k] = strtod(strstr(in, "..") + 2, NULL);
    return (size_t)(in - s);
}

/* Case number k as parameters, a line of the body, result types and results. */
static void
put_case(kase *c, int k, fg_text *params, fg_text *line, fg_text *types, fg_text *results)
{
    const char *s = c->text + strcspn(c->text, " "), *end;
    const char *body = strstr(c->text, " : ");
    fg_text args = fg_text_new(line->a), type = fg_text_new(line->a);

    c->nin = c->nout = 0;
    for (s = skip_blank(s); s <= body && *s != '{' && *s != ':'; s = skip_blank(end)) {
        end = item_end(s, ",{:");
        fg_puts(&args, args.n ? ", " : " ");
        if (*s == '_') {
            fg_putc(&args, '_');
        } else {
            const char *last = end;
            size_t n;

            while (last[-1] == ' ')
                last--;
            n = operand_type(c, c->nin, s, last);
            fg_putf(params, "%s%%c%d.%d: ", params->n ? ", " : "", k, c->nin);
            put_type(params, s, n, c);
            fg_putf(&args, "%%c%d.%d", k, c->nin++);
        }
        if (*end == ',')
            end++;
    }
    put_type(&type, body, strlen(body), c);
    fg_puts(line, "  ");
    for (const char *t = body + 3; *t; c->nout++) {
        end = item_end(t, ",");
        fg_putf(line, "%s%%r%d.%d", c->nout ? ", " : "", k, c->nout);
        fg_putf(results, "%s%%r%d.%d", results->n ? ", " : "", k, c->nout);
        fg_puts(types, types->n ? ", " : "");
        put_type(types, t, (size_t)(end - t), c);
        t = *end ? skip_blank(end + 1) : end;
    }
    fg_putf(line, " = %.*s%s", (int)strcspn(c->text, " "), c->text, args.s);
    if (s < body)
        fg_putf(line, " %.*s", (int)(body - s), s);
    fg_putf(line, "%s\n", type.s);
}

/* The symbols d2, d3, .. that a text mentions. */
static void
put_symbols(fg_text *o, const char *s)
{
    bool seen[4096] = {false};

    for (; *s; s++) {
        if (*s != 'd' || (s[-1] != '[' && s[-1] != ','))
            continue;
        int v = atoi(s + 1);
        if (!seen[v])
            fg_putf(o, "sym d%d in 1..\n", v);
        seen[v] = true;
    }
}

static const char *
module_text(fg_arena *a, kase *list, int n)
{
    fg_text params = fg_text_new(a), lines = fg_text_new(a), types = fg_text_new(a);
    fg_text results = fg_text_new(a), o = fg_text_new(a);

    for (int k = 0; k < n; k++)
        put_case(&list[k], k, &params, &lines, &types, &results);
    put_symbols(&o, params.s);
    fg_putf(&o, "func @main(%s) -> %s {\n%s  ret %s\n}\n", params.s, types.s, lines.s,
            results.s);
    return o.s;
}

/* ---- values ------------------------------------------------------------------------ */

static double
next_random(uint64_t *state) /* 0..1 */
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)(*state >> 40) / (double)(1 << 24);
}

static void
fill(fg_tensor *t, const kase *c, int operand, uint64_t seed)
{
    static const double odd[] = {0.0,   -0.0, INFINITY, -INFINITY, NAN,
                                 1e-30, 1e30, 0.5,      -2.5,      1};
    bool flt = fg_is_float(t->dtype);
    double lo = -2, hi = 2;
    uint64_t state = seed * 77 + 1;

    if (!flt) {
        lo = fg_dtypes[t->dtype].cls == FG_CLASS_SINT && !c->natural ? -7 : 0;
        hi = t->dtype == FG_bool ? 1 : 7;
    }
    if (c->ranged[operand]) {
        lo = c->lo[operand];
        hi = c->hi[operand];
    }
    for (int64_t k = 0; k < t->count; k++) {
        double v = lo + next_random(&state) * (flt ? hi - lo : hi - lo + 1);

        if (c->special && !c->ranged[operand] && k % 3 == 1) {
            v = odd[(uint64_t)(next_random(&state) * 10) % 10];
            if (!flt) /* the least, the greatest, or a small one */
                v = isnan(v) ? 0 : v * 1e30;
        }
        fg_tensor_set_f64(t, k, flt ? v : floor(v));
    }
}

/* ---- comparison -------------------------------------------------------------------- */

static double
type_tolerance(fg_dtype d)
{
    switch (d) {
    case FG_f32:
        return 2e-6;
    case FG_f64:
        return 1e-12;
    case FG_f16:
        return 1.1e-3;
    case FG_bf16:
        return 8.5e-3;
    default:
        return 0;
    }
}

/* The first element that differs; -1: none. */
static int64_t
first_difference(const fg_tensor *got, const fg_tensor *want, double tol)
{
    for (int64_t k = 0; k < want->count; k++) {
        double g = fg_tensor_f64(got, k), w = fg_tensor_f64(want, k);

        if (!fg_is_float(want->dtype)) {
            if (fg_tensor_i64(got, k) != fg_tensor_i64(want, k))
                return k;
        } else if (isnan(g) || isnan(w)) {
            if (isnan(g) != isnan(w))
                return k;
        } else if (g != w && !(fabs(g - w) <= tol * (1 + fabs(w)))) {
            return k;
        }
    }
    return -1;
}

/* ---- one module -------------------------------------------------------------------- */

typedef struct attempt {
    kase *list;
    int n;
    const char *text; /* a program; NULL: made from the list */
    forge_ctx *host;
    fg_compiled c;
    fg_tensor *in, *want;
    bool built, ran;
    char why[512];
} attempt;

/* A symbol named d7 is 7. */
static bool
make_inputs(attempt *t)
{
    fg_module *m = t->c.m;
    uint32_t nsym = fg_sym_count(m->ex);
    int64_t *sym = FG_NEWN(t->c.a, int64_t, nsym);

    for (fg_sym s = 0; s < nsym; s++)
        sym[s] = atoi(fg_sym_info(m->ex, s)->name + 1);
    for (int p = 0, k = 0, operand = 0; p < m->ninput; p++) {
        const fg_type *type = fg_rt(m, m->input[p].reg);
        int64_t dim[FG_MAXRANK];

        while (operand == t->list[k].nin) {
            operand = 0;
            k++;
        }
        for (int d = 0; d < type->rank; d++)
            if (!fg_e_eval(m->ex, type->dim[d], sym, &dim[d]))
                return false;
        if (!fg_tensor_new(t->c.a, &t->in[p], type->dtype, type->rank, dim))
            return false;
        fill(&t->in[p], &t->list[k], operand, (uint64_t)(31 * k + operand));
        operand++;
    }
    return true;
}

/* Code of their own for the sizes that the symbols have. */
static const char *
sizes(attempt *t)
{
    fg_text o = fg_text_new(t->c.a);

    for (fg_sym s = 0; s < fg_sym_count(t->c.m->ex); s++) {
        const fg_syminfo *i = fg_sym_info(t->c.m->ex, s);
        if (i->kind == FG_SYM_INPUT && i->is == FG_E_BAD)
            fg_putf(&o, "%s%s=%s", o.n ? "+" : "", i->name, i->name + 1);
    }
    return o.n ? o.s : NULL;
}

static void
build(void *arg)
{
    attempt *t = arg;
    forge_options o;
    const char *text;

    t->c.a = fg_arena_new(t->c.cx);
    text = t->text ? t->text : module_text(t->c.a, t->list, t->n);
    t->c.m = fg_parse(t->c.cx, t->c.a, "kernels", text, NULL);
    if (!t->c.m || !fg_verify(t->c.m)) {
        if (t->n == 1)
            printf("%s", text);
        return;
    }
    t->in = FG_NEWN(t->c.a, fg_tensor, (size_t)t->c.m->ninput);
    t->want = FG_NEWN(t->c.a, fg_tensor, (size_t)t->c.m->noutput);
    forge_options_init(&o);
    o.opt = level;
    o.cpu = cpu;
    o.check = 1;
    o.variants = sizes(t);
    t->built = make_inputs(t) && fg_eval(t->c.m, t->c.a, t->in, t->want, NULL);
    if (as_c) {
        o.skip = "pack,states";
        t->c.report = fg_report_new(t->c.a);
    }
    t->built =
        t->built && (as_c ? fg_compile_passes(&t->c, &o) : fg_compile_module(&t->c, &o));
}

static void
report(const attempt *t, const kase *c, const char *fmt, ...)
{
    char text[600];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    printf("%s%s: %s\n", c->text, c->symbolic ? " (symbolic)" : "", text);
    failed++;
    (void)t;
}

/* Results of one run, copied; false with the message in t->why. */
static bool
run_once(attempt *t, int threads, fg_tensor *got)
{
    forge_model model = {.program = t->c.program};
    forge_run *r = NULL;
    fg_model_init(&model, t->host);
    bool ok = !forge_run_new(t->host, &model, &r) && !forge_run_threads(r, threads);

    for (int p = 0; ok && p < t->c.m->ninput; p++) {
        const fg_tensor *x = &t->in[p];

        ok = !forge_bind_input(r, t->c.m->input[p].name, (forge_dtype)x->dtype, x->rank,
                               x->dim, x->data);
    }
    ok = ok && !forge_execute(r);
    for (int p = 0; ok && p < t->c.m->noutput; p++) {
        forge_dtype d;
        int rank;
        const int64_t *dims;
        size_t bytes;
        const void *data = forge_output(r, t->c.m->output[p].name, &d, &rank, &dims);

        ok = fg_tensor_new(t->c.a, &got[p], (fg_dtype)d, rank, dims) &&
             fg_dtype_bytes((fg_dtype)d, got[p].count, &bytes);
        if (ok && bytes)
            memcpy(got[p].data, data, bytes);
    }
    if (!ok)
        snprintf(t->why, sizeof t->why, "%s", forge_message(t->host));
    forge_run_free(r);
    fg_model_done(&model);
    return ok;
}

/* Not the half byte behind an odd number of 4-bit elements. */
static bool
same_bits(const fg_tensor *a, const fg_tensor *b)
{
    size_t bytes;

    if (fg_dtypes[a->dtype].bits < 8)
        return first_difference(a, b, 0) < 0;
    return fg_dtype_bytes(a->dtype, a->count, &bytes) && !memcmp(a->data, b->data, bytes);
}

static void
judge(const attempt *t, const kase *c, const fg_tensor *want, const fg_tensor *got,
      const fg_tensor *again)
{
    double tol = c->tol * type_tolerance(want->dtype);
    int64_t at;

    if (got->dtype != want->dtype || got->rank != want->rank ||
        memcmp(got->dim, want->dim, sizeof *got->dim * (size_t)got->rank)) {
        report(t, c, "the result has another type");
        return;
    }
    at = first_difference(got, want, tol);
    if (at >= 0)
        report(t, c, "element %lld is %.9g, not %.9g", (long long)at,
               fg_tensor_f64(got, at), fg_tensor_f64(want, at));
    else if (!same_bits(got, again))
        report(t, c, "one thread and three disagree");
    else
        passed++;
}

static void
judge_all(attempt *t, const fg_tensor *got, const fg_tensor *again)
{
    for (int p = 0, k = 0, result = 0; t->ran && p < t->c.m->noutput; p++) {
        if (result == t->list[k].nout) {
            result = 0;
            k++;
        }
        judge(t, &t->list[k], &t->want[p], &got[p], &again[p]);
        result++;
    }
}

/* The code for all sizes, then that for these. */
static void
run(void *arg)
{
    attempt *t = arg;
    fg_tensor *got = FG_NEWN(t->c.a, fg_tensor, (size_t)t->c.m->noutput);
    fg_tensor *again = FG_NEWN(t->c.a, fg_tensor, (size_t)t->c.m->noutput);

    if (as_c) {
        t->ran = as_c_run(&t->c, t->in, got, t->why, sizeof t->why);
        judge_all(t, got, got);
        return;
    }
    for (uint32_t n = 0; n <= t->c.specials.n; n++) {
        t->c.program->nspecial = n;
        t->ran = run_once(t, 1, got) && run_once(t, 3, again);
        judge_all(t, got, again);
    }
}

/* When the module cannot be compiled, each case alone tells which one it is. */
static void
try_cases(forge_ctx *host, kase *list, int n, const char *program)
{
    attempt t = {.list = list, .n = n, .text = program, .host = host};
    fg_raise raise;

    t.c.cx = fg_ctx_new(NULL);
    raise = fg_protect(t.c.cx, build, &t);
    if (!raise && t.built)
        raise = fg_protect(t.c.cx, run, &t);
    if (raise || !t.built || !t.ran) {
        if (n == 1)
            report(&t, list, "%s", t.why[0] ? t.why : fg_first_error(t.c.cx));
        else
            for (int k = 0; k < n; k++)
                try_cases(host, &list[k], 1, NULL);
    }
    fg_compiled_free(&t.c);
}

/* ---- the cases --------------------------------------------------------------------- */

static bool
wanted(const char *op, size_t n)
{
    for (int k = 0; k < nonly; k++)
        if (strlen(only[k]) == n && !memcmp(only[k], op, n))
            return true;
    return nonly == 0;
}

static void
flush(forge_ctx *host)
{
    if (ncases)
        try_cases(host, cases, ncases, NULL);
    ncases = 0;
}

static kase *
add_case(forge_ctx *host, double tol)
{
    if (ncases == MAXCASES)
        flush(host);
    cases[ncases] = (kase){.tol = tol};
    return &cases[ncases++];
}

/* text with T replaced by n characters of type, the operation by `op`. */
static void
put_text(char *out, const char *op, size_t nop, const char *rest, const char *type,
         size_t n)
{
    size_t at = (size_t)snprintf(out, MAXTEXT, "%.*s", (int)nop, op);

    for (const char *s = rest; *s && at + n + 1 < MAXTEXT; s++) {
        bool hole = *s == 'T' && (s[1] == '[' || s[-1] == '=');

        if (hole)
            at += (size_t)snprintf(out + at, MAXTEXT - at, "%.*s", (int)n, type);
        else
            out[at++] = *s;
    }
    out[at] = 0;
}

static void
row_cases(forge_ctx *host, const row *r)
{
    const char *rest = r->text + strcspn(r->text, " ");

    for (const char *op = r->text; op < rest; op += strcspn(op, "| ") + 1) {
        size_t nop = strcspn(op, "| ");

        if (!wanted(op, nop))
            continue;
        for (const char *type = lab_types(r->types); *type;) {
            size_t n = strcspn(type, ",");

            for (int symbolic = 0; symbolic <= (r->flags & S); symbolic++) {
                kase *c = add_case(host, r->tol);

                c->symbolic = symbolic;
                put_text(c->text, op, nop, rest, type, n);
            }
            type += n + (type[n] == ',');
        }
    }
}

/* Shapes of two operands and of the result. */
static const char *const shapes[][3] = {
    {"[7,13]", "[7,13]", "[7,13]"},
    {"[7,1]", "[1,13]", "[7,13]"},
    {"[13]", "[3,7,13]", "[3,7,13]"},
    {"[]", "[5]", "[5]"},
    {"[0,3]", "[1,3]", "[0,3]"},
    {"[2,1,3,1]", "[5,1,17]", "[2,5,3,17]"},
    {"[65]", "[]", "[65]"},
    {"[3,1,1,1,5]", "[7,2,1,5]", "[3,7,2,1,5]"},
    {"[1,257]", "[3,257]", "[3,257]"},
};

enum { NSHAPES = sizeof shapes / sizeof *shapes };

/* Where the general values would ask for too much: outside the domain, too steep, or a
 * shift or power that makes no sense. */
static const struct quirk {
    const char *op;
    int operand;
    double lo, hi, tol;
} quirks[] = {
    {"sin", 0, -9, 9, 1},       {"cos", 0, -9, 9, 1},       {"tan", 0, -1.4, 1.4, 4},
    {"shl", 1, 0, 70, 1},       {"shr", 1, 0, 70, 1},       {"mod", -1, 0, 0, 4},
    {"fmod", -1, 0, 0, 4},      {"pow", 1, 0, 4, 4},        {"exp", -1, 0, 0, 2},
    {"sinh", -1, 0, 0, 4},      {"cosh", -1, 0, 0, 4},      {"asinh", -1, 0, 0, 2},
    {"acosh", 0, 1, 9, 4},      {"atanh", 0, -0.9, 0.9, 4}, {"gelu", -1, 0, 0, 2},
    {"gelu_tanh", -1, 0, 0, 2},
};

static void
apply_quirks(kase *c, const char *op)
{
    for (size_t k = 0; k < sizeof quirks / sizeof *quirks; k++) {
        const struct quirk *q = &quirks[k];

        if (strcmp(q->op, op))
            continue;
        c->tol *= q->tol;
        if (q->operand >= 0) {
            c->ranged[q->operand] = true;
            c->lo[q->operand] = q->lo;
            c->hi[q->operand] = q->hi;
        }
    }
}

static const char *
class_types(fg_inclass cls)
{
    switch (cls) {
    case FG_IN_flt:
        return lab_types("F");
    case FG_IN_int:
        return lab_types("I");
    case FG_IN_bool:
        return "bool";
    case FG_IN_num:
        return lab_types("N");
    default:
        return lab_types("A");
    }
}

static void
elem_case(forge_ctx *host, const fg_opinfo *op, const char *type, int n,
          const char *const *shape, bool symbolic)
{
    static bool (*const to_bool[])(fg_infer *) = {fg_shape_tobool, fg_shape_compare};
    kase *c = add_case(host, 2);
    bool truth = op->shape == to_bool[0] || op->shape == to_bool[1];

    c->special = true;
    c->symbolic = symbolic;
    if (op->noperand == 1)
        snprintf(c->text, MAXTEXT, "%s %.*s%s : %.*s%s", op->name, n, type, shape[1],
                 truth ? 4 : n, truth ? "bool" : type, shape[1]);
    else if (op->noperand == 2)
        snprintf(c->text, MAXTEXT, "%s %.*s%s, %.*s%s : %.*s%s", op->name, n, type,
                 shape[0], n, type, shape[1], truth ? 4 : n, truth ? "bool" : type,
                 shape[2]);
    else
        snprintf(c->text, MAXTEXT, "%s bool%s, %.*s%s, %.*s%s : %.*s%s", op->name,
                 shape[1], n, type, shape[0], n, type, shape[1], n, type, shape[2]);
    apply_quirks(c, op->name);
}

/* f32 and i64 meet every shape, the other types three, in turn. */
static void
elem_cases(forge_ctx *host, const fg_opinfo *op)
{
    fg_inclass cls = op->operand[op->noperand == 3 ? 1 : 0].cls;
    int turn = 0;

    for (const char *type = class_types(cls); *type; turn++) {
        int n = (int)strcspn(type, ",");
        bool all = !strncmp(type, "f32", 3) || !strncmp(type, "i64", 3);

        for (int k = 0; k < (all ? NSHAPES : 3); k++)
            elem_case(host, op, type, n, shapes[(all ? k : turn + 3 * k) % NSHAPES],
                      false);
        if (all) {
            elem_case(host, op, type, n, shapes[0], true);
            elem_case(host, op, type, n, shapes[1], true);
        }
        type += n + (type[n] == ',');
    }
}

static void
cast_cases(forge_ctx *host)
{
    for (const char *from = lab_types("P"); *from;) {
        int n = (int)strcspn(from, ",");

        for (const char *to = lab_types("P"); *to;) {
            int m = (int)strcspn(to, ",");
            kase *c = add_case(host, 1);

            c->special = true;
            snprintf(c->text, MAXTEXT, "cast %.*s[7,13] {to=%.*s} : %.*s[7,13]", n, from,
                     m, to, m, to);
            to += m + (to[m] == ',');
        }
        from += n + (from[n] == ',');
    }
}

static void
bitcast_cases(forge_ctx *host)
{
    static const char *const pairs[][2] = {{"f32", "i32"}, {"i32", "f32"},
                                           {"f16", "u16"}, {"u16", "bf16"},
                                           {"f64", "i64"}, {"i8", "u8"}};

    for (size_t k = 0; k < sizeof pairs / sizeof *pairs; k++)
        snprintf(add_case(host, 1)->text, MAXTEXT, "bitcast %s[7,13] {to=%s} : %s[7,13]",
                 pairs[k][0], pairs[k][1], pairs[k][1]);
}

/* A case whose operands are all inputs of the module. */
static void
try_program(forge_ctx *host, const char *question, const char *text)
{
    kase c = {.tol = 100, .natural = true, .nin = MAXOPERAND, .nout = MAXOPERAND};

    snprintf(c.text, MAXTEXT, "%s", question);
    if (wanted("programs", 8))
        try_cases(host, &c, 1, text);
}

int
main(int argc, char **argv)
{
    forge_ctx *host;

    for (; argc > 1 && argv[1][0] == '-'; argc--, argv++) {
        if (!strncmp(argv[1], "-O", 2))
            level = atoi(argv[1] + 2);
        else if (!strncmp(argv[1], "--cpu=", 6))
            cpu = argv[1] + 6;
        else if (!strcmp(argv[1], "--c"))
            as_c = true;
    }
    only = argv + 1;
    nonly = argc - 1;
    if (forge_open(NULL, &host))
        return 1;
    for (int op = 1; op < FG_NOPS; op++) {
        const fg_opinfo *info = fg_op_info((fg_op)op);

        if (!fg_op_is((fg_op)op, FG_T_ELEM) || !wanted(info->name, strlen(info->name)))
            continue;
        if (op == FG_OP_cast)
            cast_cases(host);
        else if (op == FG_OP_bitcast)
            bitcast_cases(host);
        else
            elem_cases(host, info);
        flush(host);
    }
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        row_cases(host, &rows[k]);
        flush(host);
    }
    for (size_t k = 0; k < sizeof programs / sizeof *programs; k++)
        try_program(host, programs[k][0], programs[k][1]);
    forge_close(host);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
