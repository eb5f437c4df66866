"""Agentic answers: verdicts and figures of episodes, a journal that doubles nothing, pass@k."""

import json
from itertools import combinations

import pytest

from endonym.core.errors import DataError
from endonym.engine.backends import Own
from endonym.engine.generate import content_keys
from endonym.engine.sampler import Sampling
from endonym.eval import agentic
from endonym.eval.agentic import AgenticReply, agentic_answers, figures, pass_at
from endonym.rollouts.agent import episodes
from endonym.tasks.base import Item
from eval.tiny import context, model, tokenizer
from rollouts.worlds import Scripted, Shop, asked, call

DRAWN = Sampling(temperature=1.0, max_tokens=6, seed=5)


def items(count=5):
    return [
        Item(
            f"i{n}", "answer", "t", language="th" if n % 2 else "",
            messages=[{"role": "user", "content": "น้ำ" * (n + 1)}], answer="3 บาท",
        )
        for n in range(count)
    ]  # fmt: skip


class Spoken(Scripted):
    """Stands for the engine: it looks and then answers, in every other item rightly; "น้ำน้ำน้ำ" is
    answered with calls alone, and the fourth item with one that cannot be read."""

    def __init__(self):
        super().__init__(self.answer, context=2500)

    def answer(self, text):
        question = text.split("<|im_start|>user\n")[1].split("<|im_end|>")[0]
        if question == "น้ำ" * 3:
            return call("look")
        if "<|im_start|>tool" not in text:
            return "<tool_call>{}</tool_call>" if question == "น้ำ" * 4 else "ดู " + call("look")
        return "<think>\n3\n</think>\n\n3 บาท" if len(question) % 2 else "4 บาท"


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(agentic, "BATCH", 3)


def answered(tmp_path, count=5, **others):
    said = Sampling(temperature=0, max_tokens=300)
    return agentic_answers(
        Spoken(), tokenizer(), items(count), Shop(), said, context(tmp_path), max_turns=2, **others
    )


def test_replies_are_judged_by_what_was_said_last(small, tmp_path):
    found = answered(tmp_path)
    assert [reply.item for reply in found] == [f"i{n}" for n in range(5)]
    assert [(reply.text, reply.score) for reply in found] == [
        ("3 บาท", 1.0), ("4 บาท", 0.0), ("", 0.0), ("4 บาท", 0.0), ("3 บาท", 1.0)
    ]  # fmt: skip
    assert [reply.finish for reply in found] == ["stop", "stop", "turns", "stop", "stop"]
    assert [(reply.turns, reply.calls, reply.malformed) for reply in found] == [
        (2, 1, 0), (2, 1, 0), (3, 3, 0), (2, 0, 1), (2, 1, 0)
    ]  # fmt: skip
    assert [reply.in_language for reply in found] == [None, True, None, True, None]
    assert all(reply.told > 0 and reply.tokens == len(reply.ids) > 0 for reply in found)
    assert found[0].facts == {"stock": {"rice": 3}, "sold": []}
    told = figures(found)
    assert told["pass_1"] == told["score"] == 0.4
    assert told["turns"] == 11 / 5 and told["calls"] == 6 / 5 and told["called"] == 0.8
    assert told["malformed"] == 1 / 7 and told["cut_off"] == 0.2


def test_an_evaluation_that_was_killed_goes_on(small, tmp_path, monkeypatch):
    whole = answered(tmp_path / "whole", samples=2)
    assert [(r.item, r.sample) for r in whole] == [(f"i{n}", s) for n in range(5) for s in (0, 1)]
    calls = []
    real = episodes

    def dies(*arguments, **others):
        calls.append(len(arguments[3]))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments, **others)

    monkeypatch.setattr(agentic, "episodes", dies)
    with pytest.raises(KeyboardInterrupt):
        answered(tmp_path / "cut", samples=2)
    journal = tmp_path / "cut" / "agentic.jsonl"
    assert len(journal.read_text().splitlines()) == 1 + 2 * 4
    with journal.open("a") as file:
        file.write('{"item": "i0", "torn')
    assert answered(tmp_path / "cut", samples=2) == whole
    assert calls == [3, 3, 3, 3, 1], "two batches were there, the third is asked again"
    answered(tmp_path / "cut", samples=2)
    assert len(calls) == 5, "nothing is asked twice"
    answered(tmp_path / "cut", samples=1)
    assert len(calls) == 7, "other samples are another evaluation"


def test_the_model_itself_is_asked_and_samples_differ(tmp_path):
    """A random model calls nothing; each of its answers is the engine's, under a key of its own."""

    class NoTools(Shop):
        tools = []

    backend = Own(model(size=64), "w")
    found = agentic_answers(
        backend, tokenizer(), items(3), NoTools(), DRAWN, context(tmp_path), samples=2, max_tokens=5
    )
    prompts = [
        tokenizer().encode_prompt(NoTools().reset(asked(item.messages[0]["content"]), 0)[1])
        for item in items(3)
        for _ in (0, 1)
    ]
    wanted = episodes(
        backend, tokenizer(), NoTools(),
        [asked(item.messages[0]["content"]) for item in items(3) for _ in (0, 1)],
        DRAWN, max_tokens=5, keys=content_keys(prompts),
    )  # fmt: skip
    assert [reply.ids for reply in found] == [
        [t for t, m in zip(each.tokens, each.mask) if m] for each in wanted
    ]
    assert len({tuple(reply.ids) for reply in found}) == 6 and max(r.tokens for r in found) == 5


def test_a_prompt_without_room_is_not_asked(small, tmp_path):
    long = Item(
        "long", "answer", "t", messages=[{"role": "user", "content": "x" * 2500}], answer="3"
    )
    said = Sampling(temperature=0, max_tokens=300)
    every = [*items(1), long]
    found = agentic_answers(Spoken(), tokenizer(), every, Shop(), said, context(tmp_path))
    assert [reply.finish for reply in found] == ["stop", "too long"]
    assert found[1].turns == 0 and found[1].score == 0.0


def test_items_must_differ(tmp_path):
    with pytest.raises(DataError, match="share an id"):
        agentic_answers(None, tokenizer(), items(1) * 2, Shop(), DRAWN, context(tmp_path))


@pytest.mark.parametrize("drawn, right", [(1, 0), (1, 1), (5, 0), (5, 2), (5, 4), (6, 3)])
def test_pass_at_k_is_the_chance_that_a_draw_of_k_holds_a_right_one(drawn, right):
    answers = [n < right for n in range(drawn)]
    for k in range(1, drawn + 1):
        draws = list(combinations(answers, k))
        assert pass_at(k, right, drawn) == pytest.approx(sum(map(any, draws)) / len(draws))
    with pytest.raises(DataError, match="k answers"):
        pass_at(drawn + 1, right, drawn)


def test_figures_are_means_over_items_for_pass_and_over_replies_for_the_rest():
    plain = dict(text="", reason="", parsed=None, tokens=1, finish="stop", in_language=None)
    replies = [
        AgenticReply("a", score=score, sample=n, **plain) for n, score in enumerate((1, 0, 0, 0))
    ] + [AgenticReply("b", score=0.5, sample=n, **plain) for n in range(4)]
    told = figures(replies, k=2)
    assert told["pass_1"] == 0.125 and told["pass_2"] == pytest.approx((1 - 3 / 6) / 2)
    assert told["score"] == 3 / 8 and set(figures(replies)) >= {"pass_1", "pass_4"}
    with pytest.raises(DataError, match="no replies"):
        figures([])
    assert json.dumps(told)
