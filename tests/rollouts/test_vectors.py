"""Vectors of an embedding model: how tokens become one, what a query begins with, what is kept."""

import json

import numpy as np
import pytest
import torch

from endonym.core.errors import DataError
from endonym.data.sections import Section
from endonym.rollouts.library import Library
from endonym.rollouts.vectors import Embedder
from eval.tiny import tokenizer

TEXTS = ["น้ำท่วม", "the water rose in the capital", "รัฐบาล สนับสนุน การศึกษา", "a"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random Qwen3 of two layers, with our tokenizer."""
    from transformers import Qwen3Config, Qwen3Model

    folder = tmp_path_factory.mktemp("embedder")
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=tokenizer().vocab_size, hidden_size=16, intermediate_size=24, head_dim=8,
        num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64,
    )  # fmt: skip
    Qwen3Model(config).save_pretrained(folder)
    tokenizer().save(folder)
    return folder


def configured(folder, tmp_path, pooling=None, prompts=None):
    import shutil

    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    if pooling:
        (copy / "1_Pooling").mkdir()
        (copy / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    if prompts:
        (copy / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    return copy


@pytest.mark.parametrize(
    "pooling, wanted",
    [
        (None, "mean"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_cls_token": True}, "first"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "lasttoken"}, "last"),
    ],
)
def test_a_text_has_the_vector_that_it_has_alone(folder, tmp_path, pooling, wanted):
    """Padding beside longer texts changes nothing; the pooling is the folder's."""
    embedder = Embedder(configured(folder, tmp_path, pooling))
    found = embedder.encode(TEXTS)
    assert found.dtype == np.float32 and np.allclose((found**2).sum(1), 1, atol=1e-5)
    for text, row in zip(TEXTS, found):
        ids = torch.tensor([embedder.tokenizer(text)["input_ids"]])
        with torch.no_grad():
            hidden = embedder.model(input_ids=ids).last_hidden_state[0]
        own = {"mean": hidden.mean(0), "first": hidden[0], "last": hidden[-1]}[wanted]
        assert np.allclose(row, torch.nn.functional.normalize(own, dim=0).numpy(), atol=1e-5)


def test_the_nearest_text_comes_first_and_a_query_has_its_prompt(folder, tmp_path):
    embedder = Embedder(configured(folder, tmp_path, prompts={"query": "find: ", "document": ""}))
    vectors = embedder(TEXTS)
    near = vectors.matrix @ embedder.encode(["find: " + TEXTS[2]])[0]
    assert vectors.rankings([TEXTS[2]], 4) == [np.argsort(-near).tolist()]
    plain = Embedder(folder)(TEXTS)
    assert [ranking[0] for ranking in plain.rankings(TEXTS, 2)] == [0, 1, 2, 3]
    assert all(len(ranking) == 2 for ranking in plain.rankings(TEXTS, 2))


def test_vectors_are_kept_by_the_content_of_model_and_texts(folder, tmp_path):
    cache = tmp_path / "cache"
    first = Embedder(folder, cache=cache)
    made = first(TEXTS)
    (file,) = cache.iterdir()
    again = Embedder(folder, cache=cache)
    again.encode = None  # nothing is computed a second time
    assert np.array_equal(again(TEXTS).matrix, made.matrix)
    np.load(file, allow_pickle=False)
    first(TEXTS[:2])
    other = configured(folder, tmp_path, {"pooling_mode_cls_token": True})
    Embedder(other, cache=cache)(TEXTS)
    assert len(list(cache.iterdir())) == 3


def test_what_is_no_model_is_refused(folder, tmp_path):
    with pytest.raises(DataError, match="no model in this folder"):
        Embedder(tmp_path)
    with pytest.raises(DataError, match="not known here"):
        Embedder(configured(folder, tmp_path, {"pooling_mode_max_tokens": True}))


def test_a_library_fuses_words_and_vectors(folder):
    sections = [Section(str(n), "L", str(n), "", text, "th") for n, text in enumerate(TEXTS)]
    library = Library(sections, "th", top=4, embedder=Embedder(folder))
    assert library.search([TEXTS[0]])[0] is sections[0]
    assert len(library.search(["ไม่มีคำนี้"])) == 4, "vectors find what no word does"
    assert len(Library(sections, "th", top=4).search(["ไม่มีคำนี้"])) == 0
