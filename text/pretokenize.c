/* pretokenize.c - cutting text into the pieces that the model encodes one by one.
 *
 *     ByteLevel    "I'm  42"  ->  "I" "'m" "Ġ" "Ġ42"
 *     Metaspace    "I am"     ->  "▁I" "▁am"
 *     Digits       "a42"      ->  "a" "4" "2"
 */
#include "text/tok.h"

typedef enum { REMOVED, ISOLATED, PREVIOUS, NEXT, CONTIGUOUS } behavior;

struct fg_split_step {
    bool (*run)(const fg_split_step *s, fg_pieces *in, fg_pieces *out);
    fg_pattern pattern;
    fg_char_test is; /* instead of a pattern */
    behavior how;
    bool invert, prefix, bytes, split;
    enum { ALWAYS, FIRST, NEVER } prepend;
    fg_str mark;
    size_t length;
};

void
fg_piece_add(fg_pieces *p, fg_str t, int32_t id, bool first)
{
    if (t.n || id >= 0)
        FG_PUSH(p->a, p->v, p->n, p->cap) = (fg_piece){t, id, first};
}

/* ---- what happens to matches ---------------------------------------------------------- */

typedef struct part {
    size_t from, to;
    bool match;
} part;

typedef struct parts {
    fg_arena *a;
    part *v;
    size_t n, cap;
} parts;

static void
add_part(parts *p, size_t from, size_t to, bool match)
{
    if (to > from || match)
        FG_PUSH(p->a, p->v, p->n, p->cap) = (part){from, to, match};
}

static bool
parts_by_test(const fg_split_step *s, fg_str t, parts *p)
{
    for (size_t at = 0; at < t.n;) {
        size_t from = at;
        bool is = s->is(fg_utf8_next(t, &at));
        if (!is && p->n && !p->v[p->n - 1].match)
            p->v[p->n - 1].to = at;
        else
            add_part(p, from, at, is);
    }
    return true;
}

static bool
parts_by_pattern(fg_match *m, fg_str t, parts *p)
{
    size_t done = 0;
    int rc;

    fg_match_text(m, t);
    while ((rc = fg_match_next(m)) > 0) {
        add_part(p, done, m->from, false);
        add_part(p, m->from, m->to, true);
        done = m->to;
    }
    add_part(p, done, t.n, false);
    return rc == 0;
}

/* A match joins the part before or behind it unless that is a match itself; of several
 * matches in a row one joins. */
static void
merge(parts *p, behavior how)
{
    size_t n = 0;
    bool matched = false; /* the part before, in the direction of the walk */

    if (how == CONTIGUOUS || how == PREVIOUS)
        for (size_t i = 0; i < p->n; i++) {
            part x = p->v[i];
            bool join = how == PREVIOUS ? x.match && !matched : x.match == matched;
            if (n && join)
                p->v[n - 1].to = x.to;
            else
                p->v[n++] = x;
            matched = x.match;
        }
    if (how != NEXT) {
        p->n = n ? n : p->n;
        return;
    }
    for (size_t i = p->n; i-- > 0;) {
        part x = p->v[i];
        if (n && x.match && !matched)
            p->v[p->n - n].from = x.from;
        else
            p->v[p->n - ++n] = x;
        matched = x.match;
    }
    memmove(p->v, p->v + (p->n - n), n * sizeof *p->v);
    p->n = n;
}

static bool
run_split(const fg_split_step *s, fg_pieces *in, fg_pieces *out)
{
    fg_match m = fg_match_new(out->a, &s->pattern);
    parts p = {.a = out->a};

    for (size_t i = 0; i < in->n; i++) {
        fg_piece *x = &in->v[i];
        if (x->id >= 0) {
            fg_piece_add(out, x->t, x->id, x->first);
            continue;
        }
        p.n = 0;
        if (!(s->is ? parts_by_test(s, x->t, &p) : parts_by_pattern(&m, x->t, &p)))
            return false;
        for (size_t k = 0; k < p.n; k++)
            p.v[k].match = p.v[k].match != s->invert;
        merge(&p, s->how);
        for (size_t k = 0; k < p.n; k++)
            if (s->how != REMOVED || !p.v[k].match)
                fg_piece_add(out, (fg_str){x->t.s + p.v[k].from, p.v[k].to - p.v[k].from},
                             -1, x->first && !p.v[k].from);
    }
    return true;
}

/* ---- bytes -------------------------------------------------------------------------- */

