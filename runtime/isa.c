/* isa.c - the features that generated code may use, as CPUID or Linux reports them.
 *
 * Names are LLVM's. A vector extension counts only if the system saves its registers. What
 * is not listed is never chosen by a code generator on its own (system instructions,
 * cache control), so code may run without it.
 */
#include "runtime/isa.h"

#include <stdio.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

/* clang-format off */

enum { EAX, EBX, ECX, EDX };
enum { NONE, YMM = 0x6, ZMM = 0xe6, TILE = 0x60000 };   /* bits of XCR0 */

/*    name               leaf         sub register bit  state  level */
#define FEATURES(X) \
    X("cx16",            1,           0,  ECX,     13,  NONE,  2) \
    X("popcnt",          1,           0,  ECX,     23,  NONE,  2) \
    X("sahf",            0x80000001,  0,  ECX,      0,  NONE,  2) \
    X("sse3",            1,           0,  ECX,      0,  NONE,  2) \
    X("sse4.1",          1,           0,  ECX,     19,  NONE,  2) \
    X("sse4.2",          1,           0,  ECX,     20,  NONE,  2) \
    X("ssse3",           1,           0,  ECX,      9,  NONE,  2) \
    X("avx",             1,           0,  ECX,     28,  YMM,   3) \
    X("avx2",            7,           0,  EBX,      5,  YMM,   3) \
    X("bmi",             7,           0,  EBX,      3,  NONE,  3) \
    X("bmi2",            7,           0,  EBX,      8,  NONE,  3) \
    X("f16c",            1,           0,  ECX,     29,  YMM,   3) \
    X("fma",             1,           0,  ECX,     12,  YMM,   3) \
    X("lzcnt",           0x80000001,  0,  ECX,      5,  NONE,  3) \
    X("movbe",           1,           0,  ECX,     22,  NONE,  3) \
    X("avx512f",         7,           0,  EBX,     16,  ZMM,   4) \
    X("avx512bw",        7,           0,  EBX,     30,  ZMM,   4) \
    X("avx512cd",        7,           0,  EBX,     28,  ZMM,   4) \
    X("avx512dq",        7,           0,  EBX,     17,  ZMM,   4) \
    X("avx512vl",        7,           0,  EBX,     31,  ZMM,   4) \
    X("avx512ifma",      7,           0,  EBX,     21,  ZMM,   9) \
    X("avx512vbmi",      7,           0,  ECX,      1,  ZMM,   9) \
    X("avx512vbmi2",     7,           0,  ECX,      6,  ZMM,   9) \
    X("avx512vnni",      7,           0,  ECX,     11,  ZMM,   9) \
    X("avx512bitalg",    7,           0,  ECX,     12,  ZMM,   9) \
    X("avx512vpopcntdq", 7,           0,  ECX,     14,  ZMM,   9) \
    X("avx512vp2intersect", 7,        0,  EDX,      8,  ZMM,   9) \
    X("avx512fp16",      7,           0,  EDX,     23,  ZMM,   9) \
    X("avx512bf16",      7,           1,  EAX,      5,  ZMM,   9) \
    X("avxvnni",         7,           1,  EAX,      4,  YMM,   9) \
    X("avxifma",         7,           1,  EAX,     23,  YMM,   9) \
    X("avxvnniint8",     7,           1,  EDX,      4,  YMM,   9) \
    X("avxneconvert",    7,           1,  EDX,      5,  YMM,   9) \
    X("avxvnniint16",    7,           1,  EDX,     10,  YMM,   9) \
    X("amx-tile",        7,           0,  EDX,     24,  TILE,  9) \
    X("amx-int8",        7,           0,  EDX,     25,  TILE,  9) \
    X("amx-bf16",        7,           0,  EDX,     22,  TILE,  9) \
    X("amx-fp16",        7,           1,  EAX,     21,  TILE,  9) \
    X("gfni",            7,           0,  ECX,      8,  NONE,  9) \
    X("vaes",            7,           0,  ECX,      9,  YMM,   9) \
    X("vpclmulqdq",      7,           0,  ECX,     10,  YMM,   9) \
    X("pclmul",          1,           0,  ECX,      1,  NONE,  9) \
    X("aes",             1,           0,  ECX,     25,  NONE,  9) \
    X("sha",             7,           0,  EBX,     29,  NONE,  9) \
    X("adx",             7,           0,  EBX,     19,  NONE,  9) \
    X("cmpccxadd",       7,           1,  EAX,      7,  NONE,  9) \
    X("egpr",            7,           1,  EDX,     21,  NONE,  9) \
    X("sse4a",           0x80000001,  0,  ECX,      6,  NONE,  9) \
    X("xop",             0x80000001,  0,  ECX,     11,  YMM,   9) \
    X("fma4",            0x80000001,  0,  ECX,     16,  YMM,   9) \
    X("tbm",             0x80000001,  0,  ECX,     21,  NONE,  9)

/* clang-format on */

