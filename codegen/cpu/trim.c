/* trim.c - give back the memory that LLVM's code occupies once it has done its work.
 *
 * Compiling touches some 50 MiB of the library's text, which would count as ours for the life of
 * the process although nothing runs it any more. The pages are clean and mapped from a
 * file: dropping them loses nothing, and whoever needs one again, another thread
 * that compiles at this moment included, faults it in from the page cache.
 */
#include "codegen/cpu/ll.h"

#include <link.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int
drop(struct dl_phdr_info *lib, size_t size, void *page)
{
    (void)size;
    if (!strstr(lib->dlpi_name, "libLLVM"))
        return 0;
    for (int k = 0; k < lib->dlpi_phnum; k++) {
        const ElfW(Phdr) *h = &lib->dlpi_phdr[k];
        if (h->p_type != PT_LOAD || h->p_flags & PF_W)
            continue;
        uintptr_t mask = *(uintptr_t *)page - 1;
        uintptr_t from = ((uintptr_t)lib->dlpi_addr + h->p_vaddr + mask) & ~mask;
        uintptr_t to = ((uintptr_t)lib->dlpi_addr + h->p_vaddr + h->p_memsz) & ~mask;
        if (to > from)
            madvise((void *)from, to - from, MADV_DONTNEED);
    }
    return 0;
}

void
fg_cpu_trim(void)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    dl_iterate_phdr(drop, &page);
}
