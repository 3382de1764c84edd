/* link.c - a loader for the objects LLVM makes of our modules.
 *
 * Such objects have code, constants, and relocations relative to the place: from code to
 * constants, to functions of theirs, and to the C library's mathematics. So linking is:
 * lay the sections out in one mapping (code first, data on pages of its own), append a
 * jump per external function, patch, and withdraw write permission.
 *
 * Objects also come from files: every offset and index is checked before it is used.
 */
#include "runtime/link.h"

#include <elf.h>
#include <limits.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAXSECTION 256
#define MAXALIGN 4096
#define MAXIMAGE ((size_t)1 << 30)
#define STUB 16 /* bytes of a jump through a full address */
#if defined(__aarch64__)
#define MACHINE EM_AARCH64
#else
#define MACHINE EM_X86_64
#endif

/* Whatever code generation may call; nothing else resolves. */
/* clang-format off */
#define EXTERNALS(X)                                                                      \
    X(exp) X(log) X(log1p) X(pow) X(sin) X(cos) X(tan) X(asin) X(acos) X(atan) X(sinh)    \
    X(cosh) X(asinh) X(acosh) X(atanh) X(tanh) X(erf) X(fmod) X(floor) X(ceil) X(rint)    \
    X(trunc) X(floorf) X(ceilf) X(rintf) X(truncf) X(memcpy) X(memset) X(memmove)
/* clang-format on */
static const struct {
    const char *name;
    void *address;
} externals[] = {
#define X(f) {#f, (void *)f},
    EXTERNALS(X)
#undef X
};
enum { NEXTERNAL = sizeof externals / sizeof *externals };

typedef struct object {
    const uint8_t *data;
    size_t bytes;
    const Elf64_Ehdr *head;
    const Elf64_Shdr *section;
    const Elf64_Sym *symbol;
    size_t nsymbol;
    const char *names;
    size_t at[MAXSECTION]; /* offset of each section in the image */
} object;

typedef struct linker {
    object *o;
    int n;
    uint8_t *base;
    size_t stubs; /* offset of the jumps */
} linker;

static bool
within(const object *s, uint64_t offset, uint64_t size)
{
    return offset <= s->bytes && size <= s->bytes - offset;
}

/* A section that ends up in memory. */
static bool
is_loaded(const Elf64_Shdr *c)
{
    return (c->sh_flags & SHF_ALLOC) && c->sh_size;
}

static bool
read_section(object *s, const Elf64_Shdr *c)
{
    if (c->sh_type != SHT_NOBITS && !within(s, c->sh_offset, c->sh_size))
        return false;
    if (is_loaded(c) && (c->sh_size > MAXIMAGE || c->sh_addralign > MAXALIGN ||
                         (c->sh_addralign & (c->sh_addralign - 1))))
        return false;
    if (c->sh_type == SHT_RELA && c->sh_offset % 8)
        return false;
    if (c->sh_type != SHT_SYMTAB)
        return true;
    if (c->sh_offset % 8 || c->sh_link >= s->head->e_shnum)
        return false;
    const Elf64_Shdr *text = &s->section[c->sh_link];
    if (text->sh_type != SHT_STRTAB || !text->sh_size ||
        !within(s, text->sh_offset, text->sh_size) ||
        s->data[text->sh_offset + text->sh_size - 1])
        return false;
    s->symbol = (const Elf64_Sym *)(s->data + c->sh_offset);
    s->nsymbol = c->sh_size / sizeof *s->symbol;
    s->names = (const char *)(s->data + text->sh_offset);
    for (size_t k = 0; k < s->nsymbol; k++)
        if (s->symbol[k].st_name >= text->sh_size)
            return false;
    return true;
}

static bool
read_tables(object *s)
{
    const Elf64_Ehdr *h = s->head = (const Elf64_Ehdr *)s->data;
    if (s->bytes < sizeof *h || memcmp(h->e_ident, ELFMAG, SELFMAG) ||
        h->e_ident[EI_CLASS] != ELFCLASS64 || h->e_machine != MACHINE ||
        h->e_shnum > MAXSECTION || h->e_shentsize != sizeof(Elf64_Shdr) ||
        h->e_shoff % 8 ||
        !within(s, h->e_shoff, (uint64_t)h->e_shnum * sizeof(Elf64_Shdr)))
        return false;
    s->section = (const Elf64_Shdr *)(s->data + h->e_shoff);
    for (int i = 0; i < h->e_shnum; i++)
        if (!read_section(s, &s->section[i]))
            return false;
    return s->symbol != NULL;
}

static size_t
align_up(size_t n, size_t to)
{
    return (n + to - 1) & ~(to - 1);
}

