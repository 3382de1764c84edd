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
# Caches that grow, a buffer, states without history, none; and one sequence at a time.
TOGETHER = [("gpt2-kv-ts17",), ("llama-optimum-kv",), ("llama-genai-gqa",), ("lfm2-kv-ts17",), ("gpt2-ts17",),
            ("gpt2-kv-ts17", "--dim=batch=1"), ("gpt2-kv-ts17", "--variants=sequence=1,batch=2+sequence=1")]


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


class Random:
    """SplitMix64."""

    def __init__(self, seed):
        self.state = seed

    def unit(self):
        self.state = (self.state + 0x9e3779b97f4a7c15) % 2**64
        z = self.state
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9 % 2**64
        z = (z ^ z >> 27) * 0x94d049bb133111eb % 2**64
        return ((z ^ z >> 31) >> 11) * 2.0**-53


def choose(logits, seen, rng, temperature=0, top_k=0, top_p=1, min_p=0, repetition_penalty=1):
    """The next token, by the definitions."""
    x = [float(np.float32(v / repetition_penalty if v > 0 else v * repetition_penalty)) if k in seen else float(v)
         for k, v in enumerate(logits)]
    order = sorted(range(len(x)), key=lambda k: (-x[k], k))
    if not temperature:
        return order[0]
    order = order[:top_k or None]
    p = np.exp((np.array([x[k] for k in order]) - x[order[0]]) / temperature)
    p /= p.sum()
    p = p[:np.searchsorted(np.cumsum(p), top_p) + 1]
    p = p[p >= min_p * p[0]]
    return order[min(int((np.cumsum(p / p.sum()) <= rng.unit()).sum()), len(p) - 1)]


def greedy(path, prompt, count):
    return generated(path, prompt, count, lambda logits, ids: int(logits.argmax()))


def drawn(path, prompt, count, seed, **how):
    rng = Random(seed)
    return generated(path, prompt, count, lambda logits, ids: choose(logits, set(ids), rng, **how))


def generated(path, prompt, count, pick):
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
        ids.append(pick(got["logits"][0, -1].astype(np.float32), ids))
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


SAMPLING = [dict(temperature=1), dict(temperature=0.7, top_k=5), dict(temperature=1.3, top_p=0.8), dict(temperature=1, min_p=0.2),
            dict(temperature=0, repetition_penalty=1.7), dict(temperature=0.9, top_k=20, top_p=0.95, min_p=0.05, repetition_penalty=1.3)]


def flags(how):
    return [f"--{k.replace('_', '-')}={v}" for k, v in how.items()]


def sampling(c, model):
    """Every way of choosing, token for token by another program."""
    for seed, how in enumerate(SAMPLING):
        got = c.json(model, "--prompt=In the", "-n", "60", "--ignore-eos", f"--seed={seed}", *flags(how))
        want = drawn(model, b"In the", 60, seed, **how)
        c.expect(got["ids"] == want, f"{how}: tokens {got['ids']}, expected {want}")


def several(c, model, tokenizer, count, *more):
    """Texts together are what each alone is."""
    name, ask = os.path.basename(os.path.dirname(model)), (model, "--tokenizer=" + tokenizer, "-n", str(count), "--ignore-eos", *more)
    lines = c.run(*ask, "--prompt=Hello", "--temperature=0.8", "--seed=4", "--num-sequences=3", "--json").splitlines()
    together = [json.loads(line) for line in lines]
    alone = [c.json(*ask, "--prompt=Hello", "--temperature=0.8", f"--seed={4 + k}")["ids"] for k in range(3)]
    c.expect([t["ids"] for t in together] == alone, f"{name}: sequences {[t['ids'] for t in together]}, alone {alone}")
    c.expect([(t["prompt"], t["sequence"]) for t in together] == [(0, 0), (0, 1), (0, 2)], f"{name}: numbered")


def prompts(c, model, folder):
    ask = (model, "-n", "20")
    path = os.path.join(folder, "prompts")
    with open(path, "w") as f:
        f.write("And God\n\nIn the beginning\nThe")
    alone = [c.run(*ask, "--prompt=" + p)[:-1] for p in ("And God", "In the beginning", "The")]
    c.expect(c.run(*ask, "--prompt-lines=" + path) == "\n---\n".join(alone) + "\n", "--prompt-lines")
    both = c.run(*ask, "--prompt-lines=" + path, "--temperature=1", "--num-sequences=2", "--json").splitlines()
    c.expect([(t["prompt"], t["sequence"]) for t in map(json.loads, both)] == [(p, k) for p in range(3) for k in range(2)],
             "sequences of each prompt")
    ends = [json.loads(line) for line in c.run(model, "-n", "200", "--prompt=And God", "--temperature=1", "--num-sequences=4",
                                                 "--stop=e", "--json").splitlines()]
    c.expect({t["end"] for t in ends} == {"stop"} and len({t["tokens"] for t in ends}) > 1 and not any("e" in t["text"] for t in ends),
             "each text ends by itself")
    empty = os.path.join(folder, "empty")
    open(empty, "w").close()
    c.expect("no line" in c.run(*ask, "--prompt-lines=" + empty, code=1), "no prompts")
    for bad in (["--num-sequences=2"], ["--num-sequences=0"], ["--prompt-lines=" + path], ["--lookup", "--draft=" + model],
                ["--lookup", "--num-sequences=2", "--temperature=1"], ["--draft-tokens=0"], ["-n", "-1"],
                ["--batch=0"], ["--batch=2", "--lookup"], ["--batch=2", "--num-sequences=2", "--temperature=1"]):
        c.run(*ask, "--prompt=x", *bad, code=2)


