/* pattern.c - regular expressions as tokenizer files write them, for PCRE2.
 *
 *     [^(\s|[.,!?])]+          ->  [^\(\s|\.,!\?]+        a set inside a set
 *     [\w&&[^a-m]]             ->  (?:(?=[..])[^a-m])     what is in both
 *     \d{,3}  \h  \p{Han}      ->  \d{0,3}  [0-9A-Fa-f]  \p{sc:Han}
 *
 * They were written for a library that reads them as Ruby does. What both read alike is
 * copied. A set is rewritten as a union of what PCRE2 takes between brackets and of
 * alternatives that match one character each; so every set, also one without something or
 * one within another, stays an expression for one character.
 */
#include "text/tok.h"

#define MAX_DEPTH 100

typedef struct set {
    fg_text items; /* between brackets */
    fg_text more;  /* a|b|c, each of one character */
    bool negated;
} set;

typedef struct scan {
    fg_arena *a;
    fg_str in;
    size_t at;
    int depth; /* of sets */
    fg_text out;
    size_t atom;   /* where in out begins what a quantifier repeats */
    size_t *group; /* where open parentheses are in out */
    size_t ngroup, capgroup;
} scan;

static int
peek(const scan *x, size_t ahead)
{
    return x->at + ahead < x->in.n ? (unsigned char)x->in.s[x->at + ahead] : -1;
}

static bool
comes(const scan *x, const char *text)
{
    return fg_str_begins((fg_str){x->in.s + x->at, x->in.n - x->at}, fg_str_of(text));
}

static void
copy(scan *x, fg_text *to, size_t n)
{
    n = n < x->in.n - x->at ? n : x->in.n - x->at;
    fg_put_str(to, (fg_str){x->in.s + x->at, n});
    x->at += n;
}

/* Bytes of the character that comes. */
static size_t
width(const scan *x)
{
    size_t end = x->at;

    fg_utf8_next(x->in, &end);
    return end - x->at;
}

/* ---- sets --------------------------------------------------------------------------- */

static set
set_new(fg_arena *a)
{
    return (set){fg_text_new(a), fg_text_new(a), false};
}

static void
put_union(fg_text *to, const set *s)
{
    if (!s->more.n) {
        fg_putf(to, s->items.n ? "[%s]" : "(?!)", s->items.s);
        return;
    }
    fg_puts(to, "(?:");
    if (s->items.n)
        fg_putf(to, "[%s]|", s->items.s);
    fg_putf(to, "%s)", s->more.s);
}

static void
put_set(fg_text *to, const set *s)
{
    if (!s->negated) {
        put_union(to, s);
    } else if (!s->more.n && s->items.n) {
        fg_putf(to, "[^%s]", s->items.s);
    } else {
        fg_puts(to, "(?:(?!");
        put_union(to, s);
        fg_puts(to, ")(?s:.))");
    }
}

static void
add_more(set *s, fg_str more)
{
    if (s->more.n && more.n)
        fg_putc(&s->more, '|');
    fg_put_str(&s->more, more);
}

static void
add_set(fg_arena *a, set *s, const set *t)
{
    fg_text one = fg_text_new(a);

    if (!t->negated) {
        fg_put_str(&s->items, (fg_str){t->items.s, t->items.n});
        add_more(s, (fg_str){t->more.s, t->more.n});
        return;
    }
    put_set(&one, t);
    add_more(s, (fg_str){one.s, one.n});
}

static void
add_items(fg_arena *a, set *s, const char *items, bool negated)
{
    set t = set_new(a);

    fg_puts(&t.items, items);
    t.negated = negated;
    add_set(a, s, &t);
}

/* ---- sets with a name --------------------------------------------------------------- */

#define WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
/* Outside of brackets the superscripts and fractions of Latin-1 are in words as well. */
#define WORD_ALONE WORD "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"
#define SPACE "\\p{Z}\\t-\\r\\x{85}"

static const char *
named(fg_str name)
{
    static const char *const table[][2] = {
        {"alnum", "\\p{Alphabetic}\\p{Nd}"},
        {"alpha", "\\p{Alphabetic}"},
        {"ascii", "\\x00-\\x7f"},
        {"blank", "\\p{Zs}\\t"},
        {"cntrl", "\\p{Cc}"},
        {"digit", "\\p{Nd}"},
        {"lower", "\\p{Lowercase}"},
        {"punct", "\\p{P}\\p{S}"},
        {"space", SPACE},
        {"upper", "\\p{Uppercase}"},
        {"word", WORD},
        {"xdigit", "0-9A-Fa-f"},
    };
    for (size_t k = 0; k < sizeof table / sizeof *table; k++)
        if (name.n == strlen(table[k][0]) && !strncasecmp(name.s, table[k][0], name.n))
            return table[k][1];
    return NULL;
}

/* \p{Name}: of a script the characters that are only in it; PCRE2 would add those that
 * several share. */
