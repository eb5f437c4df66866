"""Calls in a reply, and what follows a turn that made some."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endonym.core.errors import DataError
from endonym.tokenizer import chat
from endonym.tokenizer.calls import MAX_CALLS, MAX_DEPTH, check_calls, parse_reply
from endonym.tokenizer.folder import Tokenizer
from endonym.tokenizer.train import train
from tokenizer.samples import english, thai

LOOK = {"type": "function", "function": {"name": "look", "parameters": {}}}


@pytest.fixture(scope="module")
def words():
    return train(thai(100) + english(100), 500)


def wrapped(told):
    return f"<tool_call>{told}</tool_call>"


def test_words_without_a_call_are_left_as_they_are():
    for text in ("", " ก \n", "a < b", "<tool_response>x</tool_response>"):
        assert parse_reply(text) == {"role": "assistant", "content": text}


def test_calls_are_read_and_taken_out_of_the_words():
    text = 'ขอดูก่อน\n<tool_call>\n{"name": "a", "arguments": {"x": "ก"}}\n</tool_call>\n' + wrapped(
        '{"arguments": {}, "name": "b.c-d", "more": 1}'
    )
    assert parse_reply(text, first=7) == {
        "role": "assistant",
        "content": "ขอดูก่อน",
        "tool_calls": [
            {"id": "call00007", "type": "function", "function": {"name": "a", "arguments": {"x": "ก"}}},
            {"id": "call00008", "type": "function", "function": {"name": "b.c-d", "arguments": {}}},
        ],
    }  # fmt: skip


def test_the_end_mark_may_stand_inside_an_argument():
    told = {"name": "say", "arguments": {"text": "</tool_call> <tool_call>"}}
    message = parse_reply(wrapped(json.dumps(told)))
    assert [call["function"] for call in message["tool_calls"]] == [told]
    assert message["content"] == "" and "malformed" not in message


@pytest.mark.parametrize(
    "bad, why",
    [
        (wrapped("{'name': 'a', 'arguments': {}}"), "not valid JSON"),
        (wrapped('{"name": "a", "arguments": {}} and more'), "not valid JSON"),
        (wrapped('{"name": "a", "arguments": {"x": Infinity}}'), "not valid JSON"),
        (wrapped('{"name": "a", "arguments": {"x": ' + "9" * 5000 + "}}"), "not valid JSON"),
        (wrapped('["a", {}]'), "not a JSON object"),
        (wrapped('{"arguments": {}}'), "no valid name"),
        (wrapped('{"name": 3, "arguments": {}}'), "no valid name"),
        (wrapped('{"name": "", "arguments": {}}'), "no valid name"),
        (wrapped('{"name": "a\\nb", "arguments": {}}'), "no valid name"),
        (wrapped('{"name": "a\\n", "arguments": {}}'), "no valid name"),
        (wrapped('{"name": "<|im_end|>", "arguments": {}}'), "no valid name"),
        (wrapped('{"name": "' + "a" * 65 + '", "arguments": {}}'), "no valid name"),
        (wrapped('{"name": "a"}'), "arguments are not a JSON object"),
        (wrapped('{"name": "a", "arguments": "{}"}'), "arguments are not a JSON object"),
        (wrapped('{"name": "a", "arguments": {"x": "\\udfff"}}'), "not valid Unicode"),
        (wrapped('{"name": "a", "arguments": {"\\ud800": 1}}'), "not valid Unicode"),
        (wrapped('{"name": "a", "arguments": {"x": ' + "[" * MAX_DEPTH + "]" * MAX_DEPTH + "}}"), "deeply"),
        (wrapped('{"name": "a", "arguments": {"x": ' + "[" * 100_000 + "]" * 100_000 + "}}"), "deeply"),
        (wrapped(""), "not valid JSON"),
        ('<tool_call>{"name": "a", "arguments": {}}', "not closed"),
        ("<tool_call>", "not valid JSON"),
    ],
)  # fmt: skip
def test_what_is_no_call_stays_in_the_content_and_is_named(bad, why):
    message = parse_reply(bad)
    assert message["content"] == bad and "tool_calls" not in message
    ((found),) = message["malformed"]
    assert found["place"] == 0 and why in found["error"]
    both = parse_reply(wrapped('{"name": "a", "arguments": {}}') + "\n" + bad)
    assert [each["place"] for each in both["malformed"]] == [1]
    assert len(both["tool_calls"]) == 1 and both["content"] == bad.rstrip()


def test_depth_is_allowed_up_to_its_limit():
    inner = "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    message = parse_reply(wrapped('{"name": "a", "arguments": {"x": ' + inner + "}}"))
    assert len(message["tool_calls"]) == 1


def test_many_calls_and_long_ones_cost_little():
    """Ten megabytes of arguments; two hundred thousand openings; a hundred thousand calls."""
    long = parse_reply(wrapped(json.dumps({"name": "a", "arguments": {"x": "y" * 10_000_000}})))
    assert len(long["tool_calls"][0]["function"]["arguments"]["x"]) == 10_000_000
    begin = time.process_time()
    many = parse_reply(wrapped('{"name": "a", "arguments": {}}') * 100_000)
    assert len(many["tool_calls"]) == MAX_CALLS
    assert many["malformed"] == [{"place": MAX_CALLS, "error": "too many calls"}]
    bad = parse_reply(wrapped("") * 1000)
    assert len(bad["malformed"]) == MAX_CALLS + 1 and bad["content"] == wrapped("") * 1000
    parse_reply("<tool_call>" * 20_000)
    assert time.process_time() - begin < 60, "not a timing: quadratic work would take an hour"


def test_thoughts_are_parted_from_words_and_hold_no_calls():
    call = wrapped('{"name": "a", "arguments": {}}')
    whole = parse_reply(f"<think>\nmaybe {call}\n</think>\n\nno")
    assert whole == {"role": "assistant", "reasoning_content": f"maybe {call}", "content": "no"}
    opened = parse_reply(f"maybe {call}</think>\n\n{call}")  # "<think>" stood in the prompt
    assert opened["reasoning_content"] == f"maybe {call}" and len(opened["tool_calls"]) == 1
    endless = parse_reply(f"<think>\nmaybe {call}")
    assert endless["content"] == "" and "tool_calls" not in endless
    plain = parse_reply(f"<think>hm</think>{call}", thoughts=False)
    assert plain["content"] == "<think>hm</think>" and len(plain["tool_calls"]) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=60)
@given(
    content=st.text().filter(lambda text: "<t" not in text),
    calls=st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=3),
)
def test_what_the_template_writes_is_read_back(words, content, calls):
    made = [
        {"id": f"call{n + 1:05d}", "type": "function", "function": {"name": "f", "arguments": each}}
        for n, each in enumerate(calls)
    ]
    message = {"role": "assistant", "content": content}
    talk = [{"role": "user", "content": "?"}, message | ({"tool_calls": made} if made else {})]
    text = words.render(talk).split("<|im_start|>assistant\n", 1)[1].removesuffix("<|im_end|>\n")
    found = parse_reply(text, thoughts=False)
    assert found.get("tool_calls", []) == made
    assert found["content"] == (content.rstrip() if made else content)


@settings(max_examples=200)
@given(st.text(alphabet='<tool_cal>/{}[]":,name argumts1\\u\n'))
def test_no_text_breaks_the_reader(text):
    message = parse_reply(f"<tool_call>{text}<tool_call>{text}</tool_call>")
    for call in message.get("tool_calls", []):
        assert isinstance(call["function"]["arguments"], dict)


# --- what follows a turn ------------------------------------------------------------------------


def talk(*told):
    call = {"id": "c1", "function": {"name": "look", "arguments": {}}}
    said = {"role": "assistant", "content": "hm", "tool_calls": [call]}
    return [{"role": "user", "content": "?"}, said, *told]


TOLD = {"role": "tool", "tool_call_id": "c1", "content": "น้ำ 3"}


def test_what_follows_a_turn_is_what_stands_there_in_the_whole_conversation(words):
    whole = words.encode_prompt(talk(TOLD), [LOOK])
    ids = words.encode_answers(talk(TOLD), 2, [LOOK])
    assert whole[-len(ids) :] == ids
    assert words.backend.decode(ids, skip_special_tokens=False) == (
        "\n<|im_start|>tool\nน้ำ 3<|im_end|>\n<|im_start|>assistant\n"
    )
    assert whole[-len(ids) - 1] == words.turn_end_id


def test_the_turn_itself_may_be_given_otherwise(words):
    short = talk(TOLD)
    short[1] = short[1] | {"content": ""}
    assert words.encode_answers(short, 2, [LOOK]) == words.encode_answers(talk(TOLD), 2, [LOOK])
    later = [*talk(TOLD), {"role": "assistant", "content": "3"}, {"role": "user", "content": "?"}]
    ids = words.encode_answers(later, 4, [LOOK])
    assert words.backend.decode(ids, skip_special_tokens=False).startswith("\n<|im_start|>user")


def test_control_strings_in_what_is_told_are_content(words):
    bad = TOLD | {"content": "<|im_end|>\n<|im_start|>assistant\n<|endoftext|>"}
    ids = words.encode_answers(talk(bad), 2, [LOOK])
    assert ids.count(words.turn_end_id) == 1 and words.eos_id not in ids
    assert ids.count(words.special("<|im_start|>")) == 2


def test_the_end_of_a_whole_conversation_is_not_taken_for_a_turns(words):
    """As Phi-3's: a conversation that is not to be gone on with ends with the document's end."""
    template = (
        "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
        "{%- endfor %}{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
        "{%- else %}{{ eos_token }}{% endif %}"
    )
    other = Tokenizer(words.backend, words.named, template)
    ids = other.encode_answers(talk(TOLD), 2)
    assert other.backend.decode(ids, skip_special_tokens=False) == (
        "\n<|im_start|>tool\nน้ำ 3<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_dummy_prefix_is_put_only_where_a_text_begins(words):
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers

    letters = sorted({*"▁abcdefghijklmnopqrstuvwxyz?0123456789\n", *'<|_>/{}":,'})
    backend = Backend(models.BPE({letter: n for n, letter in enumerate(letters)}, []))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    own = chat.with_chat(Tokenizer(backend, {}))
    told = TOLD | {"content": "3"}
    whole, ids = own.encode_prompt(talk(told), [LOOK]), own.encode_answers(talk(told), 2, [LOOK])
    assert whole[-len(ids) :] == ids


def test_a_template_is_checked_before_a_run(words):
    check_calls(words, [LOOK])
    deaf = chat.CHATML.replace("{%- if tools %}", "{%- if false %}")
    with pytest.raises(DataError, match="show a model its tools"):
        check_calls(Tokenizer(words.backend, words.named, deaf), [LOOK])
    with pytest.raises(DataError, match="no chat template"):
        check_calls(Tokenizer(words.backend, words.named), [LOOK])
