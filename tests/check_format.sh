#!/bin/sh
# Every C file is as clang-format would write it (.clang-format; tables are fenced off by hand).
cd "$(dirname "$0")/.." || exit 1
tool=$(command -v clang-format-19 || command -v clang-format) || {
    echo "clang-format is missing"
    exit 1
}
passed=0 failed=0
for file in $(git ls-files '*.c' '*.h'); do
    if "$tool" --dry-run -Werror "$file" 2>/dev/null; then
        passed=$((passed + 1))
    else
        echo "$file: not formatted; run $(basename "$tool") -i $file"
        failed=$((failed + 1))
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
