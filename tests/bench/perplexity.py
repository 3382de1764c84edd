#!/usr/bin/env python3
"""Perplexity of a language model on tests/bench/perplexity.txt, for each precision.

    perplexity.py FORGE MODEL.onnx TOKENIZER.json [--precisions=f32,bf16,int8,int4] [--window=N]

The text is cut into windows of N tokens (512); each is one run, and every token but the first of
its window is predicted from those before it in the window. MODEL takes input_ids, and perhaps an
attention mask and positions, and gives logits. Needs numpy and tokenizers.
"""
import argparse
import os
import subprocess
import sys
import tempfile

import numpy as np
from tokenizers import Tokenizer


def logits(forge, model, ids, options, folder):
    """Logits [T, V] of one window."""
    n = len(ids)
    given = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, n), np.int64),
             "position_ids": np.arange(n)[None]}
    command = [forge, "run", model, f"--output=logits=@{folder}/logits.npy", *options]
    for name, value in given.items():
        if name in logits.inputs:
            np.save(f"{folder}/{name}.npy", value.astype(np.int64))
            command.append(f"--input={name}=@{folder}/{name}.npy")
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return np.load(f"{folder}/logits.npy")[0].astype(np.float64)


def inputs_of(forge, model):
    """Names that an error message or the model's own text mentions as inputs."""
    text = subprocess.run([forge, "dump", model, "--stage=import"], check=True,
                          capture_output=True, text=True).stdout
    head = next(line for line in text.splitlines() if line.startswith("func @main("))
    return {part.split(":")[0].strip(" (%") for part in head[len("func @main"):].split(", ")}


def losses(z, ids):
    """-log p of each token but the first."""
    z = z[:-1] - z[:-1].max(1, keepdims=True)
    return np.log(np.exp(z).sum(1)) - z[np.arange(len(ids) - 1), ids[1:]]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("forge")
    p.add_argument("model")
    p.add_argument("tokenizer")
    p.add_argument("--precisions", default="f32,bf16,int8,int4,int4:64,int4:128")
    p.add_argument("--accuracy", default="model")
    p.add_argument("--window", type=int, default=512)
    p.add_argument("--text", default=os.path.join(os.path.dirname(__file__), "perplexity.txt"))
    a = p.parse_args()
    ids = Tokenizer.from_file(a.tokenizer).encode(open(a.text).read()).ids
    windows = [ids[k:k + a.window] for k in range(0, len(ids) - 1, a.window)]
    logits.inputs = inputs_of(a.forge, a.model)
    print(f"{os.path.basename(a.model)}: {len(ids)} tokens in windows of {a.window}")
    with tempfile.TemporaryDirectory() as folder:
        for precision in a.precisions.split(","):
            options = [f"--precision={precision}", f"--accuracy={a.accuracy}"]
            loss = np.concatenate([losses(logits(a.forge, a.model, w, options, folder), w)
                                   for w in windows if len(w) > 1])
            print(f"{precision:>9}  {np.exp(loss.mean()):8.4f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
