#!/usr/bin/env python3
"""Compare forge with onnxruntime on the same inputs.

    agree.py MODEL.onnx... [--forge build/forge] [--seq 128] [--past 16] [--threads 2] [--greedy N]

For each model: batch 1 of `seq` random tokens, every float output compared. Models with a KV cache are first
given `past` tokens in onnxruntime, whose presents are the pasts of the run that is compared. A model passes when the largest absolute difference is
below 2.1e-5 * max(1, largest |value|) and, for an output called logits, the mean KL divergence
of the softmaxes is below 8.4e-9. --greedy N also generates N tokens from a fixed prompt with both
and compares them token by token. Prints one line a model; the last line is `N passed, N failed`.
Needs numpy, onnx and onnxruntime.
"""
import argparse, os, subprocess, sys, tempfile
import numpy as np
import onnx
import onnxruntime as ort

MAX_ABS, MAX_KL = 2.1e-5, 8.4e-9


def feeds(path, seq, past):
    """Inputs by name for the graph at path; sequence-like symbols are told from names."""
    g = onnx.load(path, load_external_data=False).graph
    init = {t.name for t in g.initializer}
    rng = np.random.default_rng(1)
    kv = any(i.name.startswith("past") for i in g.input)
    feed = {}
    for i in g.input:
        if i.name in init:
            continue
        dims = [d.dim_value or d.dim_param for d in i.type.tensor_type.shape.dim]
        if i.name == "attention_mask":
            a = np.ones((1, seq + (past if kv else 0)), np.int64)
        elif i.name == "position_ids":
            a = np.arange(past, past + seq, dtype=np.int64)[None]
        elif i.name == "token_type_ids":
            a = np.zeros((1, seq), np.int64)
        elif i.name == "input_ids":
            a = rng.integers(5, 1000, (1, seq))
        else:
            shape = [1 if k == 0 else d if isinstance(d, int) else past for k, d in enumerate(dims)]
            a = np.zeros(shape, np.float32)
        feed[i.name] = a
    return feed


def fill_cache(s, path, feed, past):
    """Pasts of `past` tokens, from a prefill of their own."""
    first = feeds(path, past, 0)
    names = [o.name for o in s.get_outputs() if o.name.startswith("present")]
    for name, value in zip(names, s.run(names, first)):
        for key in (name.replace("present", "past_key_values"), name.replace("present", "past")):
            if key in feed:
                feed[key] = value


def session(path, threads):
    o = ort.SessionOptions()
    o.intra_op_num_threads = threads
    return ort.InferenceSession(path, o, providers=["CPUExecutionProvider"])


def run_forge(forge, path, feed, outputs, threads, tmp):
    cmd = [forge, "run", path, f"--threads={threads}"]
    for k, (name, a) in enumerate(feed.items()):
        np.save(f"{tmp}/in{k}.npy", a)
        cmd.append(f"--input={name}=@{tmp}/in{k}.npy")
    for k, name in enumerate(outputs):
        cmd.append(f"--output={name}=@{tmp}/out{k}.npy")
    p = subprocess.run(cmd, capture_output=True, text=True)
    if p.returncode:
        raise RuntimeError(f"exit {p.returncode}: {p.stderr.strip()}")
    return [np.load(f"{tmp}/out{k}.npy") for k in range(len(outputs))]


def log_softmax(x):
    x = x.astype(np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def compare(names, want, got):
    """(worst ratio of difference to bound, its output, mean KL of the logits)"""
    worst, where, kl = 0.0, "", 0.0
    for name, w, g in zip(names, want, got):
        if w.shape != g.shape or w.dtype != g.dtype:
            return float("inf"), f"{name}: {g.dtype}{g.shape}, expected {w.dtype}{w.shape}", kl
        d = float(np.abs(w.astype(np.float64) - g).max(initial=0)) / max(1.0, float(np.abs(w).max(initial=0)))
        if not d <= worst:
            worst, where = d, name
        if name == "logits":
            a, b = log_softmax(w), log_softmax(g)
            kl = float((np.exp(a) * (a - b)).sum(-1).mean())
    return worst, where, kl


def greedy(forge, path, s, n, threads, tmp):
    ids = {"ort": [1, 504, 338, 253, 260], "forge": [1, 504, 338, 253, 260]}
    for _ in range(n):
        for who, seq in ids.items():
            a = np.array([seq], np.int64)
            feed = {"input_ids": a, "attention_mask": np.ones_like(a)}
            out = s.run(["logits"], feed)[0] if who == "ort" else run_forge(forge, path, feed, ["logits"], threads, tmp)[0]
            seq.append(int(out[0, -1].argmax()))
    return ids["ort"][5:], ids["forge"][5:]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("models", nargs="+")
    p.add_argument("--forge", default="build/forge")
    p.add_argument("--seq", type=int, default=128)
    p.add_argument("--past", type=int, default=16)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--greedy", type=int, default=0)
    a = p.parse_args()
    passed = failed = 0
    for path in a.models:
        s = session(path, a.threads)
        feed = feeds(path, a.seq, a.past)
        if a.past and any(k.startswith("past") for k in feed):
            fill_cache(s, path, feed, a.past)
        names = [o.name for o in s.get_outputs()]
        text, ok = "", False
        with tempfile.TemporaryDirectory() as tmp:
            try:
                d, where, kl = compare(names, s.run(names, feed), run_forge(a.forge, path, feed, names, a.threads, tmp))
                ok = d < MAX_ABS and kl < MAX_KL
                text = f"max abs / max(1, |x|) {d:.2e} ({where}), KL {kl:.2e}"
                if a.greedy:
                    want, got = greedy(a.forge, path, s, a.greedy, a.threads, tmp)
                    ok &= want == got
                    text += f", {sum(x == y for x, y in zip(want, got))}/{len(want)} greedy tokens equal"
            except RuntimeError as e:
                text = str(e)
        print(f"{'ok  ' if ok else 'FAIL'} {os.path.basename(path)}: {text}", flush=True)
        passed, failed = passed + ok, failed + (not ok)
    print(f"{passed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
