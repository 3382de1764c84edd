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
#include "codegen/source.h"
#include "codegen/c/c.h"

#include <ctype.h>

typedef struct module {
    cc c;
    const char *name;
    const char **place;  /* by register of @main: what it is called there */
    const char **weight; /* by weight: its name, once it is used */
    fg_text kernels, takes, bytes, calls, weights;
    fg_source_weight *file;
    size_t capfile, end;
    int nfile, nbuffer, nkernel;
    const char **used; /* names of arguments */
    int nused;
    size_t capused;
} module;

/* ---- names ------------------------------------------------------------------------------- */

/* What the emitted text calls its own variables. */
static const char reserved[] =
    " sum top score group offset length sink empty mean square scale best where back "
    "cosine "
    "sine weights work take room at auto break case char const continue default do "
    "double "
    "else enum extern float for goto if inline int long register restrict return short "
    "signed sizeof static struct switch typedef union unsigned void volatile while place "
    "mirror least most saturate ";

static bool
is_taken(const module *x, const char *name)
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

static const char *
clean(module *x, const char *name)
{
    char *s = fg_format(x->c.a, "%s%s", isdigit((unsigned char)*name) ? "_" : "", name);

    for (char *p = s; *p; p++)
        if (!isalnum((unsigned char)*p))
            *p = '_';
    return *s ? s : "unnamed";
}

static const char *
name_argument(module *x, const char *name)
{
    name = clean(x, name);
    while (is_taken(x, name))
        name = fg_format(x->c.a, "%s_", name);
    FG_PUSH(x->c.a, x->used, x->nused, x->capused) = name;
    return name;
}

/* Text of a file inside a comment. */
static void
put_comment(fg_text *o, const char *s)
{
    for (; *s; s++)
        fg_putc(o, *s == '*' && s[1] == '/' ? '+' : *s);
}

/* ---- the plan ------------------------------------------------------------------------------ */

static const char *
bytes_of(module *x, const fg_type *t)
{
    int bits = fg_dtypes[t->dtype].bits;
    const char *n = cc_expr(&x->c, fg_type_count(x->c.m->ex, t));

    return bits < 8 ? fg_format(x->c.a, "(%s + 1) / 2", n)
                    : fg_format(x->c.a, "%d * (%s)", bits / 8, n);
}

static const char *
new_buffer(void *user, const fg_type *t, const char *meaning)
{
    module *x = user;
    const char *name = fg_format(x->c.a, "b%d", x->nbuffer++), *n = bytes_of(x, t);

    fg_putf(&x->takes, "    %s *%s = take(&top, %s); /* ", cc_store_type(t->dtype), name,
            n);
    put_comment(&x->takes, meaning);
    fg_puts(&x->takes, " */\n");
    fg_putf(&x->bytes, "    n += room(%s);\n", n);
    return name;
}

/* Puts weight k at the next multiple of 64 of the file, once; its name. */
static const char *
new_weight(module *x, int64_t k, const fg_type *t)
{
    const fg_weight *w = &x->c.m->weight[k];
    fg_text type = fg_text_new(x->c.a);

    if (x->weight[k])
        return x->weight[k];
    if (!w->data && w->bytes)
        x->c.failed = !fg_error(x->c.m->cx, "weight \"%.200s\" has no data",
                                w->name ? w->name : "");
    const char *name = x->weight[k] = fg_format(x->c.a, "w%d", x->nfile);
    fg_put_type(&type, x->c.m->ex, t);
    fg_putf(&x->weights, "    const %s *%s = at(weights, %zu); /* %s ",
            cc_store_type(w->dtype), name, x->end, type.s);
    put_comment(&x->weights, w->name ? w->name : "");
    fg_puts(&x->weights, " */\n");
    FG_PUSH(x->c.a, x->file, x->nfile, x->capfile) =
        (fg_source_weight){w->data, w->bytes, x->end};
    x->end = (x->end + w->bytes + 63) & ~(size_t)63;
    return name;
}

static const char *
const_weight(module *x, const fg_inst *i)
{
    return new_weight(x, FG_GET(i, const, w).i, fg_rt(x->c.m, i->out[0]));
}

