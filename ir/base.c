/* base.c - context, arenas, strings, bit sets, diagnostics. */
#include "ir/base.h"

#include <math.h>
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

/* ---- context ---------------------------------------------------------------------- */

struct fg_strtab {
    struct fg_strslot { /* open addressing; the hash spares most looks at strings */
        uint64_t hash;
        const char *s; /* preceded by its length; NULL: free */
    } *slot;
    size_t n, cap;
};

static void *
host_alloc(void *user, size_t n)
{
    (void)user;
    return malloc(n);
}

static void
host_release(void *user, void *p)
{
    (void)user;
    free(p);
}

static void
make_tables(void *arg)
{
    fg_ctx *cx = arg;
    cx->arena = fg_arena_new(cx);
    cx->strings = FG_NEW(cx->arena, struct fg_strtab);
    cx->strings->cap = 1024;
    cx->strings->slot = FG_NEWN(cx->arena, struct fg_strslot, cx->strings->cap);
}

fg_ctx *
fg_ctx_new(const fg_allocator *alloc)
{
    fg_allocator al = alloc ? *alloc : (fg_allocator){host_alloc, host_release, NULL};
    fg_ctx *cx = al.alloc(al.user, sizeof *cx);
    if (!cx)
        return NULL;
    *cx = (fg_ctx){.alloc = al};
    if (fg_protect(cx, make_tables, cx) != FG_RAISE_NONE) {
        fg_ctx_free(cx);
        return NULL;
    }
    return cx;
}

void
fg_ctx_free(fg_ctx *cx)
{
    if (!cx)
        return;
    while (cx->arenas)
        fg_arena_free(cx->arenas);
    cx->alloc.release(cx->alloc.user, cx);
}

fg_raise
fg_protect(fg_ctx *cx, void (*fn)(void *arg), void *arg)
{
    jmp_buf here;
    jmp_buf *outer = cx->handler;
    int code = setjmp(here);
    if (code == 0) {
        cx->handler = &here;
        fn(arg);
    }
    cx->handler = outer;
    return (fg_raise)code;
}

_Noreturn void
fg_raise_again(fg_ctx *cx, fg_raise why)
{
    if (!cx->handler) /* a caller forgot fg_protect: nothing sane is left to do */
        abort();
    longjmp(*cx->handler, (int)why);
}

_Noreturn void
fg_raise_memory(fg_ctx *cx)
{
    fg_raise_again(cx, FG_RAISE_MEMORY);
}

/* ---- arenas ----------------------------------------------------------------------- */

typedef struct chunk {
    struct chunk *next;
    size_t used, cap;
    _Alignas(16) char data[];
} chunk;

struct fg_arena {
    fg_ctx *cx;
    fg_arena *next, **link; /* all of the context, for what an unwinding left behind */
    chunk *head, *large;    /* one list */
    size_t bytes;
};

enum {
    CHUNK_MIN = 16 << 10,
    CHUNK_MAX = 1 << 20,
    LARGE_MIN = 4 << 20,
    LARGE_MAX = 32 << 20,
    LARGE_ALIGN = 64, /* of data: a line of the cache */
    HUGE_PAGE = 2 << 20
};

fg_arena *
fg_arena_new(fg_ctx *cx)
{
    fg_arena *a = cx->alloc.alloc(cx->alloc.user, sizeof *a);
    if (!a)
        fg_raise_memory(cx);
    *a =
        (fg_arena){.cx = cx, .bytes = sizeof *a, .next = cx->arenas, .link = &cx->arenas};
    if (a->next)
        a->next->link = &a->next;
    cx->arenas = a;
    return a;
}

void
fg_arena_free(fg_arena *a)
{
    if (!a)
        return;
    fg_allocator al = a->cx->alloc;
    *a->link = a->next;
    if (a->next)
        a->next->link = a->link;
    for (chunk *c = a->head, *next; c; c = next) {
        next = c->next;
        al.release(al.user, c);
    }
    al.release(al.user, a);
}

fg_ctx *
fg_arena_ctx(fg_arena *a)
{
    return a->cx;
}

size_t
fg_arena_bytes(const fg_arena *a)
{
    return a->bytes;
}

/* Room for n bytes, at least twice as much as `last` has up to a limit; in no list yet. */
static chunk *
chunk_new(fg_arena *a, const chunk *last, size_t n, size_t least, size_t most)
{
    size_t want = last ? last->cap * 2 : least;
    want = want > most ? most : want;
    want = want < n ? n : want;
    chunk *c = a->cx->alloc.alloc(a->cx->alloc.user, sizeof *c + want);
    if (!c)
        fg_raise_memory(a->cx);
    c->used = 0;
    c->cap = want;
    a->bytes += sizeof *c + want;
    return c;
}