/* Sections with the wanted permission, one after another from `end`. */
static size_t
lay_out(object *s, size_t end, bool code)
{
    for (int i = 0; i < s->head->e_shnum; i++) {
        const Elf64_Shdr *c = &s->section[i];
        if (!is_loaded(c) || ((c->sh_flags & SHF_EXECINSTR) != 0) != code)
            continue;
        s->at[i] = end = align_up(end, c->sh_addralign ? c->sh_addralign : 1);
        end += c->sh_size;
    }
    return end;
}

static void
copy_sections(const linker *l, const object *s)
{
    for (int i = 0; i < s->head->e_shnum; i++) {
        const Elf64_Shdr *c = &s->section[i];
        if (is_loaded(c) && c->sh_type != SHT_NOBITS)
            memcpy(l->base + s->at[i], s->data + c->sh_offset, c->sh_size);
    }
}

static void
write_stubs(const linker *l)
{
#if defined(__aarch64__)
    static const uint32_t jump[2] = {0x58000050, 0xd61f0200}; /* ldr x16, .+8; br x16 */
#else
    static const uint8_t jump[6] = {0xff, 0x25, 2, 0, 0, 0}; /* jmp *2(%rip) */
#endif
    for (int i = 0; i < NEXTERNAL; i++) {
        uint8_t *p = l->base + l->stubs + (size_t)i * STUB;
        memcpy(p, jump, sizeof jump);
        memcpy(p + 8, &externals[i].address, sizeof(void *));
    }
}

static bool
is_defined(const object *s, const Elf64_Sym *y)
{
    return y->st_shndx != SHN_UNDEF && y->st_shndx < s->head->e_shnum &&
           is_loaded(&s->section[y->st_shndx]) &&
           y->st_value <= s->section[y->st_shndx].sh_size;
}

static uint8_t *
defined_at(const linker *l, const object *s, const Elf64_Sym *y)
{
    return l->base + s->at[y->st_shndx] + y->st_value;
}

/* Of a symbol the object itself does not define. */
static uint8_t *
find_elsewhere(const linker *l, const char *name)
{
    for (int i = 0; i < NEXTERNAL; i++)
        if (!strcmp(name, externals[i].name))
            return l->base + l->stubs + (size_t)i * STUB;
    for (int k = 0; k < l->n; k++) {
        const object *s = &l->o[k];
        for (size_t j = 0; j < s->nsymbol; j++)
            if (ELF64_ST_BIND(s->symbol[j].st_info) == STB_GLOBAL &&
                is_defined(s, &s->symbol[j]) &&
                !strcmp(name, s->names + s->symbol[j].st_name))
                return defined_at(l, s, &s->symbol[j]);
    }
    return NULL;
}

static uint8_t *
address_of(const linker *l, const object *s, uint32_t index)
{
    if (index >= s->nsymbol)
        return NULL;
    const Elf64_Sym *y = &s->symbol[index];
    return is_defined(s, y) ? defined_at(l, s, y)
                            : find_elsewhere(l, s->names + y->st_name);
}

static const char too_far[] = "generated code is larger than its machine can reach";
static const char outside[] = "generated code has a relocation outside of its section";
static const char strange[] = "generated code has a relocation the loader does not know";

#if defined(__aarch64__)
/* Replaces the bits of `mask` in the instruction at p. */
static void
put_bits(uint8_t *p, uint32_t mask, uint32_t bits)
{
    uint32_t word;

    memcpy(&word, p, 4);
    word = (word & ~mask) | (bits & mask);
    memcpy(p, &word, 4);
}

/* The low 12 bits of an address, in units of the size that the instruction loads. */
static const char *
put_low(uint8_t *p, int64_t full, int shift)
{
    put_bits(p, 0xfffu << 10, (uint32_t)((full & 0xfff) >> shift) << 10);
    return full & ((1 << shift) - 1) ? strange : NULL;
}