/* ---- kernels ------------------------------------------------------------------------------- */

/* Has to be in an array: its consumer reads it again and again, or in loops of its own. */
static bool
is_kept(module *x, const fg_block *b, const fg_inst *i)
{
    fg_reg r = i->out[0];

    if (!cc_pulled(i->op))
        return true;
    if (cc_is_cheap(&x->c, r) || i->op == FG_OP_symvec)
        return false;
    fg_each_inst(b, u) {
        for (int k = 0; k < u->nin; k++) {
            fg_reg in = u->in[k];
            const fg_inst *d = fg_def(x->c.m, in);
            /* Through views: what counts is who computes it. */
            while (in != r && d && fg_op_is(d->op, FG_T_VIEW) && d->block == b) {
                in = d->in[0];
                d = fg_def(x->c.m, in);
            }
            if (in == r && !cc_pulled(u->op) && u->op != FG_OP_yield &&
                !fg_e_is(x->c.m->ex, fg_type_count(x->c.m->ex, fg_rt(x->c.m, r)), 1))
                return true;
        }
    }
    return false;
}

static void
store_all(module *x, fg_reg r, const char *target)
{
    cc *c = &x->c;
    const fg_type *t = fg_rt(c->m, r);
    cc_index at;
    int open = cc_for_all(c, t, 0, at);

    if (!open)
        cc_open(c, "%s", "");
    cc_store(c, target, t, at, cc_value(c, r, at));
    cc_close_all(c, open ? open : 1);
}

/* The first output of the kernel that instruction i makes; -1: none. */
static int
output_of(const fg_block *b, const fg_inst *i)
{
    for (int k = 0; k < b->last->nin; k++)
        if (i->nout == 1 && b->last->in[k] == i->out[0])
            return k;
    return -1;
}

static const char *
output_name(module *x, int k)
{
    return fg_format(x->c.a, "y%d", k);
}

/* A constant of one element is a literal where it is used; others are parameters. */
static bool
weight_parameter(module *x, const fg_inst *i)
{
    cc *c = &x->c;
    const fg_type *t = fg_rt(c->m, i->out[0]);

    if (fg_e_is(c->m->ex, fg_type_count(c->m->ex, t), 1))
        return false;
    const char *w = const_weight(x, i);
    c->array[i->out[0]] = cc_add_param(
        c, fg_format(c->a, "const %s *restrict ", cc_store_type(t->dtype)), w, w);
    return true;
}

static void
print_region(module *x, const fg_inst *kernel)
{
    cc *c = &x->c;
    const fg_block *b = kernel->region[0];
    bool *stored = FG_NEWN(c->a, bool, (size_t)kernel->nout + 1);

    fg_each_inst(b, i) {
        if (i->op == FG_OP_yield || c->failed)
            break;
        int k = output_of(b, i);
        if (i->op == FG_OP_const && weight_parameter(x, i))
            continue;
        if (i->nout != 1) {
            cc_refuse(c, i, "");
            return;
        }
        if (k < 0 && !is_kept(x, b, i))
            continue;
        const char *target =
            k < 0 ? cc_temp(c, fg_rt(c->m, i->out[0])) : output_name(x, k);
        if (cc_pulled(i->op))
            store_all(x, i->out[0], target);
        else if (!cc_nest(c, i, target))
            return;
        c->array[i->out[0]] = target;
        if (k >= 0)
            stored[k] = true;
    }
    for (int k = 0; k < b->last->nin && !c->failed; k++)
        if (!stored[k])
            store_all(x, b->last->in[k], output_name(x, k));
}

static const char *
array_type(module *x, fg_reg r, bool read)
{
    return fg_format(x->c.a, "%s%s *restrict ", read ? "const " : "",
                     cc_store_type(fg_rt(x->c.m, r)->dtype));
}

static bool
is_word(char ch)
{
    return isalnum((unsigned char)ch) || ch == '_';
}

static bool
mentions(const char *text, const char *name)
{
    size_t n = strlen(name);

    for (const char *p = text; (p = strstr(p, name)); p += n)
        if (!is_word(p[n]) && (p == text || !is_word(p[-1])))
            return true;
    return false;
}

