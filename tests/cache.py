#!/usr/bin/env python3
"""The cache of compiled models: hit when nothing changed, never when something did, repaired when damaged, shared
by processes, bounded, and never in the way.

    cache.py build/forge tests/models
"""
import json, os, random, resource, shutil, signal, subprocess, sys, time

from checks import each


class Setting:
    """A model of its own and an empty cache."""

    def __init__(self, forge, models, scratch):
        self.forge, self.folder = forge, scratch
        self.model, self.cache = os.path.join(scratch, "model", "model.onnx"), os.path.join(scratch, "cache")
        shutil.copytree(os.path.join(models, "bert-ts17"), os.path.dirname(self.model))
        time.sleep(0.05)        # what was written this instant is not kept

    def start(self, *more, model=None, **how):
        argv = [self.forge, "run", model or self.model, "--random=1", "--json", "--cache-dir=" + self.cache, *more]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how)

    def run(self, *more, code=0, lines=0, **how):
        p = self.start(*more, **how)
        out, err = p.communicate(timeout=120)
        assert p.returncode == code, f"exit {p.returncode}, expected {code}: {err}"
        assert err.count("\n") == lines, f"{lines} lines of message expected: {err!r}"
        return [o["digest"] for o in json.loads(out)["outputs"]] if code == 0 else err

    def hit(self, *more):
        return self.run("--no-compile", *more)

    def miss(self, *more, lines=1, **how):
        return self.run("--no-compile", *more, code=1, lines=lines, **how)

    def entries(self):
        return sorted(os.listdir(self.cache))


def hits(s):
    s.miss()
    want = s.run("--cache-dir=none")
    assert not os.path.exists(s.cache)
    assert s.run() == want and s.hit() == want, "other bits from the cache"
    for other in ("-O0", "--dim=batch=1", "--variants=batch=1", "--alpha=0", "--skip=cse", "--cpu=x86-64-v3"):
        s.miss(other)
    s.run("-O0")
    assert len(s.entries()) == 2
    s.run("--check=1")
    assert len(s.entries()) == 2, "a checked compilation is not kept"


def changes(s):
    """Other bytes, the same length and the same time."""
    s.run()
    before, times = s.hit(), os.stat(s.model)
    with open(s.model, "r+b") as f:
        data = f.read()
        at = max(range(0, len(data) - 4000, 1000), key=lambda k: len(set(data[k:k + 1000])))
        f.seek(at)
        f.write(bytes(b ^ 1 if k % 4 == 1 else b for k, b in enumerate(data[at:at + 1000])))
    os.utime(s.model, ns=(times.st_atime_ns, times.st_mtime_ns))
    s.miss()
    assert s.run() != before, "the changed weights change the result"


def external(s):
    """A file too large to be read whole is known by its times."""
    import onnx
    m = onnx.load(s.model)
    m.graph.initializer.append(onnx.numpy_helper.from_array(__import__("numpy").zeros(6 << 20, "float32"), "padding"))
    out = m.graph.output.add()
    out.CopyFrom(onnx.helper.make_tensor_value_info("pad", 1, [1]))
    m.graph.initializer.append(onnx.numpy_helper.from_array(__import__("numpy").array([5], "int64"), "place"))
    m.graph.node.append(onnx.helper.make_node("Gather", ["padding", "place"], ["pad"]))
    onnx.save(m, s.model, save_as_external_data=True, location="model.data", size_threshold=1 << 20)
    data = os.path.join(os.path.dirname(s.model), "model.data")
    time.sleep(0.05)
    s.run()
    before, times = s.hit(), os.stat(data)
    with open(data, "r+b") as f:
        f.seek(20)
        f.write(b"\0\0\x80\x3f")
    os.utime(data, ns=(times.st_atime_ns, times.st_mtime_ns))
    s.miss()
    time.sleep(0.05)
    assert s.run() != before and s.hit() != before, "weights that changed are used"
    os.remove(data)
    s.run(code=1, lines=1)


def damage(s):
    want = s.run()
    entry, rng = os.path.join(s.cache, s.entries()[0]), random.Random(3)
    for k in range(10):
        with open(entry, "rb") as f:
            data = bytearray(f.read())
        if k % 2:
            data = data[:rng.randrange(len(data))]
        else:
            data[rng.randrange(96, 200)] ^= 16
        with open(entry, "wb") as f:
            f.write(data)
        s.miss()
        assert s.run() == want and s.hit() == want, "a damaged entry is compiled again"


def together(s):
    want = s.run("--cache-dir=none")
    several = [s.start() for _ in range(8)]
    for p in several:
        out, err = p.communicate(timeout=120)
        assert p.returncode == 0 and not err and [o["digest"] for o in json.loads(out)["outputs"]] == want, err
    assert len(s.entries()) == 1, s.entries()


