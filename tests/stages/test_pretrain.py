"""Pre-training in phases: what the settings come to, what is refused, what a small run records."""

import json
from dataclasses import replace

import pytest

from endonym.core.artifact import Artifact
from endonym.core.errors import RecipeError
from endonym.data.document import Document, write_table
from endonym.model import hf
from endonym.stages.pretrain import PretrainConfig, phases_of, pretrain, scheduled
from eval.tiny import ENGLISH, THAI, context, model, tokenizer

RUN = {"learning_rate": 1e-3, "rows_per_step": 2, "row_length": 32}


def config(**settings):
    return PretrainConfig.read(RUN | settings)


def documents(folder, language, texts, scores=False):
    folder.mkdir()
    rows = [
        Document(
            f"{language}{n}", text, language, language, "CC0-1.0", {"worth": n} if scores else {}
        )
        for n, text in enumerate(texts)
    ]
    write_table(folder / "documents.parquet", rows)
    files = {"documents.parquet": {}}
    record = {"address": folder.name, "files": files, "licences": ["CC0-1.0"], "figures": {}}
    return Artifact(folder, record)


@pytest.fixture
def inputs(tmp_path):
    start = tmp_path / "model"
    hf.save(model(), start, eos_ids=tokenizer().stop_ids)
    tokenizer().save(start)
    english = [f"{ENGLISH} number {n}" for n in range(40)]
    thai = [f"{THAI} {n}" for n in range(40)]
    return {
        "model": Artifact(start, {"licences": ["MIT"], "files": {}, "figures": {}}),
        "text": {
            "en": documents(tmp_path / "en", "en", english, scores=True),
            "th": documents(tmp_path / "th", "th", thai),
        },
        "validation": {"en": documents(tmp_path / "held", "en", [ENGLISH])},
    }


def run(tmp_path, inputs, settings, name="run"):
    scratch, out = tmp_path / name / "scratch", tmp_path / name / "out"
    scratch.mkdir(parents=True)
    out.mkdir()
    here = replace(context(scratch), threads=1)
    return pretrain(settings, here, out, **inputs), out


# ---------------------------------------------------------------- settings


def test_no_phases_are_one_and_leave_the_settings_alone():
    flat = config(steps=7, mixture={"en": 1.0}, never_truncate=True)
    [phase] = phases_of(flat)
    assert (phase.steps, phase.mixture, phase.never_truncate) == (7, {"en": 1.0}, True)
    assert scheduled(flat, [phase]) is flat


def test_phases_are_spans_of_the_rate():
    three = config(
        phases=[
            {"steps": 4},
            {"tokens": 1000, "row_length": 100, "learning_rate": 2e-3, "schedule": "linear"},
            {"steps": 3, "rows_per_step": 5},
        ]
    )
    settings = scheduled(three, phases_of(three))
    assert [span.steps for span in settings.spans] == [4, 5, 3] and settings.steps == 12
    assert [span.tokens_per_step for span in settings.spans] == [64, 200, 160]
    assert [span.begins_curve for span in settings.spans] == [False, True, False]
    assert settings.spans[1].learning_rate == 2e-3


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "needs a length"),
        ({"steps": 3, "phases": [{"steps": 3}]}, "steps belongs to each phase"),
        ({"mixture": {"en": 1}, "phases": [{"steps": 3}]}, "mixture belongs to each phase"),
        ({"never_truncate": True, "phases": [{"steps": 3}]}, "never_truncate belongs"),
    ],
)
def test_settings_that_say_a_thing_twice_or_never_are_refused(settings, words):
    with pytest.raises(RecipeError, match=words):
        phases_of(config(**settings))


def test_spans_are_not_given_beside_phases():
    both = config(phases=[{"steps": 3}], spans=[{"steps": 3}])
    with pytest.raises(RecipeError, match="phases make the spans"):
        scheduled(both, phases_of(both))


# ---------------------------------------------------------------- a run


