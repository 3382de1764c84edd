/* jinja_parse.c - tokens to a tree, by recursive descent.
 *
 *     a if b or not c == d | f ~ e     the later an operator below, the tighter it binds
 */
#include "text/jinja.h"

static node *expression(jinja *j);
static node *body(jinja *j, const char *const *ends, int *which);

/* ---- tokens ------------------------------------------------------------------------- */

static bool
is_word(const jinja *j, const char *word)
{
    return j->token == T_NAME && fg_str_same(j->word, fg_str_of(word));
}

static bool
take_word(jinja *j, const char *word)
{
    if (!is_word(j, word))
        return false;
    jinja_next(j);
    return true;
}

static bool
take(jinja *j, int token)
{
    if (j->token != token)
        return false;
    jinja_next(j);
    return true;
}

static void
want(jinja *j, int token, const char *what)
{
    if (!take(j, token))
        jinja_fail(j, j->token_line, "expected %s", what);
}

static fg_str
name(jinja *j)
{
    fg_str s = j->word;

    want(j, T_NAME, "a name");
    return s;
}

static node *
make(jinja *j, node_kind kind)
{
    node *n = FG_NEW(j->a, node);

    n->kind = kind;
    n->line = j->token_line;
    return n;
}

static void
add(jinja *j, node *to, node *n)
{
    FG_PUSH(j->a, to->list, to->nlist, to->caplist) = n;
}

static void
add_name(jinja *j, node *to, fg_str s)
{
    FG_PUSH(j->a, to->names, to->nnames, to->capnames) = s;
}

/* A list that is written with parentheses. */
static node *
make_tuple(jinja *j)
{
    node *n = make(j, N_LIST);

    n->op = 1;
    return n;
}

/* ---- what expressions are made of --------------------------------------------------------- */

/* Behind "(": values, some with names. */
static void
arguments(jinja *j, node *n)
{
    while (!j->failed && j->token != ')') {
        fg_str called = {0};
        node *v = expression(j);
        if (v->kind == N_NAME && take(j, '=')) {
            called = v->name;
            v = expression(j);
        }
        add(j, n, v);
        add_name(j, n, called);
        if (!take(j, ','))
            break;
    }
    want(j, ')', "\")\" behind the arguments");
}

static node *
sequence(jinja *j, int end)
{
    node *n = make(j, N_LIST);

    while (!j->failed && j->token != end) {
        add(j, n, expression(j));
        if (!take(j, ','))
            break;
    }
    want(j, end, "the end of a list");
    return n;
}

static node *
dict(jinja *j)
{
    node *n = make(j, N_DICT);

    while (!j->failed && j->token != '}') {
        add(j, n, expression(j));
        want(j, ':', "\":\" between key and value");
        add(j, n, expression(j));
        if (!take(j, ','))
            break;
    }
    want(j, '}', "the end of a dict");
    return n;
}

/* "(a)" is a, "(a, b)" a tuple. */
static node *
parentheses(jinja *j)
{
    if (take(j, ')'))
        return make_tuple(j);
    node *n = expression(j);
    if (take(j, ',')) {
        node *rest = sequence(j, ')'), *list = make_tuple(j);
        add(j, list, n);
        for (size_t i = 0; i < rest->nlist; i++)
            add(j, list, rest->list[i]);
        return list;
    }
    want(j, ')', "\")\"");
    return n;
}

static node *
constant(jinja *j, val v)
{
    node *n = make(j, N_CONST);

    n->value = v;
    jinja_next(j);
    return n;
}

static node *
primary(jinja *j)
{
    static const struct {
        const char *word;
        val v;
    } known[] = {{"true", {V_BOOL, {1}}},  {"True", {V_BOOL, {1}}},
                 {"false", {V_BOOL, {0}}}, {"False", {V_BOOL, {0}}},
                 {"none", {V_NONE, {0}}},  {"None", {V_NONE, {0}}}};

    if (j->token == T_STR) {
        node *n = constant(j, val_of_str(j->word));
        while (j->token == T_STR && !j->failed) { /* neighbours are one string */
            fg_text t = fg_text_new(j->a);
            fg_put_str(&t, n->value.s);
            fg_put_str(&t, j->word);
            n->value = val_of_str((fg_str){t.s, t.n});
            jinja_next(j);
        }
        return n;
    }
    if (j->token == T_INT || j->token == T_FLOAT)
        return constant(j, j->number);
    if (take(j, '('))
        return parentheses(j);
    if (take(j, '['))
        return sequence(j, ']');
    if (take(j, '{'))
        return dict(j);
    for (size_t k = 0; k < sizeof known / sizeof *known; k++)
        if (is_word(j, known[k].word))
            return constant(j, known[k].v);
    node *n = make(j, N_NAME);
    if (j->token != T_NAME)
        jinja_fail(j, j->token_line, "expected an expression");
    else
        n->name = name(j);
    return n;
}

