"""Documents with a score that a model gives them: how natural a text reads, or how probable it is."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from endonym.core.artifact import Artifact
from endonym.core.config import Config
from endonym.core.context import Context
from endonym.core.errors import RecipeError
from endonym.core.stage import Outcome, Slot, Stage
from endonym.data.document import Document, read_table, score_names, write_table

if TYPE_CHECKING:
    import numpy as np

    from endonym.tokenizer.folder import Tokenizer

ROWS = 1024
"""Documents scored between two writes to the disk: what a kill loses, and what is sorted by length."""

Scorer = Callable[[Sequence[str]], "np.ndarray"]
"""Scores of texts, float64 [N]; nan for a text that has none."""


class RateConfig(Config):
    name: str = Field(pattern="^[a-z][a-z0-9_]*$")
    """The score is kept as score_<name>; a score of this name that is there already is replaced."""
    scale: Literal["sigmoid", "raw"] = "sigmoid"
    """Of a reward r: 1 / (1 + exp(-r)), between 0 and 1, or r itself. JAI-1 keeps texts whose fluency
    score is above 0.88 (arXiv:2510.08620) and does not say on which scale: sigmoid is our reading."""
    longest: int = Field(default=1024, gt=0)
    """Tokens of a text that a reward model reads; of a longer one the beginning is judged. TRL's
    max_length."""
    at_least: float | None = None
    """Documents below are left out. JAI-1: 0.88."""
    at_most: float | None = None
    """Documents above are left out."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the model that rates."""


def rate(
    config: RateConfig,
    context: Context,
    out: Path,
    *,
    model: Artifact,
    data: dict[str, Artifact],
) -> Outcome:
    """documents.parquet: the documents of `data`, in order, with one score more.

    model: a reward model scores each text as an assistant's words without a prompt, as the pairs of
    synth/fluency.py are; a language model scores log2 p(text) / bytes, minus its bits per byte
    (eval/likelihood.py), which ranks as perplexity does (CCNet, arXiv:1911.00359) and
    needs no common tokenizer. Higher is better in both. An empty text has no score.

    With at_least or at_most what is outside is left out, and so is what has no score. Without, all
    stay, and a phase's threshold (data/phases.py) decides while loading, by value or by share.

    A run that was cut off goes on after the last ROWS documents that it scored. Figures: documents,
    kept, kept_share, cut (texts of which only the beginning was read), unscored, score (mean, and the
    tenth, fiftieth and ninetieth percentile), and by language documents, kept and mean.
    """
    import numpy as np

    from endonym.model.device import settled

    context = settled(context)
    tables = [one.file("documents.parquet") for one in data.values()]
    folder = _scratch(context.scratch / "scores", [config.model_dump(), model.address,
                      *(one.address for one in data.values())])  # fmt: skip
    score, cut = _scorer(config, context, model)
    for number, texts in enumerate(_batches(row.text for row in _documents(tables))):
        file = folder / f"{number:08d}.npz"
        if not file.is_file():
            found = score(texts)
            aside = file.with_suffix(".partial")
            with aside.open("wb") as handle:
                np.savez(handle, scores=found, cut=cut.pop("texts", 0))
            aside.rename(file)
    scores, num_cut = _collected(folder)
    keep = _kept(scores, config)
    if not keep.any():
        raise RecipeError(
            "no document is left", where=f"score_{config.name}",
            wanted=" and ".join(f"{name} {edge}" for name in ("at_least", "at_most")
                                if (edge := getattr(config, name)) is not None),
            got=f"{len(scores)} documents, the best with {np.nanmax(scores, initial=-np.inf):.4g}",
        )  # fmt: skip
    languages: list[str] = []

    def rows() -> Iterator[Document]:
        for row, value, stays in zip(_documents(tables), scores.tolist(), keep, strict=True):
            languages.append(row.language)
            others = {name: old for name, old in row.scores.items() if name != config.name}
            if stays:
                known = {} if np.isnan(value) else {config.name: value}
                yield replace(row, scores=others | known)

    before = dict.fromkeys(name for table in tables for name in score_names(table))
    columns = [*(name for name in before if name != config.name), config.name]
    write_table(out / "documents.parquet", rows(), scores=columns)
    figures = _figures(scores, keep, np.array(languages))
    figures["cut"] = num_cut
    licences = [licence for one in data.values() for licence in one.record["licences"]]
    return Outcome(figures, licences)


