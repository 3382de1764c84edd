/* op.c - the tables that ops.def describes. */
#include "ir/op.h"

#include <limits.h>
#include <pthread.h>

/* clang-format off */
#define AK_int(x)    {.i = (x)}
#define AK_flag(x)   {.i = (x)}
#define AK_dtype(x)  {.i = (x)}
#define AK_weight(x) {.i = (x)}
#define AK_sym(x)    {.i = (x)}
#define AK_flt(x)    {.f = (x)}
#define AK_word(x)   {.s = (x)}
#define AK_expr(x)   {.e = FG_E_BAD}
#define AK_exprs(x)  {.es = NULL}
#define AK_ints(x)   {.is = NULL}
#define AK_syms(x)   {.is = NULL}

const fg_attrinfo fg_attrs[FG_NATTRS] = {
#define OP(id, ...)
#define ATTR(op, nm, knd, dflt_, mean)                                                   \
    [FG_AT_##op##_##nm] = {.name = #nm, .meaning = mean, .kind = FG_AK_##knd, .dflt = AK_##knd(dflt_)},
#include "ir/ops.def"
};

enum { PURE = FG_T_PURE, COMM = FG_T_COMM, ELEM = FG_T_ELEM, VIEW = FG_T_VIEW, REGION = FG_T_REGION,
       TERM = FG_T_TERM, EFFECT = FG_T_EFFECT, ANCHOR = FG_T_ANCHOR, N = FG_OUTS_N };

/* The evaluator's own walk computes these; the row says `none`. */
bool
fg_eval_none(struct fg_evalcall *c)
{
    (void)c;
    return false;
}

static fg_opinfo info[FG_NOPS] = {
#define OP(id, operands_, outs, shape_, eval_, traits_, mean)                             \
    [FG_OP_##id] = {.name = #id, .operands = operands_, .meaning = mean, .nout = outs,    \
                    .traits = traits_, .shape = fg_shape_##shape_,                        \
                    .eval = fg_eval_##eval_ == fg_eval_none ? NULL : fg_eval_##eval_},
#include "ir/ops.def"
};

/* Which op each attribute belongs to, to find attr0 and nattr. */
static const uint16_t attr_op[FG_NATTRS] = {
#define OP(id, ...)
#define ATTR(op, nm, ...) [FG_AT_##op##_##nm] = FG_OP_##op,
#include "ir/ops.def"
};

/* clang-format on */

static const struct {
    const char *word;
    fg_inclass cls;
} classes[] = {
    {"any", FG_IN_any},   {"num", FG_IN_num}, {"flt", FG_IN_flt},   {"int", FG_IN_int},
    {"bool", FG_IN_bool}, {"i64", FG_IN_i64}, {"same", FG_IN_same},
};

static void
parse_operands(fg_opinfo *o)
{
    for (const char *s = o->operands; *s;) {
        size_t n = strcspn(s, " ?*");
        fg_operand *p = &o->operand[o->noperand++];
        for (size_t c = 0; c < sizeof classes / sizeof *classes; c++)
            if (strlen(classes[c].word) == n && memcmp(classes[c].word, s, n) == 0)
                p->cls = (uint8_t)classes[c].cls;
        for (s += n; *s == '?' || *s == '*'; s++)
            *(*s == '?' ? &p->optional : &p->repeat) = true;
        if (!p->optional && !p->repeat)
            o->min_in = o->noperand;
        o->max_in = p->repeat ? INT_MAX : o->noperand;
        s += *s == ' ';
    }
}

static void
finish_table(void)
{
    for (int op = 1; op < FG_NOPS; op++)
        parse_operands(&info[op]);
    for (int at = FG_NATTRS - 1; at >= 0; at--) {
        info[attr_op[at]].attr0 = at;
        info[attr_op[at]].nattr++;
    }
}

const fg_opinfo *
fg_op_info(fg_op op)
{
    /* The derived columns are the same whoever computes them; once is enough. */
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, finish_table);
    return &info[op];
}

fg_op
fg_op_by_name(const char *s, size_t n)
{
    for (int op = 1; op < FG_NOPS; op++)
        if (strlen(info[op].name) == n && memcmp(info[op].name, s, n) == 0)
            return (fg_op)op;
    return FG_OP_NONE;
}
