/* start.c - how soon a compiled model gives its first output, as a host sees it.
 *
 *     bench-start gpt2.forge 128 1 20
 *     {"open_ms": 0.6, "first_ms": 331.0, "run_ms": 302.5}
 *
 * From before the file is opened to the end of the first run, and the median of later ones,
 * with the runtime alone. Then it stays until its input ends, so that its memory can be
 * looked at.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tests/bench/host.h"

enum { MOST = 1000 };

int
main(int argc, char **argv)
{
    int runs = argc == 5 ? atoi(argv[4]) : 0;

    if (argc != 5 || atoll(argv[2]) < 1 || runs < 1 || runs > MOST) {
        fprintf(stderr, "usage: bench-start FILE.forge LENGTH THREADS RUNS\n");
        return 2;
    }
    static host h;
    double time[MOST], start = host_now_ms();
    forge_status s = host_open(&h, argv[1], atoll(argv[2]), atoi(argv[3]));
    double open = host_now_ms() - start;
    if (!s)
        s = host_bind(&h);
    if (!s)
        s = host_run(&h);
    double first = host_now_ms() - start;
    for (int k = 0; !s && k < runs; k++) {
        time[k] = host_now_ms();
        s = host_run(&h);
        time[k] = host_now_ms() - time[k];
    }
    if (s) {
        fprintf(stderr, "%s\n", forge_message(h.cx));
        return 1;
    }
    printf("{\"open_ms\": %.3f, \"first_ms\": %.3f, \"run_ms\": %.3f}\n", open, first,
           host_percentile(time, runs, 50));
    fflush(stdout);
    while (getchar() != EOF)
        continue;
    host_close(&h);
    return 0;
}
