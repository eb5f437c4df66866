"""Documents with needles: other keys than the grid's, text in order, lengths as asked."""

import pytest

from endonym.core.artifact import Artifact
from endonym.core.errors import RecipeError
from endonym.data.document import Document, read_table, write_table
from endonym.stages.needles import NeedlesConfig, needles
from endonym.tasks.needle import needles as made
from eval.tiny import context


@pytest.fixture
def text(tmp_path):
    rows = [Document(str(n), f"line {n} " * 20, "en", "s", "CC0-1.0") for n in range(30)]
    write_table(tmp_path / "documents.parquet", rows)
    record = {"files": {"documents.parquet": {}}, "licences": ["CC0-1.0"], "figures": {}}
    return {"text": Artifact(tmp_path, record)}


def run(folder, text, **settings):
    out = folder / "out"
    out.mkdir(exist_ok=True)
    config = NeedlesConfig.read({"language": "en", "amount": 40, **settings})
    outcome = needles(config, context(folder), out, text=text)
    return outcome, list(read_table(out / "documents.parquet", Document))


def test_documents_hide_training_keys_and_ask_for_them(tmp_path, text):
    outcome, rows = run(tmp_path, text, characters=[100, 300], hidden=[2, 3], digits=4)
    assert outcome.figures["documents"] == len(rows) == 40 and outcome.licences == ["CC0-1.0"]
    held_out = {one.key for one in made("en", "test", amount=5000)}
    for row in rows:
        questions = [line for line in row.text.splitlines() if line.startswith("What is")]
        assert 2 <= len(questions) <= 3
        assert not any(f" the {key}?" in line for key in held_out for line in questions)
        for line in questions:
            statement = line[line.index("The ") :] + "."
            assert row.text.index(statement) < row.text.index(questions[0])
        words = row.text[: row.text.index(questions[0])]
        plain = "".join(each for each in words.splitlines() if "secret" not in each)
        assert 80 < len(plain) <= 300
    assert len({row.text for row in rows}) == 40 and len({row.id for row in rows}) == 40


def test_the_same_settings_give_the_same_documents(tmp_path, text):
    _, one = run(tmp_path, text, characters=[100, 300])
    _, two = run(tmp_path, text, characters=[100, 300])
    _, other = run(tmp_path, text, characters=[100, 300], seed=1)
    assert one == two and one != other


def test_lists_are_said_several_times(tmp_path, text):
    _, rows = run(tmp_path, text, lists=1.0, listed=[2, 4], amount=30)
    said = set()
    for row in rows:
        lines = row.text.splitlines()
        first = list(dict.fromkeys(lines))
        times, rest = divmod(len(lines), len(first))
        assert 2 <= len(first) <= 4 and not rest and lines == first * times
        said.add(times)
    assert said == {3, 4, 5, 6}
    _, mixed = run(tmp_path, text, lists=0.5, amount=60)
    assert 15 < sum("secret" not in row.text for row in mixed) < 45


def test_an_empty_range_is_refused(tmp_path, text):
    with pytest.raises(RecipeError, match="range is empty"):
        run(tmp_path, text, hidden=[3, 2])
