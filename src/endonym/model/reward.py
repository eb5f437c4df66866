"""Reward models: a language model's trunk and a linear head that gives one number instead of V logits.

    r(x) = w . h_T        h_T: the state of the last token, after the final norm; w [1, D], no bias

(Linear head on the trunk: InstructGPT, arXiv:2203.02155, section 3.5; JAI-1's fluency model.)

A folder of one is what transformers calls a sequence classifier with one label: LlamaForSequence-
Classification and its like, trunk and score.weight, which TRL's RewardTrainer and vLLM read. Families
for which transformers has no such class (EXAONE-MoE, Solar Open, HyperCLOVA X), and decoders that no
family has (skips), are refused before anything is trained: a folder that only we could read would not
be a reward model to anybody's tools. Shapes: B rows, T time, D width.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from endonym.core.context import Context
from endonym.core.errors import DataError, RecipeError
from endonym.model import hf
from endonym.model.checkpoint import read_json, weight_files, write_json
from endonym.model.config import ModelConfig
from endonym.model.decoder import Decoder, Trunk
from endonym.model.families import layout
from endonym.model.foreign import ForeignLM
from endonym.model.hub import config_from, why_not_native
from endonym.model.shards import Shards
from endonym.model.to_hub import config_to

CLASS = "ForSequenceClassification"
STD = 0.02
"""Of a fresh head's weights; transformers' initializer_range."""

TOKENS_AT_ONCE = 8192
"""Of one forward pass of scores(), padding included, unless the context says how many rows."""


class RewardModel(Decoder):
    """A decoder whose head is score.weight [1, D]; forward() gives hidden states as a decoder's does,
    and hidden times head are the rewards. No cap and no scaling of logits: these belong to words."""

    def __init__(self, config: ModelConfig, trunk: Trunk, score: nn.Linear):
        bare = config.model_copy(update={"mtp_modules": 0, "tie_word_embeddings": True})
        with torch.device("meta"), hf.Undrawn():  # a trunk that is exchanged at once, and no head
            super().__init__(bare)
        self.config = bare.model_copy(update={"tie_word_embeddings": config.tie_word_embeddings})
        self.model, self.score = trunk, score

    @property
    def head(self) -> Tensor:
        return self.score.weight

    @property
    def cap(self) -> None:
        return None

    def _scaled(self, hidden: Tensor) -> Tensor:
        return hidden


class ForeignReward(ForeignLM):
    """transformers' own sequence classifier of a family that our decoder does not run."""

    @property
    def head(self) -> Tensor:
        return self.module.score.weight

    @property
    def cap(self) -> None:
        return None

    def save(self, folder: Path, *, pad_id: int) -> None:
        self.config.pad_token_id = pad_id
        self.module.save_pretrained(folder)


Reward = RewardModel | ForeignReward


def start(folder: str | Path, seed: int, *, native: bool = True) -> Reward:
    """A reward model out of a language model's folder: its trunk, and a head drawn by `seed` from
    normal(0, 0.02). Whether it can be saved is known here: RecipeError if not."""
    folder = Path(folder)
    draw = torch.Generator().manual_seed(seed)
    if not native or why_not_native(read_json(folder / "config.json")) is not None:
        model = _foreign(folder, None)
        with torch.no_grad():
            model.head.copy_(torch.randn(model.head.shape, generator=draw) * STD)
        return model.train(False)
    base = hf.load(folder)
    score = nn.Linear(base.config.hidden_size, 1, bias=False)
    with torch.no_grad():
        score.weight.copy_(torch.randn(score.weight.shape, generator=draw) * STD)
    model = RewardModel(base.config, base.model, score)
    model.family = base.family
    _described(model)
    return model.eval()


def load(
    folder: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    native: bool = True,
) -> Reward:
    """The reward model of a folder that save(), TRL or anybody's save_pretrained wrote.

    DataError for a language model, and for a classifier with more than one label.
    """
    folder = Path(folder)
    raw = read_json(folder / "config.json")
    name = (raw.get("architectures") or ["none"])[0]
    labels = len(raw.get("id2label") or {0: "", 1: ""})  # transformers' own default is two
    if not name.endswith(CLASS) or labels != 1:
        raise DataError(
            "this is not a reward model", where=folder / "config.json",
            wanted=f"...{CLASS} with one label", got=f"{name}, {labels} labels",
        )  # fmt: skip
    if not native or why_not_native(raw) is not None:
        return _foreign(folder, (device, dtype))
    config = config_from(raw, where=folder / "config.json")
    score = nn.Linear(config.hidden_size, 1, bias=False, device="meta")
    empty = RewardModel(config, hf.empty(config).model, score)
    shards = Shards(folder)
    try:
        state = hf.filled(empty, raw["model_type"], shards, dtype, device)
    finally:
        shards.close()
    empty.load_state_dict(state, assign=True)
    empty.family = raw["model_type"]
    return empty.eval()


