/* plan.c - memory for tensors that live at different times, in one block.
 *
 *     a [0..2] 4 KiB     a at 0, b at 4096, c at 0: c begins after a ends
 *     b [1..4] 4 KiB
 *     c [3..5] 4 KiB
 *
 * Finding the smallest block is NP-hard. Two cheap heuristics fail on different programs:
 * linear scan wastes space when sizes differ much, greedy-by-size when lifetimes do. Both
 * run, the smaller block wins. Right by construction: an item is only put where no placed
 * item of overlapping lifetime is. Hundreds of items take tens of microseconds.
 */
#include "runtime/plan.h"

#include <stdlib.h>
#include <string.h>

static int64_t
round_up(int64_t bytes)
{
    return (bytes + FG_ALIGN - 1) & -(int64_t)FG_ALIGN;
}

/* Sorts order[] by key, then by index so that the result never depends on the sort.
 * Shell sort: no recursion, no allocation, and qsort has no context argument in C11. */
static void
sort_by(int64_t *order, const int64_t *key, int n)
{
    for (int gap = n / 2; gap > 0; gap = gap * 5 / 11 + (gap == 2)) {
        for (int i = gap; i < n; i++) {
            int64_t x = order[i];
            int j = i;
            for (; j >= gap; j -= gap) {
                int64_t y = order[j - gap];
                if (key[y] < key[x] || (key[y] == key[x] && y < x))
                    break;
                order[j] = y;
            }
            order[j] = x;
        }
        if (gap == 1)
            break;
    }
}

static bool
overlap(const fg_planitem *a, const fg_planitem *b)
{
    return a->first <= b->last && b->first <= a->last;
}

/* Largest first, each at the lowest offset where it fits between its neighbours in
 * time. placed[] is kept sorted by offset. */
static int64_t
greedy_by_size(fg_planitem *item, int n, int64_t *order, int64_t *key, int64_t *placed)
{
    int64_t total = 0;
    int nplaced = 0;

    for (int i = 0; i < n; i++) {
        order[i] = i;
        key[i] = -item[i].bytes;
    }
    sort_by(order, key, n);
    for (int k = 0; k < n; k++) {
        fg_planitem *x = &item[order[k]];
        int64_t at = 0;
        for (int j = 0; j < nplaced; j++) {
            const fg_planitem *y = &item[placed[j]];
            if (!overlap(x, y))
                continue;
            if (y->offset >= at + x->bytes)
                break;
            int64_t end = y->offset + round_up(y->bytes);
            if (end > at)
                at = end;
        }
        x->offset = at;
        if (at + round_up(x->bytes) > total)
            total = at + round_up(x->bytes);
        int j = nplaced++;
        for (; j > 0 && item[placed[j - 1]].offset > at; j--)
            placed[j] = placed[j - 1];
        placed[j] = order[k];
    }
    return total;
}

/* In order of birth, each at the best fitting hole between the items alive. alive[] is
 * kept sorted by offset, so holes are the gaps between neighbours. */
static int64_t
linear_scan(fg_planitem *item, int n, int64_t *order, int64_t *key, int64_t *alive)
{
    int64_t total = 0;
    int nalive = 0;

    for (int i = 0; i < n; i++) {
        order[i] = i;
        key[i] = item[i].first;
    }
    sort_by(order, key, n);
    for (int k = 0; k < n; k++) {
        fg_planitem *x = &item[order[k]];
        int64_t size = round_up(x->bytes), top = 0, best = -1, best_gap = INT64_MAX;
        int kept = 0;
        for (int j = 0; j < nalive; j++)
            if (item[alive[j]].last >= x->first)
                alive[kept++] = alive[j];
        nalive = kept;
        for (int j = 0; j < nalive; j++) {
            const fg_planitem *y = &item[alive[j]];
            if (y->offset - top >= size && y->offset - top < best_gap) {
                best = top;
                best_gap = y->offset - top;
            }
            if (y->offset + round_up(y->bytes) > top)
                top = y->offset + round_up(y->bytes);
        }
        x->offset = best >= 0 ? best : top;
        if (x->offset + size > total)
            total = x->offset + size;
        int j = nalive++;
        for (; j > 0 && item[alive[j - 1]].offset > x->offset; j--)
            alive[j] = alive[j - 1];
        alive[j] = order[k];
    }
    return total;
}

/* Most bytes alive at one position: births and deaths met in order of time. */
static int64_t
lower_bound(const fg_planitem *item, int n, int64_t *birth, int64_t *death, int64_t *key)
{
    int64_t now = 0, most = 0;
    int b = 0, d = 0;

    for (int i = 0; i < n; i++) {
        birth[i] = death[i] = i;
        key[i] = item[i].first;
    }
    sort_by(birth, key, n);
    for (int i = 0; i < n; i++)
        key[i] = item[i].last;
    sort_by(death, key, n);
    while (b < n) {
        const fg_planitem *x = &item[birth[b]], *y = &item[death[d]];
        if (x->first <= y->last) {
            now += round_up(x->bytes);
            b++;
        } else {
            now -= round_up(y->bytes);
            d++;
        }
        if (now > most)
            most = now;
    }
    return most;
}

bool
fg_plan(fg_planitem *item, int n, int64_t *scratch, fg_plansize *out)
{
    int64_t *order = scratch, *key = order + n, *list = key + n, *kept = list + n;

    *out = (fg_plansize){0};
    for (int i = 0; i < n; i++)
        if (item[i].bytes > INT64_MAX - FG_ALIGN ||
            __builtin_add_overflow(out->naive, round_up(item[i].bytes), &out->naive))
            return false;
    out->bound = lower_bound(item, n, order, list, key);
    out->planned = linear_scan(item, n, order, key, list);
    if (out->planned == out->bound)
        return true;
    for (int i = 0; i < n; i++)
        kept[i] = item[i].offset;
    int64_t greedy = greedy_by_size(item, n, order, key, list);
    if (greedy < out->planned) {
        out->planned = greedy;
        return true;
    }
    for (int i = 0; i < n; i++)
        item[i].offset = kept[i];
    return true;
}
