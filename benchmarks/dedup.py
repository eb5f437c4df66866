"""Near duplicates found and rows per processor second, beside datatrove's MinHash pipeline.

    python -m benchmarks.dedup DATA          DATA/text/{th,ko,en}/*.jsonl.gz with a field "text"

Originals of each language (near duplicates among them removed by comparing all pairs) are given one
altered copy each, and as hard negatives splices of the first half of one and the second half of
another. All of it passes through each arm. recall: copies dropped or that made their
original drop, by kind of change. precision: such copies among all rows dropped.

datatrove runs its four steps in this process, without executors, on text in memory, temporary files
on disk. Its words: Thai by pythainlp as it chooses itself; Korean and English between spaces, the
fastest there is (its Kiwi setting does not load with current models, its English one needs spaCy).
"""

import argparse
import gzip
import itertools
import json
import random
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import machine
from endonym.core.artifact import write_atomic
from endonym.data.dedup import Deduplicator
from endonym.data.document import Document

SOURCES = {
    "th": "text/th/thaigov_v2.jsonl.gz",
    "ko": "text/ko/petitions.jsonl.gz",
    "en": "text/en/gutenberg_books.jsonl.gz",
}
LONGEST = 4000
"""Characters of an original, at most."""
RATES = (0.01, 0.02, 0.05, 0.1, 0.2)
ALIKE = 0.2
"""Originals whose sets of five characters are this similar or more are not both taken."""


# --- material ---------------------------------------------------------------------------------------


