#!/usr/bin/env python3
"""Models compiled for AArch64 and for lower levels of x86-64, run there by qemu, compared with the stored outputs.

    cross.py build/forge tests/models [--jobs N] [--filter REGEX]

Without qemu-aarch64-static or aarch64-linux-gnu-gcc there is nothing to run: it says so, and passes.
"""
import argparse, concurrent.futures, glob, json, os, re, shutil, subprocess, sys, tempfile
import numpy as np

from emit_c import tensors

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
QEMU, CC = "qemu-aarch64-static", "aarch64-linux-gnu-gcc"
# For each kind of machine: how programs for it are made and run, what one file is made for, and CPUs each of which has
# best code of its own there.
ARM = ([CC], QEMU, "aarch64,neoverse-n1,neoverse-v1", ("cortex-a72", "neoverse-n1", "max"))
X86 = (["gcc", "-march=x86-64"], "qemu-x86_64-static", "x86-64,x86-64-v2,x86-64-v3,x86-64-v4", ("Conroe", "Nehalem", "Haswell"))
TYPES = {"float32": 1, "float64": 2, "float16": 3, "int64": 5, "int32": 6, "int8": 8, "uint8": 13, "bool": 15}
OPTIMAL, RECOMPILE, UNSUPPORTED, OTHER = "0", "1", "2", "3"
MODELS = r"^(bert-ts17|bert-int8-dynamic|gpt2-ts17|gpt2-kv-ts17|if-loop-ts17|lfm2-ts17|llama-int4-matmulnbits|" \
         r"llama32-fp16-ts17|llama32-bf16w-ts17|qwen2-kv-dy18|t5-decoder-ts17|vit-ts17|whisper-encoder-ts17)$"
FEWER = r"^(bert-int8-dynamic|gpt2-kv-ts17|llama-int4-matmulnbits|llama32-fp16-ts17|vit-ts17)$"


def sh(*argv, code=0):
    p = subprocess.run(argv, capture_output=True, timeout=300)
    assert p.returncode == code, f"{' '.join(argv)[:300]}: exit {p.returncode}: {p.stderr.decode()[-500:]}"
    return p.stdout if not code else p.stderr.decode()


def run(runner, model, data, scratch, fit=OPTIMAL):
    argv = []
    for k, (name, a) in enumerate(tensors(data, "input")):
        path = os.path.join(scratch, f"in{k}")
        np.ascontiguousarray(a).tofile(path)
        argv += [name, str(TYPES[a.dtype.name]), str(a.ndim), *map(str, a.shape), path]
    return sh(*runner, model, fit, *argv)


def check(args, folder, entry, kind, runner):
    """One file for all of a kind; on each CPU there is code in it that nothing beats, and it gives what it should."""
    _, qemu, levels, cpus = kind
    with tempfile.TemporaryDirectory() as scratch:
        model = os.path.join(scratch, "a.forge")
        sh(args.forge, "compile", os.path.join(folder, "model.onnx"), "--cpu=" + levels, "-o", model)
        for data in sorted(glob.glob(os.path.join(folder, "test_data_set_*"))):
            for cpu in cpus:
                got = run([qemu, "-cpu", cpu, runner], model, data, scratch)
                for name, want in tensors(data, "output"):
                    n = want.nbytes
                    a, got = np.frombuffer(got[:n], want.dtype).reshape(want.shape), got[n:]
                    bad = ~np.isclose(a.astype(float), want.astype(float), entry.get("rtol", 1e-3), entry.get("atol", 1e-4),
                                      equal_nan=True)
                    assert not bad.any(), f"{cpu} {os.path.basename(data)} {name}: {bad.sum()} of {bad.size} differ"
                assert not got, f"{len(got)} bytes too many"


def extensions(args, runner, folder):
    """Weights in few bits: bytes are multiplied by other instructions, to the same sums; bf16 is rounded otherwise."""
    passes = "dce,cse,fold,fuse_attention,layout,quantize{least=16},pack{least=16},fuse_ops"
    data = os.path.join(folder, "test_data_set_0")
    with tempfile.TemporaryDirectory() as scratch:
        model = os.path.join(scratch, "a.forge")
        for precision, most in (("int8", 0), ("int4", 0), ("bf16", 2e-2)):
            want = None
            for cpu, here, words in (("aarch64", "cortex-a72", ()), ("aarch64+dotprod", "neoverse-n1", ("\tsdot",)),
                                     ("neoverse-v1", "max", ("\tusdot", "\tbfdot")), ("aarch64+sve+i8mm", "max", ("\tusdot",))):
                options = ["--precision=" + precision, "--accuracy=fast", "--passes=" + passes, "--cpu=" + cpu]
                sh(args.forge, "compile", os.path.join(folder, "model.onnx"), "-o", model, *options)
                fit = RECOMPILE if "sve" in cpu else OPTIMAL    # there is bf16 as well
                got = np.frombuffer(run([QEMU, "-cpu", here, runner], model, data, scratch, fit), np.float32)
                want = got if want is None else want
                far = np.abs(got - want).max()
                assert far <= most, f"{precision} {cpu}: {far} from what the least code gives"
                sh(args.forge, "compile", os.path.join(folder, "model.onnx"), "--emit=asm", "-o", model + ".s", *options)
                text = open(model + ".s").read()
                used = {w for w in ("\tsdot", "\tusdot", "\tbfdot") if w in text}
                assert used == {w for w in words if (w == "\tbfdot") == (precision == "bf16")}, f"{precision} {cpu}: {used}"


