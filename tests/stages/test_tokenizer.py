"""The tokenizer stage: what a recipe may ask of it, and that older recipes mean what they meant."""

import pytest

from endonym.core import fingerprint
from endonym.core.artifact import Artifact
from endonym.core.console import Console
from endonym.core.context import Context
from endonym.core.errors import DataError, RecipeError
from endonym.data.document import Document, write_table
from endonym.stages.tokenizer import TokenizerConfig, tokenizer
from endonym.tokenizer.folder import Tokenizer
from tokenizer.samples import english, thai

CONTEXT = Context(console=Console(quiet=True))


@pytest.fixture
def text(tmp_path):
    def artifact(language, texts):
        folder = tmp_path / language
        folder.mkdir()
        rows = (Document(str(n), text, language) for n, text in enumerate(texts))
        write_table(folder / "documents.parquet", rows)
        files = {"documents.parquet": {}}
        record = {"files": files, "address": language, "kind": "documents", "licences": ["CC0-1.0"]}
        return Artifact(folder, record)

    return {"a": artifact("en", english(800)), "b": artifact("th", thai(60))}


def made(out, text, **settings):
    outcome = tokenizer(
        TokenizerConfig.read({"vocab_size": 600, **settings}), CONTEXT, out, text=text
    )
    return Tokenizer.load(out), outcome


def test_it_writes_a_tokenizer_and_says_how_dense_it_is(tmp_path, text):
    found, outcome = made(tmp_path / "out", text)
    assert found.vocab_size == outcome.figures["vocab_size"] == 600
    assert outcome.figures["bytes_per_token"] > 3
    assert outcome.licences == ["CC0-1.0", "CC0-1.0"]


def test_parity_superwords_and_reserved_tokens(tmp_path, text):
    plain, _ = made(tmp_path / "plain", text)
    fair, _ = made(tmp_path / "fair", text, parity=True, reserved=["<|image|>"])
    assert fair.special("<|image|>") == 3
    assert len(fair.encode("".join(thai(9)))) < 0.9 * len(plain.encode("".join(thai(9))))
    loose, _ = made(tmp_path / "loose", text, superwords_from=500)
    tokens = map(loose.backend.id_to_token, range(500, loose.vocab_size))
    assert any("Ġ" in token[1:] for token in tokens)


def test_parity_needs_documents_that_name_their_languages(tmp_path, text):
    with pytest.raises(DataError, match="texts of each language"):
        made(tmp_path / "out", {"a": text["a"]}, parity=True)


def test_a_setting_left_alone_leaves_no_trace():
    config = TokenizerConfig.read({"vocab_size": 600, "language": "th"})
    assert fingerprint.identity(config, str) == {"vocab_size": 600, "language": "th"}
    with pytest.raises(RecipeError, match="superword_from"):
        TokenizerConfig.read({"vocab_size": 600, "superword_from": 500})
