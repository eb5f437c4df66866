"""Documents rated by a model: which scores, what is kept, and that a cut-off run goes on."""

import numpy as np
import pytest

from endonym.core.artifact import Artifact
from endonym.core.errors import RecipeError
from endonym.data.document import Document, read_table, write_table
from endonym.eval.likelihood import bits_per_byte
from endonym.model import hf, reward
from endonym.stages import rate as module
from endonym.stages.rate import STAGE, RateConfig
from eval.tiny import ENGLISH, THAI, context, model, tokenizer

WORDS = ENGLISH.split()
TEXTS = [" ".join(WORDS[n % 5 : n % 5 + 1 + n % 6]) for n in range(24)] + ["", THAI]


def documents(folder, texts, scores=None):
    folder.mkdir()
    rows = [
        Document(f"{folder.name}/{n}", text, "th" if text == THAI else "en", scores=scores or {})
        for n, text in enumerate(texts)
    ]
    write_table(folder / "documents.parquet", rows)
    record = {"files": {"documents.parquet": {}}, "address": folder.name, "kind": "documents"}
    return Artifact(folder, record | {"licences": [folder.name]})


@pytest.fixture
def judge(tmp_path):
    hf.save(model(), tmp_path / "base", eos_ids=tokenizer().stop_ids)
    made = reward.start(tmp_path / "base", 0)
    reward.save(made, tmp_path / "judge", pad_id=0)
    tokenizer().save(tmp_path / "judge")
    return Artifact(tmp_path / "judge", {"kind": "reward_model", "address": "judge"})


@pytest.fixture
def reader(tmp_path):
    hf.save(model(), tmp_path / "reader", eos_ids=tokenizer().stop_ids)
    tokenizer().save(tmp_path / "reader")
    return Artifact(tmp_path / "reader", {"kind": "model", "address": "reader"})


def run(folder, judge, data, scratch=None, **changes):
    out = folder / "out"
    out.mkdir(parents=True)
    here = context(scratch or folder / "scratch")
    inputs = {"model": judge, "data": data}
    outcome = STAGE.run(RateConfig(**{"name": "fluency"} | changes), here, out, inputs)
    return list(read_table(out / "documents.parquet", Document)), outcome


def rewards(judge, texts):
    ids = [tokenizer().encode_whole([{"role": "assistant", "content": text}]) for text in texts]
    return reward.scores(reward.load(judge.path), ids, context())


def test_a_reward_model_scores_the_assistants_words(tmp_path, judge):
    data = {"a": documents(tmp_path / "a", TEXTS, {"other": 2.0})}
    rows, outcome = run(tmp_path / "1", judge, data)
    raw, _ = run(tmp_path / "2", judge, data, scale="raw")
    assert [row.text for row in rows] == TEXTS
    full = [text for text in TEXTS if text]
    wanted = rewards(judge, full)
    assert "fluency" not in rows[24].scores and rows[24].text == ""
    found = [row.scores["fluency"] for row in raw if row.text]
    np.testing.assert_allclose(found, wanted, atol=1e-5)  # float32, other batches
    found = [row.scores["fluency"] for row in rows if row.text]
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-wanted)), atol=1e-5)
    assert all(row.scores["other"] == 2.0 for row in rows)
    figures = outcome.figures
    assert figures["documents"] == figures["kept"] == len(TEXTS) and figures["kept_share"] == 1
    assert figures["unscored"] == 1 and figures["cut"] == 0
    assert figures["score"]["mean"] == pytest.approx(np.mean(found), abs=1e-6)
    assert figures["by_language"]["th"]["documents"] == 1
    assert outcome.licences == ["a"]


def test_a_language_model_scores_minus_bits_per_byte(tmp_path, reader):
    rows, _ = run(tmp_path / "1", reader, {"a": documents(tmp_path / "a", TEXTS)}, name="likely")
    bits = bits_per_byte(model(), tokenizer(), TEXTS, context())
    for row, each in zip(rows, bits):
        if each.bytes:
            assert row.scores["likely"] == pytest.approx(-each.bits / each.bytes, abs=1e-4)
        else:
            assert "likely" not in row.scores


def test_thresholds_keep_what_is_inside(tmp_path, judge):
    data = {"a": documents(tmp_path / "a", TEXTS)}
    every, _ = run(tmp_path / "1", judge, data, scale="raw")
    scores = [row.scores["fluency"] for row in every if row.scores]
    low, high = np.quantile(scores, [0.3, 0.8]).tolist()
    kept, outcome = run(tmp_path / "2", judge, data, scale="raw", at_least=low, at_most=high)
    wanted = [row.id for row in every if low <= row.scores.get("fluency", np.inf) <= high]
    assert [row.id for row in kept] == wanted and 0 < len(wanted) < len(scores)
    assert outcome.figures["kept_share"] == len(wanted) / len(TEXTS)
    assert sum(one["kept"] for one in outcome.figures["by_language"].values()) == len(wanted)
    with pytest.raises(RecipeError, match="no document is left"):
        run(tmp_path / "3", judge, data, scale="raw", at_least=1e6)


def test_long_texts_are_judged_by_their_beginning(tmp_path, judge):
    long = " ".join(WORDS * 5)
    data = {"a": documents(tmp_path / "a", [long, "the water"])}
    rows, outcome = run(tmp_path / "1", judge, data, scale="raw", longest=10)
    beginning = tokenizer().decode(tokenizer().encode(long)[:10])
    wanted = rewards(judge, [beginning, "the water"])
    np.testing.assert_allclose([row.scores["fluency"] for row in rows], wanted, atol=1e-5)
    assert outcome.figures["cut"] == 1 and rows[0].text == long


def test_tables_with_other_scores_become_one(tmp_path, judge):
    data = {
        "a": documents(tmp_path / "a", TEXTS[:2], {"fluency": 9.0}),
        "b": documents(tmp_path / "b", TEXTS[2:4], {"education": 1.0}),
    }
    rows, _ = run(tmp_path / "1", judge, data)
    assert [set(row.scores) for row in rows] == 2 * [{"fluency"}] + 2 * [{"fluency", "education"}]
    assert all(row.scores["fluency"] <= 1 for row in rows)


def test_a_run_that_was_cut_off_goes_on_and_ends_alike(tmp_path, judge, monkeypatch):
    monkeypatch.setattr(module, "ROWS", 5)
    data = {"a": documents(tmp_path / "a", TEXTS)}
    whole, _ = run(tmp_path / "1", judge, data)
    calls = []
    plain = reward.scores

    def failing(*given, **named):
        calls.append(len(given[1]))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return plain(*given, **named)

    monkeypatch.setattr(reward, "scores", failing)
    scratch = tmp_path / "scratch"
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "2", judge, data, scratch)
    calls[:] = [0] * 10
    again, outcome = run(tmp_path / "3", judge, data, scratch)
    assert len(calls) == 10 + 6 - 3  # three of six batches were done
    assert [row.scores for row in again] == [row.scores for row in whole]
    assert outcome.figures["documents"] == len(TEXTS)
    # what another work left in the folder is not taken
    calls[:] = [0] * 10
    run(tmp_path / "4", judge, data, scratch, scale="raw")
    assert len(calls) == 10 + 6