def originals(data: Path, language: str, rows: int) -> list[str]:
    with gzip.open(data / SOURCES[language], "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    random.Random(0).shuffle(texts)
    texts = [text[:LONGEST] for text in texts if len(text) >= 300][: 2 * rows]
    kept: list[tuple[str, set[int]]] = []
    for text in texts:
        plain = "".join(filter(str.isalnum, text.casefold()))
        grams = {hash(plain[at : at + 5]) for at in range(len(plain))}
        if all(len(grams & other) < ALIKE * len(grams | other) for _, other in kept):
            kept.append((text, grams))
        if len(kept) == rows:
            break
    return [text for text, _ in kept]


def characters(rate: float) -> Callable[[str, random.Random, str], str]:
    """Of all characters `rate` are replaced (half), left out or doubled by another."""

    def change(text: str, rng: random.Random, letters: str) -> str:
        out = []
        for character in text:
            if rng.random() >= rate:
                out.append(character)
            elif (way := rng.random()) < 0.5:
                out.append(rng.choice(letters))
            elif way < 0.75:
                out += [character, rng.choice(letters)]
        return "".join(out)

    return change


def sentences(rate: float) -> Callable[[str, random.Random, str], str]:
    """Stretches between marks or, in Thai, spaces are left out."""

    def change(text: str, rng: random.Random, letters: str) -> str:
        has_marks = len(re.findall(r"[.!?]\s", text)) > 5
        parts = re.split(r"(?<=[.!?\n])\s+" if has_marks else r"(?<=\s)", text)
        kept = [part for part in parts if rng.random() >= rate]
        return (" " if has_marks else "").join(kept or parts)

    return change


def header(share: float) -> Callable[[str, random.Random, str], str]:
    """Foreign text of `share` of the length stands before it."""

    def change(text: str, rng: random.Random, letters: str) -> str:
        at = rng.randrange(len(letters) - LONGEST)
        return letters[at : at + int(share * len(text))] + "\n" + text

    return change


def dressed(text: str, rng: random.Random, letters: str) -> str:
    """The same letters with other spaces and punctuation."""
    return re.sub(r"[.,]", " ;", text).replace(" ", "  ").upper() + "!"


CHANGES = {
    "layout": dressed,
    **{f"characters {rate:.0%}": characters(rate) for rate in RATES},
    "sentences 10%": sentences(0.1),
    "sentences 30%": sentences(0.3),
    "header 10%": header(0.1),
    "header 30%": header(0.3),
}


def planted(texts: list[str]) -> list[tuple[str, int, str]]:
    """(text, number of its original, kind of change), shuffled; "" an original. The
    negatives, "splice", come last, so that no original is dropped for one of them."""
    rng, letters = random.Random(1), "".join(texts)
    rows = [(text, number, "") for number, text in enumerate(texts)]
    for number, (text, kind) in enumerate(zip(texts, itertools.cycle(CHANGES))):
        rows.append((CHANGES[kind](text, rng, letters), number, kind))
    rng.shuffle(rows)
    for one, other in itertools.islice(itertools.pairwise(texts), 0, None, 4):
        rows.append((one[: len(one) // 2] + other[len(other) // 2 :], -1, "splice"))
    return rows


# --- arms -------------------------------------------------------------------------------------------


def endonym(texts: list[str], language: str, **settings: Any) -> set[int]:
    """The places of the rows that are kept."""
    rows = [Document(str(place), text) for place, text in enumerate(texts)]
    return {int(row.id) for row in Deduplicator(**settings)(rows)}


def datatrove(texts: list[str], language: str, n_grams: int) -> set[int]:
    from datatrove.data import Document as Theirs
    from datatrove.pipeline.dedup import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from xxhash import xxh64_intdigest

    config = MinhashConfig(n_grams=n_grams)
    rows = [Theirs(text=text, id=str(place)) for place, text in enumerate(texts)]
    with tempfile.TemporaryDirectory(prefix="endonym-bench-") as scratch:
        places = [f"{scratch}/{name}" for name in ("signatures", "buckets", "remove")]
        signature = MinhashDedupSignature(places[0], config, language="th")
        if language != "th":
            signature.word_tokenizer = BetweenSpaces()
        # datatrove 0.10 hands text to xxhash, which takes bytes alone from version 4 on
        signature._hash_func = lambda text: xxh64_intdigest(text.encode())
        signature.run(rows, 0, 1)
        buckets = MinhashDedupBuckets(places[0], places[1], config=config)
        for bucket in range(config.num_buckets):
            buckets.run(None, bucket, config.num_buckets)
        MinhashDedupCluster(places[1], places[2], config).run(None, 0, 1)
        return {int(row.id) for row in MinhashDedupFilter(places[2]).run(rows, 0, 1)}


class BetweenSpaces:
    def word_tokenize(self, text: str) -> list[str]:
        return text.split()


ARMS: dict[str, tuple[Callable, dict[str, Any]]] = {
    "endonym 0.7": (endonym, {"similarity": 0.7}),
    "endonym 0.5": (endonym, {"similarity": 0.5}),
    "endonym 0.7, words": (endonym, {"similarity": 0.7, "shingle": "words"}),
    "endonym 0.7, characters": (endonym, {"similarity": 0.7, "shingle": "characters"}),
    "datatrove, 5 words": (datatrove, {"n_grams": 5}),
    "datatrove, 2 words": (datatrove, {"n_grams": 2}),
}


# --- measuring --------------------------------------------------------------------------------------


def judged(rows: list[tuple[str, int, str]], kept: set[int]) -> dict[str, Any]:
    """A pair is found when exactly one of an original and its copy is left."""
    whole, kinds, found, wrong = Counter(), {}, Counter(), 0
    dropped_of: dict[int, int] = Counter()
    for place, (_, number, kind) in enumerate(rows):
        if kind and kind != "splice":
            kinds[number] = kind
            whole[kind] += 1
        if place not in kept:
            if kind == "splice":
                wrong += 1
            else:
                dropped_of[number] += 1
    for number, times in dropped_of.items():
        found[kinds[number]] += 1
        wrong += times - 1
    right = sum(found.values())
    return {
        "recall": {kind: round(found[kind] / whole[kind], 3) for kind in CHANGES if whole[kind]},
        "recall_of_all": round(right / sum(whole.values()), 4),
        "precision": round(right / max(right + wrong, 1), 4),
        "wrong": wrong,
    }


def measure(data: Path, languages: list[str], rows: int, repeats: int) -> list[dict[str, Any]]:
    results = []
    for language in languages:
        material = planted(originals(data, language, rows))
        texts = [text for text, _, _ in material]
        seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
        kept: dict[str, set[int]] = {}
        for turn in range(repeats + 1):
            for arm, (function, settings) in ARMS.items():
                few = texts[:20] if not turn else texts  # the first turn loads dictionaries
                began = time.process_time()
                kept[arm] = function(few, language, **settings)
                if turn:
                    seconds[arm].append(time.process_time() - began)
        for arm in ARMS:
            results.append(
                {
                    "language": language,
                    "arm": arm,
                    "rows": len(texts),
                    "characters": sum(map(len, texts)),
                    "rows_per_cpu_second": round(len(texts) / min(seconds[arm])),
                    "cpu_seconds": [round(value, 3) for value in seconds[arm]],
                    **judged(material, kept[arm]),
                }
            )
    return results


def table(results: list[dict[str, Any]]) -> str:
    kinds = list(results[0]["recall"])
    lines = [
        "language  arm                      rows/CPU-s  precision  recall  " + "  ".join(kinds)
    ]
    for row in results:
        each = "  ".join(f"{row['recall'][kind]:{len(kind)}.2f}" for kind in kinds)
        lines.append(
            f"{row['language']:8}  {row['arm']:23}  {row['rows_per_cpu_second']:10}  "
            f"{row['precision']:9.3f}  {row['recall_of_all']:6.3f}  {each}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dedup")
    parser.add_argument("data", type=Path, help="the folder that holds text/")
    parser.add_argument("--languages", nargs="*", default=list(SOURCES), choices=list(SOURCES))
    parser.add_argument("--rows", type=int, default=500, help="originals of each language")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="JSON instead of the table")
    parser.add_argument("--write", type=Path, help="a JSON file to write as well")
    given = parser.parse_args()
    from loguru import logger

    logger.disable("datatrove")
    versions = {
        name: machine.version(name) for name in ("rensa", "datatrove", "pythainlp", "numpy")
    }
    result = {
        "machine": machine.describe() | {"versions": versions},
        "results": measure(given.data, given.languages, given.rows, given.repeats),
    }
    as_json = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    if given.write:
        write_atomic(given.write, as_json.encode())
    print(as_json if given.json else table(result["results"]))


if __name__ == "__main__":
    main()
