"""python -m benchmarks [PART]...: figures on standard output, progress on standard error."""

import argparse
import importlib.util
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import (
    distill,
    generation,
    grpo,
    machine,
    model,
    page,
    pretrain,
    reward,
    sandbox,
    sft,
    tokenizers,
)
from benchmarks.material import SHAPES
from endonym.core.artifact import write_atomic
from endonym.core.errors import EndonymError, MachineError

PARTS = {
    "sft": sft,
    "pretrain": pretrain,
    "reward": reward,
    "distill": distill,
    "grpo": grpo,
    "generation": generation,
    "tokenizers": tokenizers,
    "model": model,
    "sandbox": sandbox,
}
MODELS = ["sft", "generation"]
"""The parts that run where none is named. The tokenizers' texts are not in the repository, and model
takes as long as these two together."""

# (shape, precision, threads) of each part; of tokenizers (language, size, threads). One thread gives
# the CPU figure, two show that both sides use them. Of the sandbox (which programs, "", workers).
CASES = {
    "sft": [
        ("7M", "bfloat16", 1),
        ("7M", "float32", 1),
        ("7M", "bfloat16", 2),
    ],
    "pretrain": [("7M", "bfloat16", 1), ("7M", "float32", 1)],
    "reward": [("7M", "bfloat16", 1), ("7M", "float32", 1)],
    "distill": [("3M 16k", "float32", 1), ("3M 64k", "float32", 1)],
    "grpo": [("3M 16k", "float32", 1)],
    "generation": [("7M", "float32", 1), ("7M", "bfloat16", 1), ("7M", "bfloat16", 2)],
    "tokenizers": [("th", 16_000, 1), ("ko", 16_000, 1)],
    "model": [
        (shape, precision, 1)
        for shape in ("7M", "7M mixtral", "7M qwen3_moe")
        for precision in ("float32", "bfloat16")
    ],
    "sandbox": [("whole", "", 4)],
}
LARGE = {
    "sft": [("30M", "bfloat16", 1)],
    "pretrain": [("30M", "bfloat16", 1)],
    "reward": [("30M", "bfloat16", 1)],
    "distill": [("30M 16k", "float32", 1)],
    "grpo": [("30M", "float32", 1)],
    "generation": [("30M", "bfloat16", 1)],
    "tokenizers": [("th", 64_000, 1), ("ko", 64_000, 1)],
    "model": [("30M", "float32", 1), ("30M", "bfloat16", 1)],
}
QUICK = {
    "sft": [("7M", "bfloat16", 1)],
    "pretrain": [("7M", "bfloat16", 1)],
    "reward": [("7M", "bfloat16", 1)],
    "distill": [("3M 16k", "float32", 1)],
    "grpo": [("3M 16k", "float32", 1)],
    "generation": [("7M", "float32", 1)],
    "tokenizers": [("th", 8_000, 1)],
    "model": [("7M", "float32", 1)],
    "sandbox": [("quick", "", 4)],
}
GRID = {
    part: [
        (f"{size} {vocabulary}", precision, 1)
        for precision in ("bfloat16", "float32")
        for size in ("3M", "10M", "30M")
        for vocabulary in ("16k", "64k")
    ]
    for part in ("sft", "pretrain", "reward", "distill")
}
TINY = {
    "sft": [("tiny", "float32", 1)],
    "pretrain": [("tiny", "float32", 1)],
    "reward": [("tiny", "float32", 1)],
    "distill": [("tiny", "float32", 1)],
    "grpo": [("tiny", "float32", 1)],
    "generation": [("tiny", "float32", 1)],
    "tokenizers": [("en", 1_000, 1)],
    "model": [
        ("tiny", "bfloat16", 1),
        ("tiny mixtral", "float32", 1),
        ("tiny qwen3_moe", "float32", 1),
    ],
}

TABLES = {"tiny": TINY, "quick": QUICK, "large": LARGE, "grid": GRID}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Endonym beside TRL and transformers, in one run."
    )
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="|".join(PARTS),
        help="default: sft generation",
    )
    parser.add_argument("--repeats", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--quick", action="store_true", help="one case a part, at most 2 rounds")
    parser.add_argument("--large", action="store_true", help="30M parameters: half an hour")
    parser.add_argument(
        "--grid",
        action="store_true",
        help="training at 3M, 10M, 30M parameters, vocabularies of 16k and 64k: an hour and more",
    )
    parser.add_argument("--only", default="", help="of the cases those whose shape begins so")
    parser.add_argument("--precision", default="", help="of the cases those of this precision")
    parser.add_argument("--tiny", action="store_true", help="a toy shape: does it run at all?")
    parser.add_argument("--without-peers", action="store_true", help="Endonym's own arms only")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the tables")
    parser.add_argument("--write", type=Path, help="put benchmarks.md and .json into this folder")
    given = parser.parse_args(arguments)
    for part in given.parts:
        if part not in PARTS:
            parser.error(f"there is no part {part!r}; there are {', '.join(PARTS)}")
    if given.repeats < 1:
        parser.error("--repeats must be at least 1")
    try:
        result = measure(given)
    except EndonymError as error:
        print(error, file=sys.stderr)
        return 1
    as_json = json.dumps(result, indent=1) + "\n"
    if given.write:
        given.write.mkdir(parents=True, exist_ok=True)
        write_atomic(given.write / "benchmarks.json", as_json.encode())
        write_atomic(given.write / "benchmarks.md", page.page(result).encode())
    print(as_json if given.json else page.page(result), end="")
    return 0


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """All comparisons asked for, one after the other."""
    parts = given.parts or MODELS
    if not given.without_peers:
        wanted = {
            "sft": "trl",
            "reward": "trl",
            "distill": "trl",
            "grpo": "trl",
            "tokenizers": "tiktoken",
        }
        require_peers(["transformers", *(wanted[part] for part in parts if part in wanted)])
    cases = next((table for name, table in TABLES.items() if getattr(given, name)), CASES)
    repeats = min(given.repeats, 2) if given.quick or given.tiny else given.repeats
    result: dict[str, Any] = {"machine": machine.describe()}
    for part in parts:
        result[part] = []
        for first, second, threads in cases[part]:
            if not first.startswith(given.only) or given.precision not in ("", second):
                continue
            label = f"{part}, {first}, {second}, threads {threads}"

            def note(text: str, label: str = label) -> None:
                print(f"{label}: {text}", file=sys.stderr)

            run, peers = PARTS[part].run, not given.without_peers
            case = (SHAPES.get(first, first), second, threads)
            with tempfile.TemporaryDirectory(prefix="endonym-bench-") as folder:
                more = {"brief": True} if given.grid and part == "sft" else {}
                result[part].append(run(*case, repeats, Path(folder), note, peers=peers, **more))
    return result | {"load_after": machine.load()}


def require_peers(names: list[str]) -> None:
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise MachineError(
            f"the benchmark's peers are not installed: {', '.join(missing)}",
            do="pip install 'endonym[bench]', or measure Endonym alone with --without-peers",
        )


if __name__ == "__main__":
    sys.exit(main())
