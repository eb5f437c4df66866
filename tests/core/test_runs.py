"""Recipes, plans, runs and the store on the toy house: what runs again and what must not."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from core import toy
from endonym.core import recipe as recipes
from endonym.core.artifact import read_artifact, verify, write_atomic
from endonym.core.audit import audit
from endonym.core.console import Console
from endonym.core.context import Context
from endonym.core.errors import DataError, MachineError, RecipeError, StoreError
from endonym.core.plan import locate, missed, plan, why
from endonym.core.runner import run
from endonym.core.store import Store, matches


@pytest.fixture
def house(tmp_path):
    path = tmp_path / "toy.toml"
    path.write_text(toy.RECIPE)
    toy.executed.clear()
    return path, Store(tmp_path / "store"), Context(console=Console(quiet=True))


def go(house, scale=None, sets=None, until=None):
    path, store, context = house
    toy.executed.clear()
    return run(recipes.load(path, scale, sets), store, toy.lookup, context, until)


def test_a_second_run_executes_nothing(house):
    done = go(house)
    assert toy.executed == ["numbers", "numbers", "total", "copy"]
    assert done["sum"].artifact.figures == {"total": 14}  # 1 + 3 + 10
    assert go(house)["text"].reused and toy.executed == []


def test_a_change_runs_only_what_depends_on_it(house):
    go(house)
    done = go(house, sets=["sum.times=2"])
    assert toy.executed == ["total", "copy"] and done["sum"].artifact.figures == {"total": 28}
    go(house, scale="big")
    assert toy.executed == ["numbers", "total", "copy"]
    go(house)  # going back finds the old artifacts
    assert toy.executed == []


def test_a_default_written_out_changes_nothing(house):
    go(house)
    go(house, sets=["sum.times=1"])
    assert toy.executed == []


def test_equal_ingredients_are_one_artifact(house):
    done = go(house, sets=["a.values=[10]"])
    assert toy.executed == ["numbers", "total", "copy"]
    assert done["a"].artifact.path == done["b"].artifact.path


def test_until_runs_only_what_is_needed(house):
    assert list(go(house, until="a")) == ["a"]
    assert toy.executed == ["numbers"]


def test_a_device_or_worker_count_changes_no_address(house):
    path, store, _ = house
    go(house)
    quiet = Console(quiet=True)
    for context in (
        Context(threads=7, console=quiet),
        Context(workers=9, rows_per_device=3, console=quiet),
    ):
        toy.executed.clear()
        run(recipes.load(path), store, toy.lookup, context)
        assert toy.executed == []


def test_outside_files_count_by_content(house, tmp_path):
    _path, store, _context = house
    for name in ("x.txt", "moved.txt"):
        (tmp_path / name).write_text("5\n")
    go(house, sets=[f'a.file="{tmp_path}/x.txt"'])
    go(house, sets=[f'a.file="{tmp_path}/moved.txt"'])
    assert toy.executed == []
    (tmp_path / "x.txt").write_text("6\n")
    done = go(house, sets=[f'a.file="{tmp_path}/x.txt"'])
    assert toy.executed == ["numbers", "total", "copy"]
    assert [row["field"] for row in audit(done["text"].artifact, store)["sources"]] == ["file"]


def test_a_relative_data_path_is_looked_up_in_the_data_folders(house, tmp_path):
    path, store, _ = house
    (tmp_path / "shelf").mkdir()
    (tmp_path / "shelf" / "x.txt").write_text("5\n")
    context = Context(data=(tmp_path / "shelf",), console=Console(quiet=True))
    loaded = recipes.load(path, sets=["a.file=x.txt"])
    assert run(loaded, store, toy.lookup, context)["sum"].artifact.figures == {"total": 19}
    with pytest.raises(DataError, match=r"did you mean 'x\.txt'"):
        plan(recipes.load(path, sets=["a.file=x.tx"]), store, toy.lookup, context.data)


def test_a_pattern_means_the_files_it_matches(tmp_path):
    store, shelf = Store(tmp_path / "store"), tmp_path / "shelf"
    (shelf / "news").mkdir(parents=True)
    for name in ("news/a.txt", "news/b.txt", "other.md"):
        (shelf / name).write_text(name)
    pattern = locate("news/*.txt", (shelf,))
    assert [p.name for p in matches(pattern)] == ["a.txt", "b.txt"]
    before = store.digest(pattern)
    (shelf / "other.md").write_text("not matched")
    assert store.digest(pattern) == before
    (shelf / "news" / "c.txt").write_text("new")
    assert store.digest(pattern) != before
    (shelf / "news" / "c.txt").unlink()
    assert store.digest(pattern) == before
    (shelf / "[1].txt").write_text("a name that looks like a pattern")
    assert matches(locate("[1].txt", (shelf,))) == []
    with pytest.raises(DataError, match="a data file is missing"):
        locate("news/*.parquet", (shelf,))


def test_why_names_the_fields(house):
    path, store, _ = house
    go(house)
    steps = plan(recipes.load(path, sets=["a.values=[1, 4]", "sum.times=5"]), store, toy.lookup)
    nearest, rows = why(steps["a"], store)
    assert nearest.record["stage"] == "numbers"
    assert rows == [("config.values[1]", 3, 4)]
    assert missed(steps["a"], steps, store) == "values[1] 3 -> 4"
    assert missed(steps["sum"], steps, store) == "times default -> 5, parts changed"


def test_a_stage_that_fails_leaves_no_artifact_and_loses_nothing(house):
    _path, store, _ = house
    with pytest.raises(RuntimeError):
        go(house, sets=["sum.fail=true"])
    assert [a.record["stage"] for a in store.all()] == ["numbers", "numbers"]
    go(house)
    assert toy.executed == ["total", "copy"]


@pytest.mark.parametrize("full", [False, True])
def test_damage_is_found_by_name(house, full):
    artifact = go(house)["a"].artifact
    target = artifact.path / "numbers.txt"
    before = target.stat()
    good = target.read_bytes()
    target.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    if full:  # the same size and time: only the full reading can see it
        os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
        verify(artifact, full=False)
    with pytest.raises(StoreError, match=r"numbers\.txt"):
        verify(artifact, full=full)
    target.unlink()
    with pytest.raises(StoreError, match="no such file"):
        go(house)


def test_a_copied_artifact_is_read_once_and_then_trusted(house):
    artifact = go(house)["a"].artifact
    os.utime(artifact.path / "numbers.txt")
    assert verify(artifact, full=False) > 0
    assert verify(artifact, full=False) == 0


def test_a_folder_without_a_record_is_not_an_artifact(house, tmp_path):
    with pytest.raises(StoreError, match="not an artifact"):
        read_artifact(tmp_path)


def test_two_makers_of_one_address_exclude_each_other(house):
    store = house[1]
    with (
        store.making("ab" * 32),
        pytest.raises(StoreError, match="another run"),
        store.making("ab" * 32),
    ):
        pass
    with store.making("ab" * 32):
        pass  # the lock is free again


def test_killed_between_writing_and_record_leaves_nothing(tmp_path):
    """kill -9 inside a stage: no artifact, the lock is free, the next run makes it whole."""
    recipe = tmp_path / "toy.toml"
    recipe.write_text(toy.RECIPE)
    script = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[2])
        from core import toy
        from endonym.core import artifact, recipe, runner, store
        from endonym.core.console import Console
        from endonym.core.context import Context
        if sys.argv[3] != "never":
            # Die at the n-th flush of the disk: inside publish, at every point of it in turn.
            count = 0
            def flush(path, real=artifact.flush):
                global count
                count += 1
                if count == int(sys.argv[3]):
                    os.kill(os.getpid(), signal.SIGKILL)
                real(path)
            artifact.flush = store.flush = flush
        root = Path(sys.argv[1])
        runner.run(recipe.load(root / "toy.toml"), store.Store(root / "store"), toy.lookup,
                   Context(console=Console(quiet=True)))
        """
    )
    tests = str(Path(__file__).parents[1])

    def child(when):
        return subprocess.run([sys.executable, "-c", script, str(tmp_path), tests, when]).returncode

    kills = 0
    for when in range(1, 40):
        if child(str(when)) == -signal.SIGKILL:
            kills += 1
            for artifact in (tmp_path / "store" / "artifacts").iterdir():
                verify(read_artifact(artifact), full=True)
        else:
            break
    assert kills >= 4
    assert child("never") == 0
    assert len(list((tmp_path / "store" / "artifacts").iterdir())) == 4
    assert list((tmp_path / "store" / "making").iterdir()) == []


