"""Who answers prompts, behind one protocol: our own engine, or a server elsewhere.

What answers is named by its weights: an artifact's address, or a training run's and step's. Answers of
other weights than those asked for would be learned from with wrong probabilities, so every backend says
whose answers it gives.
"""

from collections.abc import Sequence
from typing import Protocol

from endonym.engine.generate import generate
from endonym.engine.run import Generation
from endonym.engine.sampler import Sampling
from endonym.engine.served import Served
from endonym.engine.server import serving
from endonym.engine.text import Decode
from endonym.model.checkpoint import CausalLM

__all__ = ["Backend", "Own", "Served", "serving"]


class Backend(Protocol):
    """Generations out of prompts."""

    weights: str
    """Address or step stamp of the weights that answer."""

    by: str
    """What kind of backend it is, for the record."""

    context: int | None
    """The most tokens of a prompt and its answer together; None: nobody said."""

    def generate(
        self,
        prompts: Sequence[list[int]],
        sampling: Sampling,
        stop_ids: Sequence[int] = (),
        *,
        keys: Sequence[int] | None = None,
        limits: Sequence[int] | None = None,
        stops: Sequence[str] = (),
        decode: Decode | None = None,
    ) -> list[Generation]:
        """One Generation for each prompt, in the prompts' order; arguments as engine.generate's."""


class Own:
    """Our engine in this process, with a model as it stands when it is asked.

    batch: prompts at a time
    """

    by = "own engine"

    def __init__(self, model: CausalLM, weights: str, *, batch: int = 32):
        self.model, self.weights, self.batch = model, weights, batch
        self.context = getattr(model.config, "max_position_embeddings", None)

    def generate(self, prompts, sampling, stop_ids=(), **others) -> list[Generation]:
        return generate(self.model, prompts, sampling, stop_ids, batch=self.batch, **others)
