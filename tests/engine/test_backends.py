"""Backends: the own engine and a server answer alike, and a server's mistakes are not learned from."""

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from endonym.core.errors import DataError, MachineError
from endonym.engine import keeper, served
from endonym.engine.backends import Own
from endonym.engine.generate import generate
from endonym.engine.sampler import Sampling
from endonym.engine.served import Served
from endonym.engine.server import serving
from endonym.model.config import ModelConfig
from endonym.model.hf import new
from engine import stand_in as standing_in
from engine.stand_in import StandIn

SAMPLING = Sampling(max_tokens=6, seed=5)
PROMPTS = [[1, 2, 3], [1, 2, 3], [4, 5]]


def letters(ids):
    return "".join(chr(97 + each % 26) for each in ids)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(served, "WAITS", (0.0, 0.0, 0.0))
    with StandIn() as made:
        yield made


@pytest.fixture
def backend(server):
    made = Served(server.url, "weights-1")
    yield made
    made.close()


def test_own_is_generate():
    config = ModelConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    model = new(config, 0)
    own = Own(model, "step 3", batch=2)
    assert (own.weights, own.context) == ("step 3", 64)
    others = dict(keys=[1, 2, 3], limits=[3, 4, 5], stops=["ab"], decode=letters)
    found = own.generate(PROMPTS, SAMPLING, {7}, **others)
    assert found == generate(model, PROMPTS, SAMPLING, {7}, **others)


def test_served_answers_as_asked(server, backend):
    assert (backend.weights, backend.context) == ("weights-1", 64)
    assert (backend.by, Own.by) == ("server (stand-in)", "own engine")
    found = backend.generate(PROMPTS, SAMPLING, {49, 48}, limits=[6, 2, 1])
    assert [(len(each.tokens), each.finish) for each in found] == [
        (6, "length"), (2, "length"), (1, "length")
    ]  # fmt: skip
    assert found[0].logprobs == found[0].raw_logprobs == [-0.5 - n for n in range(6)]
    assert all(each.text is None for each in found)
    sent = {body["max_tokens"]: body for body in server.requests}
    assert sent[6]["prompt"] == [1, 2, 3] and sent[6]["stop_token_ids"] == [48, 49]
    assert (sent[6]["top_k"], sent[6]["top_p"], sent[6]["temperature"]) == (-1, 1.0, 1.0)
    assert sent[6]["ignore_eos"] and sent[6]["return_token_ids"] and sent[6]["logprobs"] == 1


def test_seeds_are_the_items_own(server, backend):
    together = backend.generate(PROMPTS, SAMPLING, keys=[7, 8, 9])
    alone = [backend.generate([p], SAMPLING, keys=[k])[0] for p, k in zip(PROMPTS, [7, 8, 9])]
    assert together == alone
    seeds = [body["seed"] for body in server.requests]
    assert len(set(seeds)) == 3 and all(0 <= each < 1 << 63 for each in seeds)
    backend.generate(PROMPTS[:1], Sampling(max_tokens=6, seed=6), keys=[7])
    assert server.requests[-1]["seed"] not in seeds
    backend.generate(PROMPTS, SAMPLING)  # without keys: equal prompts draw apart
    assert len({body["seed"] for body in server.requests[-3:]}) == 3


def test_stops_by_string_and_by_token(backend):
    free = backend.generate(PROMPTS[2:], SAMPLING, keys=[1], decode=letters)[0]
    assert free.text == letters(free.tokens)
    stop = free.text[2:4]
    cut = backend.generate(PROMPTS[2:], SAMPLING, keys=[1], decode=letters, stops=[stop])[0]
    assert (cut.text, cut.tokens, cut.finish) == (free.text[:2], free.tokens[:4], "stop")
    ended = backend.generate(PROMPTS[2:], SAMPLING, [free.tokens[2]], keys=[1], decode=letters)[0]
    assert (ended.text, ended.tokens) == (free.text[:2], free.tokens[:3])
    with pytest.raises(DataError, match="looked for"):
        backend.generate(PROMPTS, SAMPLING, stops=["a"])


def test_which_log_probabilities_they_are(server, backend):
    greedy = backend.generate(PROMPTS, Sampling(temperature=0, max_tokens=3))
    assert greedy[0].logprobs == [0.0] * 3 and greedy[0].raw_logprobs[0] == -0.5
    for settings in (dict(temperature=0.7), dict(top_p=0.9), dict(top_k=5), dict(min_p=0.1)):
        found = backend.generate(PROMPTS, Sampling(max_tokens=3, **settings))[0]
        assert found.logprobs == [-0.5, -1.5, -2.5]
        assert all(map(math.isnan, found.raw_logprobs))
    assert sum(body["top_k"] == 1 for body in server.requests) == 1, "asked once"


