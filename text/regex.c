/* regex.c - patterns of normalizers and pre-tokenizers, by PCRE2. Text is searched as
 * the reference does: lines are what ^ and $ know, and a match may be empty, but not where
 * the one before it ended.
 *
 * A pattern comes from a file, so a match may take a bounded number of steps; text is
 * well-formed UTF-8 already and is not checked again at each match.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "text/tok.h"

#define MATCH_STEPS 10000000
#define MAX_PATTERN ((size_t)1 << 16)

struct fg_regex {
    fg_regex *next;
    pcre2_code *code;
    pcre2_match_context *limits;
};

void
fg_regex_free_all(fg_regex *list)
{
    for (; list; list = list->next) {
        pcre2_match_context_free(list->limits);
        pcre2_code_free(list->code);
    }
}

bool
fg_regex_valid(const char *text)
{
    int code;
    PCRE2_SIZE at;
    pcre2_code *re = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, PCRE2_UTF,
                                   &code, &at, NULL);

    pcre2_code_free(re);
    return re != NULL;
}

bool
fg_pattern_compile(fg_load *l, fg_pattern *p, fg_str regex)
{
    int code;
    PCRE2_SIZE at;
    fg_regex *re = FG_NEW(l->a, fg_regex);

    if (regex.n > MAX_PATTERN)
        return fg_load_fail(l, "a pattern of %zu bytes is too long", regex.n);
    regex = fg_pattern_translate(l->a, regex);
    re->code = pcre2_compile((PCRE2_SPTR)regex.s, regex.n,
                             PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &code, &at, NULL);
    if (!re->code) {
        PCRE2_UCHAR text[120];
        pcre2_get_error_message(code, text, sizeof text);
        return fg_load_fail(l, "pattern \"%.100s\": %s at byte %zu", regex.s,
                            (char *)text, (size_t)at);
    }
    re->next = *l->regexes;
    *l->regexes = re;
    pcre2_jit_compile(re->code, PCRE2_JIT_COMPLETE); /* else the interpreter runs */
    if (!(re->limits = pcre2_match_context_create(NULL)))
        fg_raise_memory(l->cx);
    pcre2_set_match_limit(re->limits, MATCH_STEPS);
    pcre2_set_heap_limit(re->limits, 64 * 1024);
    p->re = re;
    return true;
}

bool
fg_pattern_load(fg_load *l, fg_pattern *p, const cJSON *o)
{
    const cJSON *regex = cJSON_GetObjectItemCaseSensitive(o, "Regex");

    if (cJSON_IsString(regex))
        return fg_pattern_compile(l, p, fg_json_str(l, regex));
    p->text = fg_json_text(l, o, "String");
    if (!cJSON_IsString(cJSON_GetObjectItemCaseSensitive(o, "String")))
        return fg_load_fail(l, "a pattern is neither a String nor a Regex");
    return true;
}

/* What PCRE2 needs for a match lies in the caller's arena. */
static void *
arena_alloc(size_t n, void *a)
{
    return fg_alloc(a, n);
}

static void
arena_release(void *p, void *a)
{
    (void)p;
    (void)a;
}

fg_match
fg_match_new(fg_arena *a, const fg_pattern *p)
{
    fg_match m = {.p = p};

    if (p->re)
        m.data = pcre2_match_data_create_from_pattern(
            p->re->code, pcre2_general_context_create(arena_alloc, arena_release, a));
    return m;
}

void
fg_match_text(fg_match *m, fg_str text)
{
    m->text = text;
    m->at = 0;
    m->last = SIZE_MAX;
}

static int
next_text(fg_match *m)
{
    fg_str want = m->p->text;
    const char *hit =
        want.n ? memmem(m->text.s + m->at, m->text.n - m->at, want.s, want.n) : NULL;

    if (!hit)
        return 0;
    m->from = (size_t)(hit - m->text.s);
    m->at = m->to = m->from + want.n;
    return 1;
}

int
fg_match_next(fg_match *m)
{
    if (!m->p->re)
        return next_text(m);
    while (m->text.n && m->at <= m->text.n) {
        int rc = pcre2_match(m->p->re->code, (PCRE2_SPTR)m->text.s, m->text.n, m->at,
                             PCRE2_NO_UTF_CHECK, m->data, m->p->re->limits);
        if (rc == PCRE2_ERROR_NOMATCH)
            return 0;
        if (rc < 0)
            return -1;
        const PCRE2_SIZE *hit = pcre2_get_ovector_pointer(m->data);
        if (hit[0] < m->at || hit[1] < hit[0]) /* \K can do that */
            return -1;
        m->from = hit[0];
        m->to = m->at = hit[1];
        if (m->to > m->from || m->to != m->last) {
            m->last = m->to;
            return 1;
        }
        if (m->at == m->text.n)
            break;
        fg_utf8_next(m->text, &m->at);
    }
    return 0;
}
