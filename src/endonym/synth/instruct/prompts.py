"""What a model is asked in each step: prompts.toml, with its names filled in."""

import re
import tomllib
from functools import lru_cache
from importlib.resources import files


@lru_cache(maxsize=1)
def _prompts() -> dict[str, str]:
    return tomllib.loads(
        files("endonym.synth.instruct").joinpath("prompts.toml").read_text("utf-8")
    )


def prompt(name: str, **values: object) -> str:
    """The prompt of a step. <<name>> stands for a value, so that code and JSON may hold braces; what
    a value itself says is not looked at."""
    return re.sub("<<(\\w+)>>", lambda found: str(values[found[1]]), _prompts()[name].strip())
