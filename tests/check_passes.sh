#!/bin/sh
# The passes keep what every model computes, each honest at check level 2: the evaluator runs the
# imported module and the optimised one on the same inputs. The tolerance is that of half precision;
# a masked row (scores near -10000) already differs by 1e-3 where a fused product is not rounded.
#   tests/check_passes.sh FORGE FORGE-TEST MODEL.onnx..
forge=$1 test=$2
shift 2
passed=0 failed=0
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
for model in "$@"; do
    from=$(cd "$(dirname "$model")" && pwd)
    rm -rf "${dir:?}"/*
    ln -s "$from"/* "$dir"
    for level in 0 1; do
        {
            echo "; RUN: -O=$level --ints=2 --tolerance=0.02"
            "$forge" dump "$model" --stage=import
        } >"$dir/module.fir"
        if "$test" "$dir/module.fir" >"$dir/log"; then
            passed=$((passed + 1))
        else
            failed=$((failed + 1))
            echo "$model -O$level: $(cut -c1-300 "$dir/log" | head -n 1)"
        fi
    done
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