def test_a_server_of_the_wrong_kind_of_log_probabilities_is_refused(server, backend):
    server.mode = "raw_logprobs"
    assert backend.generate(PROMPTS, SAMPLING)
    for _ in range(2):
        with pytest.raises(DataError, match="processed_logprobs"):
            backend.generate(PROMPTS, Sampling(temperature=0.7))


def test_the_context_is_the_servers(server, backend):
    found = backend.generate([[1] * 61], SAMPLING)[0]
    assert len(found.tokens) == 3
    with pytest.raises(DataError, match="fills the model's context"):
        backend.generate([[1] * 64], SAMPLING)
    assert Served(server.url, "weights-1", context=10).context == 10


def test_other_weights_are_refused(server, backend):
    with pytest.raises(DataError, match=r"other weights(.|\n)*weights-2(.|\n)*weights-1"):
        Served(server.url, "weights-2")
    server.name = "weights-2"
    with pytest.raises(DataError, match="other weights"):
        backend.generate(PROMPTS, SAMPLING)


def test_weights_that_change_in_mid_run_are_refused(server, backend):
    def rename(answer):
        answer["model"] = "weights-2"

    server.broken = {2: rename}
    with pytest.raises(DataError, match="an answer is of other weights"):
        backend.generate(PROMPTS, SAMPLING)

    def restart(answer):
        server.name = "weights-2"  # after this answer

    server.broken = {len(server.requests): restart}
    with pytest.raises(DataError, match="the server has other weights"):
        backend.generate(PROMPTS[:1], SAMPLING)


@pytest.mark.parametrize("what", [500, 503, 429, "hang up"])
def test_a_failure_that_passes_changes_nothing(server, backend, what):
    wanted = backend.generate(PROMPTS, SAMPLING)
    at = len(server.requests)
    server.broken = {at: what, at + 1: what, at + 3: what}
    assert backend.generate(PROMPTS, SAMPLING) == wanted
    assert len(server.requests) == at + 6


def test_a_failure_that_stays_is_told(server, backend):
    server.broken = dict.fromkeys(range(100), 500)
    with pytest.raises(MachineError, match=r"does not answer(.|\n)*HTTP 500"):
        backend.generate(PROMPTS[:1], SAMPLING)
    assert len(server.requests) == 4
    server.server.shutdown()
    server.server.server_close()
    backend.client.close()
    with pytest.raises(MachineError, match=r"does not answer(.|\n)*ConnectError"):
        Served(server.url, "weights-1")


@pytest.mark.parametrize("code", [400, 401, 404, 422])
def test_a_refusal_is_not_asked_again(server, backend, code):
    server.broken = {0: code}
    with pytest.raises(MachineError, match=rf"refuses(.|\n)*HTTP {code}"):
        backend.generate(PROMPTS[:1], SAMPLING)
    assert len(server.requests) == 1


def changed(path, value):
    """An answer with something put in the place of what stands there."""

    def change(answer):
        at = answer
        for step in path[:-1]:
            at = at[step]
        if value is None:
            del at[path[-1]]
        else:
            at[path[-1]] = value

    return change


CHOICE = ("choices", 0)


@pytest.mark.parametrize(
    "what",
    [
        "malformed",
        lambda answer: "[1, 2]",
        changed(("choices",), None),
        changed(("choices",), []),
        changed((*CHOICE, "logprobs"), None),
        lambda answer: answer["choices"][0].update(logprobs=None),
        changed((*CHOICE, "logprobs", "token_logprobs"), [-0.5] * 5),
        changed((*CHOICE, "logprobs", "token_logprobs"), [-0.5, "x"] * 3),
        lambda answer: answer["choices"][0]["logprobs"].update(token_logprobs=[None] * 6),
        changed((*CHOICE, "token_ids"), None),
        lambda answer: answer["choices"][0].update(token_ids=None),
        changed((*CHOICE, "token_ids"), []),
        changed((*CHOICE, "prompt_token_ids"), [0, 1, 2, 3]),
        changed((*CHOICE, "finish_reason"), "abort"),
    ],
)
def test_an_answer_that_lacks_something_is_refused(server, backend, what):
    server.broken = {0: what}
    with pytest.raises(DataError, match="not what was asked for"):
        backend.generate(PROMPTS[:1], SAMPLING)
    assert len(server.requests) == 1, "asked again"


COMMAND = f"{sys.executable} {Path(standing_in.__file__)} {{model}} {{name}} {{port}}"


def is_running(pid):
    try:
        os.kill(pid, 0)
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


def ends(pid):
    until = time.monotonic() + 20
    while is_running(pid):
        assert time.monotonic() < until, "it still runs"
        time.sleep(0.02)
    return True


