"""What superwords gain over plain BPE of the same size: `python -m benchmarks.superbpe DATA`.

Learnt from Korean, English, Thai and Python code in equal parts of bytes; measured as bytes per token
on documents held out: whole books, acts and laws, a tenth of them by the hash of their name. DATA is the
folder of the project's text collections (text/ko, text/en, text/th); the code is the standard library of
the Python that runs this, tests left out, held out by module.
"""

import argparse
import gzip
import hashlib
import json
import sys
import sysconfig
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import machine
from endonym.core.artifact import write_atomic
from endonym.lang.segment import segmenter
from endonym.tokenizer import corpus, superbpe
from endonym.tokenizer.corpus import Segmenter
from endonym.tokenizer.folder import Tokenizer
from endonym.tokenizer.pretokenize import PHRASE
from endonym.tokenizer.train import train


def _book(row: dict) -> str:
    return row["id"].split("-")[0]


def _law(row: dict) -> str:
    return row["id"].split("/")[0]


def _act(row: dict) -> str:
    return row["title"]


def _document(row: dict) -> str:
    return row["id"]


SOURCES: dict[str, dict[str, Callable[[dict], str]]] = {
    "ko": {"petitions": _document, "law_kr": _law, "boddari_mixed": _document, "nsmc_reviews": _document},
    "en": {"gutenberg_books": _book, "wikitext2_valid_test": _document},
    "th": {"thaigov_v2": _document, "thai_law_acts": _act, "wisesight_social": _document},
}  # fmt: skip
"""Files by language, and what of a row is held out together."""

STARTS = (0.9, 0.8, 0.4)
"""Where superwords begin, as shares of the vocabulary: 0.9 and 0.4 are the paper's two, and 0.8 is
near K-EXAONE's (122,880 of 153,600, our reading)."""


HELD_OUT = 10
"""One group of documents in this many is not learnt from."""


def read(data: Path, limit: int) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """By language: texts to learn from, about `limit` bytes, and texts held out, a quarter of that.

    Groups stand in the order of their names' hashes, so that the files of a language are mixed.
    """
    learn, held_out = {}, {}
    for language, groups in {
        **{name: _texts(data, name) for name in SOURCES},
        "code": _code(),
    }.items():
        hashed = sorted(
            (hashlib.md5(name.encode()).hexdigest(), texts) for name, texts in groups.items()
        )
        is_held_out = [int(digest[:8], 16) % HELD_OUT == 0 for digest, _ in hashed]
        sides = [[text for held, (_, texts) in zip(is_held_out, hashed) if held is side for text in texts]
                 for side in (False, True)]  # fmt: skip
        learn[language] = list(corpus.Corpus(sides[0], limit=limit))
        held_out[language] = list(corpus.Corpus(sides[1], limit=limit // 4))
    return learn, held_out


def _texts(data: Path, language: str) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name, group in SOURCES[language].items():
        with gzip.open(
            data / "text" / language / f"{name}.jsonl.gz", "rt", encoding="utf-8"
        ) as file:
            for row in map(json.loads, file):
                groups.setdefault(f"{name}/{group(row)}", []).append(row["text"])
    return groups


def _code() -> dict[str, list[str]]:
    root, groups = Path(sysconfig.get_paths()["stdlib"]), {}
    for file in sorted(root.rglob("*.py")):
        parts = file.relative_to(root).parts
        if not {"site-packages", "test", "tests", "lib2to3"} & set(parts):
            text = file.read_text(encoding="utf-8", errors="ignore")
            groups.setdefault(parts[0], []).append(text)
    return groups


def bytes_per_token(tokenizer: Tokenizer, texts: list[str]) -> float:
    """UTF-8 bytes over tokens, a corpus ratio."""
    tokens = sum(map(len, tokenizer.encode_batch(texts, literal=True)))
    return sum(len(text.encode()) for text in texts) / tokens


def measure(data: Path, size: int, limit: int, words_at_most: int = 4) -> dict[str, Any]:
    """Bytes per token on held-out texts by language: plain BPE, and superwords from each of STARTS."""
    learn, held_out = read(data, limit)
    mixed = corpus.Corpus(corpus.Mixture(learn, dict.fromkeys(learn, 1)))
    arms = [
        {"segment": segment, "start": start} for segment in (True, False) for start in (1, *STARTS)
    ]
    rows, segment = [], segmenter("th")
    for arm in arms:
        cpu, words = machine.cpu_seconds(), segment if arm["segment"] else None
        made = train(
            mixed,
            size,
            words,
            superwords_from=round(size * arm["start"]),
            words_at_most=words_at_most,
        )
        cpu = machine.cpu_seconds() - cpu
        row = {
            **arm,
            "vocab_size": made.vocab_size,
            "superwords": superwords(made, words),
            "train_cpu_s": round(cpu, 1),
            "bytes_per_token": {
                name: bytes_per_token(made, texts) for name, texts in held_out.items()
            },
        }
        plain = next((each for each in rows if each["segment"] == arm["segment"]), row)[
            "bytes_per_token"
        ]
        row["gain"] = {
            name: value / plain[name] - 1 for name, value in row["bytes_per_token"].items()
        }
        print(json.dumps(row), file=sys.stderr, flush=True)
        rows.append(row)
    return {
        "size": size,
        "words_at_most": words_at_most,
        "words_of_a_phrase": PHRASE,
        "learnt_bytes": {name: _bytes(texts) for name, texts in learn.items()},
        "held_out_bytes": {name: _bytes(texts) for name, texts in held_out.items()},
        "rows": rows,
    }


def superwords(tokenizer: Tokenizer, segment: Segmenter | None) -> dict[int, int]:
    """Number of tokens by the number of words they touch, from two on."""
    counts = Counter(
        superbpe.words_of(text.strip(), segment)
        for text in map(
            tokenizer.backend.decoder.decode, ([token] for token in tokenizer.backend.get_vocab())
        )
        if text.strip()
    )
    return {words: counts[words] for words in sorted(counts) if words > 1}


def _bytes(texts: list[str]) -> int:
    return sum(len(text.encode()) for text in texts)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.superbpe")
    parser.add_argument("data", type=Path, help="the folder that holds text/")
    parser.add_argument("--size", type=int, default=32_000)
    parser.add_argument("--megabytes", type=int, default=8, help="of each language to learn from")
    parser.add_argument("--words-at-most", type=int, default=4)
    parser.add_argument("--write", type=Path, help="the JSON file to write")
    given = parser.parse_args()
    result = measure(given.data, given.size, given.megabytes * 10**6, given.words_at_most)
    as_json = json.dumps({"machine": machine.describe(), **result}, indent=1) + "\n"
    if given.write:
        write_atomic(given.write, as_json.encode())
    print(as_json, end="")


if __name__ == "__main__":
    main()
