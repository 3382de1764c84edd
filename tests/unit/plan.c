/* plan.c - memory plans of random lifetimes: nothing alive overlaps, nothing is
 * misaligned, the block is no smaller than what is alive at once and no larger than
 * all of it.
 */
#include <stdio.h>
#include <stdlib.h>

#include "runtime/plan.h"
#include "tests/unit/expect.h"

enum { MOST = 300 };

static uint32_t
next(uint32_t *s)
{
    *s = *s * 1664525 + 1013904223;
    return *s >> 8;
}

static bool
apart(const fg_planitem *a, const fg_planitem *b)
{
    return a->last < b->first || b->last < a->first ||
           a->offset + a->bytes <= b->offset || b->offset + b->bytes <= a->offset;
}

static void
sound(const fg_planitem *item, int n, const fg_plansize *size)
{
    bool clean = true, aligned = true, inside = true;

    for (int i = 0; i < n; i++) {
        aligned = aligned && item[i].offset >= 0 && item[i].offset % FG_ALIGN == 0;
        inside = inside && item[i].offset + item[i].bytes <= size->planned;
        for (int j = 0; j < i; j++)
            clean =
                clean && (!item[i].bytes || !item[j].bytes || apart(&item[i], &item[j]));
    }
    holds(clean, "live items are apart");
    holds(aligned, "offsets are aligned");
    holds(inside, "items end inside of the block");
    holds(size->bound <= size->planned && size->planned <= size->naive,
          "bound <= planned <= naive");
}

int
main(void)
{
    static fg_planitem item[MOST], again[MOST];
    static int64_t scratch[FG_PLAN_SCRATCH(MOST)];
    uint32_t seed = 1;

    for (int round = 0; round < 400; round++) {
        char name[16];
        snprintf(name, sizeof name, "round %d", round);
        subject = name;
        int n = (int)(next(&seed) % MOST), span = 1 + (int)(next(&seed) % 60);
        fg_plansize size, size2;
        for (int i = 0; i < n; i++) {
            int first = (int)(next(&seed) % 200);
            item[i] =
                (fg_planitem){(int64_t)(next(&seed) % (round % 2 ? 100000 : 3) * 64),
                              first, first + (int)(next(&seed) % (uint32_t)span), -1};
            again[i] = item[i];
        }
        holds(fg_plan(item, n, scratch, &size), "planned");
        sound(item, n, &size);
        fg_plan(again, n, scratch, &size2);
        bool same = size.planned == size2.planned;
        for (int i = 0; i < n; i++)
            same = same && item[i].offset == again[i].offset;
        holds(same, "the same items give the same plan");
    }
    subject = NULL;
    item[0] = item[1] = (fg_planitem){INT64_MAX - 100, 0, 0, 0};
    holds(!fg_plan(item, 2, scratch, &(fg_plansize){0}),
          "sizes that overflow are refused");
    return verdict();
}
