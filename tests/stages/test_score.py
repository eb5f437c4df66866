import json

import pytest

from endonym.core.artifact import Artifact
from endonym.core.console import Console
from endonym.core.context import Context
from endonym.core.errors import DataError, RecipeError
from endonym.data.document import Document, read_table, write_table
from endonym.lang.quality import measures
from endonym.stages.score import STAGE, ScoreConfig, score

CONTEXT = Context(console=Console(quiet=True))
GOOD = (
    "The river runs through the old town and under two bridges. People have lived on its banks "
    "for more than a thousand years, and they still bring their boats to the market on Friday. "
    "In the spring the water rises, so that the lower streets must be closed to all who pass. "
    "Nobody minds: that is how the gardens are kept green until the end of the summer months."
)
AGAIN = "buy the best shoes here now " * 20


def artifact(folder, rows, licence="CC0-1.0"):
    folder.mkdir()
    write_table(folder / "documents.parquet", rows)
    record = {"files": {"documents.parquet": {}}, "licences": [licence], "address": folder.name}
    return Artifact(folder, record)


def scored(tmp_path, rows, name="out", wanted=None, ordinary=None, **config):
    out = tmp_path / name
    out.mkdir()
    text = {"text": artifact(tmp_path / f"{name}.in", rows)}
    sets = {
        slot: {slot: artifact(tmp_path / f"{name}.{slot}", given, f"licence of {slot}")}
        for slot, given in (("wanted", wanted), ("ordinary", ordinary))
        if given
    }
    outcome = score(ScoreConfig(**config), CONTEXT, out, text=text, **sets)
    return list(read_table(out / "documents.parquet", Document)), outcome


def test_scores_stand_beside_the_text_and_nothing_else_changes(tmp_path):
    rows = [
        Document("a", GOOD, "en", "s", "CC0-1.0", {"education": 3.5}),
        Document("b", AGAIN, "en", "s", "CC0-1.0"),
        Document("c", "ภาษาไทย", "en"),
    ]
    found, outcome = scored(tmp_path, rows, scores=["language", "quality", "length", "repetition"])
    assert [(r.id, r.text, r.language, r.source, r.licence) for r in found] == [
        (r.id, r.text, r.language, r.source, r.licence) for r in rows
    ]
    good, again, foreign = (row.scores for row in found)
    assert good["education"] == 3.5 and "education" not in again
    assert good["length"] == len(GOOD)
    assert good["language"] > 0.9 and foreign["language"] == 0.0
    assert good["quality"] == 1.0 > again["quality"] > 0.5
    assert good["repetition"] == 0.0
    assert again["repetition"] == pytest.approx(measures(AGAIN, "en").duplicate_ngrams[0])
    assert again["repetition"] > 0.9
    assert outcome.figures["documents"] == 3
    assert outcome.figures["scores"]["length"]["highest"] == len(AGAIN)
    assert outcome.licences == ["CC0-1.0"]
    json.dumps(outcome.figures, allow_nan=False)


def test_quality_is_the_share_of_the_packs_thresholds(tmp_path):
    # a text of nine words misses min_words and, of two stop words asked for, has one: see the pack
    from endonym.lang.pack import pack
    from endonym.lang.quality import refused

    rows = [Document("a", "Nine words stand here, every single one different, look.", "en")]
    (row,), _ = scored(tmp_path, rows, scores=["quality"])
    filters = pack("en").filters
    missed = refused(measures(rows[0].text, "en"), filters)
    assert "min_words" in missed
    given = [
        key
        for key, value in filters.model_dump().items()
        if key.startswith(("min_", "max_")) and value is not None
    ]
    assert row.scores["quality"] == pytest.approx(1 - len(missed) / len(given))


def test_a_document_without_a_language_lacks_the_scores_that_need_one(tmp_path):
    rows = [Document("a", GOOD), Document("b", GOOD, "en")]
    found, outcome = scored(tmp_path, rows, scores=["language", "length"])
    assert set(found[0].scores) == {"length"} and set(found[1].scores) == {"language", "length"}
    assert outcome.figures["scores"]["language"]["absent"] == 1
    assert outcome.figures["scores"]["length"]["absent"] == 0


def test_a_language_without_words_is_an_error_that_names_the_document(tmp_path):
    with pytest.raises(DataError, match="no word segmenter") as caught:
        scored(tmp_path, [Document("d7", "ພາສາລາວ", "lo")], scores=["quality"])
    assert "d7" in str(caught.value.where)


def test_similarity_orders_by_likeness_to_the_wanted_set(tmp_path):
    wanted = [Document(str(n), f"photosynthesis in leaf number {n} makes sugar") for n in range(8)]
    ordinary = [Document(str(n), f"click here to win prize number {n} today") for n in range(8)]
    rows = [Document("w", "photosynthesis makes sugar"), Document("o", "win a prize, click today")]
    found, outcome = scored(
        tmp_path,
        rows,
        wanted=wanted,
        ordinary=ordinary,
        scores=["similarity"],
        names={"similarity": "education"},
    )
    assert found[0].scores["education"] > 0 > found[1].scores["education"]
    assert outcome.licences == ["CC0-1.0", "licence of wanted", "licence of ordinary"]


def test_similarity_needs_both_sets(tmp_path):
    rows = [Document("a", GOOD)]
    with pytest.raises(RecipeError, match="compares two sets"):
        scored(tmp_path, rows, "one", wanted=rows, scores=["similarity"])
    with pytest.raises(RecipeError, match="for the score similarity"):
        scored(tmp_path, rows, "two", wanted=rows, ordinary=rows, scores=["length"])


def test_random_is_a_function_of_id_and_seed(tmp_path):
    rows = [Document(f"r{n}", GOOD) for n in range(200)]
    first, _ = scored(tmp_path, rows, "one", scores=["random"])
    again, _ = scored(tmp_path, rows[::-1], "two", scores=["random"])
    other, _ = scored(tmp_path, rows, "three", scores=["random"], seed=1)
    values = [row.scores["random"] for row in first]
    assert values == [row.scores["random"] for row in again[::-1]]
    assert values != [row.scores["random"] for row in other]
    assert 0 <= min(values) < 0.05 and 0.95 < max(values) < 1 and len(set(values)) == 200


def test_a_score_of_the_same_name_is_replaced(tmp_path):
    rows = [Document("a", "abc", scores={"length": 99.0, "kept": 1.0})]
    (row,), _ = scored(tmp_path, rows, scores=["length"])
    assert row.scores == {"length": 3.0, "kept": 1.0}


def test_settings_are_checked(tmp_path):
    with pytest.raises(RecipeError, match="not made: length"):
        scored(tmp_path, [Document("a", "x")], "1", scores=["random"], names={"length": "x"})
    with pytest.raises(RecipeError, match="two scores of one name"):
        scored(
            tmp_path,
            [Document("a", "x")],
            scores=["length", "random"],
            names={"random": "length"},
        )
    with pytest.raises(RecipeError):
        ScoreConfig.read({"scores": []})
    assert STAGE.name == "score" and STAGE.kind == "documents"
