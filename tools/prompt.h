/* prompt.h - inside forge generate: prompts as tokens, and what the files beside the
 * tokenizer say. */
#ifndef FG_TOOLS_PROMPT_H
#define FG_TOOLS_PROMPT_H

#include "text/tokenizer.h"
#include "tools/tool.h"

typedef struct prompt {
    fg_ctx *cx;
    fg_arena *a;
    const char *model, *tokenizer;      /* paths; tokenizer NULL: beside the model */
    const char *text, *file, *lines;    /* none: standard input */
    int chat;                           /* texts are messages to the model */
    const char *system, *chat_template; /* a message before it; a file */
    tool_list eos_given;                /* numbers or contents */
    fg_tokenizer *t;
    fg_str *v; /* the texts: each line of `lines`, else one */
    size_t n, cap;
    fg_ids eos;
    int64_t context; /* longest sequence; given, else of config.json; 0: not known */
} prompt;

/* Opens the tokenizer, reads configuration and texts; false with a diagnostic. */
bool prompt_begin(prompt *p);
/* Tokens of text k. */
bool prompt_encode(prompt *p, size_t k, fg_ids *out);
void prompt_end(prompt *p);

#endif
