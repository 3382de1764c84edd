#!/bin/sh
# All tests, from a fresh Debian 12 as root: installs what is missing, builds with gcc and clang and
# with sanitizers, runs every layer of tests. The last line is `N passed, N failed`.
#   tests/run.sh          everything
#   tests/run.sh fast     gcc build, text tests, kernels, models at the default level
set -u
cd "$(dirname "$0")/.."
fast=${1:-}
log=build-logs
mkdir -p "$log"
passed=0 failed=0
export XDG_CACHE_HOME="$PWD/.cache/xdg" # compiled models; nothing of the user's

# stage NAME COMMAND..: counts the command's own `N passed, N failed` line, or the command as one.
stage() {
    name=$1
    shift
    start=$(date +%s)
    "$@" >"$log/$name.log" 2>&1
    rc=$?
    line=$(grep -E '^([A-Za-z]+: )?[0-9]+ passed, [0-9]+ failed' "$log/$name.log" | tail -n 1)
    p=$(echo "$line" | sed -nE 's/^([A-Za-z]+: )?([0-9]+) passed.*/\2/p')
    f=$(echo "$line" | sed -nE 's/.* ([0-9]+) failed.*/\1/p')
    if [ -z "$line" ]; then
        p=$([ $rc = 0 ] && echo 1 || echo 0)
        f=$([ $rc = 0 ] && echo 0 || echo 1)
    elif [ $rc != 0 ] && [ "$f" = 0 ]; then
        f=1
    fi
    passed=$((passed + p)) failed=$((failed + f))
    printf '%-22s %5d passed %4d failed  %4d s\n' "$name" "$p" "$f" "$(($(date +%s) - start))"
    if [ "$f" != 0 ]; then
        tail -n 25 "$log/$name.log" | sed 's/^/    /'
    fi
}

build() {       # build DIR MESON-OPTION..
    dir=$1
    shift
    [ -f "$dir/build.ninja" ] || meson setup "$dir" "$@" || return 1
    ninja -C "$dir"
}

venv() {
    [ -x .venv/bin/python ] || python3 -m venv .venv || return 1
    .venv/bin/python -m pip install -q --disable-pip-version-check -r tests/requirements.txt
}

cases=.cache/cases
make_cases() {
    [ -f "$cases/cases.tsv" ] || .venv/bin/python tests/conformance/make_cases.py "$cases"
}

texts="tests/ir tests/verify tests/passes tests/bugs tests/eval"
models=$(ls -d tests/models/*/model.onnx)

stage setup sh tools/setup.sh test
stage build-gcc build build
stage includes sh tests/check_includes.sh
stage readme sh tests/check_readme.sh build/forge
stage text build/forge-test --run $texts
for program in core plan runtime api artifact differ state state_rows state_window decode text rules kernels; do
    stage "$program" "build/test-$program"
done
stage fuzz build/test-fuzz --seconds=15 --seed=1
stage tokenizers build/test-tokenizers tests/text/data
stage templates build/test-templates tests/text/templates
stage venv venv
stage models .venv/bin/python tests/models.py build/forge tests/models examples --jobs 2
stage flow .venv/bin/python tests/flow.py build/forge
stage attention .venv/bin/python tests/attention.py build/forge
stage idioms .venv/bin/python tests/idioms.py build/forge
stage states .venv/bin/python tests/states.py build/forge
stage experts .venv/bin/python tests/experts.py build/forge
stage layers .venv/bin/python tests/layers.py build/forge
stage cli .venv/bin/python tests/cli.py build/forge tests/models
stage cache .venv/bin/python tests/cache.py build/forge tests/models
stage tables .venv/bin/python tests/tables.py build/forge tests/models
stage knobs .venv/bin/python tests/knobs.py build/forge tests/models
stage tune .venv/bin/python tests/tune.py build/forge tests/models
stage install .venv/bin/python tests/install.py build tests/models
stage artifact .venv/bin/python tests/artifact.py build/forge tests/models --jobs 2
stage emit .venv/bin/python tests/emit.py build tests/models
stage emit-c .venv/bin/python tests/emit_c.py build/forge tests/models --jobs 2
stage cross .venv/bin/python tests/cross.py build/forge tests/models --jobs 2
stage generate .venv/bin/python tests/generate.py build/forge tests/models examples
stage report .venv/bin/python tests/report.py build/forge tests/models
stage page .venv/bin/python tests/page.py build/forge tests/models
stage names .venv/bin/python tests/names.py build/forge tests/models
stage contrib .venv/bin/python tests/contrib.py build/forge
if [ "$fast" != fast ]; then
    stage passes-on-models sh tests/check_passes.sh build/forge build/forge-test $models
    stage diff-on-models sh tests/check_diff.sh build/forge $models
    stage stages-as-text sh tests/check_stages.sh build/forge $models
    stage kernels-as-c build/test-kernels --c
    stage cases make_cases
    stage conformance .venv/bin/python tests/conformance/run_cases.py --forge build/forge --cases "$cases" \
        --scope tests/conformance/scope.tsv --class core,extended --baseline tests/conformance/baseline.tsv --jobs 2
    stage hostile .venv/bin/python tests/hostile.py build/forge --jobs 2
    stage build-clang env CC=clang-19 sh -c 'meson setup build-clang && ninja -C build-clang'
    stage build-asan build build-asan -Dbuildtype=debugoptimized -Db_sanitize=address,undefined -Db_ndebug=false
    # The sanitizer mistakes the thread-local storage of a library that is opened late, as LLVM is.
    export ASAN_OPTIONS=intercept_tls_get_addr=0
    stage text-asan build-asan/forge-test $texts
    for program in core plan runtime api artifact differ state state_rows state_window decode text rules; do
        stage "$program-asan" "build-asan/test-$program"
    done
    stage fuzz-asan build-asan/test-fuzz --seconds=20 --seed=500000
    stage sanitize .venv/bin/python tests/sanitize.py build/forge tests/models
    stage tokenizers-asan build-asan/test-tokenizers tests/text/data
    stage templates-asan build-asan/test-templates tests/text/templates
    stage hostile-asan .venv/bin/python tests/hostile.py build-asan/forge --jobs 2
    stage models-asan .venv/bin/python tests/models.py build-asan/forge tests/models --levels 1 --jobs 2
    stage format sh tests/check_format.sh
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
