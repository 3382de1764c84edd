/* module.c - a FUSED module as a C file: a function per kernel, and one that calls them.
 *
 *     int
 *     bert_run(int64_t batch, int64_t sequence, const void *weights, void *work,
 *              const int64_t *input_ids, float *last_hidden_state)
 *     {
 *         char *top = work;
 *         const float *w0 = at(weights, 64);
 *         float *b0 = take(&top, 4 * (batch * sequence * 32));
 *         ..
 *         k0_gather_add(batch, sequence, w0, input_ids, b0);
 *
 * Every value between kernels has memory of its own in `work`; sizes are the function's
 * arguments, so one text serves them all.
 */
#include "codegen/c/module.h"

#include <ctype.h>

/* ---- names ------------------------------------------------------------------------------- */

/* What the emitted text calls its own variables. */
static const char reserved[] =
    " sum top score group offset length sink empty mean square scale best where back "
    "cosine "
    "sine weights work take room at auto break case char const continue default do "
    "double "
    "else enum extern float for goto if inline int long register restrict return short "
    "signed sizeof static struct switch typedef union unsigned void volatile while place "
    "mirror least most saturate open copy fit times run trip go answer block total ";

static bool
is_taken(const cc_module *x, const char *name)
{
    size_t n = strlen(name);

    /* Letters and digits as in i0, and single letters, are those of loops. */
    if (islower((unsigned char)*name) && strspn(name + 1, "0123456789") == n - 1)
        return true;
    for (const char *p = reserved; (p = strstr(p, name)); p += n)
        if (p[-1] == ' ' && p[n] == ' ')
            return true;
    for (int k = 0; k < x->nused; k++)
        if (!strcmp(x->used[k], name))
            return true;
    return false;
}

const char *
cc_clean(cc_module *x, const char *name)
{
    char *s = fg_format(x->c.a, "%s%s", isdigit((unsigned char)*name) ? "_" : "", name);

    for (char *p = s; *p; p++)
        if (!isalnum((unsigned char)*p))
            *p = '_';
    return *s ? s : "unnamed";
}

static const char *
name_argument(cc_module *x, const char *name)
{
    name = cc_clean(x, name);
    while (is_taken(x, name))
        name = fg_format(x->c.a, "%s_", name);
    FG_PUSH(x->c.a, x->used, x->nused, x->capused) = name;
    return name;
}

/* Text of a file inside a comment. */
void
cc_put_comment(fg_text *o, const char *s)
{
    for (; *s; s++)
        fg_putc(o, *s == '*' && s[1] == '/' ? '+' : *s);
}

static bool
is_word(char ch)
{
    return isalnum((unsigned char)ch) || ch == '_';
}

bool
cc_mentions(const char *text, const char *name)
{
    size_t n = strlen(name);

    for (const char *p = text; (p = strstr(p, name)); p += n)
        if (!is_word(p[n]) && (p == text || !is_word(p[-1])))
            return true;
    return false;
}

/* ---- the function -------------------------------------------------------------------------- */

static bool
is_argument(const cc_module *x, fg_sym s)
{
    return x->c.symbol[s] && fg_sym_info(x->c.m->ex, s)->kind == FG_SYM_INPUT;
}

static void
name_arguments(cc_module *x)
{
    fg_module *m = x->c.m;

    for (uint32_t s = 0; s < fg_sym_count(m->ex); s++) {
        const fg_syminfo *i = fg_sym_info(m->ex, s);
        if (i->is == FG_E_BAD)
            x->c.symbol[s] = name_argument(x, i->name);
    }
    for (int k = 0; k < m->ninput; k++)
        x->place[m->input[k].reg] = name_argument(x, m->input[k].name);
}

/* An output that a kernel makes is made in place; others are copied at the end. */
static const char **
name_outputs(cc_module *x)
{
    fg_module *m = x->c.m;
    const char **name = FG_NEWN(x->c.a, const char *, (size_t)m->noutput + 1);

    for (int k = 0; k < m->noutput; k++) {
        fg_reg r = m->output[k].reg;
        name[k] = name_argument(x, m->output[k].name);
        if (cc_is_open(x, fg_rt(m, r)))
            name_argument(x, fg_format(x->c.a, "%s_shape", name[k]));
        else if (!x->place[r] && fg_is_op(fg_def(m, r), FG_OP_kernel))
            x->place[r] = name[k];
    }
    return name;
}

