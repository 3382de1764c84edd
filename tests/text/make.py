#!/usr/bin/env python3
"""Small tokenizers of every kind, and what the `tokenizers` package makes of awkward texts with them.

    make.py OUT                      tokenizers, texts and expected tokens (what tests/text/data holds)
    make.py OUT --noise SEED         the same tokenizers on 300 random mixtures of the texts
    make.py OUT --of FILE.json ..    other tokenizer files on both
    make.py OUT --bytes N            only bytes.json: N tokens, each one byte, numbered as bytes

Then `build/test-tokenizers OUT`.  Wants tokenizers and sentencepiece (pinned in requirements.txt beside).
"""
import argparse, base64, json, os, sys, tempfile
import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as pb
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from awkward import TEXTS, noise

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
          r"\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
CLIP = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
CORPUS = [t.replace("\0", "") for t in TEXTS if isinstance(t, str)] + [
    "the cat sat on the mat and the dog lay by the door while it rained all day in the old town",
    "she sells sea shells by the sea shore; the shells she sells are surely seashells",
    "to be read is to be understood, and to be understood is to be answered in words of one's own",
    "playing played player plays playful replay; walking walked walker walks; reading reader reads reread"] * 3


def train(model, trainer, **parts):
    t = Tokenizer(model)
    for k, v in parts.items():
        if k in ("normalizer", "pre_tokenizer"):
            setattr(t, k, v)
    t.train_from_iterator(CORPUS, trainer)
    for k, v in parts.items():
        setattr(t, k, v)
    return t


def byte_bpe(pre, specials=("<|endoftext|>",), size=420, normalizer=None, model=None, **parts):
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=list(specials), show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    more = dict(parts, **({"normalizer": normalizer} if normalizer else {}))
    return train(model or models.BPE(), trainer, pre_tokenizer=pre, decoder=decoders.ByteLevel(), **more)


def ignore_merges(t):
    d = json.loads(t.to_str())
    d["model"]["ignore_merges"] = True
    return Tokenizer.from_str(json.dumps(d))


def bpe_fallback(**parts):
    """Characters with bytes for those not in the vocabulary, as converted from SentencePiece."""
    specials = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    plain = [t for t in CORPUS if t.isascii()]
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    for k in ("normalizer", "pre_tokenizer"):
        if k in parts:
            setattr(t, k, parts[k])
    t.train_from_iterator(plain, trainers.BpeTrainer(vocab_size=420, special_tokens=specials, show_progress=False))
    d = json.loads(t.to_str())     # bytes are ordinary tokens, not added ones
    d["added_tokens"] = d["added_tokens"][:3]
    t = Tokenizer.from_str(json.dumps(d))
    for k, v in parts.items():
        setattr(t, k, v)
    return t


LLAMA_DECODER = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]


def llama2():
    return bpe_fallback(normalizer=normalizers.Sequence([normalizers.Prepend("\u2581"),
                                                         normalizers.Replace(" ", "\u2581")]),
                        decoder=decoders.Sequence(LLAMA_DECODER + [decoders.Strip(" ", 1, 0)]),
                        post_processor=processors.TemplateProcessing("<s> $A", "<s> $A $B", [("<s>", 1)]))


def gemma():
    return bpe_fallback(normalizer=normalizers.Replace(" ", "\u2581"),
                        pre_tokenizer=pre_tokenizers.Split(" ", "merged_with_previous"),
                        decoder=decoders.Sequence(LLAMA_DECODER))


def metaspace_bpe():
    return bpe_fallback(pre_tokenizer=pre_tokenizers.Metaspace("\u2581", "first", False),
                        decoder=decoders.Sequence(LLAMA_DECODER + [decoders.Strip(" ", 1, 0)]))


def wordpiece(lower):
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    t = train(models.WordPiece(unk_token="[UNK]"),
              trainers.WordPieceTrainer(vocab_size=450, special_tokens=specials, show_progress=False, limit_alphabet=200),
              normalizer=normalizers.BertNormalizer(lowercase=lower), pre_tokenizer=pre_tokenizers.BertPreTokenizer(),
              decoder=decoders.WordPiece())
    t.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2)) if not lower else \
        processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", [("[CLS]", 2), ("[SEP]", 3)])
    return t


