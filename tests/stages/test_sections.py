"""The stage `sections`: built-in books and files of laws, what is left out, what is refused."""

import json

import pytest

from endonym.core.errors import DataError, RecipeError
from endonym.data.sections import read_sections
from endonym.rollouts.library import Library
from endonym.stages.sections import STAGE, SectionsConfig
from eval.tiny import context
from tokenizer.samples import shared

LAWS = [
    {"id": "a#0", "title": "กฎหมาย ก", "text": "กฎหมาย ก มาตรา 1 หนึ่ง\n\nกฎหมาย ก มาตรา 2 สอง"},
    {"id": "b#1", "title": "กฎหมาย ข", "text": "ท้ายมาตรา\n\nกฎหมาย ข มาตรา 7 ทวิ เจ็ด"},
]


def made(tmp_path, *sources, **settings):
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    config = SectionsConfig.read({"sources": list(sources), **settings})
    outcome = STAGE.run(config, context(tmp_path), out, {})
    return read_sections(out / "sections.parquet"), outcome


def written(tmp_path, rows, name="laws.jsonl"):
    file = tmp_path / name
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return str(file)


def test_the_handbook_is_one_book_of_numbered_sections(tmp_path):
    found, outcome = made(tmp_path, {"builtin": "handbook", "language": "th"})
    assert outcome.figures["sections"] == len(found) >= 20 and outcome.figures["books"] == 1
    assert found[0].book == "คู่มือประชาชน เทศบาลเมืองธารมณี" and found[0].title
    assert outcome.licences == ["CC0-1.0"]
    library = Library(found, "th")
    number = found[4].number
    assert json.loads(library.read_law("เทศบาลเมืองธารมณี", number))["section_num"] == number


def test_bylaws_are_those_of_the_groups_named(tmp_path):
    from endonym.synth import bylaws

    source = {"builtin": "bylaws", "language": "th", "groups": ["asked", "text"], "seed": 3}
    found, outcome = made(tmp_path, source)
    assert found == bylaws.sections("th", ["asked", "text"], seed=3)
    assert outcome.figures["books"] == len(found)
    with pytest.raises(RecipeError, match="which towns"):
        made(tmp_path, source | {"groups": []})


def test_files_of_laws_are_cut_and_what_is_left_out_is_counted(tmp_path):
    path = written(tmp_path, LAWS)
    source = {
        "path": path,
        "format": "thai_law_acts",
        "language": "th",
        "licence": "PD",
        "name": "acts",
    }
    found, outcome = made(tmp_path, source)
    assert [(each.book, each.number) for each in found] == [
        ("กฎหมาย ก", "1"), ("กฎหมาย ก", "2"), ("กฎหมาย ข", "7 ทวิ")
    ]  # fmt: skip
    assert {each.source for each in found} == {"acts"} and outcome.licences == ["PD"]
    (row,) = outcome.figures["sources"]
    assert row["rows"] == 3 and row["dropped"] == 1
    assert row["reasons"] == {"its beginning is not here": 1}
    (only,) = made(tmp_path, source | {"books": ["กฎหมาย ข"]})[0]
    assert only.text == "เจ็ด"


def test_terms_that_laws_define_are_sections_of_their_own(tmp_path):
    rows = [
        {"book": "ก", "number": "3", "text": "“น้ำ” หมายความว่า ของเหลว\n“ลม” หมายความว่า อากาศ"},
        {"book": "ข", "number": "4", "text": "“ดิน” หมายความว่า ของแข็งที่พืชขึ้น\n“ลม” หมายความว่า อากาศ"},
    ]
    path = written(tmp_path, rows)
    source = {"path": path, "format": "sections", "language": "th", "licence": "PD"}
    terms = source | {"definitions": True}
    found, outcome = made(tmp_path, terms)
    assert [(one.book, one.title) for one in found] == [("ก", "น้ำ"), ("ข", "ดิน")]
    assert outcome.figures["sources"][0]["reasons"] == {"another law says the same": 2}
    # another law's words count although that law is not asked for
    found, outcome = made(tmp_path, terms | {"books": ["ก"]})
    assert [one.title for one in found] == ["น้ำ"]
    found, outcome = made(tmp_path, terms | {"longest": len("ของเหลว")})
    assert [one.title for one in found] == ["น้ำ"]
    assert outcome.figures["sources"][0]["reasons"]["too long"] == 1
    (whole,) = made(tmp_path, source | {"longest": len(rows[0]["text"])})[0]
    assert whole.book == "ก"


