"""python -m benchmarks.languages DATA: how lang/ sees real text, and how fast.

DATA is a folder of real texts (text/, parallel/, instruct/, preference/ with .jsonl and .jsonl.gz
files); none comes with the package. Markdown tables go to standard output; --write FILE puts every
figure there as JSON.

    identify    right guesses and confusions by source, beside py3langid alone; speed and memory
    normalize   rows that each rule changes; where pythainlp's normalize differs from ours
    switches    code-switching by the three measures of lang/script.py
    units       speed of words, sentences, syllables, graphemes; their number

Every part and every speed runs in a process of its own, so that memory and caches are its own.
"""

import argparse
import gzip
import json
import multiprocessing
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import languages_page, machine
from endonym.core.artifact import write_atomic
from endonym.core.errors import DataError, EndonymError

# Name, language, file, field; field "*": every string of the row, one a line.
SOURCES = [
    ("FLORES dev, devtest", "th", "parallel/flores200_dev*_en_th_ko.jsonl.gz", "th"),
    ("FLORES dev, devtest", "ko", "parallel/flores200_dev*_en_th_ko.jsonl.gz", "ko"),
    ("FLORES dev, devtest", "en", "parallel/flores200_dev*_en_th_ko.jsonl.gz", "en"),
    ("PUD", "th", "parallel/pud_en_th_ko.jsonl.gz", "th"),
    ("PUD", "ko", "parallel/pud_en_th_ko.jsonl.gz", "ko"),
    ("PUD", "en", "parallel/pud_en_th_ko.jsonl.gz", "en"),
    ("social media (Wisesight)", "th", "text/th/wisesight_social.jsonl.gz", "text"),
    ("government news", "th", "text/th/thaigov_v2.jsonl.gz", "text"),
    ("short sentences (Tatoeba)", "th", "parallel/tatoeba_anki_en_th.jsonl", "th"),
    ("film reviews (NSMC)", "ko", "text/ko/nsmc_reviews.jsonl.gz", "text"),
    ("petitions", "ko", "text/ko/petitions.jsonl.gz", "text"),
    ("talk (chatbot)", "ko", "instruct/ko/chatbot_songys.jsonl.gz", "instruction"),
    ("read prompts (Common Voice)", "en", "text/en/common_voice_sentences.jsonl.gz", "text"),
    ("short sentences (Tatoeba)", "en", "parallel/tatoeba_anki_en_th.jsonl", "en"),
]
MIXED = [
    ("social media, a fifth Latin or more", "th", "text/th/wisesight_social.jsonl.gz", "text"),
    ("film reviews, a fifth Latin or more", "ko", "text/ko/nsmc_reviews.jsonl.gz", "text"),
]
# CLDR's names and dates: short strings of languages of which no text is at hand.
GENERATED = ["th", "ko", "en", "lo", "km", "vi", "id", "mn", "ja", "zh"]
SPELT = [
    ("th", "text/th/*.jsonl*"),
    ("th", "preference/th/wangchanglm_pairs.jsonl.gz"),
    ("ko", "text/ko/*.jsonl*"),
]
SWITCHING = [
    ("FLORES dev, devtest", "th", "parallel/flores200_dev*_en_th_ko.jsonl.gz", "th"),
    ("social media (Wisesight)", "th", "text/th/wisesight_social.jsonl.gz", "text"),
    ("FLORES dev, devtest", "ko", "parallel/flores200_dev*_en_th_ko.jsonl.gz", "ko"),
    ("film reviews (NSMC)", "ko", "text/ko/nsmc_reviews.jsonl.gz", "text"),
    ("government news", "th", "text/th/thaigov_v2.jsonl.gz", "text"),
]
UNITS = [
    ("th", "words", ""),
    ("th", "sentences", ""),
    ("th", "sentences", "marks"),
    ("th", "syllables", ""),
    ("th", "graphemes", ""),
    ("th", "counts", ""),
    ("ko", "words", ""),
    ("ko", "words", "kiwi"),
    ("ko", "sentences", ""),
    ("ko", "sentences", "marks"),
    ("ko", "syllables", ""),
    ("ko", "graphemes", ""),
    ("ko", "counts", ""),
    ("en", "words", ""),
    ("en", "sentences", ""),
    ("en", "graphemes", ""),
    ("en", "counts", ""),
    ("th", "normalize", ""),
    ("ko", "normalize", ""),
]
SAMPLE = {
    "th": ["text/th/thaigov_v2.jsonl.gz", "text/th/wisesight_social.jsonl.gz"],
    "ko": ["text/ko/petitions.jsonl.gz", "text/ko/nsmc_reviews.jsonl.gz"],
    "en": ["text/en/gutenberg_books.jsonl.gz", "text/en/wikitext2_valid_test.jsonl.gz"],
}
SAMPLE_BYTES = 1_000_000
"""Of each file of SAMPLE, in whole rows."""