static fg_str
joined(fg_arena *a, fg_str x, fg_str y)
{
    fg_text t = fg_text_new(a);

    fg_put_str(&t, x);
    fg_put_str(&t, y);
    return (fg_str){t.s, t.n};
}

static bool
run_bytes(const fg_split_step *s, fg_pieces *in, fg_pieces *out)
{
    fg_pieces cut = {.a = out->a};

    for (size_t i = 0; i < in->n && s->prefix; i++)
        if (in->v[i].id < 0 && in->v[i].t.s[0] != ' ')
            in->v[i].t = joined(out->a, fg_str_of(" "), in->v[i].t);
    if (s->split && !run_split(s, in, &cut))
        return false;
    for (size_t i = 0; i < (s->split ? cut.n : in->n); i++) {
        fg_piece x = s->split ? cut.v[i] : in->v[i];
        if (x.id < 0) {
            fg_text t = fg_text_new(out->a);
            fg_put_bytes_as_chars(&t, x.t);
            x.t = (fg_str){t.s, t.n};
        }
        fg_piece_add(out, x.t, x.id, x.first);
    }
    return true;
}

/* ---- the visible space ---------------------------------------------------------------- */

static fg_str
spaces_marked(fg_arena *a, fg_str in, fg_str mark, bool before)
{
    fg_text t = fg_text_new(a);

    if (before)
        fg_put_str(&t, mark);
    for (size_t from = 0, at = 0; at <= in.n; at++) {
        if (at < in.n && in.s[at] != ' ')
            continue;
        fg_put_str(&t, (fg_str){in.s + from, at - from});
        if (at < in.n)
            fg_put_str(&t, mark);
        from = at + 1;
    }
    return (fg_str){t.s, t.n};
}

static bool
run_metaspace(const fg_split_step *s, fg_pieces *in, fg_pieces *out)
{
    for (size_t i = 0; i < in->n; i++) {
        fg_piece *x = &in->v[i];
        if (x->id >= 0)
            continue;
        bool marked = x->t.s[0] == ' ' || fg_str_begins(x->t, s->mark);
        bool before =
            !marked && (s->prepend == ALWAYS || (s->prepend == FIRST && x->first));
        x->t = spaces_marked(out->a, x->t, s->mark, before);
    }
    if (s->split)
        return run_split(s, in, out);
    for (size_t i = 0; i < in->n; i++)
        fg_piece_add(out, in->v[i].t, in->v[i].id, in->v[i].first);
    return true;
}

static bool
run_length(const fg_split_step *s, fg_pieces *in, fg_pieces *out)
{
    for (size_t i = 0; i < in->n; i++) {
        fg_piece x = in->v[i];
        if (x.id >= 0)
            fg_piece_add(out, x.t, x.id, x.first);
        for (size_t at = 0; x.id < 0 && at < x.t.n;) {
            size_t from = at;
            for (size_t k = 0; k < s->length && at < x.t.n; k++)
                fg_utf8_next(x.t, &at);
            fg_piece_add(out, (fg_str){x.t.s + from, at - from}, -1, x.first && !from);
        }
    }
    return true;
}

/* ---- loading ------------------------------------------------------------------------ */

#define BYTE_LEVEL                                                                       \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
/* \w as Unicode has it: PCRE2's leaves marks and connectors out. */
#define WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}"

static bool
load_behavior(fg_load *l, const cJSON *o, behavior *how)
{
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    fg_str name = fg_json_text(l, o, "behavior");

    for (size_t k = 0; k < sizeof names / sizeof *names && name.n; k++)
        if (!strcmp(names[k], name.s)) {
            *how = (behavior)k;
            return true;
        }
    return !name.n ||
           fg_load_fail(l, "split behavior \"%.100s\" is not supported", name.s);
}

static bool
load_split(fg_load *l, const cJSON *o, fg_split_step *s)
{
    s->run = run_split;
    s->how = ISOLATED;
    s->invert = fg_json_flag(o, "invert", false);
    return load_behavior(l, o, &s->how) &&
           fg_pattern_load(l, &s->pattern,
                           cJSON_GetObjectItemCaseSensitive(o, "pattern"));
}

static bool
load_bytes(fg_load *l, const cJSON *o, fg_split_step *s)
{
    s->run = run_bytes;
    s->how = ISOLATED;
    s->prefix = fg_json_flag(o, "add_prefix_space", true);
    s->split = fg_json_flag(o, "use_regex", true);
    return !s->split || fg_pattern_compile(l, &s->pattern, fg_str_of(BYTE_LEVEL));
}