def unigram(normalizer, fallback):
    specials = ["<pad>", "</s>", "<unk>"] + ([f"<0x{b:02X}>" for b in range(256)] if fallback else [])
    t = train(models.Unigram(), trainers.UnigramTrainer(vocab_size=330 + 256 * fallback, special_tokens=specials,
                                                        unk_token="<unk>", show_progress=False),
              normalizer=normalizer, pre_tokenizer=pre_tokenizers.Metaspace())
    d = json.loads(t.to_str())
    d["added_tokens"] = d["added_tokens"][:3]
    d["model"]["byte_fallback"] = fallback
    t = Tokenizer.from_str(json.dumps(d))
    t.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 1)])
    t.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()]) if fallback else decoders.Metaspace()
    return t


def charsmap():
    """A compiled map of a few rules, by SentencePiece itself."""
    rules = {"\ufb01": "fi", "\u00bd": "1/2", "\u2460": "1", "\uff21": "A", "\uff22": "B", "\u3000": " ", "\u00a0": " ",
             "e\u0301": "\u00e9", "A\u030a": "\u00c5", "\u2026": "...", "\u200b": "", "\ufeff": "", "\u3392": "MHz"}
    with tempfile.TemporaryDirectory() as d:
        with open(d + "/rules.tsv", "w") as f:
            for k, v in rules.items():
                f.write(" ".join(f"{ord(c):X}" for c in k) + "\t" + " ".join(f"{ord(c):X}" for c in v) + "\n")
        with open(d + "/text", "w") as f:
            f.write("\n".join(t.replace("\n", " ") for t in CORPUS if t.isascii()))
        sentencepiece.SentencePieceTrainer.train(input=d + "/text", model_prefix=d + "/m", vocab_size=90, model_type="bpe",
                                                 normalization_rule_tsv=d + "/rules.tsv", minloglevel=2)
        m = pb.ModelProto()
        with open(d + "/m.model", "rb") as f:
            m.ParseFromString(f.read())
    return m.normalizer_spec.precompiled_charsmap


def words():
    t = train(models.WordLevel(unk_token="[UNK]"), trainers.WordLevelTrainer(vocab_size=150, special_tokens=["[UNK]"],
                                                                             show_progress=False),
              normalizer=normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase(), normalizers.StripAccents(),
                                               normalizers.Strip()]),
              pre_tokenizer=pre_tokenizers.Whitespace())
    return t


def clip():
    t = byte_bpe(pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(CLIP), "removed", True),
                                          pre_tokenizers.ByteLevel(add_prefix_space=False)]),
                 ("<|start|>", "<|end|>"), 500,
                 normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "),
                                       normalizers.Lowercase()]),
                 models.BPE(unk_token="<|end|>", end_of_word_suffix="</w>", continuing_subword_prefix=""),
                 post_processor=processors.RobertaProcessing(("<|end|>", 1), ("<|start|>", 0), False, False))
    t.decoder = decoders.BPEDecoder("</w>")
    return t


def added():
    """Tokens in the text, with everything they may ask for, over a normalizer that changes them."""
    t = byte_bpe(pre_tokenizers.ByteLevel(add_prefix_space=True), normalizer=normalizers.Lowercase())
    t.add_tokens([AddedToken("newtoken", single_word=True), AddedToken("new token", normalized=True),
                  AddedToken("O'Neil", normalized=False), AddedToken("<|im_start|>", lstrip=True, normalized=False)])
    t.add_special_tokens([AddedToken("<mask>", lstrip=True, rstrip=True), AddedToken("<|im_end|>", rstrip=True),
                          AddedToken("<s>", single_word=True), AddedToken("</s>"), AddedToken("\u4f60\u597d")])
    return t


def behaviors():
    p = pre_tokenizers
    return byte_bpe(p.Sequence([p.Split(",", "removed"), p.Split(Regex(r"\d+"), "merged_with_next"),
                                p.Split(Regex("[aeiou]"), "contiguous"), p.Split("-", "merged_with_previous"),
                                p.Punctuation("isolated"), p.Digits(False), p.WhitespaceSplit(),
                                p.Split(Regex(r"[\p{Lu}]"), "isolated"), p.CharDelimiterSplit("_"),
                                p.ByteLevel(add_prefix_space=False, use_regex=False)]), size=300)


