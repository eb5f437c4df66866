"""Stages whose answers a server draws: evaluation, reinforcement, distillation, through a stand-in.

The stand-in serves the very folder that a stage wrote or was given, with our engine. What it answers is
what `Alone` answers in this process: each prompt by itself, with the numbers that the request names.
"""

import json

import pytest

from endonym.core.artifact import Artifact
from endonym.core.errors import DataError, MachineError
from endonym.engine import served
from endonym.engine.answered import answered_by, note
from endonym.engine.backends import Own, generate
from endonym.engine.served import _seed
from endonym.eval import run as asking
from endonym.rollouts import answering
from endonym.stages.evaluate import EvaluateConfig, evaluate
from endonym.tasks.base import Item, write_items
from endonym.train import launch
from engine.folder_stand_in import Behind
from eval.tiny import THAI, choice, context
from stages import test_distill, test_rl

BY = "server (stand-in)"
RL = {"steps": 2, "prompts_per_step": 3, "group": 2, "sampling": {"max_tokens": 5}}
"""At a temperature of 0.7."""


class Alone(Own):
    def generate(self, prompts, sampling, stop_ids=(), *, keys, limits=None):
        limits = limits or [sampling.max_tokens] * len(prompts)
        return [
            generate(
                self.model, [prompt], sampling.model_copy(update={"seed": _seed(sampling.seed, key)}),
                stop_ids, keys=[0], limits=[limit],
            )[0]
            for prompt, key, limit in zip(prompts, keys, limits, strict=True)
        ]  # fmt: skip


@pytest.fixture
def behind(monkeypatch):
    monkeypatch.setattr(served, "WAITS", ())
    return Behind(monkeypatch)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return test_rl.prepared(tmp_path_factory.mktemp("inputs"))


def reinforced(tmp_path, inputs, name="run", server=True, **settings):
    mine = test_rl.own(tmp_path, "float(len(text) % 3)")
    return test_rl.run(tmp_path, inputs, name, server=server, **RL | mine | settings)


def left(out):
    """What a training run leaves, without its record."""
    return {
        "weights": (out / "model.safetensors").read_bytes(),
        "metrics": (out / "metrics.jsonl").read_text(),
        **{path.name: path.read_bytes() for path in (out / "rollouts").iterdir()},
    }


# --- reinforcement -----------------------------------------------------------------------------


def test_each_batch_is_drawn_by_the_weights_as_they_stand(tmp_path, inputs, behind, monkeypatch):
    folders, truly = [], answering.serving

    def looked_at(folder, name):
        folders.append({path.name for path in folder.iterdir()})
        return truly(folder, name)

    monkeypatch.setattr(answering, "serving", looked_at)
    outcome, out = reinforced(tmp_path, inputs, learning_rate=1e-2)
    first, second = behind.served
    assert first.startswith("rl-") and first.endswith("-batch-0") and second == f"{first[:-1]}1"
    wanted = {"config.json", "model.safetensors", "generation_config.json", "tokenizer.json"}
    assert len(folders) == 2 and all(wanted <= each for each in folders)
    assert not (tmp_path / "run" / "scratch" / answering.FOLDER).exists()
    assert outcome.figures["answered_by"] == BY
    monkeypatch.setattr(answering, "Own", Alone)
    plain, wanted = reinforced(tmp_path, inputs, "alone", server=False, learning_rate=1e-2)
    assert left(out) == left(wanted)
    assert "answered_by" not in plain.figures
    told = test_rl.lines(out)
    assert all(line["sampling/sampling_logp_difference/mean"] < 1e-5 for line in told)
    assert any(line["grad_norm"] > 0 for line in told)


def test_one_server_for_all_draws_of_a_batch_with_the_adapter_merged(
    tmp_path, inputs, behind, monkeypatch
):
    pytest.importorskip("peft")
    settings = {"dynamic": True, "adapter": {"rank": 2}, "learning_rate": 5e-2}
    _, out = reinforced(tmp_path, inputs, **settings)
    tries = [batch.tries for batch in test_rl.batches(out)]
    assert max(tries) > 1 and len(behind.served) == 2
    monkeypatch.setattr(answering, "Own", Alone)
    assert left(out) == left(reinforced(tmp_path, inputs, "alone", server=False, **settings)[1])


def test_a_server_that_dies_is_told_and_the_run_goes_on(tmp_path, inputs, behind, monkeypatch):
    behind.dies_at = 10  # in the second batch: one to look, then six
    with pytest.raises(MachineError, match=r"ended while it was asked(.|\n)*no memory is left"):
        reinforced(tmp_path, inputs, "cut")
    scratch = tmp_path / "cut" / "scratch"
    assert not (scratch / answering.FOLDER).exists()
    (tmp_path / "cut" / "out").rmdir()
    asked = len(behind.requests)
    _, out = reinforced(tmp_path, inputs, "cut")
    monkeypatch.setattr(answering, "Own", Alone)
    assert left(out) == left(reinforced(tmp_path, inputs, "alone", server=False)[1])
    assert {name[-1] for name, _ in behind.requests[asked:]} == {"1"}, "the first batch is kept"


def test_a_run_that_is_taken_up_by_another_says_both(tmp_path):
    class Backend:
        def __init__(self, by):
            self.by = by

    note(tmp_path, Own)
    assert answered_by(tmp_path) == {}, "as in a run without a server"
    for by in (BY, Own.by, BY):
        note(tmp_path, Backend(by))
    assert answered_by(tmp_path) == {"answered_by": f"own engine, {BY}"}


