#!/usr/bin/env python3
"""Models compiled to .forge files: same bits as compiled in memory, same bytes twice, and no harm from files
that are cut off, changed, or half written.

    artifact.py build/forge tests/models [--jobs N] [--filter REGEX]
"""
import argparse, concurrent.futures, glob, json, os, random, re, resource, shutil, signal, subprocess, sys, tempfile, time


def forge(args, *argv, code=0, **more):
    p = subprocess.run([args.forge, *argv], capture_output=True, text=True, timeout=300, **more)
    if p.returncode != code:
        raise AssertionError(f"forge {' '.join(argv)}: exit {p.returncode}, expected {code}: {p.stderr.strip()}")
    if code and (p.stderr.count("\n") != 1 or not p.stderr.startswith("forge: ")):
        raise AssertionError(f"forge {' '.join(argv)}: not one line of message: {p.stderr!r}")
    return p.stdout if code == 0 else p.stderr


def digests(args, model, data, *options):
    out = json.loads(forge(args, "run", model, "--json", "--test-data=" + data, *options))
    return [o["digest"] for o in out["outputs"]]


def content(path):
    with open(path, "rb") as f:
        return f.read()


def same_bits(args, folder, scratch):
    """In memory, from a file, and from a file that borrows the model's weights."""
    model = os.path.join(folder, "model.onnx")
    out, again = (os.path.join(scratch, n) for n in ("a.forge", "b.forge"))
    forge(args, "compile", model, "-o", out, "--cpu=native")
    forge(args, "compile", model, "-o", again, "--cpu=native")
    assert content(out) == content(again), "compiled twice, the files differ"
    for data in sorted(glob.glob(os.path.join(folder, "test_data_set_*"))):
        loose = ["--atol=1e30", "--rtol=1e30"]      # within the tolerance or not is models.py's question
        want = digests(args, model, data, *loose, "--threads=2")
        assert digests(args, out, data, *loose, "--threads=1") == want, "other bits than compiled in memory"


def check_model(args, folder):
    with tempfile.TemporaryDirectory() as scratch:
        try:
            same_bits(args, folder, scratch)
        except AssertionError as e:
            return [f"{os.path.basename(folder)}: {e}"]
    return []


# ---- files that are not as they were written -----------------------------------------------------------------

def damaged(args, folder, scratch):
    model, path, bad = os.path.join(folder, "model.onnx"), *(os.path.join(scratch, n) for n in ("a.forge", "bad.forge"))
    forge(args, "compile", model, "-o", path)
    good, rng = content(path), random.Random(1)
    sections = good.find(b'"kernels"')
    for k in range(60):
        data = bytearray(good)
        if k % 2:
            data = data[:rng.randrange(len(data))]
        else:
            data[rng.choice([rng.randrange(40), rng.randrange(96, sections)])] ^= 1 << rng.randrange(8)
        if k % 2 == 0 and bytes(data) == good:
            continue
        with open(bad, "wb") as f:
            f.write(data)
        p = subprocess.run([args.forge, "run", bad, "--random=1"], capture_output=True, text=True, timeout=60)
        # Padding between sections says nothing, so a flip there does no harm.
        assert p.returncode == 1 and p.stderr.count("\n") == 1 or p.returncode == 0 and k % 2 == 0, \
            f"damage {k}: exit {p.returncode}: {p.stderr!r}"
    forge(args, "run", model.replace(".onnx", ".forge"), code=1)
    forge(args, "check", path)
    with open(bad, "wb") as f:
        f.write(good[:-1] + bytes([good[-1] ^ 1]))      # a weight: nobody reads all of them just to run
    assert "weight" in forge(args, "check", bad, code=1)


