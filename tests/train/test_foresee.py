"""R14: memory is reckoned before the first step, and what fails after all is told in words."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from endonym.core.errors import MachineError
from endonym.model import hf
from endonym.model.config import ModelConfig
from endonym.train import foresee, loop, room
from endonym.train.config import TrainConfig
from endonym.train.foresee import CPU_TOKENS, FILLED, Foresight, Forward, is_out_of_memory
from endonym.train.parallel import Ranks
from train.drill import Loader, Tiny, context, objective, settings

CPU = torch.device("cpu")
SIZES = ModelConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
)


def foresight(monkeypatch, free, folder=Path("."), ranks=None, **changes):
    monkeypatch.setattr(foresee, "room", lambda device: room.Room(free, "a test"))
    config = TrainConfig(steps=1, learning_rate=1.0)
    here = context(folder, **changes)
    return Foresight(hf.new(SIZES, 0), config, here, CPU, torch.float32, ranks or Ranks())


def test_the_largest_split_that_fits_is_taken(monkeypatch):
    shapes = [(64, 128)]
    whole = foresight(monkeypatch, 1e12)
    assert whole.forward(shapes) == Forward(CPU_TOKENS)
    assert whole.forward(shapes).count(64, 128) == CPU_TOKENS // 128 < 64
    need = whole.memory(1024).total - whole._held
    # A quarter of the rows needs this much, of which FILLED may be used; half of them more.
    some = foresight(monkeypatch, need / FILLED + 1).forward(shapes)
    assert some.tokens == 1024 and some.count(64, 128) == 8
    less = foresight(monkeypatch, need / FILLED - 1).forward(shapes)
    assert less.count(64, 128) == 4


def test_a_resumed_run_splits_as_before(monkeypatch):
    assert foresight(monkeypatch, 1e12).forward([(64, 128)], before=512) == Forward(512)


def test_one_row_is_the_least_and_may_be_longer_than_the_choice(monkeypatch):
    choice = foresight(monkeypatch, 1e12).forward([(4, 2 * CPU_TOKENS), (64, 128)])
    assert (choice.count(4, 2 * CPU_TOKENS), choice.count(64, 128)) == (1, CPU_TOKENS // 128)


def test_rows_that_are_asked_for_are_kept_to(monkeypatch):
    choice = foresight(monkeypatch, 1e12, rows_per_device=3).forward([(64, 128)])
    assert choice.count(64, 128) == 3 and choice.count(2, 128) == 2
    assert [len(part) for part in Forward(0, 3).split(Loader().rows(0))] == [3, 3, 2]
    assert len(Forward(0, 8).split(Loader().rows(0))) == 1


def test_all_ranks_take_as_many_parts(monkeypatch):
    class Poorer(Ranks):
        def largest(self, number):
            return max(number, -300)  # another rank has room for 300 tokens

    assert foresight(monkeypatch, 1e12, ranks=Poorer()).forward([(64, 128)]).tokens == 300


@pytest.mark.parametrize(
    ("rows", "share", "remedies"),
    [
        # Weights and moments fit, the activations of 64 rows do not.
        (64, 0.65, ["--rows-per-device 32", "--checkpointing"]),
        (1, 0.05, ["a machine with more memory"]),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(monkeypatch, rows, share, remedies):
    need = foresight(monkeypatch, 1e12)
    free = share * (need.memory(rows * 128).total - need._held)
    with pytest.raises(MachineError) as caught:
        foresight(monkeypatch, free, rows_per_device=rows).forward([(rows, 128)])
    told = str(caught.value)
    assert f"{rows * 128} tokens" in told and "activations" in told and "a test" in told
    assert all(remedy in told for remedy in remedies)


def test_remedies_are_enough_by_themselves(monkeypatch):
    need = foresight(monkeypatch, 1e12)
    free = 0.65 * (need.memory(64 * 128).total - need._held)
    less = foresight(monkeypatch, free, rows_per_device=32)
    assert less.forward([(64, 128)]).rows == 32
    anew = foresight(monkeypatch, free, rows_per_device=64, checkpointing=True)
    assert anew.forward([(64, 128)]).rows == 64


def test_a_foreign_model_takes_its_states_at_least(monkeypatch):
    monkeypatch.setattr(foresee, "room", lambda device: None)
    model = Tiny()
    model.layer.weight.requires_grad_(False)
    memory = Foresight(model, settings(), context(Path(".")), CPU, torch.float32, Ranks()).memory(
        100
    )
    total = 13 * 8 + 8 + 8 + 64 + 8
    assert (memory.weights, memory.gradients) == (4 * total, 4 * (total - 64))


def test_the_run_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(foresee, "room", lambda device: room.Room(10, "a test"))
    with pytest.raises(MachineError, match="does not fit into memory"):
        loop.train(Tiny(), objective, Loader(), settings(), context(tmp_path))
    assert not (tmp_path / "checkpoints").exists()


def test_memory_that_runs_out_in_a_step_is_told_in_words(tmp_path):
    def hungry(model, rows):
        if hungry.calls == 3:
            torch.empty(1 << 60)
        hungry.calls += 1
        return objective(model, rows)

    hungry.calls = 0
    here = context(tmp_path, checkpoint_seconds=0.0)
    with pytest.raises(MachineError, match="memory ran out") as caught:
        loop.train(Tiny(), hungry, Loader(), settings(), here)
    assert "48 tokens" in str(caught.value) and "weights" in str(caught.value)
    # What was saved is whole: the run goes on from there.
    figures = loop.train(Tiny(), objective, Loader(), settings(), here)
    assert figures["resumed_at"] == 3


def test_other_errors_are_left_as_they_are(tmp_path):
    def broken(model, rows):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        loop.train(Tiny(), broken, Loader(), settings(), context(tmp_path))
    assert is_out_of_memory(MemoryError()) and not is_out_of_memory(ValueError("memory"))


def test_a_step_in_parts_is_the_step(tmp_path, monkeypatch):
    """The split that is chosen for want of memory changes rounding alone."""
    ends = []
    for tokens in (48, 12):
        model = Tiny(dropout=0.0)
        monkeypatch.setattr(foresee, "CPU_TOKENS", tokens)
        figures = loop.train(
            model, objective, Loader(), settings(), context(tmp_path / str(tokens))
        )
        assert figures["tokens_at_once"] == tokens
        ends.append(model.state_dict())
    for name, tensor in ends[0].items():
        torch.testing.assert_close(tensor, ends[1][name], atol=1e-6, rtol=0)


# ---------------------------------------------------------------- what this process may take


def group(tmp_path, monkeypatch, lines, files):
    monkeypatch.setattr(room, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(room, "PROC", tmp_path / "proc")
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text(lines)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 900 kB\nMemAvailable:  800 kB\n")
    for name, text in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return room.room(CPU)


def test_the_least_of_all_limits_counts(tmp_path, monkeypatch):
    # The outer group leaves 500,000 - 300,000 + 50,000 of idle file pages, the inner one has no limit.
    found = group(
        tmp_path,
        monkeypatch,
        "0::/jobs/one\n",
        {
            "jobs/one/memory.max": "max\n",
            "jobs/one/memory.current": "1000\n",
            "jobs/memory.max": "500000\n",
            "jobs/memory.current": "300000\n",
            "jobs/memory.stat": "anon 1\ninactive_file 50000\n",
        },
    )
    assert found.free == 250_000 and "control group" in found.limit


def test_control_groups_of_the_first_version(tmp_path, monkeypatch):
    found = group(
        tmp_path,
        monkeypatch,
        "3:cpuset:/\n4:cpu,memory:/box\n",
        {
            "memory/box/memory.limit_in_bytes": "400000\n",
            "memory/box/memory.usage_in_bytes": "100000\n",
            "memory/box/memory.stat": "total_inactive_file 1000\n",
            "memory/memory.limit_in_bytes": f"{(1 << 63) - 4096}\n",
            "memory/memory.usage_in_bytes": "1\n",
        },
    )
    assert found.free == 301_000


def test_without_a_group_the_machine_itself(tmp_path, monkeypatch):
    assert group(tmp_path, monkeypatch, "", {}) == room.Room(819_200, "the machine's memory")


LIMITED = """
    import json, resource, sys
    from pathlib import Path
    import torch
    from endonym.core.errors import EndonymError
    from endonym.model import hf
    from endonym.model.config import ModelConfig
    from endonym.methods.nll import nll
    from endonym.methods.batch import Rows
    from endonym.train import loop
    from train.drill import context, settings

    torch.set_num_threads(1)
    model = hf.new(ModelConfig(vocab_size=512, hidden_size=64, intermediate_size=128,
                               num_hidden_layers=2, num_attention_heads=2), 0)

    class Data:
        identity = "x"
        def rows(self, step, part=(0, 1)):
            tokens = torch.randint(0, 512, (64, LENGTH), generator=torch.Generator().manual_seed(step))
            ones = torch.ones_like(tokens)
            return Rows(tokens, tokens, ones.float(), ones, torch.arange(LENGTH).expand(64, LENGTH))

    def objective(model, rows):
        hidden = model(rows.tokens, positions=rows.positions, segments=rows.segments)
        return nll(hidden, model.head, rows.labels, rows.weights)

    LENGTH, folder = 16, Path(sys.argv[1])
    loop.train(model, objective, Data(), settings(steps=1), context(folder / "first"))
    LENGTH = 1024
    pages = int(open("/proc/self/statm").read().split()[0])
    most = pages * 4096 + int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    told = {}
    for name, rows in (("fixed", 64), ("chosen", None)):
        here = context(folder / name, rows_per_device=rows)
        try:
            told[name] = loop.train(model, objective, Data(), settings(steps=1), here)
        except EndonymError as error:
            told[name] = str(error)
    print(json.dumps(told))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits addresses, and reads /proc")