/* The sizes that a text mentions, as parameters or arguments in front of others. */
static void
put_sizes(module *x, fg_text *o, const char *text, const char *type)
{
    for (uint32_t s = 0; s < fg_sym_count(x->c.m->ex); s++)
        if (x->c.symbol[s] && mentions(text, x->c.symbol[s]))
            fg_putf(o, "%s%s, ", type, x->c.symbol[s]);
}

static void
put_kernel(module *x, const fg_inst *k, const char *name)
{
    cc *c = &x->c;
    fg_text *o = &x->kernels;

    fg_puts(o, "/* ");
    for (int n = 0; n < k->nnode; n++) {
        fg_puts(o, n ? ",\n * " : "");
        put_comment(o, k->node[n]);
    }
    fg_putf(o, "%s */\nstatic void\n%s(", k->nnode ? "" : "made by the compiler", name);
    put_sizes(x, o, c->body.s, "int64_t ");
    fg_putf(&x->calls, "    %s(", name);
    put_sizes(x, &x->calls, c->body.s, "");
    for (size_t p = 0; p < c->nparam; p++) {
        fg_putf(o, "%s%s%s", p ? ", " : "", c->param[p].type, c->param[p].name);
        fg_putf(&x->calls, "%s%s", p ? ", " : "", c->param[p].actual);
    }
    fg_putf(o, ")\n{\n%s}\n\n", c->body.s);
    fg_puts(&x->calls, ");\n");
}

static void
print_kernel(module *x, const fg_inst *k)
{
    cc *c = &x->c;
    const fg_block *b = k->region[0];

    c->kernel = k;
    c->body = fg_text_new(c->a);
    c->depth = 1;
    c->nvalue = 0;
    c->nmemo = c->nparam = 0;
    for (int p = 0; p < k->nin; p++) {
        c->array[b->param[p]] = fg_format(c->a, "a%d", p);
        cc_add_param(c, array_type(x, b->param[p], true), c->array[b->param[p]],
                     x->place[k->in[p]]);
    }
    for (int p = 0; p < k->nout; p++) {
        if (!x->place[k->out[p]])
            x->place[k->out[p]] =
                new_buffer(x, fg_rt(c->m, k->out[p]), k->nnode ? k->node[0] : "");
        cc_add_param(c, array_type(x, k->out[p], false), output_name(x, p),
                     x->place[k->out[p]]);
    }
    print_region(x, k);
    if (!c->failed)
        put_kernel(
            x, k,
            fg_format(c->a, "k%d_%s", x->nkernel++, clean(x, FG_GET(k, kernel, name).s)));
}

/* ---- the function -------------------------------------------------------------------------- */

static void
name_arguments(module *x)
{
    fg_module *m = x->c.m;

    for (uint32_t s = 0; s < fg_sym_count(m->ex); s++) {
        const fg_syminfo *i = fg_sym_info(m->ex, s);
        if (i->kind == FG_SYM_INPUT && i->is == FG_E_BAD)
            x->c.symbol[s] = name_argument(x, i->name);
    }
    for (int k = 0; k < m->ninput; k++)
        x->place[m->input[k].reg] = name_argument(x, m->input[k].name);
}

/* An output that a kernel makes is made in place; others are copied at the end. */
static const char **
name_outputs(module *x)
{
    fg_module *m = x->c.m;
    const char **name = FG_NEWN(x->c.a, const char *, (size_t)m->noutput + 1);

    for (int k = 0; k < m->noutput; k++) {
        fg_reg r = m->output[k].reg;
        name[k] = name_argument(x, m->output[k].name);
        if (!x->place[r] && fg_is_op(fg_def(m, r), FG_OP_kernel))
            x->place[r] = name[k];
    }
    return name;
}

