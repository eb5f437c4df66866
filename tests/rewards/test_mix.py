"""Mixes: arguments, own rewards, the third outcome, what the record says, and TRL's way of calling."""

import math
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from endonym.core.config import Config, ExternalPath
from endonym.core.errors import DataError, RecipeError
from endonym.core.fingerprint import identity
from endonym.core.plan import with_located_paths
from endonym.rewards.base import FAILED, is_failed
from endonym.rewards.mix import REWARDS, Mix, mix

SPEC = {
    "answer": 0.9,
    "overlong": {"weight": 1, "limit": 4, "buffer": 2},
    "format": {"weight": 0.1, "tag": "thinking", "value": 0.5},
}


def test_arguments_stand_beside_the_weight():
    reward = mix(SPEC)
    replies = ["<thinking>hm</thinking>5", "5", "6"]
    ids = [[0] * 3, [0], [0] * 9]
    # "answer" knows <think> alone, so the first reply is not read as 5 here.
    parts = reward.parts([""] * 3, replies, answer=["5"] * 3, completion_ids=ids)
    assert parts["format"] == [0.5, 0.0, 0.0] and parts["overlong"] == [-0.5, 0.0, -1.0]
    assert parts["answer"] == [0.0, 1.0, 0.0]
    # 0 - 0.5 + 0.05; 0.9; -1
    assert parts["total"] == [pytest.approx(-0.45), pytest.approx(0.9), pytest.approx(-1.0)]
    assert reward.__name__ == "answer+overlong+format"


def test_every_name_makes_a_reward_with_trls_signature():
    needed = {"overlong": {"limit": 4, "buffer": 2}}
    for name in REWARDS:
        reward = mix({name: {"weight": 1.0, **needed.get(name, {})}})
        [value] = reward(
            prompts=["q"], completions=["a"], completion_ids=[[1]], extra=["x"], trainer_state=None
        )
        assert value is None or isinstance(value, float), name
        assert reward.weighted[name][0].__name__ == name


@pytest.mark.parametrize(
    "spec, message",
    [
        ({"answr": 1.0}, "did you mean 'answer'"),
        ({}, "without parts"),
        ({"answer": {"weight": 1.0, "language": "th"}}, "takes no argument 'language'"),
        ({"format": {"weight": 1.0, "tags": "x"}}, "did you mean 'tag'"),
        ({"overlong": 1.0}, "needs the argument 'limit'"),
        ({"overlong": {"weight": 1.0, "limit": 4}}, "needs the argument 'buffer'"),
        ({"answer": {}}, "has no weight"),
        ({"answer": "much"}, "has no weight"),
        ({"answer": True}, "has no weight"),
    ],
)
def test_mistakes_are_named(spec, message):
    with pytest.raises(RecipeError, match=message):
        mix(spec)


def lost(prompts, completions, **columns):
    return [FAILED if text == "lost" else 1.0 for text in completions]


def silent(prompts, completions, **columns):
    return [None] * len(completions)


def half(prompts, completions, **columns):
    return [0.5] * len(completions)


def test_a_failed_part_fails_the_total_and_is_counted():
    reward = Mix({"lost": (lost, 0.5), "half": (half, 1.0), "silent": (silent, 1.0)})
    parts = reward.parts([""] * 2, ["lost", "kept"])
    assert is_failed(parts["total"][0]) and parts["total"][1] == 1.0
    assert is_failed(parts["lost"][0]) and parts["half"] == [0.5, 0.5]
    reward([""], ["lost"])
    assert reward.failures == {"lost": 2, "half": 0, "silent": 0}
    assert Mix({"silent": (silent, 1.0)})([""], ["a"]) == [None]
    assert not is_failed(None) and not is_failed(0.0)
    # Even a part of weight 0, kept for its figures: who cannot be judged is not judged in part.
    assert is_failed(Mix({"lost": (lost, 0.0), "half": (half, 1.0)})([""], ["lost"])[0])


def test_the_record_says_who_judged():
    reward = mix({"rubric": 0.9, "math": 0.1})
    reward(["q"] * 2, ["\\boxed{5}", "?"], answer=["5", "5"])
    found = reward.described()
    assert found["rubric"]["judge"].startswith("rule: ") and found["rubric"]["weight"] == 0.9
    assert found["math"]["verdicts"] == {"equal": 1, "unparsed": 1}
    assert found["math"]["failures"] == 0


