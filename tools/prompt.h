/* prompt.h - inside forge generate: the prompt as tokens, and what the files beside the
 * tokenizer say. */
#ifndef FG_TOOLS_PROMPT_H
#define FG_TOOLS_PROMPT_H

#include "text/tokenizer.h"
#include "tools/tool.h"

typedef struct prompt {
    fg_ctx *cx;
    fg_arena *a;
    const char *model, *tokenizer;      /* paths; tokenizer NULL: beside the model */
    const char *text, *file;            /* neither: standard input */
    int chat;                           /* text is a message to the model */
    const char *system, *chat_template; /* a message before it; a file */
    tool_list eos_given;                /* numbers or contents */
    fg_tokenizer *t;
    fg_ids ids, eos;
    int64_t context; /* longest sequence of the model; 0: not known */
} prompt;

/* Opens the tokenizer, reads the configuration and encodes the prompt; false with a
 * diagnostic. */
bool prompt_begin(prompt *p);
void prompt_end(prompt *p);

#endif
