/* parse_lex.c - the small change of parsing: places, complaints, blanks, names, numbers.
 */
#include "ir/parse.h"

static const char *
place(const fg_parser *p, const char *at)
{
    int line = 1;
    const char *start = p->text;
    for (const char *c = p->text; c < at; c++)
        if (*c == '\n') {
            line++;
            start = c + 1;
        }
    return fg_format(p->a, "%s:%d:%d", p->file, line, (int)(at - start) + 1);
}

bool
fg_lex_fail(fg_parser *p, const char *at, const char *fmt, ...)
{
    fg_text t = fg_text_new(p->a);
    va_list ap;
    va_start(ap, fmt);
    fg_vputf(&t, fmt, ap);
    va_end(ap);
    return fg_error(p->cx, "%s: %s", place(p, at), t.s);
}

/* Says where about the first complaint after `last`, which somebody else made. */
bool
fg_lex_locate(fg_parser *p, const char *at, const fg_diag *last)
{
    fg_diag *d = last ? last->next : p->cx->diags;
    if (d)
        d->text = fg_format(p->cx->arena, "%s: %s", place(p, at), d->text);
    return false;
}

void
fg_lex_blank(fg_parser *p)
{
    while (*p->s == ' ' || *p->s == '\t' || *p->s == '\r')
        p->s++;
}

/* Blanks, comments and line ends. */
void
fg_lex_space(fg_parser *p)
{
    for (;;) {
        fg_lex_blank(p);
        if (*p->s == ';')
            p->s += strcspn(p->s, "\n");
        if (*p->s != '\n')
            return;
        p->s++;
    }
}

/* Takes c, if it comes next. */
bool
fg_lex_take(fg_parser *p, char c)
{
    fg_lex_blank(p);
    if (*p->s != c)
        return false;
    p->s++;
    return true;
}

bool
fg_lex_expect(fg_parser *p, char c)
{
    return fg_lex_take(p, c) || fg_lex_fail(p, p->s, "expected '%c'", c);
}

/* Takes a word, if it comes next and ends there. */
bool
fg_lex_word(fg_parser *p, const char *w)
{
    size_t n = strlen(w);
    fg_lex_blank(p);
    if (strncmp(p->s, w, n) || fg_is_bare(p->s[n]))
        return false;
    p->s += n;
    return true;
}

bool
fg_lex_end(fg_parser *p)
{
    fg_lex_blank(p);
    if (*p->s && *p->s != ';' && *p->s != '\n')
        return fg_lex_fail(p, p->s, "expected the end of the line");
    fg_lex_space(p);
    return true;
}

const char *
fg_lex_quoted(fg_parser *p)
{
    const char *why = "expected a string";
    fg_lex_blank(p);
    const char *s = *p->s == '"' ? fg_parse_quoted(p->a, &p->s, &why) : NULL;
    if (!s)
        fg_lex_fail(p, p->s, "%s", why);
    return s;
}

/* A bare or quoted name, interned; NULL with a complaint. */
const char *
fg_lex_name(fg_parser *p, const char *what)
{
    const char *start = p->s;
    if (*start == '"')
        return fg_lex_quoted(p);
    while (fg_is_bare(*p->s))
        p->s++;
    if (p->s > start)
        return fg_intern_n(p->cx, start, (size_t)(p->s - start));
    fg_lex_fail(p, start, "expected %s", what);
    return NULL;
}

bool
fg_lex_int(fg_parser *p, int64_t *v)
{
    fg_lex_blank(p);
    return fg_parse_int(&p->s, v) || fg_lex_fail(p, p->s, "expected an integer");
}

bool
fg_lex_expr(fg_parser *p, fg_expr *e)
{
    fg_lex_blank(p);
    *e = fg_parse_expr(p->m->ex, &p->s, false);
    return *e != FG_E_BAD ||
           fg_lex_fail(p, p->s, "expected an expression over declared symbols");
}