def test_a_run_in_phases_records_what_each_drew(tmp_path, inputs):
    settings = config(
        phases=[
            {"name": "first", "steps": 3, "mixture": {"en": 1}},
            {
                "name": "second", "steps": 2, "mixture": {"en": 1, "th": 1}, "row_length": 64,
                "thresholds": {"worth": {"top": 0.25, "missing": "keep"}}, "learning_rate": 5e-4,
            },
        ],
        validation_tokens=30,
        probe_every=2,
    )  # fmt: skip
    outcome, out = run(tmp_path, inputs, settings)
    figures = outcome.figures
    assert figures["steps"] == 5 and figures["phases"][1]["row_length"] == 64
    assert figures["phases"][1]["rate"] == {"learning_rate": 5e-4}
    assert set(figures["mixture"]) == {"first/en", "second/en", "second/th"}
    drawn = figures["drawn"]["phases"]
    assert set(drawn["first"]["languages"]) == {"en"}
    assert set(drawn["second"]["languages"]) == {"en", "th"}
    assert figures["drawn"]["tokens"] == figures["tokens"]
    assert figures["kept"]["second"]["en"] == {"sequences": 40, "kept": 10}
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["phase"] for line in lines if "phase" in line][:5] == [1, 1, 1, 2, 2]
    assert [line["step"] for line in lines if "probe" in line] == [0, 2, 4, 5]
    known = figures["probes"]["validation/bpb_en"]
    assert known["before"] != known["after"], "what is learnt or forgotten stands in the record"
    assert sorted(set(outcome.licences)) == ["CC0-1.0", "MIT"]
    json.dumps(figures)


def test_one_phase_is_the_run_without_phases(tmp_path, inputs):
    flat = config(steps=4, mixture={"en": 0.5, "th": 0.5})
    phased = config(phases=[{"steps": 4, "mixture": {"en": 0.5, "th": 0.5}}])
    _, one = run(tmp_path, inputs, flat, "flat")
    _, two = run(tmp_path, inputs, phased, "phased")
    name = "model.safetensors"
    assert (one / name).read_bytes() == (two / name).read_bytes()


def test_rows_longer_than_the_context_are_refused(tmp_path, inputs):
    long = config(phases=[{"steps": 1}, {"steps": 1, "row_length": 129}])
    with pytest.raises(RecipeError, match="longer than the model's context") as caught:
        run(tmp_path, inputs, long)
    assert (caught.value.where, caught.value.got) == ("phases[1].row_length", 129)


def test_a_flat_mixture_names_every_text(tmp_path, inputs):
    with pytest.raises(RecipeError, match="does not name the texts"):
        run(tmp_path, inputs, config(steps=1, mixture={"en": 1.0}))


def test_a_gate_on_needles_goes_on_until_it_gives_up(tmp_path, inputs):
    settings = config(
        steps=2,
        final_share=0.1,
        needles={"language": "en", "lengths": [120], "depths": [0.5], "amount": 2, "digits": 2},
        gates=[
            {"figure": "needles/needle_min", "at_least": 0.9, "action": "extend",
             "extend_steps": 1, "times": 2}
        ],
    )  # fmt: skip
    outcome, _ = run(tmp_path, inputs, settings)
    assert outcome.figures["steps"] == 4


def test_forgetting_can_end_a_run(tmp_path, inputs):
    settings = config(
        steps=2,
        gates=[{"figure": "validation/bpb_en", "at_most": 0.001, "relative": True}],
    )
    with pytest.raises(RecipeError, match="bpb_en"):
        run(tmp_path, inputs, settings)


def test_an_adapter_leaves_its_folder_and_a_merged_model(tmp_path, inputs):
    pytest.importorskip("peft")
    outcome, out = run(tmp_path, inputs, config(steps=2, adapter={"rank": 2}))
    assert (out / "adapter" / "adapter_model.safetensors").is_file()
    before, after = hf.load(inputs["model"].path), hf.load(out)
    changed = {
        name
        for (name, one), (_, two) in zip(before.named_parameters(), after.named_parameters())
        if not one.equal(two)
    }
    assert changed and not any("embed" in name or "norm" in name for name in changed)
    assert outcome.figures["steps"] == 2
