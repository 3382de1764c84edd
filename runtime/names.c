/* names.c - generated code has names: kernel, ONNX node, and how many others share it.
 *
 *     7f2a10001000 1a0 matmul_add /h.0/attn/c_attn/Add +11          /tmp/perf-PID.map
 *
 * perf reads lines of that file. gdb has a protocol of its own: a list of object files in memory, at a
 * symbol it knows, and a function it stops at when the list changes. The objects made here have
 * no code: the addresses of one text section, names, and how to unwind.
 */
#include "runtime/names.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LABEL = 256 };

int
fg_names_read(const char *list, bool *unknown)
{
    int names = 0;

    *unknown = false;
    for (size_t n; list && *list; list += n + (list[n] == ',')) {
        n = strcspn(list, ",");
        if (n == 4 && !memcmp(list, "perf", n))
            names |= FG_NAMES_PERF;
        else if (n == 3 && !memcmp(list, "gdb", n))
            names |= FG_NAMES_GDB;
        else
            *unknown = true;
    }
    return names;
}

/* ---- names ------------------------------------------------------------------------------- */

/* Whether step s runs function `code`; *sizes: only for those of a special. */
static bool
runs(const fg_program *p, const fg_step *s, uint32_t code, const fg_special **sizes)
{
    for (uint32_t v = 0; s->kind == FG_STEP_KERNEL && v <= p->nspecial; v++)
        if (s->form[v].code == code) {
            *sizes = v ? &p->special[v - 1] : NULL;
            return true;
        }
    return false;
}

/* One line, whatever the model calls its nodes. */
static void
put_label(char out[LABEL], const fg_program *p, const fg_function *f)
{
    const fg_step *first = NULL;
    const fg_special *sizes = NULL, *ignored;
    int others = 0;

    for (uint32_t k = 0; k < p->nstep && f->number >= 0; k++) {
        const fg_step *s = &p->step[k];
        if (!runs(p, s, (uint32_t)f->number, first ? &ignored : &sizes))
            continue;
        others += first != NULL;
        first = first ? first : s;
    }
    if (!first) {
        snprintf(out, LABEL, "forge helper");
        return;
    }
    int n = (int)strcspn(first->nodes, ",");
    int at =
        snprintf(out, LABEL, "%.60s %.*s", first->name, n > 150 ? 150 : n, first->nodes);
    if (others)
        at += snprintf(out + at, (size_t)(LABEL - at), " +%d", others);
    for (uint32_t k = 0; sizes && k < sizes->n && at < LABEL; k++)
        at += snprintf(out + at, (size_t)(LABEL - at), " %.40s=%lld",
                       p->symbol[sizes->fixed[k].sym].name,
                       (long long)sizes->fixed[k].size);
    for (char *c = out; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
}

/* ---- perf -------------------------------------------------------------------------------- */

static void
tell_perf(forge_ctx *cx, const fg_program *p, const fg_image *im)
{
    char path[64], label[LABEL];

    snprintf(path, sizeof path, "/tmp/perf-%ld.map", (long)getpid());
    /* In a folder of everyone's, a link there is somebody's trap. */
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0644);
    bool ok = fd >= 0;
    for (int k = 0; ok && k < im->nfunction; k++) {
        const fg_function *f = &im->function[k];
        put_label(label, p, f);
        ok = dprintf(fd, "%lx %zx %s\n", (unsigned long)(uintptr_t)f->at, f->bytes,
                     label) > 0;
    }
    if (!ok)
        fg_log(cx, "%s: %s: perf will not know this model's kernels", path,
               strerror(errno));
    if (fd >= 0)
        close(fd);
}

/* ---- gdb --------------------------------------------------------------------------------- */

typedef struct jit_entry {
    struct jit_entry *next, *prev;
    const void *file;
    uint64_t bytes;
} jit_entry;

/* Names, layout and numbers are gdb's. */
struct jit_descriptor {
    uint32_t version, action;
    jit_entry *relevant, *first;
};
enum { JIT_NOTHING, JIT_REGISTER, JIT_UNREGISTER };

extern struct jit_descriptor __jit_debug_descriptor;
void __jit_debug_register_code(void);
__attribute__((used)) struct jit_descriptor __jit_debug_descriptor = {.version = 1};
static pthread_mutex_t jit_lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((used, noinline)) void
__jit_debug_register_code(void)
{
    __asm__ volatile("" ::: "memory");
}

struct fg_names {
    struct fg_names *next; /* of the same model */
    jit_entry entry;       /* the file lies behind it */
};

/* Sections of such a file, and the names of them. */
enum { NONE, TEXT, UNWIND, SYMBOLS, STRINGS, SECTIONS };
static const char section_names[] = "\0.text\0.eh_frame\0.symtab\0.strtab";
static const uint32_t name_at[SECTIONS] = {0, 1, 7, 17, 25};

typedef struct object {
    Elf64_Ehdr head;
    Elf64_Shdr section[SECTIONS];
    char names[sizeof section_names];
} object;

static size_t
label_bytes(const fg_program *p, const fg_image *im, int k)
{
    char label[LABEL];

    put_label(label, p, &im->function[k]);
    return strlen(label) + 1;
}

/* What object `n` of the image needs: symbols, the first of which is none, and names. */
static size_t
measure(const fg_program *p, const fg_image *im, int n, size_t *symbols, size_t *strings)
{
    *symbols = 1;
    *strings = sizeof section_names;
    for (int k = 0; k < im->nfunction; k++)
        if (im->function[k].object == n) {
            ++*symbols;
            *strings += label_bytes(p, im, k);
        }
    return sizeof(object) + 8 + *symbols * sizeof(Elf64_Sym) + *strings +
           im->part[n].unwind_bytes;
}

