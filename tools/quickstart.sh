#!/bin/sh
# From a fresh Debian 12 to text out of a model: installs what is missing, builds, compiles
# the tiny GPT in examples/, generates from it, and shows what each compiler pass did.
set -eu
cd "$(dirname "$0")/.."
sh tools/setup.sh build

echo "== building"
[ -f build/build.ninja ] || meson setup build >build.log 2>&1 || { cat build.log; exit 1; }
ninja -C build >build.log 2>&1 || { tail -n 30 build.log; exit 1; }
rm -f build.log

model=examples/tiny-gpt/model.onnx
echo
echo "== what the compiler did with $model"
build/forge dump "$model" --ledger
echo
echo "== its outputs against stored ones: a prefill, then one token on that cache"
for set in examples/tiny-gpt/test_data_set_*; do
    build/forge run "$model" --test-data="$set" >outputs.log || { cat outputs.log; exit 1; }
    grep logits outputs.log
done
rm -f outputs.log
echo
echo "== 200 characters from it (a character model of the King James Bible)"
build/textgen "$model" "In the beginning " 200
