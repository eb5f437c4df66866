"""Checkpoints that a kill at any moment leaves whole, and the exact way back.

    <folder>/step-00000120/state.safetensors     weights, buffers, optimizer state; no pickle
                          /manifest.json         written last: progress, settings, sha256 of all
    <folder>/writing-<pid>/                      never counted; removed at the next start

Order of a save: metrics log to the disk; files into `writing-<pid>`, each fsynced; the manifest,
fsynced; the folder fsynced; renamed; the parent fsynced; only then is the oldest one removed, by
renaming it first. So at every moment the newest `step-*` folder is complete and the log is at
least as long as it says.

A bit flipped in the payload of a safetensors file loads without a word, so every file is read
against its hash on resume, and so is the manifest itself. A damaged checkpoint is named, passed over
for the one before it, and removed once that one has been loaded.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from endonym.core.artifact import flush, sha256_file
from endonym.core.errors import MachineError, RecipeError, StoreError

KEPT = 2
TENSORS, MANIFEST = "state.safetensors", "manifest.json"


@dataclass(frozen=True)
class Progress:
    """Where a run stands between two steps.

    step:           steps done; the next one is loader.rows(step)
    tokens:         trained tokens, padding not counted
    skipped:        steps without an update because loss or gradient was not finite
    bad_in_row:     how many of these stand at the end, one after another
    seconds:        time spent in steps, over all processes of the run
    metrics_bytes:  length of metrics.jsonl, and
    metrics_sha256: the hash of these bytes
    """

    step: int = 0
    tokens: int = 0
    skipped: int = 0
    bad_in_row: int = 0
    seconds: float = 0.0
    metrics_bytes: int = 0
    metrics_sha256: str = hashlib.sha256().hexdigest()


class Checkpoints:
    """The checkpoints of one run in one folder.

    settings:    a JSON value that must be the same on resume (the run's config and data)
    environment: a JSON value that should be; a difference is noted, since the result is then no
                 longer bitwise that of an uninterrupted run
    """

    def __init__(self, folder: Path, settings: Any, environment: Any, note: Callable[[str], None]):
        self.folder, self._settings, self._environment = folder, settings, environment
        self._note = note
        folder.mkdir(parents=True, exist_ok=True)
        for left in [*folder.glob("writing-*"), *folder.glob("removing-*")]:
            shutil.rmtree(left, ignore_errors=True)
        flush(folder.parent)

    def steps(self) -> list[Path]:
        """The checkpoint folders, oldest first."""
        return sorted(self.folder.glob("step-*"))

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> float:
        """Writes a checkpoint and returns the seconds it took. MachineError where it cannot be written."""
        began = time.monotonic()
        tensors = state_tensors(model, optimizer)
        _refuse_non_finite(tensors, progress.step)
        target = self.folder / f"step-{progress.step:08d}"
        aside = self.folder / f"writing-{os.getpid()}"
        try:
            aside.mkdir(exist_ok=True)
            save_file(tensors, aside / TENSORS)
            flush(aside / TENSORS)
            self._write_manifest(aside, progress)
            flush(aside)
            if target.exists():
                self._remove(target)
            aside.rename(target)
            flush(self.folder)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(aside, ignore_errors=True)
            raise self._no_room(tensors, target, error) from error
        for old in self.steps()[:-KEPT]:
            self._remove(old)
        return time.monotonic() - began

    def load(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, metrics: Path
    ) -> Progress | None:
        """The newest good checkpoint, put into model and optimizer; None where there is none at all.

        StoreError where there are checkpoints and none of them is good, or where they belong to
        other settings.
        """
        complaints = []
        for folder in reversed(self.steps()):
            try:
                manifest = verify(folder)
                progress = Progress(**manifest["progress"])
                _verify_log(metrics, progress)
            except StoreError as error:
                self._note(f"checkpoint {folder.name} is damaged and passed over: {error}")
                complaints.append((folder, error))
                continue
            self._compare(manifest, folder)
            restore(model, optimizer, load_file(folder / TENSORS), folder)
            for damaged, _ in complaints:
                self._remove(damaged)
            return progress
        if complaints:
            raise StoreError(
                "no checkpoint of this run is whole",
                where=self.folder,
                got="; ".join(str(error) for _, error in complaints),
                do=f"remove {self.folder} to train from the beginning",
            )
        return None

    def _write_manifest(self, folder: Path, progress: Progress) -> None:
        path = folder / TENSORS
        body = {
            "progress": asdict(progress),
            "settings": self._settings,
            "environment": self._environment,
            "files": {TENSORS: {"bytes": path.stat().st_size, "sha256": sha256_file(path)}},
        }
        body["sha256"] = _sha256_of(body)
        with open(folder / MANIFEST, "w", encoding="utf-8") as file:
            json.dump(body, file, indent=1, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())

    def _compare(self, manifest: dict[str, Any], folder: Path) -> None:
        if manifest["settings"] != json.loads(json.dumps(self._settings)):
            raise StoreError(
                "the checkpoint belongs to a run with other settings or data",
                where=folder,
                wanted=self._settings,
                got=manifest["settings"],
                do=f"give this run another scratch folder, or remove {self.folder}",
            )
        if manifest["environment"] != json.loads(json.dumps(self._environment)):
            self._note(
                f"resumed under {self._environment}, saved under {manifest['environment']}: the "
                "result will not be bitwise that of an uninterrupted run"
            )

    def _remove(self, folder: Path) -> None:
        aside = folder.with_name(f"removing-{folder.name}")
        folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)

    def _no_room(self, tensors: dict[str, Tensor], target: Path, error: Exception) -> MachineError:
        needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        kept = [folder.name for folder in self.steps()]
        return MachineError(
            f"the checkpoint could not be written: {error}",
            where=target,
            wanted=f"{needed} bytes and a little more",
            got=f"{shutil.disk_usage(self.folder).free} bytes free on that disk",
            do="make room and run the same command again; "
            + (f"it goes on from {kept[-1]}, which is intact" if kept else "nothing is saved yet"),
        )


def state_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """All that must survive, by name: `model/<name>` and `optimizer/<key>/<name>`. Tied weights once."""
    tensors = {f"model/{name}": tensor.data for name, tensor in _model_tensors(model)}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            assert isinstance(value, Tensor), f"optimizer state {key} of {name} is no tensor"
            tensors[f"optimizer/{key}/{name}"] = value
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def restore(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], where: Path
) -> None:
    """Puts what state_tensors gave back. StoreError where names or shapes are not this model's."""
    wanted = {f"model/{name}": tensor for name, tensor in _model_tensors(model)}
    found = {name: tensor for name, tensor in tensors.items() if name.startswith("model/")}
    for name in sorted(wanted.keys() | found.keys()):
        shapes = [tuple(part[name].shape) if name in part else None for part in (wanted, found)]
        if shapes[0] != shapes[1]:
            raise StoreError(
                "the checkpoint is of another model",
                where=f"{where}: {name}",
                wanted=shapes[0],
                got=shapes[1],
                do="give this run another scratch folder",
            )
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(found[name])
    parameters = dict(model.named_parameters())
    optimizer.state.clear()
    for name, tensor in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "optimizer":
            key, _, parameter = rest.partition("/")
            owner = parameters[parameter]
            optimizer.state[owner][key] = tensor.to(owner.device, copy=True)


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint whose every byte is what it was. StoreError names the bad file."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        stated = manifest.pop("sha256")
        files = dict(manifest["files"])
    except FileNotFoundError:
        raise StoreError("a file is missing", where=path) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError("the manifest cannot be read", where=path, got=error) from None
    if stated != _sha256_of(manifest):
        raise StoreError("the manifest was changed after it was written", where=path)
    for name, expected in files.items():
        file = folder / name
        if not file.exists():
            raise StoreError("a file is missing", where=file)
        if file.stat().st_size != expected["bytes"]:
            raise StoreError(
                "a file has another length",
                where=file,
                wanted=f"{expected['bytes']} bytes",
                got=f"{file.stat().st_size} bytes",
            )
        found = sha256_file(file)
        if found != expected["sha256"]:
            raise StoreError(
                "a file's bytes have changed", where=file, wanted=expected["sha256"], got=found
            )
    return manifest


def _verify_log(metrics: Path, progress: Progress) -> None:
    """The log's beginning is what it was when the checkpoint was written; what follows may go."""
    digest = hashlib.sha256()
    left = progress.metrics_bytes
    if metrics.exists():
        with open(metrics, "rb") as file:
            while left and (block := file.read(min(left, 1 << 20))):
                digest.update(block)
                left -= len(block)
    if left or digest.hexdigest() != progress.metrics_sha256:
        raise StoreError(
            "the metrics log does not contain what the checkpoint has seen",
            where=metrics,
            wanted=f"{progress.metrics_bytes} bytes with sha256 {progress.metrics_sha256}",
            got=f"{progress.metrics_bytes - left} bytes with sha256 {digest.hexdigest()}",
        )


def _refuse_non_finite(tensors: dict[str, Tensor], step: int) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise RecipeError(
                "the state is not finite and is not saved",
                where=f"{name} after {step} steps",
                do="lower learning_rate or lengthen warmup; the checkpoints before it are good",
            )


def _model_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and persistent buffers, each object once."""
    yield from model.named_parameters()
    persistent = model.state_dict().keys()
    yield from ((name, buffer) for name, buffer in model.named_buffers() if name in persistent)


def _sha256_of(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