def borrowed(args, folder, scratch):
    """Weights that stay in the model's own files."""
    for name in os.listdir(folder):
        if os.path.isfile(os.path.join(folder, name)):
            shutil.copy(os.path.join(folder, name), scratch)
    model, out = os.path.join(scratch, "model.onnx"), os.path.join(scratch, "a.forge")
    data = os.path.join(folder, "test_data_set_0")
    forge(args, "compile", model, "-o", out, "--cpu=native", "--weights=model")
    assert digests(args, out, data) == digests(args, model, data), "other bits with borrowed weights"
    with open(model, "ab") as f:
        f.write(b"\0")
    assert "changed" in forge(args, "run", out, "--random=1", code=1)
    os.remove(model)
    assert "model.onnx" in forge(args, "run", out, "--random=1", code=1)
    forge(args, "compile", os.path.join(folder, "model.onnx"), "-o", out, "--weights=model", code=1)


def shared(args, folder, scratch):
    """Weights in files that two artifacts share: written once, looked after, and missed when they are gone."""
    model, data = os.path.join(folder, "model.onnx"), os.path.join(folder, "test_data_set_0")
    one, two, store = (os.path.join(scratch, n) for n in ("a.forge", "b.forge", "w"))
    forge(args, "compile", model, "-o", one, "--cpu=native", f"--weights={store}/")
    files = {n: content(os.path.join(store, n)) for n in os.listdir(store)}
    forge(args, "compile", model, "-o", two, "--cpu=native", "--dim=batch=1..8", f"--weights={store}/")
    assert files and {n: content(os.path.join(store, n)) for n in os.listdir(store)} == files, "weights are not shared"
    assert f"{len(files)}, {sum(map(len, files.values()))} bytes, in w/" in forge(args, "dump", one)
    want = digests(args, model, data)
    assert digests(args, one, data) == want and digests(args, two, data) == want, "other bits with shared weights"
    victim = os.path.join(store, sorted(files)[0])
    with open(victim, "r+b") as f:
        f.write(b"\1\2\3\4")
    assert "weight" in forge(args, "check", one, code=1)
    forge(args, "compile", model, "-o", two, "--cpu=native", f"--weights={store}/")
    assert content(victim) == files[os.path.basename(victim)], "a damaged weight was kept"
    forge(args, "check", one)
    os.remove(victim)
    assert os.path.basename(victim) in forge(args, "run", one, "--random=1", code=1)
    os.mkdir(os.path.join(scratch, "other"))
    assert "below" in forge(args, "compile", model, "-o", os.path.join(scratch, "other", "c.forge"), f"--weights={store}/", code=1)
    forge(args, "compile", model, "-o", two, f"--weights={store}", code=2)
    forge(args, "compile", model, "-o", two + ".so", "--emit=lib", f"--weights={store}/", code=2)
    assert "none/w" in forge(args, "compile", model, "-o", two, f"--weights={scratch}/none/w/", code=1)


def atomic(args, folder, scratch):
    """Killed at any moment, there is a whole file of that name or none, and nothing else; a full disk is one line."""
    model, out = os.path.join(folder, "model.onnx"), os.path.join(scratch, "a.forge")
    start = time.time()
    forge(args, "compile", model, "-o", out)
    span, rng = time.time() - start, random.Random(2)
    want = content(out)
    for k in range(50):
        if k % 2:
            os.remove(out) if os.path.exists(out) else None
        p = subprocess.Popen([args.forge, "compile", model, "-o", out], stderr=subprocess.DEVNULL)
        time.sleep(rng.random() * span)
        p.send_signal(signal.SIGKILL)
        p.wait()
        assert not os.path.exists(out) or content(out) == want, "a half file after being killed"
        left = [n for n in os.listdir(scratch) if n != "a.forge"]
        assert all(content(os.path.join(scratch, n)) == want for n in left), f"left behind: {left}"
    message = forge(args, "compile", model, "-o", "/dev/full/x.forge", code=1)
    assert "/dev/full" in message, message
    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    before = sorted(os.listdir(scratch))
    message = forge(args, "compile", model, "-o", os.path.join(scratch, "big.forge"), code=1, preexec_fn=limited)
    assert "big.forge" in message and sorted(os.listdir(scratch)) == before, message


