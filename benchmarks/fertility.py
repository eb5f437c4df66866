"""python -m benchmarks.fertility DATA: what published tokenizers cost Thai, Korean, English and code.

DATA is a folder with text/, parallel/ and tokenizers/ (docs/tokenizers.md names the files). Writes
docs/results/tokenizers_measured.json and docs/img/tokenizers.svg; prints the tables of
docs/tokenizers.md. Nothing is trained here; FLORES and PUD are measured on, as they are meant.
"""

import argparse
import importlib.metadata
import json
import sys
import sysconfig
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from endonym.cli.corpora import sides
from endonym.core.artifact import write_atomic
from endonym.data.document import Document
from endonym.data.files import find
from endonym.data.read import Reading
from endonym.lang.segment import engines
from endonym.tokenizer import chart
from endonym.tokenizer.folder import Tokenizer
from endonym.tokenizer.measure import measure, premium, size
from endonym.tokenizer.read import read

SEED = 0
CHARACTERS = 400_000
"""Of a corpus: documents are drawn until it has so many (or all are drawn)."""

TOKENIZERS = {
    "Llama 2": "llama2",
    "Mistral v1": "mistral/tokenizer.model.v1",
    "Mistral v3": "mistral/mistral_instruct_tokenizer_240323.model.v3",
    "phi-3": "phi-3-mini",
    "phi-2": "phi-2",
    "RoBERTa": "gpt2-family/roberta",
    "r50k (GPT-2)": "tiktoken/r50k_base.tiktoken",
    "p50k (Codex)": "tiktoken/p50k_base.tiktoken",
    "Whisper large v3": "whisper-large-v3",
    "cl100k (GPT-4)": "tiktoken/cl100k_base.tiktoken",
    "Llama 3": "llama3",
    "Qwen 1": "qwen",
    "Qwen 2, 2.5, 3": "qwen2",
    "o200k (GPT-4o)": "tiktoken/o200k_base.tiktoken",
    "Llama 4": "llama4",
}
CORPORA = {
    "Thai news": ("th", "text/th/thaigov_v2.jsonl.gz"),
    "Thai law": ("th", "text/th/thai_law_acts.jsonl.gz"),
    "Thai social media": ("th", "text/th/wisesight_social.jsonl.gz"),
    "Thai Wikipedia": ("th", "text/th/thwiki_iapp.jsonl.gz"),
    "Korean petitions": ("ko", "text/ko/petitions.jsonl.gz"),
    "Korean law": ("ko", "text/ko/law_kr.jsonl.gz"),
    "Korean reviews": ("ko", "text/ko/nsmc_reviews.jsonl.gz"),
    "Korean books and news": ("ko", "text/ko/boddari_mixed.jsonl.gz"),
    "English books": ("en", "text/en/gutenberg_books.jsonl.gz"),
    "English Wikipedia": ("en", "text/en/wikitext2_valid_test.jsonl.gz"),
}
CODE = "Code (Python)"
PARALLEL = {
    "FLORES-200": [
        "parallel/flores200_dev_en_th_ko.jsonl.gz",
        "parallel/flores200_devtest_en_th_ko.jsonl.gz",
    ],
    "PUD": ["parallel/pud_en_th_ko.jsonl.gz"],
}
PUBLISHED = {
    "thai_tokens_per_character": {
        "source": "JAI-1 (arXiv 2510.08620), table 1: WangchanThaiInstruct, training part",
        "values": {"phi-3": 1.0311, "Qwen 2, 2.5, 3": 0.5491, "Llama 3": 0.4651},
        "not here": {"Gemma 3": 0.3417, "JAI-1": 0.2913},
        "unclear": {"phi-4": 0.4100},
        "note": "0.4100 fits o200k, which Phi-4-mini uses, and not cl100k, which phi-4 (14B) uses",
    },
    "korean_bytes_per_token": {
        "source": "Solar Open (arXiv 2601.07022), answers of an instruction set, non-reasoning",
        "values": {"o200k (GPT-4o)": 3.45},
        "not here": {"Solar Open": 4.69, "KORMo": 4.47, "DeepSeek-V3": 3.19},
        "note": "published for gpt-oss, whose ranks are o200k's",
    },
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fertility", description=__doc__)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="where results are written")
    given = parser.parse_args(arguments)
    corpora = {
        name: (code, drawn(documents(given.data / path))) for name, (code, path) in CORPORA.items()
    }
    corpora[CODE] = ("", drawn(sources()))
    parallel = {name: joined([given.data / p for p in files]) for name, files in PARALLEL.items()}
    counted = {name: size(texts, code) for name, (code, texts) in corpora.items()}
    rows, premiums = [], []
    for name, path in TOKENIZERS.items():
        tokenizer = read(given.data / "tokenizers" / path)
        print(name, file=sys.stderr)
        rows += measured(tokenizer, name, corpora, counted)
        premiums += paid(tokenizer, name, parallel)
    result = {
        "command": "python -m benchmarks.fertility DATA",
        "seed": SEED,
        "characters_drawn": CHARACTERS,
        "measures": rows,
        "premiums": premiums,
        "words": {code: engines(code)["words"] for code in ("th", "ko", "en")},
        "tokenizers": importlib.metadata.version("tokenizers"),
        "published": PUBLISHED,
    }
    text = json.dumps(result, ensure_ascii=False, indent=1) + "\n"
    write_atomic(given.docs / "results" / "tokenizers_measured.json", text.encode())
    chart.write(given.docs / "img" / "tokenizers.svg", columns(rows, premiums), TITLE)
    print(tables(rows, premiums))


def documents(file: Path) -> list[str]:
    return [row.text for row in Reading(find(file), Document)]


def sources() -> list[str]:
    """The modules of Python's standard library, without its tests: code that is everywhere."""
    folder = Path(sysconfig.get_path("stdlib"))
    files = sorted(folder.glob("*.py")) + sorted(folder.glob("[a-z]*/*.py"))
    skipped = {"site-packages", "test", "idlelib", "lib2to3", "__pycache__"}
    return [f.read_text("utf-8", "replace") for f in files if f.parent.name not in skipped]


def drawn(texts: list[str]) -> list[str]:
    """Whole texts in random order until they have CHARACTERS characters."""
    order = list(range(len(texts)))
    Random(SEED).shuffle(order)
    found, length = [], 0
    for at in order:
        if length >= CHARACTERS:
            break
        found.append(texts[at])
        length += len(texts[at])
    return found


def joined(files: list[Path]) -> dict[str, list[str]]:
    every = [sides(file) for file in files]
    return {code: [text for each in every for text in each[code]] for code in every[0]}


def measured(tokenizer: Tokenizer, name: str, corpora: dict, counted: dict) -> list[dict[str, Any]]:
    found = []
    for corpus, (code, texts) in corpora.items():
        result = measure(tokenizer, texts, code, counted=counted[corpus])
        found.append({"text": corpus, "language": code, "tokenizer": name} | result.to_dict())
    return found


def paid(tokenizer: Tokenizer, name: str, parallel: dict) -> list[dict[str, Any]]:
    return [
        {"text": text, "base": "en", "language": code, "tokenizer": name} | found.to_dict()
        for text, by_language in parallel.items()
        for code, found in premium(tokenizer, by_language).items()
    ]


# --- what is written ----------------------------------------------------------------------------

TITLE = "What a text costs in tokens (less is better)"
THAI = [name for name, (code, _) in CORPORA.items() if code == "th"]
KOREAN = [name for name, (code, _) in CORPORA.items() if code == "ko"]
ENGLISH = [name for name, (code, _) in CORPORA.items() if code == "en"]


def mean(rows: list[dict], tokenizer: str, corpora: list[str], figure: str) -> float:
    """Of a figure over corpora, each with the same weight."""
    return fmean(
        row[figure] for row in rows if row["tokenizer"] == tokenizer and row["text"] in corpora
    )


def cost(premiums: list[dict], tokenizer: str, text: str, code: str) -> float:
    wanted = {"tokenizer": tokenizer, "text": text, "language": code}
    return next(row["cost"] for row in premiums if wanted.items() <= row.items())


def columns(rows: list[dict], premiums: list[dict]) -> list[dict[str, Any]]:
    def column(title: str, subtitle: str, values: dict, rule: float | None = None) -> dict:
        return {
            "title": title,
            "subtitle": subtitle,
            "format": ".2f",
            "rule": rule,
            "values": values,
        }

    thai = {n: mean(rows, n, THAI, "tokens_per_character") for n in TOKENIZERS}
    korean = {n: mean(rows, n, KOREAN, "tokens_per_character") for n in TOKENIZERS}
    paid = [
        column(
            f"{language}, same content",
            "tokens for one of English (dashed)",
            {n: cost(premiums, n, "FLORES-200", code) for n in TOKENIZERS},
            rule=1,
        )
        for language, code in (("Thai", "th"), ("Korean", "ko"))
    ]
    return [
        column("Thai", "tokens per character", thai),
        column("Korean", "tokens per character", korean),
        *paid,
    ]


def tables(rows: list[dict], premiums: list[dict]) -> str:
    """The tables of docs/tokenizers.md."""
    sizes = {row["tokenizer"]: row["vocab_size"] for row in rows}
    thai = {n: mean(rows, n, THAI, "tokens_per_character") for n in TOKENIZERS}
    published = PUBLISHED["thai_tokens_per_character"]["values"]
    out = ["| tokenizer | vocabulary | news | law | social | wiki | mean | published |"]
    out.append("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name in sorted(thai, key=thai.get):
        cells = [mean(rows, name, [each], "tokens_per_character") for each in THAI] + [thai[name]]
        known = f"{published[name]:.4f}" if name in published else ""
        figures = " | ".join(f"{cell:.4f}" for cell in cells)
        out.append(f"| {name} | {sizes[name]:,} | {figures} | {known} |")
    korean = {n: mean(rows, n, KOREAN, "bytes_per_token") for n in TOKENIZERS}
    known_ko = PUBLISHED["korean_bytes_per_token"]["values"]
    out += ["", "| tokenizer | Korean | published | Thai | English | code | Thai words | split |"]
    out.append("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name in sorted(korean, key=korean.get, reverse=True):
        cells = [mean(rows, name, each, "bytes_per_token") for each in (THAI, ENGLISH, [CODE])]
        figures = " | ".join(f"{cell:.2f}" for cell in cells)
        word, split = (mean(rows, name, THAI, f) for f in ("tokens_per_word", "uncovered_share"))
        said = f"{known_ko[name]:.2f}" if name in known_ko else ""
        out.append(
            f"| {name} | {korean[name]:.2f} | {said} | {figures} | {word:.2f} | {split:.1%} |"
        )
    out += ["", "| tokenizer | Thai, FLORES | PUD | Korean, FLORES | PUD | Thai context |"]
    out.append("|---|---:|---:|---:|---:|---:|")
    by_cost = sorted(TOKENIZERS, key=lambda n: cost(premiums, n, "FLORES-200", "th"))
    for name in by_cost:
        cells = [cost(premiums, name, text, code) for code in ("th", "ko") for text in PARALLEL]
        figures = " | ".join(f"{cell:.2f}" for cell in cells)
        out.append(f"| {name} | {figures} | {1 / cells[0]:.0%} |")
    return "\n".join(out)


if __name__ == "__main__":
    main()
