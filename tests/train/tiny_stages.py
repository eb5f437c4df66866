"""Stages that train, on a tiny decoder and a few words: what the kill drill runs besides the bare loop."""

import shutil
from pathlib import Path

from endonym.core.artifact import Artifact
from endonym.core.console import Console
from endonym.core.context import Context
from endonym.data.document import Conversation, Document, Preference, write_table
from endonym.model import hf
from endonym.stages import pretrain, reward_model, sft
from endonym.stages.table import stage
from eval.tiny import ENGLISH, THAI, model, tokenizer

STEPS = 12
SIZES = {"steps": STEPS, "learning_rate": 3e-3, "rows_per_step": 4, "row_length": 64}

STAGES = {"pretrain": pretrain, "sft": sft, "reward_model": reward_model}


def prepare(folder: Path) -> None:
    """The inputs of all stages, as artifacts."""
    start = folder / "model"
    hf.save(model(), start, eos_ids=tokenizer().stop_ids)
    tokenizer().save(start)
    words = ENGLISH.split()
    lines = [" ".join(words[n % 7 :] + words[: n % 5]) for n in range(40)]
    texts = [Document(f"d{n}", line, "en", "test", "CC0-1.0") for n, line in enumerate(lines)]
    talks = [
        Conversation(f"c{n}", _said(f"say {n}", line), "en", "test", "CC0-1.0")
        for n, line in enumerate(lines)
    ]
    pairs = [
        Preference(f"p{n}", [], _answer(line), _answer(THAI[n:]), language="en", task="foreign")
        for n, line in enumerate(lines)
    ]
    for name, rows in (("documents", texts), ("conversations", talks), ("preferences", pairs)):
        (folder / name).mkdir()
        write_table(folder / name / f"{name}.parquet", rows)


def _answer(text: str) -> list[dict]:
    return [{"role": "assistant", "content": text}]


def _said(question: str, answer: str) -> list[dict]:
    return [{"role": "user", "content": question}, *_answer(answer)]


def _artifact(folder: Path) -> Artifact:
    record = {"address": folder.name, "kind": folder.name, "licences": ["CC0-1.0"], "figures": {}}
    return Artifact(folder, record | {"files": {path.name: {} for path in folder.iterdir()}})


def run(name: str, inputs: Path, folder: Path) -> None:
    """One attempt at a stage, as the runner makes it: the output begun anew, the scratch as it was."""
    out, scratch = folder / "out", folder / "scratch"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    scratch.mkdir(exist_ok=True)
    slot, kind = {
        "pretrain": ("text", "documents"),
        "sft": ("data", "conversations"),
        "reward_model": ("data", "preferences"),
    }[name]
    given = {"model": _artifact(inputs / "model"), slot: {"data": _artifact(inputs / kind)}}
    context = Context(
        scratch=scratch, threads=1, checkpoint_seconds=0.0, console=Console(quiet=True)
    )
    made = stage(name)
    made.run(made.config(**SIZES), context, out, given)


def final(folder: Path) -> dict[str, bytes]:
    """The bytes that must not depend on what happened on the way: weights, optimizer, metrics."""
    last = folder / "scratch" / "checkpoints" / f"step-{STEPS:08d}"
    files = [
        folder / "out" / "model.safetensors",
        folder / "out" / "metrics.jsonl",
        last / "state.safetensors",
    ]
    return {path.name: path.read_bytes() for path in files}
