"""Operations by hand, and a log that opens where a checkpoint left it."""

import hashlib
from types import SimpleNamespace

import torch
from torch import nn

from endonym.train import meter
from train.drill import Tiny


def test_operations_of_a_tied_and_an_untied_model():
    model = Tiny()
    total = 13 * 8 + 8 + 8 + 64 + 8
    assert meter.flops_per_token(model) == (6.0 * total, 12.0 * 1 * 2 * 4)
    model.config = SimpleNamespace(**{**vars(model.config), "tie_word_embeddings": False})
    model.lm_head = nn.Linear(8, 13, bias=False)
    assert meter.flops_per_token(model)[0] == 6.0 * total  # the head counts, the table does not


def test_no_peak_where_it_is_not_known():
    assert meter.peak(torch.device("cpu"), torch.bfloat16) is None


def test_the_log_is_cut_and_its_hash_goes_on(tmp_path):
    with meter.Meter(tmp_path, 0, 0) as first:
        first.step({"step": 0, "loss": 1.0}, {"step": 0, "seconds": 0.1})
        length, digest = first.position()
        first.step({"step": 1, "loss": 2.0}, {"step": 1, "seconds": 0.1})
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    assert digest == hashlib.sha256(whole[:length]).hexdigest()
    with meter.Meter(tmp_path, 1, length) as second:
        assert second.position() == (length, digest)
        second.step({"step": 1, "loss": 2.0}, {"step": 1, "seconds": 0.2})
        assert second.position() == (len(whole), hashlib.sha256(whole).hexdigest())
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole
    assert (tmp_path / "timing.jsonl").read_bytes().count(b"\n") == 3
