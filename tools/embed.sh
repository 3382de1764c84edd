#!/bin/sh
# Files as C arrays that end in a zero: embed.sh a/page.css .. makes page_css_file[] and so on.
for file in "$@"; do
    name=$(basename "$file" | tr . _)_file
    echo "static const unsigned char $name[] = {"
    od -An -v -tu1 "$file" | sed 's/  *\([0-9][0-9]*\)/\1,/g'
    echo "0};"
done