def save(model: Reward, folder: str | Path, *, pad_id: int, eos_ids: Sequence[int] = ()) -> None:
    """config.json and safetensors of a sequence classifier with one label.

    pad_id: transformers takes the score at the last token that is not this one, so no text may end
    with it (data/pairs.padding finds one).
    """
    folder = Path(folder)
    if isinstance(model, ForeignReward):
        model.save(folder, pad_id=pad_id)
        return
    raw, name = _described(model)
    raw |= {
        "architectures": [name],
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
        "pad_token_id": pad_id,
        "torch_dtype": str(model.head.dtype).removeprefix("torch."),
    }
    if eos_ids:
        raw["eos_token_id"] = sorted(eos_ids) if len(eos_ids) > 1 else next(iter(eos_ids))
    tensors = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    hf.write_weights(folder, layout(model.config, raw["model_type"], shapes), tensors)
    write_json(folder / "config.json", raw)


def _described(model: RewardModel) -> tuple[dict, str]:
    """config.json and the class that transformers has for it."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as classes,
    )

    try:
        raw = config_to(model.config, getattr(model, "family", None))
    except RecipeError as error:
        raise RecipeError(
            "a reward model must be of a family that transformers has",
            wanted=error.wanted, got=error.got, do="start from a model without these",
        ) from None  # fmt: skip
    name = classes.get(raw["model_type"])
    if name is None:
        raise RecipeError(
            f"transformers has no sequence classifier of the family {raw['model_type']}, so nobody "
            "could load this reward model",
            wanted="a base model of Llama, Qwen, Mistral, Mixtral, EXAONE 4, Phi-3 ...",
        )
    return raw, name


def _foreign(folder: Path, place: tuple | None) -> ForeignReward:
    """transformers' module; place (device, dtype) of a reward model, None: a fresh head on a trunk."""
    from transformers import AutoModelForSequenceClassification

    weight_files(folder)
    device, dtype = place or ("cpu", torch.float32)
    try:
        module = AutoModelForSequenceClassification.from_pretrained(
            folder, num_labels=1, dtype=dtype,
            local_files_only=True, use_safetensors=True, trust_remote_code=False,
        )  # fmt: skip
    except Exception as error:  # whatever its many loaders say of a folder that is not right
        raise DataError(
            "transformers cannot load this folder as a reward model", where=folder,
            got=f"{type(error).__name__}: {error}".strip().split("\n")[0],
        ) from error  # fmt: skip
    if getattr(getattr(module, "score", None), "bias", 0) is not None:
        raise DataError(
            "this family's classifier is not one linear layer called score, without bias",
            where=folder, got=type(module).__name__,
        )  # fmt: skip
    return ForeignReward(module.to(device).eval())


def scores(
    model: Reward, sequences: Sequence[Sequence[int]], context: Context, title: str = "rewards"
) -> np.ndarray:
    """The reward of each sequence of ids, float32 [N]; sequences of like length are read together.

    A function of the sequences and the rows read at once alone, whatever order they come in.
    """
    found = np.empty(len(sequences), np.float32)
    lengths = np.array([len(each) for each in sequences], np.int64)
    if len(lengths) and lengths.min() == 0:
        raise DataError("a sequence without tokens has no reward", where=int(lengths.argmin()))
    order = np.argsort(-lengths, kind="stable")
    device, at = model.head.device, 0
    with torch.no_grad(), context.console.bar(title, len(order), unit="text") as bar:
        while at < len(order):
            rows = context.rows_per_device or max(1, TOKENS_AT_ONCE // int(lengths[order[at]]))
            batch = order[at : at + rows]
            tokens = np.zeros((len(batch), int(lengths[batch[0]])), np.int64)
            for line, number in zip(tokens, batch):
                line[: lengths[number]] = sequences[number]
            ends = torch.from_numpy(lengths[batch]).to(device)
            step = torch.arange(tokens.shape[1], device=device)
            hidden = model(
                torch.from_numpy(tokens).to(device), segments=(step < ends[:, None]).long()
            )
            last = hidden[torch.arange(len(batch), device=device), ends - 1]
            found[batch] = rewards(last, model.head).cpu().numpy()
            at += len(batch)
            bar.advance(len(batch))
    return found


def rewards(hidden: Tensor, head: Tensor) -> Tensor:
    """w . h of states [..., D], in float32 whatever the surrounding precision: one product a text."""
    return (hidden.float() * head.float()[0]).sum(-1)
