"""The extend stage: what a recipe may ask of it, and that older recipes mean what they meant."""

import pytest

from endonym.core import fingerprint
from endonym.core.artifact import Artifact
from endonym.core.console import Console
from endonym.core.context import Context
from endonym.core.errors import RecipeError
from endonym.data.document import Document, write_table
from endonym.stages.extend import STAGE, ExtendConfig
from endonym.tokenizer import chat
from endonym.tokenizer.extend import read_pieces
from endonym.tokenizer.folder import Tokenizer
from endonym.tokenizer.train import train
from tokenizer.samples import english, thai

CONTEXT = Context(console=Console(quiet=True))


@pytest.fixture
def documents(tmp_path):
    def artifact(name, texts, language):
        (tmp_path / name).mkdir()
        rows = (Document(str(n), text, language) for n, text in enumerate(texts))
        write_table(tmp_path / name / "documents.parquet", rows)
        record = {"files": {"documents.parquet": {}}, "address": name, "kind": "documents"}
        return Artifact(tmp_path / name, record | {"licences": ["CC0-1.0"]})

    return artifact


@pytest.fixture
def base(tmp_path):
    train(english(300), 400).save(tmp_path / "base")
    return Artifact(tmp_path / "base", {"address": "base", "kind": "model", "licences": ["MIT"]})


def run(out, base, settings, **inputs):
    config = ExtendConfig.read({"language": "th", **settings})
    return STAGE.run(config, CONTEXT, out, {"base": base, **inputs}), Tokenizer.load(out)


def test_it_grows_the_base_and_counts_what_changes(tmp_path, base, documents):
    text = {"news": documents("news", thai(200), "th")}
    check = {
        "old": documents("old", english(30, 2), "en"),
        "new": documents("new", thai(20, 3), "th"),
    }
    outcome, grown = run(tmp_path / "out", base, {"vocab_size": 500}, text=text, check=check)
    figures = outcome.figures
    assert figures["vocab_size"] == grown.vocab_size == 500
    assert figures["wanted"] == figures["added"] == 500 - Tokenizer.load(base.path).vocab_size
    assert (figures["checked_old"], figures["changed_old"]) == (30, 0)
    assert (figures["checked_new"], figures["changed_new"]) == (20, 20)
    assert figures["bytes_per_token"] > 3 * figures["bytes_per_token_before"]
    assert grown.special(chat.TURN_END) < 400  # the base had it
    assert outcome.licences == ["MIT", "CC0-1.0"]


def test_rare_old_tokens_make_room(tmp_path, base, documents):
    text = {"news": documents("news", thai(200), "th")}
    usage = {"old": documents("old", english(100, 2), "en")}
    size = Tokenizer.load(base.path).vocab_size
    settings = {"vocab_size": size, "keep": 0.7}
    outcome, grown = run(tmp_path / "out", base, settings, text=text, usage=usage)
    assert grown.vocab_size == size
    assert outcome.figures["dropped"] == len(read_pieces(tmp_path / "out")[1]) > 0
    with pytest.raises(RecipeError, match="does not fit"):
        ExtendConfig.read({"vocab_size": 500, "keep": 0})


def test_what_older_recipes_say_keeps_its_meaning():
    config = ExtendConfig.read({"vocab_size": 1024, "language": "th"})
    assert fingerprint.identity(config, str) == {"vocab_size": 1024, "language": "th"}
