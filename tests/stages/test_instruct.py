"""The stage, offline and with a model behind a chat server: every sample obeys, and every call counts."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from endonym.core.artifact import Artifact
from endonym.core.errors import DataError, MachineError, RecipeError
from endonym.data.document import Conversation, Prompt, read_table, write_table
from endonym.stages.instruct import STAGE
from endonym.stages.table import stage
from endonym.synth.instruct.emission import Checked
from endonym.synth.instruct.running import Runner
from endonym.synth.instruct.settings import Settings
from endonym.synth.instruct.verification import all_hold, foreign
from endonym.tasks.base import Item, write_items
from eval.tiny import context, model, tokenizer
from stages.taught import REPLY, Teacher, artifact, run_model, talks

BWRAP = pytest.mark.skipif(shutil.which("bwrap") is None, reason="no bubblewrap on this machine")


def run(folder: Path, queries, teacher=None, **settings):
    out = folder / "out"
    out.mkdir(parents=True, exist_ok=True)
    config = Settings.read({"language": "th"} | settings)
    inputs = {"queries": queries if isinstance(queries, dict) else {"q": queries}}
    outcome = STAGE.run(config, context(folder / "scratch"), out, inputs | {"teacher": teacher})
    return list(read_table(out / "conversations.parquet", Checked)), outcome


def reverified(rows, runner=None) -> bool:
    asked = [(row.messages[-1]["content"], row.checks[0], row.language) for row in rows]
    return all_hold(asked, runner) == [True] * len(rows)


# --- without a model -------------------------------------------------------------------------------------


def test_offline_every_sample_obeys_its_check_and_reads_as_a_conversation(tmp_path):
    rows, outcome = run(tmp_path, talks(tmp_path / "talks"), per_query=5)
    assert len(rows) == 200 and reverified(rows)
    assert len({row.task for row in rows}) >= 20
    figures = outcome.figures
    assert figures["teacher"].startswith("none") and figures["judge"] == "none"
    assert figures["conversations"] == 200 == sum(figures["by_constraint"].values())
    assert figures["steps"]["composition"]["pairs"] == 200
    assert outcome.licences == ["talks"]
    plain = list(read_table(tmp_path / "out" / "conversations.parquet", Conversation))
    assert [each.id for each in plain] == [each.id for each in rows]
    assert {each.licence for each in plain} == {"CC0-1.0"} and {
        each.language for each in plain
    } == {"th"}
    for row in rows:
        asked = "\n".join(message["content"] for message in row.messages[:-1])
        assert not foreign(row.messages[-1]["content"], asked, "th")


def test_the_same_settings_give_the_same_bytes_and_another_seed_others(tmp_path):
    data = talks(tmp_path / "talks")
    first, again, other = (
        run(tmp_path / name, data, seed=seed)[0] for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first == again
    assert [row.task for row in first] != [row.task for row in other]


def test_a_sample_hangs_on_its_query_alone(tmp_path):
    whole, _ = run(tmp_path / "a", talks(tmp_path / "talks"))
    half, _ = run(tmp_path / "b", talks(tmp_path / "half" / "talks", 20))
    assert half == whole[:20]


def test_constraints_of_two_packs_are_told_in_both_languages(tmp_path):
    rows, outcome = run(
        tmp_path, talks(tmp_path / "talks", 60), pool=["th", "en"], translate=0.0, per_query=3
    )
    told = ["".join(m["content"] for m in row.messages[:-1]) for row in rows]
    english = sum(bool(re.search("[A-Za-z]{4}", text)) for text in told)
    assert 0.3 < english / len(rows) < 0.7 and reverified(rows)
    _, outcome = run(tmp_path / "b", talks(tmp_path / "more", 60), pool=["en"])
    assert outcome.figures["steps"]["translation"]["translated by a pack"] > 40


def test_rows_without_a_query_or_a_reply_are_counted(tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    user, reply = {"role": "user", "content": "ถาม"}, {"role": "assistant", "content": REPLY}
    messages = [
        [user, reply],
        [user, reply],
        [{"role": "system", "content": "x"}, user, reply],
        [user | {"content": "อื่น"}],
        [user | {"content": "รหัส"}, reply | {"content": "```\nx\n```"}],
        [user | {"content": "จีน"[:2] + "ก"}, reply | {"content": "猫 คือแมว"}],
    ]
    write_table(
        folder / "conversations.parquet", (Conversation(str(n), m) for n, m in enumerate(messages))
    )
    rows, outcome = run(tmp_path, artifact(folder, "conversations"))
    steps = outcome.figures["steps"]
    assert len(rows) == 1
    assert steps["queries"] == {"kept": 4, "asked twice": 1, "does not begin with a user": 1}
    wanted = {"queries": 1, "no known reply": 1, "code, LaTeX or a table": 1, "foreign letters": 1}
    assert wanted.items() <= steps["composition"].items()


def test_items_and_prompts_are_queries_too(tmp_path):
    folders = [tmp_path / name for name in ("items", "prompts")]
    for folder in folders:
        folder.mkdir()
    ask = lambda text: [{"role": "user", "content": text}]  # noqa: E731
    write_items(
        folders[0] / "items.parquet",
        [
            Item("i", "answer", "t", "th", ask("ถามหนึ่ง"), REPLY),
            Item("c", "constraint", "t", "th", ask("ถามสอง"), REPLY, checks=[{"type": "no_comma"}]),
        ],
    )
    prompt = Prompt("p", ask("ถามสาม"), "th", columns={"answer": REPLY})
    write_table(folders[1] / "prompts.parquet", [prompt])
    queries = {each.name: artifact(each, each.name) for each in folders}
    rows, outcome = run(tmp_path, queries)
    assert len(rows) == 2 and outcome.figures["steps"]["queries"] == {
        "has constraints already": 1,
        "kept": 2,
    }
    assert outcome.licences == ["items", "prompts"]


def test_nothing_left_is_an_error_with_the_counts(tmp_path):
    with pytest.raises(DataError, match="no sample is left") as error:
        run(tmp_path, talks(tmp_path / "talks", 3, reply="```x```"))
    assert "code, LaTeX" in str(error.value)


def test_settings_that_only_a_teacher_heeds_are_refused_without_one(tmp_path):
    with pytest.raises(RecipeError, match="'responses' would not be heeded"):
        run(tmp_path, talks(tmp_path / "talks", 2), responses=4)


def test_an_amount_ends_it(tmp_path):
    rows, outcome = run(tmp_path, talks(tmp_path / "talks"), amount=7)
    assert len(rows) == outcome.figures["conversations"] == 7


def test_the_table_knows_the_stage():
    assert stage("instruct") is STAGE


def test_the_defaults_are_the_releases():
    known = Settings(language="th")
    assert (known.functions, known.cases, known.verifier_temperature) == (5, 3, 0.2)
    assert known.minimums.model_dump() == {"functions": 3, "cases": 10, "accuracy": 0.8}
    assert (known.responses, known.temperature, known.max_tokens) == (2, 0.7, 4096)
    assert (known.judge_above, known.system, known.plain) == (8.0, 0.5, 8 / 17)


# --- with a model behind a server: all nine steps -----------------------------------------------------------


@pytest.fixture
def teacher(monkeypatch, tmp_path):
    known = Teacher()

    class Handler(BaseHTTPRequestHandler):
        protocol_version, wbufsize = (
            "HTTP/1.1",
            -1,
        )  # a connection for all questions, and whole answers

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = "\n".join(message["content"] for message in body["messages"])
            step, said = known.answer(text, body["seed"])
            known.asked[step] += 1
            status = 400 if step in known.down else 200
            choice = {"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
            data = json.dumps({"choices": [choice]}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("ENDONYM_TEACHER_URL", f"http://127.0.0.1:{server.server_port}/v1")
    monkeypatch.setenv("ENDONYM_TEACHER_CACHE", str(tmp_path / "cache"))
    for name in ("OPENAI_BASE_URL", "ENDONYM_JUDGE_URL", "http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield known
    server.shutdown()


@BWRAP
def test_all_nine_steps_with_a_model(tmp_path, teacher):
    rows, outcome = run_model(tmp_path, per_query=42)  # every constraint
    steps = outcome.figures["steps"]
    assert steps["pool"]["placeholder"] == 1 and steps["pool"]["kept"] == 4
    assert steps["verifiers"]["functions"] == 12
    assert steps["cross-validation"]["kept"] == 2
    assert steps["cross-validation"]["too few functions"] == 1  # the hostile ones gave nothing
    assert steps["sandbox, cross-validation"].keys() & {"error", "ended early"}
    assert steps["back-translation"]["dropped: contradiction"] == 1
    assert steps["back-translation"]["kept"] == 1
    assert steps["foreign script"]["foreign letters"] > 0
    assert steps["judge"]["at or below the threshold"] > 0
    assert outcome.figures["teacher"] == outcome.figures["judge"] == "big"
    assert outcome.figures["calls"]["teacher"]["failed"] == 0

    made = [row for row in rows if row.task == "made/0"]
    assert made and {row.score for row in rows} == {9.0}
    from endonym.rewards.sandbox import Sandbox

    assert reverified(rows, Runner(Sandbox.open()))
    assert not any("猫" in row.messages[-1]["content"] for row in rows)
    (kept,) = map(json.loads, (tmp_path / "out" / "constraints.jsonl").read_text().splitlines())
    assert kept["texts"] == ["ต้องมีเครื่องหมายอัศเจรีย์ในคำตอบ", "ใส่ ! อย่างน้อยหนึ่งตัว"]
    assert kept["name"] == "made/0" and len(kept["functions"]) == 3 and len(kept["cases"]) == 12


@BWRAP
def test_a_second_run_asks_nothing_and_gives_the_same(tmp_path, teacher):
    first, outcome = run_model(tmp_path, per_query=4)
    asked = teacher.asked.total()
    assert asked == sum(each["asked"] for each in outcome.figures["calls"].values())
    again, second = run_model(tmp_path, per_query=4)
    assert again == first and second.figures == outcome.figures
    assert teacher.asked.total() == asked
    run_model(tmp_path, per_query=4, judge_above=5.0)
    assert teacher.asked.total() == asked  # another threshold needs no other answers


@BWRAP
def test_failed_calls_drop_their_samples_and_are_asked_again(tmp_path, teacher):
    teacher.down = {"judge"}
    with pytest.raises(DataError, match="no sample is left") as error:
        run_model(tmp_path, per_query=4)
    assert '"call failed"' in str(error.value)
    before = teacher.asked["judge"]
    teacher.down = set()
    rows, outcome = run_model(tmp_path, per_query=4)
    assert rows and teacher.asked["judge"] > before
    assert outcome.figures["calls"]["teacher"]["failed"] == 0


def test_without_a_sandbox_nothing_is_run_and_nothing_asked(tmp_path, teacher, monkeypatch):
    def require():
        raise MachineError("there is no bwrap")

    monkeypatch.setattr("endonym.rewards.bubblewrap.require", require)
    with pytest.raises(MachineError, match="bwrap"):
        run_model(tmp_path)
    assert not teacher.asked
    rows, _ = run_model(tmp_path, constraints=0)  # packed constraints need none
    assert rows and reverified(rows)


def test_without_a_server_a_teacher_is_a_machine_error(tmp_path, monkeypatch):
    for name in ("ENDONYM_TEACHER_URL", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(MachineError, match="'big'"):
        run_model(tmp_path)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = [sys.argv[3]]
from stages.taught import run_model
from endonym.rewards import chat

if sys.argv[2] == "dies":
    plain, answered = chat.Server.ask, []
    def ask(self, *given, **more):
        answered.append(1)
        if len(answered) > 20:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(self, *given, **more)
    chat.Server.ask = ask
run_model(Path(sys.argv[1]), constraints=0, per_query=4)
"""