OWN = """
def short(prompts, completions, *, most=3, **columns):
    return [float(len(text) <= most) for text in completions]

def torn(prompts, completions, **columns):
    return [1.0]
"""


def test_own_rewards_are_functions_of_a_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    reward = mix({"short": {"weight": 2.0, "most": 4}, "answer": 1.0}, own={"short": file})
    # A column of the argument's name does not take its place.
    assert reward([""] * 2, ["four", "fives"], most=[9, 9]) == [2.0, 0.0]
    assert reward.weighted["short"][0].__name__ == "short"
    with pytest.raises(RecipeError, match="did you mean 'most'"):
        mix({"short": {"weight": 1.0, "mots": 4}}, own={"short": file})
    with pytest.raises(RecipeError, match="did you mean 'short'"):
        mix({"shrt": 1.0}, own={"shrt": file})
    with pytest.raises(RecipeError, match="is not there"):
        mix({"short": 1.0}, own={"short": tmp_path / "other.py"})
    with pytest.raises(RecipeError, match="has no weight"):
        mix({"answer": 1.0}, own={"short": file})
    with pytest.raises(RecipeError, match="there is a reward 'answer' already"):
        mix({"answer": 1.0}, own={"answer": file})
    with pytest.raises(DataError, match="did not judge every completion"):
        mix({"torn": 1.0}, own={"torn": file})([""] * 2, ["a", "b"])
    file.write_text("def short(:")
    with pytest.raises(RecipeError, match="does not load"):
        mix({"short": 1.0}, own={"short": file})


def test_an_own_reward_is_what_its_file_says_now_and_leaves_nothing_beside_it(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = tmp_path / "mine.py"
    for most in (3, 4):  # as long as before, and of the same time
        file.write_text(OWN.replace("most=3", f"most={most}"))
        os.utime(file, (0, 0))
        assert mix({"short": 1.0}, own={"short": file})([""], ["four"]) == [float(most == 4)]
    assert list(tmp_path.iterdir()) == [file]


class Settings(Config):
    reward: dict[str, float | dict[str, float | int | str | bool]]
    own_rewards: dict[str, ExternalPath] = {}


def test_an_own_rewards_content_is_its_identity(tmp_path):
    (tmp_path / "mine.py").write_text(OWN)
    settings = Settings(reward={"short": 1.0}, own_rewards={"short": "mine.py"})
    digest = lambda path: f"digest of {path}"  # noqa: E731
    assert identity(settings, digest)["own_rewards"] == {"short": {"content": "digest of mine.py"}}
    assert "own_rewards" not in identity(Settings(reward={"answer": 1.0}), digest)
    there = with_located_paths(settings, (tmp_path,))
    assert Path(there.own_rewards["short"]) == tmp_path / "mine.py"
    assert mix(there.reward, own=there.own_rewards)([""], ["a"]) == [1.0]


def test_trl_calls_a_mix_as_it_calls_any_reward():
    grpo = pytest.importorskip("trl.trainer.grpo_trainer")
    torch = pytest.importorskip("torch")
    reward = Mix({"lost": (lost, 1.0), "half": (half, 1.0)})
    other = mix({"answer": 1.0, "overlong": {"weight": 1.0, "limit": 2, "buffer": 1}})
    trainer = SimpleNamespace(
        accelerator=SimpleNamespace(device="cpu", is_main_process=False),
        args=SimpleNamespace(report_to=[]),
        reward_funcs=[reward, other],
        reward_processing_classes=[None, None],
        reward_func_names=[reward.__name__, other.__name__],
        state=SimpleNamespace(global_step=0),
        environments=None,
        _log_completion_extra=None,
        _log_metric=None,
    )
    inputs = [{"prompt": "q", "answer": gold} for gold in ("kept", "kept", None)]
    found = grpo.GRPOTrainer._calculate_rewards.__wrapped__(
        trainer, inputs, ["q"] * 3, ["kept", "lost", "x"], [[1], [1], [1, 1, 1]]
    )
    assert found.shape == (3, 2) and found[:, 0].isnan().tolist() == [False, True, False]
    assert found[:, 1].tolist() == [1.0, 0.0, -1.0]
    # TRL's own sum leaves nan out, as Mix leaves None out.
    assert torch.nansum(found, 1).tolist() == [2.5, 0.0, 0.5] and math.isnan(FAILED)
