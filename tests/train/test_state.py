"""Damage of every kind is named, the checkpoint before it is taken, a full disk harms nothing."""

import json
import resource
import shutil

import pytest
import torch
from safetensors.torch import load_file

from endonym.core.errors import MachineError, RecipeError, StoreError
from endonym.train import loop, optim, state
from endonym.train.config import Keep
from endonym.train.manifest import FORMAT, MANIFEST, Progress, sha256_of
from train.drill import STEPS, Loader, Tiny, context, final, objective, run, settings


class Notes:
    """A console that keeps what it was told."""

    def __init__(self):
        self.texts = []

    def __call__(self, text):
        self.texts.append(text)


def checkpoints(folder, notes=None, config="same", **more):
    return state.Checkpoints(folder / "checkpoints", config, {}, notes or Notes(), **more)


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
    optimizer = optim.build(model, settings())
    saved = json.loads((newest(folder).parent / f"step-{STEPS - 1:08d}" / MANIFEST).read_text())
    kept = state.Checkpoints(folder / "checkpoints", saved["settings"], saved["environment"], notes)
    return kept.load(model, optimizer, folder / "metrics.jsonl"), model, optimizer


def newest(folder):
    return folder / "checkpoints" / f"step-{STEPS:08d}"


def test_two_checkpoints_are_kept(finished):
    names = sorted(path.name for path in (finished / "checkpoints").iterdir())
    assert names == [f"step-{STEPS - 1:08d}", f"step-{STEPS:08d}"]


def test_what_is_loaded_is_what_was_saved(finished):
    notes = Notes()
    progress, model, optimizer = load(finished, notes)
    saved = load_file(newest(finished) / state.TENSORS)
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


DAMAGES = {
    **{f"truncated at {n}/10": lambda p, n=n: truncated(p, n / 10) for n in range(10)},
    **{f"bit flipped at {n}/19": lambda p, n=n: flipped(p, n / 19) for n in range(20)},
    "deleted": lambda path: path.unlink(),
    "emptied": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("name", [state.TENSORS, MANIFEST])
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
    shutil.copy(before / MANIFEST, newest(damaged) / MANIFEST)
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


@pytest.mark.parametrize("damage", ["deleted", "bit flipped at 0/19", "truncated at 4/10"])
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
    with pytest.raises(StoreError, match="other settings") as error:
        run(damaged, learning_rate=0.5)
    assert error.value.wanted == {"config": {"learning_rate": 0.5}}, "only what differs is told"
    assert error.value.got == {"config": {"learning_rate": 0.01}}


def test_other_data_are_refused(damaged):
    class Other(Loader):
        identity = "3 n + 2"

    with pytest.raises(StoreError, match="other settings or data"):
        loop.train(Tiny(), objective, Other(), settings(), context(damaged))


def test_another_model_is_refused(finished):
    model = Tiny()
    model.layer = torch.nn.Linear(8, 9)
    with pytest.raises(StoreError, match=r"layer\.bias"):
        state.restore(
            model,
            optim.build(model, settings()),
            state.Saved(newest(finished), [state.TENSORS]),
        )


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    model = Tiny()
    optimizer = optim.build(model, settings())
    kept = checkpoints(tmp_path)
    kept.save(model, optimizer, Progress(step=1))
    with torch.no_grad():
        model.layer.weight[0, 0] = float("nan")
    with pytest.raises(RecipeError, match=r"model/layer\.weight after 2 steps"):
        kept.save(model, optimizer, Progress(step=2))
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
    needed = sum(t.numel() * 4 for t in load_file(newest(finished) / state.TENSORS).values())
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
    optimizer = optim.build(model, settings())
    kept = checkpoints(tmp_path)
    for step in (1, 2):
        kept.save(model, optimizer, Progress(step=step))
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
    kept.save(model, optimizer, Progress(step=3))
    assert calls == [
        "flush state.safetensors",
        "fsync",
        "fsync",  # the manifest, written last
        "flush writing-00000003",
        "fsync",
        "rename writing to step-00000003",
        "flush checkpoints",
        "fsync",
        "rename step to removing-step-00000001",
    ]
    assert json.loads((newest(tmp_path).with_name("step-00000003") / MANIFEST).read_text())


def test_the_same_run_twice_is_bitwise_the_same(finished, tmp_path):
    loop.train(Tiny(), objective, Loader(), settings(), context(tmp_path))
    assert final(tmp_path) == final(finished)


def saved(tmp_path, steps, **more):
    """A model, its optimizer after a step, and the checkpoints of these steps."""
    model = Tiny()
    optimizer = optim.build(model, settings())
    model(torch.zeros(1, 2, dtype=torch.long)).sum().backward()
    optimizer.step()
    kept = checkpoints(tmp_path, **more)
    for step in steps:
        kept.save(model, optimizer, Progress(step=step, extra={"step": step}))
    return model, optimizer, kept


def names(kept):
    return [int(folder.name.removeprefix("step-")) for folder in kept.steps()]


def test_some_checkpoints_are_kept_for_good(tmp_path):
    _, _, kept = saved(tmp_path, range(9), keep=Keep(last=1, every=3))
    assert names(kept) == [3, 6, 8]


def test_a_held_checkpoint_stays_as_long_as_it_is_held(tmp_path):
    model, optimizer, kept = saved(tmp_path, [0], keep=Keep(last=1))
    kept.held = {0}
    kept.save(model, optimizer, Progress(step=4))
    assert names(kept) == [0, 4]
    kept.held = set()
    kept.save(model, optimizer, Progress(step=5))
    assert names(kept) == [5]


def test_back_to_a_checkpoint_leaves_none_after_it(tmp_path):
    model, optimizer, kept = saved(tmp_path, [1, 2, 3], keep=Keep(last=3))
    wanted = model.layer.weight.detach().clone()
    with torch.no_grad():
        model.layer.weight.zero_()
    progress = kept.back_to(2, model, optimizer, tmp_path / "metrics.jsonl")
    assert progress == Progress(step=2, extra={"step": 2}) and names(kept) == [1, 2]
    assert torch.equal(model.layer.weight, wanted)
    with pytest.raises(StoreError, match="step-00000001"):
        flipped(kept.folder / "step-00000001" / state.TENSORS, 0.5)
        kept.back_to(1, model, optimizer, tmp_path / "metrics.jsonl")


def test_extra_tensors_come_back_in_place(tmp_path):
    model, optimizer, kept = saved(tmp_path, [])
    mean, count = torch.arange(6.0).view(2, 3), torch.tensor(7)
    kept.save(model, optimizer, Progress(step=1), {"mean": mean, "count": count})
    found = {"mean": torch.zeros(2, 3), "count": torch.tensor(0)}
    kept.load(model, optimizer, tmp_path / "metrics.jsonl", found)
    assert torch.equal(found["mean"], mean) and found["count"] == 7
    with pytest.raises(StoreError, match="extra/count"):
        kept.load(model, optimizer, tmp_path / "metrics.jsonl", {"mean": found["mean"]})


def test_weights_that_do_not_learn_are_not_saved(tmp_path):
    model = Tiny()
    model.embed_tokens.weight.requires_grad_(False)
    optimizer = optim.build(model, settings())
    kept = checkpoints(tmp_path)
    kept.save(model, optimizer, Progress(step=1))
    tensors = load_file(kept.steps()[0] / state.TENSORS)
    assert "model/layer.weight" in tensors and "model/embed_tokens.weight" not in tensors
    start = model.embed_tokens.weight.clone()
    kept.load(model, optimizer, tmp_path / "metrics.jsonl")
    assert torch.equal(model.embed_tokens.weight, start)


def exported(model, folder):
    (folder / "inner").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "inner" / "weights").write_bytes(model.layer.weight.detach().numpy().tobytes())


