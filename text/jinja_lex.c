/* jinja_lex.c - a template as tokens: text, and what stands between {{ }} and {% %}.
 *
 *     "a\n  {%- if x %}\nb"  ->  "a" {% if x %} "b"
 *
 * A minus takes all white space away on its side. Without one, a block that begins a line
 * loses the space before it and the line's end behind it, and {{ }} loses nothing.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "text/jinja.h"

val
jinja_fail(jinja *j, int line, const char *fmt, ...)
{
    char text[700];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (!j->failed)
        fg_error(j->cx, "%s: line %d: %s", j->name, line,
                 fg_printable(j->a, text, strlen(text), 600));
    j->failed = true;
    return (val){0};
}

static char
peek(const jinja *j, size_t ahead)
{
    return j->at + ahead < j->text.n ? j->text.s[j->at + ahead] : '\0';
}

static void
skip(jinja *j, size_t n)
{
    for (; n && j->at < j->text.n; n--)
        j->line += j->text.s[j->at++] == '\n';
}

static bool
blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool
letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool
digit(char c)
{
    return c >= '0' && c <= '9';
}

/* ---- between tags ----------------------------------------------------------------------- */

/* Position of the next tag; '{' for output, '%' for a block, '#' for a comment. */
static size_t
find_tag(const jinja *j, char *kind)
{
    for (size_t i = j->at; i + 1 < j->text.n; i++)
        if (j->text.s[i] == '{' && strchr("{%#", j->text.s[i + 1]) && j->text.s[i + 1]) {
            *kind = j->text.s[i + 1];
            return i;
        }
    *kind = '\0';
    return j->text.n;
}

static size_t
trimmed_end(const jinja *j, size_t from, size_t end, char kind)
{
    char sign = end + 2 < j->text.n ? j->text.s[end + 2] : '\0';
    size_t at = end;

    if (!kind)
        return end;
    while (at > from && blank(j->text.s[at - 1]) &&
           (sign == '-' || j->text.s[at - 1] != '\n'))
        at--;
    if (sign == '-')
        return at;
    bool begins = at > from ? j->text.s[at - 1] == '\n' : j->line_start;
    return kind != '{' && sign != '+' && begins ? at : end;
}

/* Behind the end of a tag: "-" takes white space, a block the end of its line. */
static void
after_tag(jinja *j, bool minus, bool trim)
{
    j->line_start = false;
    if (minus)
        while (blank(peek(j, 0)))
            skip(j, 1);
    else if (trim && peek(j, 0) == '\n') {
        skip(j, 1);
        j->line_start = true;
    }
}

static void
skip_comment(jinja *j)
{
    while (j->at < j->text.n && !(peek(j, 0) == '#' && peek(j, 1) == '}'))
        skip(j, 1);
    if (j->at == j->text.n) {
        jinja_fail(j, j->line, "a comment has no end");
        return;
    }
    bool minus = j->text.s[j->at - 1] == '-', plus = j->text.s[j->at - 1] == '+';
    skip(j, 2);
    after_tag(j, minus, !plus);
}

/* False after a comment, which is no token. */
static bool
between(jinja *j)
{
    char kind;
    size_t from = j->at, tag = find_tag(j, &kind), end = trimmed_end(j, from, tag, kind);

    if (end > from) {
        j->token = T_TEXT;
        j->word = (fg_str){j->text.s + from, end - from};
        skip(j, tag - from);
        j->line_start = tag > from && j->text.s[tag - 1] == '\n';
        if (tag > end) /* the white space is gone, and the tag begins its line still */
            j->line_start = true;
        return true;
    }
    skip(j, tag - from);
    if (!kind) {
        j->token = T_END;
        return true;
    }
    skip(j, 2);
    if (peek(j, 0) == '-' || (peek(j, 0) == '+' && kind != '{'))
        skip(j, 1);
    if (kind == '#') {
        skip_comment(j);
        j->token = T_END;
        return j->failed;
    }
    j->in_tag = true;
    j->braces = 0;
    j->token = kind == '{' ? T_OUT : T_BLOCK;
    return true;
}

/* ---- inside ------------------------------------------------------------------------- */

static int
hex(const jinja *j, size_t at, int digits)
{
    char text[9] = {0};

    for (int i = 0; i < digits; i++)
        text[i] = peek(j, at + (size_t)i);
    return (int)strtol(text, NULL, 16);
}

static void
escape(jinja *j, fg_text *t)
{
    static const char from[] = "ntrbf\\'\"0av", to[] = "\n\t\r\b\f\\'\"\0\a\v";
    char c = peek(j, 1);
    const char *known = c ? strchr(from, c) : NULL;

    if (known) {
        fg_putc(t, to[known - from]);
        skip(j, 2);
    } else if (c == 'x' || c == 'u' || c == 'U') {
        int digits = c == 'x' ? 2 : c == 'u' ? 4 : 8, point = hex(j, 2, digits);
        bool surrogate = point >= 0xd800 && point < 0xe000;
        fg_put_char(t, point < 0 || point > 0x10ffff || surrogate ? 0xfffd : point);
        skip(j, 2 + (size_t)digits);
    } else {
        fg_putc(t, '\\');
        skip(j, 1);
    }
}

