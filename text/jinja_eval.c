/* jinja_eval.c - running a template's tree.
 *
 * A loop and a macro have variables of their own: what is set inside is gone behind them,
 * which is why templates carry what must stay in a namespace.
 */
#include <cjson/cJSON.h>
#include <math.h>

#include "text/jinja.h"
#include "text/template.h"

static val eval(jinja *j, const node *n);
static void run(jinja *j, const node *n);

bool
jinja_step(jinja *j, int line)
{
    if (++j->steps > JINJA_STEPS)
        jinja_fail(j, line, "the template takes too many steps");
    else if (fg_arena_bytes(j->a) > (size_t)JINJA_BYTES * 8)
        jinja_fail(j, line, "the template takes too much memory");
    return !j->failed;
}

/* ---- variables ------------------------------------------------------------------------ */

static val
lookup(const jinja *j, fg_str name)
{
    for (const frame *f = j->top; f; f = f->up) {
        val *v = val_find(&f->vars, name);
        if (v)
            return *v;
    }
    if (jinja_is_builtin(name))
        return (val){V_BUILTIN, {.s = name}};
    return (val){V_UNDEFINED, {.s = name}};
}

/* *v as a list of `names` members; 0: it has more or fewer. */
static size_t
unpack(jinja *j, const node *n, size_t names, val *v)
{
    *v = jinja_items_of(j, n, *v);
    if (!j->failed && v->list->n != names)
        jinja_fail(j, n->line, "%zu names for %zu values", names, v->list->n);
    return j->failed ? 0 : names;
}

static void
assign(jinja *j, const node *target, val v)
{
    if (target->kind == N_NAME) {
        val_set(j, &j->top->vars, target->name, v);
    } else if (target->kind == N_ATTR) {
        val of = eval(j, target->a);
        if (of.kind == V_SPACE)
            val_set(j, of.dict, target->name, v);
        else
            jinja_fail(j, target->line, "a member of %s cannot be set", val_type(of));
    } else {
        for (size_t i = 0, k = unpack(j, target, target->nlist, &v); i < k; i++)
            assign(j, target->list[i], v.list->v[i]);
    }
}

/* ---- operators ------------------------------------------------------------------------ */

static val
join_text(jinja *j, const node *n, val x, val y)
{
    fg_text t = fg_text_new(j->a);

    val_write(j, &t, x, false);
    val_write(j, &t, y, false);
    if (t.n > JINJA_BYTES)
        return jinja_fail(j, n->line, "the text is too long");
    return val_of_str((fg_str){t.s, t.n});
}

static val
join_lists(jinja *j, val x, val y)
{
    val out = val_new_list(j);

    for (size_t i = 0; i < x.list->n; i++)
        val_push(j, out, x.list->v[i]);
    for (size_t i = 0; i < y.list->n; i++)
        val_push(j, out, y.list->v[i]);
    return out;
}

static val
no_operator(jinja *j, const node *n, val x, val y)
{
    val u = x.kind == V_UNDEFINED ? x : y;

    if (u.kind == V_UNDEFINED && u.s.n)
        return jinja_fail(j, n->line, "\"%.*s\" is undefined", (int)u.s.n, u.s.s);
    return jinja_fail(j, n->line, "this operator does not take %s and %s", val_type(x),
                      val_type(y));
}

/* Python's: the quotient is rounded down, the remainder has the divisor's sign. */
static val
integers(jinja *j, const node *n, int64_t x, int64_t y)
{
    int64_t r = 0;

    if ((n->op == T_FLOORDIV || n->op == '%') && (!y || (y == -1 && x == INT64_MIN)))
        return jinja_fail(j, n->line, "division by zero");
    bool over = n->op == '+'   ? __builtin_add_overflow(x, y, &r)
                : n->op == '-' ? __builtin_sub_overflow(x, y, &r)
                : n->op == '*' ? __builtin_mul_overflow(x, y, &r)
                               : false;
    if (over)
        return jinja_fail(j, n->line, "a number is too large");
    if (n->op == T_FLOORDIV)
        r = x / y - (x % y && (x < 0) != (y < 0));
    if (n->op == '%')
        r = x % y + (x % y && (x < 0) != (y < 0) ? y : 0);
    return val_of_int(r);
}

