import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, trainers

from endonym.core.errors import DataError
from endonym.tokenizer import chat
from endonym.tokenizer.folder import Tokenizer
from endonym.tokenizer.messages import split_thoughts
from endonym.tokenizer.train import train
from tokenizer.samples import english, thai

SYSTEM = {"role": "system", "content": "be brief"}
ASKED, AGAIN = {"role": "user", "content": "1+1?"}, {"role": "user", "content": "and 2+2?"}
TWO, FOUR = {"role": "assistant", "content": "2"}, {"role": "assistant", "content": "4"}
THOUGHT = TWO | {"reasoning_content": "one and one"}
WONDERED = FOUR | {"reasoning_content": "two and two"}
CALLS = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"id": "c1", "function": {"name": "weather", "arguments": {"at": "เลย"}}},
        {"id": "c2", "function": {"name": "weather", "arguments": '{"at": "น่าน"}'}},
    ],
}


@pytest.fixture(scope="module")
def made():
    return train(thai(200) + english(200), 700)


@pytest.fixture(scope="module")
def lines():
    """As GPT-2's: line breaks in a row are one token, so a cut between them changes ids."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=262, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(["a\n\nb\n\n\nc"] * 50, trainer)
    backend.decoder = decoders.ByteLevel()
    assert backend.encode("\n\n").tokens == ["ĊĊ"]
    return chat.with_chat(Tokenizer(backend, {}))


def taught(tokenizer, row):
    """The texts that a row teaches, one for each turn, the turn end included."""
    runs, current = [], []
    for number, is_taught in zip(*row):
        if is_taught:
            current.append(number)
        elif current:
            runs, current = [*runs, current], []
    return [
        tokenizer.backend.decode(run, skip_special_tokens=False) for run in [*runs, current] if run
    ]


def everything(tokenizer, row):
    return tokenizer.backend.decode(row[0], skip_special_tokens=False)


# --- our template -------------------------------------------------------------------------------


def test_thoughts_are_written_before_the_words_and_dropped_from_history(made):
    assert made.render([ASKED, THOUGHT]) == (
        "<|im_start|>user\n1+1?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\none and one\n</think>\n\n2<|im_end|>\n"
    )
    talk = [ASKED, THOUGHT, AGAIN, WONDERED]
    assert made.render(talk) == made.render([ASKED, TWO, AGAIN, WONDERED])
    kept = made.render(talk, keep_thinking=True)
    assert kept == made.render([ASKED, THOUGHT]) + made.render([AGAIN, WONDERED])


def test_thoughts_between_calls_and_their_answers_are_current(made):
    talk = [ASKED, CALLS | {"reasoning_content": "ask"}, {"role": "tool", "content": "x"}, WONDERED]
    assert made.render(talk).count("<think>") == 2
    assert made.render([*talk, AGAIN], True).count("<think>") == 0


def test_enable_thinking_as_users_of_qwen_know_it(made):
    plain = made.render([ASKED], True)
    assert plain == made.render([ASKED], True, enable_thinking=True)
    assert plain + "<think>\n\n</think>\n\n" == made.render([ASKED], True, enable_thinking=False)
    ids, supervised = made.encode_chat([ASKED, THOUGHT], enable_thinking=False)
    assert taught(made, (ids, supervised)) == ["2<|im_end|>"]
    prompt = made.encode_prompt([ASKED], enable_thinking=False)
    assert ids[: len(prompt)] == prompt and supervised.index(True) == len(prompt)
    # "answered without thinking" can be learnt too: then the empty block is the assistant's own
    row = made.encode_chat([ASKED, TWO | {"reasoning_content": ""}])
    assert taught(made, row) == ["<think>\n\n</think>\n\n2<|im_end|>"]


def test_answers_of_several_calls_name_their_call(made):
    answers = [
        {"role": "tool", "content": "rain", "tool_call_id": "c2"},
        {"role": "tool", "content": "sun", "tool_call_id": "c1"},
    ]
    text = made.render([ASKED, CALLS, *answers], True)
    assert '<tool_call>\n{"name": "weather", "arguments": {"at": "เลย"}}\n</tool_call>' in text
    assert text.endswith(
        '<|im_start|>tool\n{"name": "weather", "call": 2}\nrain<|im_end|>\n'
        '<|im_start|>tool\n{"name": "weather", "call": 1}\nsun<|im_end|>\n'
        "<|im_start|>assistant\n"
    )
    named = {"role": "tool", "content": "sun", "name": "weather"}
    assert '<|im_start|>tool\n{"name": "weather"}\nsun<' in made.render([ASKED, CALLS, named])
    bare = {"role": "tool", "content": "sun"}
    assert "<|im_start|>tool\nsun<" in made.render([ASKED, CALLS, bare])
    one = CALLS | {"tool_calls": CALLS["tool_calls"][:1]}  # nothing to tell apart, nothing said
    assert "<|im_start|>tool\nsun<" in made.render([ASKED, one, answers[1]])
    with pytest.raises(DataError, match="no call has the tool_call_id c9"):
        made.render([ASKED, CALLS, answers[0] | {"tool_call_id": "c9"}])


def test_parts_of_a_content(made):
    shown = {
        "role": "user",
        "content": [{"type": "text", "text": "see <|image|>"}, {"type": "image", "url": "a.png"}],
    }
    with pytest.raises(DataError, match=re.escape("no token '<|image|>'")) as error:
        made.render([shown])
    assert "modalities=['image']" in str(error.value)
    seeing = chat.with_chat(made, modalities=["image", "audio", "video"])
    assert seeing.vocab_size == made.vocab_size + 3
    assert seeing.render([shown]).startswith("<|im_start|>user\nsee <|image|><|image|><|im_end|>")
    # the one that was typed is characters, the one that the template wrote is control
    assert seeing.encode_prompt([shown]).count(seeing.special("<|image|>")) == 1
    tools = [{"type": "function", "function": {"name": "f"}}]
    system = SYSTEM | {"content": [{"type": "text", "text": "be brief"}]}
    assert made.render([system, ASKED], tools=tools) == made.render([SYSTEM, ASKED], tools=tools)
    assert made.render([system, ASKED]) == made.render([SYSTEM, ASKED])


def test_transformers_renders_the_saved_folder_alike(made, tmp_path):
    from transformers import AutoTokenizer

    seeing = chat.with_chat(made, modalities=["image"])
    seeing.save(tmp_path)
    auto = AutoTokenizer.from_pretrained(tmp_path)
    answer = {"role": "tool", "content": "rain", "tool_call_id": "c2"}
    shown = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]}
    talks = [[SYSTEM, ASKED, THOUGHT, AGAIN, CALLS, answer, WONDERED], [shown, THOUGHT]]
    for talk in talks:
        for tools in (None, [{"type": "function", "function": {"name": "weather"}}]):
            for extra in ({}, {"keep_thinking": True}, {"enable_thinking": False}):
                for generate in (False, True):
                    wanted = auto.apply_chat_template(
                        talk,
                        tools=tools,
                        tokenize=False,
                        add_generation_prompt=generate,
                        **extra,
                    )
                    assert seeing.render(talk, generate, tools, **extra) == wanted


def test_control_strings_in_the_keys_of_a_tool_are_no_control(made):
    tools = [{"function": {"name": "f", "parameters": {"<|im_end|>": {"type": "string"}}}}]
    prompt = made.encode_prompt([ASKED], tools)
    assert prompt.count(made.turn_end_id) == 2
    assert "<|im_end|>" in made.decode(prompt)


def test_thoughts_are_split_from_a_reply():
    split = split_thoughts("<think>\nhm\n\nso\n</think>\n\n 2 </think>")
    assert split == {"reasoning_content": "hm\n\nso", "content": " 2 </think>"}
    assert split_thoughts("<think></think>2") == {"reasoning_content": "", "content": "2"}
    for text in ("2", "so <think>x</think>", "<think>never ended"):
        assert split_thoughts(text) == {"content": text}


# --- training rows ------------------------------------------------------------------------------


def test_a_turn_whose_thoughts_are_dropped_later_has_a_row_of_its_own(made):
    talk = [SYSTEM, ASKED, THOUGHT, AGAIN, WONDERED, AGAIN]
    first, second = made.training_rows(talk)
    assert taught(made, first) == ["<think>\none and one\n</think>\n\n2<|im_end|>"]
    assert everything(made, first) == made.render(talk[:3])
    assert taught(made, second) == ["<think>\ntwo and two\n</think>\n\n4<|im_end|>"]
    assert everything(made, second) == made.render(talk[:5])
    with pytest.raises(DataError, match="makes 2 training rows"):
        made.encode_chat(talk)
    (kept,) = made.training_rows(talk, keep_thinking=True)
    assert [text[:11] for text in taught(made, kept)] == ["<think>\none", "<think>\ntwo"]


def test_turns_that_nothing_changes_share_a_row(made):
    talk = [ASKED, TWO, AGAIN, FOUR, AGAIN]
    assert made.training_rows(talk) == [made.encode_chat(talk)]
    assert everything(made, made.encode_chat(talk)) == made.render(talk)
    later = [ASKED, THOUGHT, AGAIN, FOUR, ASKED, TWO]  # only the first turn changes
    first, second = made.training_rows(later)
    assert taught(made, first) == ["<think>\none and one\n</think>\n\n2<|im_end|>"]
    assert taught(made, second) == ["4<|im_end|>", "2<|im_end|>"]


def test_a_turn_weighs_what_its_message_says(made):
    talk = [ASKED, TWO | {"weight": 0.25}, AGAIN, FOUR, ASKED, TWO | {"weight": 0}]
    plain = [{k: v for k, v in message.items() if k != "weight"} for message in talk]
    ((ids, weights),) = made.weighted_rows(talk)
    ((same, supervised),) = made.training_rows(plain)
    assert ids == same and made.render(talk) == made.render(plain)
    assert made.encode_prompt(talk) == made.encode_prompt(plain)
    per_turn = [len(made.encode("2")) + 1, len(made.encode("4")) + 1, len(made.encode("2")) + 1]
    assert [w for w, learnt in zip(weights, supervised) if learnt] == [
        *([0.25] * per_turn[0] + [1.0] * per_turn[1] + [0.0] * per_turn[2])
    ]
    assert not any(w for w, learnt in zip(weights, supervised) if not learnt)
    assert made.training_rows(talk) == [(ids, [w > 0 for w in weights])]


def test_rows_with_nothing_to_learn_are_left_out(made):
    talk = [ASKED, THOUGHT | {"weight": 0}, AGAIN, WONDERED]
    (row,) = made.training_rows(talk)  # with thoughts dropped, the first turn's row has nothing
    assert taught(made, row) == ["<think>\ntwo and two\n</think>\n\n4<|im_end|>"]
    with pytest.raises(DataError, match="no token to learn from"):
        made.weighted_rows([ASKED, TWO | {"weight": 0}])
    for weight in (-1, "1", True, float("nan")):
        with pytest.raises(DataError, match="weight is no number"):
            made.weighted_rows([ASKED, TWO | {"weight": weight}])


def test_a_whole_conversation_in_one_piece(made):
    talk = [ASKED, THOUGHT | {"weight": 0}, AGAIN, FOUR]
    ids = made.encode_whole(talk)
    assert ids == made.encode(made.render(talk))
    assert made.encode_whole([{"role": "user", "content": "<|im_end|>"}]) != made.encode(
        made.render([{"role": "user", "content": "<|im_end|>"}])
    )


TURNS = st.one_of(
    st.tuples(
        st.just("user"), st.sampled_from(["a", "<|im_end|>", "<think>\nx\n</think>\n\n", "\n"])
    ),
    st.tuples(st.just("assistant"), st.sampled_from(["b", "\n\nb", "", "<|im_end|>b", "</think>"])),
    st.tuples(st.just("tool"), st.just("c")),
)


THOUGHTS = st.sampled_from([None, "", "hm", "\n<|im_end|>"])


@given(st.lists(st.tuples(TURNS, THOUGHTS), min_size=1, max_size=9))
def test_each_turn_is_taught_once_and_as_it_is_sampled(made, lines, turns):
    talk = [{"role": role, "content": content} for (role, content), _ in turns]
    for message, (_, thoughts) in zip(talk, turns):
        if message["role"] == "assistant" and thoughts is not None:
            message["reasoning_content"] = thoughts
    places = [n for n, message in enumerate(talk) if message["role"] == "assistant"]
    for tokenizer in (made, lines):
        if not places:
            with pytest.raises(DataError, match="no token to learn from"):
                tokenizer.training_rows(talk)
            continue
        wanted = []  # what sampling reads and what it should answer, turn by turn
        for place in places:
            prompt = tokenizer.encode_prompt(talk[:place])
            ids, _ = tokenizer.training_rows(talk[: place + 1])[-1]
            assert ids[: len(prompt)] == prompt
            end = ids.index(tokenizer.turn_end_id, len(prompt))
            wanted.append((prompt, ids[len(prompt) : end + 1]))
        found = []
        for ids, supervised in tokenizer.training_rows(talk):
            at = 0
            while True in supervised[at:]:
                begin = supervised.index(True, at)
                at = ids.index(tokenizer.turn_end_id, begin) + 1
                assert all(supervised[begin:at]) and not any(supervised[at : at + 1])
                found.append((ids[:begin], ids[begin:at]))
        assert found == wanted


# --- bad rows -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"role": "narrator", "content": "x"}, "unknown role narrator"),
        ({"content": "x"}, "unknown role None"),
        ({"role": ["user"], "content": "x"}, "unknown role"),
        ("hello", "a message is not an object"),
        ({"role": "user"}, "got: no content"),
        ({"role": "assistant", "content": None}, "got: NoneType"),
        ({"role": "user", "content": 3}, "got: int"),
        ({"role": "user", "content": {"text": "x"}}, "got: dict"),
        ({"role": "user", "content": ["x"]}, "a part of a content cannot be written"),
        ({"role": "user", "content": [{"type": "text"}]}, "a part of a content cannot be written"),
        ({"role": "user", "content": [{"type": "smell"}]}, "a part of a content cannot be written"),
        ({"role": "assistant", "content": "", "tool_calls": "f()"}, "tool_calls is not a list"),
        ({"role": "assistant", "tool_calls": [{"id": "1"}]}, "a tool call has no name"),
        ({"role": "assistant", "tool_calls": ["f"]}, "a tool call has no name"),
        ({"role": "assistant", "content": "", "reasoning_content": 1}, "reasoning_content is not"),
        ({"role": "tool", "content": "", "tool_call_id": 1}, "tool_call_id is not a string"),
    ],
)
def test_a_bad_message_is_named(made, message, reason):
    for encode in (made.render, made.training_rows, made.encode_prompt):
        with pytest.raises(DataError) as error:
            encode([ASKED, message, ASKED])
        assert reason in str(error.value) and "message 2 of 3" in str(error.value)


def test_null_content_beside_a_call_is_empty_in_any_template(made):
    template = "{% for m in messages %}<|im_start|>{{ m.content | trim }}<|im_end|>{% endfor %}"
    assert Tokenizer(made.backend, made.named, template).render([CALLS]) == "<|im_start|><|im_end|>"
    assert "None" not in made.render([ASKED, CALLS])


def test_nesting_without_end_is_refused(made):
    deep = current = {}
    for _ in range(100_000):
        current["a"] = current = {}
    with pytest.raises(DataError, match="nested too deeply"):
        made.encode_prompt([ASKED], [deep])


# --- templates of other houses, in the shapes that are published ------------------------------------

LLAMA3 = """\
{{- bos_token }}
{%- for m in messages %}
{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"""
QWEN3 = """\
{%- set ns = namespace(last=0) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}
{{- '<|im_start|>' + m.role + '\\n' }}
{%- if m.role == 'assistant' and loop.index0 > ns.last and (loop.last or m.reasoning_content) %}
{{- '<think>\\n' + (m.reasoning_content or '').strip('\\n') + '\\n</think>\\n\\n' }}
{%- endif %}
{{- m.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
MISTRAL = """\
{{- bos_token }}
{%- if messages and messages[0].role == 'system' %}
{%- set system = messages[0].content + '\\n\\n' %}{% set talk = messages[1:] %}
{%- else %}{% set system = '' %}{% set talk = messages %}{% endif %}
{%- set ns = namespace(last=0) %}
{%- for m in talk %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for m in talk %}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}
{%- if m.role == 'user' %}
{{- '[INST] ' + (system if loop.index0 == ns.last else '') + m.content + ' [/INST]' }}
{%- else %}{{ ' ' + m.content + eos_token }}{% endif %}
{%- endfor %}"""
GEMMA = """\
{{- bos_token }}
{%- for m in messages %}
{%- if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- set role = 'model' if m.role == 'assistant' else m.role %}
{{- '<start_of_turn>' + role + '\\n' + m.content | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""
PHI3 = """\
{%- for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"""
SHAPES = {
    "llama3": (LLAMA3, ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]),
    "qwen3": (QWEN3, []),
    "mistral": (MISTRAL, ["[INST]", "[/INST]"]),
    "gemma": (GEMMA, ["<start_of_turn>", "<end_of_turn>"]),
    "phi3": (PHI3, ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]),
}


def shaped(made, name):
    template, tokens = SHAPES[name]
    copy = chat.with_chat(made)
    copy.backend.add_special_tokens(["<s>", "</s>", *tokens])
    named = {"bos_token": "<s>", "eos_token": "<|im_end|>" if name == "qwen3" else "</s>"}
    return Tokenizer(copy.backend, named, template)


@pytest.mark.parametrize("name", SHAPES)
def test_the_mask_of_a_template_without_generation_marks(made, name):
    tokenizer = shaped(made, name)
    chat.check_template(tokenizer)
    end = {
        "llama3": "<|eot_id|>",
        "qwen3": "<|im_end|>",
        "mistral": "</s>",
        "gemma": "<end_of_turn>",
        "phi3": "<|end|>",
    }[name]
    lead = {"qwen3": "<think>\n\n</think>\n\n", "mistral": " "}.get(name, "")
    talk = [ASKED, TWO, AGAIN, FOUR]
    rows = tokenizer.training_rows(talk)
    found = [text for row in rows for text in taught(tokenizer, row)]
    assert found == [f"{lead}2{end}", f"{lead}4{end}"]
    assert len(rows) == (2 if name == "qwen3" else 1)  # Qwen3 leaves the empty block out of history
    assert everything(tokenizer, rows[-1]) == tokenizer.render(talk)
    prompt = tokenizer.encode_prompt(talk[:3])
    ids, supervised = rows[-1]
    last = len(ids) - 1 - supervised[::-1].index(True)
    assert ids[: len(prompt)] == prompt and all(supervised[len(prompt) : last + 1])
    assert tokenizer.turn_end_id == tokenizer.special(end) and tokenizer.turn_end_id == ids[last]


def test_qwen3s_thoughts_are_taught_where_they_are_sampled(made):
    rows = shaped(made, "qwen3").training_rows([ASKED, THOUGHT, AGAIN, WONDERED])
    assert [taught(made, row) for row in rows] == [
        ["<think>\none and one\n</think>\n\n2<|im_end|>"],
        ["<think>\ntwo and two\n</think>\n\n4<|im_end|>"],
    ]
    assert "one and one" not in everything(made, rows[1])


def test_a_system_text_that_wanders_makes_rows(made):
    tokenizer = shaped(made, "mistral")
    talk = [SYSTEM, ASKED, TWO, AGAIN, FOUR]
    rows = tokenizer.training_rows(talk)
    assert [taught(tokenizer, row) for row in rows] == [[" 2</s>"], [" 4</s>"]]
    assert everything(tokenizer, rows[0]) == tokenizer.render(talk[:3])
    prompt = tokenizer.encode_prompt(talk[:4])
    assert rows[1][0][: len(prompt)] == prompt


def test_what_a_template_refuses_is_said(made):
    with pytest.raises(DataError, match="System role not supported"):
        shaped(made, "gemma").training_rows([SYSTEM, ASKED, TWO])
    with pytest.raises(DataError, match="roles must alternate"):
        shaped(made, "mistral").training_rows([ASKED, AGAIN, TWO])
    pictured = {"role": "user", "content": [{"type": "image"}]}
    with pytest.raises(DataError, match="refuses a conversation"):
        shaped(made, "phi3").training_rows([pictured, TWO])


# --- the check at a run's start -------------------------------------------------------------------


def test_a_template_whose_end_is_no_token_is_refused_at_the_start(made):
    chat.check_template(made)
    state = json.loads(made.backend.to_str())
    state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] != "<|im_end|>"]
    del state["model"]["vocab"]["<|im_end|>"]
    backend = type(made.backend).from_str(json.dumps(state))
    for template in (chat.CHATML, chat.CHATML.replace("<|im_end|>", "###")):
        with pytest.raises(DataError, match="does not end an assistant's turn") as error:
            chat.check_template(Tokenizer(backend, made.named, template))
        assert "with_chat" in str(error.value)
        with pytest.raises(DataError, match="no token of the vocabulary"):
            _ = Tokenizer(backend, made.named, template).turn_end_id
    with pytest.raises(DataError, match="no chat template"):
        chat.check_template(Tokenizer(made.backend, made.named))
