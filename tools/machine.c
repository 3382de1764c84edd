/* machine.c - what this machine is: names and sizes from the system. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "tools/tool.h"

double
tool_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

int
tool_cores(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);

    return n < 1 ? 1 : n;
}

/* ---- names ------------------------------------------------------------------------- */

/* The first line of /proc/cpuinfo that begins with key, after its colon. */
static bool
cpuinfo(const char *key, char *buf, size_t n)
{
    FILE *f = fopen("/proc/cpuinfo", "r");
    char line[8192];
    bool found = false;

    while (f && !found && fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, key, strlen(key)) || !colon)
            continue;
        colon += 1 + strspn(colon + 1, " ");
        colon[strcspn(colon, "\n")] = '\0';
        snprintf(buf, n, "%s", colon);
        found = true;
    }
    if (f)
        fclose(f);
    return found;
}

const char *
tool_cpu_model(char *buf, size_t n)
{
    if (!cpuinfo("model name", buf, n) && !cpuinfo("Processor", buf, n))
        snprintf(buf, n, "unknown");
    return buf;
}

/* The ones that decide which code is generated. */
const char *
tool_cpu_features(char *buf, size_t n)
{
    static const char *const wanted[] = {
        "sse4_2",   "avx",      "avx2",        "fma",         "f16c",        "avx512f",
        "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni",
        "amx_tile", "amx_bf16", "amx_int8",    "asimd",       "asimdhp",     "asimddp",
        "bf16",     "i8mm",     "sve"};
    char flags[8192] = " ";
    size_t at = 0;

    buf[0] = '\0';
    if (!cpuinfo("flags", flags + 1, sizeof flags - 2) &&
        !cpuinfo("Features", flags + 1, sizeof flags - 2))
        return buf;
    strcat(flags, " ");
    for (size_t k = 0; k < sizeof wanted / sizeof *wanted; k++) {
        char key[32];
        snprintf(key, sizeof key, " %s ", wanted[k]);
        if (strstr(flags, key) && at + strlen(key) < n)
            at += (size_t)snprintf(buf + at, n - at, "%s%s", at ? " " : "", wanted[k]);
    }
    return buf;
}

/* By level: what belongs to one core, but for the last; what is not told is usual. */
double
tool_cache_bytes(int level)
{
    static const double usual[] = {0, 32 << 10, 512 << 10, 8 << 20};

    for (int k = 0; k < 8; k++) {
        char path[100], text[3][32] = {"", "", ""};
        for (int j = 0; j < 3; j++) {
            static const char *const file[] = {"level", "type", "size"};
            snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/%s",
                     k, file[j]);
            FILE *f = fopen(path, "r");
            if (f && fscanf(f, "%31s", text[j]) != 1)
                text[j][0] = '\0';
            if (f)
                fclose(f);
        }
        if (atoi(text[0]) == level && strcmp(text[1], "Instruction") && atoi(text[2]) > 0)
            return atof(text[2]) * (strchr(text[2], 'M') ? 1 << 20 : 1 << 10);
    }
    return usual[level];
}
