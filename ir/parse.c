/* parse.c - text to module; the inverse of print.c, which describes the format.
 *
 * One line is one instruction. Names are resolved while reading, so a register must be
 * defined above its use and in a block around it, and every instruction is made through
 * fg_inst_finish: its operands are checked and its types inferred like anybody's, then
 * compared with what is written. The text may be hostile: nesting is bounded, memory
 * grows with the length of the text only, files are looked for inside the given folder
 * only, and every complaint says NAME:LINE:COL.
 */
#include "ir/parse.h"

#include <limits.h>

#define MAX_SYMBOLS 4096 /* they are looked up one by one */
#define MAX_DEPTH 64     /* of regions in regions */

/* ---- instructions ----------------------------------------------------------------- */

/* An instruction as far as it has been read. */
typedef struct line {
    const char *at;    /* its operation */
    const char **name; /* of its results */
    fg_typed *type;
    fg_reg *in;
    size_t nname, capname, ntype, captype, nin, capin;
} line;

static bool
results(fg_parser *p, line *l)
{
    if (*p->s != '%')
        return true;
    do {
        fg_lex_blank(p);
        const char *at = p->s, *s = fg_parse_new_name(p);
        if (!s)
            return false;
        for (size_t k = 0; k < l->nname; k++)
            if (l->name[k] == s)
                return fg_lex_fail(p, at, "%%%s is defined twice", s);
        FG_PUSH(p->a, l->name, l->nname, l->capname) = s;
    } while (fg_lex_take(p, ','));
    return fg_lex_expect(p, '=');
}

static bool
operands(fg_parser *p, const fg_block *b, line *l)
{
    fg_lex_blank(p);
    if (*p->s != '%' && *p->s != '_')
        return true;
    do {
        fg_reg r;
        if (!fg_parse_operand(p, b, &r))
            return false;
        FG_PUSH(p->a, l->in, l->nin, l->capin) = r;
    } while (fg_lex_take(p, ','));
    return true;
}

static bool
types(fg_parser *p, line *l)
{
    if (fg_lex_take(p, ':')) {
        do {
            fg_typed t;
            if (!fg_parse_typed(p, &t))
                return false;
            FG_PUSH(p->a, l->type, l->ntype, l->captype) = t;
        } while (fg_lex_take(p, ','));
    }
    return l->ntype == l->nname ||
           fg_lex_fail(p, p->s, "%d results, but %d types", (int)l->nname, (int)l->ntype);
}

static bool
nodes(fg_parser *p, fg_inst *i)
{
    size_t cap = 0, n = 0;
    if (!fg_lex_take(p, '!'))
        return true;
    do {
        const char *s = fg_lex_quoted(p);
        if (!s)
            return false;
        FG_PUSH(p->a, i->node, n, cap) = s;
    } while (fg_lex_take(p, ','));
    i->nnode = (int)n;
    return true;
}

static bool block(fg_parser *p, fg_block *b);

/* `(%x: f32[4]) { .. } else { .. }`; the node names stand behind the first brace. */
static bool
regions(fg_parser *p, fg_build *at, fg_inst *i)
{
    size_t cap = 0, n = 0;
    fg_lex_blank(p);
    if (*p->s != '(' && *p->s != '{')
        return true;
    if (++p->depth > MAX_DEPTH)
        return fg_lex_fail(p, p->s, "regions nested deeper than %d", MAX_DEPTH);
    do {
        fg_block *b = fg_block_new(p->m, i, at->block);
        fg_lex_blank(p);
        if (*p->s == '(' && !fg_parse_params(p, b))
            return false;
        if (!fg_lex_expect(p, '{') || (!n && !nodes(p, i)) || !fg_lex_end(p))
            return false;
        FG_PUSH(p->a, i->region, n, cap) = b;
        i->nregion = (int)n;
        if (!block(p, b))
            return false;
    } while (fg_lex_word(p, "else"));
    p->depth--;
    return true;
}

