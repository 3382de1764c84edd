/* buffers.c - memory of the values between kernels, and where weights are.
 *
 *     float *b0 = take(&top, 4 * (batch * 32));         inside `work`, for the whole run
 *     int64_t *b1 = NULL;                               of a size that is found while running
 *     ..
 *     if (!(b1 = fit(&open[0], times(8, n_))))
 *         return 3;
 */
#include "codegen/c/module.h"

void
cc_call(cc_module *x, const char *fmt, ...)
{
    va_list ap;

    for (int k = 0; k < x->depth; k++)
        fg_puts(&x->calls, "    ");
    va_start(ap, fmt);
    fg_vputf(&x->calls, fmt, ap);
    va_end(ap);
    fg_putc(&x->calls, '\n');
}

bool
cc_is_open(const cc_module *x, const fg_type *t)
{
    for (int k = 0; k < t->rank; k++)
        if (fg_e_mentions(x->c.m->ex, t->dim[k], FG_SYM_RUN))
            return true;
    return false;
}

/* What data decides may be any number: products of it must not overflow. */
const char *
cc_bytes(cc_module *x, const fg_type *t)
{
    int bits = fg_dtypes[t->dtype].bits;

    x->c.careful = cc_is_open(x, t);
    const char *n = cc_count(&x->c, t, 0);
    const char *each = fg_format(x->c.a, "%d", bits / 8);
    n = bits < 8 ? fg_format(x->c.a, "(%s + 1) / 2", n) : cc_times(&x->c, each, n);
    x->c.careful = false;
    return n;
}

/* A new name, declared with memory unless the size is open. */
static const char *
declare(cc_module *x, const fg_type *t, const char *meaning)
{
    const char *name = fg_format(x->c.a, "b%d", x->nbuffer++);
    bool open = cc_is_open(x, t);

    fg_putf(&x->takes, "    %s *%s = ", cc_store_type(t->dtype), name);
    if (open) {
        fg_puts(&x->takes, "NULL; /* ");
    } else {
        const char *n = cc_bytes(x, t);
        fg_putf(&x->takes, "take(&top, %s); /* ", n);
        fg_putf(&x->bytes, "    n += room(%s);\n", n);
        x->ntake++;
    }
    cc_put_comment(&x->takes, meaning);
    fg_puts(&x->takes, " */\n");
    return name;
}

static void
fit(cc_module *x, const char *name, int slot, const char *bytes)
{
    cc_call(x, "if (!(%s = fit(&open[%d], %s)))", name, slot, bytes);
    cc_call(x, "    return 3;");
}

void
cc_declare(cc_module *x, fg_reg r, const char *meaning)
{
    const fg_type *t = fg_rt(x->c.m, r);

    if (x->place[r])
        return;
    x->place[r] = declare(x, t, meaning);
    if (cc_is_open(x, t))
        x->slot[r] = ++x->nopen;
}

void
cc_fit(cc_module *x, fg_reg r, const char *bytes)
{
    fit(x, x->place[r], x->slot[r] - 1, bytes);
}

const char *
cc_new_buffer(void *module, const fg_type *t, const char *meaning)
{
    cc_module *x = module;
    const char *name = declare(x, t, meaning);

    if (cc_is_open(x, t))
        fit(x, name, x->nopen++, cc_bytes(x, t));
    return name;
}

/* Puts weight k at the next multiple of 64 of the file, once; its name. */
const char *
cc_new_weight(cc_module *x, int64_t k, const fg_type *t)
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
    cc_put_comment(&x->weights, w->name ? w->name : "");
    fg_puts(&x->weights, " */\n");
    FG_PUSH(x->c.a, x->file, x->nfile, x->capfile) =
        (fg_source_weight){w->data, w->bytes, x->end};
    x->end = (x->end + w->bytes + 63) & ~(size_t)63;
    return name;
}