def mixed(c, model, tokenizer, count, path, *more):
    """Prompts of several lengths together: each text is what it is alone, and the model runs as often as for one."""
    name, ask = os.path.basename(os.path.dirname(model)), (model, "--tokenizer=" + tokenizer, "-n", str(count), "--ignore-eos",
                                                           "--prompt-lines=" + path, "--json", *more)
    for how in ([], ["--temperature=0.8", "--seed=3", "--repetition-penalty=1.1"]):
        alone = [json.loads(line) for line in c.run(*ask, *how).splitlines()]
        for batch in (2, 5):
            got = [json.loads(line) for line in c.run(*ask, *how, f"--batch={batch}").splitlines()]
            for key in ("ids", "text", "end", "prompt", "sequence", "prompt_tokens"):
                c.expect([t[key] for t in got] == [t[key] for t in alone], f"{name} --batch={batch} {how} {key}")


def ahead(c, model, tokenizer, count, *guess):
    """Guesses change how fast a text comes, not which."""
    name, ask = os.path.basename(os.path.dirname(model)), (model, "--tokenizer=" + tokenizer, "-n", str(count), "--ignore-eos")
    for how in ([], ["--temperature=0.7", "--seed=9", "--repetition-penalty=1.2"]):
        for k in (1, 4, 7):
            plain = c.json(*ask, "--prompt=one two one two one", *how)
            got = c.json(*ask, "--prompt=one two one two one", *how, *guess, f"--draft-tokens={k}")
            c.expect(got["ids"] == plain["ids"] and got["text"] == plain["text"], f"{name} {how} {guess[0]} {k}: {got['ids']}, without {plain['ids']}")
            c.expect(got["guessed"] >= got["guessed_right"] and got["guessed"] > 0, f"{name}: nothing was guessed")
    c.expect(plain["guessed"] == 0, f"{name}: guessed without being asked")


def guesses(c, tiny, models, tokenizer, folder):
    model = lambda name: os.path.join(models, name, "model.onnx")
    bytes256 = os.path.join(os.path.dirname(tiny), "tokenizer.json")
    for path, t, *guess in ((tiny, bytes256, "--lookup"), (tiny, bytes256, "--draft=" + tiny), (model("gpt2-ts17"), tokenizer, "--lookup"),
                            (tiny, bytes256, "--draft=" + tiny, "--draft-precision=int4"),
                            (model("gpt2-kv-ts17"), tokenizer, "--draft=" + model("llama32-kv-ts17")),
                            (model("llama32-kv-ts17"), tokenizer, "--draft=" + model("lfm2-ts17"))):
        ahead(c, path, t, 40, *guess)
    sure = c.json(tiny, "--prompt=And God", "-n", "40", "--draft=" + tiny)
    c.expect(sure["guessed_right"] >= 30, f"a model guesses itself: {sure['guessed_right']} of {sure['guessed']}")
    c.expect("no history" in c.run(model("lfm2-kv-ts17"), "--tokenizer=" + tokenizer, "--prompt=a b a b a b a b", "--lookup", "-n", "30",
                                   code=1), "a state that cannot go back")
    c.run(tiny, "--prompt=x", "--draft=" + os.path.join(folder, "none.onnx"), code=1)


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
    c.expect("257 tokens" in say(model, "--prompt=" + "x" * 257, code=1), "a prompt that the model cannot hold")
    c.expect("3 are the most" in say(model, "--prompt=xxxx", "--context=3", code=1), "a prompt beyond --context")
    say(model, "--prompt=xxx", "--context=3")
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
        prompts(c, tiny, folder)
        guesses(c, tiny, o.models, tokenizer, folder)
        for name, *more in TOGETHER:
            several(c, os.path.join(o.models, name, "model.onnx"), tokenizer, 24, *more)
        lines = os.path.join(folder, "lines")
        with open(lines, "w") as f:
            f.write("Hello\nA longer one, with more tokens\nx\nHello\nfour and\nthe last\n")
        for name in DECODERS:
            mixed(c, os.path.join(o.models, name, "model.onnx"), tokenizer, 12, lines)
        mixed(c, tiny, os.path.join(os.path.dirname(tiny), "tokenizer.json"), 200, lines, "--context=40")
        with open(lines, "a") as f:
            f.write("long " * 120 + "\n" + "longer " * 90)
        mixed(c, os.path.join(o.models, "llama32-kv-ts17", "model.onnx"), tokenizer, 12, lines)
    compare(c, tiny, os.path.join(o.examples, "tiny-gpt", "tokenizer.json"), "In the beginning", list(b"In the beginning"), 100)
    options(c, tiny)
    sampling(c, tiny)
    real(c, o.real)
    return c.done()


if __name__ == "__main__":
    sys.exit(main())
