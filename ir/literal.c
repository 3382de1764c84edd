/* literal.c - strings, numbers and constant tensors as text, both ways.
 *
 *     f32[3] {1.0, 0.5, -inf}         few elements
 *     f32[1,1,512,512] splat 0.0      many equal ones
 *     i64[100] base64 "AAAA.."        the rest, as stored: little endian, packed
 *
 * A list or a splat is written only when it reads back to the same bytes: a NaN with a
 * payload or a bool that is neither 0 nor 1 goes as base64.
 */
#include "ir/text.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <locale.h>
#include <stdlib.h>

#define MIN_SPLAT 5   /* equal elements */
#define MAX_LISTED 32 /* elements written one by one */
#define MAX_SPLAT                                                                        \
    ((size_t)1 << 28) /* bytes that a few characters of text may ask for   \
                                     */

/* ---- strings and numbers ---------------------------------------------------------- */

void
fg_put_quoted(fg_text *o, const char *s)
{
    fg_putc(o, '"');
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\')
            fg_putf(o, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            fg_putf(o, "\\x%02x", c);
        else
            fg_putc(o, (char)c);
    }
    fg_putc(o, '"');
}

static int
hex_digit(char c)
{
    if (fg_is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

const char *
fg_parse_quoted(fg_arena *a, const char **s, const char **why)
{
    const char *p = *s + 1, *q = p;
    while (*q && *q != '"' && *q != '\n')
        q += q[0] == '\\' && q[1] && q[1] != '\n' ? 2 : 1;
    if (*q != '"') {
        *why = "string without closing quote";
        return NULL;
    }
    char *buf = fg_alloc(a, (size_t)(q - p) + 1);
    size_t n = 0;
    for (*why = NULL; p < q && !*why; p++) {
        char c = *p;
        if (c == '\\') {
            int hi, lo;
            if (p[1] == '"' || p[1] == '\\') {
                c = *++p;
            } else if (p[1] == 'x' && (hi = hex_digit(p[2])) >= 0 &&
                       (lo = hex_digit(p[3])) >= 0 && hi + lo) {
                c = (char)(hi << 4 | lo);
                p += 3;
            } else {
                *s = p;
                *why = "unknown escape in string";
            }
        }
        buf[n++] = c;
    }
    if (*why)
        return NULL;
    *s = q + 1;
    return fg_intern_n(fg_arena_ctx(a), buf, n);
}

bool
fg_parse_int(const char **s, int64_t *v)
{
    const char *p = *s;
    if (!fg_is_digit(p[*p == '-']))
        return false;
    char *end;
    errno = 0;
    long long x = strtoll(p, &end, 10);
    if (errno)
        return false;
    *v = x;
    *s = end;
    return true;
}

bool
fg_parse_double(const char **s, bool single, double *v)
{
    /* All categories of "C" is the one locale that costs nothing to ask for. */
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!c)
        return false;
    const char *p = *s;
    char *end = (char *)p;
    if (*p == '-' || *p == '.' || fg_is_digit(*p) || *p == 'i' || *p == 'n')
        *v = single ? (double)strtof_l(p, &end, c) : strtod_l(p, &end, c);
    freelocale(c);
    *s = end;
    return end != p;
}

/* ---- elements --------------------------------------------------------------------- */

static unsigned
nibble(const fg_weight *w, size_t i)
{
    return ((const uint8_t *)w->data)[i / 2] >> (i % 2 * 4) & 15;
}

/* Element i of a type of at least 8 bits, as its bits; data has any alignment. */
static uint64_t
bits_of(const fg_weight *w, size_t i)
{
    size_t size = (size_t)fg_dtypes[w->dtype].bits / 8;
    uint64_t v = 0;
    memcpy(&v, (const char *)w->data + i * size, size);
    return v;
}

static double
float_of(fg_dtype d, uint64_t v)
{
    if (d == FG_f16)
        return fg_f16_to_f32((uint16_t)v);
    if (d == FG_bf16)
        return fg_bf16_to_f32((uint16_t)v);
    double x;
    float f;
    if (d == FG_f64) {
        memcpy(&x, &v, sizeof x);
        return x;
    }
    memcpy(&f, &v, sizeof f);
    return f;
}

static uint64_t
float_bits(fg_dtype d, double x)
{
    float f = (float)x;
    uint64_t v = 0;
    if (d == FG_f16)
        return fg_f32_to_f16(f);
    if (d == FG_bf16)
        return fg_f32_to_bf16(f);
    if (d == FG_f64)
        memcpy(&v, &x, sizeof x);
    else
        memcpy(&v, &f, sizeof f);
    return v;
}

/* A signed element of `bits` bits as a number. */
static int64_t
sign_extend(uint64_t v, int bits)
{
    return (int64_t)(v << (64 - bits)) >> (64 - bits);
}

/* Whether element i reads back to the same bits from a list. */
static bool
listable(const fg_weight *w, size_t i)
{
    fg_class c = fg_dtypes[w->dtype].cls;
    if (c == FG_CLASS_BOOL)
        return bits_of(w, i) <= 1;
    if (c != FG_CLASS_FLOAT)
        return true;
    uint64_t v = bits_of(w, i);
    double x = float_of(w->dtype, v);
    return x == x || v == float_bits(w->dtype, strtod("nan", NULL));
}

static void
put_element(fg_text *o, const fg_weight *w, size_t i)
{
    const fg_dtypeinfo *d = &fg_dtypes[w->dtype];
    uint64_t v = d->bits < 8 ? nibble(w, i) : bits_of(w, i);
    if (d->cls == FG_CLASS_FLOAT)
        fg_put_double(o, float_of(w->dtype, v), w->dtype != FG_f64);
    else if (d->cls == FG_CLASS_SINT)
        fg_putf(o, "%" PRId64, sign_extend(v, d->bits));
    else
        fg_putf(o, "%" PRIu64, v);
}

static const char *
read_element(const char **s, fg_dtype dtype, uint64_t *v)
{
    const fg_dtypeinfo *d = &fg_dtypes[dtype];
    if (d->cls == FG_CLASS_FLOAT) {
        double x;
        if (!fg_parse_double(s, dtype != FG_f64, &x))
            return "expected a number";
        *v = float_bits(dtype, x);
        return NULL;
    }
    bool minus = **s == '-';
    if (!fg_is_digit((*s)[minus]))
        return "expected an integer";
    char *end;
    errno = 0;
    if (minus)
        *v = (uint64_t)strtoll(*s, &end, 10);
    else
        *v = strtoull(*s, &end, 10);
    int bits = d->cls == FG_CLASS_BOOL ? 1 : d->bits;
    bool fits = !errno;
    if (d->cls == FG_CLASS_SINT)
        fits = fits && sign_extend(*v, bits) == (int64_t)*v && minus == ((int64_t)*v < 0);
    else
        fits = fits && !(minus && *v) && (bits == 64 || *v >> bits == 0);
    if (!fits)
        return "number out of range";
    *s = end;
    return NULL;
}

static void
set_element(void *data, fg_dtype dtype, size_t i, uint64_t v)
{
    int bits = fg_dtypes[dtype].bits;
    if (bits < 8)
        ((uint8_t *)data)[i / 2] |= (uint8_t)((v & 15) << (i % 2 * 4));
    else
        memcpy((char *)data + i * (size_t)bits / 8, &v, (size_t)bits / 8);
}

/* ---- writing ---------------------------------------------------------------------- */

static const char base64_digit[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static void
put_base64(fg_text *o, const uint8_t *p, size_t n)
{
    fg_puts(o, "base64 \"");
    for (size_t i = 0; i < n; i += 3) {
        size_t have = n - i < 3 ? n - i : 3;
        uint32_t v = (uint32_t)p[i] << 16;
        v |= have > 1 ? (uint32_t)p[i + 1] << 8 : 0;
        v |= have > 2 ? p[i + 2] : 0;
        for (size_t k = 0; k < 4; k++)
            fg_putc(o, k <= have ? base64_digit[v >> (18 - 6 * k) & 63] : '=');
    }
    fg_putc(o, '"');
}

static size_t
count_of(const fg_weight *w)
{
    size_t n = 1;
    for (int k = 0; k < w->rank; k++)
        n *= (size_t)w->dim[k];
    return n;
}

/* All elements are the first; sub-byte types count as bytes, so that both halves agree.
 */
static bool
is_splat(const fg_weight *w, size_t n)
{
    if (fg_dtypes[w->dtype].bits < 8)
        return false;
    size_t size = w->bytes / n;
    return !memcmp(w->data, (const char *)w->data + size, w->bytes - size);
}

void
fg_put_weight_type(fg_text *o, const fg_weight *w)
{
    fg_putf(o, "%s[", fg_dtypes[w->dtype].name);
    for (int k = 0; k < w->rank; k++)
        fg_putf(o, "%s%" PRId64, k ? "," : "", w->dim[k]);
    fg_putc(o, ']');
}

void
fg_put_literal(fg_text *o, const fg_weight *w)
{
    size_t n = count_of(w), listed = 0;
    fg_put_weight_type(o, w);
    fg_putc(o, ' ');
    while (n <= MAX_LISTED && listed < n && listable(w, listed))
        listed++;
    bool padded = fg_dtypes[w->dtype].bits < 8 && n % 2 && nibble(w, n);
    if (n >= MIN_SPLAT && w->bytes <= MAX_SPLAT && is_splat(w, n) && listable(w, 0)) {
        fg_puts(o, "splat ");
        put_element(o, w, 0);
    } else if (listed == n && !padded) {
        fg_putc(o, '{');
        for (size_t i = 0; i < n; i++) {
            fg_puts(o, i ? ", " : "");
            put_element(o, w, i);
        }
        fg_putc(o, '}');
    } else {
        put_base64(o, w->data, w->bytes);
    }
}

/* ---- reading ---------------------------------------------------------------------- */

static void
skip_space(const char **s)
{
    while (**s == ' ' || **s == '\t' || **s == '\n' || **s == '\r')
        ++*s;
}

bool
fg_parse_weight_type(const char **s, fg_weight *w, const char **why)
{
    const char *p = *s;
    size_t n = 0, count = 1;
    while ((p[n] >= 'a' && p[n] <= 'z') || fg_is_digit(p[n]))
        n++;
    *w = (fg_weight){.dtype = fg_dtype_by_name(p, n)};
    *why = "expected a type";
    if (!w->dtype || p[n] != '[')
        return false;
    *s = p + n + 1;
    for (; **s != ']'; w->rank++) {
        if (w->rank && *(*s)++ != ',')
            return false;
        if (w->rank == FG_MAXRANK) {
            *why = "too many dimensions";
            return false;
        }
        int64_t *d = &w->dim[w->rank];
        if (!fg_parse_int(s, d) || *d < 0 || !fg_mul_size(count, (size_t)*d, &count) ||
            count > INT64_MAX) {
            *why = "expected a size";
            return false;
        }
    }
    ++*s;
    *why = "too large";
    return fg_dtype_bytes(w->dtype, (int64_t)count, &w->bytes);
}

static bool
parse_list(fg_arena *a, const char **s, fg_weight *w, const char **why)
{
    size_t n = count_of(w);
    *why = "fewer elements than the type says";
    if (strnlen(*s, n) < n) /* each takes a character at least */
        return false;
    void *data = fg_alloc(a, w->bytes);
    w->data = data;
    for (size_t i = 0; i < n; i++) {
        uint64_t v;
        if (i) {
            skip_space(s);
            *why = "fewer elements than the type says";
            if (**s != ',')
                return false;
            ++*s;
        }
        skip_space(s);
        if ((*why = read_element(s, w->dtype, &v)))
            return false;
        set_element(data, w->dtype, i, v);
    }
    skip_space(s);
    *why = "more elements than the type says";
    return *(*s)++ == '}';
}

static bool
parse_splat(fg_arena *a, const char **s, fg_weight *w, const char **why)
{
    size_t n = count_of(w);
    uint64_t v;
    if ((*why = read_element(s, w->dtype, &v)))
        return false;
    *why = "too large";
    if (w->bytes > MAX_SPLAT)
        return false;
    void *data = fg_alloc(a, w->bytes);
    w->data = data;
    for (size_t i = 0; i < n; i++)
        set_element(data, w->dtype, i, v);
    return true;
}

static bool
parse_base64(fg_arena *a, const char **s, fg_weight *w, const char **why)
{
    const char *p = *s;
    size_t n = 0;
    uint32_t v = 0;
    *why = "expected a string of base64 digits as long as the type says";
    if (*p++ != '"' || strnlen(p, w->bytes) < w->bytes)
        return false;
    uint8_t *data = fg_alloc(a, w->bytes);
    w->data = data;
    for (size_t i = 0; n < w->bytes; i++, p++) {
        const char *d = *p ? memchr(base64_digit, *p, 64) : NULL;
        if (!d) {
            *s = p;
            return false;
        }
        v = v << 6 | (uint32_t)(d - base64_digit);
        if (i % 4)
            data[n++] = (uint8_t)(v >> (6 - 2 * (i % 4)));
    }
    while (*p == '=')
        p++;
    *s = p + 1;
    return *p == '"';
}

bool
fg_parse_weight_data(fg_arena *a, const char **s, fg_weight *w, const char **why)
{
    static const struct {
        const char *word;
        bool (*parse)(fg_arena *, const char **, fg_weight *, const char **);
    } form[] = {{"{", parse_list}, {"splat ", parse_splat}, {"base64 ", parse_base64}};
    for (size_t k = 0; k < sizeof form / sizeof *form; k++)
        if (!strncmp(*s, form[k].word, strlen(form[k].word))) {
            *s += strlen(form[k].word);
            return form[k].parse(a, s, w, why);
        }
    *why = "expected {elements}, splat, base64 or file";
    return false;
}

bool
fg_parse_literal(fg_arena *a, const char **s, fg_weight *w, const char **why)
{
    if (!fg_parse_weight_type(s, w, why))
        return false;
    skip_space(s);
    return fg_parse_weight_data(a, s, w, why);
}
