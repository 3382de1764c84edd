/* energy.c - what the processor has taken, where the system tells (RAPL).
 *
 *     /sys/class/powercap/intel-rapl:0/energy_uj    one package; AMD's have the same name
 *
 * A counter wraps after an hour or so: a
 * reading across a wrap comes out negative and counts as not measured.
 */
#include <stdio.h>

#include "tools/tool.h"

enum { MOST_PACKAGES = 64 };

double
tool_energy(void)
{
    double joules = 0;
    int found = 0;

    for (int k = 0; k < MOST_PACKAGES; k++) {
        char path[80];
        unsigned long long uj;
        snprintf(path, sizeof path, "/sys/class/powercap/intel-rapl:%d/energy_uj", k);
        FILE *f = fopen(path, "r");
        if (!f)
            break;
        if (fscanf(f, "%llu", &uj) == 1) {
            joules += (double)uj * 1e-6;
            found++;
        }
        fclose(f);
    }
    return found ? joules : -1;
}

double
tool_energy_since(double before)
{
    double now = tool_energy();

    return before >= 0 && now > before ? now - before : 0;
}
