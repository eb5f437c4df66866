"""A store made by many workers is the store made by one; kills, failures and clusters included."""

import os
import random
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from endonym.core.errors import DataError, MachineError, RecipeError
from endonym.data import bulk
from endonym.data.bulk import shard_rows, tokenised
from endonym.data.document import Conversation, Document, write_table
from endonym.tokenizer.train import train

pytest.importorskip("datatrove", reason="datatrove is not installed: pip install 'endonym[data]'")

WORDS = ["".join(random.Random(n).choices("abcdefg", k=4)) for n in range(200)]
ROWS = 1100  # three shards


def said(n, reply="yes"):
    return [{"role": "user", "content": WORDS[n % 200]}, {"role": "assistant", "content": reply}]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Tables of documents and of conversations, a tokenizer, and the stores that one process makes."""
    home, rng = tmp_path_factory.mktemp("bulk ภาษา"), random.Random(0)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(1, 30))) for _ in range(ROWS)]
    documents = [
        Document(str(n), text, ["en", "th"][n % 2], f"s{n % 3}", scores={"q": n / 8})
        for n, text in enumerate(texts)
    ]
    talks = [Conversation(str(n), said(n, "yes " * (n % 4 + 1)), "en") for n in range(ROWS)]
    write_table(home / "documents.parquet", documents)
    write_table(home / "conversations.parquet", talks)
    broken = [*talks[:900], Conversation("bad one", said(5)[:1]), *talks[901:]]
    write_table(home / "broken.parquet", broken)
    tokenizer = train(texts, 400)
    tokenizer.save(home / "tokenizer")
    made(home, Document, "one", workers=1)
    made(home, Conversation, "one", workers=1, learn="all")
    return home


def made(home, kind, name, table="", at=None, **settings):
    noun = f"{kind.__name__.lower()}s"
    return tokenised(
        (at or home) / f"{noun}.{name}",
        home / f"{table or noun}.parquet",
        kind,
        home / "tokenizer",
        "key",
        **settings,
    )


def assert_same(store, one):
    assert store.identity == one.identity
    assert np.array_equal(store.offsets, one.offsets)
    assert np.array_equal(store.ids, one.ids)
    assert (store.weights is None) == (one.weights is None)
    if one.weights is not None:
        assert np.array_equal(store.weights, one.weights)
    assert store.scores.keys() == one.scores.keys()
    for name in one.scores:
        assert np.array_equal(store.scores[name], one.scores[name])
    for labels, wanted in ((store.languages, one.languages), (store.sources, one.sources)):
        names = np.array(labels.names)[labels.codes]
        assert np.array_equal(names, np.array(wanted.names)[wanted.codes])


def test_any_number_of_workers_makes_the_same_store(home):
    kind, settings = Conversation, {"learn": "all"}
    one = made(home, kind, "one", **settings)
    assert [shard.folder.name for shard in one.shards] == [one.folder.name]
    store = made(home, kind, "two", workers=2, **settings)
    assert [shard.folder.name for shard in store.shards] == ["000", "001", "002"]
    assert_same(store, one)
    assert {file.name for file in store.folder.iterdir()} == {"000", "001", "002", "meta.json"}
    # what stands there is opened, by any number of workers
    before = (store.folder / "meta.json").stat().st_mtime_ns
    assert_same(made(home, kind, "two", workers=1, **settings), one)
    assert_same(made(home, kind, "two", workers=3, **settings), one)
    assert (store.folder / "meta.json").stat().st_mtime_ns == before


def test_a_workers_error_is_raised_here_with_its_row(home):
    with pytest.raises(DataError, match="conversation 900 cannot be trained on") as here:
        made(home, Conversation, "broken.one", "broken")
    with pytest.raises(DataError) as there:
        made(home, Conversation, "broken.two", "broken", workers=2)
    assert str(there.value) == str(here.value)
    folder = home / "conversations.broken.two"
    assert not (folder / "meta.json").exists()
    assert processes(folder) == []


def test_shards_depend_on_the_table_alone():
    assert [shard_rows(rows) for rows in (1, 512, 10_000, 262_144)] == [512] * 4
    assert shard_rows(10_000_000) == 19_532 and -(-10_000_000 // 19_532) == 512


def test_settings_that_no_executor_knows_are_refused(home):
    with pytest.raises(RecipeError, match="no executor 'slum'") as caught:
        made(home, Document, "x", executor="slum")
    assert "slurm" in str(caught.value)
    with pytest.raises(RecipeError, match="local workers have no settings"):
        made(home, Document, "x", workers=2, partition="cpu")
    assert not (home / "documents.x" / "meta.json").exists()


def test_a_missing_library_is_named_with_its_extra(home, monkeypatch):
    monkeypatch.setitem(sys.modules, "datatrove", None)
    with pytest.raises(MachineError, match="datatrove is not installed") as caught:
        made(home, Document, "x", workers=2)
    assert "endonym[data]" in str(caught.value)


def test_ray_is_asked_for_when_it_is_wanted(home):
    try:
        import ray  # noqa: F401
    except ImportError:
        with pytest.raises(MachineError, match="ray is not installed"):
            made(home, Document, "ray", executor="ray")
    else:
        assert_same(made(home, Document, "ray", executor="ray"), made(home, Document, "one"))


# --- kills ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long(home):
    """A table of six shards that take a while each."""
    rng = random.Random(1)
    texts = [" ".join(rng.choices(WORDS, k=150)) for _ in range(600)]
    rows = (Document(str(n), texts[n * 7 % 600] + f" {n}") for n in range(6 * 512))
    write_table(home / "long.parquet", rows)
    return home


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")


def processes(folder):
    """Processes of the group that works on a store: (process, command)."""
    found, group = [], None
    for place in Path("/proc").glob("[0-9]*"):
        try:
            command = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            fields = (place / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields[0] != "Z":
            found.append((int(place.name), int(fields[2]), command))
        if "endonym.data.bulk" in command and str(folder / bulk.WORK) in command:
            group = int(fields[2])
    return [(process, command) for process, own, command in found if own == group]


@pytest.fixture
def begun():
    """Starts a process that makes the long table's store with two workers; back when a shard is done."""
    started = []
    yield lambda home, name: started.append(_begun(home, name)) or started[-1]
    for process in started:
        process.kill()
        process.communicate()


