#!/usr/bin/env python3
"""What forge compile --emit makes: text that the LLVM tools take, objects and libraries that run.

    emit.py build tests/models
"""
import os, random, re, shutil, signal, subprocess, sys, tempfile, time

from checks import each

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)


def sh(*argv, code=0, text=True, **more):
    p = subprocess.run(argv, capture_output=True, text=text, timeout=300, **more)
    assert p.returncode == code, f"{' '.join(argv)}: exit {p.returncode}: {p.stdout[-500:]}{p.stderr[-500:]}"
    return p.stdout if code == 0 else p.stderr


class Place:
    """A folder to work in, the forge command and the runtime."""
    def __init__(self, build, models, root):
        self.build, self.models, self.root = os.path.abspath(build), os.path.abspath(models), root
        self.forge = os.path.join(self.build, "forge")
        self.rt = os.path.join(self.build, "libforge_rt.a")

    def at(self, name):
        return os.path.join(self.root, name)

    def compile(self, model, out, *options, code=0, **more):
        return sh(self.forge, "compile", os.path.join(self.models, model, "model.onnx"), "-o", self.at(out), *options,
                  code=code, **more)

    def host(self, name, *more, cc="gcc"):
        out = self.at(name)
        sh(cc, "-O1", "-Wall", "-Wextra", "-Werror", "-I" + os.path.join(ROOT, "runtime"), "-I" + self.root,
           os.path.join(HERE, "emit", "host.c"), *more, "-o", out)
        return out


def want(p):
    """The bytes that the model gives when it is loaded from its file."""
    p.compile("bert-ts17", "plain.forge")
    with open(p.at("by_file.h"), "w") as f:
        f.write("#define MODEL_open by_file\n"
                "static forge_status by_file(forge_ctx *cx, const forge_load_options *o, forge_model **out)\n"
                f'{{ return forge_load_file(cx, "{p.at("plain.forge")}", o, out); }}\n')
    host = p.host("by_file", '-DMODEL_H="by_file.h"', p.rt, "-lm", "-lpthread")
    return sh(host, text=False)


def texts(p):
    p.compile("gpt2-ts17", "k.ll", "--emit=ll", "--cpu=x86-64-v3")
    p.compile("gpt2-ts17", "k.s", "--emit=asm", "--cpu=x86-64-v4")
    sh("clang-19", "-c", p.at("k.ll"), "-o", p.at("kll.o"))
    sh("clang-19", "-c", p.at("k.s"), "-o", p.at("ks.o"))
    for o in ("kll.o", "ks.o"):
        assert re.search(r" T fg_k0$", sh("nm", p.at(o)), re.M), f"{o} has no kernels"
    with open(p.at("k.s")) as f:
        assert "zmm" in f.read(), "--cpu does not reach the text"
    p.compile("gpt2-ts17", "k.ll", "--emit=ll", "--cpu=x86-64-v3,native", code=2)
    p.compile("gpt2-ts17", "k.ll", "--emit=exe", code=2)


def objects(p):
    p.compile("bert-ts17", "bert-a.o", "--emit=obj")
    first = open(p.at("bert-a.o"), "rb").read()
    p.compile("bert-ts17", "bert-a.o", "--emit=obj")
    assert open(p.at("bert-a.o"), "rb").read() == first, "made twice, the objects differ"
    expected = want(p)
    for cc in ("gcc", "clang-19"):
        host = p.host("linked", '-DMODEL_H="bert_a.h"', "-DMODEL_open=bert_a_open", p.at("bert-a.o"), p.rt, "-lm",
                      "-lpthread", cc=cc)
        assert sh(host, text=False) == expected, "other bytes than from the .forge file"
    undefined = sh("nm", "-u", p.at("bert-a.o")).split()
    assert undefined == ["U", "forge_load_memory"], undefined
    p.compile("bert-ts17", "x.o", "--emit=obj", "--symbol=a b", code=2)


def libraries(p):
    p.compile("bert-ts17", "libbert.so", "--emit=lib")
    host = p.host("opener", "-rdynamic", "-Wl,--whole-archive", p.rt, "-Wl,--no-whole-archive", "-lm", "-lpthread")
    assert sh(host, p.at("libbert.so"), "bert_open", text=False) == want(p), "other bytes than from the .forge file"
    assert "libbert.so" in sh("readelf", "-d", p.at("libbert.so")), "soname"
    exported = sh("nm", "-D", "--defined-only", p.at("libbert.so")).split()
    assert exported[2::3] == ["bert_open"], exported
    p.compile("bert-ts17", "libown.so", "--emit=lib", "--symbol=mine", env=dict(os.environ, CC="clang-19"))
    assert os.path.exists(p.at("mine.h"))


def failures(p):
    """No compiler, no such folder: one line, and nothing left behind."""
    before = sorted(os.listdir(p.root))
    empty = tempfile.mkdtemp(dir=p.root)
    message = p.compile("bert-ts17", "libx.so", "--emit=lib", code=1,
                        env={k: v for k, v in dict(os.environ, PATH=empty).items() if k != "CC"})
    os.rmdir(empty)
    assert "no C compiler" in message and message.count("\n") == 1, message
    for kind in ("obj", "lib", "ll", "asm"):
        message = p.compile("bert-ts17", "none/x", "--emit=" + kind, code=1)
        assert message.count("\n") == 1, message
    assert sorted(os.listdir(p.root)) == before, "something was left behind"


def killed(p):
    """Killed at any moment, the result is whole or not there, and the next run clears away what was left."""
    model, rng = os.path.join(p.models, "bert-ts17", "model.onnx"), random.Random(5)
    for kind, name in (("obj", "k.o"), ("lib", "libk.so")):
        out = p.at(name)
        begin = time.time()
        p.compile("bert-ts17", name, "--emit=" + kind)
        span, want = time.time() - begin, open(out, "rb").read()
        clean = sorted(os.listdir(p.root))
        for _ in range(12):
            os.unlink(out)
            run = subprocess.Popen([p.forge, "compile", model, "--emit=" + kind, "-o", out], start_new_session=True)
            time.sleep(rng.random() * span)
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
            assert not os.path.exists(out) or open(out, "rb").read() == want, "half a file"
            p.compile("bert-ts17", name, "--emit=" + kind)
            assert open(out, "rb").read() == want and sorted(os.listdir(p.root)) == clean, "something is left behind"
        gone = subprocess.Popen(["true"])
        gone.wait()
        theirs = [p.at(f"{name}.{gone.pid}{end}") for end in (".forge", ".o", ".so", ".forge.12.3.tmp")]
        ours = [p.at(f"{name}.{os.getpid()}.o"), p.at(f"{name}.x.o"), p.at(f"{name}.{gone.pid}.txt")]
        for path in theirs + ours:
            open(path, "w").close()
        p.compile("bert-ts17", name, "--emit=" + kind)
        assert [os.path.exists(path) for path in theirs + ours] == [False] * len(theirs) + [True] * len(ours), "what a killed run left"
        for path in ours:
            os.unlink(path)


def main():
    build, models = sys.argv[1:3]
    wanted = sys.argv[3:]
    tests = [t for t in (texts, objects, libraries, failures, killed) if not wanted or t.__name__ in wanted]
    return each(tests, lambda root: Place(build, models, root))


if __name__ == "__main__":
    sys.exit(main())
