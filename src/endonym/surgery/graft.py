"""Weights put into a decoder of another configuration, with all that a state does not hold."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from endonym.model.config import ModelConfig
from endonym.model.decoder import Decoder


def graft(
    model: Decoder,
    config: ModelConfig,
    state: Callable[[Decoder], Mapping[str, Tensor]],
    origin: Callable[[str], str] = lambda name: name,
) -> Decoder:
    """A decoder of `config` that holds state(it) and is otherwise as `model` is.

    state: the tensors of the new decoder, by name, out of its empty self (on the meta device); they are
    taken as they are, in their own types and on their own devices.
    origin: of a new parameter's name the model's, whose freezing it inherits; a name that the model does
    not have keeps what the configuration gives it.
    """
    with torch.device("meta"):
        other = Decoder(config)
    other.load_state_dict(state(other), assign=True)
    learns = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    for name, parameter in other.named_parameters():
        parameter.requires_grad_(learns.get(origin(name), parameter.requires_grad))
    other.checkpointing = model.checkpointing
    if hasattr(model, "family"):
        other.family = model.family
    return other.train(model.training)
