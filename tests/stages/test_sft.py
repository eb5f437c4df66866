"""Fine-tuning: what is refused, what is learnt of a conversation, mixtures of several kinds of them."""

import json
from dataclasses import replace

import pytest
import torch

from endonym.core.artifact import Artifact
from endonym.core.errors import DataError, RecipeError
from endonym.data.document import Conversation, write_table
from endonym.model import hf
from endonym.model.config import ModelConfig
from endonym.stages.merge import MergeConfig, merge
from endonym.stages.sft import SftConfig, sft
from endonym.tokenizer.folder import Tokenizer
from eval.tiny import ENGLISH, THAI, context, model, tokenizer

RUN = {"rows_per_step": 2, "row_length": 128, "learning_rate": 1e-3, "steps": 2}


def talk(folder, count, text, answer):
    folder.mkdir()
    rows = [
        Conversation(
            f"{folder.name}{n}",
            [
                {"role": "user", "content": f"{text} {n}"},
                {"role": "assistant", "content": f"{answer} {n}"},
            ],
            "en",
            folder.name,
            "CC0-1.0",
        )
        for n in range(count)
    ]
    write_table(folder / "conversations.parquet", rows)
    record = {"address": folder.name, "licences": ["CC0-1.0"], "figures": {}}
    return Artifact(folder, record | {"files": {"conversations.parquet": {}}})


def start(folder, net=None):
    hf.save(net or model(), folder, eos_ids=tokenizer().stop_ids)
    tokenizer().save(folder)
    return Artifact(folder, {"licences": ["MIT"], "files": {}, "figures": {}})


@pytest.fixture
def inputs(tmp_path):
    return {
        "model": start(tmp_path / "model"),
        "data": {
            "chat": talk(tmp_path / "chat", 30, ENGLISH[:20], "yes it is"),
            "culture": talk(tmp_path / "culture", 4, THAI[:9], "ใช่"),
        },
    }


def run(tmp_path, inputs, name="run", **settings):
    scratch, out = tmp_path / name / "scratch", tmp_path / name / "out"
    scratch.mkdir(parents=True)
    out.mkdir()
    here = replace(context(scratch), threads=1)
    return sft(SftConfig.read(RUN | settings), here, out, **inputs), out


def test_conversations_beyond_the_models_context_are_refused_with_what_would_do(tmp_path, inputs):
    inputs["data"]["long"] = talk(tmp_path / "long", 2, ENGLISH * 9, "yes")
    with pytest.raises(RecipeError, match=r"data\.long.*(\n.*)*row_length = 128"):
        run(tmp_path, inputs, "a", row_length=256)
    run(tmp_path, inputs, "b", row_length=128)
    del inputs["data"]["long"]
    run(tmp_path, inputs, "c", row_length=256)  # it is the conversations that count, not the rows


def test_a_template_that_never_teaches_to_stop_is_refused_first(tmp_path):
    out = tmp_path / "out"
    hf.save(model(), out, eos_ids=tokenizer().stop_ids)
    endless = "{% for m in messages %}{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}"
    endless += "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    Tokenizer(tokenizer().backend, tokenizer().named, endless).save(out)
    begin = Artifact(out, {})
    with pytest.raises(DataError, match="does not end an assistant's turn"):
        sft(SftConfig(steps=1), context(tmp_path), tmp_path, model=begin, data={})


def test_shares_are_relative_and_reported_beside_what_was_drawn(tmp_path, inputs):
    """JAI-1's second recipe sums to 97.69 %: a share of 32.01 is 32.77 % of the rows."""
    shares = {"chat": 65.68, "culture": 32.01}
    outcome, _ = run(tmp_path, inputs, mixture=shares, steps=12, rows_per_step=4)
    found = outcome.figures["mixture"]
    assert found["culture"]["asked"] == pytest.approx(32.01 / 97.69)
    assert found["culture"]["rows"] / 48 == pytest.approx(32.01 / 97.69, abs=0.05)
    assert found["culture"]["epochs"] > found["chat"]["epochs"]
    json.dumps(outcome.figures)