/* Makes the instruction and compares its types with those written. */
static bool
finish(fg_parser *p, fg_build *b, fg_inst *i, const line *l)
{
    const fg_opinfo *info = fg_op_info(i->op);
    if (info->nout != FG_OUTS_N && (int)l->nname != info->nout)
        return fg_lex_fail(p, l->at, "%s has %d results, not %d", info->name, info->nout,
                           (int)l->nname);
    fg_type *given = FG_NEWN(p->a, fg_type, l->ntype);
    for (size_t k = 0; k < l->ntype; k++)
        given[k] = l->type[k].type;
    fg_diag *last = p->cx->last_diag;
    b->name = l->name;
    if (!fg_inst_finish(b, i, given, (int)l->ntype))
        return fg_lex_locate(p, l->at, last);
    for (int k = 0; k < i->nout; k++) {
        fg_reg r = i->out[k];
        for (int d = 0; d < given[k].rank; d++)
            given[k].dim[d] = fg_e_renew(p->m->ex, given[k].dim[d]);
        if (!fg_type_equal(&given[k], fg_rt(p->m, r)))
            return fg_lex_fail(p, l->type[k].at, "%%%s is %s, not %s",
                               fg_ri(p->m, r)->name, fg_type_text(p->m, fg_rt(p->m, r)),
                               fg_type_text(p->m, &given[k]));
        fg_parse_bind(p, l->name[k], r);
        fg_parse_storage(p, r, &l->type[k]);
    }
    return true;
}

static bool
instruction(fg_parser *p, fg_build *b)
{
    line l = {0};
    if (!results(p, &l))
        return false;
    fg_lex_blank(p);
    l.at = p->s;
    while (fg_is_bare(*p->s) && *p->s != '/')
        p->s++;
    size_t n = (size_t)(p->s - l.at);
    fg_op op = fg_op_by_name(l.at, n);
    if (!op)
        return fg_lex_fail(p, l.at, n ? "unknown operation" : "expected an operation");
    if (!operands(p, b->block, &l))
        return false;
    if (l.nin > INT_MAX / 2)
        return fg_lex_fail(p, l.at, "too many operands");
    fg_inst *i = fg_inst_begin(b, op, (int)l.nin, l.in);
    i->block = b->block;
    fg_lex_blank(p);
    /* A brace that ends its line opens a region. */
    size_t gap = *p->s == '{' ? 1 + strspn(p->s + 1, " \t\r") : 0;
    if (gap && !strchr("\n;!", p->s[gap]) && (p->s++, !fg_parse_attrs(p, i)))
        return false;
    if (!types(p, &l) || !regions(p, b, i) || (!i->nregion && !nodes(p, i)))
        return false;
    const char *end = p->s;
    fg_lex_blank(p);
    if (*p->s && *p->s != ';' && *p->s != '\n')
        return fg_lex_fail(p, p->s, "expected the end of the line");
    p->s = end;
    return finish(p, b, i, &l) && fg_lex_end(p);
}

/* Instructions up to the closing brace, which it takes. */
static bool
block(fg_parser *p, fg_block *b)
{
    fg_build at = fg_build_end(b);
    fg_lex_space(p);
    while (*p->s != '}') {
        if (!*p->s)
            return fg_lex_fail(p, p->s, "expected '}'");
        if (b->last && fg_op_is(b->last->op, FG_T_TERM))
            return fg_lex_fail(p, p->s, "instruction behind the end of the block");
        if (!instruction(p, &at))
            return false;
    }
    if (!b->last || b->last->op != (b->owner ? FG_OP_yield : FG_OP_ret))
        return fg_lex_fail(p, p->s, "block does not end in %s",
                           b->owner ? "yield" : "ret");
    p->s++;
    return true;
}

/* ---- module ----------------------------------------------------------------------- */

static bool
module_line(fg_parser *p)
{
    return (p->m->name = fg_lex_quoted(p));
}

static bool
stage_line(fg_parser *p)
{
    for (int k = 0; k <= FG_STAGE_PLACED; k++)
        if (fg_lex_word(p, fg_stage_text[k])) {
            p->m->stage = (fg_stage)k;
            return true;
        }
    return fg_lex_fail(p, p->s, "expected tensor, fused or placed");
}

static bool
bound(fg_parser *p, int64_t *v)
{
    fg_lex_blank(p);
    return (*p->s != '-' && !fg_is_digit(*p->s)) || fg_lex_int(p, v);
}