def test_atomic_write_keeps_the_old_file_when_the_disk_is_full(tmp_path, monkeypatch):
    target = tmp_path / "x"
    write_atomic(target, b"old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("endonym.core.artifact.os.fsync", full)
    with pytest.raises(MachineError, match="3 bytes") as caught:
        write_atomic(target, b"new")
    assert "free" in str(caught.value)
    assert target.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[stages.a]\nuse="copy"\nsource="@b"\n[stages.b]\nuse="total"\nparts=["@a"]', "circle"),
        ('[stages.a]\nuse="copy"\nsource="@bb"\n[stages.b]\nuse="numbers"', "did you mean 'b'"),
        ('[stages.a]\nuse="numbers"\nvalus=[1]', "did you mean 'values'"),
        ('[stages.a]\nuse="numbers"\n[stages.b]\nuse="copy"\nsource="@a"', "wrong kind"),
        ('[stages.b]\nuse="copy"', "input 'source' is missing"),
        ('[stages.b]\nuse="copi"', "no stage"),
        ("[stage.b]", "did you mean 'stages'"),
        ("[stages.b", "not valid TOML"),
        ('[stages.a]\nuse="numbers"\nvalues=["${m}"]\n[vars]\nn=1', r"\$\{m\} is not defined"),
    ],
)
def test_bad_recipes_say_what_is_wrong(house, text, message):
    path, store, _ = house
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        plan(recipes.load(path), store, toy.lookup)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("nonsense", "a.b=value"),
        ("c.x=1", "names no stage"),
        ("a.values.x=1", "no table"),
        ("a.valuez=[1]", "did you mean 'values'"),
    ],
)
def test_bad_settings_say_what_is_wrong(house, word, message):
    path, store, _ = house
    with pytest.raises(RecipeError, match=message):
        plan(recipes.load(path, sets=[word]), store, toy.lookup)