@pytest.mark.parametrize("name", ["config.json", "inner/weights"])
def test_an_exported_model_lies_beside_the_state_and_is_verified_with_it(tmp_path, name):
    notes = Notes()
    model, optimizer, kept = saved(tmp_path, [1, 2], export=exported, notes=notes)
    flipped(kept.steps()[1] / "model" / name, 0.0)
    assert kept.load(model, optimizer, tmp_path / "metrics.jsonl").step == 1
    assert f"model/{name}" in notes.texts[0]


def test_an_export_that_finds_no_room_leaves_the_old_checkpoint(tmp_path):
    def full(model, folder):
        folder.mkdir()
        raise OSError(28, "No space left on device")

    model, optimizer, _ = saved(tmp_path, [1])
    kept = checkpoints(tmp_path, export=full)
    with pytest.raises(MachineError, match="step-00000001, which is intact"):
        kept.save(model, optimizer, Progress(step=2))
    assert [path.name for path in kept.folder.iterdir()] == ["step-00000001"]


def rewritten(folder, change):
    """A manifest with another content and the right hash of it."""
    body = json.loads((folder / MANIFEST).read_text())
    change(body)
    body.pop("sha256")
    body["sha256"] = sha256_of(body)
    (folder / MANIFEST).write_text(json.dumps(body))


def test_a_checkpoint_of_the_release_before_still_loads(damaged, finished):
    """Format 1 named no format, had no `extra`, and knew fewer settings."""

    def older(body):
        del body["format"], body["progress"]["extra"]
        for name in ("optimizer", "ema", "gates", "on_spike", "keep"):
            del body["settings"]["config"][name]

    for folder in (damaged / "checkpoints").iterdir():
        rewritten(folder, older)
    kept = state.Checkpoints(
        damaged / "checkpoints",
        json.loads((newest(finished) / MANIFEST).read_text())["settings"],
        {},
        Notes(),
        defaults=settings().defaults(),
    )
    model = Tiny(seed=7)
    optimizer = optim.build(model, settings())
    assert kept.load(model, optimizer, damaged / "metrics.jsonl").step == STEPS


def test_a_checkpoint_of_a_later_release_is_refused_with_words(damaged):
    notes = Notes()
    rewritten(newest(damaged), lambda body: body.update(format=FORMAT + 1))
    assert load(damaged, notes)[0].step == STEPS - 1
    assert "a later release" in notes.texts[0]