def test_under_a_limit_of_addresses_a_run_is_refused_or_split(tmp_path):
    """64 rows of 1,024 tokens at once do not fit into 200 MB, by the estimate as by malloc; in parts
    that are chosen by themselves they do."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LIMITED), tmp_path, str(200 << 20)],
        env={"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert "does not fit into memory" in told["fixed"] and "ulimit -v" in told["fixed"]
    assert "--rows-per-device" in told["fixed"]
    assert told["chosen"]["steps"] == 1 and told["chosen"]["tokens_at_once"] < 64 * 1024


def test_rows_are_those_of_the_first_step_of_each_span(tmp_path, monkeypatch):
    class Longer(Loader):
        def rows(self, step):
            rows = super().rows(step)
            if step < 4:
                return rows
            return rows.each(lambda part: torch.cat([part] * 3, 1))

    seen = []
    forward = Foresight.forward

    def told(self, shapes, before=None):
        seen.append(list(shapes))
        return forward(self, shapes, before)

    monkeypatch.setattr(Foresight, "forward", told)
    spans = [{"steps": 4}, {"steps": 4}]
    config = TrainConfig(steps=8, learning_rate=1e-2, precision="float32", spans=spans)
    loop.train(Tiny(), objective, Longer(), config, context(tmp_path))
    assert seen[0] == [(8, 6), (8, 18)]


def test_processes_on_one_machine_share_its_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert group(tmp_path, monkeypatch, "", {}) == room.Room(204_800, "the machine's memory")