/* An output whose size was found while running gets memory that the caller frees: those are the
 * last of `open`. */
static void
put_outputs(cc_module *x, const char *const *output)
{
    fg_module *m = x->c.m;

    x->nclosed = x->nopen;
    for (int k = 0; k < m->noutput && !x->c.failed; k++) {
        fg_reg r = m->output[k].reg;
        const fg_type *t = fg_rt(m, r);
        const char *n = cc_bytes(x, t);
        if (!cc_is_open(x, t)) {
            if (x->place[r] != output[k])
                cc_call(x, "copy(%s, %s, %s);", output[k], x->place[r], n);
            continue;
        }
        cc_call(x, "if (!(*%s = fit(&open[%d], %s)))", output[k], x->nopen++, n);
        cc_call(x, "    return 3;");
        cc_call(x, "copy(*%s, %s, %s);", output[k], x->place[r], n);
        for (int a = 0; a < t->rank; a++)
            cc_call(x, "%s_shape[%d] = %s;", output[k], a, cc_expr(&x->c, t->dim[a]));
    }
}

/* Weights behind the inputs that may be left out. */
static void
keep_defaults(cc_module *x)
{
    fg_module *m = x->c.m;

    for (int k = 0; k < m->ninput; k++) {
        const fg_port *p = &m->input[k];
        if (p->weight >= 0 && x->calls.n && cc_mentions(x->calls.s, x->place[p->reg]))
            cc_new_weight(x, p->weight, fg_rt(m, p->reg));
    }
}

/* ---- parameters ---------------------------------------------------------------------------- */

/* A size, as a number where it is fixed. */
static const char *
size_text(cc_module *x, fg_sym s, const fg_special *fixed)
{
    for (uint32_t k = 0; fixed && k < fixed->n; k++)
        if (fixed->fixed[k].sym == s)
            return fg_format(x->c.a, "%lld", (long long)fixed->fixed[k].size);
    return x->c.symbol[s];
}

/* Parameters, or with `types` false the same as arguments. */
static const char *
sizes(cc_module *x, bool types, const fg_special *fixed)
{
    fg_text o = fg_text_new(x->c.a);

    for (uint32_t s = 0; s < fg_sym_count(x->c.m->ex); s++)
        if (is_argument(x, s))
            fg_putf(&o, "%s%s%s", o.n ? ", " : "", types ? "int64_t " : "",
                    size_text(x, s, fixed));
    return o.n ? o.s : "";
}

static const char *
parameters(cc_module *x, const char *const *output, bool types, const fg_special *fixed)
{
    fg_module *m = x->c.m;
    fg_text o = fg_text_new(x->c.a);
    const char *n = sizes(x, types, fixed);

    fg_putf(&o, "%s%s%sweights, %swork", n, *n ? ", " : "", types ? "const void *" : "",
            types ? "void *" : "");
    for (int k = 0; k < m->ninput; k++) {
        const fg_type *t = fg_rt(m, m->input[k].reg);
        fg_puts(&o, ", ");
        if (types)
            fg_putf(&o, "const %s *", cc_store_type(t->dtype));
        fg_puts(&o, x->place[m->input[k].reg]);
    }
    for (int k = 0; k < m->noutput; k++) {
        const fg_type *t = fg_rt(m, m->output[k].reg);
        bool open = cc_is_open(x, t);
        fg_puts(&o, ", ");
        if (types)
            fg_putf(&o, "%s *%s", cc_store_type(t->dtype), open ? "*" : "");
        fg_puts(&o, output[k]);
        if (open)
            fg_putf(&o, ", %s%s_shape", types ? "int64_t *" : "", output[k]);
    }
    return o.s;
}

/* ---- the header ----------------------------------------------------------------------------- */

