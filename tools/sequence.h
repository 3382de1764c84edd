/* sequence.h - inside forge generate: one text as it grows, and when it ends. */
#ifndef FG_TOOLS_SEQUENCE_H
#define FG_TOOLS_SEQUENCE_H

#include "text/sample.h"
#include "text/tokenizer.h"
#include "tools/tool.h"

typedef enum { END_NOT, END_LENGTH, END_EOS, END_STOP, END_CONTEXT } ending;
extern const char *const ending_name[];

/* What all texts of a command have in common. */
typedef struct sequence_rules {
    const fg_tokenizer *t;
    const tool_list *stop; /* a text ends before any of them */
    const fg_ids *eos;     /* or with one of these tokens */
    size_t most;           /* tokens */
    bool live;             /* written to standard output as it grows */
} sequence_rules;

typedef struct sequence {
    const sequence_rules *rules;
    fg_arena *a;
    fg_sampler sampler;
    fg_stream stream;
    fg_text held, text; /* what may begin a stop string; all that is certain */
    size_t prompt;      /* tokens */
    fg_ids out;
    ending end;
} sequence;

/* `prompt` counts as seen for the repetition penalty. */
void sequence_begin(sequence *s, const sequence_rules *rules, fg_arena *a,
                    const fg_sampling *o, int32_t vocab, const fg_ids *prompt);
/* Chooses the next token by its logits; -1 when none of them is a number. */
int32_t sequence_next(sequence *s, const float *logits);
/* Nothing comes any more: shows what was held back. */
void sequence_end(sequence *s, ending why);

#endif
