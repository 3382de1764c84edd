/* link.c - a loader for the objects LLVM makes of our modules.
 *
 * Such objects have code, constants, and relocations relative to the place: from code to
 * constants, to functions of theirs, and to the C library's mathematics. So linking is:
 * lay the sections out in one mapping (code first, data on pages of its own), append a
 * jump per external function, patch, and withdraw write permission.
 */
#include "codegen/cpu/link.h"

#include <elf.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAXSECTION 256
#define STUB 16 /* bytes of a jump through a full address */

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

static bool
read_tables(object *s)
{
    const Elf64_Ehdr *h = s->head = (const Elf64_Ehdr *)s->data;
    if (s->bytes < sizeof *h || memcmp(h->e_ident, ELFMAG, SELFMAG) ||
        h->e_machine != EM_X86_64 || h->e_shnum > MAXSECTION ||
        !within(s, h->e_shoff, (uint64_t)h->e_shnum * sizeof(Elf64_Shdr)))
        return false;
    s->section = (const Elf64_Shdr *)(s->data + h->e_shoff);
    for (int i = 0; i < h->e_shnum; i++) {
        const Elf64_Shdr *c = &s->section[i];
        if (c->sh_type != SHT_NOBITS && !within(s, c->sh_offset, c->sh_size))
            return false;
        if (c->sh_type == SHT_SYMTAB) {
            s->symbol = (const Elf64_Sym *)(s->data + c->sh_offset);
            s->nsymbol = c->sh_size / sizeof *s->symbol;
            s->names = (const char *)(s->data + s->section[c->sh_link].sh_offset);
        }
    }
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
        if (!(c->sh_flags & SHF_ALLOC) || !c->sh_size ||
            ((c->sh_flags & SHF_EXECINSTR) != 0) != code)
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
        if ((c->sh_flags & SHF_ALLOC) && c->sh_size && c->sh_type != SHT_NOBITS)
            memcpy(l->base + s->at[i], s->data + c->sh_offset, c->sh_size);
    }
}

static void
write_stubs(const linker *l)
{
    static const uint8_t jump[6] = {0xff, 0x25, 2, 0, 0, 0}; /* jmp *2(%rip) */
    for (int i = 0; i < NEXTERNAL; i++) {
        uint8_t *p = l->base + l->stubs + (size_t)i * STUB;
        memcpy(p, jump, sizeof jump);
        memcpy(p + 8, &externals[i].address, sizeof(void *));
    }
}

static bool
is_defined(const object *s, const Elf64_Sym *y)
{
    return y->st_shndx != SHN_UNDEF && y->st_shndx < s->head->e_shnum;
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

static bool
relocate(const linker *l, const object *s, const Elf64_Shdr *c, const char **why)
{
    const Elf64_Rela *r = (const Elf64_Rela *)(s->data + c->sh_offset);
    for (size_t k = 0; k < c->sh_size / sizeof *r; k++, r++) {
        uint8_t *place = l->base + s->at[c->sh_info] + r->r_offset;
        uint8_t *to = address_of(l, s, (uint32_t)ELF64_R_SYM(r->r_info));
        int64_t full = (int64_t)(intptr_t)to + r->r_addend,
                near = full - (int64_t)(intptr_t)place;
        int32_t near32 = (int32_t)near;
        if (!to) {
            *why = "generated code calls a function that is not linked in";
            return false;
        }
        switch (ELF64_R_TYPE(r->r_info)) {
        case R_X86_64_64:
            memcpy(place, &full, 8);
            break;
        case R_X86_64_PC32:
        case R_X86_64_PLT32:
            if (near != near32) {
                *why = "generated code is larger than 2 GB";
                return false;
            }
            memcpy(place, &near32, 4);
            break;
        default:
            *why = "generated code has a relocation the loader does not know";
            return false;
        }
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
            if (c->sh_type == SHT_RELA && (s->section[c->sh_info].sh_flags & SHF_ALLOC) &&
                !relocate(l, s, c, why))
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
    if (mprotect(l->base, im->code_bytes, PROT_READ | PROT_EXEC) ||
        (im->bytes > im->code_bytes &&
         mprotect(l->base + im->code_bytes, im->bytes - im->code_bytes, PROT_READ))) {
        *why = "the system refuses to make memory executable";
        return false;
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
    *im = (fg_image){0};
}