def patterns():
    """What Ruby's regular expressions have and others do not; a space before each piece shows where it begins."""
    t = byte_tokens(256)
    split = [pre_tokenizers.Split(Regex(r), "isolated") for r in (
        " ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+", r"[\w&&[^a-m]&&\P{N}]+", r"\h{2}+", r"[^\W\d_x-]+", r"\p{Han}+",
        r"[[:punct:]&&[^'\u2018\]]]", r"(?m:\n.)|^ |.$", r"\b\d", r"[a-c[^a-z\p{^Greek}[:^alpha:]]]", r"\p{Upper}{,2}", r"\x{e9}|[\x{5d0}-\x{5ff}-]")]
    t.pre_tokenizer = pre_tokenizers.Sequence(split + [pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)])
    return t


def kinds():
    b = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = lambda r: pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r), "isolated"), raw])
    yield "gpt2", byte_bpe(b, post_processor=processors.ByteLevel(trim_offsets=False))
    yield "llama3", ignore_merges(byte_bpe(split(LLAMA3), ("<|begin|>", "<|end|>"), post_processor=processors.Sequence(
        [processors.ByteLevel(), processors.TemplateProcessing("<|begin|> $A", "<|begin|> $A $B", [("<|begin|>", 0)])])))
    yield "qwen2", byte_bpe(split(QWEN2), ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), normalizer=normalizers.NFC())
    yield "digits", byte_bpe(pre_tokenizers.Sequence([pre_tokenizers.Digits(True), b]))
    yield "llama2", llama2()
    yield "gemma", gemma()
    yield "metaspace", metaspace_bpe()
    yield "bert-uncased", wordpiece(True)
    yield "bert-cased", wordpiece(False)
    yield "unigram", unigram(normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(),
                                                   normalizers.Replace(Regex(" {2,}"), " ")]), False)
    yield "unigram-map", unigram(normalizers.Precompiled(charsmap()), True)
    yield "words", words()
    yield "clip", clip()
    yield "added", added()
    yield "behaviors", behaviors()
    yield "patterns", patterns()


def byte_tokens(n):
    chars = sorted(pre_tokenizers.ByteLevel.alphabet(), key=lambda c: (ord(c) >= 256, ord(c)))
    printing = [c for c in chars if ord(c) < 256]
    others = iter(c for c in chars if ord(c) >= 256)
    vocab = {chr(b) if chr(b) in printing else next(others): b for b in range(256)}
    t = Tokenizer(models.BPE({c: b for c, b in vocab.items() if b < n}, []))
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    t.decoder = decoders.ByteLevel()
    return t


def text_of(t):
    return t if isinstance(t, str) else t.decode("utf-8", "replace")


def expected(t, texts):
    rows = []
    for x in texts:
        bare = t.encode(text_of(x), add_special_tokens=False).ids
        whole = t.encode(text_of(x)).ids
        rows.append([whole, bare == whole or bare] + [t.decode(whole, skip_special_tokens=skip).encode().hex()
                                                      for skip in (False, True)])
    return rows


def main():
    p = argparse.ArgumentParser()
    p.add_argument("out")
    p.add_argument("--noise", type=int)
    p.add_argument("--of", nargs="*", default=[])
    p.add_argument("--bytes", type=int)
    o = p.parse_args()
    os.makedirs(o.out, exist_ok=True)
    if o.bytes:
        byte_tokens(o.bytes).save(os.path.join(o.out, "bytes.json"))
        return
    texts = TEXTS if o.noise is None else list(noise(o.noise, 300))
    dump = lambda name, v: open(os.path.join(o.out, name), "w").write(json.dumps(v, separators=(",", ":")) + "\n")
    dump("texts.json", [(t if isinstance(t, bytes) else t.encode()).hex() for t in texts])
    for name, t in ((os.path.basename(f)[:-5], Tokenizer.from_file(f)) for f in o.of) if o.of else kinds():
        t.no_truncation()
        t.no_padding()
        dump(name + ".json", json.loads(t.to_str()))
        dump(name + ".expected.json", expected(t, texts))


if __name__ == "__main__":
    sys.exit(main())