static bool
symbol_line(fg_parser *p)
{
    int64_t lo = INT64_MIN, hi = INT64_MAX, usual = 0;
    fg_lex_blank(p);
    const char *at = p->s;
    const char *s = fg_parse_symbol(p->m->ex, &p->s);
    if (!s)
        return fg_lex_fail(p, at, "expected a symbol's name");
    if (fg_sym_find(p->m->ex, s) >= 0)
        return fg_lex_fail(p, at, "%s is declared twice", s);
    if (fg_sym_count(p->m->ex) >= MAX_SYMBOLS)
        return fg_lex_fail(p, at, "more than %d symbols", MAX_SYMBOLS);
    fg_symkind kind = fg_lex_word(p, "run") ? FG_SYM_RUN : FG_SYM_INPUT;
    if (!fg_lex_word(p, "in"))
        return fg_lex_fail(p, p->s, "expected 'in'");
    if (!bound(p, &lo) || !fg_lex_expect(p, '.') || !fg_lex_expect(p, '.') ||
        !bound(p, &hi))
        return false;
    if (fg_lex_take(p, '.')) { /* the usual size stood between the bounds */
        usual = hi;
        hi = INT64_MAX;
        if (!fg_lex_expect(p, '.') || !bound(p, &hi))
            return false;
    }
    if (lo > hi || (usual && (usual < lo || usual > hi)))
        return fg_lex_fail(p, at, "no value between the bounds");
    fg_expr is = FG_E_BAD;
    if (fg_lex_word(p, "is") && !fg_lex_expr(p, &is))
        return false;
    fg_sym made = fg_sym_new(p->m->ex, s, kind, lo, hi);
    fg_sym_info(p->m->ex, made)->is = is;
    fg_sym_info(p->m->ex, made)->usual = usual;
    return true;
}

static bool
weight_line(fg_parser *p)
{
    const char *at = p->s, *why;
    int64_t number;
    fg_weight w;
    if (!fg_lex_int(p, &number))
        return false;
    if (number != (int64_t)p->nweight)
        return fg_lex_fail(p, at, "expected weight $%d", (int)p->nweight);
    if (!fg_lex_expect(p, '='))
        return false;
    fg_lex_blank(p);
    bool ok = fg_parse_weight_type(&p->s, &w, &why);
    if (ok && fg_lex_word(p, "file")) {
        const char *path = fg_lex_quoted(p);
        int64_t offset;
        if (!path || !fg_lex_expect(p, '+') || !fg_lex_int(p, &offset))
            return false;
        ok = fg_read_weight(p->a, p->dir, p->like, path, offset, &w, &why);
        p->s = ok ? p->s : at;
    } else if (ok) {
        ok = fg_parse_weight_data(p->a, &p->s, &w, &why);
    }
    if (!ok)
        return fg_lex_fail(p, p->s, "%s", why);
    if (fg_lex_take(p, '!') && !(w.name = fg_lex_quoted(p)))
        return false;
    FG_PUSH(p->a, p->weight, p->nweight, p->capweight) = fg_weight_add(p->m, &w);
    return true;
}

static bool
input_line(fg_parser *p)
{
    struct port io = {.name = fg_lex_quoted(p), .weight = -1};
    if (!io.name)
        return false;
    fg_lex_blank(p);
    io.at = p->s;
    if (!fg_lex_expect(p, '%') || !(io.reg = fg_lex_name(p, "a register's name")))
        return false;
    if (fg_lex_take(p, '=') && !fg_parse_weight(p, &io.weight))
        return false;
    FG_PUSH(p->a, p->input, p->ninput, p->capinput) = io;
    return true;
}

static bool
output_line(fg_parser *p)
{
    fg_lex_blank(p);
    struct port io = {.at = p->s, .name = fg_lex_quoted(p), .weight = -1};
    if (!io.name)
        return false;
    FG_PUSH(p->a, p->output, p->noutput, p->capoutput) = io;
    return true;
}