static void *
take(fg_arena *a, size_t n)
{
    if (n > SIZE_MAX / 2)
        fg_raise_memory(a->cx);
    n = (n + 15) & ~(size_t)15;
    chunk *c = a->head;
    if (!c || c->cap - c->used < n) {
        chunk *fresh = chunk_new(a, c, n, CHUNK_MIN, CHUNK_MAX);
        if (c && fresh->cap == n && c->cap - c->used > CHUNK_MIN) {
            /* A large object gets a chunk of its own; go on filling the current one. */
            fresh->next = c->next;
            c->next = fresh;
        } else {
            fresh->next = c;
            a->head = fresh;
        }
        c = fresh;
    }
    void *p = c->data + c->used;
    c->used += n;
    return p;
}

/* Pages of 4 KiB cost a walk of the page table each, which halves the speed of reading. */
static void
large_pages(chunk *c)
{
#ifdef MADV_HUGEPAGE
    uintptr_t from = ((uintptr_t)c->data + HUGE_PAGE - 1) & -(uintptr_t)HUGE_PAGE;
    uintptr_t to = (uintptr_t)(c->data + c->cap) & -(uintptr_t)HUGE_PAGE;
    if (from < to)
        madvise((void *)from, to - from, MADV_HUGEPAGE);
#else
    (void)c;
#endif
}

void *
fg_alloc_large(fg_arena *a, size_t n)
{
    if (n > SIZE_MAX / 2)
        fg_raise_memory(a->cx);
    n += LARGE_ALIGN;
    chunk *c = a->large;
    if (!c || c->cap - c->used < n) {
        chunk **list = a->head ? &a->head->next : &a->head;
        c = chunk_new(a, c, n, LARGE_MIN, LARGE_MAX);
        large_pages(c);
        c->next = *list;
        *list = a->large = c;
    }
    uintptr_t p = (uintptr_t)(c->data + c->used + LARGE_ALIGN - 1);
    c->used += n;
    return (void *)(p & -(uintptr_t)LARGE_ALIGN);
}

void *
fg_alloc(fg_arena *a, size_t n)
{
    return memset(take(a, n), 0, n);
}

void *
fg_alloc_n(fg_arena *a, size_t n, size_t each)
{
    size_t bytes;
    if (!fg_mul_size(n, each, &bytes))
        fg_raise_memory(a->cx);
    return fg_alloc(a, bytes);
}

void *
fg_dup(fg_arena *a, const void *p, size_t n)
{
    void *q = fg_alloc(a, n);
    return n ? memcpy(q, p, n) : q;
}

char *
fg_strdup(fg_arena *a, const char *s)
{
    return fg_dup(a, s, strlen(s) + 1);
}

static char *
vformat(fg_arena *a, const char *fmt, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    char *s = fg_alloc(a, (size_t)(n < 0 ? 0 : n) + 1);
    if (n > 0)
        vsnprintf(s, (size_t)n + 1, fmt, again);
    va_end(again);
    return s;
}

char *
fg_format(fg_arena *a, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char *s = vformat(a, fmt, ap);
    va_end(ap);
    return s;
}

void *
fg_grow(fg_arena *a, void *old, size_t n, size_t *cap, size_t each)
{
    if (n < *cap)
        return old;
    size_t want = *cap ? *cap * 2 : 8, bytes;
    if (!fg_mul_size(want, each, &bytes))
        fg_raise_memory(a->cx);
    /* What lies past n is not cleared: pages nobody pushed to are never touched. */
    void *v = take(a, bytes);
    if (n)
        memcpy(v, old, n * each);
    *cap = want;
    return v;
}

/* ---- strings ---------------------------------------------------------------------- */