def test_a_killed_run_goes_on_with_what_it_had_asked(tmp_path, teacher, monkeypatch):
    monkeypatch.setenv("ENDONYM_TEACHER_PARALLEL", "1")

    def go(how):
        line = [sys.executable, "-c", KILLED, str(tmp_path), how, str(Path(__file__).parents[1])]
        return subprocess.run(line, capture_output=True, text=True, env={**os.environ})

    assert go("dies").returncode == -signal.SIGKILL
    kept = len(list((tmp_path / "cache").rglob("*.json")))
    before = teacher.asked.total()
    assert kept == 20
    done = go("lives")
    assert done.returncode == 0, done.stderr
    rows = list(read_table(tmp_path / "out" / "conversations.parquet", Checked))
    assert rows and reverified(rows)
    asked = len(list((tmp_path / "cache").rglob("*.json")))
    assert teacher.asked.total() - before == asked - kept


# --- with a model folder of ours ---------------------------------------------------------------------------


def test_a_model_folder_answers_alike_whatever_is_asked_beside(tmp_path):
    from endonym.model import hf
    from endonym.synth.instruct.chat import Own, ask

    hf.save(model(), tmp_path / "model", eos_ids=tokenizer().stop_ids)
    tokenizer().save(tmp_path / "model")
    folder = Artifact(tmp_path / "model", {"kind": "model", "address": "own"})
    own = Own(folder, context())
    requests = [ask(f"ถาม {n}", temperature=1.0, max_tokens=6, seed=n % 2) for n in range(5)]
    requests += [ask("ถาม " * 300, max_tokens=6)]
    whole, alone = {}, {}
    own.answers(requests, whole.__setitem__)
    own.answers(requests[2:3], alone.__setitem__)
    assert whole[5] is None  # no room in its context: a failed call
    assert {whole[n].finish for n in range(5)} <= {"stop", "length"}
    assert alone[0] == whole[2]
    with pytest.raises(RecipeError, match="two teachers"):
        STAGE.run(
            Settings.read({"language": "th", "teacher": "big"}),
            context(),
            tmp_path,
            {"queries": {}, "teacher": folder},
        )
