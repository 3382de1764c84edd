#!/usr/bin/env python3
"""forge generate against onnxruntime, token for token, on the tests' own models; its options; and real weights.

    generate.py build/forge tests/models examples [--real DIR]

DIR is where tests/fullsize/real_models.py wrote (default .cache/real, or FORGE_REAL); without it that part is left out.
"""
import argparse, json, os, sys, tempfile
import numpy as np
import onnxruntime as ort

from checks import Checks

HERE = os.path.dirname(os.path.abspath(__file__))
# Every way in which exporters write a decoder: with and without a cache, positions, masks; half precision; states.
DECODERS = ["gpt2-kv-ts17", "gpt2-optimum-kv", "llama-genai-gqa", "llama-genai-rotary", "llama-optimum-kv",
            "qwen2-kv-dy18", "llama32-kv-ts17", "lfm2-kv-ts17", "gpt2-ts17", "llama32-fp16-ts17", "llama-op23"]


class Texts(Checks):
    def run(self, *argv, code=0, stdin=""):
        p = super().run("generate", *argv, input=stdin)
        name = " ".join(os.path.basename(a) for a in argv)
        self.expect(p.returncode == code, f"{name}: exit {p.returncode}, expected {code}: {p.stderr.strip()}")
        if code:
            self.expect(p.stderr.count("\n") == 1, f"{name}: the message is not one line: {p.stderr!r}")
        return p.stderr if code else p.stdout

    def json(self, *argv):
        return json.loads(self.run(*argv, "--json") or "{}")