def test_scales_lay_over_replace_and_drop(house):
    path, _store, _ = house
    assert recipes.load(path, "big").nodes["a"].settings["values"] == [1, 100]
    assert recipes.load(path, "other").nodes["b"].settings == {"parts": "@a"}
    assert "text" not in recipes.load(path, "small").nodes
    with pytest.raises(RecipeError, match="did you mean 'small'"):
        recipes.load(path, "smal")


def test_a_record_is_readable_json_with_what_a_reader_needs(house):
    record = json.loads((go(house)["sum"].artifact.path / "record.json").read_text())
    assert {"stage", "version", "config", "inputs", "files", "licences", "figures"} <= set(record)
    assert set(record["inputs"]["parts"]) == {"left", "right"}
    assert record["files"]["total.txt"]["bytes"] == 2


@pytest.mark.parametrize("name", ["../elsewhere", "a/b", ".hidden"])
def test_a_runs_name_is_a_folders(house, name):
    path, *_ = house
    with pytest.raises(RecipeError, match="no folder's"):
        recipes.load(path, run=name)


def test_a_recipe_may_say_its_name(house):
    path, *_ = house
    path.write_text('name = "other"\n' + path.read_text())
    assert (recipes.load(path).run, recipes.load(path, run="mine").run) == ("other-default", "mine")


def test_runs_of_two_names_stand_side_by_side(house):
    path, store, context = house
    run(recipes.load(path), store, toy.lookup, context)
    done = run(recipes.load(path, sets=["sum.times=2"], run="twice"), store, toy.lookup, context)
    links = {p.parent.name: p.resolve() for p in (store.root / "runs").glob("*/sum")}
    assert links["twice"] == done["sum"].artifact.path.resolve() != links["toy-default"]


@pytest.mark.parametrize(("number", "raised"), [(28, MachineError), (2, FileNotFoundError)])
def test_only_trouble_with_the_disk_is_told_as_such(house, monkeypatch, number, raised):
    def broken(config, context, out):
        raise OSError(number, "said by the system")

    spoilt = replace(toy.STAGES["numbers"], function=broken)
    monkeypatch.setitem(toy.STAGES, "numbers", spoilt)
    with pytest.raises(raised, match="said by the system"):
        go(house)