enum { PAYS = 8 }; /* a feature of no level that is worth recompiling for */
static const struct {
    const char *name;
    uint32_t leaf, sub, reg, bit, state;
    int level; /* of x86-64-vN that has it; PAYS, 9: none */
} features[] = {
#if defined(__aarch64__)
#define X(name, word, bit, pays) {name, word, 0, 0, bit, 0, pays ? PAYS : 9},
    FG_ARM_EXTENSIONS(X)
#else
#define X(name, leaf, sub, reg, bit, state, level)                                       \
    {name, leaf, sub, reg, bit, state, level},
    FEATURES(X)
#endif
#undef X
};
enum { NFEATURE = sizeof features / sizeof *features };
_Static_assert(NFEATURE <= 64, "a set is 64 bits");

/* Best first. Sets are written with one of them, but for the names behind the least. */
static const struct {
    const char *name;
    int level;
} levels[] = {
#if defined(__aarch64__)
    {FG_ARM_CPU, 0}};
enum { NLEVEL = 1, LEAST = 0 };
#else
    {"x86-64-v4", 4}, {"x86-64-v3", 3}, {"x86-64-v2", 2}, {"x86-64", 1}, {"baseline", 0}};
enum { NLEVEL = 5, LEAST = 3 };
#endif

static fg_isa
level_set(int level)
{
    fg_isa set = 0;

    for (int k = 0; k < NFEATURE; k++)
        if (features[k].level <= level)
            set |= (fg_isa)1 << k;
    return set;
}

const char *
fg_isa_platform(void)
{
#if defined(__x86_64__) && defined(__linux__)
    return "x86_64-linux";
#elif defined(__aarch64__) && defined(__linux__)
    return "aarch64-linux";
#else
    return "other";
#endif
}

#if defined(__x86_64__)
static uint32_t
saved_state(void)
{
    uint32_t a, b, c, d;

    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & 1u << 27)) /* OSXSAVE */
        return 0;
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return a;
}

fg_isa
fg_isa_host(void)
{
    uint32_t state = saved_state(), r[4];
    fg_isa set = 0;

    for (int k = 0; k < NFEATURE; k++)
        if ((features[k].state & ~state) == 0 &&
            __get_cpuid_count(features[k].leaf, features[k].sub, &r[0], &r[1], &r[2],
                              &r[3]) &&
            r[features[k].reg] >> features[k].bit & 1)
            set |= (fg_isa)1 << k;
    return set;
}
#else
fg_isa
fg_isa_host(void)
{
    fg_isa set = 0;

#if defined(__aarch64__)
    const unsigned long word[] = {getauxval(AT_HWCAP), getauxval(AT_HWCAP2)};
    for (int k = 0; k < NFEATURE; k++)
        set |= (fg_isa)(word[features[k].leaf] >> features[k].bit & 1) << k;
#endif
    return set;
}
#endif

static int
find_feature(const char *name, size_t n)
{
    for (int k = 0; k < NFEATURE; k++)
        if (strlen(features[k].name) == n && !memcmp(features[k].name, name, n))
            return k;
    return -1;
}

bool
fg_isa_parse(const char *text, size_t n, fg_isa *out)
{
    const char *end = text + n, *plus = memchr(text, '+', n);
    size_t len = plus ? (size_t)(plus - text) : n;
    int k = 0;

    while (k < NLEVEL &&
           (strlen(levels[k].name) != len || memcmp(levels[k].name, text, len)))
        k++;
    if (k == NLEVEL)
        return false;
    *out = level_set(levels[k].level);
    for (text += len; text < end; text += len) {
        text++;
        plus = memchr(text, '+', (size_t)(end - text));
        len = plus ? (size_t)(plus - text) : (size_t)(end - text);
        if ((k = find_feature(text, len)) < 0)
            return false;
        *out |= (fg_isa)1 << k;
    }
    return true;
}

bool
fg_isa_text(fg_isa set, char *out, size_t n)
{
    int level = 0;
    size_t at;

    while (level < LEAST && level_set(levels[level].level) & ~set)
        level++;
    at = (size_t)snprintf(out, n, "%s", levels[level].name);
    set &= ~level_set(levels[level].level);
    for (int k = 0; k < NFEATURE && at < n; k++)
        if (set >> k & 1)
            at += (size_t)snprintf(out + at, n - at, "+%s", features[k].name);
    return at < n;
}

fg_isa
fg_isa_of_list(const char *list)
{
    fg_isa set = 0;

    for (const char *s = list; *s; s += *s == ',') {
        size_t n = strcspn(s, ",");
        int k = *s == '+' ? find_feature(s + 1, n - 1) : -1;
        if (k >= 0)
            set |= (fg_isa)1 << k;
        s += n;
    }
    return set;
}

bool
fg_isa_beyond(fg_isa host, fg_isa set)
{
    for (int k = 0; k < NLEVEL; k++) {
        fg_isa l = level_set(levels[k].level);
        if (!(l & ~host) && l & ~set)
            return true;
    }
    for (int k = 0; k < NFEATURE; k++)
        if (features[k].level == PAYS && (host & ~set) >> k & 1)
            return true;
    return false;
}
