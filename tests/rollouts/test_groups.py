"""What a step of a reinforcement run weighs: every answer counts in the mean, learnt from or not."""

from types import SimpleNamespace

import pytest

from endonym.engine.sampler import Sampling
from endonym.methods.grpo import Policy
from endonym.rollouts.draw import Plan, weigh
from endonym.rollouts.groups import Groups
from endonym.rollouts.record import Batch, Rollout

LENGTHS = [[2, 5, 3], [4, 4, 1], [7, 2, 6]]
REWARDS = [[1.0, 0.0, 0.5], [1.0, 1.0, 1.0], [float("nan"), 0.0, 1.0]]
"""The second group teaches nothing, and one answer of the third could not be judged."""


def loader(tmp_path, **changes):
    settings = {
        "prompts": 3, "group": 3, "updates": 1, "sampling": Sampling(), "policy": Policy(),
        "aggregate": "tokens", "scale": "none", "old": "sampler", "dynamic": False,
        "dynamic_tries": 1, "mask_truncated": False, "longest": 10, "max_turns": 1,
        "row_length": 32, "seed": 0,
    }  # fmt: skip
    plan = Plan(**settings | changes)
    draw = SimpleNamespace(
        plan=plan,
        order=SimpleNamespace(identity="order"),
        tokenizer=SimpleNamespace(identity="words"),
    )
    rollouts = [
        Rollout(
            slot, sample, "", "", [1, 2], [3] * length, [True] * length, [-1.0] * length,
            "stop", 1, [], reward=reward, reference=[-1.0] * length,
        )
        for slot in range(3)
        for sample, (length, reward) in enumerate(zip(LENGTHS[slot], REWARDS[slot]))
    ]  # fmt: skip
    made, batch = Groups(draw, None, tmp_path, "here"), Batch(0, 3, 1, rollouts)
    weigh(batch.kept, plan)
    made._batch = batch
    return made


def step(pieces):
    """(sum of w A) / (sum of s): the step's loss but for its sign, where every ratio is 1."""
    value = sum(float((each.weights * each.extra["advantage"]).sum()) for each in pieces)
    return value / sum(float(each.extra["share"].sum()) for each in pieces)


@pytest.mark.parametrize("aggregate", ["tokens", "sequences", "constant"])
def test_answers_without_advantage_are_in_the_mean_though_not_in_the_rows(tmp_path, aggregate):
    some = loader(tmp_path, aggregate=aggregate)
    every = loader(tmp_path, aggregate=aggregate, policy=Policy(beta=0.1))
    few, all_ = some.pieces(0), every.pieces(0)
    # Two of the first group (the third's reward is the mean), two of the third; with beta all judged
    assert (len(few), len(all_)) == (4, 8)
    told = [(0.5, 2), (-0.5, 5), (0.0, 3), (0.0, 4), (0.0, 4), (0.0, 1), (-0.5, 2), (0.5, 6)]
    wanted = {
        "tokens": sum(gain * length for gain, length in told) / sum(length for _, length in told),
        "sequences": sum(gain for gain, _ in told) / len(told),
        "constant": sum(gain * length for gain, length in told) / (10 * len(told)),
    }[aggregate]
    assert step(few) == pytest.approx(wanted, abs=1e-6)
    assert step(all_) == pytest.approx(wanted, abs=1e-6)


def test_updates_share_the_groups_between_them(tmp_path):
    one = loader(tmp_path, updates=3, policy=Policy(beta=0.1))
    lengths = [[len(each) - 1 for each in one.pieces(number)] for number in range(3)]
    assert lengths == [LENGTHS[0], LENGTHS[1], LENGTHS[2][1:]]
    assert "old" not in one.pieces(0)[0].extra and "old" in one.pieces(1)[0].extra