static void
put_shape(cc_module *x, fg_text *o, const char *name, fg_reg r, const char *more)
{
    const fg_type *t = fg_rt(x->c.m, r);

    fg_putf(o, " *   %s: %s", name, fg_dtypes[t->dtype].name);
    for (int k = 0; k < t->rank; k++)
        fg_putf(o, "[%s]",
                fg_e_mentions(x->c.m->ex, t->dim[k], FG_SYM_RUN)
                    ? "?"
                    : cc_expr(&x->c, t->dim[k]));
    fg_putf(o, "%s\n", more);
}

static const char *
header(cc_module *x, const char *const *output)
{
    fg_module *m = x->c.m;
    fg_text o = fg_text_new(x->c.a);
    const char *n = sizes(x, true, NULL);

    fg_putf(&o,
            "/* %s - a model as C.\n *\n"
            " * %s_run fills the outputs; arrays are packed, row by row, and do not "
            "overlap:\n",
            x->name, x->name);
    for (int k = 0; k < m->ninput; k++)
        put_shape(x, &o, x->place[m->input[k].reg], m->input[k].reg,
                  m->input[k].weight >= 0 ? " (NULL: as in the model)" : "");
    fg_puts(&o, " * to\n");
    for (int k = 0; k < m->noutput; k++)
        put_shape(x, &o, output[k], m->output[k].reg, "");
    fg_putf(&o,
            " * weights: the %zu bytes of %s.bin; work: %s_work_bytes of memory, nothing "
            "is kept\n"
            " * in it. Both begin at a multiple of 8. The answer is 0; 1: a size is out "
            "of its\n"
            " * bounds; 2: sizes do not fit each other%s. Any number of threads may run "
            "it at once.\n",
            x->end, x->name, x->name, x->nopen ? "; 3: out of memory" : "");
    if (x->nopen > x->nclosed)
        fg_puts(&o, " * Where a size is ?, the data decides: the output is set to memory "
                    "that the caller\n * gives to free, and its _shape to its sizes.\n");
    fg_putf(&o,
            " */\n#ifndef %s_MODEL\n#define %s_MODEL\n\n#include <stddef.h>\n"
            "#include <stdint.h>\n\n#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n"
            "size_t %s_work_bytes(%s);\nint %s_run(%s);\n\n"
            "#ifdef __cplusplus\n}\n#endif\n\n#endif\n",
            x->name, x->name, x->name, *n ? n : "void", x->name,
            parameters(x, output, true, NULL));
    return o.s;
}

/* ---- the source ------------------------------------------------------------------------------ */

const char *
cc_bounds(cc_module *x, fg_sym s)
{
    const fg_syminfo *i = fg_sym_info(x->c.m->ex, s);
    const char *n = x->c.symbol[s];
    const char *least = fg_format(x->c.a, "%s < %lld", n, (long long)i->lo);

    return i->hi == INT64_MAX
               ? least
               : fg_format(x->c.a, "%s || %s > %lld", least, n, (long long)i->hi);
}

static void
put_bounds(cc_module *x, fg_text *o)
{
    for (uint32_t s = 0; s < fg_sym_count(x->c.m->ex); s++)
        if (is_argument(x, s))
            fg_putf(o, "    if (%s)\n        return 1;\n", cc_bounds(x, s));
}

/* Inputs may have been folded away. */
static void
put_unused(cc_module *x, fg_text *o)
{
    const char *calls = x->calls.n ? x->calls.s : "";

    for (int k = 0; k < x->c.m->ninput; k++) {
        const fg_port *p = &x->c.m->input[k];
        const char *name = x->place[p->reg];
        if (!cc_mentions(calls, name))
            fg_putf(o, "    (void)%s;\n", name);
        else if (p->weight >= 0)
            fg_putf(o, "    %s = %s ? %s : %s;\n", name, name, name,
                    x->weight[p->weight]);
    }
    if (!x->ntake)
        fg_puts(o, "    (void)top;\n");
    if (!x->nfile)
        fg_puts(o, "    (void)weights;\n");
}

