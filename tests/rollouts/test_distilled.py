"""The live loader: who answers, what is drawn and kept, and how it lies in rows."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from endonym.core.errors import DataError, RecipeError
from endonym.data.document import Conversation, Prompt
from endonym.engine import backends
from endonym.engine.sampler import Sampling
from endonym.methods.nll import token_logprobs
from endonym.rollouts.asked import Asked
from endonym.rollouts.distilled import Distilled
from endonym.rollouts.pieces import PackedPieces, answered, least_padding
from endonym.rollouts.turns import DATA, STUDENT, TEACHER
from endonym.train.loop import TrainConfig
from endonym.train.parallel import Ranks
from endonym.train.trainee import Trainee
from eval.tiny import ENGLISH, THAI, context, model, tokenizer

SAMPLING = Sampling(max_tokens=10, seed=3)


class Nobody:
    """A guide that adds nothing and answers nothing."""

    def ready(self, trainee):
        pass

    def answers(self, turns, sampling, limits):
        return [([5, 6, 7][: limits[0]], "stop") for _ in turns]

    def fill(self, rows, taken, places):
        return rows


def talks(count):
    return [
        Conversation(
            f"c{n}",
            [
                {"role": "user", "content": f"{ENGLISH[: 10 + n % 9]} {n}"},
                {"role": "assistant", "content": f"yes {n}"},
            ],
            "en",
            "talks",
        )
        for n in range(count)
    ]


def prompts(count):
    return [
        Prompt(f"p{n}", [{"role": "user", "content": f"{THAI[:9]} {n}"}], "th", "prompts")
        for n in range(count)
    ]


@pytest.fixture
def sources(tmp_path):
    return [
        Asked.build(tmp_path / "talks", talks(20), tokenizer(), key="talks"),
        Asked.build(tmp_path / "prompts", prompts(10), tokenizer(), key="prompts"),
    ]


def loader(sources, folder, weights=None, trainee=True, **changes):
    settings = {
        "rows_per_step": 6, "row_length": 64, "lmbda": 0.5, "by": DATA, "sampling": SAMPLING,
        "stop_ids": tokenizer().stop_ids, "folder": folder / "rollouts",
    }  # fmt: skip
    made = Distilled(sources, Nobody(), weights, **settings | changes)
    if trainee:
        config = TrainConfig(steps=1, learning_rate=1e-3, precision="float32")
        one = Trainee(model(), None, config, context(folder), Ranks(), [made.sample()])
        made.ready(one)
    return made


def test_a_coin_is_a_function_of_seed_and_row_number(sources, tmp_path):
    one = loader(sources[:1], tmp_path, trainee=False, lmbda=0.3, rows_per_step=5)
    again = loader(sources[:1], tmp_path, trainee=False, lmbda=0.3, rows_per_step=10)
    other = loader(
        sources[:1], tmp_path, trainee=False, lmbda=0.3, rows_per_step=5,
        sampling=SAMPLING.model_copy(update={"seed": 4}),
    )  # fmt: skip
    by = [turn.by for step in range(400) for turn in one.turns.at(step)]
    assert by == [turn.by for step in range(200) for turn in again.turns.at(step)]
    assert by != [turn.by for step in range(400) for turn in other.turns.at(step)]
    # 2,000 coins: three standard deviations are 0.031
    assert by.count(STUDENT) / len(by) == pytest.approx(0.3, abs=0.031)
    # and a larger share keeps every row that a smaller one had
    more = loader(sources[:1], tmp_path, trainee=False, lmbda=0.6, rows_per_step=5)
    wider = [turn.by for step in range(400) for turn in more.turns.at(step)]
    assert all(b == STUDENT for a, b in zip(by, wider) if a == STUDENT)


def test_0_and_1_are_exact_and_what_nobody_answers_is_the_students(sources, tmp_path):
    def who(lmbda, **changes):
        made = loader(sources, tmp_path, trainee=False, lmbda=lmbda, **changes)
        return {(t.source, t.by) for step in range(60) for t in made.turns.at(step)}

    assert who(0.0) == {(0, DATA), (1, STUDENT)}
    assert who(1.0) == {(0, STUDENT), (1, STUDENT)}
    assert who(0.0, by=TEACHER) == {(0, TEACHER), (1, TEACHER)}


def test_rows_hold_what_was_drawn_or_given(sources, tmp_path):
    made = loader(sources, tmp_path, with_given=True, parts=2)
    taken, rows = made.taken(0), made.rows(0)
    assert {each.turn.by for each in taken} == {DATA, STUDENT}
    seen = {}
    for line in range(len(rows)):
        for segment in rows.segments[line].unique().tolist():
            if not segment:
                continue
            at = (rows.segments[line] == segment).nonzero().squeeze(1)
            ids = [*rows.tokens[line, at].tolist(), int(rows.labels[line, at[-1]])]
            seen[tuple(ids)] = (line, at)
            assert rows.positions[line, at].tolist() == list(range(len(at)))
            assert (rows.labels[line, at[:-1]] == rows.tokens[line, at[1:]]).all()
    total = 0.0
    for each in taken:
        line, at = seen[(*each.prompt.tolist(), *each.answer.tolist())]
        learnt = rows.weights[line, at] > 0
        # input-aligned: the answer's first token is predicted at the prompt's last, and its stop token too
        assert learnt.tolist() == [n >= len(each.prompt) - 1 for n in range(len(at))]
        assert rows.labels[line, at][learnt].tolist() == each.answer.tolist()
        weights, given = rows.weights[line, at], rows.extra["given"][line, at]
        assert float(weights.sum()) == pytest.approx(1.0)
        assert torch.equal(given, weights if each.turn.by == DATA else weights * 0)
        if each.turn.by == DATA:
            source = sources[each.turn.source]
            assert each.answer.tolist() == source.answer(each.turn.row).tolist()
            assert each.answer[-1] in tokenizer().stop_ids
        total += len(each.answer)
    by_token = loader(sources, tmp_path, aggregate="tokens").rows(0)
    assert float(by_token.weights.sum()) == total


def test_parts_are_the_step(sources, tmp_path):
    made = loader(sources, tmp_path, parts=2)
    halves = [made.rows(1, (r, 2)) for r in range(2)]
    whole = made.rows(1)
    tokens = torch.cat([half.tokens for half in halves])
    assert torch.equal(tokens[: len(whole)], whole.tokens)
    assert float(sum(half.weights.sum() for half in halves)) == pytest.approx(6.0)
    assert len(halves[0]) == len(halves[1])
    with pytest.raises(RecipeError, match="shared out"):
        loader(sources, tmp_path, trainee=False, parts=4)


def test_the_samplers_logprobs_are_the_trainers(sources, tmp_path, monkeypatch):
    """METHODS 3.4: at most 1e-4 apart, for the very tokens that are learnt."""
    kept, truly = [], backends.generate

    def seen(*given, **named):
        kept.extend(found := truly(*given, **named))
        return found

    monkeypatch.setattr(backends, "generate", seen)
    made = loader(sources, tmp_path, lmbda=1.0)
    rows, taken = made.rows(0), made.taken(0)
    net = made.trainee.model
    with torch.no_grad():
        hidden = net(rows.tokens, positions=rows.positions, segments=rows.segments)
    ours = token_logprobs(hidden, net.head, rows.labels)
    by_ids = {tuple(each.tokens): each.raw_logprobs for each in kept}
    pieces = [answered(each.prompt, each.answer, 1.0) for each in taken]
    places = PackedPieces(pieces, 64, fit=least_padding).places
    for each, place in zip(taken, places):
        drawn = torch.tensor(by_ids[tuple(each.answer.tolist())])
        there = place.last(len(each.answer)).slice
        assert rows.labels[there].tolist() == each.answer.tolist()
        assert (ours[there] - drawn).abs().max() < 1e-4


def test_an_answer_keeps_to_its_room(sources, tmp_path):
    length = int(max(one.prompt_lengths.max() for one in sources))
    made = loader(sources, tmp_path, lmbda=1.0, row_length=length + 2)
    for step in range(5):
        for each in made.taken(step):
            room = min(10, length + 2 - len(each.prompt))
            assert 1 <= len(each.answer) <= room
            assert (each.finish == "stop") == (each.answer[-1] in tokenizer().stop_ids)
    found = made.measured(5)
    assert found["rows"] == found["on_policy"] == 30 and found["truncated"] > 0
    assert found["sources"]["talks"]["rows"] + found["sources"]["prompts"]["rows"] == 30
    assert found["languages"]["th"] == found["origins"]["prompts"] == found["sources"]["prompts"]


def made_without(sources, tmp_path, row_length):
    return loader(sources, tmp_path, trainee=False, row_length=row_length, lmbda=0.0).report(0)


def test_what_has_no_room_is_left_out_and_counted(sources, tmp_path):
    talks, prompts = sources
    both = talks.prompt_lengths + talks.answer_lengths
    short = int(np.median(both))
    dropped = {row["source"]: row["dropped"] for row in made_without(sources, tmp_path, short)}
    assert dropped == {
        "talks": int((both > short).sum()), "prompts": int((prompts.prompt_lengths >= short).sum())
    }  # fmt: skip
    assert 0 < dropped["talks"] < 20
    # an answer of the data takes no room where it is not asked for, and none is ever cut off
    made = loader(sources, tmp_path, trainee=False, row_length=short, lmbda=1.0)
    assert made.too_long == int((talks.prompt_lengths >= short).sum()) + dropped["prompts"]
    made = loader(sources[:1], tmp_path, row_length=short, lmbda=0.0)
    for each in made.taken(0):
        assert (
            each.answer.tolist() == talks.answer(each.turn.row).tolist() and each.finish == "stop"
        )
    # nor where the teacher has less room than a row
    rooms = [np.full(20, int(talks.answer_lengths.min())), np.full(10, 3)]
    made = loader(sources, tmp_path, row_length=64, lmbda=0.5, rooms=rooms)
    assert made.turns.num_rows == [int((talks.answer_lengths <= rooms[0]).sum()), 10]
    assert all(len(each.answer) <= 3 for each in made.taken(0) if each.turn.source == 1)
    with pytest.raises(DataError, match="nothing to ask"):
        loader(sources, tmp_path, row_length=3, trainee=False)


def test_an_answer_ends_before_what_the_teacher_cannot_name(sources, tmp_path):
    known = np.ones(tokenizer().vocab_size, bool)
    free = loader(sources, tmp_path, lmbda=1.0).taken(0)
    token = int(free[0].answer[1])
    known[token] = False
    made = loader(sources, tmp_path, lmbda=1.0, known=known)
    for before, after in zip(free, made.taken(0), strict=True):
        places = np.flatnonzero(before.answer == token)
        kept = before.answer[: places[0]] if len(places) else before.answer
        assert after.answer.tolist() == kept.tolist()
        assert after.finish == ("unnamed" if len(places) else before.finish)
    assert made.measured(1)["truncated"] >= 1
    known[:] = False
    empty = loader(sources, tmp_path, lmbda=1.0, known=known, with_given=True).rows(0)
    assert float(empty.weights.sum()) == 0 and empty.num_tokens == 0
    assert empty.extra["given"].shape == empty.tokens.shape


def test_what_was_drawn_is_read_again(sources, tmp_path, monkeypatch):
    made = loader(sources, tmp_path)
    rows = made.rows(2)
    assert [file.name for file in (tmp_path / "rollouts").iterdir()] == ["000002.parquet"]
    monkeypatch.setattr(backends, "generate", None)
    again = loader(sources, tmp_path)
    for name in ("tokens", "labels", "weights", "segments"):
        assert torch.equal(getattr(again.rows(2), name), getattr(rows, name))
    with pytest.raises(TypeError):  # another step is drawn
        again.rows(3)


def test_identity_tells_runs_apart(sources, tmp_path):
    plain = loader(sources, tmp_path, trainee=False)
    assert plain.identity == loader(sources, tmp_path, trainee=False).identity
    for change in (
        {"lmbda": 0.4}, {"row_length": 63}, {"by": TEACHER}, {"aggregate": "tokens"},
        {"sampling": SAMPLING.model_copy(update={"top_p": 0.9})}, {"identity": "another teacher"},
        {"weights": [1.0, 2.0]},
    ):  # fmt: skip
        assert loader(sources, tmp_path, trainee=False, **change).identity != plain.identity
    more = Asked.build(tmp_path / "more", prompts(11), tokenizer(), key="more")
    other = loader([sources[0], more], tmp_path, trainee=False)
    assert other.identity != plain.identity


def test_the_sample_is_at_least_as_large_as_any_step(sources, tmp_path):
    made = loader(sources, tmp_path)
    largest = made.sample().tokens.shape
    for step in range(4):
        shape = made.rows(step).tokens.shape
        assert shape[0] <= largest[0] and shape[0] * shape[1] <= largest[0] * max(largest[1], 64)
    assert made.state(0).keys() == {"epoch/talks", "epoch/prompts", "on_policy"}
    assert len(made.names(0)) == 6 and made.names(0)[0].split(":")[0] in ("talks", "prompts")


def test_ranks_share_the_drawing(sources, tmp_path, monkeypatch):
    """Each of two ranks draws every second answer; gathered, they are those of one rank."""
    alone = loader(sources, tmp_path, lmbda=1.0)
    wanted = {t.turn.slot: t.answer.tolist() for t in alone.taken(0)}
    found = {}
    for rank in range(2):
        made = loader(sources, tmp_path / str(rank), lmbda=1.0)
        made.trainee.ranks = SimpleNamespace(
            rank=rank, size=2, main=False, gather=lambda value: [value]
        )
        turns = made.turns.at(0)
        found |= made._drawn(0, turns)
        assert not made._file(0).exists()  # the main rank's affair
    assert {slot: list(ids) for slot, (ids, _) in found.items()} == wanted
