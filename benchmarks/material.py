"""What all arms share: real text in conversations of mixed length, a tokenizer, weights, prompts.

The text is the reference of the Python language that comes with every Python (pydoc's topics, some
465,000 characters of technical English), so that nothing is downloaded and nothing is invented.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from endonym.data.pack import best_fit
from endonym.tokenizer.folder import Tokenizer

ROW = 512
"""Tokens of a row."""
ROWS = 8
"""Rows of a step."""


@dataclass(frozen=True)
class Shape:
    """A Llama: width, layers, inner width, heads, key/value heads; vocabulary tied to the head.

    experts, qk_norm: as in ModelConfig; family: the model_type that the folder is written as.
    """

    name: str
    hidden_size: int
    num_hidden_layers: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int = 16384
    experts: dict[str, Any] | None = None
    qk_norm: bool = False
    family: str = "llama"


_MIXTRAL = {"family": "mixtral", "experts": {"count": 4, "chosen": 2, "width": 344}}
_QWEN3_MOE = {
    "family": "qwen3_moe",
    "experts": {"count": 16, "chosen": 4, "width": 176},
    "qk_norm": True,
}

SHAPES = {
    shape.name: shape
    for shape in (
        Shape("tiny", 64, 2, 176, 4, 2, vocab_size=2048),
        Shape("7M", 256, 4, 688, 4, 2),
        Shape("30M", 512, 7, 1376, 8, 4),
        Shape("3M 16k", 256, 4, 688, 4, 2),
        Shape("3M 64k", 256, 4, 688, 4, 2, vocab_size=65536),
        Shape("10M 16k", 384, 6, 1032, 6, 3),
        Shape("10M 64k", 384, 6, 1032, 6, 3, vocab_size=65536),
        Shape("30M 16k", 512, 10, 1376, 8, 4),
        Shape("30M 64k", 512, 10, 1376, 8, 4, vocab_size=65536),
        Shape("7M mixtral", 256, 4, 344, 4, 2, **_MIXTRAL),
        Shape("7M qwen3_moe", 256, 4, 688, 4, 2, **_QWEN3_MOE),
        Shape("tiny mixtral", 64, 2, 344, 4, 2, vocab_size=2048, **_MIXTRAL),
        Shape("tiny qwen3_moe", 64, 2, 176, 4, 2, vocab_size=2048, **_QWEN3_MOE),
    )
}
"""By all parameters, the table included: 3M of the 7M and 22M of the 30M lie in the blocks. Those with
experts: as many parameters a token as the dense one of their name, and more of them in all. Those
with a vocabulary in their name are called by the parameters of their blocks: 3, 10 and 29 million."""


@dataclass(frozen=True)
class Block:
    """The conversations of one step. Every arm sees them all, in every step.

    Each is its token ids and, token by token, whether it is a target. They fit ROWS rows of ROW
    tokens, and their number is a multiple of ROWS.
    """

    messages: list[list[dict[str, str]]]
    ids: list[list[int]]
    supervised: list[list[bool]]

    @property
    def figures(self) -> dict[str, Any]:
        lengths = [len(each) for each in self.ids]
        batches = [lengths[i : i + ROWS] for i in range(0, len(lengths), ROWS)]
        ordered = sorted(lengths)
        by_length = [ordered[i : i + ROWS] for i in range(0, len(ordered), ROWS)]
        return {
            "conversations": len(lengths),
            "tokens": sum(lengths),
            "supervised": sum(map(sum, self.supervised)),
            "shortest": min(lengths),
            "longest": max(lengths),
            "tokens_with_padding": {
                "packed": ROWS * ROW,
                "as they come": sum(max(batch) * len(batch) for batch in batches),
                "by length": sum(max(batch) * len(batch) for batch in by_length),
            },
        }


def tokenizer(vocab_size: int) -> Tokenizer:
    """A byte-level BPE of the text, of at most vocab_size tokens (the text has pairs for about 7,000)."""
    from endonym.tokenizer.train import train

    return train(_texts().values(), vocab_size)


def block(words: Tokenizer, seed: int = 0) -> Block:
    """Conversations that fill ROWS rows of ROW tokens to at least 95 %, drawn until they do.

    Their lengths are log-normal (median 150 tokens, sigma 0.7), as those of chat data about are:
    many short ones and a few long ones, of which the draw must hold one of at least 3/4 of a row.
    """
    random = Random(seed)
    pool = [_conversation(words, random) for _ in range(100)]
    pool = [each for each in pool if len(each[1]) <= ROW]
    while True:
        chosen = random.sample(pool, 3 * ROWS)
        lengths = np.array([len(ids) for _, ids, _ in chosen])
        fill = lengths.sum() / (ROWS * ROW)
        has_long = lengths.max() >= 0.75 * ROW
        if has_long and 0.95 <= fill <= 1 and len(best_fit(lengths, ROW)) == ROWS:
            return Block(*map(list, zip(*chosen)))


def prompts(
    words: Tokenizer, count: int, seed: int = 0, *, shortest: int = 8, longest: int = 64
) -> list[list[int]]:
    """`count` pieces of text of `shortest` to `longest` tokens, each length about as often as any."""
    random = Random(seed)
    ids = words.encode("\n".join(_texts().values()))
    starts = [random.randrange(len(ids) - longest) for _ in range(count)]
    return [ids[start : start + random.randint(shortest, longest)] for start in starts]


def stretches(words: Tokenizer, seed: int = 0) -> list[list[int]]:
    """ROWS stretches of text, each of ROW inputs and the token after them."""
    random = Random(seed)
    ids = words.encode("\n".join(_texts().values()))
    starts = [random.randrange(len(ids) - ROW - 1) for _ in range(ROWS)]
    return [ids[start : start + ROW + 1] for start in starts]


def save_block(given: Block, file: Path) -> None:
    file.write_text(json.dumps(asdict(given)), encoding="utf-8")


def read_block(file: str | Path) -> Block:
    return Block(**json.loads(Path(file).read_text(encoding="utf-8")))


def save_model(shape: Shape, folder: Path, *, lively: bool = False) -> int:
    """Fresh weights as a Hugging Face folder; the number of parameters.

    lively: the blocks' matrices times 4. A fresh model with a tied head says its last token again
    and again; one that listens to its blocks writes varied text, on which an error would show.
    """
    import torch

    from endonym.model import hf

    fields = {key: value for key, value in asdict(shape).items() if key not in ("name", "family")}
    config = {**fields, "head_dim": shape.hidden_size // shape.num_attention_heads}
    config |= {"tie_word_embeddings": True, "max_position_embeddings": 2048}
    model = hf.new(hf.ModelConfig.read(config, "benchmarks"), seed=0)
    if lively:
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if weight.dim() >= 2 and "embed" not in name:
                    weight *= 4
    hf.save(model, folder, family=shape.family)
    return sum(weight.numel() for weight in model.parameters())


def _texts() -> dict[str, str]:
    from pydoc_data.topics import topics

    return topics


def _conversation(words: Tokenizer, random: Random) -> tuple[list[dict], list[int], list[bool]]:
    """One to three turns about one topic, its answers stretches of that topic's text."""
    topic, text = random.choice(sorted(_texts().items()))
    wanted = int(random.lognormvariate(np.log(150), 0.7))
    turns = random.choice((1, 1, 2, 3))
    messages = []
    for turn in range(turns):
        length = max(12, 4 * wanted // turns - 40)  # characters; about four a token
        start = random.randrange(max(1, len(text) - length))
        ask = f"What does the reference say about {topic!r}?" if turn == 0 else "And what else?"
        messages += [
            {"role": "user", "content": ask},
            {"role": "assistant", "content": " ".join(text[start : start + length].split()) or "-"},
        ]
    return messages, *words.encode_chat(messages)
