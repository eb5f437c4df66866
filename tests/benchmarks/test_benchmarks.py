"""The benchmark runs: its material is what it says, its arms take turns, unequal work is refused.

No peer and no clock is needed here: Endonym's own arms run in this process, on a toy shape.
"""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import __main__ as command  # noqa: E402
from benchmarks import compare, generation, gpu, machine, material, pretrain, reward, sft, turns  # noqa: E402
from endonym.core.errors import DataError, MachineError  # noqa: E402


class Here:
    """Turns within this process: one of each kind that is asked for."""

    def __init__(self, kinds):
        self.kinds = list(kinds)
        self.record = compare.Record(peak_bytes=1)

    def ready(self, **facts):
        self.record.ready = json.loads(json.dumps(facts))

    def wait(self):
        if not self.kinds:
            raise turns.Finished
        self.kind = self.kinds.pop(0)
        return self.kind

    def done(self):
        self.record.cpu.setdefault(self.kind["key"], []).append(1.0)
        self.record.wall.setdefault(self.kind["key"], []).append(2.0)


@pytest.fixture
def in_process(monkeypatch, tmp_path):
    def run(arms, kinds, *, repeats, threads, note):
        records = {}
        for number, arm in enumerate(arms):
            module, function = arm.function.split(":")
            here, scratch = Here(kinds), tmp_path / str(number)
            scratch.mkdir(exist_ok=True)
            spec = {**arm.spec, "threads": threads, "scratch": str(scratch)}
            with pytest.raises(turns.Finished):
                getattr(sys.modules[module], function)(spec, here)
            records[arm.name] = here.record
        return records

    for part in (sft, pretrain, reward, generation):
        monkeypatch.setattr(part, "compare", run)


@pytest.mark.parametrize("part", ["sft", "generation"])
def test_own_arms_run_and_are_told(part, in_process, capsys, tmp_path):
    asked = [part, "--tiny", "--without-peers", "--json", "--write", str(tmp_path / "out")]
    assert command.main(asked) == 0
    result = json.loads(capsys.readouterr().out)
    written = json.loads((tmp_path / "out" / "benchmarks.json").read_text())
    assert written == result
    rows = result[part][0]["rows"]
    # Each turn took 1 s of CPU by Here's clock: a row's speed is the tokens of its turn.
    if part == "sft":
        assert [row["arm"] for row in rows] == ["Endonym, packed", "Endonym, padded"]
        assert {row["tokens_per_cpu_second"]["median"] for row in rows} == {
            result[part][0]["block"]["tokens"]
        }
        # Packed and padded rows hold the same targets, so the losses agree to float32's rounding.
        assert result[part][0]["difference"] < 1e-5
        assert len(rows[0]["losses"]) == sft.WARMUP
    else:
        assert [row["batch"] for row in rows] == [
            *generation.BATCHES, generation.UNEVEN, generation.MANY, generation.MANY
        ]  # fmt: skip
        # 64 tokens an answer, four answers a turn at batch 1; then 32 answers of 1 to 64 tokens.
        speeds = [row["tokens_per_cpu_second"]["median"] for row in rows]
        assert speeds[:3] == [64 * 4, 64 * 8, 64 * 32]
        assert 32 * 20 < speeds[3] < 32 * 45 and all(row["has_all_tokens"] for row in rows)
    table = (tmp_path / "out" / "benchmarks.md").read_text()
    assert all(row["arm"] in table for row in rows)
    assert result["machine"]["versions"]["torch"] in table


def test_a_block_fills_its_rows_and_says_its_sizes():
    words = material.tokenizer(2048)
    block = material.block(words)
    lengths = [len(ids) for ids in block.ids]
    assert len(lengths) % material.ROWS == 0
    assert material.block(words).ids == block.ids, "drawn the same every time"
    assert len(material.best_fit(np.array(lengths), material.ROW)) == material.ROWS
    sizes = block.figures["tokens_with_padding"]
    assert block.figures["tokens"] <= sizes["packed"] < sizes["by length"] < sizes["as they come"]
    assert block.figures["supervised"] == sum(map(sum, block.supervised)) > 0
    prompts = material.prompts(words, 50)
    assert {len(each) for each in prompts} <= set(range(8, 65)) and len(set(map(len, prompts))) > 10


def test_padded_batches_hold_every_target_once():
    block = material.Block([], [[5, 6, 7], [8, 9]] * 4, [[False, True, True], [False, True]] * 4)
    for layout in ("padded", "by length"):
        (batch,) = sft._padded(block, layout)
        assert batch["input_ids"].shape == (8, 3)
        assert int((batch["labels"] != -100).sum()) == block.figures["supervised"] == 12
        assert int(batch["attention_mask"].sum()) == block.figures["tokens"] == 20


def test_other_losses_are_refused():
    same = {"arm": "a", "losses": [2.0, 1.0]}
    sft.same_work([same, {"arm": "b", "losses": [2.0, 1.00001]}], 1e-4)
    for other in ([2.0, 1.1], [2.0, float("nan")]):
        with pytest.raises(DataError, match="different work"):
            sft.same_work([same, {"arm": "b", "losses": other}], 1e-4)
    with pytest.raises(DataError, match="different work"):
        sft.same_work([{"arm": "a", "losses": []}], 1e-4)