/* Behind "[": an item or a slice. */
static node *
item(jinja *j, node *of)
{
    node *n = make(j, N_ITEM), **part[] = {&n->b, &n->c, &n->d};
    int k = 0;

    n->a = of;
    while (!j->failed && j->token != ']' && k < 3) {
        if (j->token != ':')
            *part[k] = expression(j);
        if (j->token == ']')
            break;
        want(j, ':', "\":\" or \"]\"");
        n->kind = N_SLICE;
        k++;
    }
    if (n->kind == N_ITEM && !n->b)
        jinja_fail(j, n->line, "an index is missing");
    want(j, ']', "\"]\"");
    return n;
}

static node *
postfix(jinja *j, node *n)
{
    while (!j->failed) {
        node *of = n;
        if (take(j, '.')) {
            n = make(j, N_ATTR);
            n->a = of;
            n->name = name(j);
        } else if (take(j, '['))
            n = item(j, of);
        else if (take(j, '(')) {
            n = make(j, N_CALL);
            n->a = of;
            arguments(j, n);
        } else
            break;
    }
    return n;
}

/* "x is not divisibleby 3": an argument may go without parentheses. */
static node *
test(jinja *j, node *of)
{
    node *n = make(j, N_TEST);

    n->a = of;
    n->op = take_word(j, "not");
    n->name = name(j);
    if (take(j, '('))
        arguments(j, n);
    else if (j->token == T_STR || j->token == T_INT || j->token == T_FLOAT ||
             j->token == '[' || j->token == '{' ||
             (j->token == T_NAME && !is_word(j, "else") && !is_word(j, "or") &&
              !is_word(j, "and") && !is_word(j, "is") && !is_word(j, "if") &&
              !is_word(j, "in") && !is_word(j, "not"))) {
        add(j, n, postfix(j, primary(j)));
        add_name(j, n, (fg_str){0});
    }
    return n;
}

static node *
filters(jinja *j, node *n)
{
    while (!j->failed) {
        node *of = n;
        if (take(j, '|')) {
            n = make(j, N_FILTER);
            n->a = of;
            n->name = name(j);
            if (take(j, '('))
                arguments(j, n);
        } else if (take_word(j, "is"))
            n = test(j, of);
        else
            break;
    }
    return n;
}

/* ---- operators, loosest last ---------------------------------------------------------------- */

static node *
unary(jinja *j, bool filtered)
{
    node *n;

    if (j->depth++ > JINJA_DEPTH) {
        jinja_fail(j, j->token_line, "too deep");
        return make(j, N_LIST);
    }
    if (j->token == '-' || j->token == '+') {
        n = make(j, j->token == '-' ? N_NEG : N_BODY);
        jinja_next(j);
        n->a = unary(j, false);
        n = n->kind == N_NEG ? n : n->a;
    } else
        n = postfix(j, primary(j));
    n = filtered ? filters(j, n) : n;
    j->depth--;
    return n;
}

typedef node *(*level)(jinja *j);

/* Operators of one level, from the left. */
static node *
chain(jinja *j, level next, const int *tokens)
{
    node *left = next(j);

    while (!j->failed) {
        const int *t = tokens;
        while (*t && *t != j->token)
            t++;
        if (!*t)
            break;
        node *n = make(j, N_BINARY);
        n->op = *t;
        jinja_next(j);
        n->a = left;
        n->b = next(j);
        left = n;
    }
    return left;
}

static node *
operand(jinja *j)
{
    return unary(j, true);
}

