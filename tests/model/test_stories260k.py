"""A real checkpoint: the released 260K-parameter Llama-architecture model and its greedy story."""

import os
from pathlib import Path

import numpy
import pytest
import torch

from endonym.engine.generate import generate
from endonym.engine.sampler import Sampling
from endonym.model.hf import load

SHARED = Path(os.environ.get("ENDONYM_SHARED") or Path(__file__).parents[2] / ".." / "shared")
FOLDER = SHARED / "data" / "checkpoints" / "stories260K" / "hf_layout"


@pytest.mark.skipif(not FOLDER.exists(), reason=f"no {FOLDER}: set ENDONYM_SHARED")
@torch.no_grad()
def test_golden_story():
    golden = numpy.load(FOLDER / "golden_greedy.npz")
    tokens = golden["tokens"].tolist()
    model = load(FOLDER)
    logits = model.logits(model(torch.tensor([tokens[:16]])))[0]
    # 1e-4: the golden logits (size 10) come from another implementation's float32
    torch.testing.assert_close(logits, torch.tensor(golden["logits"]), rtol=0, atol=1e-4)
    drawn = generate(model, [tokens[:1]], Sampling(temperature=0, max_tokens=len(tokens) - 1))
    assert drawn[0].tokens == tokens[1:]
