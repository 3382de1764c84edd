/* draft.h - inside forge generate: guesses of what comes next.
 *
 * Tokens are chosen as without guesses, each by the logits behind the one before; a guess
 * only decides which rows of logits there are already. So the text is the same, whatever
 * the guesses are worth.
 */
#ifndef FG_TOOLS_DRAFT_H
#define FG_TOOLS_DRAFT_H

#include "text/tokenizer.h"
#include "tools/lm.h"

typedef struct draft {
    fg_arena *a;
    lm *model; /* a smaller one; NULL: what followed the last tokens where they were before */
    size_t most;
    int32_t *v; /* the guess: [0] is given, n more follow */
    size_t n;
    fg_ids known;
    size_t guessed, right;
} draft;

void draft_begin(draft *d, fg_arena *a, lm *model, size_t most);
/* A text begins, or goes on with a token that is certain. False with a diagnostic. */
bool draft_text(draft *d, const fg_ids *prompt);
void draft_known(draft *d, int32_t id);
/* At most `most` tokens to d->v + 1, below `vocab`; false with a diagnostic. */
bool draft_guess(draft *d, size_t most, int32_t vocab);

#endif