def crowded(s):
    """Eight processes, each with a key of its own, in a folder that is over its bound whenever one is kept."""
    options = [("-O0", f"--alpha={k / 8}") for k in range(8)]
    want = s.run("-O0", "--cache-dir=none")
    os.mkdir(s.cache)
    for turn in range(3):
        for k in range(4):
            with open(os.path.join(s.cache, f"{k:032x}.forge"), "wb") as f:
                f.truncate(600 << 20)
            os.utime(f.name, (time.time() - 1000 + k,) * 2)
        several = [s.start(*o) for o in options]
        for p in several:
            out, err = p.communicate(timeout=300)
            assert p.returncode == 0 and not err and [o["digest"] for o in json.loads(out)["outputs"]] == want, err
        for o in options:
            assert s.hit(*o) == want
            os.remove(os.path.join(s.cache, max(s.entries(), key=lambda n: os.stat(os.path.join(s.cache, n)).st_mtime)))
        assert sum(os.stat(os.path.join(s.cache, n)).st_size for n in s.entries()) <= 2 << 30


def killed(s):
    """Killed at any moment, what is there under the name of an entry is whole."""
    rng, begin = random.Random(4), time.time()
    want = s.run()
    span, found = time.time() - begin, 0
    for _ in range(50):
        shutil.rmtree(s.cache)
        p = s.start()
        time.sleep(rng.random() * span)
        p.send_signal(signal.SIGKILL)
        p.communicate()
        if os.path.isdir(s.cache) and any(n.endswith(".forge") for n in s.entries()):
            found += 1
            assert s.hit() == want, "a half entry"
        assert s.run() == want and s.hit() == want
    assert found < 50, "nothing was killed"


def full(s):
    """A file system without room: one line, the same bits, and nothing half is left."""
    def limited():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    want = s.run("--cache-dir=none")
    assert s.run(lines=1, preexec_fn=limited, restore_signals=False) == want
    assert not s.entries()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "forge", s.cache], capture_output=True).returncode:
        print("a file system of 16 KiB left out: mounting one is not allowed here")
        return
    try:
        assert s.run(lines=1) == want and not s.entries()
    finally:
        subprocess.run(["umount", s.cache], check=True)
    assert s.run() == want and s.hit() == want


def unreadable(s):
    """Rights that stand in the way are met by a user who has no others."""
    want = s.run()
    os.chmod(s.folder, 0o755)
    other = dict(user=65534, group=65534, extra_groups=[]) if os.getuid() == 0 else {}
    try:
        subprocess.run([s.forge, "--version"], capture_output=True, check=True, **other)
    except (OSError, subprocess.CalledProcessError):
        print("a folder without rights left out: no other user can run", s.forge)
        return
    for mode in (0o000, 0o444, 0o555):
        os.chmod(s.cache, mode)
        assert s.run(lines=1, **other) == want
    os.chmod(s.cache, 0o755)
    for name in s.entries():
        os.chmod(os.path.join(s.cache, name), 0)
    if other:
        os.chown(s.cache, 65534, 65534)
    assert s.run(**other) == want, "an entry that cannot be read is made anew"
    if other:
        os.chown(s.cache, 0, 0)


def trusted(s):
    """What is in the folder is run, so nobody else may have put it there."""
    want = s.run()
    entry = os.path.join(s.cache, s.entries()[0])
    assert os.stat(entry).st_mode & 0o777 == 0o600
    for mode in (0o777, 0o775, 0o1777):
        os.chmod(s.cache, mode)
        s.miss(lines=2)
        assert s.run(lines=1) == want
    os.chmod(s.cache, 0o700)
    s.hit()
    linked = os.path.join(s.folder, "linked")
    os.symlink(s.cache, linked)
    s.hit("--cache-dir=" + linked)
    os.chmod(entry, 0o666)
    s.miss()
    assert s.run() == want and s.hit() == want, "an entry that others may write to is made anew"
    away = os.path.join(s.folder, "away.forge")
    os.rename(entry, away)
    os.symlink(away, entry)
    s.miss()
    assert s.run() == want and s.hit() == want and not os.path.islink(entry)
    if os.getuid() == 0:
        os.chown(entry, 65534, 65534)
        s.miss()
        assert s.run() == want and s.hit() == want, "an entry of another user is made anew"
        os.chown(s.cache, 65534, 65534)
        assert "owns it" in s.miss(lines=2)
        assert s.run(lines=1) == want
        os.chown(s.cache, 0, 0)


def bounded(s):
    os.mkdir(s.cache)
    for k in range(3):
        path = os.path.join(s.cache, f"{k:032x}.forge")
        with open(path, "wb") as f:
            f.truncate(1200 << 20)
        os.utime(path, (time.time() - 1000 + k,) * 2)
    other = "mine.forge"
    for name in (f"{3:032x}.forge.1.0.tmp", other):
        open(os.path.join(s.cache, name), "wb").close()
        os.utime(os.path.join(s.cache, name), (0, 0))
    s.run()
    kept = s.entries()
    assert f"{2:032x}.forge" in kept and other in kept and len(kept) == 3, kept
    s.hit()


def unusable(s):
    want = s.run("--cache-dir=none")
    for bad in ("/proc/nowhere", s.model, "/dev/null/x"):
        assert s.run("--cache-dir=" + bad, lines=1) == want
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME")}
    p = subprocess.run([s.forge, "run", s.model, "--random=1"], env=environment, capture_output=True, text=True)
    assert p.returncode == 0 and not p.stderr, p.stderr


def main():
    tests = (hits, changes, external, damage, together, crowded, killed, full, unreadable, trusted, bounded,
             unusable)
    return each(tests, lambda scratch: Setting(os.path.abspath(sys.argv[1]), sys.argv[2], scratch))


if __name__ == "__main__":
    sys.exit(main())
