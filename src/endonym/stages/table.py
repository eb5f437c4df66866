"""Every stage by the name a recipe uses, imported on use."""

from importlib import import_module

from endonym.core.config import nearest
from endonym.core.errors import RecipeError
from endonym.core.stage import Stage

STAGES = {
    "documents": "endonym.stages.documents",
    "conversations": "endonym.stages.conversations",
    "preferences": "endonym.stages.preferences",
    "needles": "endonym.stages.needles",
    "score": "endonym.stages.score",
    "rate": "endonym.stages.rate",
    "items": "endonym.stages.items",
    "tokenizer": "endonym.stages.tokenizer",
    "import_tokenizer": "endonym.stages.import_tokenizer",
    "extend": "endonym.stages.extend",
    "measure": "endonym.stages.measure",
    "import": "endonym.stages.importing",
    "pretrain": "endonym.stages.pretrain",
    "operate": "endonym.stages.operate",
    "merge": "endonym.stages.merge",
    "sft": "endonym.stages.sft",
    "reward_model": "endonym.stages.reward_model",
    "instruct": "endonym.stages.instruct",
    "sections": "endonym.stages.sections",
    "recite": "endonym.stages.recite",
    "prompts": "endonym.stages.prompts",
    "states": "endonym.stages.states",
    "distill": "endonym.stages.distill",
    "rl": "endonym.stages.rl",
    "evaluate": "endonym.stages.evaluate",
}


def stage(use: str) -> Stage:
    """The stage of this name. RecipeError names the nearest if there is none."""
    if use not in STAGES:
        raise RecipeError(f"there is no stage {use!r}", do=nearest(use, list(STAGES)))
    found = import_module(STAGES[use]).STAGE
    assert found.name == use, f"{use} is listed for a stage that calls itself {found.name}"
    return found
