"""A random decoder and a small Thai and English tokenizer, for the tests of eval and serve."""

from functools import cache
from pathlib import Path

import torch

from endonym.core.console import Console
from endonym.core.context import Context
from endonym.model import hf
from endonym.model.decoder import Decoder, ModelConfig
from endonym.tasks.base import Item
from endonym.tokenizer.folder import Tokenizer
from endonym.tokenizer.train import train

THAI = "ประเทศไทยมีประชากรจำนวนมาก น้ำท่วมที่กรุงเทพมหานคร รัฐบาลสนับสนุนการศึกษาของเด็กทุกคน"
ENGLISH = "the country has a large population and the water rose in the capital"


@cache
def tokenizer() -> Tokenizer:
    return train([THAI * 3, ENGLISH * 3], 420)


@cache
def model(seed: int = 0, size: int = 128) -> Decoder:
    """Weights large enough that predictions differ much from place to place."""
    made = hf.new(
        ModelConfig(
            vocab_size=tokenizer().vocab_size, hidden_size=32, intermediate_size=48,
            num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            max_position_embeddings=size, tie_word_embeddings=True,
        ),
        seed,
    )  # fmt: skip
    with torch.no_grad():
        for weight in made.parameters():
            if weight.dim() > 1:
                weight.mul_(8)
    return made.eval()


def context(folder: Path | None = None, **changes) -> Context:
    return Context(scratch=folder or Path("."), console=Console(quiet=True), **changes)


def choice(id: str, context: str, choices: list[str], answer: int = 0) -> Item:
    return Item(id, "choice", "t", context=context, choices=choices, answer=str(answer))