def greedy(path, prompt, count):
    """Token numbers by onnxruntime: pasts of length 0 first, then presents fed back; all again without a cache."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    s = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    kinds = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int32)": np.int32}
    past = {i.name: np.zeros([d if isinstance(d, int) else int(k == 0) for k, d in enumerate(i.shape)],
                             kinds.get(i.type, np.int64)) for i in s.get_inputs() if "past" in i.name}
    wanted = {i.name: kinds.get(i.type, np.int64) for i in s.get_inputs()}
    outputs = [o.name for o in s.get_outputs()]
    ids, fresh = list(prompt), list(prompt)
    for _ in range(count):
        feed = dict(past)
        n, total = len(fresh), len(ids)
        for name, kind in wanted.items():
            if name in ("input_ids", "attention_mask", "position_ids"):
                v = {"input_ids": fresh, "attention_mask": [1] * total, "position_ids": range(total - n, total)}[name]
                feed[name] = np.array([list(v)], kind)
        got = dict(zip(outputs, s.run(None, feed)))
        past = {k: got[k.replace("past_key_values", "present").replace("past", "present")] for k in past}
        ids.append(int(got["logits"][0, -1].astype(np.float32).argmax()))
        fresh = ids[-1:] if past else ids
    return ids[len(prompt):]


def compare(c, model, tokenizer, prompt, ids, count, *more):
    got = c.json(model, "--tokenizer=" + tokenizer, "--prompt=" + prompt, "-n", str(count), "--ignore-eos", *more)
    want = greedy(model, ids, count)
    c.expect(got.get("ids") == want, f"{model}: greedy tokens {got.get('ids')}, onnxruntime's {want}")
    c.expect(got.get("tokens") == count and got.get("end") == "length", f"{model}: {got.get('end')}")


def ascii_tokenizer(folder):
    """128 tokens, each a byte, from the tokenizer of 256."""
    with open(os.path.join(HERE, "..", "examples", "tiny-gpt", "tokenizer.json"), encoding="utf-8") as f:
        t = json.load(f)
    t["model"]["vocab"] = {k: v for k, v in t["model"]["vocab"].items() if v < 128}
    path = os.path.join(folder, "ascii.json")
    with open(path, "w", encoding="utf-8") as f:
        json.dump(t, f)
    return path


def options(c, model):
    say = lambda *argv, **more: c.run(model, *argv, **more)
    ask = ("--prompt=And God said", "-n", "40")
    text = say(*ask)
    c.expect(len(text) == 41 and text.endswith("\n"), f"greedy text: {text!r}")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as f:
        f.write("And God said")
        f.flush()
        c.expect(say("--prompt-file=" + f.name, "-n", "40") == text, "--prompt-file")
    c.expect(say("-n", "40", stdin="And God said") == text, "the prompt from standard input")
    word = text.split()[1]
    c.expect(say(*ask, "--stop=" + word) == text[:text.index(word)] + "\n", f"--stop={word}")
    c.expect(say(*ask, "--stop=never", "--stop=" + word[-1] + " ") == text[:text.index(word[-1] + " ")] + "\n", "two --stop")
    c.expect(say(*ask, "--eos=" + str(ord(word[0]))) == text[:text.index(word[0])] + "\n", "--eos as a number")
    c.expect(c.json(model, *ask, "--eos=" + word[0])["end"] == "eos", "--eos as a token")
    c.expect(say(*ask, "--eos=" + word[0], "--ignore-eos") == text, "--ignore-eos")
    c.expect(say("--prompt=x", "-n", "0") == "\n", "-n 0")
    draw = lambda *more: say(*ask, "--temperature=0.9", "--top-p=0.95", *more)
    one = draw("--seed=5", "--threads=1")
    c.expect(draw("--seed=5", "--threads=2") == one and draw("--seed=5", "--threads=3") == one,
             "the same seed gives the same text for any number of threads")
    c.expect(draw("--seed=6") != one, "another seed gives another text")
    c.expect(say(*ask, "--temperature=1", "--top-k=1") == text, "--top-k=1 is greedy")
    c.expect(say(*ask, "--temperature=1", "--min-p=1") == text, "--min-p=1 is greedy")
    c.expect(say(*ask, "--repetition-penalty=3") != text, "--repetition-penalty")
    full = c.json(model, "--prompt=And", "-n", "400")
    c.expect(full["end"] == "context" and full["prompt_tokens"] + full["tokens"] == 257, f"context: {full['end']}")
    c.expect(c.json(model, *ask, "--context=20")["tokens"] == 9, "--context")


def chat(c, model, tokenizer, folder):
    """What the template makes of the messages is what the model gets."""
    template = "{{ bos_token }}{% for m in messages %}[{{ m.role }}: {{ m.content | trim }}]{% endfor %}{{ eos_token }}>"
    home = os.path.join(folder, "chat")
    os.makedirs(home)
    beside = os.path.join(home, "tokenizer.json")
    with open(tokenizer, encoding="utf-8") as f, open(beside, "w", encoding="utf-8") as g:
        g.write(f.read())
    ask = (model, "--tokenizer=" + beside, "-n", "20", "--ignore-eos")
    plain = lambda text: c.json(*ask, "--prompt=" + text)["ids"]
    say = lambda *argv: c.json(*ask, "--chat", *argv)["ids"]
    c.expect("--chat-template" in c.run(*ask, "--chat", "--prompt=x", code=1), "no template")
    with open(os.path.join(home, "tokenizer_config.json"), "w") as f:
        json.dump({"chat_template": [{"name": "tools", "template": "no"}, {"name": "default", "template": template}],
                   "bos_token": {"content": "B"}, "eos_token": "E"}, f)
    c.expect(say("--prompt= Hi ") == plain("B[user: Hi]E>"), "--chat")
    c.expect(say("--prompt=Hi", "--system=Be brief") == plain("B[system: Be brief][user: Hi]E>"), "--chat --system")
    with open(os.path.join(home, "chat_template.jinja"), "w") as f:
        f.write("{{ messages[0].content }}?\n")
    c.expect(say("--prompt=Hi") == plain("Hi?"), "chat_template.jinja")
    with open(os.path.join(folder, "t.jinja"), "w") as f:
        f.write("{{ raise_exception('not so') }}")
    c.expect("not so" in c.run(*ask, "--chat", "--prompt=x", "--chat-template=" + f.name, code=1), "a template that refuses")
    c.run(*ask, "--prompt=x", "--system=y", code=2)


def faults(c, model, models, folder):
    say = lambda *argv, **more: c.run(*argv, **more)
    bert = os.path.join(models, "bert-ts17", "model.onnx")
    tokenizer = os.path.join(os.path.dirname(model), "tokenizer.json")
    c.expect("language model" in say(bert, "--tokenizer=" + tokenizer, "--prompt=x", code=1), "not a language model")
    c.expect("tokenizer.json" in say(bert, "--prompt=x", code=1), "no tokenizer")
    c.expect("empty" in say(model, "--prompt=", code=1), "an empty prompt")
    c.expect("no token" in say(model, "--prompt=x", "--eos=<none>", code=1), "no such token")
    for bad in ("--temperature=-1", "--top-p=0", "--top-p=2", "--min-p=7", "--repetition-penalty=0", "--seed=x", "--fly"):
        say(model, "--prompt=x", bad, code=2)
    say(model, "--prompt=x", "--prompt-file=y", code=2)
    bad = os.path.join(folder, "bad.json")
    with open(bad, "w") as f:
        f.write('{"model": {"type": "BPE", "vocab": {"a": 99999999999}}}')
    say(model, "--tokenizer=" + bad, "--prompt=x", code=1)
    big = os.path.join(folder, "big.json")
    with open(big, "w") as f:
        f.write('{"model": {"type": "BPE", "vocab": {"x": 256}, "merges": []}}')
    c.expect("vocabulary" in say(model, "--tokenizer=" + big, "--prompt=x", code=1), "a tokenizer of another model")


def real(c, folder):
    model, tokenizer = (os.path.join(folder, "smollm2-135m" + x) for x in ("-kv.onnx", ".tokenizer.json"))
    if not os.path.exists(model) or not os.path.exists(tokenizer):
        print(f"real weights left out: no {model} (tests/fullsize/real_models.py makes it)")
        return
    # Numbers by the reference package, so that this test needs no other tokenizer.
    for text, ids in (("The capital of France is", [504, 3575, 282, 4649, 314]),
                      ("def fibonacci(n):\n    ", [1604, 3987, 46477, 24, 94, 727, 2367])):
        compare(c, model, tokenizer, text, ids, 64)
    template = os.path.join(HERE, "text", "templates", "plainml.jinja")
    ids = [1, 9690, 198, 6077, 1890, 30, 2, 198, 1, 4093, 198, 1780, 314, 9354, 47, 2, 198, 1, 520, 9531, 198]
    compare(c, model, tokenizer, "What is gravity?", ids, 64, "--chat", "--chat-template=" + template)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("forge")
    p.add_argument("models")
    p.add_argument("examples")
    p.add_argument("--real", default=os.environ.get("FORGE_REAL", ".cache/real"))
    o = p.parse_args()
    c = Texts(o.forge)
    tiny = os.path.join(o.examples, "tiny-gpt", "model.onnx")
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = ascii_tokenizer(folder)
        for name in DECODERS:
            prompt = "Hello, world"
            compare(c, os.path.join(o.models, name, "model.onnx"), tokenizer, prompt, list(prompt.encode()), 24)
        faults(c, tiny, o.models, folder)
        chat(c, tiny, tokenizer, folder)
    compare(c, tiny, os.path.join(o.examples, "tiny-gpt", "tokenizer.json"), "In the beginning", list(b"In the beginning"), 100)
    options(c, tiny)
    real(c, o.real)
    return c.done()


if __name__ == "__main__":
    sys.exit(main())