PARTS: dict[str, Callable[..., Any]] = {}


def part(function: Callable[..., Any]) -> Callable[..., Any]:
    PARTS[function.__name__] = function
    return function


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.languages", description="How lang/ sees real text, how fast."
    )
    parser.add_argument("data", type=Path, help="the folder of real texts")
    parser.add_argument("--part", choices=sorted(PARTS), action="append", help="default: all")
    parser.add_argument("--write", type=Path, help="put every figure into this JSON file")
    given = parser.parse_args(arguments)
    try:
        if not given.data.is_dir():
            raise DataError("there is no folder of data", where=given.data)
        result = {"machine": machine.describe(), "sample_bytes": SAMPLE_BYTES}
        result |= {name: PARTS[name](given.data) for name in given.part or PARTS}
        result["load_after"] = machine.load()
    except EndonymError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if given.write:
        write_atomic(
            given.write, (json.dumps(result, indent=1, ensure_ascii=False) + "\n").encode()
        )
    print(languages_page.page(result), end="")
    return 0


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns in a fresh process."""
    print(f"{function.__name__} {arguments[1:]}", file=sys.stderr)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def rows(data: Path, pattern: str, field: str) -> Iterator[str]:
    """The texts of every file that a pattern matches, in order."""
    files = sorted(data.glob(pattern))
    if not files:
        raise DataError("no file of the benchmark's data", where=data / pattern)
    for file in files:
        with (gzip.open if file.suffix == ".gz" else open)(file, "rt", encoding="utf-8") as opened:
            for line in opened:
                row = json.loads(line)
                yield row[field] if field != "*" else "\n".join(_strings(row))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)


# --- identify


@part
def identify(data: Path) -> dict[str, Any]:
    return {
        "rows": alone(_confusions, data),
        "speed": [alone(_identify_speed, data, *source) for source in SOURCES[:3]],
    }


def _confusions(data: Path) -> list[dict[str, Any]]:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    peer = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    sources = [
        (name, language, [text for text in rows(data, *where) if any(map(str.isalpha, text))])
        for name, language, *where in SOURCES
    ]
    for name, language, *where in MIXED:
        sources.append((name, language, [t for t in rows(data, *where) if _is_mixed(t)]))
    sources += [("CLDR names", language, _names(language)) for language in GENERATED]
    sources += [("CLDR dates", language, _dates(language)) for language in GENERATED]
    return [_confusion(peer, *source) for source in sources]


def _is_mixed(text: str) -> bool:
    from endonym.lang.script import shares

    found = shares(text)
    return found.get("Latn", 0) >= 0.2 and len(found) > 1


def _confusion(peer: Any, name: str, language: str, texts: list[str]) -> dict[str, Any]:
    from endonym.lang.identify import identify_many

    guesses = identify_many(texts)
    found = Counter(guess.language for guess in guesses)
    alone = Counter(peer.classify(text)[0] for text in texts)
    among = Counter(guess.language for guess in identify_many(texts, frozenset(GENERATED)))
    return {
        "source": name,
        "language": language,
        "texts": len(texts),
        "median_characters": statistics.median(map(len, texts)),
        "right": found[language] / len(texts),
        "by_script": sum(guess.how == "script" for guess in guesses) / len(texts),
        "guesses": dict(found.most_common(8)),
        "right_among": among[language] / len(texts),
        "guesses_among": dict(among.most_common(8)),
        "py3langid_right": alone[language] / len(texts),
        "py3langid_guesses": dict(alone.most_common(8)),
    }


def _names(language: str) -> list[str]:
    """CLDR's names of territories, languages, months and days that are written in letters."""
    from babel import Locale

    locale = Locale.parse(language)
    names = [*locale.territories.values(), *locale.languages.values()]
    names += [*locale.months["format"]["wide"].values(), *locale.days["format"]["wide"].values()]
    return sorted({name for name in names if name and any(map(str.isalpha, name))})


