"""Tokenizer folders that somebody made to harm: what is refused, what is stopped, nothing is run."""

import json
import os
import threading
from pathlib import Path

import pytest
from tokenizers import Regex, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend

from endonym.core.errors import DataError, EndonymError
from endonym.tokenizer import backend, files, render, sandbox
from endonym.tokenizer.folder import Tokenizer
from endonym.tokenizer.train import train
from tokenizer.samples import english

TALK = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


@pytest.fixture(scope="module")
def made():
    return train(english(200), 400)


def written(made, template, talk=TALK):
    return Tokenizer(made.backend, made.named, template).render(talk)


# --- escapes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "escape",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ ''['__class__']['__base__'] }}",
        "{{ (''|attr('__class__')).mro() }}",
        "{{ cycler.__init__.__globals__.os.system(CANARY) }}",
        "{{ lipsum.__globals__['os'].popen(CANARY).read() }}",
        "{{ joiner.__init__.__globals__.os.system(CANARY) }}",
        "{{ raise_exception.__globals__['json'].codecs.open(CANARY, 'w') }}",
        "{{ strftime_now.__globals__.__builtins__.open(CANARY, 'w').write('x') }}",
        "{{ namespace.__init__.__globals__.sys.modules.os.system(CANARY) }}",
        "{{ dict.__call__.__globals__.os.system(CANARY) }}",
        "{{ self.__init__.__globals__.os.system(CANARY) }}",
        "{{ self._TemplateReference__context.eval_ctx.environment.loader.x }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'a': 1}) }}",
        "{{ '{0.__class__.__mro__[1].__subclasses__}'.format(1)() }}",
        "{{ ''.format.__self__.__class__.mro() }}",
        "{{ '{a.__class__.__base__}'.format_map({'a': 1}) }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}{{ os.system(CANARY) }}",
        "{% extends '/etc/hosts' %}",
        "{{ get_flashed_messages.__globals__.os.system(CANARY) }}",
        "{% for c in ''.__class__.__base__.__subclasses__() %}{{ c(CANARY) }}{% endfor %}",
    ],
)
def test_a_template_reaches_no_python(made, tmp_path, escape):
    canary = tmp_path / "canary"
    with pytest.raises(DataError, match="refuses a conversation"):
        written(made, escape.replace("CANARY", f"'touch {canary}'"))
    assert list(tmp_path.iterdir()) == []


def test_the_sandbox_sees_no_secrets_and_writes_no_file(made, tmp_path, monkeypatch):
    """What one would find who broke out of the template after all."""
    monkeypatch.setenv("HF_TOKEN", "secret")
    render._stop()
    assert written(made, "{{ messages[0].content }}") == "a"
    process = render._process
    environment = Path(f"/proc/{process.pid}/environ")
    if not environment.is_file():
        pytest.skip("no /proc here")
    assert "secret" not in environment.read_text()
    limits = Path(f"/proc/{process.pid}/limits").read_text()
    (line,) = [line for line in limits.splitlines() if line.startswith("Max file size")]
    assert line.split()[3:5] == ["0", "0"]


# --- bombs ----------------------------------------------------------------------------------------

LOOP = "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3


@pytest.mark.parametrize(
    ("bomb", "reason"),
    [
        ("{{ 'a' * 10**10 }}", "memory"),
        ("{{ '%9999999999d' % 1 }}", "memory"),
        ("{{ '{:>9999999999}'.format(1) }}", "memory"),
        ("{{ ('a' * 10**8).replace('a', 'b' * 99) }}", "memory"),
        ("{{ 'a'.center(10**8) }}", "100,000,000 characters, more than 16,777,216"),
        ("{{ range(10**9) | list }}", "Range too big"),
    ],
)
def test_a_bomb_is_stopped_and_the_next_template_works(made, bomb, reason):
    with pytest.raises(DataError, match="the chat template was stopped") as error:
        written(made, bomb)
    assert reason in str(error.value)
    assert written(made, "{{ messages | length }}") == "2"


@pytest.mark.parametrize("endless", [LOOP, "{{ 7 ** (7 ** (3 ** 20)) }}"])
def test_what_runs_without_end_is_stopped_on_any_thread(made, endless, monkeypatch):
    """A loop of Jinja's and one long call in C, which no signal of Python's could interrupt."""
    monkeypatch.setattr(render, "PROGRAM", [*render.PROGRAM, "0.3"])
    render._stop()
    errors = []

    def attempt():
        try:
            written(made, endless)
        except EndonymError as error:
            errors.append(str(error))

    attempt()
    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    assert len(errors) == 2 and all("the chat template was stopped" in text for text in errors)
    assert written(made, "{{ messages | length }}") == "2"
    render._stop()