uint64_t
fg_hash(const void *p, size_t n, uint64_t seed)
{
    const unsigned char *s = p;
    uint64_t h = seed ^ (n * 0x9e3779b97f4a7c15u);
    for (; n >= 8; n -= 8, s += 8) {
        uint64_t w;
        memcpy(&w, s, 8);
        h = (h ^ w) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    for (; n; n--, s++)
        h = (h ^ *s) * 0x100000001b3u;
    h = (h ^ (h >> 33)) * 0xc4ceb9fe1a85ec53u;
    return h ^ (h >> 29);
}

static size_t
string_length(const char *s)
{
    size_t n;
    memcpy(&n, s - sizeof n, sizeof n);
    return n;
}

static void
strtab_grow(fg_ctx *cx)
{
    struct fg_strtab *t = cx->strings;
    size_t cap = t->cap * 2;
    struct fg_strslot *slot = FG_NEWN(cx->arena, struct fg_strslot, cap);
    for (size_t i = 0; i < t->cap; i++) {
        size_t h = t->slot[i].hash & (cap - 1);
        if (!t->slot[i].s)
            continue;
        while (slot[h].s)
            h = (h + 1) & (cap - 1);
        slot[h] = t->slot[i];
    }
    t->slot = slot;
    t->cap = cap;
}

const char *
fg_intern_n(fg_ctx *cx, const char *s, size_t n)
{
    struct fg_strtab *t = cx->strings;
    if (t->n * 2 >= t->cap)
        strtab_grow(cx);
    uint64_t hash = fg_hash(s, n, 0);
    size_t h = (size_t)hash & (t->cap - 1);
    for (; t->slot[h].s; h = (h + 1) & (t->cap - 1))
        if (t->slot[h].hash == hash && string_length(t->slot[h].s) == n &&
            memcmp(t->slot[h].s, s, n) == 0)
            return t->slot[h].s;
    char *p = fg_alloc(cx->arena, sizeof n + n + 1);
    memcpy(p, &n, sizeof n);
    if (n)
        memcpy(p + sizeof n, s, n);
    t->slot[h] = (struct fg_strslot){hash, p + sizeof n};
    t->n++;
    return t->slot[h].s;
}

const char *
fg_intern(fg_ctx *cx, const char *s)
{
    return fg_intern_n(cx, s, strlen(s));
}

/* Bytes of the UTF-8 sequence at s that is safe to show, 0 when it must be escaped. */
static size_t
safe_utf8(const unsigned char *s, size_t n)
{
    if (s[0] >= 0x20 && s[0] < 0x7f)
        return 1;
    size_t len = s[0] >= 0xf0 && s[0] < 0xf5 ? 4
                 : s[0] >= 0xe0              ? 3
                 : s[0] >= 0xc2              ? 2
                                             : 0;
    uint32_t c = len == 4 ? s[0] & 7u : len == 3 ? s[0] & 15u : s[0] & 31u;
    if (s[0] >= 0xf5 || len == 0 || len > n)
        return 0;
    for (size_t i = 1; i < len; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (s[i] & 63u);
    }
    bool overlong = (len == 3 && c < 0x800) || (len == 4 && c < 0x10000);
    bool control = c < 0xa0 || (c >= 0x200b && c <= 0x200f) ||
                   (c >= 0x2028 && c <= 0x202e) || (c >= 0x2060 && c <= 0x206f) ||
                   c == 0xfeff || (c >= 0xd800 && c < 0xe000) ||
                   (c >= 0xe0000 && c < 0xe1000) || c == 0x061c ||
                   (c & 0xfffe) == 0xfffe || c > 0x10ffff;
    return overlong || control ? 0 : len;
}

/* Edits (a letter more, less or different, two swapped) from a to b, no more than `most`
 * + 1; words are short. */
static size_t
edits(const char *a, size_t na, const char *b, size_t nb, size_t most)
{
    enum { LONGEST = 120 };
    size_t row[3][LONGEST + 1];

    if (na > LONGEST || nb > LONGEST)
        return most + 1;
    for (size_t j = 0; j <= nb; j++)
        row[0][j] = j;
    for (size_t i = 1; i <= na; i++) {
        size_t *now = row[i % 3], *up = row[(i + 2) % 3], *up2 = row[(i + 1) % 3];
        now[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            size_t best = up[j - 1] + (a[i - 1] != b[j - 1]);
            best = up[j] + 1 < best ? up[j] + 1 : best;
            best = now[j - 1] + 1 < best ? now[j - 1] + 1 : best;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                up2[j - 2] + 1 < best)
                best = up2[j - 2] + 1;
            now[j] = best;
        }
    }
    return row[na % 3][nb];
}

const char *
fg_closest(const char *word, size_t len, const void *table, size_t n, size_t row_bytes)
{
    const char *best = NULL;
    size_t least = len / 3 + 1;

    for (size_t k = 0; k < n; k++) {
        const char *name;
        memcpy(&name, (const char *)table + k * row_bytes, sizeof name);
        size_t d = edits(word, len, name, strlen(name), least);
        if (d < least + !best) {
            least = d;
            best = name;
        }
    }
    return best;
}

char *
fg_printable(fg_arena *a, const char *s, size_t n, size_t max)
{
    fg_text t = fg_text_new(a);
    for (size_t i = 0; i < n;) {
        if (t.n + 4 > max) {
            fg_puts(&t, "...");
            break;
        }
        size_t len = safe_utf8((const unsigned char *)s + i, n - i);
        if (len == 0)
            fg_putf(&t, "\\x%02x", (unsigned char)s[i++]);
        for (; len; len--)
            fg_putc(&t, s[i++]);
    }
    return t.s;
}

