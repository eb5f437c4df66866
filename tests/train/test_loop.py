"""The step by hand, its independence of micro-batches, and what happens to values that are not finite."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from endonym.core.console import Console
from endonym.core.errors import MachineError, RecipeError
from endonym.methods.batch import Loss
from endonym.train import clock, loop
from endonym.train.config import TrainConfig
from endonym.train.precision import precision_of
from endonym.train.seed import seed_for
from train.drill import Loader, Tiny, context, final, objective, run, settings


def log(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_the_loss_falls_and_the_figures_say_what_was_done(tmp_path):
    figures = loop.train(
        Tiny(), objective, Loader(), settings(steps=120, learning_rate=3e-2), context(tmp_path)
    )
    assert figures["loss"] < 0.5 * figures["loss_first"]
    assert figures["tokens"] == 120 * 8 * 6
    assert figures["precision"] == "float32"
    assert figures["skipped"] == 0 and figures["resumed_at"] is None
    assert figures["parameters"] == 13 * 8 + 8 + 8 + 64 + 8
    assert list((tmp_path / "tensorboard").iterdir())
    rows = log(tmp_path)
    assert [row["step"] for row in rows] == list(range(120))
    assert set(rows[0]) == {"step", "loss", "grad_norm", "learning_rate", "tokens", "accuracy"}


def test_a_step_is_adamw_on_the_mean_loss(tmp_path):
    """Against torch's own parts, on all rows at once: cross-entropy's weighted mean, AdamW."""
    config = settings(steps=3, warmup=0, schedule="constant", clip=0)
    model, plain = Tiny(dropout=0.0), Tiny(dropout=0.0)
    loop.train(model, objective, Loader(), config, context(tmp_path))
    decayed = [plain.layer.weight]
    rest = [plain.embed_tokens.weight, *plain.norm.parameters(), plain.layer.bias]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}],
        lr=1e-2,
        betas=(0.9, 0.95),
    )
    for step in range(3):
        loss = objective(plain, Loader().rows(step))
        optimizer.zero_grad()
        (loss.value / loss.weight).backward()
        optimizer.step()
        mean = (loss.value / loss.weight).item()
        assert log(tmp_path)[step]["loss"] == pytest.approx(mean, 1e-6)
    for name, tensor in plain.state_dict().items():
        # 1e-6: float32, and the division by the weight before or after the sum
        torch.testing.assert_close(model.state_dict()[name], tensor, atol=1e-6, rtol=0)


def test_the_split_into_micro_batches_changes_nothing(tmp_path):
    """R5: 4 x 2 rows against 2 x 4, and against all 8; within 1e-6 in float32 (other order of sums)."""
    ends, losses, norms = {}, {}, {}
    for rows in (2, 4, 8, None, 3):
        model, folder = Tiny(dropout=0.0), tmp_path / str(rows)
        loop.train(model, objective, Loader(), settings(), context(folder, rows_per_device=rows))
        ends[rows] = weights(model)
        losses[rows] = [row["loss"] for row in log(folder)]
        norms[rows] = [row["grad_norm"] for row in log(folder)]
    for rows in (4, 8, None, 3):
        assert losses[rows] == pytest.approx(losses[2], abs=1e-6)
        # Clipping and Adam forget the gradient's scale, so it is looked at by itself
        assert norms[rows] == pytest.approx(norms[2], rel=1e-5)
        for name, tensor in ends[rows].items():
            torch.testing.assert_close(tensor, ends[2][name], atol=1e-6, rtol=0)


def test_another_split_is_said_to_round_otherwise_and_none_is_refused(tmp_path):
    notes = []
    console = SimpleNamespace(note=notes.append, bar=Console(quiet=True).bar, quiet=True)
    loop.train(Tiny(), objective, Loader(), settings(), context(tmp_path))
    here = context(tmp_path, rows_per_device=2, console=console)
    loop.train(Tiny(), objective, Loader(), settings(), here)
    assert any("not be bitwise" in note and "'rows_per_device': 2" in note for note in notes)
    with pytest.raises(RecipeError, match="--rows-per-device"):
        loop.train(Tiny(), objective, Loader(), settings(), context(tmp_path, rows_per_device=0))


def test_the_same_run_in_another_place_is_bitwise_the_same(tmp_path):
    """R4, R15: neither the path nor the hour nor a run before it in the process is part of the result."""
    run(tmp_path / "one")
    torch.rand(7)
    run(tmp_path / "บ้าน สอง 🏠")
    assert final(tmp_path / "one") == final(tmp_path / "บ้าน สอง 🏠")


def test_a_run_that_goes_on_with_other_threads_says_that_it_is_not_the_same(tmp_path):
    notes = []
    console = SimpleNamespace(note=notes.append, bar=Console(quiet=True).bar, quiet=True)
    loop.train(Tiny(), objective, Loader(), settings(), context(tmp_path, threads=1))
    try:
        here = context(tmp_path, threads=2, console=console)
        loop.train(Tiny(), objective, Loader(), settings(), here)
    finally:
        torch.set_num_threads(1)
    assert any("not be bitwise" in note and "'threads': 2" in note for note in notes)


def test_random_numbers_are_a_function_of_seed_and_step():
    numbers = {(seed, step): seed_for(seed, step) for seed in range(20) for step in range(500)}
    # torch's CPU generator looks at the low 32 bits; among 10^4 draws a clash has odds of 1 in 86
    assert len({number & 0xFFFFFFFF for number in numbers.values()}) == len(numbers)
    assert all(0 <= number < 2**63 for number in numbers.values())


def test_each_step_draws_its_own_random_numbers(tmp_path):
    def drawing(model, rows):
        return replace(objective(model, rows), figures={"drawn": torch.rand(1).item()})

    loop.train(Tiny(dropout=0.0), drawing, Loader(), settings(seed=5), context(tmp_path))
    for step, line in enumerate(log(tmp_path)):
        torch.manual_seed(seed_for(5, step))
        assert line["drawn"] == pytest.approx(torch.rand(1).item())


def test_another_seed_gives_other_dropout(tmp_path):
    ends = []
    for seed in (0, 0, 1):
        model = Tiny()
        folder = tmp_path / str(len(ends))
        loop.train(model, objective, Loader(), settings(seed=seed), context(folder))
        ends.append(model.layer.weight.detach().clone())
    assert torch.equal(ends[0], ends[1]) and not torch.equal(ends[0], ends[2])


class Spoilt:
    """The objective with something not finite at some steps, counted by calls."""

    def __init__(self, *steps, kind="loss"):
        self.steps, self.kind, self.call = steps, kind, -1

    def __call__(self, model, rows):
        self.call += 1
        loss = objective(model, rows)
        if self.call not in self.steps:
            return loss
        if self.kind == "loss":
            return replace(loss, value=loss.value * float("nan"))
        # The value is finite; the square root's slope at 0 is not
        return replace(loss, value=loss.value + (model.layer.weight * 0).sum().abs().sqrt())


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_a_step_that_is_not_finite_is_skipped_and_written_down(tmp_path, kind):
    model = Tiny(dropout=0.0)
    spoilt = Spoilt(1, 3, kind=kind)
    figures = loop.train(model, spoilt, Loader(), settings(steps=5), context(tmp_path))
    rows = log(tmp_path)
    assert figures["skipped"] == 2
    assert [row.get("skipped") for row in rows] == [None, kind, None, kind, None]
    assert rows[1]["grad_norm"] is None and rows[3]["step"] == 3
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())


def test_a_skipped_step_leaves_weights_and_optimizer_alone(tmp_path):
    """Skipping steps 1 and 2 of 3 ends where a run of step 0 alone does, at the same rate."""
    spoilt, alone = Tiny(dropout=0.0), Tiny(dropout=0.0)
    config = settings(steps=3, warmup=0, schedule="constant")
    loop.train(spoilt, Spoilt(1, 2), Loader(), config, context(tmp_path / "a"))
    loop.train(
        alone, objective, Loader(), config.model_copy(update={"steps": 1}), context(tmp_path / "b")
    )
    assert torch.equal(spoilt.layer.weight, alone.layer.weight)


def test_too_many_in_a_row_end_the_run_with_the_last_good_checkpoint(tmp_path):
    spoilt = Spoilt(*range(4, 24))
    with pytest.raises(RecipeError, match="5 steps in a row had no finite loss") as caught:
        loop.train(Tiny(), spoilt, Loader(), settings(), context(tmp_path, checkpoint_seconds=0))
    assert "steps 4 to 8" in str(caught.value)
    assert len(log(tmp_path)) == 9
    # Run again: the streak is part of the state, so it ends at once and not five steps later.
    with pytest.raises(RecipeError, match="steps 4 to 8"):
        loop.train(
            Tiny(),
            Spoilt(*range(24)),
            Loader(),
            settings(),
            context(tmp_path, checkpoint_seconds=0),
        )


def test_bad_steps_with_a_good_one_between_do_not_end_the_run(tmp_path):
    spoilt = Spoilt(0, 1, 2, 3, 5, 6, 7, 8)
    figures = loop.train(Tiny(), spoilt, Loader(), settings(), context(tmp_path))
    assert figures["skipped"] == 8


def test_weights_spoilt_from_outside_end_the_run_unsaved(tmp_path):
    class Broken(Loader):
        def rows(self, step):
            if step == 3:
                model.layer.weight.data[0, 0] = float("inf")
            return super().rows(step)

    model = Tiny()
    with pytest.raises(RecipeError, match="not finite and is not saved"):
        loop.train(model, objective, Broken(), settings(), context(tmp_path, checkpoint_seconds=0))
    assert max(path.name for path in (tmp_path / "checkpoints").iterdir()) == "step-00000003"


def test_a_step_without_weight_is_no_fault(tmp_path):
    def none(model, rows):
        loss = objective(model, rows)
        return Loss(loss.value * 0, 0.0)

    model = Tiny()
    before = weights(model)
    figures = loop.train(model, none, Loader(), settings(steps=8), context(tmp_path))
    assert figures["skipped"] == 0 and figures["loss"] is None
    assert {row["skipped"] for row in log(tmp_path)} == {"no weight"}
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(model).items())


def test_precision_follows_the_width_and_the_processor(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert precision_of("auto", cpu, 128) == torch.float32
    assert precision_of("auto", cpu, 192) == torch.bfloat16
    assert precision_of("float32", cpu, 4096) == torch.float32
    assert precision_of("bfloat16", cpu, 8) == torch.bfloat16
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False})
    assert precision_of("auto", cpu, 4096) == torch.float32
    with pytest.raises(MachineError, match="no products in bfloat16"):
        precision_of("bfloat16", cpu, 4096)


def test_bf16_trains_with_float32_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    model = Tiny()
    seen = []
    model.layer.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    figures = loop.train(
        model, objective, Loader(), settings(precision="bfloat16", steps=40), context(tmp_path)
    )
    assert set(seen) == {torch.bfloat16} and figures["precision"] == "bfloat16"
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}
    assert figures["loss"] < figures["loss_first"]


def test_saves_take_a_twentieth_of_the_time_at_most(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(clock.time, "monotonic", lambda: now[0])
    saves = clock.SaveClock(10.0)
    now[0] = 9.9
    assert not saves.due()
    now[0] = 10.0
    assert saves.due()
    saves.saved(4.0)  # 4 s a save: not before 80 s have gone
    now[0] += 79
    assert not saves.due()
    now[0] += 1
    assert saves.due()


def test_a_finished_run_is_not_trained_again(tmp_path):
    model = Tiny()
    loop.train(model, objective, Loader(), settings(), context(tmp_path))
    again = Tiny(seed=3)
    figures = loop.train(again, objective, Loader(), settings(), context(tmp_path))
    assert figures["resumed_at"] == figures["steps"] and figures["saves"] == 0
    assert figures["loss"] is not None and figures["tokens_per_second"] is None
    assert all(torch.equal(t, model.state_dict()[n]) for n, t in again.state_dict().items())


def test_settings_are_read_strictly():
    with pytest.raises(RecipeError, match="did you mean 'warmup'"):
        TrainConfig.read(
            {"steps": 3, "learning_rate": 1.0, "warm_up": 1}, "recipe.toml: stages.cpt.train"
        )


def test_an_objective_may_act_after_each_step_and_is_told_whether_it_counted(tmp_path):
    class Counting:
        said = []

        def __call__(self, model, rows):
            loss = objective(model, rows)
            bad = len(self.said) == 1
            return Loss(loss.value * (float("nan") if bad else 1.0), loss.weight, loss.figures)

        def end_step(self, model, learned):
            self.said.append(learned)

    loop.train(Tiny(), Counting(), Loader(), settings(steps=3), context(tmp_path))
    assert Counting.said == [True, False, True]
