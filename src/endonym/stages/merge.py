"""Models merged, or stacked from layers of several, as a mergekit file describes it."""

import shutil
from pathlib import Path

from endonym.core.artifact import Artifact
from endonym.core.context import Context
from endonym.core.stage import Outcome, Slot, Stage
from endonym.surgery.mergekit import Merge


class MergeConfig(Merge):
    """mergekit's keys (surgery/mergekit.py); a model's name in them is a label of `inputs`."""

    seed: int = 0
    """Of DARE's choice."""


def merge(
    config: MergeConfig, context: Context, out: Path, *, inputs: dict[str, Artifact]
) -> Outcome:
    """A model folder; tokenizer and config.json as surgery/merge.py says. JAI-1 merges two SFT models 1:1:

    use = "merge"
    inputs = { one = "@sft_1", two = "@sft_2" }
    merge_method = "linear"
    models = [{ model = "one", parameters = { weight = 1 } }, { model = "two", parameters = { weight = 1 } }]
    """
    from endonym.surgery import merge as method

    by_label, made = context.scratch / "inputs", context.scratch / "merged"
    by_label.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(made, ignore_errors=True)  # of a run that was killed here
    for label, artifact in inputs.items():
        link = by_label / label
        link.unlink(missing_ok=True)
        link.symlink_to(artifact.path.resolve())
    recipe = Merge(**config.model_dump(exclude={"seed"}))
    figures = method.merge(recipe, made, models=by_label, seed=config.seed)
    for file in made.iterdir():
        file.replace(out / file.name)
    made.rmdir()
    plain = {name: each for name, each in figures.items() if isinstance(each, int | float | str)}
    return Outcome(
        plain, [licence for one in inputs.values() for licence in one.record["licences"]]
    )


STAGE = Stage(
    name="merge",
    version=1,
    kind="model",
    config=MergeConfig,
    slots={"inputs": Slot("model", many=True)},
    function=merge,
)