@pytest.mark.parametrize(
    "template",
    [
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{% if",
        "{{ nothing.at.all }}",
        "{{ 1 / 0 }}",
    ],
)
def test_a_template_that_fails_is_an_error_of_the_data(made, template):
    with pytest.raises(DataError, match="refuses a conversation"):
        written(made, template)


def test_a_template_as_long_as_a_book_is_not_compiled(made):
    with pytest.raises(DataError, match="the chat template is too long"):
        written(made, "x" * (sandbox.MAX_TEMPLATE + 1))


def test_threads_get_their_own_answers(made):
    tokenizer = Tokenizer(made.backend, made.named, "{{ messages[0].content }}")
    found = {}

    def ask(name):
        found[name] = [tokenizer.render([TALK[0] | {"content": name}]) for _ in range(50)]

    threads = [threading.Thread(target=ask, args=(f"n{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {f"n{n}": [f"n{n}"] * 50 for n in range(4)}


def test_a_sandbox_that_was_killed_is_started_again(made):
    assert written(made, "{{ messages | length }}") == "2"
    render._process.kill()
    render._process.wait()
    assert written(made, "{{ messages | length }}") == "2"


# --- files ----------------------------------------------------------------------------------------


def test_a_file_too_large_is_not_read(made, tmp_path):
    made.save(tmp_path)
    os.truncate(tmp_path / "tokenizer_config.json", files.MAX_CONFIG + 1)  # a hole, no bytes
    with pytest.raises(DataError, match=r"tokenizer_config\.json is too large"):
        Tokenizer.load(tmp_path)
    os.truncate(tmp_path / "tokenizer.json", backend.MAX_TOKENIZER + 1)
    with pytest.raises(DataError, match=r"tokenizer\.json is too large"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("tokenizer.json", b"[" * 100_000, "cannot be read"),
        ("tokenizer.json", b'{"model": {"type": "BPE", "vocab": {"a": -1}}}', "cannot be read"),
        ("tokenizer_config.json", b"[" * 100_000, "is no JSON"),
        ("tokenizer_config.json", b"\xff", "is no JSON"),
        ("tokenizer_config.json", b"[]", "no JSON object"),
        ("tokenizer_config.json", b'{"eos_token": {"id": 1}}', "a named token is not a string"),
        ("chat_template.jinja", b"\xff", "is not UTF-8"),
    ],
)
def test_a_broken_file_is_named(made, tmp_path, name, content, reason):
    made.save(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=reason):
        Tokenizer.load(tmp_path)


def test_a_template_that_is_no_string_is_refused(made, tmp_path):
    made.save(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": {"a": 1}}))
    with pytest.raises(DataError, match="is not a string"):
        Tokenizer.load(tmp_path)


def letters(**parts):
    backend = Backend(models.BPE(vocab={"a": 0, "b": 1}, merges=[]))
    for name, part in parts.items():
        setattr(backend, name, part)
    return backend


def test_a_pattern_that_backtracks_without_end_is_given_up(tmp_path):
    pattern = pre_tokenizers.Split(Regex("(a+)+$"), "isolated")
    tokenizer = Tokenizer(letters(pre_tokenizer=pattern), {})
    assert tokenizer.encode("ab") == [0, 1]
    for encode in (tokenizer.encode, lambda text: tokenizer.encode_batch([text])):
        with pytest.raises(DataError, match="gave up on a text") as error:
            encode("a" * 40 + "b")
        assert "retry-limit" in str(error.value)


def test_a_normalizer_that_doubles_and_doubles_is_refused(tmp_path):
    doubling = normalizers.Sequence([normalizers.Replace("a", "aa")] * 40)
    letters(normalizer=doubling).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(DataError, match="many times longer") as error:
        Tokenizer.load(tmp_path)
    assert "1.1e+12 times" in str(error.value)


def test_a_truncation_in_the_file_cuts_no_text(made, tmp_path):
    made.save(tmp_path)
    backend = Backend.from_file(str(tmp_path / "tokenizer.json"))
    backend.enable_truncation(3)
    backend.enable_padding(length=1000)
    backend.save(str(tmp_path / "tokenizer.json"))
    text = "".join(english(2))
    assert Tokenizer.load(tmp_path).encode(text) == made.encode(text)
    assert Tokenizer.load(tmp_path).identity == made.identity
