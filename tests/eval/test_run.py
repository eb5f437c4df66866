"""Replies and verdicts; a journal that loses at most a batch and doubles nothing."""

import json
import os
import signal

import pytest

from endonym.core.errors import DataError
from endonym.engine.backends import Own
from endonym.engine.generate import generate
from endonym.engine.sampler import Sampling
from endonym.eval import run
from endonym.eval.run import answers
from endonym.tasks.base import Item
from eval.tiny import context, model, tokenizer

DRAWN = Sampling(temperature=1.0, max_tokens=6, seed=5)


def own(batch=32):
    return Own(model(), "w", batch=batch)


def items(count=12):
    """Every other question is the same one, so that equal prompts fall into several batches."""
    asked = ["น้ำ", "the water", "มาก", "population", "ที่"]
    return [
        Item(
            f"i{n}",
            "answer",
            "t",
            language=("th", "", "en")[n % 3],
            messages=[{"role": "user", "content": "น้ำ" if n % 2 else asked[n % 5] * (n + 1)}],
            answer="น้ำ",
        )
        for n in range(count)
    ]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(run, "BATCH", 5)


def test_replies_are_what_the_engine_gives_in_the_items_order(tmp_path):
    found = answers(own(), tokenizer(), items(), DRAWN, context(tmp_path))
    prompts = [tokenizer().encode_prompt(item.messages) for item in items()]
    wanted = generate(model(), prompts, DRAWN, tokenizer().stop_ids)
    assert [reply.item for reply in found] == [item.id for item in items()]
    assert [reply.tokens for reply in found] == [len(each.tokens) for each in wanted]
    texts = [tokenizer().decode(each.tokens).strip() for each in wanted]
    assert [reply.text for reply in found] == texts
    assert [reply.in_language is None for reply in found] == [n % 3 == 1 for n in range(12)]
    # Equal questions are different draws, as they are when asked in one call of the engine
    alike = [prompt for prompt in prompts if prompt == prompts[1]]
    assert len(alike) == 7 and len({r.text for r, p in zip(found, prompts) if p in alike}) == 7


def test_a_right_reply_is_scored_and_a_foreign_one_noticed():
    item = items(1)[0]
    right = run.judge(item, "น้ำ", 3, "stop")
    assert (right.score, right.in_language, right.finish) == (1.0, True, "stop")
    wrong = run.judge(item, "water", 3, "length")
    assert (wrong.score, wrong.in_language) == (0.0, False)


def test_a_prompt_that_does_not_fit_is_said_and_scores_nothing(tmp_path):
    long = Item(
        "long", "answer", "t", messages=[{"role": "user", "content": "q" * 300}], answer="q"
    )
    found = answers(own(), tokenizer(), [*items(2), long], DRAWN, context(tmp_path))
    assert found[2].finish == run.TOO_LONG and found[2].score == 0 and found[2].tokens == 0
    assert found[0].finish != run.TOO_LONG


def test_ids_must_differ(tmp_path):
    with pytest.raises(DataError, match="share an id"):
        answers(own(), tokenizer(), items(1) * 2, DRAWN, context(tmp_path))


def test_a_second_call_asks_nothing(tmp_path):
    first = answers(own(), tokenizer(), items(), DRAWN, context(tmp_path))
    assert answers(None, tokenizer(), items(), DRAWN, context(tmp_path)) == first


def test_a_journal_of_another_question_is_not_used(tmp_path):
    answers(own(), tokenizer(), items(), DRAWN, context(tmp_path))
    other = DRAWN.model_copy(update={"seed": 6})
    changed = answers(own(), tokenizer(), items(), other, context(tmp_path))
    fresh = answers(own(), tokenizer(), items(), other, context(tmp_path / "fresh"))
    assert changed == fresh


def test_the_split_into_rows_changes_no_reply(tmp_path):
    few = answers(own(2), tokenizer(), items(), DRAWN, context(tmp_path / "a"))
    many = answers(own(), tokenizer(), items(), DRAWN, context(tmp_path / "b"))
    assert few == many


def test_cut_anywhere_the_journal_goes_on_to_the_same_bytes(tmp_path):
    whole = tmp_path / "whole"
    wanted = answers(own(), tokenizer(), items(), DRAWN, context(whole))
    data = (whole / "answers.jsonl").read_bytes()
    assert data.count(b'"done"') == 3
    for share in range(0, 21):
        folder = tmp_path / str(share)
        folder.mkdir()
        (folder / "answers.jsonl").write_bytes(data[: len(data) * share // 20])
        assert answers(own(), tokenizer(), items(), DRAWN, context(folder)) == wanted
        assert (folder / "answers.jsonl").read_bytes() == data


def test_a_journal_that_lost_a_line_is_asked_again_from_there(tmp_path):
    wanted = answers(own(), tokenizer(), items(), DRAWN, context(tmp_path))
    data = (tmp_path / "answers.jsonl").read_bytes()
    lines = data.splitlines(keepends=True)
    (tmp_path / "answers.jsonl").write_bytes(b"".join([*lines[:2], *lines[3:]]))
    assert answers(own(), tokenizer(), items(), DRAWN, context(tmp_path)) == wanted
    assert (tmp_path / "answers.jsonl").read_bytes() == data


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a child to kill")
def test_kill_9_loses_one_batch_at_most_and_doubles_none(tmp_path):
    """The child dies in the middle of its second journal write."""
    whole = answers(own(), tokenizer(), items(), DRAWN, context(tmp_path / "whole"))
    child = os.fork()
    if child == 0:
        original, count = run.Journal._write, iter(range(9))

        def write(journal, data):
            if next(count) == 2:  # the head, the first batch, then this
                os.write(journal._file.fileno(), data[: len(data) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            original(journal, data)

        run.Journal._write = write
        try:
            answers(own(), tokenizer(), items(), DRAWN, context(tmp_path / "cut"))
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
    asked = []

    class Counted(Own):
        def generate(self, prompts, *rest, **more):
            asked.extend(prompts)
            return super().generate(prompts, *rest, **more)

    counted = Counted(model(), "w")
    assert answers(counted, tokenizer(), items(), DRAWN, context(tmp_path / "cut")) == whole
    assert len(asked) == 12 - 5
    lines = (tmp_path / "cut" / "answers.jsonl").read_text().splitlines()
    ids = [json.loads(line)["item"] for line in lines if '"item"' in line]
    assert sorted(ids) == sorted(item.id for item in items())