static val
arithmetic(jinja *j, const node *n, val x, val y)
{
    double f, g;

    if (!val_number(x, &f) || !val_number(y, &g))
        return no_operator(j, n, x, y);
    if (x.kind != V_FLOAT && y.kind != V_FLOAT && n->op != '/' && n->op != T_POW)
        return integers(j, n, x.i, y.i);
    if ((n->op == '/' || n->op == T_FLOORDIV || n->op == '%') && g == 0)
        return jinja_fail(j, n->line, "division by zero");
    double r = n->op == '+'          ? f + g
               : n->op == '-'        ? f - g
               : n->op == '*'        ? f * g
               : n->op == '/'        ? f / g
               : n->op == T_FLOORDIV ? floor(f / g)
               : n->op == '%'        ? f - g * floor(f / g)
                                     : pow(f, g);
    if (n->op == T_POW && x.kind == V_INT && y.kind == V_INT && g >= 0 && fabs(r) < 1e15)
        return val_of_int((int64_t)r);
    return (val){V_FLOAT, {.f = r}};
}

static val
ordered(jinja *j, const node *n, val x, val y)
{
    int c;

    if (!val_compare(j, x, y, &c))
        return no_operator(j, n, x, y);
    return val_of_bool(n->op == '<'    ? c < 0
                       : n->op == '>'  ? c > 0
                       : n->op == T_LE ? c <= 0
                                       : c >= 0);
}

val
jinja_add(jinja *j, const node *n, val x, val y)
{
    return arithmetic(j, &(node){.line = n->line, .op = '+'}, x, y);
}

/* A text or list, again and again. */
static val
times(jinja *j, const node *n, val x, int64_t count)
{
    val out = val_new_list(j);
    fg_text t = fg_text_new(j->a);

    for (int64_t k = 0; k < count && jinja_step(j, n->line); k++) {
        if (t.n > JINJA_BYTES)
            return jinja_fail(j, n->line, "the text is too long");
        if (x.kind == V_STR)
            fg_put_str(&t, x.s);
        for (size_t i = 0; x.kind == V_LIST && i < x.list->n && jinja_step(j, n->line);
             i++)
            val_push(j, out, x.list->v[i]);
    }
    if (x.kind == V_STR)
        return val_of_str((fg_str){t.s, t.n});
    out.list->tuple = x.list->tuple;
    return out;
}

bool
jinja_contains(jinja *j, const node *n, val in, val what)
{
    if (in.kind == V_STR && what.kind == V_STR)
        return !what.s.n || (in.s.n && memmem(in.s.s, in.s.n, what.s.s, what.s.n));
    if ((in.kind == V_DICT || in.kind == V_SPACE) && what.kind == V_STR)
        return val_find(in.dict, what.s) != NULL;
    if (in.kind == V_LIST) {
        for (size_t i = 0; i < in.list->n; i++)
            if (val_same(j, in.list->v[i], what))
                return true;
        return false;
    }
    if (in.kind != V_DICT && in.kind != V_SPACE && in.kind != V_UNDEFINED)
        no_operator(j, n, what, in);
    return false;
}

static val
binary(jinja *j, const node *n)
{
    val x = eval(j, n->a), y = eval(j, n->b);

    if (j->failed)
        return x;
    switch (n->op) {
    case T_EQ:
        return val_of_bool(val_same(j, x, y));
    case T_NE:
        return val_of_bool(!val_same(j, x, y));
    case T_IN:
        return val_of_bool(jinja_contains(j, n, y, x));
    case T_NOT_IN:
        return val_of_bool(!jinja_contains(j, n, y, x));
    case '~':
        return join_text(j, n, x, y);
    case '<':
    case '>':
    case T_LE:
    case T_GE:
        return ordered(j, n, x, y);
    case '+':
        if (x.kind == V_STR && y.kind == V_STR)
            return join_text(j, n, x, y);
        if (x.kind == V_LIST && y.kind == V_LIST)
            return join_lists(j, x, y);
        return arithmetic(j, n, x, y);
    case '*':
        if ((x.kind == V_STR || x.kind == V_LIST) && y.kind == V_INT)
            return times(j, n, x, y.i);
        if ((y.kind == V_STR || y.kind == V_LIST) && x.kind == V_INT)
            return times(j, n, y, x.i);
        return arithmetic(j, n, x, y);
    case '%':
        if (x.kind == V_STR) {
            bool several = y.kind == V_LIST && y.list->tuple;
            return jinja_format(j, n, x.s, several ? y.list->v : &y,
                                several ? y.list->n : 1);
        }
        return arithmetic(j, n, x, y);
    default:
        return arithmetic(j, n, x, y);
    }
}

/* ---- parts -------------------------------------------------------------------------- */

