/* link.c - a loader for the objects LLVM makes of our modules.
 *
 * Such an object has code, constants, and relocations relative to the place: from code to constants,
 * to functions of the same object, and to the C library's mathematics. So linking is: lay the
 * sections out in one mapping (code first, data on pages of its own), append a jump per external
 * function, patch, and withdraw write permission.
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
#define STUB 16                 /* bytes of a jump through a full address */

/* Whatever code generation may call; nothing else resolves. */
#define MATH(X)                                                                           \
    X(exp) X(log) X(log1p) X(pow) X(sin) X(cos) X(tan) X(asin) X(acos) X(atan) X(sinh)    \
    X(cosh) X(asinh) X(acosh) X(atanh) X(tanh) X(erf) X(fmod) X(floor) X(ceil) X(rint)    \
    X(trunc) X(floorf) X(ceilf) X(rintf) X(truncf) X(memcpy) X(memset) X(memmove)
static const struct {
    const char *name;
    void       *address;
} externals[] = {
#define X(f) {#f, (void *)f},
    MATH(X)
#undef X
};
enum { NEXTERNAL = sizeof externals / sizeof *externals };

typedef struct link_state {
    const uint8_t    *object;
    size_t            bytes;
    const Elf64_Ehdr *head;
    const Elf64_Shdr *section;
    const Elf64_Sym  *symbol;
    size_t            nsymbol;
    const char       *names;
    size_t            at[MAXSECTION];   /* offset of each section in the image */
    uint8_t          *base;
    size_t            stubs;            /* offset of the jumps */
} link_state;

static bool
within(const link_state *s, uint64_t offset, uint64_t size)
{
    return offset <= s->bytes && size <= s->bytes - offset;
}

static bool
read_tables(link_state *s)
{
    const Elf64_Ehdr *h = s->head = (const Elf64_Ehdr *)s->object;
    if (s->bytes < sizeof *h || memcmp(h->e_ident, ELFMAG, SELFMAG) ||
        h->e_machine != EM_X86_64 || h->e_shnum > MAXSECTION ||
        !within(s, h->e_shoff, (uint64_t)h->e_shnum * sizeof(Elf64_Shdr)))
        return false;
    s->section = (const Elf64_Shdr *)(s->object + h->e_shoff);
    for (int i = 0; i < h->e_shnum; i++) {
        const Elf64_Shdr *c = &s->section[i];
        if (c->sh_type != SHT_NOBITS && !within(s, c->sh_offset, c->sh_size))
            return false;
        if (c->sh_type == SHT_SYMTAB) {
            s->symbol = (const Elf64_Sym *)(s->object + c->sh_offset);
            s->nsymbol = c->sh_size / sizeof *s->symbol;
            s->names = (const char *)(s->object + s->section[c->sh_link].sh_offset);
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
lay_out(link_state *s, size_t end, bool code)
{
    for (int i = 0; i < s->head->e_shnum; i++) {
        const Elf64_Shdr *c = &s->section[i];
        if (!(c->sh_flags & SHF_ALLOC) || !c->sh_size || ((c->sh_flags & SHF_EXECINSTR) != 0) != code)
            continue;
        s->at[i] = end = align_up(end, c->sh_addralign ? c->sh_addralign : 1);
        end += c->sh_size;
    }
    return end;
}

static void
copy_sections(link_state *s)
{
    for (int i = 0; i < s->head->e_shnum; i++) {
        const Elf64_Shdr *c = &s->section[i];
        if ((c->sh_flags & SHF_ALLOC) && c->sh_size && c->sh_type != SHT_NOBITS)
            memcpy(s->base + s->at[i], s->object + c->sh_offset, c->sh_size);
    }
    for (int i = 0; i < NEXTERNAL; i++) {
        static const uint8_t jump[6] = {0xff, 0x25, 2, 0, 0, 0};     /* jmp *2(%rip) */
        uint8_t             *p = s->base + s->stubs + (size_t)i * STUB;
        memcpy(p, jump, sizeof jump);
        memcpy(p + 8, &externals[i].address, sizeof(void *));
    }
}

static uint8_t *
address_of(const link_state *s, uint32_t index)
{
    if (index >= s->nsymbol)
        return NULL;
    const Elf64_Sym *y = &s->symbol[index];
    if (y->st_shndx != SHN_UNDEF && y->st_shndx < s->head->e_shnum)
        return s->base + s->at[y->st_shndx] + y->st_value;
    for (int i = 0; i < NEXTERNAL; i++)
        if (!strcmp(s->names + y->st_name, externals[i].name))
            return s->base + s->stubs + (size_t)i * STUB;
    return NULL;
}

static bool
relocate(const link_state *s, const Elf64_Shdr *c, const char **why)
{
    const Elf64_Rela *r = (const Elf64_Rela *)(s->object + c->sh_offset);
    for (size_t k = 0; k < c->sh_size / sizeof *r; k++, r++) {
        uint8_t *place = s->base + s->at[c->sh_info] + r->r_offset;
        uint8_t *to = address_of(s, (uint32_t)ELF64_R_SYM(r->r_info));
        int64_t  full = (int64_t)(intptr_t)to + r->r_addend, near = full - (int64_t)(intptr_t)place;
        int32_t  near32 = (int32_t)near;
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

bool
fg_link(fg_image *im, const void *object, size_t bytes,
        void (*found)(void *user, const char *name, void *address), void *user, const char **why)
{
    link_state s = {.object = object, .bytes = bytes};
    size_t     page = (size_t)sysconf(_SC_PAGESIZE);
    *im = (fg_image){0};
    if (!read_tables(&s)) {
        *why = "generated code is for another kind of machine";
        return false;
    }
    s.stubs = align_up(lay_out(&s, 0, true), STUB);
    im->code_bytes = align_up(s.stubs + NEXTERNAL * STUB, page);
    im->bytes = align_up(lay_out(&s, im->code_bytes, false), page);
    s.base = mmap(NULL, im->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (s.base == MAP_FAILED) {
        *why = "no memory for generated code";
        return false;
    }
    im->base = s.base;
    copy_sections(&s);
    for (int i = 0; i < s.head->e_shnum; i++) {
        const Elf64_Shdr *c = &s.section[i];
        if (c->sh_type == SHT_RELA && (s.section[c->sh_info].sh_flags & SHF_ALLOC) &&
            !relocate(&s, c, why)) {
            fg_unlink(im);
            return false;
        }
    }
    if (mprotect(s.base, im->code_bytes, PROT_READ | PROT_EXEC) ||
        (im->bytes > im->code_bytes &&
         mprotect(s.base + im->code_bytes, im->bytes - im->code_bytes, PROT_READ))) {
        *why = "the system refuses to make memory executable";
        fg_unlink(im);
        return false;
    }
    for (size_t k = 0; k < s.nsymbol; k++) {
        const Elf64_Sym *y = &s.symbol[k];
        if (ELF64_ST_TYPE(y->st_info) == STT_FUNC && y->st_shndx != SHN_UNDEF)
            found(user, s.names + y->st_name, address_of(&s, (uint32_t)k));
    }
    return true;
}

void
fg_unlink(fg_image *im)
{
    if (im->base)
        munmap(im->base, im->bytes);
    *im = (fg_image){0};
}