/* The sizes that are found while running. */
static void
put_found(cc_module *x, fg_text *o)
{
    const char *calls = x->calls.n ? x->calls.s : "";

    for (uint32_t s = 0; s < fg_sym_count(x->c.m->ex); s++)
        if (x->c.symbol[s] && !is_argument(x, s) && cc_mentions(calls, x->c.symbol[s]))
            fg_putf(o, "    int64_t %s = 0;\n    (void)%s;\n", x->c.symbol[s],
                    x->c.symbol[s]);
}

static void
put_work_bytes(cc_module *x, fg_text *o)
{
    const char *n = sizes(x, true, NULL);

    fg_putf(o, "size_t\n%s_work_bytes(%s)\n{\n    size_t n = 0;\n\n%s", x->name,
            *n ? n : "void", x->bytes.n ? x->bytes.s : "");
    for (uint32_t s = 0; s < fg_sym_count(x->c.m->ex); s++)
        if (is_argument(x, s))
            fg_putf(o, "    (void)%s;\n", x->c.symbol[s]);
    fg_puts(o, "    return n;\n}\n\n");
}

/* One call for each special and one for other sizes: a C compiler that is told to makes a copy of
 * what it calls for the constants. */
static void
put_calls(cc_module *x, fg_text *o, const char *const *output)
{
    const char *more = x->nopen ? ", open" : "";

    for (uint32_t k = 0; k < x->specials->n; k++) {
        const fg_special *s = &x->specials->list[k];
        fg_putf(o, "    %sif (", k ? "else " : "");
        for (uint32_t j = 0; j < s->n; j++)
            fg_putf(o, "%s%s == %lld", j ? " && " : "", x->c.symbol[s->fixed[j].sym],
                    (long long)s->fixed[j].size);
        fg_putf(o, ")\n        answer = run(%s%s);\n", parameters(x, output, false, s),
                more);
    }
    fg_putf(o, "%sanswer = run(%s%s);\n", x->specials->n ? "    else\n        " : "    ",
            parameters(x, output, false, NULL), more);
}

static void
put_run(cc_module *x, fg_text *o, const char *const *output)
{
    const char *given = parameters(x, output, true, NULL);
    bool inner = x->nopen || x->specials->n;

    if (inner)
        fg_putf(o, "static int\nrun(%s%s)\n", given, x->nopen ? ", block *open" : "");
    else
        fg_putf(o, "int\n%s_run(%s)\n", x->name, given);
    fg_puts(o, "{\n    char *top = work;\n");
    put_bounds(x, o);
    put_found(x, o);
    fg_puts(o, x->weights.n ? x->weights.s : "");
    fg_puts(o, x->takes.n ? x->takes.s : "");
    fg_puts(o, "\n");
    put_unused(x, o);
    fg_puts(o, x->calls.n ? x->calls.s : "");
    fg_puts(o, "    return 0;\n}\n");
    if (!inner)
        return;
    fg_putf(o, "\nint\n%s_run(%s)\n{\n    int answer;\n", x->name, given);
    if (x->nopen)
        fg_putf(o, "    block open[%d] = {{NULL, 0}};\n", x->nopen);
    fg_puts(o, "\n");
    put_calls(x, o, output);
    if (x->nopen)
        fg_putf(o,
                "    for (int k = 0; k < (answer ? %d : %d); k++)\n"
                "        free(open[k].p);\n",
                x->nopen, x->nclosed);
    fg_puts(o, "    return answer;\n}\n");
}

static const char room_text[] =
    "/* Bytes that n bytes take in `work`. */\nstatic size_t\nroom(int64_t n)\n{\n"
    "    return ((size_t)n + 63) / 64 * 64;\n}\n\n";
static const char take_text[] =
    "static void *\ntake(char **top, int64_t n)\n{\n    char *p = *top;\n\n"
    "    *top += room(n);\n    return p;\n}\n\n";
static const char at_text[] =
    "static const void *\nat(const void *weights, size_t offset)\n{\n"
    "    return (const char *)weights + offset;\n}\n\n";
