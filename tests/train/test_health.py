"""R10: whatever is not finite or leaps is noted, skipped or gone back from, and a kill changes nothing."""

import json
import os
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from endonym.core.errors import RecipeError
from endonym.methods.batch import Loss
from endonym.train import loop
from endonym.train.config import Keep
from endonym.train.health import Fault, Health
from train.drill import Loader, Tiny, context, objective, settings

STEPS, BAD = 20, 13


class Named(Loader):
    """The drill's rows with names, and the step they were drawn for in their weights' place."""

    drawn = None

    def rows(self, step):
        self.drawn = step
        return super().rows(step)

    def names(self, step):
        return [f"row {step}.{n}" for n in range(8)]


class Breaking(torch.autograd.Function):
    """Zero, with a gradient that is not finite."""

    @staticmethod
    def forward(ctx, weight, kind):
        ctx.save_for_backward(weight)
        ctx.kind = kind
        return weight.new_zeros(())

    @staticmethod
    def backward(ctx, grad):
        return torch.full_like(*ctx.saved_tensors, float(ctx.kind.split()[1])), None


class Spoiling:
    """The objective, with one thing wrong at the loader's step BAD (or each step from there on)."""

    def __init__(self, kind, loader, optimizers, always=False):
        self.kind, self.loader, self.optimizers, self.always = kind, loader, optimizers, always

    def __call__(self, model, rows):
        step = self.loader.drawn
        if not (step == BAD or (self.always and step > BAD)):
            return objective(model, rows)
        if self.kind in ("weights nan", "weights inf"):
            model.layer.weight.data[0, 0] = float(self.kind.split()[1])
        if self.kind in ("state nan", "state inf"):
            for state in self.optimizers[-1].state.values():
                state["exp_avg"].view(-1)[0] = float(self.kind.split()[1])
        loss = objective(model, rows)
        if self.kind in ("loss nan", "loss inf"):
            return replace(loss, value=loss.value * float(self.kind.split()[1]))
        if self.kind in ("gradient nan", "gradient inf"):
            return replace(loss, value=loss.value + Breaking.apply(model.layer.weight, self.kind))
        if self.kind == "loss spike":
            # Ten times the value, with the gradient as it was
            return replace(loss, value=loss.value + 9 * loss.value.detach())
        if self.kind == "gradient spike":
            value = loss.value * 100
            return replace(loss, value=value - 0.99 * value.detach())
        return loss


KINDS = [
    "loss nan", "loss inf", "gradient nan", "gradient inf", "weights nan", "weights inf",
    "state nan", "state inf", "loss spike", "gradient spike",
]  # fmt: skip


def run(folder, kind, policy, monkeypatch, always=False, loader=None, saves=1e9, **changes):
    made = []
    build = loop.Trainee.__init__

    def remembering(self, *arguments, **more):
        build(self, *arguments, **more)
        made.append(self.optimizer)

    monkeypatch.setattr(loop.Trainee, "__init__", remembering)
    loader = loader or Named()
    model = Tiny(dropout=0.1)
    config = settings(
        **{"steps": STEPS, "on_spike": policy, "spike_window": 4, "warmup": 0, **changes}
    )
    here = context(folder, checkpoint_seconds=saves)
    figures = loop.train(model, Spoiling(kind, loader, made, always), loader, config, here)
    return figures, model


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def faults(folder):
    return [line for line in lines(folder) if "fault" in line]


def end(folder):
    last = sorted((folder / "checkpoints").glob("step-*"))[-1]
    return (folder / "metrics.jsonl").read_bytes(), (last / "state.safetensors").read_bytes()


def is_finite(folder):
    return all(
        bool(torch.isfinite(tensor).all())
        for each in (folder / "checkpoints").glob("step-*")
        for tensor in load_file(each / "state.safetensors").values()
    )


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind[:5] not in ("weigh", "state")])
def test_skip_takes_no_update_and_says_why(tmp_path, monkeypatch, kind):
    figures, _ = run(tmp_path, kind, "skip", monkeypatch)
    (line,) = faults(tmp_path)
    reason = kind if "spike" in kind else kind.split()[0]
    assert (line["step"], line["skipped"], line["fault"]["reason"]) == (BAD, reason, reason)
    assert line["fault"]["data_step"] == BAD and line["fault"]["rows"] == Named().names(BAD)
    assert figures["skipped"] == 1 and figures["passed_over"] == 0 and is_finite(tmp_path)
    if "spike" in kind:
        assert line["fault"]["value"] > line["fault"]["bound"] > 0
    else:
        assert line["fault"]["value"] == kind.split()[1]