def fits(args, runner, folder):
    """The four answers to whether a file suits a machine."""
    data = os.path.join(folder, "test_data_set_0")
    with tempfile.TemporaryDirectory() as scratch:
        model = os.path.join(scratch, "a.forge")
        source = os.path.join(folder, "model.onnx")
        sh(args.forge, "compile", source, "-o", model, "--cpu=aarch64")
        run([QEMU, "-cpu", "cortex-a72", runner], model, data, scratch)
        run([QEMU, "-cpu", "max", runner], model, data, scratch, RECOMPILE)
        sh(args.forge, "compile", source, "-o", model, "--cpu=neoverse-v1")
        message = sh(QEMU, "-cpu", "cortex-a72", runner, model, UNSUPPORTED, code=2)
        assert "aarch64+dotprod+i8mm+bf16" in message, message
        for cpu in ("riscv64", "aarch64+avxvnni", "x86-64+dotprod", "aarch64+", "znver4+", "+", "x86_64-pc-windows-msvc"):
            message = sh(args.forge, "compile", source, "-o", model, "--cpu=" + cpu, code=1)
            assert message.count("\n") == 1 and "expected" in message, message


def both_kinds(args, runner, folder):
    """What is for the other machine is refused there, and here."""
    with tempfile.TemporaryDirectory() as scratch:
        x86, arm = os.path.join(scratch, "x.forge"), os.path.join(scratch, "a.forge")
        model = os.path.join(folder, "model.onnx")
        sh(args.forge, "compile", model, "-o", x86)
        sh(args.forge, "compile", model, "-o", arm, "--cpu=aarch64")
        first = open(arm, "rb").read()
        sh(args.forge, "compile", model, "-o", arm, "--cpu=aarch64")
        assert open(arm, "rb").read() == first, "made twice, the files differ"
        message = sh(QEMU, runner, x86, OTHER, code=2)
        assert "x86-64-v3" in message, message
        message = sh(args.forge, "run", arm, "--random=1", code=1)
        assert "aarch64" in message and message.count("\n") == 1, message
        sh(args.forge, "compile", model, "-o", arm, "--cpu=aarch64,x86-64-v3", code=1)


def linked(args, folder, scratch):
    """An object for AArch64, linked with a host for it."""
    obj = os.path.join(scratch, "bert.o")
    sh(args.forge, "compile", os.path.join(folder, "model.onnx"), "--emit=obj", "--cpu=aarch64", "-o", obj)
    host = os.path.join(scratch, "host")
    sh(CC, "-static", "-O1", "-std=gnu11", "-D_GNU_SOURCE", "-I" + ROOT, "-I" + os.path.join(ROOT, "runtime"), "-I" + scratch,
       '-DMODEL_H="bert.h"', "-DMODEL_open=bert_open", os.path.join(ROOT, "tests/emit/host.c"), obj,
       *glob.glob(os.path.join(ROOT, "runtime/*.c")), "-o", host, "-lm", "-lpthread")
    assert len(sh(QEMU, host)) > 1000, "no outputs"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("forge")
    p.add_argument("models")
    p.add_argument("--filter", default=MODELS)
    p.add_argument("--jobs", type=int, default=1)
    args = p.parse_args()
    missing = [x for x in (QEMU, CC, X86[1], X86[0][0]) if not shutil.which(x)]
    if missing:
        print(f"not run: {' and '.join(missing)} missing (tools/setup.sh test)\n1 passed, 0 failed")
        return 0
    with open(os.path.join(args.models, "index.json")) as f:
        index = {e["name"]: e for e in json.load(f)}
    folders = [os.path.dirname(m) for m in sorted(glob.glob(os.path.join(args.models, "*", "model.onnx")))
               if re.search(args.filter, os.path.basename(os.path.dirname(m)))]
    bert = os.path.join(args.models, "bert-ts17")
    with tempfile.TemporaryDirectory() as scratch:
        runner, lower = (os.path.join(scratch, n) for n in ("raw", "lower"))
        for kind, out in ((ARM, runner), (X86, lower)):
            sh(*kind[0], "-static", "-O1", "-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror",
               "-Wno-missing-field-initializers", "-I" + ROOT, os.path.join(ROOT, "tests/emit/raw.c"),
               *glob.glob(os.path.join(ROOT, "runtime/*.c")), "-o", out, "-lm", "-lpthread")
        fewer = [f for f in folders if re.search(FEWER, os.path.basename(f))]
        tests = [lambda f=f: check(args, f, index.get(os.path.basename(f), {}), ARM, runner) for f in folders]
        tests += [lambda f=f: check(args, f, index.get(os.path.basename(f), {}), X86, lower) for f in fewer]
        tests += [lambda: both_kinds(args, runner, bert), lambda: linked(args, bert, scratch),
                  lambda: extensions(args, runner, bert), lambda: fits(args, runner, bert)]
        names = [os.path.basename(f) for f in folders] + ["x86-64 " + os.path.basename(f) for f in fewer]
        names += ["both kinds", "linked", "extensions", "fits"]

        def one(k):
            try:
                tests[k]()
            except Exception as e:
                return f"{names[k]}: {type(e).__name__}: {e}"

        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            bad = [b for b in pool.map(one, range(len(tests))) if b]
    for line in bad:
        print(line)
    print(f"{len(tests) - len(bad)} passed, {len(bad)} failed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
