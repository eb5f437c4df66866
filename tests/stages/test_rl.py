"""Reinforcement learning end to end on a tiny model: what is drawn, learnt, kept, resumed and refused."""

import json
import math
import os
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from endonym.core import recipe as recipes
from endonym.core.artifact import Artifact
from endonym.core.errors import DataError, RecipeError, StoreError
from endonym.core.plan import plan
from endonym.core.store import Store
from endonym.data.document import Conversation, Prompt, write_table
from endonym.data.sections import Section, write_sections
from endonym.engine.backends import Own
from endonym.methods.nll import token_logprobs
from endonym.model import hf
from endonym.rollouts import answering, record
from endonym.rollouts import groups as loaders
from endonym.stages.rl import RlConfig, rl
from endonym.stages.table import stage
from endonym.tasks.base import Item, write_items
from endonym.train import launch
from eval.tiny import ENGLISH, context, model, tokenizer
from rollouts.worlds import call

RUN = {
    "steps": 3,
    "prompts_per_step": 4,
    "group": 4,
    "row_length": 64,
    "max_prompt": 40,
    "learning_rate": 1e-3,
    "sampling": {"max_tokens": 8, "temperature": 1.0},
    "reward": {"language": 1.0},
    "precision": "float32",
}


def artifact(folder, kind):
    files = {path.name: {} for path in folder.iterdir()}
    told = {"address": folder.name, "kind": kind, "licences": ["CC0-1.0"], "figures": {}}
    return Artifact(folder, told | {"files": files})


def user(text):
    return [{"role": "user", "content": text}]


def prepared(folder):
    """A model, eleven prompts of two kinds, and nine conversations to learn beside them."""
    start = folder / "model"
    hf.save(model(), start, eos_ids=tokenizer().stop_ids)
    tokenizer().save(start)
    for name in ("items", "prompts", "text"):
        (folder / name).mkdir()
    items = [
        Item(f"q{n}", "answer", "numbers", "en" if n % 2 else "th", user(f"say {n}"), str(n))
        for n in range(6)
    ]
    write_items(folder / "items" / "items.parquet", items)
    asked = [Prompt(f"p{n}", user(f"the {n}"), "th", columns={"hint": n}) for n in range(5)]
    write_table(folder / "prompts" / "prompts.parquet", asked)
    talks = [
        Conversation(f"c{n}", [*user("law"), {"role": "assistant", "content": ENGLISH[n:]}], "en")
        for n in range(9)
    ]
    write_table(folder / "text" / "conversations.parquet", talks)
    return again(folder)


def again(folder):
    """What prepared() has written."""
    return {
        "model": artifact(folder / "model", "model"),
        "prompts": {
            "items": artifact(folder / "items", "items"),
            "file": artifact(folder / "prompts", "prompts"),
        },
        "knowledge": {"text": artifact(folder / "text", "conversations")},
    }


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("inputs"))


def run(tmp_path, inputs, name="run", *, text=False, processes=1, server=False, **settings):
    scratch, out = tmp_path / name / "scratch", tmp_path / name / "out"
    scratch.mkdir(parents=True, exist_ok=True)
    out.mkdir()
    here = replace(context(scratch), threads=1, processes=processes, server=server)
    given = {"library": None, **inputs, "knowledge": inputs["knowledge"] if text else {}}
    return rl(RlConfig.read(RUN | settings), here, out, **given), out


def own(tmp_path, body):
    """A reward of our own, `mine`, with this body; n counts the completions."""
    file = tmp_path / "mine.py"
    file.write_text(
        "def mine(prompts, completions, **columns):\n"
        "    texts = [each[-1]['content'] for each in completions]\n"
        f"    return [{body} for n, text in enumerate(texts)]\n"
    )
    return {"reward": {"mine": 1.0}, "own": {"mine": str(file)}}


