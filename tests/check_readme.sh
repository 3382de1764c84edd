#!/bin/sh
# The operator table of the README is the one that the operation list makes.
#   tests/check_readme.sh FORGE [--write]
cd "$(dirname "$0")/.." || exit 1
table=$(mktemp) && page=$(mktemp) || exit 1
trap 'rm -f "$table" "$page"' EXIT
"$1" dump --ops >"$table" || exit 1
awk -v table="$table" '
    /^<!-- operations -->$/ { print; print ""; while ((getline line < table) > 0) print line; print ""; skip = 1 }
    /^<!-- end -->$/ { skip = 0 }
    !skip { if ($0 != "<!-- operations -->") print }
' README.md >"$page"
if [ "${2:-}" = --write ]; then
    cp "$page" README.md
elif ! cmp -s "$page" README.md; then
    echo "README.md is out of date: sh tests/check_readme.sh build/forge --write"
    exit 1
fi