/* `place` has room for `left` bytes. */
static const char *
patch(uint8_t *place, const uint8_t *to, uint32_t type, int64_t addend, uint64_t left)
{
    int64_t full = (int64_t)((uint64_t)(uintptr_t)to + (uint64_t)addend),
            near = (int64_t)((uint64_t)full - (uint64_t)(uintptr_t)place);
    int64_t pages = (full >> 12) - ((int64_t)(uintptr_t)place >> 12);
    int32_t near32 = (int32_t)near;

    if (left < (type == R_AARCH64_ABS64 || type == R_AARCH64_PREL64 ? 8 : 4))
        return outside;
    switch (type) {
    case R_AARCH64_ABS64:
        memcpy(place, &full, 8);
        return NULL;
    case R_AARCH64_PREL64:
        memcpy(place, &near, 8);
        return NULL;
    case R_AARCH64_PREL32:
        memcpy(place, &near32, 4);
        return near == near32 ? NULL : too_far;
    case R_AARCH64_CALL26:
    case R_AARCH64_JUMP26:
        put_bits(place, 0x3ffffff, (uint32_t)(near >> 2));
        return near >= -(1 << 27) && near < 1 << 27 && !(near & 3) ? NULL : too_far;
    case R_AARCH64_ADR_PREL_PG_HI21:
        put_bits(place, 3u << 29 | 0x7ffffu << 5,
                 (uint32_t)(pages & 3) << 29 | (uint32_t)(pages >> 2 & 0x7ffff) << 5);
        return pages >= -(1 << 20) && pages < 1 << 20 ? NULL : too_far;
    case R_AARCH64_ADD_ABS_LO12_NC:
    case R_AARCH64_LDST8_ABS_LO12_NC:
        return put_low(place, full, 0);
    case R_AARCH64_LDST16_ABS_LO12_NC:
        return put_low(place, full, 1);
    case R_AARCH64_LDST32_ABS_LO12_NC:
        return put_low(place, full, 2);
    case R_AARCH64_LDST64_ABS_LO12_NC:
        return put_low(place, full, 3);
    case R_AARCH64_LDST128_ABS_LO12_NC:
        return put_low(place, full, 4);
    default:
        return strange;
    }
}
#else
/* `place` has room for 8 bytes, or 4 where that is all that is written. */
static const char *
patch(uint8_t *place, const uint8_t *to, uint32_t type, int64_t addend, uint64_t left)
{
    int64_t full = (int64_t)((uint64_t)(uintptr_t)to + (uint64_t)addend),
            near = (int64_t)((uint64_t)full - (uint64_t)(uintptr_t)place);
    int32_t near32 = (int32_t)near;

    if (left < (type == R_X86_64_64 ? 8 : 4))
        return outside;
    switch (type) {
    case R_X86_64_64:
        memcpy(place, &full, 8);
        return NULL;
    case R_X86_64_PC32:
    case R_X86_64_PLT32:
        if (near != near32)
            return too_far;
        memcpy(place, &near32, 4);
        return NULL;
    default:
        return strange;
    }
}
#endif

static bool
relocate(const linker *l, const object *s, const Elf64_Shdr *c, const char **why)
{
    const Elf64_Rela *r = (const Elf64_Rela *)(s->data + c->sh_offset);
    const Elf64_Shdr *target = &s->section[c->sh_info];
    for (size_t k = 0; k < c->sh_size / sizeof *r; k++, r++) {
        uint8_t *to = address_of(l, s, (uint32_t)ELF64_R_SYM(r->r_info));
        if (!to) {
            *why = "generated code calls a function that is not linked in";
            return false;
        }
        if (r->r_offset > target->sh_size) {
            *why = outside;
            return false;
        }
        if ((*why = patch(l->base + s->at[c->sh_info] + r->r_offset, to,
                          (uint32_t)ELF64_R_TYPE(r->r_info), r->r_addend,
                          target->sh_size - r->r_offset)))
            return false;
    }
    return true;
}

static bool
relocate_all(const linker *l, const char **why)
{
    for (int k = 0; k < l->n; k++) {
        const object *s = &l->o[k];
        for (int i = 0; i < s->head->e_shnum; i++) {
            const Elf64_Shdr *c = &s->section[i];
            if (c->sh_type == SHT_RELA && c->sh_info < s->head->e_shnum &&
                is_loaded(&s->section[c->sh_info]) && !relocate(l, s, c, why))
                return false;
        }
    }
    return true;
}

/* Code, then stubs, then on pages of their own the data. */
static bool
map_image(linker *l, fg_image *im, const char **why)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), end = 0;
    for (int k = 0; k < l->n; k++)
        end = lay_out(&l->o[k], end, true);
    l->stubs = align_up(end, STUB);
    im->code_bytes = end = align_up(l->stubs + NEXTERNAL * STUB, page);
    for (int k = 0; k < l->n; k++)
        end = lay_out(&l->o[k], end, false);
    im->bytes = align_up(end, page);
    if (im->bytes > MAXIMAGE) {
        *why = "generated code is larger than 1 GB";
        return false;
    }
    l->base =
        mmap(NULL, im->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (l->base == MAP_FAILED) {
        *why = "no memory for generated code";
        return false;
    }
    im->base = l->base;
    return true;
}