def lines(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def batches(out):
    """The batches that a run has left in its output."""
    folder = out / "rollouts"
    found = []
    for number in range(len(list(folder.glob("*.parquet")))):
        told = json.loads(pq.read_schema(record.path_of(folder, number)).metadata[record.KEY])
        found.append(record.read(folder, number, told["identity"]))
    return found


def weights(out):
    return (out / "model.safetensors").read_bytes()


# --- what a run leaves -------------------------------------------------------------------------


def test_end_to_end(tmp_path, inputs):
    outcome, out = run(tmp_path, inputs, text=True, ink={"rows": 3, "rho": 1.0, "lmbda": 0.5})
    figures, log = outcome.figures, lines(out)
    assert figures["steps"] == figures["text_steps"] == 3
    assert figures["prompts"] == 11 and figures["too_long"] == 0
    assert figures["judged_by"]["language"]["weight"] == 1.0
    assert set(figures["rewards"]) == {"reward", "language"}
    assert (
        outcome.licences
        and weights(out) != (inputs["model"].path / "model.safetensors").read_bytes()
    )
    for line, batch in zip(log, batches(out), strict=True):
        every = batch.rollouts
        assert len(every) == 16 and batch.cursor == 4 * (batch.number + 1)
        assert line["reward"] == pytest.approx(sum(one.reward for one in every) / 16)
        assert line["rewards/language/mean"] == pytest.approx(line["reward"])
        found = [one.reward for one in every]
        assert line["rewards/language/std"] == pytest.approx(statistics.stdev(found))
        spreads = [statistics.stdev(found[n : n + 4]) for n in range(0, 16, 4)]
        assert line["reward_std"] == pytest.approx(statistics.mean(spreads))
        drawn = [sum(one.mask) for one in every]
        assert line["completions/mean_length"] == pytest.approx(sum(drawn) / 16)
        minus = -sum(sum(one.logprobs) for one in every) / sum(drawn)
        assert line["entropy"] == pytest.approx(minus, rel=1e-6) and line["entropy"] > 1
        # the sampler's log-probabilities are the trainer's
        assert line["sampling/sampling_logp_difference/mean"] < 1e-5
        # what is left of the loss is lambda times the text's: near log V, for the model is random
        assert 3 < (line["loss"] - line["loss/policy"]) / 0.5 < 12
    told = [json.loads(line) for line in (out / "rollouts.jsonl").read_text().splitlines()]
    assert [each["batch"] for each in told] == [0, 1, 2]
    rewards = [answer["reward"] for answer in told[0]["answers"]]
    assert rewards == sorted(rewards, reverse=True) and told[0]["prompt"][0]["role"] == "user"


def test_every_prompt_comes_once_an_epoch_and_columns_reach_the_rewards(tmp_path, inputs):
    settings = own(tmp_path, "float((columns['hint'][n] or 0) + (columns['answer'][n] == '3'))")
    _, out = run(tmp_path, inputs, prompts_per_step=11, steps=2, **settings)
    first, second = ([(one.label, one.id) for one in batch.rollouts] for batch in batches(out))
    assert len(set(first)) == 11 and set(first) == set(second) and first != second
    rewards = {one.id: one.reward for one in batches(out)[0].rollouts}
    assert rewards["p4"] == 4 and rewards["q3"] == 1 and rewards["q2"] == 0


def test_a_mixture_gives_each_label_its_share(tmp_path, inputs):
    _, out = run(tmp_path, inputs, steps=2, mixture={"items": 3, "file": 1})
    labels = [one.label for batch in batches(out) for one in batch.rollouts]
    assert labels.count("items") == 3 * labels.count("file") > 0


# --- InK ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("never", [{"lmbda": 0.0, "rho": 1.0}, {"lmbda": 5.0, "rho": 0.0}])
def test_without_weight_or_chance_it_is_grpo_bit_for_bit(tmp_path, inputs, never):
    _, plain = run(tmp_path, inputs, "plain")
    _, ink = run(tmp_path, inputs, "ink", text=True, ink={"rows": 3, **never})
    assert weights(plain) == weights(ink) and lines(plain) == [
        {name: value for name, value in line.items() if name != "text"} for line in lines(ink)
    ]
    _, real = run(tmp_path, inputs, "real", text=True, ink={"rows": 3, "lmbda": 1e-3, "rho": 1.0})
    assert weights(plain) != weights(real)


def test_knowledge_teaches_what_rollouts_do_not_hold(tmp_path, inputs):
    """A fact that no rollout draws: with the text its likelihood rises, with GRPO alone it does not."""
    (row,) = tokenizer().training_rows([*user("law"), {"role": "assistant", "content": ENGLISH}])
    ids, learnt = torch.tensor(row[0]), torch.tensor(row[1])

    def known(folder):
        net = hf.load(folder).eval()
        with torch.no_grad():
            hidden = net(ids[None, :-1])
        return float(token_logprobs(hidden[0], net.head, ids[1:])[learnt[1:]].mean())

    settings = {"steps": 25, "learning_rate": 3e-3} | own(tmp_path, "float(len(text) % 2)")
    _, plain = run(tmp_path, inputs, "plain", **settings)
    _, ink = run(tmp_path, inputs, "ink", text=True, ink={"rows": 9, "lmbda": 1.0}, **settings)
    before = known(inputs["model"].path)
    assert known(ink) > before + 3 and known(plain) < before + 0.5
    for out in (plain, ink):
        drawn = [one for batch in batches(out) for one in batch.rollouts]
        assert not any(ENGLISH[:20] in one.messages[-1]["content"] for one in drawn)


# --- failures ----------------------------------------------------------------------------------


def test_what_cannot_be_judged_is_masked_and_counted_and_training_goes_on(tmp_path, inputs):
    """EVALUATION R19: one answer in ten is lost; its reward is nobody's zero."""
    settings = own(tmp_path, "float('nan') if n % 10 == 3 else float(len(text) % 3)")
    outcome, out = run(tmp_path, inputs, **settings)
    assert outcome.figures["steps"] == 3 and outcome.figures["skipped"] == 0
    for line, batch in zip(lines(out), batches(out), strict=True):
        lost = [one for one in batch.rollouts if one.failed]
        judged = [one.reward for one in batch.rollouts if not one.failed]
        assert len(lost) == 2 and line["failed"] == 2 / 16 == line["failed/mine"]
        assert line["reward"] == pytest.approx(sum(judged) / 14)
        for one in lost:
            assert math.isnan(one.parts["mine"]) and one.advantage == 0 and not one.learnt
        for group in batch.kept:
            assert abs(sum(one.advantage for one in group)) < 1e-6
    assert outcome.figures["judged_by"]["mine"]["failed"] == pytest.approx(2 / 16)
    assert "NaN" not in (out / "metrics.jsonl").read_text()


def test_a_judge_that_is_down_costs_the_step_and_not_the_run(tmp_path, inputs):
    settings = own(tmp_path, "float('nan')")
    outcome, out = run(tmp_path, inputs, **settings)
    assert [line["skipped"] for line in lines(out)] == ["no weight"] * 3
    assert outcome.figures["failed"] == 1.0
    _, out = run(tmp_path, inputs, "ink", text=True, ink={"rows": 3, "rho": 1.0}, **settings)
    assert all("skipped" not in line and line["loss"] > 0.1 for line in lines(out))


def test_cut_off_answers_can_be_left_out_of_the_loss_and_stay_in_the_mean(tmp_path, inputs):
    settings = own(tmp_path, "float(len(text) % 3)") | {"sampling": {"max_tokens": 3}}
    _, out = run(tmp_path, inputs, mask_truncated=True, steps=1, **settings)
    (batch,) = batches(out)
    cut = [one for one in batch.rollouts if one.is_truncated]
    assert cut and not any(one.learnt or one.advantage for one in cut)
    assert not any(one.failed for one in cut)
    _, out = run(tmp_path, inputs, "all", steps=1, **settings)
    assert all(one.learnt for one in batches(out)[0].rollouts)


def test_a_prompt_that_no_reward_judges_is_named(tmp_path, inputs):
    with pytest.raises(DataError, match=r"no reward applies[\s\S]*file: p\d"):
        run(tmp_path, inputs, reward={"answer": 1.0})


# --- dynamic filtering -------------------------------------------------------------------------


def test_filtering_draws_on_until_groups_differ_and_says_what_it_put_aside(tmp_path, inputs):
    settings = own(tmp_path, "float(len(text) % 2) if columns['hint'][n] is None else 1.0")
    outcome, out = run(tmp_path, inputs, dynamic=True, **settings)
    cursor = 0
    for line, batch in zip(lines(out), batches(out), strict=True):
        kept = batch.kept
        assert len(kept) == 4
        assert all(len({one.reward for one in group}) > 1 for group in kept)
        aside = {one.slot for one in batch.rollouts if not one.kept}
        assert line["discarded"] == pytest.approx(len(aside) / (len(aside) + 4))
        assert line["tries"] == batch.tries and (batch.tries > 1) == bool(aside)
        slots = sorted({one.slot for one in batch.rollouts})
        assert slots == list(range(cursor, batch.cursor))  # none is drawn twice, none passed over
        cursor = batch.cursor
    assert outcome.figures["discarded"] > 0.2


def test_filtering_gives_up_after_so_many_draws(tmp_path, inputs):
    settings = own(tmp_path, "1.0")
    outcome, out = run(tmp_path, inputs, dynamic=True, dynamic_tries=3, steps=2, **settings)
    assert [batch.tries for batch in batches(out)] == [3, 3]
    assert [line["skipped"] for line in lines(out)] == ["no weight"] * 2
    assert outcome.figures["discarded"] == 1.0


# --- several updates, other policies -----------------------------------------------------------


def test_later_updates_take_the_ratio_to_the_sampler_or_the_trainer(tmp_path, inputs):
    """Our sampler's log-probabilities are the trainer's, so both ways give the same run."""
    settings = {"updates": 2, "steps": 6, "learning_rate": 3e-3}
    found = {}
    for old in ("sampler", "trainer"):
        _, out = run(tmp_path, inputs, old, old=old, **settings)
        assert len(batches(out)) == 3
        found[old] = log = lines(out)
        assert ["clip_ratio/region_mean" in line for line in log] == [False, True] * 3
        assert [line["epoch"] for line in log] == pytest.approx(
            [n * 4 / 11 for n in (1, 1, 2, 2, 3, 3)]
        )
    for a, b in zip(*found.values(), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-4)
    assert any(abs(line["loss"]) > 1e-3 for line in found["sampler"])
    rollouts = [one for batch in batches(out) for one in batch.rollouts]
    for one in rollouts:
        assert one.old == pytest.approx(one.logprobs, abs=1e-5)


def test_the_kl_is_to_the_start_model(tmp_path, inputs):
    _, out = run(tmp_path, inputs, beta=0.5, steps=3, learning_rate=1e-2)
    log = lines(out)
    assert log[0]["kl"] == pytest.approx(0, abs=1e-9) and log[2]["kl"] > 1e-4
    first = batches(out)[0].rollouts
    assert all(one.reference == pytest.approx(one.logprobs, abs=1e-5) for one in first)


def test_aggregates_differ_and_a_truncating_sampler_is_corrected(tmp_path, inputs):
    made = {
        name: weights(run(tmp_path, inputs, name, steps=1, aggregate=name)[1])
        for name in ("tokens", "sequences", "constant")
    }
    assert len(set(made.values())) == 3
    sampling = {"max_tokens": 8, "temperature": 1.0, "top_p": 0.8}
    _, out = run(tmp_path, inputs, "cut", steps=1, sampling=sampling, importance_cap=2.0)
    assert lines(out)[0]["sampling/importance_sampling_ratio/mean"] < 0.99
    with pytest.raises(RecipeError, match='old = "trainer"'):
        RlConfig.read(RUN | {"sampling": sampling, "updates": 2})
    RlConfig.read(RUN | {"sampling": sampling, "updates": 2, "old": "trainer"})


# --- the same whatever the machine -------------------------------------------------------------


def test_packing_changes_nothing_but_the_rows(tmp_path, inputs):
    loose = run(tmp_path, inputs, "loose", row_length=8)[1]
    tight = run(tmp_path, inputs, "tight", row_length=256)[1]
    for a, b in zip(lines(loose), lines(tight), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-4)
        assert a["tokens"] == b["tokens"]


@pytest.mark.parametrize(
    "settings", [{"text": True, "dynamic": True}, {"updates": 2, "old": "trainer", "beta": 0.1}]
)
def test_two_processes_learn_as_one_does(tmp_path, inputs, settings, monkeypatch):
    monkeypatch.setattr(launch, "START", "fork")  # saves the imports
    settings = own(tmp_path, "float(len(text) % 2)") | {"ink": {"rows": 3}} | settings
    found = []
    for processes in (1, 2):
        outcome, out = run(tmp_path, inputs, f"p{processes}", processes=processes, **settings)
        found.append((outcome.figures, lines(out), batches(out)))
    one, two = found
    for a, b in zip(one[2], two[2], strict=True):
        assert [each.tokens for each in a.rollouts] == [each.tokens for each in b.rollouts]
        assert [each.advantage for each in a.rollouts] == [each.advantage for each in b.rollouts]
    for a, b in zip(one[1], two[1], strict=True):
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-3)
        rounded = {"grad_norm", "sampling/sampling_logp_difference/mean"}
        assert a.keys() == b.keys()
        for name in a.keys() - rounded:
            assert a[name] == pytest.approx(b[name], abs=1e-6), name


