/* embed.c - a .forge file inside an object file, for programs that carry their model.
 *
 *     forge_status bert_open(forge_ctx *cx, const forge_load_options *o, forge_model **out)
 *     {
 *         return forge_load_memory(cx, image, bytes, o, out);
 *     }
 *
 * The assembler reads the file itself (.incbin), so that weights are not spelled out as IR. The
 * image is hidden: it is reached relative to the code, and needs no relocation when a
 * library is loaded, so its pages stay those of the file.
 */
#include "codegen/cpu/ll.h"
#include "codegen/target.h"

/* .section ..; the image's label; .incbin "file", quotes and backslashes escaped */
static const char *
image_section(fg_arena *a, const char *label, const char *image)
{
    fg_text t = fg_text_new(a);

    fg_putf(&t, ".section .forge,\"a\",%%progbits\n.balign 4096\n%s:\n.incbin \"", label);
    for (const char *s = image; *s; s++)
        fg_putf(&t, *s == '"' || *s == '\\' ? "\\%c" : "%c", *s);
    fg_putf(&t, "\"\n");
    return t.s;
}

static void
build_open(fg_ll *g, const char *name, const char *label, uint64_t bytes)
{
    fg_t five[] = {g->ptr, g->ptr, g->i64, g->ptr, g->ptr},
         three[] = {g->ptr, g->ptr, g->ptr};
    fg_v load =
        LLVMAddFunction(g->m, "forge_load_memory", LLVMFunctionType(g->i32, five, 5, 0));
    fg_v image = LLVMAddGlobal(g->m, g->i8, label);

    LLVMSetVisibility(image, LLVMHiddenVisibility);
    ll_function(g, name, g->i32, 3, three, false);
    fg_v arg[] = {ll_param(g, 0), image, ll_i(g, (int64_t)bytes), ll_param(g, 1),
                  ll_param(g, 2)};
    ll_ret(g, ll_call(g, load, 5, arg));
}

bool
fg_cpu_embed(fg_ctx *cx, const char *cpu, const char *image, uint64_t bytes,
             const char *name, const char *out)
{
    const char *why;
    char *message = NULL;
    fg_machine *t = ll_machine_new(cpu, &why);

    if (!t)
        return fg_error(cx, "%s", why);
    fg_ll *g = ll_new(t, name);
    LLVMTargetMachineRef tm = ll_target_machine(t);
    fg_arena *a = fg_arena_new(cx);
    const char *label = fg_format(a, "%s_image", name);
    const char *section = image_section(a, label, image);

    LLVMSetModuleInlineAsm2(g->m, section, strlen(section));
    build_open(g, fg_format(a, "%s_open", name), label, bytes);
    bool ok = !LLVMTargetMachineEmitToFile(tm, g->m, (char *)(uintptr_t)out,
                                           LLVMObjectFile, &message);
    if (!ok)
        fg_error(cx, "%.400s: %.400s", out, message ? message : "not written");
    LLVMDisposeMessage(message);
    LLVMDisposeTargetMachine(tm);
    ll_free(g);
    ll_machine_free(t);
    fg_arena_free(a);
    return ok;
}
