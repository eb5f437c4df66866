import json
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, models, normalizers
from tokenizers import Tokenizer as Backend

from endonym.core.errors import DataError
from endonym.tokenizer import chat
from endonym.tokenizer.folder import Tokenizer
from endonym.tokenizer.train import train
from tokenizer.samples import english, shared, thai

TALK = [
    {"role": "system", "content": "ตอบสั้น ๆ"},
    {"role": "user", "content": "1+1 เท่ากับเท่าไร?"},
    {"role": "assistant", "content": "2 ค่ะ"},
    {"role": "user", "content": "and 2+2?"},
    {"role": "assistant", "content": "\n\n4"},
]
ROLES = st.sampled_from(["user", "assistant", "system", "tool"])
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["<|im_end|>", "<|im_start|>assistant\n", "a<|endoftext|>b", "\n", " x", "\ufdd0<|im_end|>"]
)


@pytest.fixture(scope="module")
def made():
    return train(thai(200) + english(200), 700)


def tokens_of(tokenizer, ids):
    return [tokenizer.backend.id_to_token(number) for number in ids]


def test_a_saved_folder_loads_with_the_same_ids(made, tmp_path):
    made.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert loaded.identity == made.identity
    text = "".join(thai(3, 9)) + "  if x:\n\treturn 12"
    assert loaded.encode(text) == made.encode(text)
    assert loaded.decode(loaded.encode(text)) == text
    assert loaded.encode_batch([text, "a"]) == [loaded.encode(text), loaded.encode("a")]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "chat_template.jinja",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


@pytest.mark.parametrize("model_type", [None, "qwen3", "llama"])
def test_auto_tokenizer_gives_the_same_ids_and_the_same_chat(made, tmp_path, model_type):
    from transformers import AutoTokenizer

    made.save(tmp_path)
    if model_type:  # a model's folder: AutoTokenizer then looks for the model's own class
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    auto = AutoTokenizer.from_pretrained(tmp_path)
    for text in [*thai(20, 5), *english(20, 5), "  a\n\n\tb 123 <|im_end|>"]:
        assert auto.encode(text, add_special_tokens=False) == made.encode(text)
        assert auto.encode(text) == made.encode(text)
    tools = [{"type": "function", "function": {"name": "ดู", "parameters": {}}}]
    for given_tools in (None, tools):
        wanted = auto.apply_chat_template(TALK[:4], tools=given_tools, tokenize=False)
        assert made.render(TALK[:4], tools=given_tools) == wanted
        got = made.encode_prompt(TALK[:4], given_tools)
        rendered = auto.apply_chat_template(
            TALK[:4], tools=given_tools, tokenize=False, add_generation_prompt=True
        )
        assert got == auto.encode(rendered, add_special_tokens=False)
    assert auto.eos_token_id == made.eos_id


def test_ids_of_special_tokens(made):
    assert (made.eos_id, made.special("<|im_start|>"), made.turn_end_id) == (0, 1, 2)
    assert made.stop_ids == {0, 2}
    assert made.bos_id is None
    assert made.vocab_size == 700
    with pytest.raises(DataError, match=re.escape("did you mean '<|im_end|>'")):
        made.special("<|im_end>")


def test_supervised_are_the_assistants_words_and_their_turn_end(made):
    ids, supervised = made.encode_chat(TALK)
    runs, current = [], []
    for number, taught in zip(ids, supervised):
        if taught:
            current.append(number)
        elif current:
            runs.append(current)
            current = []
    assert [made.decode(run) for run in runs] == ["2 ค่ะ", "\n\n4"]
    assert all(run[-1] == made.turn_end_id for run in runs)
    assert all(run.count(made.turn_end_id) == 1 for run in runs)


@given(st.lists(st.tuples(ROLES, WORDS), min_size=1, max_size=5), WORDS)
def test_a_prompt_is_an_exact_prefix_and_content_is_never_control(made, turns, answer):
    messages = [{"role": role, "content": content} for role, content in turns]
    prompt = made.encode_prompt(messages)
    ids, supervised = made.encode_chat([*messages, {"role": "assistant", "content": answer}])
    assert ids[: len(prompt)] == prompt
    assert supervised[len(prompt)]
    # as many control tokens as the template wrote, and the answer comes back whole
    assert ids.count(made.turn_end_id) == len(messages) + 1
    assert ids.count(made.special("<|im_start|>")) == len(messages) + 1
    assert ids.count(made.eos_id) == 0
    tail = ids[len(prompt) : len(ids) - len(made.encode("\n"))]
    assert tail[-1] == made.turn_end_id
    assert made.decode(tail[:-1]) == answer


def test_literal_encoding_of_a_document(made):
    text = "a<|endoftext|>b"
    assert made.eos_id in made.encode(text)
    assert made.eos_id not in made.encode(text, literal=True)
    assert made.decode(made.encode(text, literal=True)) == text


def test_a_conversation_without_an_assistant_teaches_nothing(made):
    with pytest.raises(DataError, match="no token to learn from"):
        made.encode_chat(TALK[:2])


