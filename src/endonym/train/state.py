"""Checkpoints that a kill at any moment leaves whole, and the exact way back.

    <folder>/step-00000120/state.safetensors     weights that learn, buffers, optimizer state, extras
                          /model/                a loadable Hugging Face folder, where one was asked for
                          /manifest.json         written last: progress, settings, sha256 of all files
    <folder>/writing-00000130/                   never counted; removed at the next start

Several processes write a file each, state-00002-of-00004.safetensors and so on: the rows of each tensor
that they hold, and in the file's header where these begin. A reader takes the rows it needs from
whichever files have them, so what n processes wrote m can read; and one process's file is the case
without a header. (DCP has the same idea. Its own format keeps its table in a pickle; its safetensors
writer builds each file in memory and cannot be told to hash it, and neither knows damage or a log.)

Order of a save: metrics log to the disk; files into `writing-*`, each fsynced; the manifest, by the main
process, once all have said what they wrote, fsynced; the folder fsynced; renamed; the parent fsynced;
only then are old ones removed, by renaming them first. So at every moment the newest `step-*` folder is
complete and the log is at least as long as it says.

A damaged checkpoint (manifest.py) is named, passed over for the one before it, and removed once that one
has been loaded.

Weights that do not learn are not in it: they are the start's, which the settings name.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from endonym.core.artifact import flush
from endonym.core.errors import EndonymError, MachineError, RecipeError, StoreError
from endonym.train.config import Keep
from endonym.train.manifest import (
    FORMAT,
    MANIFEST,
    Progress,
    apart,
    entry,
    sha256_of,
    verify,
    verify_log,
)
from endonym.train.parallel import Ranks
from endonym.train.saved import STARTS, Saved, local, own_rows, restore, state_tensors

TENSORS, MODEL = "state.safetensors", "model"

T = TypeVar("T")


class Checkpoints:
    """The checkpoints of one run in one folder, which all its processes share.

    settings:    a JSON value that must be the same on resume: {"config": ..., "data": ...}
    environment: a JSON value that should be; a difference is noted, since the result is then no
                 longer bitwise that of an uninterrupted run
    keep:        which of them stay
    export:      export(model, folder) writes a model folder; called in every process, where the main
                 one writes
    defaults:    of settings["config"]: what a setting that a saved one lacks meant before there was any
    held:        steps whose checkpoints stay while they are in it
    """

    def __init__(
        self,
        folder: Path,
        settings: Any,
        environment: Any,
        note: Callable[[str], None],
        *,
        keep: Keep | None = None,
        export: Callable[[nn.Module, Path], None] | None = None,
        ranks: Ranks | None = None,
        defaults: Mapping[str, Any] | None = None,
    ):
        self.folder, self._settings, self._environment = folder, settings, environment
        self._note, self._keep, self._export = note, keep or Keep(), export
        self._ranks, self._defaults = ranks or Ranks(), dict(defaults or {})
        self.held: set[int] = set()
        if self._ranks.main:
            folder.mkdir(parents=True, exist_ok=True)
            for left in [*folder.glob("writing-*"), *folder.glob("removing-*")]:
                shutil.rmtree(left, ignore_errors=True)
            flush(folder.parent)
        self._ranks.barrier()

    def steps(self) -> list[Path]:
        """The checkpoint folders, oldest first."""
        return sorted(self.folder.glob("step-*"))

    def save(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        progress: Progress,
        extra: Mapping[str, Tensor] | None = None,
    ) -> float:
        """Writes a checkpoint and returns the seconds it took. MachineError where it cannot be written."""
        began = time.monotonic()
        tensors = state_tensors(model, optimizer, extra)
        self._each(lambda: _refuse_non_finite(tensors, progress.step))
        target = self.folder / f"step-{progress.step:08d}"
        aside = self.folder / f"writing-{progress.step:08d}"
        try:
            self._main(lambda: aside.mkdir(exist_ok=True))
            files = {}
            for written in self._each(lambda: self._write_part(aside, tensors)):
                files |= written
            if self._export is not None:
                self._each(lambda: self._export(model, aside / MODEL))
            self._main(lambda: self._publish(aside, target, progress, files))
        except (OSError, SafetensorError) as error:
            if self._ranks.main:
                shutil.rmtree(aside, ignore_errors=True)
            raise self._no_room(tensors, target, error) from error
        return time.monotonic() - began

    def load(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        metrics: Path,
        extra: Mapping[str, Tensor] | None = None,
    ) -> Progress | None:
        """The newest good checkpoint, put into model, optimizer and the tensors of `extra`; None where
        there is none at all.

        StoreError where there are checkpoints and none of them is good, or where they belong to
        other settings.
        """
        complaints = []
        for folder in reversed(self.steps()):
            try:
                manifest, progress = self._verified(folder, metrics)
            except StoreError as error:
                self._note(f"checkpoint {folder.name} is damaged and passed over: {error}")
                complaints.append((folder, error))
                continue
            self._compare(manifest, folder)
            self._restore(folder, manifest, model, optimizer, extra)
            self._main(lambda: [self._remove(damaged) for damaged, _ in complaints])
            return progress
        if complaints:
            raise StoreError(
                "no checkpoint of this run is whole",
                where=self.folder,
                got="; ".join(str(error) for _, error in complaints),
                do=f"remove {self.folder} to train from the beginning",
            )
        return None

    def back_to(
        self,
        step: int,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        metrics: Path,
        extra: Mapping[str, Tensor] | None = None,
    ) -> Progress:
        """The checkpoint of `step`, loaded; those after it are removed first, whatever happens then.

        StoreError where it is missing or damaged.
        """
        folder = self.folder / f"step-{step:08d}"
        self._main(lambda: [self._remove(later) for later in self.steps() if later > folder])
        manifest, progress = self._verified(folder, metrics)
        self._restore(folder, manifest, model, optimizer, extra)
        return progress

    def _write_part(self, aside: Path, tensors: dict[str, Tensor]) -> dict[str, Any]:
        """Writes what this process holds; its file's entry for the manifest."""
        rank, size = self._ranks.rank, self._ranks.size
        name = TENSORS if size == 1 else f"state-{rank:05d}-of-{size:05d}.safetensors"
        parts = {key: own for key, value in tensors.items() if (own := own_rows(value, rank))}
        starts = {key: start for key, (_, start) in parts.items() if start}
        held = {key: rows.contiguous() for key, (rows, _) in parts.items()}
        save_file(held, aside / name, {STARTS: json.dumps(starts)} if starts else None)
        flush(aside / name)
        return {name: entry(aside / name)}

    def _publish(
        self, aside: Path, target: Path, progress: Progress, files: dict[str, Any]
    ) -> None:
        for path in sorted((aside / MODEL).rglob("*")):
            flush(path)
            if path.is_file():
                files[path.relative_to(aside).as_posix()] = entry(path)
        if (aside / MODEL).exists():
            flush(aside / MODEL)
        body = {
            "format": FORMAT,
            "progress": asdict(progress),
            "settings": self._settings,
            "environment": self._environment,
            "files": files,
        }
        body["sha256"] = sha256_of(body)
        with open(aside / MANIFEST, "w", encoding="utf-8") as file:
            json.dump(body, file, indent=1, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        flush(aside)
        if target.exists():
            self._remove(target)
        aside.rename(target)
        flush(self.folder)
        every = self._keep.every
        for old in self.steps()[: -self._keep.last]:
            step = int(old.name.removeprefix("step-"))
            if step not in self.held and not (every and step and step % every == 0):
                self._remove(old)

    def _verified(self, folder: Path, metrics: Path) -> tuple[dict[str, Any], Progress]:
        """Its manifest and progress. Each process reads its share of the files."""
        ranks = self._ranks
        manifest = self._each(lambda: verify(folder, ranks.rank, ranks.size))[0]
        progress = Progress(**manifest["progress"])
        self._main(lambda: verify_log(metrics, progress))
        return manifest, progress

    def _restore(
        self,
        folder: Path,
        manifest: dict[str, Any],
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        extra: Mapping[str, Tensor] | None,
    ) -> None:
        saved = Saved(folder, [name for name in manifest["files"] if "/" not in name])
        self._each(lambda: restore(model, optimizer, saved, extra))

    def _compare(self, manifest: dict[str, Any], folder: Path) -> None:
        found, wanted = manifest["settings"], json.loads(json.dumps(self._settings))
        if isinstance(found, dict) and isinstance(found.get("config"), dict):
            defaults = json.loads(json.dumps(self._defaults))
            found = {**found, "config": {**defaults, **found["config"]}}
        if found != wanted:
            raise StoreError(
                "the checkpoint belongs to a run with other settings or data",
                where=folder,
                wanted=apart(wanted, found),
                got=apart(found, wanted),
                do=f"give this run another scratch folder, or remove {self.folder}",
            )
        now, then = json.loads(json.dumps(self._environment)), manifest["environment"]
        if now != then:
            self._note(
                f"resumed under {apart(now, then)}, saved under {apart(then, now)}: the result will "
                "not be bitwise that of an uninterrupted run"
            )

    def _remove(self, folder: Path) -> None:
        aside = folder.with_name(f"removing-{folder.name}")
        folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)

    def _each(self, work: Callable[[], T]) -> list[T]:
        """What `work` gives in every process; if one fails, all of them raise its error."""
        mine, failed = None, None
        try:
            mine = work()
        except SafetensorError as error:
            failed = OSError(str(error))
        except (OSError, EndonymError) as error:
            failed = error
        found = self._ranks.gather((mine, failed))
        for _, error in found:
            if error is not None:
                raise error
        return [value for value, _ in found]

    def _main(self, work: Callable[[], Any]) -> None:
        """`work` in the main process, while the others wait; if it fails, all raise its error."""
        self._each(work if self._ranks.main else lambda: None)

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


def _refuse_non_finite(tensors: dict[str, Tensor], step: int) -> None:
    for name, tensor in tensors.items():
        tensor = local(tensor)
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise RecipeError(
                "the state is not finite and is not saved",
                where=f"{name} after {step} steps",
                do="lower learning_rate or lengthen warmup; the checkpoints before it are good",
            )