static node *
power(jinja *j)
{
    return chain(j, operand, (const int[]){T_POW, 0});
}

static node *
product(jinja *j)
{
    return chain(j, power, (const int[]){'*', '/', T_FLOORDIV, '%', 0});
}

static node *
joined(jinja *j)
{
    return chain(j, product, (const int[]){'~', 0});
}

static node *
sum(jinja *j)
{
    return chain(j, joined, (const int[]){'+', '-', 0});
}

static int
comparison(jinja *j)
{
    static const int plain[] = {T_EQ, T_NE, T_LE, T_GE, '<', '>'};

    for (size_t k = 0; k < sizeof plain / sizeof *plain; k++)
        if (take(j, plain[k]))
            return plain[k];
    if (take_word(j, "in"))
        return T_IN;
    if (!is_word(j, "not"))
        return 0;
    jinja_next(j);
    if (!take_word(j, "in"))
        jinja_fail(j, j->token_line, "expected \"in\" behind \"not\"");
    return T_NOT_IN;
}

/* "a < b < c" is "a < b and b < c". */
static node *
compared(jinja *j)
{
    node *left = sum(j), *all = NULL;

    for (int op; !j->failed && (op = comparison(j));) {
        node *n = make(j, N_BINARY);
        n->op = op;
        n->a = left;
        n->b = left = sum(j);
        if (all) {
            node *both = make(j, N_AND);
            both->a = all;
            both->b = n;
            all = both;
        } else
            all = n;
    }
    return all ? all : left;
}

static node *
negated(jinja *j)
{
    if (!take_word(j, "not"))
        return compared(j);
    node *n = make(j, N_NOT);
    if (j->depth++ > JINJA_DEPTH)
        jinja_fail(j, j->token_line, "too deep");
    n->a = j->failed ? make(j, N_LIST) : negated(j);
    j->depth--;
    return n;
}

static node *
logic(jinja *j, level next, const char *word, node_kind kind)
{
    node *left = next(j);

    while (!j->failed && take_word(j, word)) {
        node *n = make(j, kind);
        n->a = left;
        n->b = next(j);
        left = n;
    }
    return left;
}

static node *
both(jinja *j)
{
    return logic(j, negated, "and", N_AND);
}

static node *
either(jinja *j)
{
    return logic(j, both, "or", N_OR);
}

static node *
expression(jinja *j)
{
    if (j->depth++ > JINJA_DEPTH) {
        jinja_fail(j, j->token_line, "too deep");
        return make(j, N_LIST);
    }
    node *n = either(j);

    while (!j->failed && take_word(j, "if")) {
        node *cond = make(j, N_COND);
        cond->a = n;
        cond->b = either(j);
        if (take_word(j, "else"))
            cond->c = expression(j);
        n = cond;
    }
    j->depth--;
    return n;
}

/* ---- statements ----------------------------------------------------------------------- */

static void
block_end(jinja *j)
{
    want(j, T_BLOCK_END, "the end of a block");
}

/* A list without brackets: "a, b". */
static node *
tuple(jinja *j)
{
    node *n = expression(j);

    if (j->token != ',')
        return n;
    node *list = make_tuple(j);
    add(j, list, n);
    while (take(j, ',') && !j->failed && j->token != T_BLOCK_END)
        add(j, list, expression(j));
    return list;
}

static node *
if_block(jinja *j)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    node *n = make(j, N_IF), *last = n;
    int which;

    last->a = expression(j);
    block_end(j);
    last->b = body(j, ends, &which);
    while (which == 0 && !j->failed) {
        last = last->c = make(j, N_IF);
        last->a = expression(j);
        block_end(j);
        last->b = body(j, ends, &which);
    }
    if (which == 1) {
        block_end(j);
        last->c = body(j, ends + 2, &which);
    }
    block_end(j);
    return n;
}

static node *
for_block(jinja *j)
{
    static const char *const ends[] = {"else", "endfor", NULL};
    node *n = make(j, N_FOR);
    int which;

    bool paren = take(j, '(');
    do
        add_name(j, n, name(j));
    while (take(j, ','));
    if (paren)
        want(j, ')', "\")\"");
    if (!take_word(j, "in"))
        jinja_fail(j, j->token_line, "expected \"in\"");
    n->a = either(j);
    if (take_word(j, "if"))
        n->d = expression(j);
    take_word(j, "recursive");
    block_end(j);
    n->b = body(j, ends, &which);
    if (which == 0) {
        block_end(j);
        n->c = body(j, ends + 1, &which);
    }
    block_end(j);
    return n;
}

