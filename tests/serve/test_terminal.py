"""Text that is shown is whole and never taken back; a conversation over a pipe."""

import io
import random

import pytest

from endonym.core.errors import DataError
from endonym.engine.sampler import Sampling
from endonym.model import hf
from endonym.serve import terminal
from endonym.serve.terminal import Conversation, Spoken, chat, last_character
from eval.tiny import context, model, tokenizer

GREEDY = Sampling(temperature=0, max_tokens=8)
TEXTS = [
    "น้ำท่วมที่กรุงเทพมหานคร",
    "กำลัง ทำ น้ำ",
    "한국어 대한민국",
    "하나",  # written in jamo
    "👩‍👩‍👧 👍🏽 ❤️ é",
    "the water rose\nin the capital",
]


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_shown_is_whole_characters_and_adds_up_to_the_text(text):
    spoken, shown = Spoken(tokenizer()), []
    tokens = tokenizer().encode(text)
    for token in tokens:
        shown.append(spoken.push(token))
    shown.append(spoken.finish())
    assert "".join(shown) == text == spoken.text
    for piece in filter(None, shown):
        assert "\ufffd" not in piece
        assert not terminal._leans(piece[0]), f"{piece!r} begins with a mark"
        assert not piece.endswith("\u200d")


def test_a_mark_waits_for_its_letter_and_a_letter_for_its_marks():
    spoken = Spoken(tokenizer())
    shown = [spoken.push(token) for token in tokenizer().encode("ฬ้า", literal=True)]
    assert "ฬ" not in shown and any(piece == "ฬ้" for piece in [*shown, spoken.finish()[:2]])


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        ("", 0),
        ("a", 0),
        ("ab", 1),
        ("น้", 0),
        ("กน้ำ", 1),
        ("a ", 2),
        ("a\n", 2),
        ("x👍🏽", 1),
        ("ก็", 0),
    ],
)
def test_where_the_last_character_begins(text, begins):
    assert last_character(text) == begins


def test_bytes_that_never_become_a_character_are_shown_at_the_end():
    chance = random.Random(0)
    for _ in range(50):
        tokens = [chance.randrange(3, 259) for _ in range(12)]  # single bytes, mostly broken
        spoken = Spoken(tokenizer())
        shown = "".join(spoken.push(token) for token in tokens) + spoken.finish()
        assert shown == tokenizer().decode(tokens)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("model")
    hf.save(model(), made)
    tokenizer().save(made)
    return made


def talked(folder, lines, sampling=GREEDY, **more):
    out = io.StringIO()
    replies = chat(folder, context(), sampling, source=io.StringIO(lines), out=out, **more)
    return replies, out.getvalue()


def test_every_line_of_a_pipe_is_answered(folder):
    replies, text = talked(folder, "น้ำ\n\nthe water\n")
    assert replies == 2
    talk, out = Conversation(model(), tokenizer(), GREEDY, None), io.StringIO()
    talk.say("น้ำ", out)
    talk.say("the water", out)
    assert text == out.getvalue() and text.endswith("\n")
    roles = [message["role"] for message in talk.messages]
    assert roles == ["user", "assistant", "user", "assistant"]


def test_reset_forgets_and_exit_leaves(folder):
    once = talked(folder, "น้ำ\n")[1]
    assert talked(folder, "the water\n/reset\nน้ำ\n/exit\nnever\n")[1].endswith(once)
    assert talked(folder, "/exit\nน้ำ\n") == (0, "")
    assert talked(folder, "/nothing\n") == (0, "")
    # Unforgotten, the second question is another prompt
    assert talked(folder, "/usr/bin is a path\n")[0] == 1


def test_the_oldest_exchange_goes_when_the_window_is_full():
    talk = Conversation(model(size=64), tokenizer(), GREEDY, "the")
    out = io.StringIO()
    for number in range(9):
        talk.say(f"the water {number}", out)
        assert len(talk.messages) % 2 == 1 and talk.messages[0]["role"] == "system"
        assert talk.messages[-2]["content"] == f"the water {number}"
    assert len(talk.messages) < 9


def test_a_message_longer_than_the_window_is_refused_and_not_kept(folder):
    talk = Conversation(model(), tokenizer(), GREEDY, None)
    talk.say("น้ำ", io.StringIO())
    kept = talk.messages
    with pytest.raises(DataError, match="longer than the model's context"):
        talk.say("q" * 300, io.StringIO())
    assert talk.messages == kept
    assert talked(folder, "q" * 300 + "\nน้ำ\n")[0] == 1


def test_ctrl_c_stops_a_reply_and_keeps_what_was_said(monkeypatch):
    def broken_off(*args):
        yield from tokenizer().encode("the water")
        raise KeyboardInterrupt

    monkeypatch.setattr(terminal, "stream", broken_off)
    talk, out = Conversation(model(), tokenizer(), GREEDY, None), io.StringIO()
    talk.say("น้ำ", out)
    assert out.getvalue() == "the water [stopped]\n"
    assert talk.messages[-1] == {"role": "assistant", "content": "the water"}


def test_thoughts_are_shown_and_then_forgotten(monkeypatch):
    def thinking(*args):
        yield from tokenizer().encode("<think>\nhm\n</think>\n\nthe water")

    monkeypatch.setattr(terminal, "stream", thinking)
    talk, out = Conversation(model(), tokenizer(), GREEDY, None), io.StringIO()
    assert talk.say("น้ำ", out) == "<think>\nhm\n</think>\n\nthe water"
    said = {"role": "assistant", "content": "the water", "reasoning_content": "hm"}
    assert talk.messages[-1] == said
    after = [*talk.messages, {"role": "user", "content": "?"}]
    assert "hm" not in tokenizer().render(after)