static bool
take_property(scan *x, set *s)
{
    const char *end = memchr(x->in.s + x->at, '}', x->in.n - x->at);

    if (peek(x, 2) != '{' || !end)
        return false;
    bool negated = (peek(x, 1) == 'P') != (peek(x, 3) == '^');
    const char *from = x->in.s + x->at + (peek(x, 3) == '^' ? 4 : 3);
    fg_str name = {from, (size_t)(end - from)};
    const char *items = named(name);
    const char *script = fg_format(x->a, "\\p{sc:%.*s}", (int)name.n, name.s);
    if (!items)
        items = name.n > 2 && fg_regex_valid(script)
                    ? script
                    : fg_format(x->a, "\\p{%.*s}", (int)name.n, name.s);
    add_items(x->a, s, items, negated);
    x->at = (size_t)(end + 1 - x->in.s);
    return true;
}

/* \w and its like; false when another escape comes. */
static bool
take_class(scan *x, set *s)
{
    static const char *const plain[] = {
        ['w'] = WORD, ['d'] = "\\p{Nd}", ['s'] = SPACE, ['h'] = "0-9A-Fa-f"};
    int c = peek(x, 1), lower = c | 0x20;

    if (lower == 'p')
        return take_property(x, s);
    if (c < 'A' || lower >= (int)(sizeof plain / sizeof *plain) || !plain[lower])
        return false;
    add_items(x->a, s, plain[lower], c != lower);
    x->at += 2;
    return true;
}

/* ---- escapes of one character ---------------------------------------------------------- */

static void
take_escape(scan *x, fg_text *to)
{
    int c = peek(x, 1);

    if (c == 'u' && x->at + 6 <= x->in.n) {
        x->at += 2;
        fg_puts(to, "\\x{");
        copy(x, to, 4);
        fg_putc(to, '}');
        return;
    }
    bool braces = (c == 'x' || c == 'o') && peek(x, 2) == '{';
    const char *end = braces ? memchr(x->in.s + x->at, '}', x->in.n - x->at) : NULL;
    if (end) {
        copy(x, to, (size_t)(end + 1 - x->in.s) - x->at);
        return;
    }
    copy(x, to, 1);
    if (x->at < x->in.n)
        copy(x, to, width(x));
}

/* ---- brackets ------------------------------------------------------------------------- */

static bool take_set(scan *x, set *s);

/* [:alpha:] */
static bool
take_posix(scan *x, set *s)
{
    const char *from = x->in.s + x->at + 2;
    const char *end = memmem(from, x->in.n - x->at - 2, ":]", 2);
    bool negated = end && *from == '^';
    const char *items = NULL;

    from += negated;
    if (end)
        items = named((fg_str){from, (size_t)(end - from)});
    if (!items)
        return false;
    add_items(x->a, s, items, negated);
    x->at = (size_t)(end + 2 - x->in.s);
    return true;
}

/* One character, or one as the end of a range. */
static void
take_char(scan *x, fg_text *to)
{
    int c = peek(x, 0);

    if (c == '\\') {
        take_escape(x, to);
        return;
    }
    if (c < 0x80 && strchr("[]^-", c))
        fg_putc(to, '\\');
    copy(x, to, width(x));
}

/* A hyphen makes a range between two characters; anywhere else it is itself. */
static bool
range_comes(const scan *x)
{
    return peek(x, 0) == '-' && peek(x, 1) > 0 && peek(x, 1) != ']' &&
           peek(x, 1) != '[' &&
           !(peek(x, 1) == '\\' && peek(x, 2) > 0 && strchr("wWdDsShHpP", peek(x, 2)));
}

/* Up to ] or &&. */
static bool
take_members(scan *x, set *s, bool first)
{
    for (; x->at < x->in.n; first = false) {
        if ((peek(x, 0) == ']' && !first) || comes(x, "&&"))
            return true;
        if (comes(x, "[:") && take_posix(x, s))
            continue;
        if (peek(x, 0) == '[') {
            set inner = set_new(x->a);
            if (!take_set(x, &inner))
                return false;
            add_set(x->a, s, &inner);
            continue;
        }
        if (peek(x, 0) == '\\' && take_class(x, s))
            continue;
        take_char(x, &s->items);
        if (!range_comes(x))
            continue;
        copy(x, &s->items, 1);
        take_char(x, &s->items);
    }
    return false;
}

/* From [ to its ]; false when there is none, or too many inside each other. */
static bool
take_set(scan *x, set *s)
{
    bool negated = peek(x, 1) == '^', ok = x->depth++ < MAX_DEPTH;
    fg_text both = fg_text_new(x->a);

    x->at += negated ? 2 : 1;
    ok = ok && take_members(x, s, true);
    while (ok && comes(x, "&&")) {
        fg_puts(&both, "(?=");
        put_set(&both, s);
        fg_putc(&both, ')');
        *s = set_new(x->a);
        x->at += 2;
        ok = take_members(x, s, false);
    }
    if (both.n) {
        put_set(&both, s);
        *s = set_new(x->a);
        s->more = both;
    }
    s->negated = negated;
    x->at += ok;
    x->depth--;
    return ok;
}

