"""The stage that makes a reward model: it learns to rank, resumes, and leaves a folder others read."""

import json

import numpy as np
import pytest
import torch

from endonym.core.artifact import Artifact
from endonym.core.context import Layout
from endonym.core.errors import MachineError, RecipeError
from endonym.data.document import Preference, read_table, write_table
from endonym.data.pairs import PairLoader, PairStore
from endonym.methods.bradley_terry import bradley_terry
from endonym.model import hf, reward
from endonym.stages.reward_model import STAGE, Pairwise, RewardModelConfig
from endonym.tokenizer.folder import Tokenizer
from eval.tiny import ENGLISH, THAI, context, model, tokenizer

ENGLISH_WORDS, THAI_WORDS = ENGLISH.split(), THAI.split()


def pairs(count, seed, kinds=("foreign", "order")):
    """Chosen is English. The rejected answer is Thai (easy), or the English one backwards (harder)."""
    draw = np.random.default_rng(seed)
    for n in range(count):
        words = draw.choice(ENGLISH_WORDS, 4).tolist()
        kind = kinds[n % len(kinds)]
        other = draw.choice(THAI_WORDS, 2).tolist() if kind == "foreign" else words[::-1]
        say = [[{"role": "assistant", "content": " ".join(each)}] for each in (words, other)]
        yield Preference(f"{seed}/{n}", [], *say, language="en", task=kind, margin=0.5 * (n % 2))


def preferences(folder, rows):
    folder.mkdir()
    write_table(folder / "preferences.parquet", rows)
    record = {"files": {"preferences.parquet": {}}, "address": folder.name, "kind": "preferences"}
    return Artifact(folder, record | {"licences": [f"licence of {folder.name}"]})


@pytest.fixture
def inputs(tmp_path):
    folder = tmp_path / "base"
    hf.save(model(), folder, eos_ids=tokenizer().stop_ids)
    tokenizer().save(folder)
    return {
        "model": Artifact(folder, {"address": "m", "kind": "model", "licences": ["base"]}),
        "data": {"train": preferences(tmp_path / "train", pairs(120, 1))},
        "test": {"held": preferences(tmp_path / "held", pairs(60, 2))},
    }


def run(folder, inputs, **changes):
    out = folder / "out"
    out.mkdir(parents=True)
    settings = {
        "steps": 30, "learning_rate": 3e-3, "row_length": 128, "rows_per_step": 8,
        "precision": "float32",
    }  # fmt: skip
    config = RewardModelConfig(**settings | changes)
    outcome = STAGE.run(config, context(folder / "scratch", threads=1), out, inputs)
    return out, outcome


def test_it_learns_to_rank_and_says_how_well_by_task(tmp_path, inputs):
    out, outcome = run(tmp_path, inputs, steps=50)
    figures = outcome.figures
    assert figures["loss_first"] == pytest.approx(np.log(2), abs=0.4)
    assert figures["loss"] < 0.5
    easy = figures["by_task"]["foreign"]
    assert easy["accuracy"] > 0.9 and easy["pairs"] == 30
    low, high = figures["accuracy_interval"]
    assert low < figures["accuracy"] < high and figures["pairs"] == 60 and figures["margin"] > 0
    assert set(figures["by_task"]) == {"foreign", "order"} and figures["unread"] == 0
    assert json.loads((out / "ranking.json").read_text())["accuracy"] == figures["accuracy"]
    assert outcome.licences == ["licence of train", "licence of held", "base"]
    log = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert {"accuracy", "margin", "mean_reward", "min_reward", "max_reward"} <= set(log[0])
    assert figures["drawn"]["languages"]["en"]["tokens"] > 0 and STAGE.kind == "reward_model"
    assert "train" in figures["mixture"]


def test_transformers_gives_the_folders_scores(tmp_path, inputs):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    out, _ = run(tmp_path, inputs, steps=3)
    theirs = AutoModelForSequenceClassification.from_pretrained(out, dtype=torch.float32).eval()
    words = AutoTokenizer.from_pretrained(out)
    texts = [" ".join(ENGLISH_WORDS[:n]) for n in (2, 9, 5)]
    chats = [[{"role": "assistant", "content": text}] for text in texts]
    batch = words.apply_chat_template(chats, padding=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        wanted = theirs(**batch).logits[:, 0].numpy()
    own = Tokenizer.load(out)
    ids = [own.encode_whole(chat) for chat in chats]
    ours = reward.scores(reward.load(out), ids, context())
    np.testing.assert_allclose(ours, wanted, atol=1e-5)  # float32, padded on either side
    assert np.ptp(ours) > 1e-3


def test_the_objective_is_bradley_terry_on_scores_read_alone(tmp_path, inputs):
    table = inputs["data"]["train"].path / "preferences.parquet"
    store = PairStore.build(tmp_path / "s", read_table(table, Preference), tokenizer(), key="k")
    net = reward.start(inputs["model"].path, 0)
    rows = PairLoader([store], rows_per_step=3, row_length=128).rows(0)
    loss = Pairwise(margins=True, centering=0.1)(net, rows)
    ends = rows.extra["margin"][rows.weights > 0][::2]
    sides = []
    for line in range(len(rows)):
        for segment in range(1, int(rows.segments[line].max()) + 1):
            sides.append(rows.tokens[line][rows.segments[line] == segment].tolist())
    scores = torch.from_numpy(reward.scores(net, sides, context()))
    wanted = bradley_terry(scores[::2], scores[1::2], ends, 0.1)
    assert loss.weight == wanted.weight > 4 and ends.max() == 0.5
    # float32: scores of size 5 from packed and from padded rows
    assert loss.value.item() == pytest.approx(wanted.value.item(), rel=1e-4)
    assert loss.figures == pytest.approx(wanted.figures, rel=1e-4, abs=1e-5)
    without = Pairwise(margins=False, centering=0.1)(net, rows)
    assert without.value.item() != pytest.approx(loss.value.item(), rel=1e-3)
    loss.value.backward()
    assert net.head.grad.abs().sum() > 0 and net.model.embed_tokens.weight.grad.abs().sum() > 0


def test_micro_batches_give_the_same_run(tmp_path, inputs):
    ends = []
    for rows in (None, 3):
        folder = tmp_path / str(rows)
        (folder / "out").mkdir(parents=True)
        config = RewardModelConfig(
            steps=2, learning_rate=1e-3, row_length=64, rows_per_step=6, precision="float32"
        )
        here = context(folder / "scratch", threads=1, rows_per_device=rows)
        STAGE.run(config, here, folder / "out", {**inputs, "test": {}})
        ends.append(reward.load(folder / "out").state_dict())
    for name, tensor in ends[0].items():
        torch.testing.assert_close(ends[1][name], tensor, atol=1e-5, rtol=0)


def test_a_gate_may_ask_for_the_accuracy_on_held_out_pairs(tmp_path, inputs):
    gate = {"figure": "test/accuracy", "at_least": 1.01, "action": "fail"}
    with pytest.raises(RecipeError, match="test/accuracy"):
        run(tmp_path, inputs, steps=2, gates=[gate])


def test_rows_are_not_shared_between_processes(tmp_path, inputs):
    here = context(tmp_path, processes=2, layout=Layout(context=2))
    with pytest.raises(MachineError, match="rows cannot be shared"):
        STAGE.run(RewardModelConfig(), here, tmp_path, inputs)