def test_epochs_are_capped_and_the_rest_goes_to_the_others(tmp_path, inputs):
    outcome, _ = run(
        tmp_path, inputs, mixture={"chat": 1, "culture": 1}, max_epochs={"culture": 2.0}, packed=False
    )  # fmt: skip
    free, _ = run(tmp_path, inputs, "free", mixture={"chat": 1, "culture": 1}, packed=False)
    assert outcome.figures["mixture"]["culture"]["epochs"] <= 2
    assert free.figures["mixture"]["culture"]["asked"] == pytest.approx(0.5)
    more, _ = run(
        tmp_path, inputs, "more", mixture={"chat": 1, "culture": 1}, max_epochs={"culture": 2.0},
        packed=False, steps=10,
    )  # fmt: skip
    found = more.figures["mixture"]
    assert found["culture"]["rows"] <= 8 and found["chat"]["rows"] >= 12


def test_a_mixture_names_what_is_plugged_in(tmp_path, inputs):
    with pytest.raises(RecipeError, match="'chats'"):
        run(tmp_path, inputs, mixture={"chats": 1.0})


def test_epochs_count_all_conversations(tmp_path, inputs):
    outcome, _ = run(tmp_path, inputs, steps=None, epochs=3, packed=False, rows_per_step=17)
    assert outcome.figures["steps"] == 6  # 34 conversations in rows of their own, three times
    assert outcome.figures["mixture"]["chat"]["epochs"] == pytest.approx(3)


def test_everything_is_learnt_where_that_is_asked_for(tmp_path, inputs):
    mine, _ = run(tmp_path, inputs, "mine")
    every, _ = run(tmp_path, inputs, "every", learn="all")
    own, whole = mine.figures["drawn"], every.figures["drawn"]
    assert own["targets"] < whole["targets"] and own["tokens"] == whole["tokens"]
    assert whole["targets"] == whole["tokens"]


def test_template_variables_reach_the_rows(tmp_path, inputs):
    plain, _ = run(tmp_path, inputs, "plain", steps=None, epochs=1)
    empty, _ = run(
        tmp_path, inputs, "empty", steps=None, epochs=1, template={"enable_thinking": False}
    )
    assert empty.figures["drawn"]["tokens"] > plain.figures["drawn"]["tokens"]


def test_experts_are_balanced(tmp_path, inputs):
    sizes = {
        "vocab_size": tokenizer().vocab_size, "hidden_size": 16, "intermediate_size": 24,
        "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 128,
        "experts": {"count": 4, "chosen": 2, "width": 8, "router": "sigmoid"},
    }  # fmt: skip
    net = hf.new(ModelConfig.read(sizes), 0)
    given = inputs | {"model": start(tmp_path / "sparse", net)}
    _, out = run(tmp_path, given, balance={"bias_rate": 0.01})
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert all("load_entropy" in line for line in lines)
    biases = [b for name, b in hf.load(out).named_buffers() if name.endswith("router.bias")]
    assert biases and any(bias.any() for bias in biases)


def test_two_fine_tunings_are_merged_half_and_half(tmp_path, inputs):
    """JAI-1: SFT.1 and SFT.2 from one start, then their mean."""
    _, one = run(tmp_path, inputs, "one", mixture={"chat": 3, "culture": 1})
    _, two = run(tmp_path, inputs, "two", mixture={"chat": 1, "culture": 3}, seed=1)
    out, scratch = tmp_path / "mean", tmp_path / "merging"
    out.mkdir()
    scratch.mkdir()
    half = [{"model": name, "parameters": {"weight": 1}} for name in ("one", "two")]
    settings = MergeConfig.read({"merge_method": "linear", "models": half})
    record = {"licences": [], "files": {}, "figures": {}}
    parts = {"one": Artifact(one, record), "two": Artifact(two, record)}
    merge(settings, context(scratch), out, inputs=parts)
    first, second, mean = (dict(hf.load(each).named_parameters()) for each in (one, two, out))
    assert any(not first[name].equal(second[name]) for name in first)
    for name, weight in mean.items():
        torch.testing.assert_close(weight, (first[name] + second[name]) / 2)
