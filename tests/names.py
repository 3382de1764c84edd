#!/usr/bin/env python3
"""Generated code has names: in the file that perf reads, in perf report, in gdb's backtraces.

    names.py build/forge tests/models

Without perf or gdb, or where the system allows no counters, what they say is left out, and this says so.
"""
import os, shutil, subprocess, sys

from checks import each

GDB = """set pagination off
set debuginfod enabled off
handle SIGSTOP nostop noprint pass
handle SIGCONT nostop noprint pass
tbreak forge_execute
run
rbreak ^[a-z_]*attention /m
continue
stepi 300
bt
"""


class Place:
    def __init__(self, forge, models, root):
        self.forge, self.root = os.path.abspath(forge), root
        self.model = os.path.join(models, "gpt2-ts17", "model.onnx")
        self.artifact = os.path.join(root, "g.forge")
        subprocess.run([self.forge, "compile", self.model, "-o", self.artifact], check=True)

    def argv(self, model, verb="run", *more):
        return [self.forge, verb, model, "--random=1", "--threads=1", *more] if verb == "run" else \
            [self.forge, verb, model, "--threads=1", *more]


def named(p):
    """Of models compiled here, from the cache, and loaded: a line for each function, and none unless asked."""
    for model, more in ((p.model, ["--cache-dir=none"]), (p.model, ["--cache-dir=" + p.root]),
                        (p.model, ["--cache-dir=" + p.root]), (p.artifact, [])):
        for names in (None, "gdb", "perf", "gdb,perf"):
            env = {k: v for k, v in os.environ.items() if k != "FORGE_CODE_NAMES"}
            run = subprocess.Popen(p.argv(model, "run", *more), env=env if names is None else dict(env, FORGE_CODE_NAMES=names),
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            out, err = run.communicate(timeout=120)
            assert run.returncode == 0 and not err, err
            path = f"/tmp/perf-{run.pid}.map"
            assert os.path.exists(path) == ("perf" in (names or "")), f"{names}: {path}"
            if not os.path.exists(path):
                continue
            with open(path) as f:
                lines = [line.rstrip("\n").split(" ", 2) for line in f]
            os.unlink(path)
            spans = sorted((int(at, 16), int(at, 16) + int(size, 16)) for at, size, _ in lines)
            assert all(a < b for a, b in spans) and all(s[1] <= t[0] for s, t in zip(spans, spans[1:])), "functions overlap"
            found = [name for _, _, name in lines]
            assert any("attention /m/transformer/h.0/attn/" in n and n.endswith(" +1") for n in found), found


def perf(p):
    data = os.path.join(p.root, "perf.data")
    if not shutil.which("perf"):
        return print("perf is not there")
    run = subprocess.run(["perf", "record", "-q", "-e", "cpu-clock:u", "-F", "5000", "-o", data,
                          *p.argv(p.artifact, "bench", "--iterations=3000")], env=dict(os.environ, FORGE_CODE_NAMES="perf"),
                         capture_output=True, timeout=120)
    if run.returncode:
        return print("perf may not count here:", run.stderr.decode().strip()[:100])
    report = subprocess.run(["perf", "report", "--stdio", "-i", data], capture_output=True, text=True, timeout=120).stdout
    assert "/m/transformer/h.0/" in report, report[:2000]


def gdb(p):
    if not shutil.which("gdb"):
        return print("gdb is not there")
    script = os.path.join(p.root, "script")
    with open(script, "w") as f:
        f.write(GDB)
    for model in (p.model, p.artifact):
        said = subprocess.run(["gdb", "-q", "-batch", "-x", script, "--args", *p.argv(model, "run", "--cache-dir=none")],
                              env=dict(os.environ, FORGE_CODE_NAMES="gdb"), capture_output=True, text=True, timeout=120)
        trace = said.stdout[said.stdout.rfind("#0 "):].split("\n")
        if "forge helper" in trace[0]:      # what several kernels call
            trace = trace[1:]
        assert "attention /m/transformer/h.0/attn" in trace[0], said.stdout[-2000:] + said.stderr[-500:]
        assert "fg_kernel_run" in trace[1] and any(" main " in line or "cmd_run" in line for line in trace), trace


def main():
    forge, models = sys.argv[1:3]
    wanted = sys.argv[3:]
    return each([t for t in (named, perf, gdb) if not wanted or t.__name__ in wanted],
                lambda root: Place(forge, models, root))


if __name__ == "__main__":
    sys.exit(main())
