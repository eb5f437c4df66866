"""Distillation as a stage: what is drawn, what is learnt of whom, and what is refused."""

import json
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
import torch

from endonym.core.artifact import Artifact
from endonym.core.errors import DataError, RecipeError
from endonym.data.document import Conversation, Prompt, write_table
from endonym.engine import backends
from endonym.engine import generate as engine
from endonym.model import hf
from endonym.rollouts import guides
from endonym.rollouts.teacher import Teacher
from endonym.stages.distill import DistillConfig, distill
from eval.tiny import ENGLISH, THAI, context, model, tokenizer

RUN = {
    "rows_per_step": 4, "row_length": 96, "max_completion": 12, "learning_rate": 1e-3, "steps": 3,
    "lmbda": 0.5, "precision": "float32",
}  # fmt: skip


def artifact(folder, name, kind, rows):
    folder.mkdir()
    write_table(folder / name, rows)
    record = {"address": folder.name, "kind": kind, "licences": ["CC0-1.0"], "figures": {}}
    return Artifact(folder, record | {"files": {name: {}}})


def talk(folder, count, text, answer, language="en"):
    rows = [
        Conversation(
            f"{folder.name}{n}",
            [
                {"role": "user", "content": f"{text} {n}"},
                {"role": "assistant", "content": f"{answer} {n}"},
            ],
            language,
            folder.name,
            "CC0-1.0",
        )
        for n in range(count)
    ]
    return artifact(folder, "conversations.parquet", "conversations", rows)


def start(folder, net):
    hf.save(net, folder, eos_ids=tokenizer().stop_ids)
    tokenizer().save(folder)
    record = {"address": folder.name, "licences": ["MIT"], "files": {}, "figures": {}}
    return Artifact(folder, record)


@pytest.fixture
def inputs(tmp_path):
    asked = [
        Prompt(f"p{n}", [{"role": "user", "content": f"{THAI[:9]} {n}"}], "th", "asked", "MIT")
        for n in range(6)
    ]
    return {
        "model": start(tmp_path / "model", model()),
        "teacher": start(tmp_path / "teacher", model(1)),
        "data": {
            "chat": talk(tmp_path / "chat", 12, ENGLISH[:20], "yes it is"),
            "asked": artifact(tmp_path / "asked", "prompts.parquet", "prompts", asked),
        },
    }


def run(tmp_path, inputs, name="run", changes=None, **settings):
    scratch, out = tmp_path / name / "scratch", tmp_path / name / "out"
    scratch.mkdir(parents=True, exist_ok=True)
    out.mkdir()
    here = replace(context(scratch), threads=1, **(changes or {}))
    given = {"teacher": None, "states": None} | inputs
    return distill(DistillConfig.read(RUN | settings), here, out, **given), out


def test_a_student_comes_nearer_to_its_teacher(tmp_path, inputs):
    outcome, out = run(tmp_path, inputs, steps=12, learning_rate=5e-3)
    figures = outcome.figures
    assert figures["loss"] < 0.7 * figures["loss_first"]
    drawn = figures["drawn"]
    assert drawn["rows"] == 48 and 0 < drawn["on_policy"] < 48
    assert drawn["sources"]["asked"]["on_policy"] == drawn["sources"]["asked"]["rows"]
    hf.load(out)


