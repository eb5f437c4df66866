"""Reward models: the scores that transformers gives for the same folder, and what is refused."""

import json

import numpy as np
import pytest
import torch

from endonym.core.errors import DataError, RecipeError
from endonym.model import hf, reward
from endonym.model.config import ModelConfig
from eval.tiny import context

PAD = 90
SEQUENCES = [list(range(5, 25)), [7, 8, 9], [3, 1, 4, 1, 5, 9, 2, 6], [11]]


def base(folder, family="llama", **changes):
    sizes = {
        "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    }  # fmt: skip
    made = hf.new(ModelConfig(**sizes | changes), 0)
    with torch.no_grad():
        for weight in made.parameters():
            if weight.dim() > 1:
                weight.mul_(8)  # predictions, and scores, that differ from place to place
    hf.save(made, folder, family=family, eos_ids={1}, bos_id=2)
    return folder


def theirs(folder, sequences):
    """AutoModelForSequenceClassification's scores of a padded batch, and its class's name."""
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    assert model.config.num_labels == 1
    longest = max(map(len, sequences))
    ids = torch.tensor([each + [PAD] * (longest - len(each)) for each in sequences])
    mask = torch.tensor([[1] * len(each) + [0] * (longest - len(each)) for each in sequences])
    with torch.no_grad():
        found = model(input_ids=ids, attention_mask=mask).logits
    return found[:, 0].numpy(), type(model).__name__


FAMILIES = {
    "llama": {"tie_word_embeddings": True},
    "mistral": {},
    "qwen2": {"qkv_bias": True, "tie_word_embeddings": True},
    "qwen3": {"qk_norm": True},
    "qwen3_moe": {
        "qk_norm": True,
        "experts": {"count": 4, "chosen": 2, "width": 16},
    },
}


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_loads_the_folder_with_the_same_scores(tmp_path, family):
    try:
        folder = base(tmp_path / "base", family, **FAMILIES[family])
    except RecipeError as error:
        raise AssertionError(f"the test's own model is no {family}: {error}") from None
    assert json.loads((folder / "config.json").read_text())["model_type"] == family
    made = reward.start(folder, seed=3)
    reward.save(made, tmp_path / "reward", pad_id=PAD)
    ours = reward.scores(made, SEQUENCES, context())
    their_scores, name = theirs(tmp_path / "reward", SEQUENCES)
    assert name.endswith("ForSequenceClassification")
    assert np.ptp(ours) > 0.01
    # float32, other kernels: 1e-5 as for all parity
    np.testing.assert_allclose(ours, their_scores, atol=1e-5)
    again = reward.scores(reward.load(tmp_path / "reward"), SEQUENCES, context())
    assert (again == ours).all()
    foreign = reward.load(tmp_path / "reward", native=False)
    np.testing.assert_allclose(
        reward.scores(foreign, SEQUENCES, context()), their_scores, atol=1e-5
    )


def test_a_folder_of_transformers_own_is_read(tmp_path):
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    module = AutoModelForSequenceClassification.from_pretrained(base(tmp_path / "b"), num_labels=1)
    module.config.pad_token_id = PAD
    module.save_pretrained(tmp_path / "r")
    ours = reward.scores(reward.load(tmp_path / "r"), SEQUENCES, context())
    np.testing.assert_allclose(ours, theirs(tmp_path / "r", SEQUENCES)[0], atol=1e-5)


def test_a_foreign_family_starts_and_is_saved(tmp_path):
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=64,
    )  # fmt: skip
    GPTNeoXForCausalLM(config).save_pretrained(tmp_path / "b")
    made = reward.start(tmp_path / "b", seed=1)
    assert isinstance(made, reward.ForeignReward) and made.head.shape == (1, 32)
    reward.save(made, tmp_path / "r", pad_id=PAD)
    ours = reward.scores(made, SEQUENCES, context())
    np.testing.assert_allclose(ours, theirs(tmp_path / "r", SEQUENCES)[0], atol=1e-5)
    again = reward.scores(reward.load(tmp_path / "r"), SEQUENCES, context())
    np.testing.assert_allclose(again, ours, atol=1e-6)


def test_the_head_is_drawn_by_the_seed_and_the_trunk_is_the_models(tmp_path):
    folder = base(tmp_path / "b")
    one, two, other = (reward.start(folder, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.head, two.head) and not torch.equal(one.head, other.head)
    assert one.head.shape == (1, 32) and one.cap is None
    assert 0.01 < one.head.std() < 0.04
    tokens = torch.tensor([SEQUENCES[0]])
    with torch.no_grad():
        assert torch.equal(one(tokens), hf.load(folder)(tokens))


@pytest.mark.parametrize("rows", [1, 3, None])
def test_scores_do_not_hang_on_the_company(tmp_path, rows):
    model = reward.start(base(tmp_path / "b"), seed=1)
    alone = np.concatenate([reward.scores(model, [each], context()) for each in SEQUENCES])
    together = reward.scores(model, SEQUENCES, context(rows_per_device=rows))
    np.testing.assert_allclose(together, alone, atol=1e-5)  # float32, other shapes of products
    turned = reward.scores(model, SEQUENCES[::-1], context(rows_per_device=rows))
    assert (turned[::-1] == together).all()  # but the same batch of the same texts is the same
    with pytest.raises(DataError, match="without tokens"):
        reward.scores(model, [[1], []], context())
    assert len(reward.scores(model, [], context())) == 0


def test_language_models_and_classifiers_of_many_labels_are_refused(tmp_path):
    from transformers import AutoModelForSequenceClassification

    folder = base(tmp_path / "b")
    with pytest.raises(DataError, match="not a reward model"):
        reward.load(folder)
    module = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3)
    module.save_pretrained(tmp_path / "c")
    with pytest.raises(DataError, match="3 labels"):
        reward.load(tmp_path / "c")


def test_a_reward_model_is_no_language_model(tmp_path):
    reward.save(reward.start(base(tmp_path / "b"), seed=1), tmp_path / "r", pad_id=PAD)
    with pytest.raises(DataError, match="weights are"):
        hf.load(tmp_path / "r")


def test_what_nobody_could_load_is_refused_before_it_is_trained(tmp_path):
    skips = base(tmp_path / "s", skips=[(1, 0)])
    with pytest.raises(RecipeError, match="of a family that transformers has"):
        reward.start(skips, seed=1)


def test_no_family_without_a_classifier(tmp_path, monkeypatch):
    from transformers.models.auto import modeling_auto

    monkeypatch.setattr(modeling_auto, "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES", {})
    with pytest.raises(RecipeError, match="no sequence classifier of the family llama"):
        reward.start(base(tmp_path / "b"), seed=1)
