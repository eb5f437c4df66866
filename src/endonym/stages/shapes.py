"""The model of each step of a plan, before any of it is made: an import's sizes, then what each stage
does to them. A stage that stands already is read from its folder."""

import json
from pathlib import Path

from endonym.core.errors import EndonymError
from endonym.core.plan import Step, locate
from endonym.model.config import ModelConfig

Shape = ModelConfig | str
"""A configuration, or why it is not known."""


class Shapes:
    """By name of a step: the model that it makes, and the size of the tokenizer that it makes or carries."""

    def __init__(self, steps: dict[str, Step], data: tuple[Path, ...] = ()):
        self.steps, self.data = steps, data
        self._models: dict[str, Shape] = {}

    def model(self, name: str) -> Shape:
        """The configuration of a step's model, or a few words on why it is not known."""
        if name not in self._models:
            step = self.steps[name]
            known = self._read(step.found.path) if step.found else self._follow(step)
            self._models[name] = known
        return self._models[name]

    def vocabulary(self, name: str) -> int | str:
        """Tokens of the tokenizer that a step makes, or of the one in the model that it makes."""
        step = self.steps[name]
        if step.found and "vocab_size" in step.found.figures:
            return step.found.figures["vocab_size"]
        if added := getattr(step.config, "add", 0):
            before = self.vocabulary(step.inputs["base"])
            return before if isinstance(before, str) else before + added
        if isinstance(size := getattr(step.config, "vocab_size", None), int):
            return size  # of a tokenizer or its extension: the size that is asked for
        has_model = step.stage.kind in ("model", "reward_model")
        known = self.model(name) if has_model else f"@{name} is not made yet"
        return known if isinstance(known, str) else known.vocab_size

    def tokenizer(self, name: str) -> Path | None:
        """The folder with the tokenizer that a model of this name has or will have, if it stands."""
        step = self.steps[name]
        if step.found and (step.found.path / "tokenizer.json").is_file():
            return step.found.path
        for slot in ("tokenizer", "model", "input", "inputs"):
            source = step.inputs.get(slot)
            if isinstance(source, dict):  # of a merge: all of one tokenizer
                source = next(iter(source.values()))
            if isinstance(source, str):
                return self.tokenizer(source)
        return None

    def _follow(self, step: Step) -> Shape:
        rule = {
            "import": self._imported,
            "pretrain": self._pretrained,
            "operate": self._operated,
            "merge": self._merged,
        }.get(step.stage.name)
        if rule is not None:
            return rule(step)
        if isinstance(source := step.inputs.get("model"), str):
            return self.model(source)  # sft, a reward model and their like keep the architecture
        return f"the plan does not know what {step.stage.name!r} makes"

    def _imported(self, step: Step) -> Shape:
        config = step.config
        if config.path is not None:
            try:
                return self._read(locate(config.path, self.data))
            except EndonymError:
                return f"{config.path} is not there"
        return self._cached(config.hub, config.revision) or _preset(config.hub)

    def _cached(self, hub: str, revision: str) -> Shape | None:
        """Of a Hub id that was fetched before; the network is not asked."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(hub, "config.json", revision=revision)
        return self._read(Path(found).parent) if isinstance(found, str) else None

    def _pretrained(self, step: Step) -> Shape:
        if isinstance(source := step.inputs.get("model"), str):
            return self.model(source)
        sizes = step.config.architecture
        if sizes is None:
            return "neither a model nor an architecture is given"
        rows = sizes.vocab_size
        if not rows:
            given = step.inputs.get("tokenizer")
            rows = self.vocabulary(given) if given else "no tokenizer is given"
        if isinstance(rows, str):
            return rows
        return ModelConfig(**sizes.model_dump() | {"vocab_size": rows})

    def _operated(self, step: Step) -> Shape:
        known = self.model(step.inputs["input"])
        if isinstance(known, str):
            return known
        if isinstance(given := step.inputs.get("tokenizer"), str):
            tokens = self.vocabulary(given)
            if isinstance(tokens, str):
                return tokens
            multiple = step.config.vocabulary.multiple
            rows = -(-max(tokens, known.vocab_size) // multiple) * multiple
            known = known.model_copy(update={"vocab_size": rows})
        return _grown(known, step)

    def _merged(self, step: Step) -> Shape:
        """Of models that are averaged, the shape of each; a stack of slices is not followed."""
        if step.config.slices:
            return "the plan does not follow a stack of slices"
        return self.model(next(iter(step.inputs["inputs"].values())))

    def _read(self, folder: Path) -> Shape:
        from endonym.model.hub import config_from

        file = folder / "config.json"
        try:
            raw = json.loads(file.read_text(encoding="utf-8"))
            return config_from(raw, file)
        except (OSError, ValueError) as error:
            return f"{file} cannot be read: {error}"
        except EndonymError as error:
            return f"{error.what} ({error.got})" if error.got else error.what


def _grown(known: ModelConfig, step: Step) -> Shape:
    """The sizes after depth, context and experts (surgery/), as far as the arithmetic of a plan goes."""
    depth, context, experts = step.config.depth, step.config.context, step.config.experts
    fields = known.model_dump()
    if depth:
        layers = 2 * depth.keep or depth.block * sum(depth.copies)
        kinds = set(known.layer_types or ())
        if len(kinds) > 1 and layers != known.num_hidden_layers:
            return "the plan does not follow layers of several kinds through depth up-scaling"
        if kinds:
            fields["layer_types"] = [*kinds] * layers
        fields["num_hidden_layers"] = layers
    if context:
        fields["max_position_embeddings"] = context.length
        if isinstance(context.theta, float):
            fields["rope_theta"] = context.theta
        if context.window == "off":
            fields["sliding_window"] = fields["layer_types"] = None
    if experts:
        count = experts.count or len(step.inputs.get("snapshots") or ())
        fields["experts"] = {
            "count": count,
            "chosen": experts.chosen,
            "width": known.intermediate_size,
            "first_dense": experts.first_dense,
        }
    try:
        return ModelConfig.read(fields, f"@{step.name}")
    except EndonymError as error:
        return error.what


def _preset(hub: str) -> Shape:
    """The preset of a Hub id's name, whatever follows it (Qwen3-8B-Base: qwen3-8b); the longest that fits."""
    from endonym.model.presets import PRESETS

    name = hub.rpartition("/")[2].lower().removeprefix("meta-")
    fits = [each for each in PRESETS if name == each or name.startswith(each + "-")]
    return PRESETS[max(fits, key=len)] if fits else f"unknown until {hub} is fetched"