def test_a_skipped_step_is_as_if_it_had_not_been(tmp_path, monkeypatch):
    """Against a run whose loader leaves that step out, at a constant rate."""

    class Without(Named):
        def rows(self, step):
            return super().rows(step + (step >= BAD))

    plain = {"schedule": "constant"}
    _, spoilt = run(tmp_path / "a", "loss spike", "skip", monkeypatch, **plain)
    model, loader = Tiny(dropout=0.0), Without()
    spoilt = Tiny(dropout=0.0)
    spoiling = Spoiling("loss spike", named := Named(), [])
    config = settings(steps=STEPS, on_spike="skip", spike_window=4, warmup=0, **plain)
    loop.train(spoilt, spoiling, named, config, context(tmp_path / "b"))
    shorter = config.model_copy(update={"steps": STEPS - 1})
    loop.train(model, objective, loader, shorter, context(tmp_path / "c"))
    assert all(torch.equal(t, model.state_dict()[n]) for n, t in spoilt.state_dict().items())


@pytest.mark.parametrize("policy", ["note", "skip"])
def test_a_gradient_that_is_not_finite_is_never_taken_though_the_loss_leapt_too(tmp_path, policy):
    loader = Named()

    def both(model, rows):
        loss = objective(model, rows)
        if loader.drawn != BAD:
            return loss
        value = loss.value + 9 * loss.value.detach() + Breaking.apply(model.layer.weight, "x nan")
        return replace(loss, value=value)

    config = settings(steps=STEPS, on_spike=policy, spike_window=4)
    loop.train(Tiny(), both, loader, config, context(tmp_path))
    (line,) = faults(tmp_path)
    assert (line["skipped"], line["fault"]["reason"]) == ("gradient", "gradient")
    assert is_finite(tmp_path)


def test_losses_below_zero_do_not_leap():
    """Of -3, -2 is no twofold; a median of zero has no multiple either."""
    for usual in (-3.0, 0.0):
        health = Health(settings(spike_window=2))
        health.taken(usual, 1.0, None)
        health.taken(usual, 1.0, None)
        assert health.judged(usual + 1) is None and health.judged(usual + 1, 11.0).is_spike


@pytest.mark.parametrize("kind", ["loss spike", "gradient spike"])
def test_note_takes_the_update_and_writes_it_down(tmp_path, monkeypatch, kind):
    figures, model = run(tmp_path / "a", kind, "note", monkeypatch)
    (line,) = faults(tmp_path / "a")
    assert "skipped" not in line and line["fault"]["reason"] == kind and figures["skipped"] == 0
    _, other = run(tmp_path / "b", kind, "note", monkeypatch, spike_window=100)
    assert faults(tmp_path / "b") == []
    assert all(torch.equal(t, other.state_dict()[n]) for n, t in model.state_dict().items())


def test_a_state_after_a_noted_spike_is_saved_by_no_clock(tmp_path, monkeypatch):
    saved = []
    save = loop.Checkpoints.save

    def told(self, model, optimizer, progress, extra=None):
        saved.append(progress.step)
        return save(self, model, optimizer, progress, extra)

    monkeypatch.setattr(loop.Checkpoints, "save", told)
    run(tmp_path, "loss spike", "note", monkeypatch, saves=0)
    assert saved == [step for step in range(1, STEPS + 1) if step != BAD + 1]


@pytest.mark.parametrize("kind", KINDS)
def test_rollback_goes_back_and_passes_the_data_over(tmp_path, monkeypatch, kind):
    figures, _ = run(tmp_path, kind, "rollback", monkeypatch)
    (line,) = faults(tmp_path)
    fault = line["fault"]
    # What a spoilt optimizer state does shows in the weights, a step later.
    at = BAD + 1 if kind.startswith("state") else BAD
    assert (fault["at"], fault["back_to"], fault["passed_over"]) == (at, 12, [12, at])
    assert fault["rows"] == Named().names(at)
    assert figures["skipped"] == 1 and figures["passed_over"] == at - 11
    steps = [row["step"] for row in lines(tmp_path) if "loss" in row]
    assert steps == list(range(STEPS)) and is_finite(tmp_path)


