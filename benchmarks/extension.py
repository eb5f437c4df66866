"""python -m benchmarks.extension DATA: what extending real vocabularies gains, and what it changes.

TPC is tokens over Unicode code points, a corpus ratio, on text that the extension has not seen: news
split by document, law by act. No constitution is learnt from at all: they quote one another. FLORES
and PUD are measured on and never learnt from. `changed` counts texts of other languages whose ids
differ from the old tokenizer's. Each case runs in a process of its own, for its peak of memory.
"""

import argparse
import gzip
import hashlib
import json
import multiprocessing
import random
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import machine
from endonym.core.artifact import write_atomic

SEED = 0
HELD_OUT = 15
"""Per cent of the documents."""
ADDED = 32_000
PUBLISHED = {"JAI-1": 0.2913, "phi-3": 1.0311, "Qwen": 0.5491, "Llama-3": 0.4651}
"""TPC on WangchanThaiInstruct, arXiv:2510.08620, table 1 (Qwen is Qwen3, the same vocabulary as 2)."""


@dataclass(frozen=True)
class Case:
    """An extension by `added` tokens in all; `words`: no merge crosses a word of the segmenter."""

    base: str
    language: str
    words: bool = False
    added: int = ADDED
    keep: float = 1.0


CASES = [
    *(
        Case(base, "th", words)
        for base in ("phi-3-mini", "qwen2", "llama3")
        for words in (False, True)
    ),
    *(Case(base, "ko") for base in ("phi-3-mini", "qwen2", "llama3")),
    Case("phi-3-mini", "en"),
    *(Case(base, "th", False, 0, 0.7) for base in ("qwen2", "llama3")),
    Case("phi-3-mini", "th", False, ADDED, 0.7),
]

