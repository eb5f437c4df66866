"""Several rewards as one weighted sum, each part kept.

    total_i = sum over parts k that apply to row i of  w_k r_ki

A part that gives None for a row adds nothing to it (TRL sums with nansum: the same); a row to which no
part applies is None. A part that gives FAILED makes the row's total FAILED, whatever its weight: it is
left out of learning, never taken for 0. Weights are not rescaled by what applies, so rewards of two
rows of one group, which share their columns, stay comparable.

    mix({"answer": 0.9, "particle": 0.1})
    mix({"rubric": {"weight": 0.9, "model": "gpt-5-nano"}, "format": {"weight": 0.1, "tag": "thinking"}})
    mix({"mine": {"weight": 1.0, "least": 3}}, own={"mine": "my_rewards.py"})

A part's arguments stand beside its weight; they bear identity with the recipe. An own reward is a
function of that name in a Python file, with TRL's signature; its arguments are those of its parameters
that stand behind a bare *. In a stage's settings such files are a dict[str, ExternalPath], so that the
file's content is part of the address.
"""

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from hashlib import sha256
from importlib.util import module_from_spec, spec_from_file_location
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from endonym.core.config import nearest
from endonym.core.errors import DataError, RecipeError
from endonym.rewards.answer import answer, boxed
from endonym.rewards.base import FAILED, Completion, Reward, is_failed
from endonym.rewards.calls import calls
from endonym.rewards.choice import choice
from endonym.rewards.cites import cites
from endonym.rewards.code import Code
from endonym.rewards.constraints import constraints
from endonym.rewards.contains import contains
from endonym.rewards.format import format
from endonym.rewards.language import language, particle
from endonym.rewards.math import Math
from endonym.rewards.overlong import overlong
from endonym.rewards.rubric import Rubric

REWARDS: dict[str, Callable[..., Reward]] = {
    "answer": lambda: answer,
    "boxed": lambda: boxed,
    "language": lambda: language,
    "particle": lambda: particle,
    "math": Math,
    "choice": lambda: choice,
    "constraints": constraints,
    "code": Code,
    "rubric": Rubric,
    "format": format,
    "overlong": overlong,
    "contains": contains,
    "calls": lambda: calls,
    "cites": cites,
}
"""Name -> what makes the reward out of its arguments."""


class Mix:
    """A reward made of named parts; calling it gives the totals, `parts` gives everything."""

    def __init__(self, parts: dict[str, tuple[Reward, float]]):
        self.weighted = dict(parts)
        self.failures: Counter[str] = Counter()
        """Completions that could not be judged, by part, since the mix was made."""
        self.__name__ = "+".join(self.weighted)  # TRL names a reward's metrics by this

    def parts(
        self, prompts, completions: list[Completion], **columns
    ) -> dict[str, list[float | None]]:
        """Every part's own values by name, unweighted, and "total"."""
        found = {}
        for name, (reward, _) in self.weighted.items():
            found[name] = values = list(reward(prompts, completions, **columns))
            if len(values) != len(completions):
                raise DataError(
                    f"the reward {name!r} did not judge every completion",
                    wanted=f"{len(completions)} values",
                    got=f"{len(values)} values",
                )
            self.failures[name] += sum(map(is_failed, values))
        totals: list[float | None] = []
        for row in range(len(completions)):
            values = {name: found[name][row] for name in self.weighted}
            terms = [self.weighted[name][1] * v for name, v in values.items() if v is not None]
            is_lost = any(map(is_failed, values.values()))
            totals.append(FAILED if is_lost else sum(terms) if terms else None)
        return {**found, "total": totals}

    def __call__(self, prompts, completions: list[Completion], **columns) -> list[float | None]:
        return self.parts(prompts, completions, **columns)["total"]

    def described(self) -> dict[str, Any]:
        """What stages write into their figures: by part its weight, how often it failed, and what the
        part says of itself (who judged; how many answers could not be read)."""
        return {
            name: {
                "weight": weight,
                "failures": self.failures[name],
                **getattr(reward, "described", dict)(),
            }
            for name, (reward, weight) in self.weighted.items()
        }


def mix(
    spec: Mapping[str, float | Mapping[str, Any]], own: Mapping[str, str | Path] | None = None
) -> Mix:
    """A mixed reward from names and weights, or names and tables {weight, **arguments}.

    own: name -> Python file that defines a reward of that name. It is a program of the recipe's
    author and runs in this process, like the recipe itself.
    """
    own = own or {}
    if not spec:
        raise RecipeError("a mixed reward without parts", do=f"name some of: {', '.join(REWARDS)}")
    for name in own:
        if name not in spec:
            raise RecipeError(
                f"the own reward {name!r} has no weight", do="give it one, or drop it"
            )
        if name in REWARDS:
            raise RecipeError(f"there is a reward {name!r} already", do="name yours otherwise")
    parts = {}
    for name, given in spec.items():
        table = dict(given) if isinstance(given, Mapping) else {"weight": given}
        weight = table.pop("weight", None)
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise RecipeError(
                f"the reward {name!r} has no weight",
                wanted=f"{name} = 0.5, or {name} = {{ weight = 0.5, ... }}",
                got=repr(given),
            )
        if name in own:
            parts[name] = (_own(name, Path(own[name]), table), float(weight))
            continue
        if name not in REWARDS:
            raise RecipeError(f"there is no reward {name!r}", do=nearest(name, [*REWARDS, *own]))
        _fit(name, REWARDS[name], table)
        parts[name] = (REWARDS[name](**table), float(weight))
    return Mix(parts)


def _fit(name: str, maker: Callable, given: dict[str, Any]) -> None:
    """RecipeError unless these are arguments that the maker takes, and all it must have."""
    known = {
        key: parameter
        for key, parameter in signature(maker).parameters.items()
        if parameter.kind == Parameter.KEYWORD_ONLY
    }
    for key in given:
        if key not in known:
            raise RecipeError(
                f"the reward {name!r} takes no argument {key!r}",
                do=nearest(key, list(known)) if known else "leave it out: it takes none",
            )
    absent = [key for key, p in known.items() if p.default is Parameter.empty and key not in given]
    if absent:
        raise RecipeError(
            f"the reward {name!r} needs the argument {absent[0]!r}",
            wanted=f"{name} = {{ weight = 0.5, {', '.join(f'{key} = ...' for key in absent)} }}",
        )


def _own(name: str, file: Path, arguments: dict[str, Any]) -> Reward:
    """The function `name` of a Python file, its keyword-only parameters bound."""
    if not file.is_file():
        raise RecipeError(f"the file of the own reward {name!r} is not there", where=file)
    module_name = f"endonym_own_{sha256(str(file.resolve()).encode()).hexdigest()[:16]}"
    spec = spec_from_file_location(module_name, file)
    module = module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        # Not the loader's own way: it would leave bytecode beside the user's file, and might read one that
        # is older than the file, whose content the address was taken of
        exec(compile(file.read_bytes(), file, "exec"), vars(module))
    except Exception as error:
        raise RecipeError(
            f"the file of the own reward {name!r} does not load",
            where=file,
            got=f"{type(error).__name__}: {error}",
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        defined = [key for key, value in vars(module).items() if callable(value)]
        raise RecipeError(
            f"the file defines no function {name!r}", where=file, do=nearest(name, defined)
        )
    _fit(name, function, arguments)

    def reward(prompts, completions: list[Completion], **columns):
        # The recipe's arguments come last: no column of the data can stand in for one of them.
        return function(prompts, completions, **{**columns, **arguments})

    reward.__name__ = name
    return reward
