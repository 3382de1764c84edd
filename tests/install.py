#!/usr/bin/env python3
"""The installed package, as a host program meets it: `meson install` into an empty folder, then only what is there.

    install.py build tests/models
"""
import os, re, shutil, subprocess, sys, tempfile

from checks import each

HERE = os.path.dirname(os.path.abspath(__file__))


def sh(*argv, code=0, **more):
    p = subprocess.run(argv, capture_output=True, text=True, timeout=300, **more)
    assert p.returncode == code, f"{' '.join(argv)}: exit {p.returncode}: {p.stdout[-500:]}{p.stderr[-500:]}"
    return p.stdout


class Package:
    def __init__(self, build, models, root):
        sh("meson", "install", "-C", build, "--no-rebuild", "--destdir", root)
        pc = sh("find", root, "-name", "forge_rt.pc").strip()
        assert pc, "no forge_rt.pc"
        self.root, self.lib = root, os.path.dirname(os.path.dirname(pc))
        self.env = dict(os.environ, PKG_CONFIG_PATH=os.path.dirname(pc), PKG_CONFIG_SYSROOT_DIR=root,
                        LD_LIBRARY_PATH=self.lib)
        self.forge = sh("find", root, "-name", "forge", "-type", "f").split()[0]
        self.model = os.path.join(root, "bert.forge")
        sh(self.forge, "compile", os.path.join(models, "bert-ts17", "model.onnx"), "-o", self.model)

    def flags(self, *more):
        return sh("pkg-config", "--cflags", "--libs", *more, env=self.env).split()

    def build(self, compiler, source, out, *more):
        out = os.path.join(self.root, out)
        sh(*compiler.split(), source, *more, "-o", out, env=self.env)
        return out


def files(p):
    for name in ("forge.h", "libforge.so.0", "libforge_rt.so.0", "libforge_rt.a", "forge.pc", "forge_rt.pc", "forge.1",
                 "forge.h.3"):
        found = sh("find", p.root, "-name", name + "*").strip()
        assert found, f"{name} is not installed"


def libraries(p):
    for name in ("libforge_rt.so.0", "libforge.so.0"):
        path = os.path.join(p.lib, name)
        symbols = sh("nm", "-D", "--defined-only", path).split("\n")
        other = [s for s in symbols if s and not re.match(r".* forge_\w+$", s)]
        assert not other, f"{name} exports {other[:5]}"
        assert f"[{name}]" in sh("readelf", "-d", path), "soname"
    rt = os.path.join(p.lib, "libforge_rt.so.0")
    needed = re.findall(r"NEEDED.*\[(.*?)\]", sh("readelf", "-d", rt))
    assert all(re.match(r"(libc|libm|libpthread|ld-linux.*)\.so", n) for n in needed), needed
    small = os.path.join(p.root, "stripped")
    sh("strip", "-o", small, rt)
    assert os.path.getsize(small) < 200 << 10, f"{os.path.getsize(small)} bytes"


def example(p):
    source = os.path.join(HERE, "..", "examples", "run_artifact.c")
    for how, flags in (("shared", p.flags("forge_rt")),
                       ("static", [os.path.join(p.lib, "libforge_rt.a"), "-lm", "-pthread", *p.flags("--cflags-only-I", "forge_rt")])):
        run = p.build("cc -Wall -Wextra -Werror", source, "example-" + how, *flags)
        assert "last_hidden_state begins with" in sh(run, p.model, env=p.env)
    sh(run, os.path.join(p.root, "none.forge"), code=4, env=p.env)


def hosts(p):
    """C and C++, linked and through dlopen, 8 threads at once, all with the same bits."""
    source, flags, seen = os.path.join(HERE, "install", "host.c"), p.flags("forge_rt"), set()
    for compiler in ("cc -std=gnu11 -Wall -Wextra -Werror", "c++ -x c++ -Wall -Wextra -Werror"):
        if not shutil.which(compiler.split()[0]):
            continue
        run = p.build(compiler + " -DLINKED", source, "host", "-x", "none", *flags, "-pthread")
        seen.add(sh(run, p.model, "8", "100", env=p.env))
    flags = p.flags("--cflags-only-I", "forge_rt")
    run = p.build("cc -std=gnu11", source, "host-dl", *flags, "-ldl", "-pthread")
    assert not re.search("forge|LLVM", sh("ldd", run))
    for library in ("libforge_rt.so.0", "libforge.so.0"):
        seen.add(sh(run, p.model, "3", "20", os.path.join(p.lib, library), env=p.env))
    assert len(seen) == 1 and seen.pop().startswith("ok "), seen


def valgrind(p):
    """A host with threads, and models of other kinds: none branches on memory that nobody wrote."""
    if not shutil.which("valgrind"):
        return print("valgrind is not there")
    watched = "valgrind", "-q", "--error-exitcode=9", "--leak-check=full", "--fair-sched=yes"
    run = p.build("cc -std=gnu11 -g -DLINKED", os.path.join(HERE, "install", "host.c"), "host-v", *p.flags("forge_rt"), "-pthread")
    model = os.path.join(p.root, "v3.forge")        # valgrind knows AVX2, not AVX-512
    for name in ("bert-ts17", "gpt2-kv-ts17", "lfm2-kv-ts17", "llama-int4-matmulnbits", "vit-ts17", "if-loop-ts17"):
        folder = os.path.join(HERE, "models", name)
        sh(p.forge, "compile", os.path.join(folder, "model.onnx"), "-o", model, "--cpu=x86-64-v3")
        host = [run, model, "3", "3"] if name == "bert-ts17" else \
            [p.forge, "run", model, "--test-data=" + os.path.join(folder, "test_data_set_0")]
        sh(*watched, *host, env=p.env)


def shared_pages(p):
    """Weights are pages of the file: a second process that reads them takes hardly any memory of its own."""
    run = p.build("cc -std=gnu11 -DLINKED", os.path.join(HERE, "install", "host.c"), "host-s", *p.flags("forge_rt"), "-pthread")
    gdb = subprocess.Popen([run, p.model, "1", "3000"], env=p.env, stdout=subprocess.PIPE)
    private = -1
    try:
        for _ in range(200):
            with open(f"/proc/{gdb.pid}/smaps") as f:
                text = f.read()
            parts = [t for t in re.split(r"(?m)^(?=[0-9a-f]+-)", text) if t.startswith(tuple("0123456789abcdef")) and "bert.forge" in t]
            if parts and re.search(r"(?m)^Rss: +[1-9]", parts[0]):
                private = sum(int(n) for t in parts for n in re.findall(r"(?m)^Private_Dirty: +(\d+)", t))
                break
    finally:
        gdb.communicate()
    assert private == 0, f"{private} KiB of the mapped file are private to the process"


def main():
    build, models = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    with tempfile.TemporaryDirectory() as root:
        p = Package(build, models, root)
        return each((files, libraries, example, hosts, valgrind, shared_pages), lambda _: p)


if __name__ == "__main__":
    sys.exit(main())