# Universal Declaration of Human Rights, article 1, and what else no file of the data has.
SNIPPETS = {
    "Chinese, Japanese": [
        "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",
        "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
        "2024年3月15日（金）、東京で「AI」会議が開かれた。ｶﾀｶﾅ、ﾊﾝｶｸ。",
        "中文，标点；“引号”——破折号……价格：￥1,234.50元。",
    ],
    "Vietnamese, Indonesian": [
        "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền lợi.",
        "Semua orang dilahirkan merdeka dan mempunyai martabat dan hak-hak yang sama.",
    ],
    "Lao, Khmer, Burmese, Hindi": [
        "ມະນຸດທຸກຄົນເກີດມາມີກຽດສັກສີ, ສິດທິ, ເສລີພາບ ແລະ ຄວາມສະເໝີພາບເທົ່າທຽມກັນ.",
        "មនុស្សទាំងអស់ កើតមកមានសេរីភាព និងសមភាព ក្នុងផ្នែកសេចក្ដីថ្លៃថ្នូរនិងសិទ្ធិ។",
        "လူတိုင်းသည် တူညီ လွတ်လပ်သော ဂုဏ်သိက္ခာဖြင့် လည်းကောင်း၊ မွေးဖွားလာသူများ ဖြစ်သည်။",
        "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    ],
    "Arabic, Hebrew, Russian, Greek": [
        "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق.",
        "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם.",
        "Все люди рождаются свободными и равными в своём достоинстве и правах.",
        "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",
    ],
    "emoji, symbols": ["👩‍🚀👍🏽 ✓ → ∑x² ≤ ½ “a—b” 🇰🇷🇹🇭", "H₂O, E = mc², ℝⁿ, naïve café, ﬁ ﬂ"],
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.extension", description=__doc__)
    parser.add_argument("data", type=Path, help="the folder with text/, tokenizers/, parallel/")
    parser.add_argument("--case", type=int, action="append", help="numbers of cases (all)")
    parser.add_argument("--write", type=Path, help="file for the JSON")
    given = parser.parse_args(arguments)
    result = {
        "machine": machine.describe(),
        "seed": SEED,
        "held_out_per_cent": HELD_OUT,
        "published_tokens_per_character": PUBLISHED,
        "cases": [],
    }
    for number in given.case or range(len(CASES)):
        spawned = multiprocessing.get_context("spawn")  # a fresh process: its peak is the case's
        with ProcessPoolExecutor(1, mp_context=spawned) as pool:
            result["cases"].append(pool.submit(measure, CASES[number], given.data).result())
        print(line(result["cases"][-1]), file=sys.stderr)
        if given.write:
            text = json.dumps(result, ensure_ascii=False, indent=1) + "\n"
            write_atomic(given.write, text.encode())
    if not given.write:
        print(json.dumps(result, ensure_ascii=False, indent=1))
    return 0


def measure(case: Case, data: Path) -> dict[str, Any]:
    """One extension: its figures, TPC before and after by kind of text, seconds, memory."""
    from endonym.lang.script import script_ranges
    from endonym.lang.segment import segmenter
    from endonym.tokenizer.extend import extend
    from endonym.tokenizer.read import read

    old = read(data / "tokenizers" / case.base)
    learnt, held_out = corpora(case.language, data)
    checks = others(case.language, data)
    counted = usage(learnt, checks)
    if case.keep < 1:  # measured on the other half
        checks = {name: texts[1::2] for name, texts in checks.items()}
    wall, cpu, memory = time.monotonic(), machine.cpu_seconds(), machine.peak_bytes()
    grown = extend(
        old,
        learnt,
        old.vocab_size + case.added,
        script=script_ranges(case.language),
        segment=segmenter(case.language) if case.words else None,
        keep=case.keep,
        usage=counted,
    )
    spent = {
        "megabytes": sum(len(text.encode()) for text in learnt) / 1e6,
        "seconds": time.monotonic() - wall,
        "cpu_seconds": machine.cpu_seconds() - cpu,
        "peak_bytes": machine.peak_bytes(),
        "peak_bytes_before": memory,
    }
    return {
        **asdict(case),
        "sizes": [old.vocab_size, grown.tokenizer.vocab_size],
        "figures": grown.figures,
        "tokens_per_character": {
            name: [tokens_per_character(each, texts) for each in (old, grown.tokenizer)]
            for name, texts in held_out.items()
        },
        "other_text": {
            name: unchanged(old, grown.tokenizer, set(grown.dropped), texts)
            for name, texts in checks.items()
        },
        "spent": spent,
    }


def tokens_per_character(tokenizer: Any, texts: list[str]) -> float:
    tokens = sum(map(len, tokenizer.encode_batch(texts, literal=True)))
    return round(tokens / sum(map(len, texts)), 4)


def unchanged(old: Any, new: Any, dropped: set[int], texts: list[str]) -> dict[str, Any]:
    """compared(), and of the texts whose old tokens all stay, how many have other ids (none may)."""
    from endonym.tokenizer.extend import compared

    found = compared(old, new, texts)
    if dropped:
        lines = [line for text in texts for line in text.splitlines(keepends=True)]
        before, after = (each.encode_batch(lines, literal=True) for each in (old, new))
        whole = [(a, b) for a, b in zip(before, after) if dropped.isdisjoint(a)]
        found["lines"], found["lines_all_kept"] = len(lines), len(whole)
        found["lines_all_kept_changed"] = sum(a != b for a, b in whole)
    return found


def line(row: dict[str, Any]) -> str:
    """One case in one line."""
    rates = [f"{name} {a} -> {b}" for name, (a, b) in row["tokens_per_character"].items()]
    changed = sum(found["changed"] for found in row["other_text"].values())
    texts = sum(found["texts"] for found in row["other_text"].values())
    how = f"{row['base']} {row['language']} words={row['words']} keep={row['keep']}"
    return (
        f"{how}: {'; '.join(rates)}; changed {changed} of {texts}; "
        f"{row['spent']['seconds']:.0f} s, {row['spent']['peak_bytes'] / 2**20:.0f} MiB"
    )


# --- text ---------------------------------------------------------------------------------------


def corpora(language: str, data: Path) -> tuple[list[str], dict[str, list[str]]]:
    """(texts to learn from, kind of text -> texts to measure on)."""
    text, parallel = data / "text" / language, data / "parallel"
    held_out = {}
    if language == "th":
        news, held_out["news"] = split(text / "thaigov_v2.jsonl.gz", lambda row: row["id"])
        acts, held_out["law"] = split(text / "thai_law_acts.jsonl.gz", lambda row: row["title"])
        learnt = news + acts
        held_out["constitutions"] = texts(text / "thai_constitution.jsonl.gz")
        held_out["social media"] = texts(text / "wisesight_social.jsonl.gz")
    elif language == "ko":
        bodies = ("boddari_mixed", "petitions", "nsmc_reviews")
        parts = [split(text / f"{body}.jsonl.gz", lambda row: row["text"]) for body in bodies]
        law = split(text / "law_kr.jsonl.gz", lambda row: row["id"].split("/")[0])
        learnt = [each for part, _ in (*parts, law) for each in part]
        held_out |= {body: kept for body, (_, kept) in zip(bodies, parts)} | {"law": law[1]}
    else:  # the only text in Latin script here: what changes where no script can be named
        learnt, held_out["books"] = split(text / "gutenberg_books.jsonl.gz", lambda row: row["id"])
        learnt = learnt[:600]
    held_out["FLORES-200"] = texts(parallel / "flores200_devtest_en_th_ko.jsonl.gz", language)
    held_out["PUD"] = texts(parallel / "pud_en_th_ko.jsonl.gz", language)
    return learnt, held_out


def others(language: str, data: Path) -> dict[str, list[str]]:
    """Text of other languages, code, numbers and white space: kind -> texts."""
    text, evaluation = data / "text", data / "eval" / "en"
    found = {
        "English": texts(text / "en" / "wikitext2_valid_test.jsonl.gz")
        + texts(text / "en" / "gutenberg_books.jsonl.gz")[-300:],
        "Korean": texts(text / "ko" / "petitions.jsonl.gz")[:400]
        + texts(text / "ko" / "nsmc_reviews.jsonl.gz")[:2000],
        "Thai": texts(text / "th" / "thaigov_v2.jsonl.gz")[:300],
        "code": [
            row["prompt"] + row["canonical_solution"]
            for row in rows(evaluation / "humaneval.jsonl")
        ]
        + [row["code"] for row in rows(evaluation / "mbpp.jsonl.gz")],
        "numbers": numbers(random.Random(SEED)),
        "white space": white_space(random.Random(SEED)),
        **SNIPPETS,
    }
    own = {"th": "Thai", "ko": "Korean", "en": "English"}[language]
    return {name: each for name, each in found.items() if name != own}


def usage(learnt: list[str], checks: dict[str, list[str]]) -> list[str]:
    """What decides which old tokens stay: every other text of each kind, and some of the language."""
    return [text for texts in checks.values() for text in texts[::2]] + learnt[:300]


def numbers(draw: random.Random) -> list[str]:
    shapes = ["{}", "{:,}", "-{}.5", "0x{:x}", "{}%", "$ {:,}.00", "({}) {}", "{}:{}", "{}e-{}"]
    return [
        draw.choice(shapes).format(draw.randrange(10 ** draw.randint(1, 12)), draw.randrange(100))
        for _ in range(500)
    ]


def white_space(draw: random.Random) -> list[str]:
    kinds = [
        " ",
        "  ",
        "\t",
        "\n",
        "\r\n",
        "\n\n",
        "\u00a0",
        "\u200b",
        "\u3000",
        "x",
        "x = 1",
        "# a",
    ]
    return ["".join(draw.choices(kinds, k=draw.randint(1, 12))) for _ in range(500)]


def split(file: Path, key: Callable[[dict], str]) -> tuple[list[str], list[str]]:
    """(learnt, held out): all rows of one key on one side."""
    sides: tuple[list[str], list[str]] = ([], [])
    for row in rows(file):
        digest = hashlib.sha256(f"{SEED}:{key(row)}".encode()).digest()
        sides[int.from_bytes(digest[:4]) % 100 < HELD_OUT].append(row["text"])
    return sides


def texts(file: Path, field: str = "text") -> list[str]:
    return [row[field] for row in rows(file)]


def rows(file: Path) -> list[dict[str, Any]]:
    opened = gzip.open if file.suffix == ".gz" else open
    with opened(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


if __name__ == "__main__":
    sys.exit(main())