static val
item(jinja *j, const node *n)
{
    val of = eval(j, n->a), key = eval(j, n->b);

    if (j->failed)
        return of;
    if (key.kind == V_STR)
        return jinja_attr(j, n, of, key.s);
    if ((key.kind != V_INT && key.kind != V_BOOL) ||
        (of.kind != V_LIST && of.kind != V_STR))
        return of.kind == V_UNDEFINED ? no_operator(j, n, of, key) : (val){0};
    val all = jinja_items_of(j, n, of);
    int64_t i = key.i < 0 ? key.i + (int64_t)all.list->n : key.i;
    return i >= 0 && i < (int64_t)all.list->n ? all.list->v[i] : (val){0};
}

/* One end of a slice, as Python clips it. */
static int64_t
bound(jinja *j, const node *n, int64_t missing, int64_t size, int64_t least, int64_t most)
{
    val v = n ? eval(j, n) : (val){V_NONE, {0}};

    if (v.kind != V_INT)
        return missing;
    int64_t i = v.i < 0 ? v.i + size : v.i;
    return i < least ? least : i > most ? most : i;
}

static val
slice(jinja *j, const node *n)
{
    val of = eval(j, n->a), step = n->d ? eval(j, n->d) : val_of_int(1);

    if (j->failed || (of.kind != V_LIST && of.kind != V_STR) || step.kind != V_INT ||
        !step.i)
        return jinja_fail(j, n->line, "%s cannot be sliced", val_type(of));
    val all = jinja_items_of(j, n, of), out = val_new_list(j);
    int64_t size = (int64_t)all.list->n;
    bool up = step.i > 0;
    int64_t least = up ? 0 : -1, most = up ? size : size - 1;
    int64_t from = bound(j, n->b, up ? 0 : size - 1, size, least, most);
    int64_t to = bound(j, n->c, up ? size : -1, size, least, most);
    for (int64_t i = from; up ? i < to : i > to;) {
        val_push(j, out, all.list->v[i]);
        if (__builtin_add_overflow(i, step.i, &i))
            break;
    }
    if (of.kind == V_LIST)
        return out;
    fg_text t = fg_text_new(j->a);
    for (size_t i = 0; i < out.list->n; i++)
        fg_put_str(&t, out.list->v[i].s);
    return val_of_str((fg_str){t.s, t.n});
}

static args
arguments(jinja *j, const node *n)
{
    args a = {FG_NEWN(j->a, val, n->nlist + 1), n->names, n->nlist};

    for (size_t i = 0; i < n->nlist; i++)
        a.v[i] = eval(j, n->list[i]);
    return a;
}

static val
call_macro(jinja *j, const node *n, const node *m, const args *a)
{
    frame *outer = j->top, inside = {0};
    fg_text *out = j->out, t = fg_text_new(j->a);

    for (inside.up = outer; inside.up->up;) /* macros see the outermost variables */
        inside.up = inside.up->up;
    for (size_t k = 0; k < m->nnames; k++) {
        char name[100];
        size_t len = m->names[k].n < 99 ? m->names[k].n : 99;
        memcpy(name, m->names[k].s, len);
        name[len] = '\0';
        const val *given = args_get(a, k, name);
        val v = given ? *given : m->list[k] ? eval(j, m->list[k]) : (val){0};
        val_set(j, &inside.vars, m->names[k], v);
    }
    j->top = &inside;
    j->out = &t;
    if (jinja_step(j, n->line))
        run(j, m->b);
    j->top = outer;
    j->out = out;
    return val_of_str((fg_str){t.s, t.n});
}

static val
call(jinja *j, const node *n)
{
    args a = arguments(j, n);

    if (j->failed)
        return (val){0};
    if (n->a->kind == N_ATTR) {
        val of = eval(j, n->a->a);
        val *member = of.kind == V_DICT || of.kind == V_SPACE
                          ? val_find(of.dict, n->a->name)
                          : NULL;
        if (!member || member->kind != V_MACRO)
            return j->failed ? of : jinja_method(j, n->a, of, &a);
        return call_macro(j, n, member->macro, &a);
    }
    val f = eval(j, n->a);
    if (f.kind == V_MACRO)
        return call_macro(j, n, f.macro, &a);
    if (f.kind == V_BUILTIN)
        return jinja_builtin(j, n, f.s, &a);
    if (f.kind == V_UNDEFINED && f.s.n)
        return jinja_fail(j, n->line, "\"%.*s\" is undefined", (int)f.s.n, f.s.s);
    return jinja_fail(j, n->line, "%s cannot be called", val_type(f));
}

/* ---- expressions ---------------------------------------------------------------------- */