def lines(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def weights(out):
    return (out / "model.safetensors").read_bytes()


def test_the_defaults_are_the_released_ones():
    # METHODS 3.2
    made = DistillConfig()
    assert (made.learning_rate, made.schedule, made.warmup, made.epochs) == (
        1e-6,
        "cosine",
        0.05,
        1,
    )
    assert (made.lmbda, made.beta, made.temperature, made.cross_entropy) == (0.25, 0.0, 1.0, 0.0)
    assert (made.max_completion, made.row_length, made.rows_per_step) == (2048, 4096, 64)
    assert made.sampling.model_dump() == {
        "temperature": 1.0, "top_p": 0.95, "top_k": 0, "min_p": 0.0
    }  # fmt: skip
    assert made.top_k is None and not made.tail and made.alignment == "same"


def test_with_lmbda_0_nothing_is_drawn_and_with_1_everything(tmp_path, inputs, monkeypatch):
    calls, truly = [], engine.generate

    def counted(model, prompts, *given, **named):
        calls.append(len(prompts))
        return truly(model, prompts, *given, **named)

    monkeypatch.setattr(backends, "generate", counted)
    both = inputs["data"]
    off, out = run(tmp_path, inputs | {"data": {"chat": both["chat"]}}, "off", lmbda=0)
    assert not calls and off.figures["drawn"]["on_policy"] == 0 and not (out / "rollouts").exists()
    assert off.figures["drawn"]["truncated"] == 0
    on, out = run(tmp_path, inputs, "on", lmbda=1)
    assert calls == [4, 4, 4]  # one batch a step
    assert on.figures["drawn"]["on_policy"] == 12
    files = sorted(path.name for path in (out / "rollouts").iterdir())
    assert files == ["000000.parquet", "000001.parquet", "000002.parquet"]
    # what nobody else answers the student answers, whatever lmbda is
    calls.clear()
    alone, _ = run(tmp_path, inputs | {"data": {"asked": both["asked"]}}, "alone", lmbda=0)
    assert calls == [4, 4, 4] and alone.figures["drawn"]["on_policy"] == 12


def test_the_teacher_may_answer_in_the_datas_place(tmp_path, inputs, monkeypatch):
    def never(*given, **named):
        raise AssertionError("the student was asked")

    monkeypatch.setattr(backends, "generate", never)
    outcome, out = run(tmp_path, inputs, lmbda=0, references="teacher")
    drawn = pq.read_table(out / "rollouts" / "000000.parquet").to_pylist()
    assert [row["by"] for row in drawn] == ["teacher"] * 4
    assert outcome.figures["drawn"]["on_policy"] == 0


def test_in_turn_or_beside_one_another_gives_the_same_bytes(tmp_path, inputs, monkeypatch):
    """METHODS 3.4: loss and gradient with the off-loading schedule are those without. (context.offload
    itself needs a GPU; what it changes of the teacher is set here by hand.)"""
    asked, truly, made = [], Teacher.states, Teacher.__init__

    def seen(self, rows):
        asked.append((self.in_turn, len(rows)))
        return truly(self, rows)

    monkeypatch.setattr(Teacher, "states", seen)
    _, beside = run(tmp_path, inputs, "beside", {"rows_per_device": 1}, row_length=40)
    parts = len(asked)
    assert {turn for turn, _ in asked} == {False}
    asked.clear()
    in_turn = lambda self, *given, **_: made(self, *given, in_turn=True)  # noqa: E731
    monkeypatch.setattr(Teacher, "__init__", in_turn)
    monkeypatch.setattr(guides, "Beside", guides.InTurn)
    _, turned = run(tmp_path, inputs, "turned", {"rows_per_device": 1}, row_length=40)
    assert len(asked) == parts > 3 and {turn for turn, _ in asked} == {True}
    assert weights(beside) == weights(turned)
    assert (beside / "metrics.jsonl").read_bytes() == (turned / "metrics.jsonl").read_bytes()


def test_the_teacher_stays_as_it_is(tmp_path, inputs, monkeypatch):
    made, truly = [], Teacher.__init__

    def kept(self, model, *given, **named):
        made.append((model, [p.detach().clone() for p in model.parameters()]))
        truly(self, model, *given, **named)

    monkeypatch.setattr(Teacher, "__init__", kept)
    run(tmp_path, inputs, cross_entropy=0.5)
    ((model, before),) = made
    assert not model.training
    for now, then in zip(model.parameters(), before, strict=True):
        assert now.grad is None and not now.requires_grad and torch.equal(now, then)


def test_a_mixture_shares_out_the_rows(tmp_path, inputs):
    found, _ = run(tmp_path, inputs, mixture={"chat": 3, "asked": 1}, lmbda=0, steps=8)
    rows = found.figures["drawn"]["sources"]
    assert (rows["chat"]["rows"], rows["asked"]["rows"]) == (24, 8)
    assert found.figures["mixture"]["chat"]["asked"] == pytest.approx(0.75)
    with pytest.raises(RecipeError, match="'chats'"):
        run(tmp_path, inputs, "wrong", mixture={"chats": 1})


def test_every_turn_of_a_conversation_can_be_asked(tmp_path, inputs):
    turns = [
        {"role": role, "content": f"{role} {n}"} for n in range(3) for role in ("user", "assistant")
    ]
    rows = [Conversation(f"c{n}", turns, "en", "c", "CC0-1.0") for n in range(4)]
    inputs["data"] = {
        "talks": artifact(tmp_path / "t", "conversations.parquet", "conversations", rows)
    }
    for name, count in (("last", 4), ("every", 12)):
        found, _ = run(tmp_path, inputs, name, turns=name, steps=None, epochs=1, lmbda=0)
        assert found.figures["drawn"]["rows"] == count
        prefixed, _ = run(
            tmp_path, inputs, f"{name}_prefixed", turns=name, steps=None, epochs=1, lmbda=0,
            teacher_prompt_prefix="Be brief.",
        )  # fmt: skip
        assert prefixed.figures["drawn"]["rows"] == count


def test_what_a_kill_left_half_written_is_not_published(tmp_path, inputs):
    left = tmp_path / "run" / "scratch" / "rollouts" / ".000001.parquet.1"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    _, out = run(tmp_path, inputs)
    drawn = [file.name for file in (out / "rollouts").iterdir()]
    assert len(drawn) == RUN["steps"] and left.name not in drawn


def test_epochs_count_all_prompts(tmp_path, inputs):
    found, _ = run(tmp_path, inputs, steps=None, epochs=2, lmbda=0, rows_per_step=9)
    assert found.figures["steps"] == 4
    assert found.figures["mixture"]["asked"]["epochs"] == pytest.approx(2)


def test_cross_entropy_is_of_the_datas_answers_alone(tmp_path, inputs):
    _, out = run(tmp_path, inputs, "on", lmbda=1, cross_entropy=1.0)
    for line in lines(out):
        assert line["cross_entropy"] == 0 and line["loss"] == pytest.approx(line["divergence"])
    data = {"chat": inputs["data"]["chat"]}
    _, out = run(tmp_path, inputs | {"data": data}, "off", lmbda=0, cross_entropy=0.5)
    for line in lines(out):
        whole = line["divergence"] + 0.5 * line["cross_entropy"]
        assert line["cross_entropy"] > 1 and line["loss"] == pytest.approx(whole, rel=1e-6)


def test_top_k_with_a_tail_lies_between(tmp_path, inputs):
    """METHODS 3.3: fewer outcomes tell less; and the first loss is before any update."""
    first = {}
    for name, settings in {
        "whole": {}, "tail": {"top_k": 8, "tail": True}, "all": {"top_k": 10**6},
    }.items():  # fmt: skip
        _, out = run(tmp_path, inputs, name, steps=1, **settings)
        first[name] = lines(out)[0]["loss"]
    assert first["all"] == first["whole"] > first["tail"] > 0


def test_what_does_not_fit_is_left_out_and_counted(tmp_path, inputs, monkeypatch):
    """One long conversation does not stop a run, whatever the row length; both contexts are 128."""
    told = []
    monkeypatch.setattr(
        "endonym.core.console.Console.note", lambda _, text, *more: told.append(text)
    )
    data = {**inputs["data"], "long": talk(tmp_path / "long", 1, "the water", ENGLISH * 9)}
    given = inputs | {"data": data}
    found, out = run(tmp_path, given, "run", row_length=512, max_completion=256, lmbda=0, steps=6)
    assert found.figures["too_long"] == found.figures["mixture"]["long"]["dropped"] == 1
    assert any("1 prompts do not fit 128 tokens" in text for text in told)
    rows = pq.read_table(out / "rollouts" / "000000.parquet").to_pylist()
    assert all(len(row["tokens"]) < 128 for row in rows)
    # what the student alone answers needs no room for the data's answer
    found, _ = run(tmp_path, given, "drawn", lmbda=1)
    assert found.figures["too_long"] == 0
    with pytest.raises(DataError, match="where: long"):
        run(tmp_path, given, "mixed", lmbda=0, mixture={"chat": 1, "long": 1})


def test_what_cannot_be_is_refused(tmp_path, inputs):
    with pytest.raises(RecipeError, match="tail goes with top_k"):
        DistillConfig.read({"tail": True})
    with pytest.raises(RecipeError, match="not defined for alignment"):
        DistillConfig.read({"top_k": 4, "alignment": "spans"})
    with pytest.raises(RecipeError, match="one source"):
        run(tmp_path, {**inputs, "teacher": None}, "nobody")
    with pytest.raises(DataError, match="nothing to ask"):
        run(tmp_path, inputs, "short", row_length=4)