/* `{axis=2}`, `{axis=2, length=P, next=P+S}`, or `{.., at=R, keep=511}` */
static bool
state_attrs(fg_parser *p, struct statepair *s)
{
    if (!fg_lex_word(p, "axis") || !fg_lex_expect(p, '=') || !fg_lex_int(p, &s->axis))
        return fg_lex_fail(p, p->s, "expected axis=");
    if (!fg_lex_take(p, ','))
        return fg_lex_expect(p, '}');
    if (!fg_lex_word(p, "length") || !fg_lex_expect(p, '=') ||
        !fg_lex_expr(p, &s->length) || !fg_lex_expect(p, ',') ||
        !fg_lex_word(p, "next") || !fg_lex_expect(p, '=') || !fg_lex_expr(p, &s->next))
        return fg_lex_fail(p, p->s, "expected length= and next=");
    if (fg_lex_take(p, ',') &&
        (!fg_lex_word(p, "at") || !fg_lex_expect(p, '=') || !fg_lex_expr(p, &s->row) ||
         !fg_lex_expect(p, ',') || !fg_lex_word(p, "keep") || !fg_lex_expect(p, '=') ||
         !fg_lex_int(p, &s->keep)))
        return fg_lex_fail(p, p->s, "expected at= and keep=");
    return fg_lex_expect(p, '}');
}

static bool
state_line(fg_parser *p)
{
    fg_lex_blank(p);
    struct statepair s = {.at = p->s, .axis = -1};
    if (!(s.input = fg_lex_quoted(p)) || !fg_lex_expect(p, '-') ||
        !fg_lex_expect(p, '>') || !(s.output = fg_lex_quoted(p)))
        return false;
    if (fg_lex_take(p, '{') && !state_attrs(p, &s))
        return false;
    FG_PUSH(p->a, p->state, p->nstate, p->capstate) = s;
    return true;
}

static int
find_port(const fg_port *port, int n, const char *name)
{
    int k = 0;
    while (k < n && strcmp(port[k].name, name))
        k++;
    return k;
}

static bool
set_states(fg_parser *p)
{
    fg_module *m = p->m;
    m->state = FG_NEWN(p->a, fg_state, p->nstate);
    for (size_t k = 0; k < p->nstate; k++) {
        const struct statepair *s = &p->state[k];
        int in = find_port(m->input, m->ninput, s->input);
        int out = find_port(m->output, m->noutput, s->output);
        if (in == m->ninput || out == m->noutput ||
            s->axis >= fg_rt(m, m->input[in].reg)->rank || s->axis < (s->length ? 0 : -1))
            return fg_lex_fail(p, s->at, "no such input, output or axis");
        m->state[m->nstate++] =
            (fg_state){in,
                       out,
                       (int)s->axis,
                       s->length ? fg_e_renew(m->ex, s->length) : FG_E_BAD,
                       s->next ? fg_e_renew(m->ex, s->next) : FG_E_BAD,
                       s->row ? fg_e_renew(m->ex, s->row) : FG_E_BAD,
                       s->keep};
    }
    return true;
}

static bool
set_inputs(fg_parser *p)
{
    fg_module *m = p->m;
    m->ninput = m->body->nparam;
    m->input = FG_NEWN(p->a, fg_port, (size_t)m->ninput);
    for (int k = 0; k < m->ninput; k++) {
        fg_reg r = m->body->param[k];
        m->input[k] = (fg_port){fg_ri(m, r)->name, r, -1};
        if (!p->ninput)
            continue;
        const struct port *io = &p->input[k];
        if (k >= (int)p->ninput || io->reg != fg_ri(m, r)->name)
            return fg_lex_fail(p, k < (int)p->ninput ? io->at : p->s,
                               "input %d is parameter %%%s", k, fg_ri(m, r)->name);
        m->input[k].name = io->name;
        m->input[k].weight = io->weight;
    }
    return (int)p->ninput <= m->ninput ||
           fg_lex_fail(p, p->input[m->ninput].at, "@main has only %d parameters",
                       m->ninput);
}