def choices(args, folder, scratch):
    """Several variants in one file; a file for a machine that this is not."""
    model, out = os.path.join(folder, "model.onnx"), os.path.join(scratch, "a.forge")
    data = os.path.join(folder, "test_data_set_0")
    forge(args, "compile", model, "-o", out, "--cpu=x86-64-v2,x86-64-v3,x86-64-v4")
    forge(args, "run", out, "--test-data=" + data)
    assert "x86-64-v2|x86-64-v3|x86-64-v4" in forge(args, "dump", out)
    forge(args, "compile", model, "-o", out, "--cpu=x86-64-v2")
    forge(args, "run", out, "--test-data=" + data)
    assert "better compiled again" in forge(args, "dump", out) and "better" in forge(args, "check", out)
    forge(args, "compile", model, "-o", out, "--cpu=znver4")
    assert "x86-64-v4+avx512vnni+avx512bf16" in forge(args, "dump", out)
    for cpu in ("znver0", "abacus", ",", "x86-64-v3+dotprod"):
        forge(args, "compile", model, "-o", out, "--cpu=" + cpu, code=1)
    forge(args, "run", out, "-O2", code=2)
    forge(args, "compile", model, "-o", out, "--dim=batch=1,sequence=1..4..8", "--report=" + out + ".json")
    with open(out + ".json") as f:
        assert json.load(f)["model"] == "model"
    assert "sequence in 1..8" in forge(args, "dump", out)
    ids = lambda n: [f"--input={i}=1x{n}xi64=" + ",".join(["1"] * n) for i in ("input_ids", "attention_mask", "token_type_ids")]
    forge(args, "run", out, *ids(8))
    assert "sequence" in forge(args, "run", out, *ids(9), code=1)


def specialised(args, folder, scratch):
    """Code of its own for some sizes: beside the code for all, with the same weights, found when it runs."""
    model, data = os.path.join(folder, "model.onnx"), os.path.join(folder, "test_data_set_0")
    plain, out, again = (os.path.join(scratch, n) for n in ("a.forge", "b.forge", "c.forge"))
    forge(args, "compile", model, "-o", plain, "--cpu=native")
    for name, own in (("batch=2+sequence=10,9", True), ("batch=3,sequence=11", False)):
        for path in (out, again):
            forge(args, "compile", model, "-o", path, "--cpu=native", "--variants=" + name, "--report=" + path + ".json")
        assert content(out) == content(again), "compiled twice, the files differ"
        with open(out + ".json") as f:
            variants = json.load(f)["variants"]
        assert len(variants) == 2 and all(v["kernels"] > 3 for v in variants), variants
        dump = forge(args, "dump", out).splitlines()
        weights = [l for l in dump if l.startswith("weights")]
        assert weights and weights == [l for l in forge(args, "dump", plain).splitlines() if l.startswith("weights")], "other weights"
        assert sum(l.startswith("variant  ") for l in dump) == 2, dump
        forge(args, "run", out, "--test-data=" + data, "--atol=1e-5", "--rtol=1e-5")
        if not own:
            assert digests(args, out, data) == digests(args, plain, data), "other sizes run other code"
        p = subprocess.run([args.forge, "run", out, "--test-data=" + data], capture_output=True, env=dict(os.environ, FORGE_CODE_NAMES="gdb"))
        assert p.returncode == 0, p.stderr
    assert variants[0]["sizes"] == {"batch": 3}, variants
    forge(args, "run", out, "--variants=batch=1", code=2)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("forge")
    p.add_argument("models")
    p.add_argument("--filter", default="")
    p.add_argument("--jobs", type=int, default=1)
    args = p.parse_args()
    args.forge = os.path.abspath(args.forge)
    todo = [os.path.dirname(m) for m in sorted(glob.glob(os.path.join(args.models, "*", "model.onnx")))
            if re.search(args.filter, m)]
    passed, bad = 0, []
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for one in pool.map(lambda m: check_model(args, m), todo):
            passed += not one
            bad += one
    bert = os.path.join(args.models, "bert-ts17")
    for test in (damaged, borrowed, shared, atomic, choices, specialised):
        with tempfile.TemporaryDirectory() as scratch:
            try:
                test(args, bert, scratch)
                passed += 1
            except AssertionError as e:
                bad.append(f"{test.__name__}: {e}")
    for line in bad:
        print("FAIL", line)
    print(f"{passed} passed, {len(bad)} failed")
    return 1 if bad or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