static val
collection(jinja *j, const node *n)
{
    val out = n->kind == N_LIST ? val_new_list(j) : val_new_dict(j, V_DICT);

    if (n->kind == N_LIST)
        out.list->tuple = n->op;
    for (size_t i = 0; i < n->nlist && !j->failed; i++) {
        val v = eval(j, n->list[i]);
        if (n->kind == N_LIST)
            val_push(j, out, v);
        else
            jinja_set(j, n, out.dict, v, eval(j, n->list[++i]));
    }
    return out;
}

static val
negative(jinja *j, const node *n)
{
    val v = eval(j, n->a);

    if (v.kind == V_FLOAT)
        return (val){V_FLOAT, {.f = -v.f}};
    if (v.kind == V_INT && v.i != INT64_MIN)
        return val_of_int(-v.i);
    return jinja_fail(j, n->line, "%s has no negative", val_type(v));
}

static val
with_arguments(jinja *j, const node *n)
{
    args a = arguments(j, n);
    val of = eval(j, n->a);

    if (j->failed)
        return of;
    if (n->kind == N_FILTER)
        return jinja_filter(j, n, n->name, of, &a);
    return val_of_bool(jinja_test(j, n, n->name, of, &a) != (bool)n->op);
}

static val
eval_kind(jinja *j, const node *n)
{
    val x;

    switch (n->kind) {
    case N_CONST:
        return n->value;
    case N_NAME:
        return lookup(j, n->name);
    case N_LIST:
    case N_DICT:
        return collection(j, n);
    case N_ATTR:
        x = eval(j, n->a);
        return j->failed ? x : jinja_attr(j, n, x, n->name);
    case N_ITEM:
        return item(j, n);
    case N_SLICE:
        return slice(j, n);
    case N_CALL:
        return call(j, n);
    case N_FILTER:
    case N_TEST:
        return with_arguments(j, n);
    case N_NOT:
        return val_of_bool(!val_true(eval(j, n->a)));
    case N_NEG:
        return negative(j, n);
    case N_BINARY:
        return binary(j, n);
    case N_AND:
        x = eval(j, n->a);
        return val_true(x) ? eval(j, n->b) : x;
    case N_OR:
        x = eval(j, n->a);
        return val_true(x) ? x : eval(j, n->b);
    case N_COND:
        x = eval(j, n->b);
        return val_true(x) ? eval(j, n->a) : n->c ? eval(j, n->c) : (val){0};
    default:
        return (val){0};
    }
}

static val
eval(jinja *j, const node *n)
{
    if (!jinja_step(j, n->line))
        return (val){0};
    if (j->depth++ > JINJA_DEPTH)
        return jinja_fail(j, n->line, "too deep");
    val v = eval_kind(j, n);
    j->depth--;
    return v;
}

/* ---- statements ----------------------------------------------------------------------- */

static void
bind_names(jinja *j, const node *n, val v)
{
    if (n->nnames == 1)
        val_set(j, &j->top->vars, n->names[0], v);
    else
        for (size_t i = 0, k = unpack(j, n, n->nnames, &v); i < k; i++)
            val_set(j, &j->top->vars, n->names[i], v.list->v[i]);
}

/* What passes the loop's own condition. */
static val
chosen(jinja *j, const node *n)
{
    val all = jinja_items_of(j, n, eval(j, n->a)), out;
    frame inside = {.up = j->top};

    if (j->failed || !n->d)
        return all;
    out = val_new_list(j);
    j->top = &inside;
    for (size_t i = 0; i < all.list->n && !j->failed; i++) {
        bind_names(j, n, all.list->v[i]);
        if (val_true(eval(j, n->d)))
            val_push(j, out, all.list->v[i]);
    }
    j->top = inside.up;
    return out;
}

static val
loop_variable(jinja *j, const val_list *all, size_t i)
{
    val loop = val_new_dict(j, V_DICT);
    int64_t at = (int64_t)i, n = (int64_t)all->n;
    const struct {
        const char *name;
        val v;
    } member[] = {{"index", val_of_int(at + 1)},
                  {"index0", val_of_int(at)},
                  {"revindex", val_of_int(n - at)},
                  {"revindex0", val_of_int(n - at - 1)},
                  {"first", val_of_bool(!i)},
                  {"last", val_of_bool(i + 1 == all->n)},
                  {"length", val_of_int(n)},
                  {"previtem", i ? all->v[i - 1] : (val){0}},
                  {"nextitem", i + 1 < all->n ? all->v[i + 1] : (val){0}}};

    for (size_t k = 0; k < sizeof member / sizeof *member; k++)
        val_set(j, loop.dict, fg_str_of(member[k].name), member[k].v);
    return loop;
}