static bool
set_outputs(fg_parser *p)
{
    fg_module *m = p->m;
    const fg_inst *ret = m->body->last;
    m->noutput = ret->nin;
    m->output = FG_NEWN(p->a, fg_port, (size_t)m->noutput);
    for (int k = 0; k < m->noutput; k++) {
        if (!ret->in[k])
            return fg_lex_fail(p, p->s, "output %d is missing", k);
        m->output[k] = (fg_port){fg_ri(m, ret->in[k])->name, ret->in[k], -1};
        if (k < (int)p->noutput)
            m->output[k].name = p->output[k].name;
    }
    return !p->noutput || (int)p->noutput == m->noutput ||
           fg_lex_fail(p, p->output[0].at, "%d outputs, but ret has %d operands",
                       (int)p->noutput, m->noutput);
}

static bool
function(fg_parser *p)
{
    fg_block *b = p->m->body;
    fg_typed *result = NULL;
    size_t n = 0, cap = 0;
    if (!fg_lex_word(p, "func"))
        return fg_lex_fail(p, p->s, "expected a declaration or func @main");
    if (!fg_lex_expect(p, '@') || !fg_lex_word(p, "main"))
        return fg_lex_fail(p, p->s, "expected @main");
    if (!fg_parse_params(p, b) || !set_inputs(p))
        return false;
    if (fg_lex_take(p, '-')) {
        if (!fg_lex_expect(p, '>'))
            return false;
        do {
            fg_typed t;
            if (!fg_parse_typed(p, &t))
                return false;
            FG_PUSH(p->a, result, n, cap) = t;
        } while (fg_lex_take(p, ','));
    }
    const char *at = p->s;
    if (!fg_lex_expect(p, '{') || !fg_lex_end(p) || !block(p, b) || !set_outputs(p) ||
        !set_states(p))
        return false;
    if ((int)n != b->last->nin)
        return fg_lex_fail(p, at, "%d result types, but ret has %d operands", (int)n,
                           b->last->nin);
    for (size_t k = 0; k < n; k++) {
        const fg_type *t = fg_rt(p->m, b->last->in[k]);
        for (int d = 0; d < result[k].type.rank; d++)
            result[k].type.dim[d] = fg_e_renew(p->m->ex, result[k].type.dim[d]);
        if (!fg_type_equal(&result[k].type, t))
            return fg_lex_fail(p, result[k].at, "result %d is %s", (int)k,
                               fg_type_text(p->m, t));
    }
    return true;
}

static bool
module(fg_parser *p)
{
    static const struct {
        const char *word;
        bool (*read)(fg_parser *);
    } lines[] = {
        {"module", module_line}, {"stage", stage_line},   {"sym", symbol_line},
        {"input", input_line},   {"output", output_line}, {"state", state_line},
    };
    fg_lex_space(p);
    for (;;) {
        size_t k = 0, n = sizeof lines / sizeof *lines;
        while (k < n && !fg_lex_word(p, lines[k].word))
            k++;
        if (k == n && !fg_lex_take(p, '$'))
            break;
        if (!(k < n ? lines[k].read(p) : weight_line(p)) || !fg_lex_end(p))
            return false;
    }
    if (!function(p))
        return false;
    fg_lex_space(p);
    if (*p->s)
        return fg_lex_fail(p, p->s, "expected the end of the text");
    for (size_t k = 0; k < p->nalias; k++) {
        const struct alias *al = &p->alias[k];
        if (!(fg_ri(p->m, al->reg)->alias = fg_parse_reg(p, al->name)))
            return fg_lex_fail(p, al->at, "%%%s is not defined", al->name);
    }
    return true;
}

static fg_module *
parse(fg_parser p, const char *text)
{
    p.text = p.s = text;
    p.m = fg_module_new(p.cx, p.a, "");
    if (strnlen(text, INT_MAX) == INT_MAX) {
        fg_error(p.cx, "%s: text of more than %d bytes", p.file, INT_MAX - 1);
        return NULL;
    }
    return module(&p) ? p.m : NULL;
}

fg_module *
fg_parse(fg_ctx *cx, fg_arena *a, const char *file, const char *text, const char *dir)
{
    return parse((fg_parser){.cx = cx, .a = a, .file = file, .dir = dir}, text);
}

fg_module *
fg_parse_again(fg_module *like, fg_arena *a, const char *file, const char *text)
{
    return parse((fg_parser){.cx = like->cx, .a = a, .file = file, .like = like}, text);
}