fg_text
fg_text_new(fg_arena *a)
{
    return (fg_text){.a = a, .s = fg_alloc(a, 64), .cap = 64};
}

static void
text_room(fg_text *t, size_t more)
{
    if (t->n + more < t->cap)
        return;
    size_t want = t->cap * 2;
    while (want <= t->n + more)
        want *= 2;
    char *s = fg_alloc(t->a, want);
    memcpy(s, t->s, t->n);
    t->s = s;
    t->cap = want;
}

void
fg_puts(fg_text *t, const char *s)
{
    size_t n = strlen(s);
    text_room(t, n + 1);
    memcpy(t->s + t->n, s, n + 1);
    t->n += n;
}

void
fg_putc(fg_text *t, char c)
{
    text_room(t, 2);
    t->s[t->n++] = c;
    t->s[t->n] = 0;
}

void
fg_vputf(fg_text *t, const char *fmt, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    if (n > 0) {
        text_room(t, (size_t)n + 1);
        vsnprintf(t->s + t->n, (size_t)n + 1, fmt, again);
        t->n += (size_t)n;
    }
    va_end(again);
}

void
fg_putf(fg_text *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fg_vputf(t, fmt, ap);
    va_end(ap);
}

void
fg_put_double(fg_text *t, double v, bool single)
{
    char s[40];
    if (isnan(v) || isinf(v)) {
        fg_puts(t, isnan(v) ? "nan" : v > 0 ? "inf" : "-inf");
        return;
    }
    /* 30.0 rather than 3e+01. */
    if (fabs(v) < 1e15 && v == (double)(long long)v)
        snprintf(s, sizeof s, "%.1f", v);
    else
        for (int digits = 1; digits <= 17; digits++) {
            snprintf(s, sizeof s, "%.*g", digits, v);
            if (single ? strtof(s, NULL) == (float)v : strtod(s, NULL) == v)
                break;
        }
    /* The host's locale may write the point otherwise. */
    char *point = s + strspn(s, "-0123456789");
    size_t n = strcspn(point, "0123456789e");
    if (n > 1)
        memmove(point + 1, point + n, strlen(point + n) + 1);
    if (n)
        *point = '.';
    fg_puts(t, s);
    if (!strpbrk(s, ".e"))
        fg_puts(t, ".0");
}

fg_bits
fg_bits_new(fg_arena *a, uint32_t n)
{
    return (fg_bits){FG_NEWN(a, uint64_t, (size_t)n / 64 + 1), n};
}

/* ---- diagnostics ------------------------------------------------------------------ */

enum { LINE_MAX_BYTES = 960 };

static void
record(fg_ctx *cx, fg_severity sev, const char *fmt, va_list ap)
{
    char *raw = vformat(cx->arena, fmt, ap);
    fg_diag *d = FG_NEW(cx->arena, fg_diag);
    d->severity = sev;
    d->text = fg_printable(cx->arena, raw, strlen(raw), LINE_MAX_BYTES);
    if (cx->last_diag)
        cx->last_diag->next = d;
    else
        cx->diags = d;
    cx->last_diag = d;
    cx->nerror += sev == FG_ERROR;
}

bool
fg_error(fg_ctx *cx, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    record(cx, FG_ERROR, fmt, ap);
    va_end(ap);
    return false;
}

void
fg_warn(fg_ctx *cx, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    record(cx, FG_WARNING, fmt, ap);
    va_end(ap);
}

void
fg_note(fg_ctx *cx, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    record(cx, FG_NOTE, fmt, ap);
    va_end(ap);
}

const char *
fg_first_error(const fg_ctx *cx)
{
    for (const fg_diag *d = cx->diags; d; d = d->next)
        if (d->severity == FG_ERROR)
            return d->text;
    return "";
}

fg_diagmark
fg_diag_mark(const fg_ctx *cx)
{
    return (fg_diagmark){cx->last_diag, cx->nerror};
}

void
fg_diag_forget(fg_ctx *cx, fg_diagmark mark)
{
    *(mark.last ? &mark.last->next : &cx->diags) = NULL;
    cx->last_diag = mark.last;
    cx->nerror = mark.nerror;
}

const char *
fg_last_text(const fg_ctx *cx)
{
    return cx->last_diag ? cx->last_diag->text : "";
}

_Noreturn void
fg_bug(fg_ctx *cx, const char *file, int line, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char *what = vformat(cx->arena, fmt, ap);
    va_end(ap);
    fg_error(cx, "internal error at %s:%d: %s", file, line, what);
    fg_raise_again(cx, FG_RAISE_BUG);
}
