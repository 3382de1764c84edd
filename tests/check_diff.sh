#!/bin/sh
# Compiled code and the evaluator agree on every register of every model.
#   tests/check_diff.sh FORGE MODEL.onnx..
forge=$1
shift
passed=0 failed=0
for model in "$@"; do
    if said=$("$forge" diff "$model" --test-data="${model%/*}/test_data_set_0" 2>&1); then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "$said" | tail -n 1
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
