/* run_artifact.c - runs a .forge file with inputs of ones; needs the installed package alone:
 * cc run_artifact.c $(pkg-config --cflags --libs forge_rt) -o run && ./run bert.forge */
#include <forge.h>
#include <stdio.h>

static int64_t ones[1 << 20], dims[16];

int
main(int argc, char **argv)
{
    forge_ctx *cx = NULL;
    forge_model *m = NULL;
    forge_run *r = NULL;
    forge_status s = forge_open(NULL, &cx);

    for (size_t i = 0; i < sizeof ones / sizeof *ones; i++)
        ones[i] = 1;
    s = s ? s : forge_load_file(cx, argc > 1 ? argv[1] : "model.forge", NULL, &m);
    s = s ? s : forge_run_new(cx, m, &r);
    for (int i = 0, rank; !s && i < forge_model_inputs(m); i++) {
        forge_dtype type;
        const char *name = forge_model_input(m, i, &type, &rank);
        for (int k = 0; k < rank; k++) /* a size that is open: 4 */
            if ((dims[k] = forge_model_input_dim(m, i, k, NULL)) < 0)
                dims[k] = 4;
        s = forge_bind_input(r, name, type, rank, dims, ones);
    }
    s = s ? s : forge_execute(r);
    if (s)
        fprintf(stderr, "%s\n", cx ? forge_message(cx) : forge_status_text(s));
    for (int i = 0; !s && i < forge_model_outputs(m); i++) {
        const char *name = forge_model_output(m, i, NULL, NULL);
        printf("%s begins with %g\n", name,
               *(float *)forge_output(r, name, NULL, NULL, NULL));
    }
    forge_run_free(r);
    forge_model_free(m);
    forge_close(cx);
    return s;
}