static void
string(jinja *j)
{
    char quote = peek(j, 0);
    fg_text t = fg_text_new(j->a);

    skip(j, 1);
    while (j->at < j->text.n && peek(j, 0) != quote) {
        if (peek(j, 0) == '\\') {
            escape(j, &t);
            continue;
        }
        fg_putc(&t, peek(j, 0));
        skip(j, 1);
    }
    if (j->at == j->text.n)
        jinja_fail(j, j->token_line, "a string has no end");
    skip(j, 1);
    j->token = T_STR;
    j->word = (fg_str){t.s, t.n};
}

/* Digits of a base to text, from `n` on; underscores part them. */
static size_t
digits(const jinja *j, size_t n, const char *set, char *text, size_t room)
{
    size_t used = strlen(text);

    for (char c; (c = peek(j, n)) && (c == '_' || strchr(set, c)); n++)
        if (c != '_' && used + 1 < room)
            text[used++] = c;
    text[used] = '\0';
    return n;
}

static void
number(jinja *j)
{
    static const char decimal[] = "0123456789";
    char text[80] = "", kind = peek(j, 1) ? (char)(peek(j, 1) | 0x20) : '\0';
    int base = peek(j, 0) != '0' ? 10
               : kind == 'x'     ? 16
               : kind == 'o'     ? 8
               : kind == 'b'     ? 2
                                 : 10;
    size_t n = 0, half = sizeof text / 2;
    bool whole = true;

    if (base != 10)
        n = digits(j, 2, base == 16 ? "0123456789abcdefABCDEF" : "01234567", text, half);
    else
        n = digits(j, 0, decimal, text, half);
    if (base == 10 && peek(j, n) == '.' && digit(peek(j, n + 1))) {
        whole = false;
        strcat(text, ".");
        n = digits(j, n + 1, decimal, text, half + 20);
    }
    size_t sign = peek(j, n + 1) == '-' || peek(j, n + 1) == '+';
    if (base == 10 && (peek(j, n) | 0x20) == 'e' && digit(peek(j, n + 1 + sign))) {
        whole = false;
        strcat(text, peek(j, n + 1) == '-' ? "e-" : "e");
        n = digits(j, n + 1 + sign, decimal, text, sizeof text);
    }
    skip(j, n);
    j->token = whole ? T_INT : T_FLOAT;
    j->number.kind = whole ? V_INT : V_FLOAT;
    if (whole)
        j->number.i = strtoll(text, NULL, base);
    else
        j->number.f = strtod(text, NULL);
}

static void
operator(jinja *j)
{
    static const struct {
        char text[3];
        int token;
    } two[] = {{"==", T_EQ}, {"!=", T_NE},       {"<=", T_LE},
               {">=", T_GE}, {"//", T_FLOORDIV}, {"**", T_POW}};
    char c = peek(j, 0);

    for (size_t k = 0; k < sizeof two / sizeof *two; k++)
        if (c == two[k].text[0] && peek(j, 1) == two[k].text[1]) {
            j->token = two[k].token;
            skip(j, 2);
            return;
        }
    if (!strchr("+-*/%~<>=.,:|()[]{}", c))
        jinja_fail(j, j->line, "unexpected character \"%c\"", c);
    j->braces += (c == '{') - (c == '}');
    j->token = (unsigned char)c;
    skip(j, 1);
}

/* "}}", "-%}" and the like; a brace that closes a dict is none. */
static bool
tag_end(jinja *j)
{
    bool sign = peek(j, 0) == '-' || peek(j, 0) == '+';
    char first = peek(j, sign), second = peek(j, (size_t)sign + 1);

    if (second != '}' || (first != '%' && first != '}') || (first == '}' && j->braces))
        return false;
    bool minus = peek(j, 0) == '-', plus = peek(j, 0) == '+';
    skip(j, 2 + (size_t)sign);
    j->token = first == '}' ? T_OUT_END : T_BLOCK_END;
    j->in_tag = false;
    after_tag(j, minus, first == '%' && !plus);
    return true;
}

void
jinja_next(jinja *j)
{
    if (j->failed) {
        j->token = T_END;
        return;
    }
    if (!j->in_tag) {
        do
            j->token_line = j->line;
        while (!between(j));
        return;
    }
    while (blank(peek(j, 0)))
        skip(j, 1);
    j->token_line = j->line;
    if (j->at >= j->text.n) {
        jinja_fail(j, j->line, "a tag has no end");
        j->token = T_END;
    } else if (tag_end(j)) {
        return;
    } else if (letter(peek(j, 0))) {
        size_t n = 1;
        while (letter(peek(j, n)) || digit(peek(j, n)))
            n++;
        j->token = T_NAME;
        j->word = (fg_str){j->text.s + j->at, n};
        skip(j, n);
    } else if (digit(peek(j, 0)))
        number(j);
    else if (peek(j, 0) == '\'' || peek(j, 0) == '"')
        string(j);
    else
        operator(j);
}