static node *
set_block(jinja *j)
{
    static const char *const ends[] = {"endset", NULL};
    node *n = make(j, N_SET);
    int which;

    n->a = postfix(j, primary(j));
    if (j->token == ',') {
        node *list = make(j, N_LIST);
        add(j, list, n->a);
        while (take(j, ',') && !j->failed)
            add(j, list, primary(j));
        n->a = list;
    }
    if (n->a->kind != N_NAME && n->a->kind != N_ATTR && n->a->kind != N_LIST)
        jinja_fail(j, n->line, "only a name can be set");
    if (take(j, '='))
        n->b = tuple(j);
    else {
        n->kind = N_SETBLOCK;
        block_end(j);
        n->b = body(j, ends, &which);
    }
    block_end(j);
    return n;
}

static node *
macro_block(jinja *j)
{
    static const char *const ends[] = {"endmacro", NULL};
    node *n = make(j, N_MACRO);
    int which;

    n->name = name(j);
    want(j, '(', "\"(\"");
    while (!j->failed && j->token != ')') {
        add_name(j, n, name(j));
        add(j, n, take(j, '=') ? expression(j) : NULL);
        if (!take(j, ','))
            break;
    }
    want(j, ')', "\")\"");
    block_end(j);
    n->b = body(j, ends, &which);
    block_end(j);
    return n;
}

/* What {% generation %} marks matters for training only. */
static node *
generation_block(jinja *j)
{
    static const char *const ends[] = {"endgeneration", NULL};
    int which;

    block_end(j);
    node *n = body(j, ends, &which);
    block_end(j);
    return n;
}

static node *
jump(jinja *j, node_kind kind)
{
    node *n = make(j, kind);

    block_end(j);
    return n;
}

static node *
statement(jinja *j)
{
    if (take_word(j, "if"))
        return if_block(j);
    if (take_word(j, "for"))
        return for_block(j);
    if (take_word(j, "set"))
        return set_block(j);
    if (take_word(j, "macro"))
        return macro_block(j);
    if (take_word(j, "generation"))
        return generation_block(j);
    if (take_word(j, "break"))
        return jump(j, N_BREAK);
    if (take_word(j, "continue"))
        return jump(j, N_CONTINUE);
    jinja_fail(j, j->token_line, "statement \"%.*s\" is not supported",
               (int)(j->word.n < 50 ? j->word.n : 50),
               j->token == T_NAME ? j->word.s : "");
    return make(j, N_BODY);
}

static int
which_end(const jinja *j, const char *const *ends)
{
    for (int k = 0; ends[k]; k++)
        if (is_word(j, ends[k]))
            return k;
    return -1;
}

/* Up to one of `ends`, whose name is taken; without any, up to the end of the file. */
static node *
body(jinja *j, const char *const *ends, int *which)
{
    node *n = make(j, N_BODY);

    *which = -1;
    if (j->depth++ > JINJA_DEPTH)
        jinja_fail(j, j->token_line, "too deep");
    while (!j->failed && j->token != T_END) {
        node *part = make(j, j->token == T_TEXT ? N_TEXT : N_OUT);
        if (j->token == T_TEXT) {
            part->value = val_of_str(j->word);
            jinja_next(j);
        } else if (take(j, T_OUT)) {
            part->a = tuple(j);
            want(j, T_OUT_END, "\"}}\"");
        } else {
            want(j, T_BLOCK, "a block");
            if ((*which = which_end(j, ends)) >= 0) {
                jinja_next(j);
                break;
            }
            part = statement(j);
        }
        add(j, n, part);
    }
    if (*which < 0 && ends[0])
        jinja_fail(j, n->line, "a block is not closed by \"%s\"", ends[0]);
    j->depth--;
    return n;
}

node *
jinja_parse(jinja *j)
{
    static const char *const none[] = {NULL};
    int which;

    jinja_next(j);
    return body(j, none, &which);
}
