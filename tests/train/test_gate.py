"""What gates decide, alone and in a run; and probes: when, under which conditions, and how they are told."""

import json

import pytest
import torch

from endonym.core.errors import RecipeError
from endonym.train import loop
from endonym.train.config import Gate
from endonym.train.gate import Gates
from endonym.train.probe import Probe, Probes
from train.drill import Loader, Tiny, context, objective, settings


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


class Counting:
    """Figures that depend on how often the model has learned, read off a weight that only grows."""

    def __init__(self, every=None):
        self.probe = Probe("count", self.measure, every)
        self.modes = []

    def measure(self, model):
        self.modes.append((model.training, torch.is_grad_enabled(), torch.rand(1).item()))
        return {"steps": 10 + model.steps, "left": 30 - model.steps}


class Steps(Tiny):
    """Tiny, and a buffer that counts its learned steps."""

    def __init__(self):
        super().__init__(dropout=0.1)
        self.register_buffer("count", torch.zeros(()))

    @property
    def steps(self):
        return float(self.count)


class Objective:
    def __call__(self, model, rows):
        return objective(model, rows)

    def end_step(self, model, learned):
        model.count += learned


def run(folder, *gates, loader=None, every=None, **changes):
    model, counting = Steps(), Counting(every)
    config = settings(**{"steps": 12, "final_share": 0.5, "gates": list(gates), **changes})
    figures = loop.train(
        model, Objective(), loader or Loader(), config, context(folder), probes=[counting.probe]
    )
    return figures, counting, model


def test_probes_are_measured_before_between_and_after(tmp_path):
    figures, counting, _ = run(tmp_path, every=5)
    probed = [(line["step"], line["probe"]) for line in lines(tmp_path) if "probe" in line]
    assert probed == [
        (n, {"count/steps": 10.0 + n, "count/left": 30.0 - n}) for n in (0, 5, 10, 12)
    ]
    assert figures["probes"] == {
        "count/steps": {"before": 10.0, "after": 22.0},
        "count/left": {"before": 30.0, "after": 18.0},
    }
    assert "gates" not in figures
    # In eval mode, without gradient, with the same random numbers each time; and training goes on.
    assert len(set(counting.modes)) == 1 and counting.modes[0][:2] == (False, False)


def test_probes_leave_the_run_as_it_would_be_without(tmp_path):
    _, _, probed = run(tmp_path / "a", every=1)
    plain = Steps()
    config = settings(steps=12, final_share=0.5)
    loop.train(plain, Objective(), Loader(), config, context(tmp_path / "b"))
    assert all(torch.equal(t, plain.state_dict()[n]) for n, t in probed.state_dict().items())
    steps = [line for line in lines(tmp_path / "a") if "loss" in line]
    assert steps == lines(tmp_path / "b")


def test_the_run_names_its_probes_interval_unless_they_have_their_own():
    def none(model):
        return {}

    probes = Probes([Probe("a", none), Probe("b", none, 3), Probe("c", none, 0)], 4, 0)
    names = {step: [probe.name for probe in probes.due(step, 13)] for step in range(14)}
    assert names[0] == names[13] == ["a", "b", "c"]
    assert [step for step in range(1, 13) if "a" in names[step]] == [4, 8, 12]
    assert [step for step in range(1, 13) if "b" in names[step]] == [3, 6, 9, 12]
    assert not any("c" in names[step] for step in range(1, 13))


def test_two_probes_of_one_name_and_a_figure_that_is_not_finite_are_refused():
    probe = Probe("a", lambda model: {"x": float("nan")})
    with pytest.raises(RecipeError, match="share a name"):
        Probes([probe, probe], 0, 0)
    with pytest.raises(RecipeError, match="a/x"):
        Probes([probe], 0, 0).measured([probe], lambda measure: measure(None))


def test_stop_ends_the_run_at_the_first_measurement_that_keeps_the_bound(tmp_path):
    gate = Gate(figure="count/steps", at_least=16, action="stop")
    figures, _, _ = run(tmp_path, gate, every=4)
    assert figures["steps"] == 8 and len([x for x in lines(tmp_path) if "loss" in x]) == 8
    assert figures["gates"] == {"stop: count/steps >= 16": True}
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-00000008"]


def test_stop_is_not_judged_before_the_first_step(tmp_path):
    figures, _, _ = run(tmp_path, Gate(figure="count/steps", at_least=10, action="stop"), every=3)
    assert figures["steps"] == 3


def test_extend_goes_on_at_the_last_rate_until_the_bound_is_kept(tmp_path):
    gate = Gate(figure="count/steps", at_least=28, action="extend", extend_steps=3, times=5)
    figures, _, _ = run(tmp_path, gate)
    assert figures["steps"] == 18 and figures["gates"] == {"extend: count/steps >= 28": True}
    rates = [line["learning_rate"] for line in lines(tmp_path) if "loss" in line]
    assert rates[11:] == [rates[11]] * 7 and rates[11] == 0.5e-2