/* ---- the rest -------------------------------------------------------------------------- */

/* Puts (?: before what the quantifier that was just written repeats, and ) behind. */
static void
wrap(scan *x)
{
    char *atom;
    size_t n = x->out.n - x->atom;

    fg_puts(&x->out, "(?:)");
    atom = x->out.s + x->atom;
    memmove(atom + 3, atom, n);
    memcpy(atom, "(?:", 3);
    atom[n + 3] = ')';
}

/* {2} {2,} {,3} {2,3}; a + behind repeats it once more, and so does a ? behind {2}. */
static void
take_braces(scan *x)
{
    size_t at = x->at + 1, low = at, high;

    while (at < x->in.n && x->in.s[at] >= '0' && x->in.s[at] <= '9')
        at++;
    bool lowest = at > low, comma = at < x->in.n && x->in.s[at] == ',';
    high = at += comma;
    while (comma && at < x->in.n && x->in.s[at] >= '0' && x->in.s[at] <= '9')
        at++;
    if (at >= x->in.n || x->in.s[at] != '}' || (!lowest && at == high)) {
        x->atom = x->out.n;
        fg_puts(&x->out, "\\{");
        x->at++;
        return;
    }
    fg_putc(&x->out, '{');
    fg_puts(&x->out, lowest ? "" : "0");
    x->at++;
    copy(x, &x->out, at + 1 - x->at);
    if (peek(x, 0) == '+' || (peek(x, 0) == '?' && !comma))
        wrap(x);
}

/* ( and what says of which sort it is. The dot takes line ends by (?m) there, by (?s)
 * here. */
static void
take_group(scan *x)
{
    FG_PUSH(x->a, x->group, x->ngroup, x->capgroup) = x->out.n;
    if (peek(x, 1) != '?') {
        copy(x, &x->out, 1);
        return;
    }
    size_t flags = 2;
    while (peek(x, flags) > 0 && strchr("imx-", peek(x, flags)))
        flags++;
    bool set_flags = flags > 2 && (peek(x, flags) == ':' || peek(x, flags) == ')');
    copy(x, &x->out, 2);
    for (size_t k = 2; set_flags && k < flags; k++, x->at++)
        fg_putc(&x->out, peek(x, 0) == 'm' ? 's' : (char)peek(x, 0));
    if (comes(x, "<") || comes(x, "#")) { /* a name or a comment may hold anything */
        const char *end =
            memchr(x->in.s + x->at, comes(x, "#") ? ')' : '>', x->in.n - x->at);
        bool behind = peek(x, 1) == '=' || peek(x, 1) == '!';
        if (end && !(comes(x, "<") && behind))
            copy(x, &x->out, (size_t)(end - x->in.s) - x->at);
    }
}

static void
take_backslash(scan *x)
{
    static const struct {
        const char *from, *to;
    } alone[] = {
        {"\\w", "[" WORD_ALONE "]"},
        {"\\W", "[^" WORD_ALONE "]"},
        {"\\b", "(?:(?<=[" WORD_ALONE "])(?![" WORD_ALONE "])|(?<![" WORD_ALONE
                "])(?=[" WORD_ALONE "]))"},
        {"\\B", "(?:(?<=[" WORD_ALONE "])(?=[" WORD_ALONE "])|(?<![" WORD_ALONE
                "])(?![" WORD_ALONE "]))"},
    };
    set s = set_new(x->a);

    x->atom = x->out.n;
    for (size_t k = 0; k < sizeof alone / sizeof *alone; k++)
        if (comes(x, alone[k].from)) {
            fg_puts(&x->out, alone[k].to);
            x->at += 2;
            return;
        }
    if (take_class(x, &s))
        put_set(&x->out, &s);
    else
        take_escape(x, &x->out);
}

static void
take_one(scan *x)
{
    int c = peek(x, 0);
    set s = set_new(x->a);
    scan before = *x;

    switch (c) {
    case '\\':
        take_backslash(x);
        return;
    case '[':
        x->atom = x->out.n;
        if (take_set(x, &s)) {
            put_set(&x->out, &s);
            return;
        }
        *x = before; /* PCRE2 says what is wrong with it */
        copy(x, &x->out, x->in.n - x->at);
        return;
    case '(':
        take_group(x);
        return;
    case ')':
        x->atom = x->ngroup ? x->group[--x->ngroup] : x->out.n;
        copy(x, &x->out, 1);
        return;
    case '{':
        take_braces(x);
        return;
    case '*':
    case '+':
    case '?':
        copy(x, &x->out, 1);
        return;
    default:
        x->atom = x->out.n;
        copy(x, &x->out, width(x));
    }
}

fg_str
fg_pattern_translate(fg_arena *a, fg_str pattern)
{
    scan x = {.a = a, .in = pattern, .out = fg_text_new(a)};

    while (x.at < x.in.n)
        take_one(&x);
    return (fg_str){x.out.s, x.out.n};
}
