/* expect.h - for test programs: what is expected, and how much of it came true. */
#ifndef FG_TESTS_EXPECT_H
#define FG_TESTS_EXPECT_H

#include <stdbool.h>
#include <stdio.h>

static int passed, failed;
static const char *subject; /* of what follows; NULL when there is just one */

static inline bool
expect(bool ok, const char *what, const char *why)
{
    passed += ok;
    failed += !ok;
    if (!ok)
        printf("FAIL %s%s%s: %s\n", subject ? subject : "", subject ? ": " : "", what,
               why);
    return ok;
}

static inline bool
holds(bool ok, const char *what)
{
    return expect(ok, what, "not so");
}

/* Ends a program: its closing line, and its exit status. */
static inline int
verdict(void)
{
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}

#endif
