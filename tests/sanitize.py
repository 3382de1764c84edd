#!/usr/bin/env python3
"""The runtime alone under the thread and the address sanitizer: states of models that were compiled before, and a
host whose eight threads run one model a thousand times each.

    sanitize.py build/forge tests/models

Sanitizers see every instruction of the runtime; generated code is not theirs to judge.
"""
import glob, os, subprocess, sys, tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MODELS = "gpt2-kv-ts17", "lfm2-kv-ts17", "llama-optimum-kv"
HOST = "bert-ts17"
KINDS = "thread", "address,undefined"


def sh(*args):
    r = subprocess.run(args, capture_output=True, text=True, timeout=600)
    return "" if r.returncode == 0 else (r.stdout + r.stderr).strip() or f"exit {r.returncode}"


def sanitized(kind, scratch, source, *argv):
    program = os.path.join(scratch, kind[:4])
    built = sh(os.environ.get("CC", "cc").split()[-1], "-std=gnu11", "-O1", "-g", "-D_GNU_SOURCE", "-DLINKED", "-I" + ROOT,
               "-I" + os.path.join(ROOT, "runtime"),
               "-fsanitize=" + kind, "-fno-sanitize-recover=all" if "," in kind else "-fno-omit-frame-pointer",
               os.path.join(ROOT, source), *glob.glob(os.path.join(ROOT, "runtime/*.c")),
               "-o", program, "-lm", "-lpthread")
    return built or sh(program, *argv)


def main():
    forge, models = sys.argv[1:3]
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        *artifacts, host = [os.path.join(scratch, m + ".forge") for m in (*MODELS, HOST)]
        for m, path in zip((*MODELS, HOST), (*artifacts, host)):
            why = sh(forge, "compile", os.path.join(models, m, "model.onnx"), "--cpu=native", "-o", path)
            if why:
                print(f"FAIL {m}: {why}")
                failed += 1
        for kind in KINDS:
            for source, *argv in (("tests/unit/state_threads.c", *artifacts), ("tests/install/host.c", host, "8", "1000")):
                why = failed and "not compiled" or sanitized(kind, scratch, source, *argv)
                if why:
                    print(f"FAIL {kind} {source}: {why[:6000]}")
                    failed += 1
    print(f"{len(MODELS) + 1 + 2 * len(KINDS) - failed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
