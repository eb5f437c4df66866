"""Damage of every kind is named, the checkpoint before it is taken, a full disk harms nothing."""

import json
import resource
import shutil

import pytest
import torch

from endonym.core.errors import MachineError, RecipeError, StoreError
from endonym.train import loop, optim, state
from train.drill import STEPS, Loader, Tiny, context, final, objective, run, settings


class Notes:
    """A console that keeps what it was told."""

    def __init__(self):
        self.texts = []

    def __call__(self, text):
        self.texts.append(text)


def checkpoints(folder, notes=None, config="same"):
    return state.Checkpoints(folder / "checkpoints", config, {}, notes or Notes())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    run(folder)
    return folder


@pytest.fixture
def damaged(finished, tmp_path):
    """A copy of the finished run, to be damaged: checkpoints of steps 23 and 24."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def load(folder, notes):
    model = Tiny(seed=7)
    optimizer = optim.adamw(model, learning_rate=1.0)
    kept = state.Checkpoints(
        folder / "checkpoints",
        {"config": settings().model_dump(mode="json"), "data": Loader.identity},
        loop_environment(),
        notes,
    )
    return kept.load(model, optimizer, folder / "metrics.jsonl"), model, optimizer


def loop_environment():
    return loop._environment(torch.device("cpu"), torch.float32)


def newest(folder):
    return folder / "checkpoints" / f"step-{STEPS:08d}"


def test_two_checkpoints_are_kept(finished):
    names = sorted(path.name for path in (finished / "checkpoints").iterdir())
    assert names == [f"step-{STEPS - 1:08d}", f"step-{STEPS:08d}"]


def test_what_is_loaded_is_what_was_saved(finished):
    notes = Notes()
    progress, model, optimizer = load(finished, notes)
    saved = state.load_file(newest(finished) / state.TENSORS)
    found = state.state_tensors(model, optimizer)
    assert progress.step == STEPS and not notes.texts
    assert found.keys() == saved.keys()
    assert all(torch.equal(found[name], saved[name]) for name in saved)
    # 5 parameters, each with two moments and a step count
    assert len(found) == 5 * 4


def truncated(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def flipped(path, share):
    data = bytearray(path.read_bytes())
    data[int((len(data) - 1) * share)] ^= 4
    path.write_bytes(data)


SHARES = [0.0, 0.01, 0.2, 0.4, 0.6, 0.8, 0.999]
DAMAGES = {
    **{f"truncated at {share}": lambda p, s=share: truncated(p, s) for share in SHARES},
    **{f"bit flipped at {share}": lambda p, s=share: flipped(p, s) for share in [*SHARES, 1.0]},
    "deleted": lambda path: path.unlink(),
    "emptied": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("name", [state.TENSORS, state.MANIFEST])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_and_the_checkpoint_before_it_taken(damaged, name, damage):
    notes = Notes()
    DAMAGES[damage](newest(damaged) / name)
    progress, _, _ = load(damaged, notes)
    assert progress.step == STEPS - 1
    assert len(notes.texts) == 1
    assert newest(damaged).name in notes.texts[0] and name in notes.texts[0]
    assert not newest(damaged).exists()


def test_a_manifest_of_another_checkpoint_is_noticed(damaged):
    notes = Notes()
    before = damaged / "checkpoints" / f"step-{STEPS - 1:08d}"
    shutil.copy(before / state.MANIFEST, newest(damaged) / state.MANIFEST)
    assert load(damaged, notes)[0].step == STEPS - 1
    assert state.TENSORS in notes.texts[0]


def test_after_a_fall_back_the_end_is_the_same(damaged, finished):
    flipped(newest(damaged) / state.TENSORS, 0.5)
    run(damaged)
    assert final(damaged) == final(finished)


def test_nothing_is_trained_on_when_no_checkpoint_is_whole(damaged):
    for folder in (damaged / "checkpoints").iterdir():
        flipped(folder / state.TENSORS, 0.5)
    with pytest.raises(StoreError, match="no checkpoint of this run is whole"):
        run(damaged)


@pytest.mark.parametrize("damage", ["deleted", "bit flipped at 0.0", "truncated at 0.4"])
def test_a_damaged_log_is_noticed(damaged, damage):
    DAMAGES[damage](damaged / "metrics.jsonl")
    with pytest.raises(StoreError, match=r"metrics\.jsonl"):
        run(damaged)


def test_a_torn_or_longer_log_is_cut_to_the_checkpoint(damaged, finished):
    with open(damaged / "metrics.jsonl", "ab") as file:
        file.write(b'{"step": 24, "loss"')
    run(damaged)
    assert final(damaged) == final(finished)


def test_other_settings_are_refused(damaged):
    with pytest.raises(StoreError, match="other settings"):
        run(damaged, learning_rate=0.5)


def test_other_data_are_refused(damaged):
    class Other(Loader):
        identity = "3 n + 2"

    with pytest.raises(StoreError, match="other settings or data"):
        loop.train(Tiny(), objective, Other(), settings(), context(damaged))


def test_another_model_is_refused(finished, tmp_path):
    model = Tiny()
    model.layer = torch.nn.Linear(8, 9)
    with pytest.raises(StoreError, match=r"layer\.bias"):
        state.restore(
            model,
            optim.adamw(model, learning_rate=1.0),
            state.load_file(newest(finished) / state.TENSORS),
            tmp_path,
        )


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    model = Tiny()
    optimizer = optim.adamw(model, learning_rate=1.0)
    kept = checkpoints(tmp_path)
    kept.save(model, optimizer, state.Progress(step=1))
    with torch.no_grad():
        model.layer.weight[0, 0] = float("nan")
    with pytest.raises(RecipeError, match=r"model/layer\.weight after 2 steps"):
        kept.save(model, optimizer, state.Progress(step=2))
    assert [folder.name for folder in kept.steps()] == ["step-00000001"]


def test_a_save_that_finds_no_room_harms_nothing(tmp_path, finished):
    """A file-size limit is the full disk that a test can have without being root."""
    folder = tmp_path / "run"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    shutil.copytree(finished, folder)
    shutil.rmtree(newest(folder))
    limited = (newest(finished) / state.TENSORS).stat().st_size - 100
    with pytest.raises(MachineError) as caught:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limited, before[1]))
            run_from(folder)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    needed = sum(t.numel() * 4 for t in state.load_file(newest(finished) / state.TENSORS).values())
    assert f"{needed} bytes" in str(caught.value) and "is intact" in str(caught.value)
    assert [path.name for path in (folder / "checkpoints").iterdir()] == [f"step-{STEPS - 1:08d}"]
    run_from(folder)
    assert final(folder) == final(finished)


def run_from(folder):
    """The same run; logs of TensorBoard aside, so that the limit meets the checkpoint alone."""
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    return run(folder)


def test_a_full_disk_under_the_log_is_told(tmp_path):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(MachineError, match=r"metrics\.jsonl"):
        run(tmp_path)


def test_the_order_on_the_disk(tmp_path, monkeypatch):
    """fsync of the files, of their folder, rename, fsync of the parent; removal last."""
    calls = []
    model = Tiny()
    optimizer = optim.adamw(model, learning_rate=1.0)
    kept = checkpoints(tmp_path)
    for step in (1, 2):
        kept.save(model, optimizer, state.Progress(step=step))
    flush, rename, fsync = state.flush, state.Path.rename, state.os.fsync

    def seen(path):
        calls.append(f"flush {path.name}")
        flush(path)

    def moved(path, target):
        calls.append(f"rename {path.name.split('-')[0]} to {target.name}")
        return rename(path, target)

    def synced(handle):
        calls.append("fsync")
        fsync(handle)

    monkeypatch.setattr(state, "flush", seen)
    monkeypatch.setattr(state.Path, "rename", moved)
    monkeypatch.setattr(state.os, "fsync", synced)
    kept.save(model, optimizer, state.Progress(step=3))
    calls = [call.replace(f"-{state.os.getpid()}", "") for call in calls]
    assert calls == [
        "flush state.safetensors",
        "fsync",
        "fsync",  # the manifest, written last
        "flush writing",
        "fsync",
        "rename writing to step-00000003",
        "flush checkpoints",
        "fsync",
        "rename step to removing-step-00000001",
    ]
    assert json.loads((newest(tmp_path).with_name("step-00000003") / state.MANIFEST).read_text())


def test_the_same_run_twice_is_bitwise_the_same(finished, tmp_path):
    loop.train(Tiny(), objective, Loader(), settings(), context(tmp_path))
    assert final(tmp_path) == final(finished)