def _begun(home, name, seconds=60):
    code = (
        "import sys; from pathlib import Path; from endonym.data.bulk import tokenised\n"
        "from endonym.data.document import Document\n"
        "home, name = Path(sys.argv[1]), sys.argv[2]\n"
        "tokenised(home / name, home / 'long.parquet', Document, home / 'tokenizer', 'key', 2)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(home), name],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "RAYON_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + seconds
    while not done(home / name):
        assert process.poll() is None and time.monotonic() < deadline, process.stderr.read()
        time.sleep(0.01)
    return process


def done(folder):
    return sorted(file.name for file in (folder / bulk.WORK / "completions").glob("*"))


def gone(folder_processes, seconds=5):
    """Whether processes end within so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(Path(f"/proc/{process}").exists() for process, _ in folder_processes):
            return True
        time.sleep(0.05)
    return False


@needs_proc
def test_a_killed_run_leaves_no_process_and_goes_on_where_it_stopped(long, begun):
    folder = long / "killed"
    process = begun(long, "killed")
    workers = processes(folder)
    assert len(workers) >= 4  # the server, datatrove's manager, the fork server, two workers
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert gone(workers)
    assert not (folder / "meta.json").exists()
    finished = {name: (folder / name[2:] / "meta.json").stat().st_ino for name in done(folder)}
    assert 1 <= len(finished) < 6
    (folder / f"{len(finished):03d}.partial").mkdir(exist_ok=True)  # as a kill leaves it
    table = (long / "long.parquet", Document, long / "tokenizer", "key")
    store = tokenised(folder, *table, workers=3)
    assert_same(store, tokenised(long / "whole", *table))
    for name, inode in finished.items():
        assert (folder / name[2:] / "meta.json").stat().st_ino == inode
    assert {file.name for file in folder.iterdir()} == {
        "meta.json",
        *(f"{number:03d}" for number in range(6)),
    }


@needs_proc
def test_a_killed_worker_ends_the_run_with_a_word(long, begun):
    folder = long / "worker"
    process = begun(long, "worker")
    group = processes(folder)
    hands = []
    while not hands:
        hands = bulk._running(folder / bulk.WORK)
    os.kill(hands[0], signal.SIGKILL)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 1
    assert "a worker ended before its part of the token store was written" in said
    assert gone(group)
    assert not (folder / "meta.json").exists()


def test_another_jobs_remains_are_not_used(home):
    folder = home / "documents.remains"
    (folder / "work" / "completions").mkdir(parents=True)
    (folder / "work" / "completions" / "00000").touch()
    (folder / "work" / "job.json").write_text('{"identity": "another"}')
    (folder / "000").mkdir()
    (folder / "007").mkdir()
    assert_same(made(home, Document, "remains", workers=2), made(home, Document, "one"))
    assert not (folder / "007").exists()


# --- Slurm, by commands that stand in for it --------------------------------------------------------

SBATCH = """#!/bin/bash
# Runs the tasks of an array at once; the job of datatrove that sums up its figures is not run.
for script; do :; done
echo "$@" >> "$FAKE_SLURM/sbatch.log"
cp "$script" "$FAKE_SLURM/script"
if ! grep -q dependency "$script"; then
    last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$script")
    for task in $(seq 0 "$last"); do
        SLURM_ARRAY_TASK_ID=$task SLURM_NODELIST=here RUN_OFFSET=0 bash "$script" \\
            > "$FAKE_SLURM/task.$task" 2>&1
    done
    cp "$script" "$FAKE_SLURM/array"
fi
echo "Submitted batch job 17"
"""
COMMANDS = {
    "sbatch": SBATCH,
    "srun": '#!/bin/bash\nwhile [[ "$1" == -* ]]; do [[ "$1" == -n ]] && shift; shift; done\n"$@"\n',
    "squeue": "#!/bin/bash\nexit 1\n",
    "scancel": '#!/bin/bash\necho "$@" >> "$FAKE_SLURM/scancel.log"\n',
    "scontrol": "#!/bin/bash\necho here\n",
}


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    for name, script in COMMANDS.items():
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod((tmp_path / name).stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("FAKE_SLURM", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    return tmp_path


def test_slurm_makes_the_same_store(home, slurm):
    settings = {"partition": "cpu", "time": "01:00:00", "cpus_per_task": 2, "mem_per_cpu_gb": 3}
    store = made(home, Document, "s", at=slurm, executor="slurm", workers=5, **settings)
    assert_same(store, made(home, Document, "one"))
    script = (slurm / "array").read_text()
    for line in ("partition=cpu", "time=01:00:00", "cpus-per-task=2", "mem-per-cpu=3G"):
        assert f"#SBATCH --{line}\n" in script
    assert "#SBATCH --array=0-2%5\n" in script
    assert not (slurm / "scancel.log").exists()


def test_an_error_of_a_slurm_task_is_raised_here(home, slurm):
    (slurm / "sbatch").write_text(SBATCH.replace("seq 0", "seq 1"))
    settings = {"at": slurm, "partition": "cpu", "time": "01:00:00"}
    with pytest.raises(DataError, match="conversation 900 cannot be trained on"):
        made(home, Conversation, "broken", "broken", executor="slurm", **settings)
    assert (slurm / "scancel.log").read_text() == "17\n"  # what is left would be in vain


def test_slurm_tasks_that_never_ran_are_said(home, slurm):
    (slurm / "sbatch").write_text("#!/bin/bash\necho Submitted batch job 18\n")
    settings = {"at": slurm, "partition": "cpu", "time": "01:00:00"}
    with pytest.raises(MachineError, match="a worker ended before its part"):
        made(home, Document, "never", executor="slurm", **settings)


def test_slurm_settings_are_checked(home, slurm):
    with pytest.raises(RecipeError, match="the setting 'partition' is missing"):
        made(home, Document, "s", at=slurm, executor="slurm", time="01:00:00")
    with pytest.raises(RecipeError, match="no setting 'partitions'") as caught:
        made(home, Document, "s", at=slurm, executor="slurm", partitions="cpu", time="01:00:00")
    with pytest.raises(MachineError, match="no path with white space"):
        made(home, Document, "s", executor="slurm", partition="cpu", time="01:00:00")
    assert "'partition'" in str(caught.value)
    (slurm / "sbatch").unlink()
    with pytest.raises(MachineError, match="no sbatch here"):
        made(home, Document, "s", executor="slurm", partition="cpu", time="01:00:00")