def test_after_a_rollback_the_run_is_one_that_never_read_that_data(tmp_path, monkeypatch):
    class Without(Named):
        def rows(self, step):
            return super().rows(step + 2 * (step >= 12))

    run(tmp_path / "a", "loss nan", "rollback", monkeypatch)
    run(tmp_path / "b", "nothing", "rollback", monkeypatch, loader=Without())
    kept = [line for line in lines(tmp_path / "a") if "loss" in line]
    # Dropout follows the place in the data too, so the losses agree only without it: learning rates
    # and tokens here, weights below.
    for name in ("step", "learning_rate", "tokens"):
        assert [x[name] for x in kept] == [x[name] for x in lines(tmp_path / "b")]
    ends = []
    for kind, loader in (("loss nan", Named()), ("nothing", Without())):
        model = Tiny(dropout=0.0)
        config = settings(steps=STEPS, on_spike="rollback", spike_window=4, warmup=0)
        here = context(tmp_path / kind)
        loop.train(model, Spoiling(kind, loader, []), loader, config, here)
        ends.append(model.state_dict())
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())


SURVIVED = [
    *[(kind, policy) for kind in ("loss nan", "loss spike") for policy in ("note", "skip")],
    *[(kind, "rollback") for kind in ("loss nan", "state nan", "weights inf", "loss spike")],
]


@pytest.mark.parametrize(("kind", "policy"), SURVIVED)
def test_a_kill_at_any_step_changes_nothing(tmp_path, monkeypatch, kind, policy):
    run(tmp_path / "whole", kind, policy, monkeypatch)

    class Cut(Named):
        def __init__(self, calls):
            self.calls = calls

        def rows(self, step):
            self.calls -= 1
            if self.calls == 0:
                raise KeyboardInterrupt
            return super().rows(step)

    # Every step is saved here, so that a run goes on in the middle of the stretch that is given up.
    for calls in (9, 15, 16, 18):
        folder = tmp_path / str(calls)
        with pytest.raises(KeyboardInterrupt):
            run(folder, kind, policy, monkeypatch, loader=Cut(calls), saves=0)
        run(folder, kind, policy, monkeypatch, saves=1e9)
        assert end(folder) == end(tmp_path / "whole"), f"killed at call {calls}"


@pytest.mark.parametrize("policy", ["note", "skip"])
@pytest.mark.parametrize("kind", ["weights nan", "state inf"])
def test_without_a_way_back_a_spoilt_state_ends_the_run_unsaved(
    tmp_path, monkeypatch, kind, policy
):
    with pytest.raises(RecipeError, match="5 steps in a row had no finite loss"):
        run(tmp_path / "a", kind, policy, monkeypatch)
    assert not list((tmp_path / "a" / "checkpoints").iterdir())
    with pytest.raises(RecipeError, match="not finite and is not saved"):
        run(tmp_path / "b", kind, policy, monkeypatch, saves=0)
    assert is_finite(tmp_path / "b")


def test_returns_to_one_checkpoint_come_to_an_end(tmp_path, monkeypatch):
    with pytest.raises(RecipeError, match="3 returns to one checkpoint") as caught:
        run(tmp_path, "loss nan", "rollback", monkeypatch, always=True, max_bad_steps=3)
    assert "step-00000012 is saved" in str(caught.value)
    told = [line["fault"] for line in faults(tmp_path)]
    # Each time what was read since is passed over: first 12 and 13, then one more each time.
    assert [each["passed_over"] for each in told] == [[12, 13], [14, 14], [15, 15]]
    assert [each["at"] for each in told] == [13, 12, 12] and is_finite(tmp_path)


