"""What is measured while a model trains: held-out text by language, and needles.

A probe (train/probe.py) is a name and a function of the model. These two read a fixed amount of text,
the same at every call, and print nothing, since the loop's own bar is on the screen. Forgetting is
the same figure of text that the model knew before: a gate with `relative = true` holds it against
the value before the first step (train/config.Gate).
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from torch import nn

from endonym.core.console import Console
from endonym.core.context import Context
from endonym.core.errors import DataError
from endonym.eval.likelihood import bits_per_byte, total
from endonym.eval.needles import figures, needle_grid
from endonym.tasks.needle import NeedleConfig
from endonym.tokenizer.folder import Tokenizer
from endonym.train.probe import Probe


def validation_probe(
    texts: Mapping[str, Iterable[str]],
    tokenizer: Tokenizer,
    context: Context,
    *,
    tokens: int,
    every: int | None = None,
) -> Probe:
    """bpb_<label>: bits per byte (eval/likelihood.py) of `tokens` tokens of each label's texts."""
    chosen = {label: sample(each, tokenizer, tokens) for label, each in texts.items()}
    for label, each in chosen.items():
        if not each:
            raise DataError("there is no text to measure on", where=f"validation.{label}")
    quiet = _quiet(context)

    def measure(model: nn.Module) -> dict[str, float]:
        return {
            f"bpb_{label}": total(bits_per_byte(model, tokenizer, each, quiet))
            for label, each in chosen.items()
        }

    return Probe("validation", measure, every)


def needle_probe(
    config: NeedleConfig,
    haystack: Sequence[str],
    tokenizer: Tokenizer,
    context: Context,
    *,
    every: int | None = None,
) -> Probe:
    """needle_min, needle_mean, needle_<length> ... of a grid (eval/needles.py)."""
    quiet = _quiet(context)

    def measure(model: nn.Module) -> dict[str, float]:
        return figures(needle_grid(model, tokenizer, haystack, config, quiet))

    return Probe("needles", measure, every)


def sample(texts: Iterable[str], tokenizer: Tokenizer, tokens: int) -> list[str]:
    """Texts of `tokens` tokens together, or all there are: in an order given by their own hashes, so
    that the first pages of a file are not taken for all of it; the last one is cut to fit."""
    left, taken = tokens, []
    for text in sorted(texts, key=lambda text: hashlib.sha256(text.encode()).digest()):
        ids = tokenizer.encode(text, literal=True)
        if len(ids) > left:
            text = tokenizer.decode(ids[:left]).rstrip("\ufffd")
        if text:
            taken.append(text)
        left -= len(ids)
        if left <= 0:
            break
    return taken


def _quiet(context: Context) -> Context:
    return replace(context, console=Console(quiet=True))
