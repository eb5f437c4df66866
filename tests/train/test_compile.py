"""When blocks are compiled, that it is remembered and kept, and that it computes the same; with the
compiler's front half alone (aot_eager), which is where shapes and holes are decided."""

import json

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from endonym.core.console import Console
from endonym.core.context import Context, Layout
from endonym.core.errors import MachineError, RecipeError
from endonym.methods.batch import Rows
from endonym.model import hf
from endonym.model.config import Experts, ModelConfig
from endonym.train import compile as compiling

CONFIG = ModelConfig(
    vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
    num_attention_heads=2, num_key_value_heads=1, head_dim=8, qk_norm=True,
)  # fmt: skip
EXPERTS = Experts(count=4, chosen=2, width=8, shared=1)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def front_half(monkeypatch):
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")


class Notes(Console):
    def __init__(self):
        super().__init__(quiet=True)
        self.texts = []

    def note(self, text):
        self.texts.append(text)


def context(wish, **changes):
    return Context(compile=wish, console=Notes(), **changes)


def packed(seed, time=24):
    """Two rows of documents of random lengths; the last tokens are padding."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(32, (2, time), generator=generator)
    edges = (torch.rand(2, time, generator=generator) < 0.3).long()
    edges[:, 0] = 1
    segments = edges.cumsum(1)
    segments[:, -2:] = 0
    positions = torch.zeros_like(tokens)
    for row in range(2):
        for step in range(1, time):
            same = segments[row, step] == segments[row, step - 1]
            positions[row, step] = positions[row, step - 1] + 1 if same else 0
    return Rows(tokens, tokens, torch.ones(2, time), segments, positions)


def decided(model, wish, passes=1, cache=None, **changes):
    here = context(wish)
    choice = compiling.decide(
        model,
        packed(0),
        here,
        passes=passes,
        device=CPU,
        dtype=torch.float32,
        cache=cache,
        **changes,
    )
    return choice, here.console.texts


def is_compiled(model):
    found = {block._compiled_call_impl is not None for block in model.model.layers}
    assert len(found) == 1
    return found.pop()


def gradients(model, rows):
    model.zero_grad()
    out = model(rows.tokens, rows.positions, rows.segments)
    (out.square() * (rows.segments > 0)[..., None]).sum().backward()
    return out.detach(), {name: each.grad for name, each in model.named_parameters()}


def test_it_computes_the_same_and_other_documents_and_lengths_compile_nothing():
    """One length, another (compiled for all lengths), then any: always other documents."""
    plain, model = hf.new(CONFIG, seed=0), hf.new(CONFIG, seed=0)
    names = list(model.state_dict())
    assert decided(model, "always") == (compiling.COMPILED, [])
    assert is_compiled(model) and list(model.state_dict()) == names
    graphs = []
    for seed, time in enumerate((24, 24, 16, 40, 32, 24)):
        rows = packed(seed, time)
        agree(gradients(model, rows), gradients(plain, rows), rows)
        graphs.append(counters["stats"]["unique_graphs"])
    assert 0 < graphs[0] == graphs[1] < graphs[2] == graphs[-1]
    compiling.undone(list(model.model.layers))
    assert not is_compiled(model)


def test_experts_are_a_hole():
    """Which tokens go to which expert changes with the rows as well."""
    config = CONFIG.model_copy(update={"experts": EXPERTS})
    plain, model = hf.new(config, seed=0), hf.new(config, seed=0)
    compiling.with_holes(list(model.model.layers))
    graphs = []
    for seed in range(3):
        rows = packed(seed)
        agree(gradients(model, rows), gradients(plain, rows), rows)
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] == graphs[-1]
    compiling.undone(list(model.model.layers))
    assert "forward" not in vars(model.model.layers[0].mlp)


def agree(ours, theirs, rows):
    (out, mine), (wanted_out, wanted) = ours, theirs
    real = rows.segments > 0
    torch.testing.assert_close(out[real], wanted_out[real], atol=1e-5, rtol=0)  # float32
    for name, grad in wanted.items():
        torch.testing.assert_close(mine[name], grad, atol=1e-4, rtol=1e-4, msg=name)


def test_never_and_a_short_run_leave_the_model_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(compiling, "_trial", None)  # would fail if it were called
    model = hf.new(CONFIG, seed=0)
    assert decided(model, "never") == (compiling.PLAIN, [])
    choice, notes = decided(model, "auto", cache=tmp_path)
    assert choice == compiling.PLAIN and "0 s in all" in notes[0]
    assert not is_compiled(model) and not list(tmp_path.iterdir())


TIMES = {"plain": 0.010, "compiled": 0.005, "compiling": 60.0}


@pytest.mark.parametrize(
    "times, passes, choice",
    [
        (TIMES, 10_000, compiling.COMPILED),  # 2 blocks x 5 ms x 10,000 = 100 s for 60
        (TIMES, 5_000, compiling.PLAIN),  # 50 s for 60
        ({**TIMES, "compiled": 0.0095}, 10**6, compiling.PLAIN),  # 5 % is too near the noise
        ({**TIMES, "compiled": 0.02}, 10**6, compiling.PLAIN),
    ],
)
def test_the_choice_by_what_was_measured(times, passes, choice, tmp_path, monkeypatch):
    monkeypatch.setattr(compiling, "LONG", 0.0)
    monkeypatch.setattr(compiling, "_trial", lambda *args, **settings: dict(times))
    model = hf.new(CONFIG, seed=0)
    found, notes = decided(model, "auto", passes=passes, cache=tmp_path)
    assert found == choice and is_compiled(model) == (choice == compiling.COMPILED)
    assert choice in notes[0] and "10.0 ms plain" in notes[0]
    (kept,) = tmp_path.iterdir()
    assert json.loads(kept.read_text()) == times
    # The next run does not measure, and another one of other rows does not take these for its own.
    monkeypatch.setattr(compiling, "_trial", None)
    monkeypatch.setattr(compiling, "_seconds", None)
    again = hf.new(CONFIG, seed=1)
    assert decided(again, "auto", passes=passes, cache=tmp_path)[0] == choice
    with pytest.raises(TypeError):
        compiling.decide(
            again, packed(0, time=16), context("auto"), passes=passes, device=CPU,
            dtype=torch.float32, cache=tmp_path,
        )  # fmt: skip


def test_a_torn_measurement_is_taken_again(tmp_path, monkeypatch):
    monkeypatch.setattr(compiling, "LONG", 0.0)
    monkeypatch.setattr(compiling, "_trial", lambda *args, **settings: dict(TIMES))
    model = hf.new(CONFIG, seed=0)
    decided(model, "auto", cache=tmp_path)
    (kept,) = tmp_path.iterdir()
    kept.write_text(kept.read_text()[:9])
    decided(model, "auto", cache=tmp_path)
    assert json.loads(kept.read_text()) == TIMES


@pytest.mark.parametrize("before", [compiling.PLAIN, compiling.COMPILED])
def test_a_resumed_run_keeps_its_choice(before, monkeypatch):
    monkeypatch.setattr(compiling, "_measured_choice", None)
    model = hf.new(CONFIG, seed=0)
    assert decided(model, "auto", before=before)[0] == before
    assert is_compiled(model) == (before == compiling.COMPILED)


def test_all_ranks_choose_alike():
    """One rank that says plain decides for all."""
    model = hf.new(CONFIG, seed=0)
    choice, _ = decided(model, "auto", before=compiling.COMPILED, largest=lambda mine: 1)
    assert choice == compiling.PLAIN and not is_compiled(model)


def test_the_trial_leaves_no_trace():
    model = hf.new(CONFIG, seed=0)
    before = {name: each.clone() for name, each in model.state_dict().items()}
    state = torch.get_rng_state()
    found = compiling._trial(model, packed(0), CPU, torch.float32, note=print)
    assert 0 < found["plain"] < found["compiling"] and found["compiled"] > 0
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    assert all(each.grad is None for each in model.parameters())
    assert torch.equal(torch.get_rng_state(), state) and not is_compiled(model)


def test_a_machine_that_cannot_compile(tmp_path, monkeypatch):
    def broken(graph, inputs):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(compiling, "BACKEND", broken)
    monkeypatch.setattr(compiling, "LONG", 0.0)
    model = hf.new(CONFIG, seed=0)
    with pytest.raises(MachineError, match="does not work on this machine"):
        decided(model, "always")
    torch._dynamo.reset()
    choice, notes = decided(model, "auto", cache=tmp_path)
    assert choice == compiling.PLAIN and "fails here" in notes[0]
    assert not is_compiled(model) and not list(tmp_path.iterdir())


def test_what_is_not_compiled_is_said():
    foreign = nn.Linear(2, 2)
    assert decided(foreign, "never")[0] == compiling.PLAIN
    choice, notes = decided(foreign, "auto")
    assert choice == compiling.PLAIN and "own decoder" in notes[0]
    with pytest.raises(RecipeError, match="own decoder"):
        decided(foreign, "always")
    with pytest.raises(RecipeError, match="share rows"):
        compiling.decide(
            hf.new(CONFIG, seed=0), packed(0), context("always", layout=Layout(context=2)),
            passes=1, device=CPU, dtype=torch.float32,
        )  # fmt: skip
