/* forge.c - the forge command: finds the verb and leaves the rest to cmd_<verb>.c. */
#include "tools/tool.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

typedef struct verb {
    const char *name, *args, *meaning;
    int (*run)(int argc, char **argv);
} verb;

static const verb verbs[] = {
#define VERB(name, args, meaning) {#name, args, meaning, cmd_##name},
#include "tools/verbs.def"
};

static int
help(void)
{
    printf("forge %s - compiles transformer models to native code\n\n", FORGE_VERSION);
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        printf("    forge %-8s %-10s %s\n", verbs[i].name, verbs[i].args,
               verbs[i].meaning);
    printf("\n`forge VERB --help` lists the options of a verb. Exit codes: 0 ok, 1 the "
           "model or the "
           "machine is at fault,\n2 usage, 3 result outside tolerance.\n");
    return TOOL_OK;
}

int
main(int argc, char **argv)
{
    /* A file beyond `ulimit -f` is an error to report, as a full disk is. */
    signal(SIGXFSZ, SIG_IGN);
    if (argc < 2)
        return tool_fail(TOOL_USAGE, "a verb is missing; see forge --help");
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
        return help();
    if (!strcmp(argv[1], "--version")) {
        printf("forge %s\n", forge_version());
        return TOOL_OK;
    }
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        if (!strcmp(argv[1], verbs[i].name))
            return verbs[i].run(argc - 1, argv + 1);
    const char *near = fg_closest(argv[1], strlen(argv[1]), verbs,
                                  sizeof verbs / sizeof *verbs, sizeof *verbs);
    return tool_fail(TOOL_USAGE, "no verb \"%s\"%s%s; see forge --help", argv[1],
                     near ? "; did you mean " : "", near ? near : "");
}
