"""Learning a vocabulary, extending one and encoding with it: MB per CPU second and peak memory.

Learning, `size` tokens from the same text: Endonym's trainer (for Thai also with the words of its
segmenter, and with superwords for the last tenth), an English vocabulary extended to the size, and the
stock trainer as people use it: byte-level BPE with GPT-2's or GPT-4's split pattern. Every turn does
all the work anew. Bytes per token on text held out tell what the time bought.

Encoding: texts in batches of a hundred. The vocabulary just learnt by Endonym and by transformers; and
cl100k's ranks, where DATA has them, by tiktoken and by Endonym. Ids of the same vocabulary must be equal.
"""

import base64
import gzip
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.compare import ROOT, Arm, compare, ratios, spread
from benchmarks.turns import Turns
from endonym.core.errors import DataError
from endonym.tokenizer.folder import Tokenizer

TEXTS = {
    "th": ("thaigov_v2", "thai_law_acts", "wisesight_social"),
    "ko": ("petitions", "law_kr", "boddari_mixed", "nsmc_reviews"),
}
"""Files below DATA/text. English is the language reference that comes with Python: no DATA needed."""
HELD_OUT = 10
"""Every tenth document, by the hash of its text, is not learnt from."""
BYTES_A_TOKEN = 625
"""Bytes that are learnt from, for each token asked for: 10 MB for 16,000."""
BATCH = 100
EARLIER = 0.9
"""Share of the vocabulary after which superwords begin."""
BASE = 4_000
"""Tokens of the English vocabulary that is extended, at most half of the size."""
RANKS = "tokenizers/tiktoken/cl100k_base.tiktoken"


def data() -> Path:
    """The folder of text collections: $ENDONYM_SHARED/data, or shared/data beside the repository."""
    return Path(os.environ.get("ENDONYM_SHARED") or ROOT.parent / "shared") / "data"


