#!/bin/sh
# Installs what building and testing need on Debian 12 (or later), if it is missing.
#   tools/setup.sh build     compiler, build system, libraries
#   tools/setup.sh test      also what the tests use
set -eu
build="gcc libc6-dev meson ninja-build pkg-config llvm-19-dev libprotobuf-c-dev protobuf-c-compiler libcjson-dev
       libpcre2-dev libutf8proc-dev"
tests="git clang-19 libclang-rt-19-dev clang-format-19 python3 python3-venv chromium
       fonts-dejavu-core graphviz qemu-user-static gcc-aarch64-linux-gnu libc6-dev-arm64-cross
       valgrind gdb linux-perf"

missing=
for p in $build $([ "${1:-build}" = test ] && echo "$tests"); do
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" != 0 ]; then
    echo "please install (as root): apt-get install$missing" >&2
    exit 1
fi
echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
# shellcheck disable=SC2086
if ! { apt-get update && apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1; then
    cat "$log" >&2
    exit 1
fi
rm -f "$log"