static bool
load_metaspace(fg_load *l, const cJSON *o, fg_split_step *s)
{
    fg_str scheme = fg_json_text(l, o, "prepend_scheme");

    s->run = run_metaspace;
    s->how = NEXT;
    s->mark = fg_json_text(l, o, "replacement");
    if (!s->mark.n)
        s->mark = fg_str_of("\u2581");
    s->prepend = !scheme.n ? (fg_json_flag(o, "add_prefix_space", true) ? ALWAYS : NEVER)
                 : !strcmp(scheme.s, "first") ? FIRST
                 : !strcmp(scheme.s, "never") ? NEVER
                                              : ALWAYS;
    s->split = fg_json_flag(o, "split", true);
    s->pattern.text = s->mark;
    return true;
}

static bool
load_whitespace(fg_load *l, const cJSON *o, fg_split_step *s)
{
    (void)o;
    s->run = run_split;
    s->how = REMOVED;
    s->invert = true;
    return fg_pattern_compile(l, &s->pattern, fg_str_of("[" WORD "]+|[^" WORD "\\s]+"));
}

static bool
load_test(fg_split_step *s, fg_char_test is, behavior how)
{
    s->run = run_split;
    s->is = is;
    s->how = how;
    return true;
}

static bool
load_spaces(fg_load *l, const cJSON *o, fg_split_step *s)
{
    (void)l;
    (void)o;
    return load_test(s, fg_char_space, REMOVED);
}

static bool
load_punctuation(fg_load *l, const cJSON *o, fg_split_step *s)
{
    return load_test(s, fg_char_punctuation, ISOLATED) && load_behavior(l, o, &s->how);
}

static bool
load_digits(fg_load *l, const cJSON *o, fg_split_step *s)
{
    (void)l;
    return load_test(s, fg_char_numeric,
                     fg_json_flag(o, "individual_digits", false) ? ISOLATED : CONTIGUOUS);
}

static bool
load_char(fg_load *l, const cJSON *o, fg_split_step *s)
{
    s->run = run_split;
    s->how = REMOVED;
    s->pattern.text = fg_json_text(l, o, "delimiter");
    return true;
}

static bool
load_length(fg_load *l, const cJSON *o, fg_split_step *s)
{
    int64_t n = fg_json_int(o, "length", 0);

    s->run = run_length;
    s->length = (size_t)n;
    return n > 0 || fg_load_fail(l, "a FixedLength without a length");
}

static const struct {
    const char *type;
    bool (*load)(fg_load *l, const cJSON *o, fg_split_step *s);
} kinds[] = {
    {"ByteLevel", load_bytes},         {"Split", load_split},
    {"Metaspace", load_metaspace},     {"Digits", load_digits},
    {"Whitespace", load_whitespace},   {"WhitespaceSplit", load_spaces},
    {"Punctuation", load_punctuation}, {"CharDelimiterSplit", load_char},
    {"FixedLength", load_length},
};

static bool
load_step(fg_load *l, void *to, const cJSON *o, const char *type)
{
    fg_pretokenizer *p = to;

    if (!strcmp(type, "BertPreTokenizer")) { /* words, then punctuation by itself */
        fg_split_step space = {0}, mark = {0};
        load_test(&space, fg_char_space, REMOVED);
        load_test(&mark, fg_char_punctuation, ISOLATED);
        FG_PUSH(l->a, p->v, p->n, p->cap) = space;
        FG_PUSH(l->a, p->v, p->n, p->cap) = mark;
        return true;
    }
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        if (!strcmp(kinds[k].type, type)) {
            fg_split_step s = {0};
            if (!kinds[k].load(l, o, &s))
                return false;
            FG_PUSH(l->a, p->v, p->n, p->cap) = s;
            return true;
        }
    return fg_load_fail(l, "pre-tokenizer \"%.100s\" is not supported", type);
}

bool
fg_pretokenizer_load(fg_load *l, fg_pretokenizer *p, const cJSON *o)
{
    return fg_load_steps(l, o, "pre-tokenizer", "pretokenizers", load_step, p);
}

bool
fg_pretokenize(const fg_pretokenizer *p, fg_pieces *pieces)
{
    for (size_t i = 0; i < p->n; i++) {
        fg_pieces out = {.a = pieces->a};
        if (!p->v[i].run(&p->v[i], pieces, &out))
            return false;
        *pieces = out;
    }
    return true;
}