static void
put_symbols(const fg_program *p, const fg_image *im, int n, Elf64_Sym *y, char *strings)
{
    char *s = strings + sizeof section_names;

    memcpy(strings, section_names, sizeof section_names);
    for (int k = 0; k < im->nfunction; k++) {
        const fg_function *f = &im->function[k];
        char label[LABEL];
        if (f->object != n)
            continue;
        put_label(label, p, f);
        *++y = (Elf64_Sym){.st_name = (uint32_t)(s - strings),
                           .st_info = ELF64_ST_INFO(STB_GLOBAL, STT_FUNC),
                           .st_shndx = TEXT,
                           .st_value = (Elf64_Addr)(uintptr_t)f->at,
                           .st_size = f->bytes};
        strcpy(s, label);
        s += strlen(label) + 1;
    }
}

static void
put_object(const fg_program *p, const fg_image *im, int n, char *file, size_t symbols,
           size_t strings)
{
    const fg_linked *part = &im->part[n];
    object *o = (object *)file;
    size_t at_symbols = (sizeof *o + 7) & ~(size_t)7;
    size_t at_strings = at_symbols + symbols * sizeof(Elf64_Sym),
           at_unwind = at_strings + strings;

    memset(file, 0, at_strings);
    memcpy(o->head.e_ident, ELFMAG, SELFMAG);
    o->head.e_ident[EI_CLASS] = ELFCLASS64;
    o->head.e_ident[EI_DATA] = ELFDATA2LSB;
    o->head.e_ident[EI_VERSION] = EV_CURRENT;
    o->head.e_type = ET_EXEC;
#if defined(__aarch64__)
    o->head.e_machine = EM_AARCH64;
#else
    o->head.e_machine = EM_X86_64;
#endif
    o->head.e_version = EV_CURRENT;
    o->head.e_ehsize = sizeof o->head;
    o->head.e_shoff = offsetof(object, section);
    o->head.e_shentsize = sizeof *o->section;
    o->head.e_shnum = SECTIONS;
    o->head.e_shstrndx = STRINGS;
    o->section[TEXT] = (Elf64_Shdr){.sh_type = SHT_NOBITS,
                                    .sh_flags = SHF_ALLOC | SHF_EXECINSTR,
                                    .sh_addr = (Elf64_Addr)(uintptr_t)part->text,
                                    .sh_size = part->text_bytes,
                                    .sh_addralign = 16};
    o->section[UNWIND] = (Elf64_Shdr){.sh_type = SHT_PROGBITS,
                                      .sh_flags = SHF_ALLOC,
                                      .sh_addr = (Elf64_Addr)(uintptr_t)part->unwind,
                                      .sh_offset = at_unwind,
                                      .sh_size = part->unwind_bytes,
                                      .sh_addralign = 1};
    o->section[SYMBOLS] = (Elf64_Shdr){.sh_type = SHT_SYMTAB,
                                       .sh_offset = at_symbols,
                                       .sh_size = symbols * sizeof(Elf64_Sym),
                                       .sh_link = STRINGS,
                                       .sh_info = 1,
                                       .sh_addralign = 8,
                                       .sh_entsize = sizeof(Elf64_Sym)};
    o->section[STRINGS] = (Elf64_Shdr){.sh_type = SHT_STRTAB,
                                       .sh_offset = at_strings,
                                       .sh_size = strings,
                                       .sh_addralign = 1};
    for (int k = 0; k < SECTIONS; k++)
        o->section[k].sh_name = name_at[k];
    put_symbols(p, im, n, (Elf64_Sym *)(file + at_symbols), file + at_strings);
    if (part->unwind_bytes)
        memcpy(file + at_unwind, part->unwind, part->unwind_bytes);
}

static void
tell_gdb(uint32_t action, jit_entry *e)
{
    struct jit_descriptor *d = &__jit_debug_descriptor;

    pthread_mutex_lock(&jit_lock);
    if (action == JIT_REGISTER) {
        e->next = d->first;
        if (e->next)
            e->next->prev = e;
        d->first = e;
    } else {
        *(e->prev ? &e->prev->next : &d->first) = e->next;
        if (e->next)
            e->next->prev = e->prev;
    }
    d->relevant = e;
    d->action = action;
    __jit_debug_register_code();
    d->action = JIT_NOTHING;
    pthread_mutex_unlock(&jit_lock);
}

/* ---- both -------------------------------------------------------------------------------- */

void
fg_names_add(forge_ctx *cx, forge_model *m, const fg_image *im)
{
    if (cx->names & FG_NAMES_PERF)
        tell_perf(cx, m->program, im);
    for (int n = 0; n < im->npart && cx->names & FG_NAMES_GDB; n++) {
        size_t symbols, strings;
        size_t bytes = measure(m->program, im, n, &symbols, &strings);
        struct fg_names *x = cx->alloc(cx->user, sizeof *x + bytes);
        if (!x) {
            fg_log(cx, "out of memory: gdb will not know this model's kernels");
            return;
        }
        *x =
            (struct fg_names){.next = m->names, .entry = {.file = x + 1, .bytes = bytes}};
        m->names = x;
        put_object(m->program, im, n, (char *)(x + 1), symbols, strings);
        tell_gdb(JIT_REGISTER, &x->entry);
    }
}

void
fg_names_drop(forge_model *m)
{
    for (struct fg_names *x = m->names, *next; x; x = next) {
        next = x->next;
        tell_gdb(JIT_UNREGISTER, &x->entry);
        m->once.release(m->once.user, x);
    }
    m->names = NULL;
}
