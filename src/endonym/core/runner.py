"""Run what is missing, reuse the rest, take up what was cut off.

No scheduler and no server: the steps are in order, each either stands in the store already or is
made now. Whatever is finished stays finished; a kill costs at most the work since a stage's last
checkpoint.
"""

import errno
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import endonym
from endonym.core.artifact import Artifact, machine_error
from endonym.core.context import Context
from endonym.core.errors import EndonymError
from endonym.core.plan import Lookup, Step, missed, plan, with_located_paths
from endonym.core.recipe import Recipe
from endonym.core.store import SHOWN, Store

DISK_TROUBLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


@dataclass(frozen=True)
class Done:
    """A finished step of a run."""

    step: Step
    artifact: Artifact
    reused: bool


def run(
    recipe: Recipe, store: Store, lookup: Lookup, context: Context, until: str | None = None
) -> dict[str, Done]:
    """Make every artifact that the recipe (or `until`) needs; what is there already is not made again."""
    steps = plan(recipe, store, lookup, context.data, until)
    links = run_folder(recipe, store)
    done: dict[str, Done] = {}
    for number, step in enumerate(steps.values(), 1):
        title = f"[{number}/{len(steps)}] {step.name}"
        if step.found is not None:
            context.console.note(f"{title}  reused {step.address[:SHOWN]}", style="dim")
            done[step.name] = Done(step, step.found, True)
            store.clear_work(step.address)  # left by a kill between publishing and clearing
        else:
            context.console.note(f"{title}  {step.stage.name}: {missed(step, steps, store)}")
            inputs = _inputs(step, lambda name: done[name].artifact)
            artifact, reused = make(step, inputs, store, context)
            done[step.name] = Done(step, artifact, reused)
            seconds = artifact.record["seconds"]
            context.console.note(f"      {brief(artifact.figures)}  {seconds:.1f} s", style="green")
        _link(links / step.name, done[step.name].artifact.path)
    return done


def make(
    step: Step, inputs: dict[str, Any], store: Store, context: Context
) -> tuple[Artifact, bool]:
    """Make one artifact under its lock and publish it. True: another run finished it meanwhile."""
    with store.making(step.address) as work:
        finished = store.find(step.stage.name, step.address)
        if finished is not None:
            return finished, True
        out = work / "out"
        # A stage resumes from its scratch, never from half an output.
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        scratch = work / "scratch"
        resumed = scratch.exists()  # then `seconds` is the last attempt's time, not the whole
        scratch.mkdir(exist_ok=True)
        started, cpu = time.time(), time.process_time()
        try:
            outcome = step.stage.run(
                with_located_paths(step.config, context.data), context.at(scratch), out, inputs
            )
        except OSError as error:
            if error.errno not in DISK_TROUBLE:
                raise  # a fault of ours: its own words and place are worth more
            raise _in_stage(machine_error(error, out), step) from error
        except EndonymError as error:
            raise _in_stage(error, step) from error
        record = {
            "stage": step.stage.name,
            "version": step.stage.version,
            "kind": step.stage.kind,
            "address": step.address,
            "config": step.identity,
            "settings": step.config.model_dump(mode="json"),
            "inputs": step.input_addresses,
            "figures": outcome.figures,
            "licences": sorted(set(outcome.licences)),
            "seconds": round(time.time() - started, 3),
            "resumed": resumed,
            "cpu_seconds": round(time.process_time() - cpu, 3),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "environment": environment(context),
        }
        artifact = store.publish(out, record)
        store.clear_work(step.address)
        return artifact, False


def environment(context: Context) -> dict[str, Any]:
    """What the work ran on: versions of what decides the numbers, processor, device, threads."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for package in ("torch", "transformers", "tokenizers", "numpy", "pythainlp", "babel"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "absent"
    return {
        "endonym": endonym.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": os.cpu_count(),
        "device": _device(context),
        "threads": context.threads or os.cpu_count(),
        "versions": versions,
    }


def _device(context: Context) -> str:
    """The device's name; "auto" as torch, if this stage used it, understood it."""
    torch = sys.modules.get("torch")
    if context.device != "cpu" and torch is not None and torch.cuda.is_available():
        return torch.cuda.get_device_name(None if context.device == "auto" else context.device)
    return "cpu" if context.device == "auto" else context.device


def processor() -> str:
    """The processor's name as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux: the general name serves
    return platform.processor() or platform.machine()


def brief(figures: dict[str, Any]) -> str:
    """The figures that are numbers or short words, on one line."""
    words = []
    for name, value in figures.items():
        if isinstance(value, bool) or not isinstance(value, int | float | str) or name == "seconds":
            continue
        shown = f"{value:,}" if isinstance(value, int) else value
        words.append(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {shown}")
    return "  ".join(words[:6])


def _inputs(step: Step, artifact_of: Callable[[str], Artifact]) -> dict[str, Any]:
    return {
        slot: {label: artifact_of(name) for label, name in given.items()}
        if isinstance(given, dict)
        else artifact_of(given)
        for slot, given in step.inputs.items()
    }


def _in_stage(error: EndonymError, step: Step) -> EndonymError:
    """The same error, its place told with the stage that met it."""
    place = f"stage {step.name} ({step.node.where})"
    told = f"{error.where}, in {place}" if error.where is not None else place
    return type(error)(error.what, where=told, wanted=error.wanted, got=error.got, do=error.do)


def _link(link: Path, target: Path) -> None:
    """Let ROOT/runs/RUN/NAME point at an artifact, replacing what it pointed at in one step."""
    link.parent.mkdir(parents=True, exist_ok=True)
    aside = link.with_name(f".{link.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    aside.symlink_to(os.path.relpath(target, link.parent))
    os.replace(aside, link)


def run_folder(recipe: Recipe, store: Store) -> Path:
    """The folder of a run: links by stage name, report.html, scoreboard.json."""
    return store.root / "runs" / recipe.run
