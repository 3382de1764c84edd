#!/bin/sh
# Who may include whom: one line per header (first match counts), then the files that may, as shell
# patterns. runtime/ must build without the compiler. Also: no file over 900 lines.
cd "$(dirname "$0")/.." || exit 1
rules='
runtime/forge.h                 *
runtime/abi.h                   runtime/* codegen/*
runtime/plan.h                  runtime/* passes/place.c tests/unit/* tests/*
runtime/rt.h                    runtime/* codegen/compile.c codegen/differ.c tools/* tests/*
runtime/artifact.h              runtime/* codegen/save.h tools/dump_artifact.c tests/unit/*
runtime/isa.h                   runtime/* codegen/*
runtime/link.h                  runtime/* codegen/cpu/cpu.c
runtime/names.h                 runtime/* codegen/compile.c
runtime/*                       runtime/* tests/unit/*
ir/text.h                       ir/* codegen/*/resize.c
ir/parse.h                      ir/parse*.c
ir/shape.h                      ir/*
ir/symval.h                     ir/*
ir/*_impl.h                     ir/*
ir/base.h                       ir/* frontend/* passes/* codegen/* text/* tools/* tests/*
ir/*                            ir/* frontend/* passes/* codegen/* tools/* tests/*
frontend/onnx.h                 frontend/* codegen/compile.* tools/* tests/*
frontend/*                      frontend/*
onnx.pb-c.h                     frontend/*
protobuf-c/*                    frontend/*
passes/pass.h                   passes/* codegen/compile.* tools/* tests/*
passes/place.h                  passes/* codegen/* tools/* tests/*
passes/cost.h                   passes/* codegen/report.c tools/tune*
passes/reduce.h                 passes/* codegen/differ.c tests/fuzz.c
passes/algebra.h                passes/* tests/rules.c
passes/rewrite.h                passes/* tests/rules.c
passes/*                        passes/*
llvm-c/*                        codegen/cpu/*
llvm_calls.h                    codegen/cpu/llvm.c
codegen/cpu/*                   codegen/cpu/*
codegen/c/*                     codegen/c/*
codegen/target.h                passes/fuse_ops.c passes/pack.c codegen/* tools/* tests/*
codegen/*                       codegen/* tools/* tests/*
text/tok.h                      text/*
text/map.h                      text/*
text/jinja.h                    text/*
text/*                          text/* tools/* tests/*
pcre2.h                         text/regex.c
utf8proc.h                      text/unicode.c
cjson/*                         codegen/report*.c text/* tools/* tests/text/*
tools/*                         tools/*
'
passed=0 failed=0
set -f
allowed() {     # allowed FILE HEADER: 0 yes, 1 no, 2 a header of the system
    while read -r pattern files; do
        [ -n "$pattern" ] || continue
        # shellcheck disable=SC2254
        case $2 in
        $pattern)
            for f in $files; do
                case $1 in $f) return 0 ;; esac
            done
            return 1
            ;;
        esac
    done <<END
$rules
END
    return 2
}

for file in $(git ls-files '*.c' '*.h' '*.def'); do
    for header in $(sed -nE 's/^ *# *include *[<"]([^>"]*)[>"].*/\1/p' "$file" | sort -u); do
        allowed "$file" "$header"
        case $? in
        1)
            echo "$file must not include $header"
            failed=$((failed + 1))
            ;;
        *) passed=$((passed + 1)) ;;
        esac
    done
    lines=$(wc -l <"$file")
    if [ "$lines" -gt 900 ]; then
        echo "$file has $lines lines; split it by subject"
        failed=$((failed + 1))
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