def _dates(language: str) -> list[str]:
    """Every seventh day of two years, written out."""
    from datetime import date, timedelta

    from babel import Locale
    from babel.dates import format_date

    days = [date(2024, 1, 1) + timedelta(days=7 * week + week % 7) for week in range(104)]
    return [format_date(day, "full", locale=Locale.parse(language)) for day in days]


def _identify_speed(data: Path, name: str, language: str, *where: str) -> dict[str, Any]:
    from endonym.lang.identify import identify, identify_many

    texts = list(rows(data, *where))
    before = machine.peak_bytes()
    started = time.process_time()
    identify(texts[0])
    first = time.process_time() - started
    wall, started = time.perf_counter(), time.process_time()
    identify_many(texts)
    cpu, wall = time.process_time() - started, time.perf_counter() - wall
    return {
        "source": name,
        "language": language,
        "texts": len(texts),
        "first_cpu_s": first,
        "cpu_s_per_1000": 1000 * cpu / len(texts),
        "texts_per_s": len(texts) / wall,
        "peak_bytes": machine.peak_bytes(),
        "peak_bytes_before": before,
    }


# --- normalize


@part
def normalize(data: Path) -> dict[str, Any]:
    return {
        "rules": [alone(_rules, data, *source) for source in SPELT],
        "pythainlp": [alone(_beside_pythainlp, data, pattern) for _, pattern in SPELT[:2]],
    }


def _rules(data: Path, language: str, pattern: str) -> dict[str, Any]:
    import unicodedata

    from endonym.lang.normalize import RULES
    from endonym.lang.normalize import normalize as whole
    from endonym.lang.pack import pack

    found: Counter[str] = Counter()
    total = 0
    for text in rows(data, pattern, "*"):
        total += 1
        composed = unicodedata.normalize("NFC", text)
        found["nfc"] += composed != text
        for name in pack(language).normalize:
            found[name] += RULES[name](composed) != composed
        once = whole(text, language)
        found["any"] += once != text
        found["not idempotent"] += whole(once, language) != once
    return {"language": language, "files": pattern, "rows": total, "changed": dict(found)}


def _beside_pythainlp(data: Path, pattern: str) -> dict[str, Any]:
    """Rows that each step of pythainlp's normalize still changes after ours, and each of our rules
    after pythainlp's."""
    from pythainlp.util.normalize import (
        normalize as theirs,
    )
    from pythainlp.util.normalize import (
        remove_dangling,
        remove_dup_spaces,
        remove_repeat_vowels,
        remove_spaces_before_marks,
        remove_zw,
        reorder_vowels,
    )

    from endonym.lang.normalize import RULES
    from endonym.lang.normalize import normalize as ours
    from endonym.lang.pack import pack

    steps = [remove_zw, remove_dup_spaces, remove_spaces_before_marks, reorder_vowels]
    steps += [remove_repeat_vowels, remove_dangling]
    after_ours: Counter[str] = Counter()
    after_theirs: Counter[str] = Counter()
    examples: dict[str, list[list[str]]] = {}
    total = unstable = 0
    for text in rows(data, pattern, "*"):
        total += 1
        mine, other = ours(text, "th"), theirs(text)
        unstable += theirs(other) != other
        for step in steps:
            # remove_repeat_vowels begins with reorder_vowels: what is its own alone.
            base = reorder_vowels(mine) if step is remove_repeat_vowels else mine
            changed = step(base)
            if changed != base:
                after_ours[step.__name__] += 1
                _keep(examples, step.__name__, base, changed)
        for name in pack("th").normalize:
            changed = RULES[name](other)
            if changed != other:
                after_theirs[name] += 1
                _keep(examples, name, other, changed)
    return {
        "files": pattern,
        "rows": total,
        "pythainlp_not_idempotent": unstable,
        "pythainlp_changes_ours": dict(after_ours),
        "ours_changes_pythainlp": dict(after_theirs),
        "examples": examples,
    }