def run(
    language: str, size: int, threads: int, repeats: int, folder: Path, note, *,
    peers: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """The comparison of one language: rows of learning, then rows of encoding."""
    learn, held_out = texts(language, BYTES_A_TOKEN * size)
    (folder / "learn.json").write_text(json.dumps(learn), encoding="utf-8")
    (folder / "held_out.json").write_text(json.dumps(held_out), encoding="utf-8")
    spec = {"folder": str(folder), "language": language, "size": size}
    result = {
        "language": language,
        "size": size,
        "threads": threads,
        "repeats": repeats,
        "learnt_bytes": _bytes(learn),
        "held_out_bytes": _bytes(held_out),
    }
    _base(min(BASE, size // 2)).save(folder / "base")
    learners = _learners(spec, language, peers)
    learning = compare(learners, [{"key": "learn"}], repeats=repeats, threads=threads, note=note)
    encoders = _encoders(spec, learners, peers)
    encoding = compare(encoders, [{"key": "encode"}], repeats=repeats, threads=threads, note=note)
    _same_ids(encoders, encoding)
    result["learn"] = _rows(learners, learning, "learn", _bytes(learn))
    result["encode"] = _rows(encoders, encoding, "encode", _bytes(learn))
    # Last, for a process starts with the peak of the one that started it.
    for arm, row in zip(learners, result["learn"]):
        made = Tokenizer.load(folder / arm.spec["out"])
        row["vocab_size"] = made.vocab_size
        row["bytes_per_token"] = bytes_per_token(made, held_out)
    return result


def texts(language: str, limit: int) -> tuple[list[str], list[str]]:
    """Texts to learn from, `limit` bytes at most, and texts held out, in an order by their hashes."""
    from endonym.tokenizer.corpus import Corpus

    hashed = sorted((hashlib.md5(text.encode()).hexdigest(), text) for text in _read(language))
    learn = [text for digest, text in hashed if int(digest[:8], 16) % HELD_OUT]
    held_out = [text for digest, text in hashed if not int(digest[:8], 16) % HELD_OUT]
    return list(Corpus(learn, limit=limit)), list(Corpus(held_out, limit=limit))


def _read(language: str) -> Iterator[str]:
    if language == "en":
        from pydoc_data.topics import topics

        yield from topics.values()
        return
    for name in TEXTS[language]:
        file = data() / "text" / language / f"{name}.jsonl.gz"
        if not file.is_file():
            raise DataError(
                "the benchmark's text is not there",
                where=file,
                do="set ENDONYM_SHARED to the folder that holds data/text",
            )
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            yield from (json.loads(line)["text"] for line in lines)


def _base(size: int) -> Tokenizer:
    from endonym.tokenizer.train import train

    return train(_read("en"), size)


def _learners(spec: dict[str, Any], language: str, peers: bool) -> list[Arm]:
    kinds = {"Endonym": {}}
    if language == "th":
        kinds["Endonym, with words"] = {"words": True}
    kinds["Endonym, superwords"] = {"superwords": True}
    kinds["Endonym, extending"] = {"extend": True}
    if peers:
        kinds |= {f"tokenizers, {name} pattern": {"pattern": name} for name in ("GPT-2", "GPT-4")}
    return [
        Arm(name, f"benchmarks.tokenizers:{'stock' if 'pattern' in kind else 'endonym'}",
            {**spec, **kind, "out": f"made{n}"})
        for n, (name, kind) in enumerate(kinds.items())
    ]  # fmt: skip


def _encoders(spec: dict[str, Any], learners: Sequence[Arm], peers: bool) -> list[Arm]:
    made = {arm.name: str(Path(spec["folder"]) / arm.spec["out"]) for arm in learners}
    arms = [Arm("Endonym", "benchmarks.tokenizers:encode", {**spec, "tokenizer": made["Endonym"]})]
    if peers:
        own = {**spec, "tokenizer": made["Endonym"]}
        arms.append(Arm("transformers", "benchmarks.tokenizers:encode_hf", own))
    loose = {**spec, "tokenizer": made["Endonym, superwords"]}
    arms.append(Arm("Endonym, superwords", "benchmarks.tokenizers:encode", loose))
    if peers and (ranks := data() / RANKS).is_file():
        given = {**spec, "tokenizer": str(ranks)}
        arms.append(Arm("Endonym, cl100k", "benchmarks.tokenizers:encode", given))
        arms.append(Arm("tiktoken, cl100k", "benchmarks.tokenizers:encode_tiktoken", given))
    return arms


def _rows(arms: Sequence[Arm], records: dict, key: str, size: int) -> list[dict[str, Any]]:
    ours = records[arms[0].name]
    return [
        {
            "arm": arm.name,
            "mb_per_cpu_second": spread([size / 1e6 / cpu for cpu in one.cpu[key]]),
            "mb_per_second": spread([size / 1e6 / wall for wall in one.wall[key]]),
            "cpu_ratio": ratios(ours.cpu[key], one.cpu[key]),
            "wall_ratio": ratios(ours.wall[key], one.wall[key]),
            "peak_bytes": one.peak_bytes,
            "before_bytes": one.ready["peak_bytes"],
            "peak_ratio": one.peak_bytes / ours.peak_bytes,
        }
        for arm in arms
        for one in [records[arm.name]]
    ]


def _same_ids(arms: Sequence[Arm], records: dict) -> None:
    """DataError unless arms with the same vocabulary gave the same ids."""
    told: dict[str, tuple[str, str]] = {}
    for arm in arms:
        ids = records[arm.name].ready["ids"]
        first, wanted = told.setdefault(arm.spec["tokenizer"], (arm.name, ids))
        if ids != wanted:
            raise DataError(
                "two arms encode otherwise, so their speeds cannot be compared",
                where=f"{first} and {arm.name}",
                wanted="equal ids",
            )


def bytes_per_token(tokenizer: Tokenizer, given: Sequence[str]) -> float:
    """UTF-8 bytes over tokens, a corpus ratio."""
    return _bytes(given) / sum(map(len, tokenizer.encode_batch(given, literal=True)))


def _bytes(given: Sequence[str]) -> int:
    return sum(len(text.encode()) for text in given)


# The arms, each in a process of its own


def endonym(spec: dict[str, Any], turns: Turns) -> None:
    """train() or extend(), as the stages run them."""
    from endonym.lang import segment
    from endonym.lang.script import script_ranges
    from endonym.tokenizer.extend import extend
    from endonym.tokenizer.train import train

    folder, size, language = Path(spec["folder"]), spec["size"], spec["language"]
    base = Tokenizer.load(folder / "base")
    words = segment.segmenter(language) if spec.get("words") else None

    def learn(given: list[str]) -> Tokenizer:
        if spec.get("extend"):
            return extend(base, given, size, script=script_ranges(language)).tokenizer
        start = round(size * EARLIER) if spec.get("superwords") else None
        return train(given, size, words, superwords_from=start)

    def forget() -> None:  # words remembered from the turn before would flatter us
        if words is not None:
            segment._cut.cache_clear()

    _learn(spec, turns, learn, forget)


def stock(spec: dict[str, Any], turns: Turns) -> None:
    """tokenizers' BpeTrainer over ByteLevel, the text as it is."""
    from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Backend

    from endonym.tokenizer import families
    from endonym.tokenizer.pretokenize import GPT2

    pattern = GPT2 if spec["pattern"] == "GPT-2" else families.CL100K

    def learn(given: list[str]) -> Tokenizer:
        backend = Backend(models.BPE())
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=spec["size"],
            min_frequency=2,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        backend.train_from_iterator(given, trainer)
        return Tokenizer(backend, {})

    _learn(spec, turns, learn)


def _learn(
    spec: dict[str, Any],
    turns: Turns,
    learn: Callable[[list[str]], Tokenizer],
    forget: Callable[[], None] = lambda: None,
) -> None:
    from benchmarks.machine import peak_bytes

    folder = Path(spec["folder"])
    given = json.loads((folder / "learn.json").read_text(encoding="utf-8"))
    learn(given[:2])
    turns.ready(peak_bytes=peak_bytes())
    while True:
        forget()
        turns.wait()
        made = learn(given)
        turns.done()
        made.save(folder / spec["out"])


def encode(spec: dict[str, Any], turns: Turns) -> None:
    """Tokenizer.encode_batch."""
    from endonym.tokenizer.read import read

    tokenizer = read(spec["tokenizer"])
    _encode(spec, turns, lambda batch: tokenizer.encode_batch(batch, literal=True))


def encode_hf(spec: dict[str, Any], turns: Turns) -> None:
    """AutoTokenizer's call on a batch."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(spec["tokenizer"])
    _encode(
        spec,
        turns,
        lambda batch: tokenizer(
            batch,
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"],
    )


def encode_tiktoken(spec: dict[str, Any], turns: Turns) -> None:
    """tiktoken over the rank file, with the family's pattern."""
    import tiktoken

    from endonym.tokenizer import families

    rows = (line.split() for line in Path(spec["tokenizer"]).read_bytes().splitlines())
    encoding = tiktoken.Encoding(
        "cl100k",
        pat_str=families.CL100K,
        mergeable_ranks={base64.b64decode(token): int(rank) for token, rank in rows},
        special_tokens={},
    )
    _encode(
        spec,
        turns,
        lambda batch: encoding.encode_ordinary_batch(batch, num_threads=spec["threads"]),
    )


def _encode(
    spec: dict[str, Any], turns: Turns, work: Callable[[list[str]], list[list[int]]]
) -> None:
    from benchmarks.machine import peak_bytes

    given = json.loads((Path(spec["folder"]) / "learn.json").read_text(encoding="utf-8"))
    sample = json.dumps([list(ids) for ids in work(given[:BATCH])])
    turns.ready(ids=hashlib.sha256(sample.encode()).hexdigest(), peak_bytes=peak_bytes())
    while True:
        turns.wait()
        for start in range(0, len(given), BATCH):
            work(given[start : start + BATCH])
        turns.done()
