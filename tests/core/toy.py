"""A three-stage toy house: numbers, their sum, a text. It counts how often each stage is executed."""

from pathlib import Path

from endonym.core.config import Config, ExternalPath
from endonym.core.errors import RecipeError
from endonym.core.stage import Outcome, Slot, Stage

executed: list[str] = []


class NumbersConfig(Config):
    values: list[int] = [1, 2]
    file: ExternalPath | None = None


class SumConfig(Config):
    times: int = 1
    fail: bool = False


def numbers(config, context, out):
    executed.append("numbers")
    values = list(config.values)
    if config.file:
        values += [int(line) for line in Path(config.file).read_text().split()]
    (out / "numbers.txt").write_text("\n".join(map(str, values)))
    return Outcome({"count": len(values)}, ["CC0-1.0"])


def total(config, context, out, *, parts):
    executed.append("total")
    values = [
        int(line)
        for part in parts.values()
        for line in part.file("numbers.txt").open()
        if line.strip()
    ]
    if config.fail:
        raise RuntimeError("asked to fail")
    (out / "total.txt").write_text(str(config.times * sum(values)))
    return Outcome({"total": config.times * sum(values)})


def copy(config, context, out, *, source):
    executed.append("copy")
    (out / "text.txt").write_text(source.file("total.txt").read_text())
    return Outcome()


STAGES = {
    "numbers": Stage("numbers", 1, "numbers", NumbersConfig, {}, numbers),
    "total": Stage("total", 1, "total", SumConfig, {"parts": Slot("numbers", many=True)}, total),
    "copy": Stage("copy", 1, "text", Config, {"source": Slot("total")}, copy),
}


def lookup(use):
    if use not in STAGES:
        raise RecipeError(f"there is no stage {use!r}")
    return STAGES[use]


RECIPE = """
title = "toy"
[vars]
n = 3
[stages.a]
use = "numbers"
values = [1, "${n}"]
[stages.b]
use = "numbers"
values = [10]
[stages.sum]
use = "total"
parts = { left = "@a", right = "@b" }
[stages.text]
use = "copy"
source = "@sum"
[scale.big.vars]
n = 100
[scale.other.stages.b]
use = "total"
parts = "@a"
[scale.small]
drop = ["text"]
"""