def test_two_processes_ask_one_server(tmp_path, inputs, behind, monkeypatch):
    monkeypatch.setattr(launch, "START", "fork")  # saves the imports
    found = []
    for processes in (1, 2):
        name = f"by{processes}"
        outcome, out = reinforced(tmp_path, inputs, name, processes=processes)
        assert outcome.figures["answered_by"] == BY
        found.append([one.tokens for batch in test_rl.batches(out) for one in batch.rollouts])
    assert found[0] == found[1]


def test_a_server_that_cannot_tell_the_log_probabilities_draws_nothing(tmp_path, inputs, behind):
    behind.raw = True
    with pytest.raises(DataError, match="processed_logprobs"):
        reinforced(tmp_path, inputs)
    assert len(behind.requests) == 1, "more than the question which it tells"
    assert not (tmp_path / "run" / "scratch" / "rollouts").exists()


def test_another_name_is_refused(tmp_path, inputs, monkeypatch):
    behind = Behind(monkeypatch, as_name="other-{name}")
    with pytest.raises(DataError, match=r"other weights than those asked for(.|\n)*other-rl-"):
        reinforced(tmp_path, inputs)
    assert not behind.requests
    assert not (tmp_path / "run" / "scratch" / answering.FOLDER).exists()


def test_a_run_without_a_command_ends_before_it_begins(tmp_path, inputs, monkeypatch):
    monkeypatch.delenv("ENDONYM_SERVER", raising=False)
    with pytest.raises(MachineError, match="no command is named"):
        reinforced(tmp_path, inputs)
    assert not (tmp_path / "run" / "scratch" / "metrics.jsonl").exists()


def test_processes_on_several_nodes_are_refused(behind):
    class Ranks:
        def gather(self, value):
            return [value, "another"]

    class Trainee:
        ranks = Ranks()

    with (
        pytest.raises(MachineError, match="its own node"),
        answering.Server("run", None).serving(Trainee(), "step-0"),
    ):
        pass


# --- distillation ------------------------------------------------------------------------------


def distilled(tmp_path, given, name, **changes):
    settings = {"steps": 2, "lmbda": 1.0, "max_completion": 6, "learning_rate": 1e-2}
    return test_distill.run(tmp_path, given, name, changes, **settings)


given = test_distill.inputs


def test_the_students_answers_of_each_step(tmp_path, inputs, given, behind, monkeypatch):
    outcome, out = distilled(tmp_path, given, "served", server=True)
    first, second = behind.served
    assert first.startswith("distill-") and (first[-7:], second[-7:]) == ("-step-0", "-step-1")
    assert outcome.figures["answered_by"] == BY
    assert outcome.figures["drawn"]["on_policy"] == 8
    monkeypatch.setattr(answering, "Own", Alone)
    plain, wanted = distilled(tmp_path, given, "alone")
    assert left(out) == left(wanted) and "answered_by" not in plain.figures


# --- evaluation --------------------------------------------------------------------------------


def exam(tmp_path, inputs):
    asked = [
        Item(f"i{n}", "answer", "t", language="th", messages=[{"role": "user", "content": f"{text} {n}"}],
             answer="น้ำ")
        for n, text in enumerate([THAI[:9], "the water", THAI[9:20]])
    ]  # fmt: skip
    asked.append(choice("c", "the water", [" rose", " population"]))
    (tmp_path / "exam").mkdir()
    write_items(tmp_path / "exam" / "items.parquet", asked)
    model = Artifact(inputs["model"].path, inputs["model"].record | {"address": "0123abcd"})
    return {
        "model": model,
        "items": {"th": test_rl.artifact(tmp_path / "exam", "items")},
        "text": {},
    }


def evaluated(tmp_path, parts, name, server=True, **settings):
    (tmp_path / name / "out").mkdir(parents=True, exist_ok=True)
    config = EvaluateConfig.read({"max_tokens": 5, "also": ["foreign"]} | settings)
    here = context(tmp_path / name / "scratch", server=server)
    outcome = evaluate(config, here, tmp_path / name / "out", **parts)
    rows = (tmp_path / name / "out" / "replies.jsonl").read_text().splitlines()
    scores = json.loads((tmp_path / name / "out" / "scores.json").read_text())
    return dict(outcome.figures), [json.loads(row) for row in rows], scores


def test_an_evaluation_asks_one_server_and_reads_itself(tmp_path, inputs, behind, monkeypatch):
    parts = exam(tmp_path, inputs)
    figures, rows, scores = evaluated(tmp_path, parts, "served")
    assert behind.served == ["0123abcd"] and len(behind.requests) == 6, (
        "choices are read, not asked"
    )
    assert figures.pop("answered_by") == BY and BY in scores["notes"][0]
    plain, own_rows, _ = evaluated(tmp_path, parts, "own", server=False)
    assert [row for row in rows if not row["temperature"]] == [
        row for row in own_rows if not row["temperature"]
    ]
    assert plain["choices_th"] == figures["choices_th"]
    monkeypatch.setattr("endonym.engine.backends.Own", Alone)
    assert evaluated(tmp_path, parts, "alone", server=False)[:2] == (figures, rows)


def test_an_evaluation_whose_server_dies_goes_on(tmp_path, inputs, behind, monkeypatch):
    monkeypatch.setattr(asking, "BATCH", 2)
    parts = exam(tmp_path, inputs)
    whole = evaluated(tmp_path, parts, "whole")
    behind.dies_at = len(behind.requests) + 2
    with pytest.raises(MachineError, match="ended while it was asked"):
        evaluated(tmp_path, parts, "cut")
    asked = len(behind.requests)
    assert evaluated(tmp_path, parts, "cut") == whole
    assert len(behind.requests) - asked == 4, "the first batch is kept"