def test_other_answers_are_refused():
    ours, theirs = [[1, 2, 3, 4], [5, 6, 7, 8]], [[1, 2, 3, 4], [5, 6, 0, 0]]
    told = generation.agreement(ours, theirs, [4, 4])
    assert told == {"equal_tokens": 0.75, "equal_answers": 0.5, "has_all_tokens": True}
    row = {"batch": 2, "arm": "b", "drawn": False, **told}
    generation.same_work([row], 0.7)
    generation.same_work([{**row, "drawn": True}], 0.8)  # by other random numbers
    with pytest.raises(DataError, match=r"75\.0% equal"):
        generation.same_work([row], 0.8)
    short = generation.agreement(ours, theirs, [4, 5])
    with pytest.raises(DataError, match="different work"):
        generation.same_work([{**row, **short}], 0.0)


TOY = """
from pathlib import Path

def arm(spec, turns):
    print("a library talks on standard output")
    turns.ready(threads=spec["threads"], name=spec["name"])
    while True:
        turn = turns.wait()
        with open(spec["log"], "a") as log:
            log.write(spec["name"] + turn["key"] + " ")
        if spec["name"] == spec.get("fails"):
            raise RuntimeError("no such luck")
        turns.done()
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    (tmp_path / "toy_arm.py").write_text(TOY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return {"log": str(tmp_path / "log")}


def test_arms_take_turns_in_processes_of_their_own(toy, tmp_path):
    arms = [compare.Arm(name, "toy_arm:arm", {**toy, "name": name}) for name in "AB"]
    kinds = [{"key": "1"}, {"key": "8"}]
    records = compare.compare(arms, kinds, repeats=2, threads=1)
    assert (tmp_path / "log").read_text().split() == ["A1", "B1", "A8", "B8"] * 2
    for name, record in records.items():
        assert record.ready == {"threads": 1, "name": name}
        assert [len(record.cpu["1"]), len(record.wall["8"])] == [2, 2]
        assert record.peak_bytes > 1e6


def test_an_arm_that_fails_says_why(toy):
    arms = [compare.Arm("A", "toy_arm:arm", {**toy, "name": "A", "fails": "A"})]
    with pytest.raises(MachineError, match="no such luck"):
        compare.compare(arms, [{"key": "1"}], repeats=1, threads=1)


def test_a_missing_peer_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert command.main(["sft"]) == 1
    assert "pip install 'endonym[bench]'" in capsys.readouterr().err


def test_ratios_are_taken_round_by_round():
    # Both arms suffer in the second round; the ratio does not.
    assert compare.ratios([1, 4, 2], [2, 8, 5]) == {"median": 2, "low": 2, "high": 2.5}
    assert compare.spread([3, 1, 2]) == {"median": 2, "low": 1, "high": 3}


def test_the_machine_is_described():
    told = machine.describe()
    assert told["cores"] >= 1 and told["memory_bytes"] > 1e8 and told["cpu"]
    assert told["versions"]["torch"] and machine.version("no-such-package") is None
    before = machine.cpu_seconds()
    sum(range(2_000_000))
    assert machine.cpu_seconds() > before


@pytest.mark.parametrize("part", ["pretrain", "reward"])
def test_own_training_arms_run_and_are_told(part, in_process, capsys):
    assert command.main([part, "--tiny", "--without-peers", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    (case,) = result[part]
    (row,) = case["layouts"][0]["rows"] if part == "pretrain" else case["rows"]
    assert row["arm"] == "Endonym" and len(row["losses"]) == sft.WARMUP
    tokens = case["layouts"][0]["tokens"] if part == "pretrain" else case["tokens"]
    assert row["tokens_per_cpu_second"]["median"] == tokens
    assert "| Endonym" in command.page.page(result)


def test_the_grid_can_be_narrowed(monkeypatch, capsys, tmp_path):
    asked = []

    def run(shape, precision, threads, repeats, folder, note, *, peers, **more):
        asked.append((shape.name, precision, more))
        return {}

    monkeypatch.setattr(sft, "run", run)
    monkeypatch.setattr(command.page, "page", lambda result: "")
    given = ["sft", "--grid", "--only", "3M", "--without-peers"]
    assert command.main(given) == 0
    assert asked == [
        (f"3M {vocabulary}", precision, {"brief": True})
        for precision in ("bfloat16", "float32")
        for vocabulary in ("16k", "64k")
    ]


def test_the_gpu_benchmark_runs_on_a_toy_and_says_that_a_gpu_is_wanted(capsys):
    assert gpu.main(["--tiny", "--only", "tiny"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["compile"] for row in rows] == ["never", "always"]
    assert rows[0]["tokens_per_second"] > 0 and rows[0]["mfu"] is None
    if not importlib.util.find_spec("torch") or not __import__("torch").cuda.is_available():
        assert gpu.main([]) == 1
        assert "there is no GPU" in capsys.readouterr().err