static void
print_main(module *x, const char *const *output)
{
    fg_module *m = x->c.m;

    fg_each_inst(m->body, i) {
        if (x->c.failed)
            return;
        x->c.kernel = i;
        if (i->op == FG_OP_const)
            x->place[i->out[0]] = const_weight(x, i);
        else if (i->op == FG_OP_kernel)
            print_kernel(x, i);
        else if (i->op == FG_OP_require)
            fg_putf(&x->calls, "    if (%s != %s)\n        return 2;\n",
                    cc_expr(&x->c, FG_GET(i, require, a).e),
                    cc_expr(&x->c, FG_GET(i, require, b).e));
        else if (i->op != FG_OP_ret)
            cc_refuse(&x->c, i, "control that depends on data");
    }
    for (int k = 0; k < m->noutput; k++)
        if (x->place[m->output[k].reg] != output[k])
            fg_putf(&x->calls, "    memcpy(%s, %s, (size_t)(%s));\n", output[k],
                    x->place[m->output[k].reg], bytes_of(x, fg_rt(m, m->output[k].reg)));
}

static void
put_size_parameters(module *x, fg_text *o, bool last)
{
    bool some = false;

    for (uint32_t s = 0; s < fg_sym_count(x->c.m->ex); s++)
        if (x->c.symbol[s]) {
            fg_putf(o, "%sint64_t %s", some ? ", " : "", x->c.symbol[s]);
            some = true;
        }
    fg_puts(o, last ? some ? "" : "void" : some ? ", " : "");
}

/* Weights behind the inputs that may be left out. */
static void
keep_defaults(module *x)
{
    fg_module *m = x->c.m;

    for (int k = 0; k < m->ninput; k++) {
        const fg_port *p = &m->input[k];
        if (p->weight >= 0 && x->calls.n && mentions(x->calls.s, x->place[p->reg]))
            new_weight(x, p->weight, fg_rt(m, p->reg));
    }
}

static const char *
signature(module *x, const char *const *output)
{
    fg_module *m = x->c.m;
    fg_text o = fg_text_new(x->c.a);

    fg_putf(&o, "%s_run(", x->name);
    put_size_parameters(x, &o, false);
    fg_puts(&o, "const void *weights, void *work");
    for (int k = 0; k < m->ninput; k++)
        fg_putf(&o, ", const %s *%s", cc_store_type(fg_rt(m, m->input[k].reg)->dtype),
                x->place[m->input[k].reg]);
    for (int k = 0; k < m->noutput; k++)
        fg_putf(&o, ", %s *%s", cc_store_type(fg_rt(m, m->output[k].reg)->dtype),
                output[k]);
    fg_puts(&o, ")");
    return o.s;
}

static void
put_shape(module *x, fg_text *o, const char *name, fg_reg r, const char *more)
{
    const fg_type *t = fg_rt(x->c.m, r);

    fg_putf(o, " *   %s: %s", name, fg_dtypes[t->dtype].name);
    for (int k = 0; k < t->rank; k++)
        fg_putf(o, "[%s]", cc_expr(&x->c, t->dim[k]));
    fg_putf(o, "%s\n", more);
}

static const char *
header(module *x, const char *run, const char *const *output)
{
    fg_module *m = x->c.m;
    fg_text o = fg_text_new(x->c.a);

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
            " * bounds; 2: sizes do not fit each other. Any number of threads may run it "
            "at once.\n"
            " */\n#ifndef %s_MODEL\n#define %s_MODEL\n\n#include <stddef.h>\n"
            "#include <stdint.h>\n\n#ifdef __cplusplus\nextern \"C\" {\n#endif\n\nsize_t "
            "%s_work_bytes(",
            x->end, x->name, x->name, x->name, x->name, x->name);
    put_size_parameters(x, &o, true);
    fg_putf(&o, ");\nint %s;\n\n#ifdef __cplusplus\n}\n#endif\n\n#endif\n", run);
    return o.s;
}

static void
put_bounds(module *x, fg_text *o)
{
    for (uint32_t s = 0; s < fg_sym_count(x->c.m->ex); s++) {
        const fg_syminfo *i = fg_sym_info(x->c.m->ex, s);
        const char *n = x->c.symbol[s];
        if (!n)
            continue;
        fg_putf(o, "    if (%s < %lld", n, (long long)i->lo);
        if (i->hi != INT64_MAX)
            fg_putf(o, " || %s > %lld", n, (long long)i->hi);
        fg_puts(o, ")\n        return 1;\n");
    }
}