def test_a_server_is_started_and_ends_with_its_children(tmp_path, monkeypatch):
    monkeypatch.setenv("ENDONYM_SERVER", COMMAND)
    urls = []
    for weights in ("blake:1", "blake:2"):
        with serving(tmp_path, weights) as backend:
            assert backend.weights == weights
            assert len(backend.generate(PROMPTS, SAMPLING)) == 3
            child = int((tmp_path / "child").read_text())
            assert is_running(child)
            urls.append(backend.url)
        assert ends(child)
    with pytest.raises(MachineError, match="does not answer"):
        monkeypatch.setattr(served, "WAITS", ())
        Served(urls[0], "blake:1")


def test_a_server_that_does_not_start(tmp_path, monkeypatch):
    (tmp_path / "broken").touch()
    monkeypatch.setenv("ENDONYM_SERVER", COMMAND)
    with (
        pytest.raises(MachineError, match=r"ended before it was ready(.|\n)*out of memory"),
        serving(tmp_path, "w"),
    ):
        pass
    asleep = f"{sys.executable} -c 'import time; time.sleep(60)' {{model}} {{name}} {{port}}"
    monkeypatch.setenv("ENDONYM_SERVER", asleep)
    monkeypatch.setenv("ENDONYM_SERVER_SECONDS", "0.5")
    with pytest.raises(MachineError, match="not ready in time"), serving(tmp_path, "w"):
        pass


def test_the_reason_is_told_though_a_server_says_much_after_it(tmp_path, monkeypatch):
    said = (
        "echo X RuntimeError: no colours left; echo DeadError: see above; echo DeadError: see above"
    )
    falls = f"sh -c '{said}; seq 100 140; exit 1' {{model}} {{name}} {{port}}"
    monkeypatch.setenv("ENDONYM_SERVER", falls)
    reason = r" RuntimeError: no colours left\n\s*DeadError: see above\n\s*133\n(.|\n)*140"
    with pytest.raises(MachineError, match=reason), serving(tmp_path, "w"):
        pass


@pytest.mark.parametrize(
    "template, message", [("", "no command"), ("vllm {model}", "lacks a field")]
)
def test_a_command_that_cannot_be_used(tmp_path, monkeypatch, template, message):
    monkeypatch.setenv("ENDONYM_SERVER", template)
    with pytest.raises(MachineError, match=message), serving(tmp_path, "w"):
        pass


def test_a_server_that_ends_while_it_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(served, "WAITS", ())
    monkeypatch.setenv("ENDONYM_SERVER", COMMAND)
    with (
        pytest.raises(MachineError, match=r"ended while it was asked(.|\n)*goes on"),
        serving(tmp_path, "blake:1") as backend,
    ):
        backend.generate(PROMPTS, SAMPLING)
        os.kill(int((tmp_path / "server").read_text()), signal.SIGKILL)
        backend.generate(PROMPTS, SAMPLING)
    assert ends(int((tmp_path / "child").read_text()))


def test_a_server_knows_nothing_of_our_processes_and_is_asked_past_a_proxy(tmp_path, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    for name in ("RANK", "WORLD_SIZE", "TORCHELASTIC_USE_AGENT_STORE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("ENDONYM_SERVER", COMMAND)
    with serving(tmp_path, "w") as backend:
        assert backend.generate(PROMPTS, SAMPLING)
        pid = (tmp_path / "server").read_text()
        inherited = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    names = {each.partition(b"=")[0] for each in inherited}
    assert b"ENDONYM_SERVER" in names and not names & {b"RANK", b"WORLD_SIZE"}
    assert b"TORCHELASTIC_USE_AGENT_STORE" not in names


def test_a_keeper_that_is_asked_to_end_ends(tmp_path):
    command = [sys.executable, "-c", "print(flush=True); import time; time.sleep(600)"]
    kept = subprocess.Popen(
        [sys.executable, "-I", keeper.__file__, *command],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    kept.stdout.read(1)
    time.sleep(0.1)  # its handlers stand right after the command has begun
    kept.terminate()
    assert kept.wait(20) == 128 + signal.SIGTERM


def test_the_keeper_ends_all_when_its_owner_is_killed(tmp_path):
    tell = (
        "import subprocess, sys, time, pathlib;"
        "each = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(each.pid)); time.sleep(600)"
    )
    own = (
        "import subprocess, sys, time;"
        f"subprocess.Popen([sys.executable, {keeper.__file__!r}, sys.executable, '-c', sys.argv[1]],"
        " stdin=subprocess.PIPE); time.sleep(600)"
    )
    owner = subprocess.Popen([sys.executable, "-c", own, tell])
    until = time.monotonic() + 20
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < until
        time.sleep(0.02)
    child = int((tmp_path / "pid").read_text())
    assert is_running(child)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert ends(child)