static void
run_for(jinja *j, const node *n)
{
    val all = chosen(j, n);
    frame *outer = j->top;

    if (j->failed)
        return;
    if (!all.list->n && n->c)
        run(j, n->c);
    for (size_t i = 0; i < all.list->n && jinja_step(j, n->line); i++) {
        frame inside = {.up = outer};
        j->top = &inside;
        bind_names(j, n, all.list->v[i]);
        val_set(j, &inside.vars, fg_str_of("loop"), loop_variable(j, all.list, i));
        run(j, n->b);
        j->top = outer;
        bool stop = j->flow == BREAK;
        j->flow = GO;
        if (stop)
            break;
    }
}

static void
run_setblock(jinja *j, const node *n)
{
    fg_text *out = j->out, t = fg_text_new(j->a);

    j->out = &t;
    run(j, n->b);
    j->out = out;
    assign(j, n->a, val_of_str((fg_str){t.s, t.n}));
}

static void
run_kind(jinja *j, const node *n)
{
    switch (n->kind) {
    case N_TEXT:
        fg_put_str(j->out, n->value.s);
        break;
    case N_OUT:
        val_write(j, j->out, eval(j, n->a), false);
        break;
    case N_IF:
        if (val_true(eval(j, n->a)))
            run(j, n->b);
        else if (n->c)
            run(j, n->c);
        break;
    case N_FOR:
        run_for(j, n);
        break;
    case N_SET:
        assign(j, n->a, eval(j, n->b));
        break;
    case N_SETBLOCK:
        run_setblock(j, n);
        break;
    case N_MACRO:
        val_set(j, &j->top->vars, n->name, (val){V_MACRO, {.macro = n}});
        break;
    case N_BREAK:
        j->flow = BREAK;
        break;
    case N_CONTINUE:
        j->flow = CONTINUE;
        break;
    default:
        for (size_t i = 0; i < n->nlist && !j->failed && j->flow == GO; i++)
            run(j, n->list[i]);
    }
}

static void
run(jinja *j, const node *n)
{
    if (!jinja_step(j, n->line))
        return;
    j->line = n->line;
    if (j->depth++ > JINJA_DEPTH)
        jinja_fail(j, n->line, "too deep");
    else
        run_kind(j, n);
    j->depth--;
    if (j->out->n > JINJA_BYTES)
        jinja_fail(j, n->line, "the text is too long");
}

/* ---- the whole -------------------------------------------------------------------------- */

static val
from_json(jinja *j, const cJSON *o)
{
    const cJSON *e;

    if (cJSON_IsString(o))
        return val_of_str(fg_utf8_clean(j->a, fg_str_of(o->valuestring)));
    if (cJSON_IsBool(o))
        return val_of_bool(cJSON_IsTrue(o));
    if (cJSON_IsNumber(o))
        return o->valuedouble == (double)(int64_t)o->valueint
                   ? val_of_int(o->valueint)
                   : (val){V_FLOAT, {.f = o->valuedouble}};
    if (!cJSON_IsArray(o) && !cJSON_IsObject(o))
        return (val){V_NONE, {0}};
    val out = cJSON_IsArray(o) ? val_new_list(j) : val_new_dict(j, V_DICT);
    cJSON_ArrayForEach(e, o)
    {
        if (out.kind == V_LIST)
            val_push(j, out, from_json(j, e));
        else
            val_set(j, out.dict, fg_utf8_clean(j->a, fg_str_of(e->string)),
                    from_json(j, e));
    }
    return out;
}

bool
fg_template_render(fg_ctx *cx, fg_arena *a, const char *name, fg_str text,
                   const cJSON *variables, fg_str *out)
{
    fg_text t = fg_text_new(a);
    jinja j = {.cx = cx, .a = a, .name = name, .line = 1, .out = &t, .line_start = true};
    frame top = {0};
    const cJSON *e;

    j.text = fg_utf8_clean(a, text);
    if (j.text.n && j.text.s[j.text.n - 1] == '\n')
        j.text.n--;
    node *tree = jinja_parse(&j);
    j.depth = 0;
    j.top = &top;
    cJSON_ArrayForEach(e, variables)
        val_set(&j, &top.vars, fg_str_of(e->string), from_json(&j, e));
    if (!j.failed)
        run(&j, tree);
    *out = (fg_str){t.s, t.n};
    return !j.failed;
}