/* Inputs may have been folded away. */
static void
put_unused(module *x, fg_text *o)
{
    const char *calls = x->calls.n ? x->calls.s : "";

    for (int k = 0; k < x->c.m->ninput; k++) {
        const fg_port *p = &x->c.m->input[k];
        const char *name = x->place[p->reg];
        if (!mentions(calls, name))
            fg_putf(o, "    (void)%s;\n", name);
        else if (p->weight >= 0)
            fg_putf(o, "    %s = %s ? %s : %s;\n", name, name, name,
                    x->weight[p->weight]);
    }
    if (!x->nbuffer)
        fg_puts(o, "    (void)top;\n");
    if (!x->nfile)
        fg_puts(o, "    (void)weights;\n");
}

static const char *
source(module *x, const char *run)
{
    fg_text body = fg_text_new(x->c.a), o = fg_text_new(x->c.a);

    fg_puts(&body, x->kernels.n ? x->kernels.s : "");
    fg_putf(&body, "size_t\n%s_work_bytes(", x->name);
    put_size_parameters(x, &body, true);
    fg_puts(&body, ")\n{\n    size_t n = 0;\n\n");
    fg_puts(&body, x->bytes.n ? x->bytes.s : "");
    for (uint32_t s = 0; s < fg_sym_count(x->c.m->ex); s++)
        if (x->c.symbol[s])
            fg_putf(&body, "    (void)%s;\n", x->c.symbol[s]);
    fg_putf(&body, "    return n;\n}\n\nint\n%s\n{\n    char *top = work;\n", run);
    fg_puts(&body, x->weights.n ? x->weights.s : "");
    fg_puts(&body, x->takes.n ? x->takes.s : "");
    fg_puts(&body, "\n");
    put_unused(x, &body);
    put_bounds(x, &body);
    fg_puts(&body, x->calls.n ? x->calls.s : "");
    fg_puts(&body, "    return 0;\n}\n");

    fg_putf(&o,
            "/* %s - see %s.h */\n#include \"%s.h\"\n\n#include <math.h>\n"
            "#include <stdlib.h>\n#include <string.h>\n\n",
            x->name, x->name, x->name);
    cc_put_helpers(&o, body.s);
    fg_puts(&o, x->nfile
                    ? "static const void *\nat(const void *weights, size_t offset)\n{\n"
                      "    return (const char *)weights + offset;\n}\n\n"
                    : "");
    fg_puts(&o,
            x->nbuffer
                ? "/* Bytes that n bytes take in `work`. */\nstatic size_t\nroom(int64_t "
                  "n)\n{\n"
                  "    return ((size_t)n + 63) / 64 * 64;\n}\n\n"
                  "static void *\ntake(char **top, int64_t n)\n{\n    char *p = *top;\n\n"
                  "    *top += room(n);\n    return p;\n}\n\n"
                : "");
    fg_puts(&o, body.s);
    return o.s;
}

bool
fg_source_make(fg_module *m, fg_arena *a, const char *name, fg_source_text *out)
{
    module *x = FG_NEW(a, module);

    x->name = name;
    x->c.m = m;
    x->c.a = a;
    x->c.buffer = new_buffer;
    x->c.user = x;
    x->c.symbol = FG_NEWN(a, const char *, (size_t)fg_sym_count(m->ex) + 1);
    x->c.array = FG_NEWN(a, const char *, m->nreg);
    x->place = FG_NEWN(a, const char *, m->nreg);
    x->weight = FG_NEWN(a, const char *, (size_t)m->nweight + 1);
    x->kernels = fg_text_new(a);
    x->takes = fg_text_new(a);
    x->bytes = fg_text_new(a);
    x->calls = fg_text_new(a);
    x->weights = fg_text_new(a);
    name_arguments(x);
    const char **output = name_outputs(x);
    print_main(x, output);
    keep_defaults(x);
    if (x->c.failed)
        return false;
    const char *run = signature(x, output);
    *out = (fg_source_text){source(x, run), header(x, run, output), x->file, x->nfile,
                            x->end};
    return true;
}
