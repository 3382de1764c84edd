/* plan.c - memory plans of random lifetimes: nothing alive overlaps, nothing is
 * misaligned, the block is no smaller than what is alive at once and no larger than
 * all of it.
 */
#include <stdio.h>
#include <stdlib.h>

#include "runtime/plan.h"

enum { MOST = 300 };

static int passed, failed;

static void
expect(bool ok, const char *what, int round)
{
    passed += ok;
    failed += !ok;
    if (!ok)
        printf("round %d: %s\n", round, what);
}

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
check(const fg_planitem *item, int n, const fg_plansize *size, int round)
{
    bool clean = true, aligned = true, inside = true;

    for (int i = 0; i < n; i++) {
        aligned = aligned && item[i].offset >= 0 && item[i].offset % FG_ALIGN == 0;
        inside = inside && item[i].offset + item[i].bytes <= size->planned;
        for (int j = 0; j < i; j++)
            clean =
                clean && (!item[i].bytes || !item[j].bytes || apart(&item[i], &item[j]));
    }
    expect(clean, "two live items overlap", round);
    expect(aligned, "an offset is not aligned", round);
    expect(inside, "an item ends outside of the block", round);
    expect(size->bound <= size->planned && size->planned <= size->naive,
           "bound <= planned <= naive", round);
}

int
main(void)
{
    static fg_planitem item[MOST], again[MOST];
    static int64_t scratch[FG_PLAN_SCRATCH(MOST)];
    uint32_t seed = 1;

    for (int round = 0; round < 400; round++) {
        int n = (int)(next(&seed) % MOST), span = 1 + (int)(next(&seed) % 60);
        fg_plansize size, size2;
        for (int i = 0; i < n; i++) {
            int first = (int)(next(&seed) % 200);
            item[i] =
                (fg_planitem){(int64_t)(next(&seed) % (round % 2 ? 100000 : 3) * 64),
                              first, first + (int)(next(&seed) % (uint32_t)span), -1};
            again[i] = item[i];
        }
        expect(fg_plan(item, n, scratch, &size), "planned", round);
        check(item, n, &size, round);
        fg_plan(again, n, scratch, &size2);
        bool same = size.planned == size2.planned;
        for (int i = 0; i < n; i++)
            same = same && item[i].offset == again[i].offset;
        expect(same, "the same items give the same plan", round);
    }
    item[0] = item[1] = (fg_planitem){INT64_MAX - 100, 0, 0, 0};
    expect(!fg_plan(item, 2, scratch, &(fg_plansize){0}),
           "sizes that overflow are refused", -1);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