def test_a_spoilt_state_at_an_anchor_is_gone_back_from_before_it_is_one(tmp_path, monkeypatch):
    """The last update before the anchor at 16 breaks a moment; no loss has had time to tell."""

    class Late(Spoiling):
        def __call__(self, model, rows):
            if self.loader.drawn == 15:
                for state in self.optimizers[-1].state.values():
                    state["exp_avg"].view(-1)[0] = float("nan")
            return objective(model, rows)

    monkeypatch.setitem(globals(), "Spoiling", Late)
    figures, _ = run(tmp_path, "late", "rollback", monkeypatch)
    (line,) = faults(tmp_path)
    assert line["fault"]["reason"] == "state" and line["fault"]["back_to"] == 12
    assert line["fault"]["value"].endswith("exp_avg") or "." in line["fault"]["value"]
    assert figures["passed_over"] == 4 and is_finite(tmp_path)


def test_the_way_back_is_kept_while_newer_checkpoints_come_and_go(tmp_path, monkeypatch):
    run(tmp_path, "nothing", "rollback", monkeypatch, saves=0, keep=Keep(last=1), spike_window=15)
    names = sorted(os.listdir(tmp_path / "checkpoints"))
    assert names == ["step-00000020"]
    with pytest.raises(KeyboardInterrupt):

        class Cut(Named):
            def rows(self, step):
                if step == 18:
                    raise KeyboardInterrupt
                return super().rows(step)

        run(tmp_path / "b", "nothing", "rollback", monkeypatch, loader=Cut(), saves=0,
            keep=Keep(last=1), spike_window=15)  # fmt: skip
    assert sorted(os.listdir(tmp_path / "b" / "checkpoints")) == ["step-00000015", "step-00000018"]


def test_a_resumed_run_keeps_the_way_back_too(tmp_path, monkeypatch):
    """The anchor at 8 is older than the one checkpoint that is kept, when the loss at 13 is not finite."""
    settings = {"keep": Keep(last=1), "spike_window": 8}
    run(tmp_path / "whole", "loss nan", "rollback", monkeypatch, **settings)

    class Cut(Named):
        def rows(self, step):
            if step == 10:
                raise KeyboardInterrupt
            return super().rows(step)

    with pytest.raises(KeyboardInterrupt):
        run(
            tmp_path / "cut", "loss nan", "rollback", monkeypatch, loader=Cut(), saves=0, **settings
        )
    run(tmp_path / "cut", "loss nan", "rollback", monkeypatch, saves=0, **settings)
    assert end(tmp_path / "cut") == end(tmp_path / "whole")


def test_the_median_is_of_good_steps_of_one_phase():
    health = Health(settings(spike_window=3, spike_factor=2.0, spike_norm_factor=4.0))
    health.enter(0)
    for loss in (1.0, 5.0, 2.0):
        assert health.judged(loss) is None  # nothing is a spike before there are three
        health.taken(loss, 1.0, None)
    assert health.judged(4.0) is None
    assert health.judged(4.1) == Fault("loss spike", 4.1, 4.0)
    assert health.judged(4.0, 4.0) is None
    assert health.judged(4.0, 4.1) == Fault("gradient spike", 4.1, 4.0)
    health.taken(2.0, 1.0, None)  # 5, 2, 2
    assert health.judged(4.1).bound == 4.0
    health.enter(1)
    assert health.judged(100.0) is None
    for loss in (float("nan"), float("inf")):
        assert health.judged(loss).reason == "loss"
        assert health.judged(1.0, loss).reason == "gradient"


def test_what_health_remembers_survives_as_json():
    config = settings(spike_window=2, on_spike="rollback")
    first, second = Health(config), Health(config)
    first.enter(3)
    for loss in (0.1, 1 / 3, 0.7):
        first.taken(loss, loss * 2, None)
    first.anchored(4)
    first.return_from(6, {"reason": "loss"}, first.state())
    second.restore(json.loads(json.dumps(first.state())))
    assert second.state() == first.state() and second.shift == 3
    assert second.judged(2.0) == first.judged(2.0) is not None


def test_a_loss_without_weight_is_no_fault(tmp_path, monkeypatch):
    def none(model, rows):
        loss = objective(model, rows)
        return Loss(loss.value * 0, 0.0)

    config = settings(steps=8, on_spike="rollback", spike_window=2)
    figures = loop.train(Tiny(), none, Loader(), config, context(tmp_path))
    assert figures["skipped"] == 0 and faults(tmp_path) == []
