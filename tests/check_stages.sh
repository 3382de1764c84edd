#!/bin/sh
# Every stage of every model is text that reads back to itself: forge opt without passes prints what
# forge dump printed.
#   tests/check_stages.sh FORGE MODEL.onnx..
forge=$1
shift
passed=0 failed=0
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
for model in "$@"; do
    for stage in import opt fused placed; do
        if "$forge" dump "$model" --stage=$stage >"$dir/a.fir" 2>"$dir/log" &&
            "$forge" opt "$dir/a.fir" >"$dir/b.fir" 2>"$dir/log" && cmp "$dir/a.fir" "$dir/b.fir" >>"$dir/log"; then
            passed=$((passed + 1))
        else
            failed=$((failed + 1))
            echo "$model --stage=$stage: $(head -n 1 "$dir/log")"
        fi
    done
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