static const char fit_text[] =
    "typedef struct block { /* memory of a value whose size is found while running */\n"
    "    void *p;\n    int64_t room;\n} block;\n\n"
    "/* At least n bytes, and what was there before; NULL: out of memory. */\n"
    "static void *\nfit(block *b, int64_t n)\n{\n"
    "    if (b->p && n >= 0 && n <= b->room)\n        return b->p;\n"
    "    if (n < 0 || (uint64_t)n > SIZE_MAX / 4)\n        return NULL;\n"
    "    const int64_t want = b->p ? 2 * n : n + 1;\n"
    "    void *p = realloc(b->p, (size_t)want);\n"
    "    if (!p)\n        return NULL;\n"
    "    b->p = p;\n    b->room = want;\n    return p;\n}\n\n";

static const char *
source(cc_module *x, const char *const *output)
{
    fg_text body = fg_text_new(x->c.a), o = fg_text_new(x->c.a);

    fg_puts(&body, x->kernels.n ? x->kernels.s : "");
    put_work_bytes(x, &body);
    put_run(x, &body, output);
    fg_putf(&o,
            "/* %s - see %s.h */\n#include \"%s.h\"\n\n#include <math.h>\n"
            "#include <stdlib.h>\n#include <string.h>\n\n",
            x->name, x->name, x->name);
    cc_put_helpers(&o, body.s);
    fg_puts(&o, x->nfile ? at_text : "");
    fg_puts(&o, x->ntake ? room_text : "");
    fg_puts(&o, x->ntake ? take_text : "");
    fg_puts(&o, x->nopen ? fit_text : "");
    fg_puts(&o, body.s);
    return o.s;
}

/* Code of long lines goes on below: broken behind a comma, of which there is none in text. */
static const char *
fold_lines(fg_arena *a, const char *text)
{
    enum { WIDE = 100, MORE = 8 };
    fg_text o = fg_text_new(a);

    for (size_t n; *text; text += n) {
        size_t indent = strspn(text, " "), column = 0;
        n = strcspn(text, "\n");
        const char *comment = memmem(text, n, "/*", 2),
                   *end = comment ? comment : text + n;
        while (column + (size_t)(end - text) > WIDE) {
            size_t k = WIDE - column;
            while (k > 2 && memcmp(text + k - 2, ", ", 2) != 0)
                k--;
            if (k == 2)
                break;
            fg_putf(&o, "%.*s\n%*s", (int)k - 1, text, (int)indent + MORE, "");
            text += k;
            n -= k;
            column = indent + MORE;
        }
        n += text[n] == '\n';
        fg_putf(&o, "%.*s", (int)n, text);
    }
    return o.s;
}

bool
fg_source_make(fg_module *m, fg_arena *a, const char *name, const fg_specials *specials,
               fg_source_text *out)
{
    cc_module *x = FG_NEW(a, cc_module);

    x->name = name;
    x->specials = specials;
    x->c.m = m;
    x->c.a = a;
    x->c.buffer = cc_new_buffer;
    x->c.user = x;
    x->c.symbol = FG_NEWN(a, const char *, (size_t)fg_sym_count(m->ex) + 1);
    x->c.array = FG_NEWN(a, const char *, m->nreg);
    x->place = FG_NEWN(a, const char *, m->nreg);
    x->slot = FG_NEWN(a, int, m->nreg);
    x->weight = FG_NEWN(a, const char *, (size_t)m->nweight + 1);
    x->kernels = fg_text_new(a);
    x->takes = fg_text_new(a);
    x->bytes = fg_text_new(a);
    x->calls = fg_text_new(a);
    x->weights = fg_text_new(a);
    x->depth = 1;
    name_arguments(x);
    const char **output = name_outputs(x);
    cc_put_block(x, m->body);
    put_outputs(x, output);
    keep_defaults(x);
    if (x->c.failed)
        return false;
    *out = (fg_source_text){fold_lines(a, source(x, output)),
                            fold_lines(a, header(x, output)), x->file, x->nfile, x->end};
    return true;
}
