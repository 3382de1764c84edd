/* run_artifact.c - runs a .forge file; needs the installed package and nothing else.
 *
 *     forge compile bert.onnx -o bert.forge
 *     cc run_artifact.c $(pkg-config --cflags --libs forge_rt) -o run_artifact
 *     ./run_artifact bert.forge
 *
 * Every integer input is filled with ones, sizes that are open with 4.
 */
#include <forge.h>
#include <stdio.h>

static int64_t ones[1 << 20], dims[16];

int
main(int argc, char **argv)
{
    forge_ctx *cx;
    forge_model *m = NULL;
    forge_run *r = NULL;
    forge_status s = forge_open(NULL, &cx);

    for (size_t i = 0; i < sizeof ones / sizeof *ones; i++)
        ones[i] = 1;
    if (!s)
        s = forge_load_file(cx, argc > 1 ? argv[1] : "model.forge", NULL, &m);
    if (!s)
        s = forge_run_new(cx, m, &r);
    for (int i = 0, rank; !s && i < forge_model_inputs(m); i++) {
        forge_dtype type;
        const char *name = forge_model_input(m, i, &type, &rank);
        for (int k = 0; k < rank; k++)
            if ((dims[k] = forge_model_input_dim(m, i, k, NULL)) < 0)
                dims[k] = 4;
        s = forge_bind_input(r, name, type, rank, dims, ones);
    }
    if (!s)
        s = forge_execute(r);
    if (s)
        fprintf(stderr, "%s\n", cx ? forge_message(cx) : forge_status_text(s));
    for (int i = 0; !s && i < forge_model_outputs(m); i++) {
        const char *name = forge_model_output(m, i, NULL, NULL);
        const float *x = forge_output(r, name, NULL, NULL, NULL);
        printf("%s begins with %g\n", name, (double)x[0]);
    }
    forge_run_free(r);
    forge_model_free(m);
    forge_close(cx);
    return s;
}