static bool
link_all(linker *l, fg_image *im, const fg_object *in, const char **why)
{
    for (int k = 0; k < l->n; k++) {
        l->o[k].data = in[k].data;
        l->o[k].bytes = in[k].bytes;
        if (!read_tables(&l->o[k])) {
            *why = "generated code is for another kind of machine";
            return false;
        }
    }
    if (!map_image(l, im, why))
        return false;
    for (int k = 0; k < l->n; k++)
        copy_sections(l, &l->o[k]);
    write_stubs(l);
    if (!relocate_all(l, why))
        return false;
    /* Where instructions and data have caches of their own. */
    __builtin___clear_cache((char *)l->base, (char *)l->base + im->code_bytes);
    if (mprotect(l->base, im->code_bytes, PROT_READ | PROT_EXEC) ||
        (im->bytes > im->code_bytes &&
         mprotect(l->base + im->code_bytes, im->bytes - im->code_bytes, PROT_READ))) {
        *why = "the system refuses to make memory executable";
        return false;
    }
    return true;
}

static bool
is_function(const object *s, const Elf64_Sym *y)
{
    return ELF64_ST_TYPE(y->st_info) == STT_FUNC && is_defined(s, y);
}

static int
number_of(const char *name)
{
    char *end;

    if (strncmp(name, "fg_k", 4) || name[4] < '0' || name[4] > '9')
        return -1;
    unsigned long k = strtoul(name + 4, &end, 10);
    return *end || k > INT_MAX ? -1 : (int)k;
}

/* Sections with code are next to each other. */
static fg_linked
part_of(const linker *l, const object *s)
{
    fg_linked p = {0};

    for (int i = 0; i < s->head->e_shnum; i++) {
        const Elf64_Shdr *c = &s->section[i];
        const Elf64_Shdr *names = &s->section[s->head->e_shstrndx];
        const uint8_t *at = l->base + s->at[i];
        if (!is_loaded(c))
            continue;
        if (c->sh_flags & SHF_EXECINSTR) {
            p.text = p.text ? p.text : at;
            p.text_bytes = (size_t)(at + c->sh_size - (const uint8_t *)p.text);
        } else if (s->head->e_shstrndx < s->head->e_shnum &&
                   names->sh_type == SHT_STRTAB && c->sh_name < names->sh_size &&
                   names->sh_size - c->sh_name > sizeof ".eh_frame" - 1 &&
                   !memcmp(s->data + names->sh_offset + c->sh_name, ".eh_frame",
                           sizeof ".eh_frame")) {
            p.unwind = at;
            p.unwind_bytes = c->sh_size;
        }
    }
    return p;
}

static bool
list_functions(const linker *l, fg_image *im)
{
    size_t n = 0;

    for (int k = 0; k < l->n; k++)
        for (size_t j = 0; j < l->o[k].nsymbol; j++)
            n += is_function(&l->o[k], &l->o[k].symbol[j]);
    im->function = calloc(n + 1, sizeof *im->function);
    im->part = calloc((size_t)l->n + 1, sizeof *im->part);
    if (!im->function || !im->part || n > INT_MAX)
        return false;
    for (int k = 0; k < l->n; k++) {
        const object *s = &l->o[k];
        im->part[im->npart++] = part_of(l, s);
        for (size_t j = 0; j < s->nsymbol; j++)
            if (is_function(s, &s->symbol[j]))
                im->function[im->nfunction++] =
                    (fg_function){defined_at(l, s, &s->symbol[j]), s->symbol[j].st_size,
                                  k, number_of(s->names + s->symbol[j].st_name)};
    }
    return true;
}

bool
fg_link(fg_image *im, const fg_object *in, int n,
        void (*found)(void *user, const char *name, void *address), void *user,
        const char **why)
{
    linker l = {.n = n, .o = calloc((size_t)n, sizeof *l.o)};
    *im = (fg_image){0};
    *why = "out of memory";
    bool ok = l.o && link_all(&l, im, in, why);
    for (int k = 0; k < n && ok; k++)
        for (size_t j = 0; j < l.o[k].nsymbol; j++) {
            const Elf64_Sym *y = &l.o[k].symbol[j];
            if (ELF64_ST_TYPE(y->st_info) == STT_FUNC && is_defined(&l.o[k], y))
                found(user, l.o[k].names + y->st_name, defined_at(&l, &l.o[k], y));
        }
    if (ok && !list_functions(&l, im)) {
        *why = "out of memory";
        ok = false;
    }
    if (!ok)
        fg_unlink(im);
    free(l.o);
    return ok;
}

void
fg_unlink(fg_image *im)
{
    if (im->base)
        munmap(im->base, im->bytes);
    free(im->function);
    free(im->part);
    *im = (fg_image){0};
}