# --- resuming ----------------------------------------------------------------------------------


def test_a_batch_that_was_written_is_not_drawn_again(tmp_path, inputs, monkeypatch):
    _, whole = run(tmp_path, inputs, "whole")
    written, count = record.write, []

    def broken(folder, batch, identity):
        written(folder, batch, identity)
        count.append(batch.number)
        if len(count) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(loaders.record, "write", broken)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, inputs, "cut")
    (tmp_path / "cut" / "out").rmdir()
    _, out = run(tmp_path, inputs, "cut")
    assert count == [0, 1, 2]
    assert weights(out) == weights(whole) and lines(out) == lines(whole)


def test_rollouts_of_another_run_are_refused(tmp_path, inputs):
    run(tmp_path, inputs)
    for name in ("checkpoints", "metrics.jsonl"):
        path = tmp_path / "run" / "scratch" / name
        path.rename(path.with_name("gone " + name))
    (tmp_path / "run" / "out").rename(tmp_path / "gone")
    with pytest.raises(StoreError, match="drawn by another run"):
        run(tmp_path, inputs, group=2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the drill forks")
def test_kill_9_at_any_moment_ends_where_an_undisturbed_run_ends(tmp_path):
    """With dynamic filtering, two updates a batch and text; rl_drill.py FOLDER 20 20 9 does it 50 times."""
    script = Path(__file__).with_name("rl_drill.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(tmp_path / "drill"), "1", "1", "3"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["in a save"] >= 1 and told["at random"] >= 1 and told["in a write"] == 4


# --- with tools --------------------------------------------------------------------------------


class Caller(Own):
    """A model that begins by a call, whatever it would have said, and then says what it says."""

    first = f"{call('search_law', query_list=['water'])}"

    def generate(self, prompts, sampling, stop_ids=(), **others):
        words = tokenizer()
        forced = [*words.encode(self.first, literal=True), words.turn_end_id]
        done = super().generate(prompts, sampling, stop_ids, **others)
        for prompt, answer in zip(prompts, done, strict=True):
            if "<|im_start|>tool" in words.backend.decode(prompt, skip_special_tokens=False):
                continue
            ids = torch.tensor([*prompt, *forced])
            hidden = self.model(ids[None, :-1])[0, len(prompt) - 1 :]
            answer.tokens, answer.finish = list(forced), "stop"
            answer.logprobs = token_logprobs(hidden, self.model.head, ids[len(prompt) :]).tolist()
            answer.raw_logprobs = list(answer.logprobs)
        return done


def test_with_a_library_what_tools_say_is_read_and_not_learnt(tmp_path, inputs, monkeypatch):
    monkeypatch.setattr(answering, "Own", Caller)
    start, shelf = tmp_path / "model", tmp_path / "shelf"
    hf.save(model(size=1024), start, eos_ids=tokenizer().stop_ids)
    tokenizer().save(start)
    shelf.mkdir()
    texts = ["water rose in the capital", "the country has a large population"]
    laws = [Section(f"s{n}", "the law", str(n), "", text, "en") for n, text in enumerate(texts)]
    write_sections(shelf / "sections.parquet", laws)
    given = inputs | {"model": artifact(start, "model"), "library": artifact(shelf, "sections")}
    settings = own(tmp_path, "float(len(completions[n]) == 3)") | {"max_prompt": 900, "updates": 2}
    agent = {"max_turns": 1, "max_tokens": 300}
    _, out = run(tmp_path, given, agent=agent, row_length=1024, **settings)
    drawn = [one for batch in batches(out) for one in batch.rollouts]
    for one in drawn:
        assert one.turns == 2 and one.reward == 1.0
        assert [each["role"] for each in one.messages] == ["assistant", "tool", "assistant"]
        assert "water rose" in one.messages[1]["content"]
        told = [token for token, is_drawn in zip(one.tokens, one.mask) if not is_drawn]
        assert "water rose" in tokenizer().decode(told)
        assert len(told) + sum(one.mask) == len(one.tokens) <= 300
    # Both turns have in the trainer, behind prompt and tool text, the probability they were drawn with.
    settings |= own(tmp_path, "float(len(text) % 3)")
    _, out = run(tmp_path, given, "differ", agent=agent, row_length=1024, **settings)
    log = lines(out)
    assert log[0]["sampling/sampling_logp_difference/mean"] < 1e-5 and log[0]["turns"] == 2
    assert any(line["grad_norm"] > 0 for line in log)
    # Rewards know the tools that the library gives.
    settings |= {"reward": {"calls": 1.0}, "own": {}}
    _, out = run(tmp_path, given, "called", agent=agent, row_length=1024, **settings)
    assert lines(out)[0]["rewards/calls/mean"] == 1.0


# --- in a recipe -------------------------------------------------------------------------------

RECIPE = """
[stages.base]
use = "import"
path = "model"
[stages.exam]
use = "items"
sources = [{ builtin = "almanac", language = "en", amount = 8 }]
[stages.talk]
use = "conversations"
sources = [{ builtin = "almanac", language = "en", amount = 8 }]
[stages.policy]
use = "rl"
model = "@base"
prompts = "@exam"
knowledge = "@talk"
reward = { answer = 0.9, mine = 0.1 }
own = { mine = "mine.py" }
"""


def test_a_recipe_sets_how_the_knowledge_is_injected(tmp_path, inputs):
    """The slot `knowledge` says which text, the settings `ink` how; an own reward's file is part of it."""
    (tmp_path / "model").symlink_to(inputs["model"].path)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    own(tmp_path, "1.0")

    def policy(*sets):
        loaded = recipes.load(tmp_path / "recipe.toml", None, list(sets))
        return plan(loaded, Store(tmp_path / "store"), stage, (tmp_path,))["policy"]

    plain = policy()
    assert plain.inputs["knowledge"] == {"talk": "talk"}
    assert (plain.config.ink.lmbda, plain.config.ink.rho, plain.config.ink.rows) == (0.1, 0.6, 64)
    told = policy("policy.ink.lmbda=0.3", "policy.agent.max_turns=2")
    assert told.config.ink.lmbda == 0.3 and told.config.ink.rho == 0.6
    assert told.inputs == plain.inputs and told.address != plain.address
    own(tmp_path, "2.0")
    assert policy().address != plain.address
    own(tmp_path, "1.0")
    assert policy().address == plain.address


# --- refusals ----------------------------------------------------------------------------------


def test_prompts_that_are_too_long_are_left_out_and_counted(tmp_path, inputs):
    many = tmp_path / "long"
    many.mkdir()
    asked = [Prompt("long", user(ENGLISH * 3), "en"), Prompt("short", user("the"), "en")]
    write_table(many / "prompts.parquet", asked)
    given = {**inputs, "prompts": {"long": artifact(many, "prompts")}}
    outcome, _ = run(tmp_path, given)
    assert outcome.figures["too_long"] == 1 and outcome.figures["prompts"] == 1
    with pytest.raises(DataError, match="max_prompt = 3"):
        run(tmp_path, given, "none", max_prompt=3)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"mixture": {"itms": 1.0}}, "itms"),
        ({"reward": {}}, "no reward"),
        ({"updates": 5}, "more updates"),
        ({"reward": {"anser": 1.0}}, "did you mean 'answer'"),
    ],
)
def test_settings_that_cannot_be_meant(tmp_path, inputs, settings, told):
    with pytest.raises(RecipeError, match=told):
        run(tmp_path, inputs, **settings)


def test_a_mixture_of_knowledge_that_is_not_there(tmp_path, inputs):
    with pytest.raises(RecipeError, match=r"ink\.mixture"):
        run(tmp_path, inputs, text=True, ink={"mixture": {"txt": 1.0}})


def test_an_embedder_needs_something_to_search(tmp_path, inputs):
    with pytest.raises(RecipeError, match="without anything to search"):
        run(tmp_path, {**inputs, "embedder": inputs["model"]})
