"""Time and experts shared by processes: the losses and gradients of one process, in float32 noise.

The comparison runs in processes of its own (exchanged.py).
"""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from endonym.core.errors import RecipeError
from endonym.methods.batch import Rows
from endonym.model.config import ModelConfig
from endonym.model.exchange import share_time, slice_rows
from endonym.model.hf import new

CASES = [
    ("time", 2),
    ("time, windows", 2),
    ("time, more processes than key heads", 4),
    ("time, stretched", 2),
    ("time, experts in each", 2),
    ("experts", 4),
    ("experts, one with all the tokens", 2),
]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the comparison forks")
@pytest.mark.parametrize(("case", "processes"), CASES)
def test_shared_is_the_same_as_alone(case, processes):
    script = Path(__file__).with_name("exchanged.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), case, str(processes)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0 and done.stdout.strip() == "same", done.stderr


def test_slices_of_rows_hold_every_token_once_and_padding_at_the_end():
    tokens = torch.arange(1, 15).view(2, 7)
    rows = Rows(tokens, tokens, tokens.float(), torch.ones_like(tokens), torch.zeros_like(tokens))
    slices = [slice_rows(rows, number, 3) for number in range(3)]
    assert {one.tokens.shape for one in slices} == {(2, 3)}
    joined = torch.cat([one.tokens for one in slices], 1)
    assert torch.equal(joined[:, :7], tokens) and not joined[:, 7:].any()
    assert not slices[2].segments[:, 1:].any(), "what is added is padding"


@pytest.mark.parametrize(
    ("changes", "count", "said"),
    [
        ({"num_attention_heads": 4, "num_key_value_heads": 4}, 3, "divides 4 heads"),
        ({"num_attention_heads": 12, "num_key_value_heads": 4}, 6, "divides 4 key heads"),
        ({"num_attention_heads": 4, "mtp_modules": 1}, 2, "looks over the border"),
    ],
)
def test_what_cannot_be_shared_is_refused(changes, count, said):
    sizes = {
        "vocab_size": 11, "hidden_size": 24, "intermediate_size": 8, "num_hidden_layers": 1, **changes
    }  # fmt: skip
    model = new(ModelConfig.read(sizes, "test"), 0)
    with pytest.raises(RecipeError, match=said):
        share_time(model, SimpleNamespace(size=lambda: count))
    with pytest.raises(RecipeError, match="own module"):
        share_time(torch.nn.Linear(2, 2), SimpleNamespace(size=lambda: count))