def _keep(examples: dict[str, list[list[str]]], name: str, before: str, after: str) -> None:
    """Four examples of a step: 15 characters on each side of the first difference."""
    kept = examples.setdefault(name, [])
    if len(kept) < 4:
        at = next((i for i, (x, y) in enumerate(zip(before, after)) if x != y), len(after))
        kept.append([each[max(0, at - 15) : at + 15] for each in (before, after)])


# --- switches


@part
def switches(data: Path) -> list[dict[str, Any]]:
    return alone(_switching, data)


def _switching(data: Path) -> list[dict[str, Any]]:
    from endonym.lang.script import foreign_share, in_language
    from endonym.lang.script import switches as count

    found = []
    for name, language, *where in SWITCHING:
        texts = list(rows(data, *where))
        points = [count(text, language) for text in texts]
        found.append(
            {
                "source": name,
                "language": language,
                "texts": len(texts),
                "in_language": statistics.mean(in_language(text, language) for text in texts),
                "foreign_share": statistics.mean(foreign_share(text, language) for text in texts),
                "foreign_share_with_latin": statistics.mean(
                    foreign_share(text, language, latin=True) for text in texts
                ),
                "switches_per_text": statistics.mean(each.count for each in points),
                "switches_per_word": sum(each.count for each in points)
                / sum(each.words or 0 for each in points),
            }
        )
    return found


# --- units


@part
def units(data: Path) -> list[dict[str, Any]]:
    return [alone(_unit_speed, data, *case) for case in UNITS]


def _unit_speed(data: Path, language: str, unit: str, engine: str) -> dict[str, Any]:
    from endonym.lang import normalize as spelling
    from endonym.lang import segment

    calls: dict[str, Callable[[str], Any]] = {
        "words": lambda text: segment.words(text, language, engine),
        "sentences": lambda text: segment.sentences(text, language, engine),
        "syllables": lambda text: segment.syllables(text, language),
        "graphemes": segment.graphemes,
        "counts": lambda text: segment.counts(text, language),
        "normalize": lambda text: spelling.normalize(text, language),
    }
    call, texts = calls[unit], []
    for pattern in SAMPLE[language]:
        size = 0
        for text in rows(data, pattern, "text"):
            texts.append(text)
            size += len(text.encode())
            if size > SAMPLE_BYTES:
                break
    size = sum(len(text.encode()) for text in texts)
    before = machine.peak_bytes()
    started = time.process_time()
    call("กิน 밥 bread")  # libraries and models
    loading = time.process_time() - started
    seconds = []
    for _ in range(3):
        for cache in (segment._cut, segment._spell):
            cache.cache_clear()
        started = time.process_time()
        number = sum(len(call(text)) if unit in COUNTED else bool(call(text)) for text in texts)
        seconds.append(time.process_time() - started)
    known = segment.engines(language)
    return {
        "language": language,
        "unit": unit,
        "engine": engine or known.get(unit, ""),
        "bytes": size,
        "texts": len(texts),
        "number": number if unit in COUNTED else None,
        "loading_cpu_s": loading,
        "cpu_s": seconds,
        "mb_per_cpu_s": size / 1e6 / statistics.median(seconds),
        "peak_bytes": machine.peak_bytes(),
        "peak_bytes_before": before,
    }


COUNTED = {"words", "sentences", "syllables", "graphemes"}


if __name__ == "__main__":
    sys.exit(main())