def test_a_split_parts_the_sections_for_good(tmp_path):
    rows = [{"book": f"B{n}", "number": "1", "text": f"x{n}"} for n in range(200)]
    path = written(tmp_path, rows)
    source = {"path": path, "format": "sections", "language": "en", "held_out": 0.2}
    train, test = (
        {each.id for each in made(tmp_path, source | {"split": name})[0]}
        for name in ("train", "test")
    )
    assert not train & test and len(train | test) == 200 and 20 < len(test) < 60


def test_too_many_rows_that_cannot_be_read_stop_it(tmp_path):
    rows = [{"book": "B", "number": str(n), "text": "x"} for n in range(10)]
    path = written(tmp_path, [*rows, {"book": "B", "text": None}])
    source = {"path": path, "format": "sections", "language": "en"}
    with pytest.raises(DataError, match="1 of 11 rows"):
        made(tmp_path, source)
    found, outcome = made(tmp_path, source, quarantine=0.2)
    assert len(found) == 10
    assert outcome.figures["sources"][0]["reasons"] == {"a column is missing": 1}


@pytest.mark.parametrize(
    "source, told",
    [
        ({"language": "th"}, "is incomplete"),
        ({"builtin": "handbook", "path": "x", "language": "th"}, "names two places"),
        ({"builtin": "handbook"}, "does not say its language"),
        ({"path": "x.jsonl", "language": "th"}, "what its rows are"),
        (
            {"builtin": "handbook", "language": "th", "groups": ["old"]},
            "'groups' would not be heeded",
        ),
        ({"builtin": "handbook", "language": "th", "split": "test"}, "'split' would not be heeded"),
        (
            {"builtin": "bylaws", "language": "th", "groups": ["old"], "books": ["x"]},
            "not be heeded",
        ),
        (
            {"path": "x", "format": "law_kr", "language": "ko", "seed": 1},
            "'seed' would not be heeded",
        ),
        (
            {"builtin": "handbook", "language": "th", "definitions": True},
            "'definitions' would not be heeded",
        ),
        ({"path": "x", "format": "law", "language": "ko"}, "does not fit"),
        ({"builtin": "handbook", "langauge": "th"}, "language"),
    ],
)
def test_what_a_source_says_wrongly_is_named(tmp_path, source, told):
    with pytest.raises(RecipeError) as raised:
        made(tmp_path, source)
    assert told in str(raised.value)


def test_a_source_named_twice_and_nothing_at_all_are_errors(tmp_path):
    handbook = {"builtin": "handbook", "language": "th"}
    with pytest.raises(DataError, match="share an id"):
        made(tmp_path, handbook, handbook)
    with pytest.raises(DataError, match="no section is left"):
        made(tmp_path, {"builtin": "handbook", "language": "vi", "optional": True})


def test_the_real_acts_make_a_table(tmp_path):
    file = shared() / "text/th/thai_law_acts.jsonl.gz"
    if not file.is_file():
        pytest.skip("the acts are not here")
    source = {"path": str(file), "format": "thai_law_acts", "language": "th", "licence": "PD"}
    found, outcome = made(tmp_path, source)
    assert outcome.figures["books"] >= 33 and len(found) > 4300
    assert outcome.figures["sources"][0]["dropped"] == 0


@pytest.mark.parametrize(
    "name, language, laws, terms, short",
    [("thai_law_acts", "th", 28, 275, 157), ("law_kr", "ko", 55, 318, 274)],
)
def test_real_laws_define_terms(tmp_path, name, language, laws, terms, short):
    file = shared() / f"text/{language}/{name}.jsonl.gz"
    if not file.is_file():
        pytest.skip("the laws are not here")
    source = {"path": str(file), "format": name, "language": language, "definitions": True}
    found, outcome = made(tmp_path, source)
    assert (len(found), outcome.figures["books"]) == (terms, laws)
    assert all(one.title and one.text and "\n" not in one.text for one in found)
    assert len(made(tmp_path, source | {"longest": 100})[0]) == short