def test_extend_gives_up_after_its_times_and_fail_makes_that_an_error(tmp_path):
    gate = Gate(figure="count/steps", at_least=99, action="extend", extend_steps=3, times=2)
    figures, _, _ = run(tmp_path / "a", gate)
    assert figures["steps"] == 18 and figures["gates"] == {"extend: count/steps >= 99": False}
    with pytest.raises(RecipeError, match="does not keep its bound on count/steps"):
        run(tmp_path / "b", gate, Gate(figure="count/steps", at_least=99))
    assert len([x for x in lines(tmp_path / "b") if "loss" in x]) == 18
    # Run again: it is said again, and nothing is trained.
    with pytest.raises(RecipeError, match="does not keep its bound"):
        run(tmp_path / "b", gate, Gate(figure="count/steps", at_least=99))


def test_a_watched_bound_ends_the_run_where_it_is_broken(tmp_path):
    gate = Gate(figure="count/left", at_least=0.8, relative=True, watch=True)  # of 30: 24
    with pytest.raises(RecipeError, match="x 30") as caught:
        run(tmp_path, gate, every=2)
    assert "got: 22" in str(caught.value)
    assert len([x for x in lines(tmp_path) if "loss" in x]) == 8


def test_a_watched_bound_that_is_not_kept_at_the_start_costs_no_step(tmp_path):
    with pytest.raises(RecipeError, match="does not keep its bound"):
        run(tmp_path, Gate(figure="count/steps", at_least=99, watch=True))
    assert [line["step"] for line in lines(tmp_path)] == [0] and "probe" in lines(tmp_path)[0]


def test_a_bound_that_is_not_watched_is_judged_at_the_end(tmp_path):
    gate = Gate(figure="count/left", at_most=0.6, relative=True)
    figures, _, _ = run(tmp_path, gate, every=2)
    assert figures["gates"] == {"fail: count/left <= 0.6 x 30": True}


@pytest.mark.parametrize("stop_at", [1, 11, 12, 13, 15])
def test_a_run_that_was_cut_off_decides_as_one_that_was_not(tmp_path, stop_at):
    class Cut(Loader):
        def rows(self, step):
            if step == stop_at:
                raise KeyboardInterrupt
            return super().rows(step)

    gates = [
        Gate(figure="count/steps", at_least=28, action="extend", extend_steps=3, times=5),
        Gate(figure="count/left", at_least=0.2, relative=True, watch=True),
    ]
    whole, _, model = run(tmp_path / "whole", *gates, every=5)
    keep = {"every": 1}
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", *gates, loader=Cut(), every=5, keep=keep)
    again, _, other = run(tmp_path / "cut", *gates, every=5, keep=keep)
    assert again["resumed_at"] == stop_at
    assert all(torch.equal(t, other.state_dict()[n]) for n, t in model.state_dict().items())
    names = ("metrics.jsonl",)
    assert all((tmp_path / x / n).read_bytes() == (tmp_path / "whole" / n).read_bytes()
               for x in ("cut",) for n in names)  # fmt: skip
    assert {k: again[k] for k in ("steps", "probes", "gates")} == {
        k: whole[k] for k in ("steps", "probes", "gates")
    }


def test_gates_that_cannot_be_judged_are_refused_before_the_first_step(tmp_path):
    with pytest.raises(RecipeError, match="did you mean 'count/steps'"):
        run(tmp_path / "a", Gate(figure="count/step", at_least=1))
    assert not (tmp_path / "a" / "checkpoints" / "step-00000012").exists()
    with pytest.raises(RecipeError, match="it has none"):
        config = settings(gates=[Gate(figure="x/y", at_least=1)])
        loop.train(Tiny(), objective, Loader(), config, context(tmp_path / "b"))
    extend = Gate(figure="count/steps", at_least=1, action="extend", extend_steps=3)
    with pytest.raises(RecipeError, match="learns nothing when it is extended"):
        run(tmp_path / "c", extend, final_share=0)
    gates = Gates(settings(gates=[Gate(figure="a/x", at_most=2, relative=True)]), 1.0)
    with pytest.raises(RecipeError, match="above 0 at the start"):
        gates.measured({"a/x": 0.0}, 0)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"at_least": 1, "action": "extend"},
        {"at_least": 1, "extend_steps": 3},
        {"at_least": 1, "action": "stop", "watch": True},
    ],
)
def test_a_gate_without_a_bound_or_with_half_an_action_is_refused(fields):
    with pytest.raises(RecipeError, match="does not fit"):
        Gate.read({"figure": "a/x", **fields}, "recipe.toml")
