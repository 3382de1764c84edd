/* progress.h - a line on the terminal while something takes more than a second. */
#ifndef FG_TOOLS_PROGRESS_H
#define FG_TOOLS_PROGRESS_H

/* "doing FILE .. 2 s" on stderr from one second on, until the end, which takes the line away;
 * nothing when stderr is not a terminal. One at a time; both strings outlive it. */
void tool_progress_begin(const char *doing, const char *file);
void tool_progress_end(void); /* also when none began */

#endif