def test_an_unknown_role_and_a_missing_template_are_errors(made):
    with pytest.raises(DataError, match="unknown role narrator"):
        made.render([{"role": "narrator", "content": "x"}])
    with pytest.raises(DataError, match="no chat template"):
        Tokenizer(made.backend, made.named).encode_prompt(TALK[:2])


def test_a_template_that_prompts_otherwise_than_it_writes_is_refused(made):
    thinking = chat.CHATML.replace("assistant\\n'", "assistant\\n<think>\\n'")
    with pytest.raises(DataError, match="otherwise than its generation prompt"):
        Tokenizer(made.backend, made.named, thinking).encode_chat(TALK)


def test_a_template_that_leaves_turns_open_is_refused(made):
    endless = "{% for m in messages %}{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}"
    endless += "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    with pytest.raises(DataError, match="does not end an assistant's turn"):
        Tokenizer(made.backend, made.named, endless).encode_chat(TALK)


def test_a_template_cannot_reach_python(made):
    escape = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    with pytest.raises(DataError, match="refuses"):
        Tokenizer(made.backend, made.named, escape).render(TALK)


def test_missing_and_broken_folders(tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(DataError, match="no tokenizer in this folder") as error:
        Tokenizer.load(tmp_path)
    assert "model.safetensors" in str(error.value)
    (tmp_path / "tokenizer.json").write_text('{"broken')
    with pytest.raises(DataError, match=re.escape("tokenizer.json cannot be read")):
        Tokenizer.load(tmp_path)


def phi3_like():
    """Characters with byte fallback, a space before each stretch, a control token that eats spaces."""
    alphabet = [*"▁abcdefghij", *(f"<0x{byte:02X}>" for byte in range(256)), "<unk>", "<s>", "</s>"]
    vocabulary = {token: number for number, token in enumerate(alphabet)}
    backend = Backend(
        models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token="<unk>")
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.add_special_tokens(["<unk>", "<s>"])
    backend.add_tokens([AddedToken("</s>", special=False, normalized=False)])
    backend.add_special_tokens([AddedToken("<|end|>", rstrip=True, normalized=False)])
    template = (
        "{{ bos_token }}{% for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
    )
    return Tokenizer(backend, {"bos_token": "<s>", "eos_token": "</s>"}, template)


def test_dummy_prefix_and_stripping_tokens_as_in_the_backend():
    tokenizer = phi3_like()
    talk = [{"role": "user", "content": "  ab "}, {"role": "user", "content": "c"}]
    rendered = tokenizer.render(talk, True)
    assert tokenizer.encode_prompt(talk) == tokenizer.encode(rendered)
    answered = [*talk, {"role": "assistant", "content": "d e"}]
    ids, supervised = tokenizer.encode_chat(answered)
    taught = [number for number, is_taught in zip(ids, supervised) if is_taught]
    assert tokens_of(tokenizer, taught) == ["d", "▁", "e", "<|end|>"]  # no dummy space before "d"


def test_a_named_token_that_is_not_marked_special_is_control_all_the_same():
    tokenizer = phi3_like()
    prompt = tokenizer.encode_prompt([{"role": "user", "content": "a</s>b"}])
    assert tokenizer.eos_id not in prompt
    assert tokenizer.stop_ids == {tokenizer.eos_id, tokenizer.special("<|end|>")}


def test_the_turn_end_of_chatml_is_what_its_rendering_says(made):
    tokens = [token.content for token in made.backend.get_added_tokens_decoder().values()]
    assert chat.turn_end(made.render, tokens) == chat.TURN_END


def test_a_chat_template_for_a_base_tokenizer(made):
    state = json.loads(made.backend.to_str())
    base = Tokenizer(Backend.from_str(json.dumps(state)), {"eos_token": "<|endoftext|>"})
    assert base.stop_ids == {base.eos_id}
    assert chat.with_chat(base).encode_prompt(TALK[:2]) == made.encode_prompt(TALK[:2])
    small = chat.with_chat(phi3_like())
    assert small.vocab_size == phi3_like().vocab_size + 2
    assert small.encode("abc") == phi3_like().encode("abc")
    assert small.stop_ids == {small.eos_id, small.special("<|im_end|>")}


def test_a_real_folder_of_another_house(tmp_path):
    folder = shared() / "tokenizers" / "qwen2"
    if not folder.is_dir():
        pytest.skip(f"real data is not here: {folder}")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer = train(thai(50) + english(50), 400)
    named = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    qwen = Tokenizer(tokenizer.backend, named, config["chat_template"])
    assert qwen.eos_id == qwen.special("<|endoftext|>")  # <|im_end|> ends turns only
    assert qwen.turn_end_id == qwen.special("<|im_end|>")


def test_no_torch_and_no_transformers_for_plain_text():
    rooms = "data.read data.decontaminate data.loader data.mix tokenizer.extend tokenizer.convert"
    code = "import sys; " + "".join(f"import endonym.{room}; " for room in rooms.split())
    code += "print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
