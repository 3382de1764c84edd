#!/bin/sh
# Every function of LLVM that the given sources call, one F(name) a line, for codegen/cpu/llvm.c.
grep -ohE '\bLLVM[A-Z][A-Za-z0-9]+\(' "$@" | tr -d '(' | LC_ALL=C sort -u | sed 's/.*/F(&)/'