def _scorer(config: RateConfig, context: Context, model: Artifact) -> tuple[Scorer, dict[str, int]]:
    """The function of the plugged model; and where it counts the texts that it cut off."""
    import numpy as np
    import torch

    from endonym.tokenizer.folder import Tokenizer

    words, dtype, cut = Tokenizer.load(model.path), getattr(torch, config.precision), {}
    if model.kind == "reward_model":
        from endonym.model import reward

        judge = reward.load(model.path, device=context.device, dtype=dtype)

        def by_reward(texts: Sequence[str]) -> "np.ndarray":
            found = np.full(len(texts), np.nan)
            there = [number for number, text in enumerate(texts) if text.strip()]
            shown = [_beginning(words, texts[number], config.longest) for number in there]
            cut["texts"] = sum(a != texts[n] for a, n in zip(shown, there))
            ids = [words.encode_whole([{"role": "assistant", "content": a}]) for a in shown]
            found[there] = reward.scores(judge, ids, context, title=config.name)
            return found if config.scale == "raw" else 1 / (1 + np.exp(-found))

        return by_reward, cut

    from endonym.eval.likelihood import bits_per_byte
    from endonym.model import hf

    reader = hf.load(model.path, device=context.device, dtype=dtype)

    def by_likelihood(texts: Sequence[str]) -> "np.ndarray":
        bits = bits_per_byte(reader, words, texts, context, title=config.name)
        return np.array([-each.bits / each.bytes if each.bytes else np.nan for each in bits])

    return by_likelihood, cut


def _beginning(words: "Tokenizer", text: str, longest: int) -> str:
    """The text, or its first `longest` tokens as far as these are whole characters."""
    if len(text.encode()) <= longest:  # no token is less than a byte
        return text
    ids = words.encode(text, literal=True)
    return text if len(ids) <= longest else words.decode(ids[:longest]).rstrip("\ufffd")


def _documents(tables: list[Path]) -> Iterator[Document]:
    for table in tables:
        yield from read_table(table, Document)


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    while batch := list(islice(texts, ROWS)):
        yield batch


def _scratch(folder: Path, identity: list[Any]) -> Path:
    """A folder for the scores of this work; what another left there goes."""
    told = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
    file = folder / "identity"
    if not file.is_file() or file.read_text() != told:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        file.write_text(told)
    return folder


def _collected(folder: Path) -> tuple["np.ndarray", int]:
    """The scores of all parts, in order, and how many texts were cut."""
    import numpy as np

    scores, cut = [np.empty(0)], 0
    for file in sorted(folder.glob("*.npz")):
        with np.load(file) as part:
            scores.append(part["scores"])
            cut += int(part["cut"])
    return np.concatenate(scores), cut


def _kept(scores: "np.ndarray", config: RateConfig) -> "np.ndarray":
    import numpy as np

    keep = np.ones(len(scores), bool)
    if config.at_least is not None:
        keep &= scores >= config.at_least  # false for nan
    if config.at_most is not None:
        keep &= scores <= config.at_most
    return keep


def _figures(scores: "np.ndarray", keep: "np.ndarray", languages: "np.ndarray") -> dict[str, Any]:
    import numpy as np

    known = scores[~np.isnan(scores)]
    score = {"mean": float(known.mean())} if len(known) else {}
    for percent in (10, 50, 90) if len(known) else ():
        score[f"p{percent}"] = float(np.percentile(known, percent))
    by_language = {}
    for language in sorted(set(languages.tolist())):
        of = languages == language
        there = scores[of & ~np.isnan(scores)]
        by_language[language] = {
            "documents": int(of.sum()),
            "kept": int(keep[of].sum()),
            "mean": float(there.mean()) if len(there) else None,
        }
    return {
        "documents": len(scores),
        "kept": int(keep.sum()),
        "kept_share": float(keep.mean()),
        "unscored": int(np.isnan(scores).sum()),
        "score": score,
        "by_language": by_language,
    }


STAGE = Stage(
    name="rate",
    version=1,
    kind="documents",
    config=RateConfig,
    slots={
        "model": Slot("reward_model or model"),
        "data": Slot("documents", many=True),
    },
    function=rate,
)
