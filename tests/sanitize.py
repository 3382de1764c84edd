#!/usr/bin/env python3
"""The runtime alone under the thread and the address sanitizer: states of models that were compiled before.

    sanitize.py build/forge tests/models

Sanitizers see every instruction of the runtime; generated code is not theirs to judge.
"""
import glob, os, subprocess, sys, tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MODELS = "gpt2-kv-ts17", "lfm2-kv-ts17", "llama-optimum-kv"
KINDS = "thread", "address,undefined"


def sh(*args):
    r = subprocess.run(args, capture_output=True, text=True, timeout=600)
    return "" if r.returncode == 0 else (r.stdout + r.stderr).strip() or f"exit {r.returncode}"


def sanitized(kind, scratch, artifacts):
    program = os.path.join(scratch, kind[:4])
    built = sh(os.environ.get("CC", "cc").split()[-1], "-std=gnu11", "-O1", "-g", "-D_GNU_SOURCE", "-I" + ROOT,
               "-fsanitize=" + kind, "-fno-sanitize-recover=all" if "," in kind else "-fno-omit-frame-pointer",
               os.path.join(ROOT, "tests/unit/state_threads.c"), *glob.glob(os.path.join(ROOT, "runtime/*.c")),
               "-o", program, "-lm", "-lpthread")
    return built or sh(program, *artifacts)


def main():
    forge, models = sys.argv[1:3]
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        artifacts = [os.path.join(scratch, m + ".forge") for m in MODELS]
        for m, path in zip(MODELS, artifacts):
            why = sh(forge, "compile", os.path.join(models, m, "model.onnx"), "--cpu=native", "-o", path)
            if why:
                print(f"FAIL {m}: {why}")
                failed += 1
        for kind in KINDS:
            why = failed and "not compiled" or sanitized(kind, scratch, artifacts)
            if why:
                print(f"FAIL {kind}: {why[:6000]}")
                failed += 1
    print(f"{len(MODELS) + len(KINDS) - failed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
