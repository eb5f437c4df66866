"""A model server of one's own: started from a command for weights in a folder, and ended with all it began.

The command stands in the environment, for where and how a server runs is the machine's business:

    ENDONYM_SERVER="/opt/vllm/bin/vllm serve {model} --served-model-name {name} --port {port} \
        --host 127.0.0.1 --logprobs-mode processed_logprobs"
    ENDONYM_SERVER_SECONDS     until it must be ready (900: large weights are read from a disk)
    ENDONYM_SERVER_KEY         sent as a bearer token, where the command asks for one
    ENDONYM_SERVER_LOG         file that it writes to; else one of its own, shown where it fails

It needs an environment of its own, with its own torch: variables that lead Python into ours, or that say
which of several training processes we are, are taken out of what it inherits. The name it is given is the
weights' address, so that every answer is stamped.

New weights are served by a new server: `with` ends one before the next begins. vLLM can also read new
weights in place (reload_weights over /collective_rpc, in its development mode), but keeps the old name
then, and an answer would no longer say whose it is.
"""

import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from endonym.core.errors import MachineError
from endonym.engine import keeper
from endonym.engine.served import Served

if TYPE_CHECKING:
    import httpx

FIELDS = ("{model}", "{name}", "{port}")
OURS = (
    *("PYTHONPATH", "PYTHONHOME", "PYTHONNOUSERSITE", "VIRTUAL_ENV", "OMP_NUM_THREADS"),
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    "TORCHELASTIC_USE_AGENT_STORE",
)
POLL = 0.2  # seconds between two looks whether it is ready
WORDS, ERRORS = (
    8,
    3,
)  # lines at the end of its log, and errors before them, that an error of ours shows


@contextmanager
def serving(folder: Path, weights: str) -> Iterator[Served]:
    """The backend of a server that was started for the model in `folder`, known by its weights' address.

    MachineError where no command is named, where it ends before it is ready, or is not ready in time; and
    where it ends while it is asked, with its last words.
    """
    command, port = _command(folder, weights)
    seconds = float(os.environ.get("ENDONYM_SERVER_SECONDS") or 900)
    url = f"http://127.0.0.1:{port}/v1"
    with tempfile.TemporaryDirectory() as aside:
        log = Path(os.environ.get("ENDONYM_SERVER_LOG") or Path(aside, "log"))
        with log.open("ab") as out:
            kept = subprocess.Popen(
                [sys.executable, "-I", keeper.__file__, *command],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                env={name: each for name, each in os.environ.items() if name not in OURS},
                start_new_session=True,
            )
        try:
            _wait_until_ready(url, kept, time.monotonic() + seconds, command, log)
            with reached(url, weights) as served:
                try:
                    yield served
                except MachineError as error:
                    if not _has_ended(kept):
                        raise
                    raise MachineError(
                        "the model server ended while it was asked",
                        where=shlex.join(command),
                        got=_end_of(log) or f"exit {kept.returncode}",
                        do="look for the reason (ENDONYM_SERVER_LOG=FILE keeps all that it says), "
                        "then run the same command again: it goes on",
                    ) from error
        finally:
            kept.stdin.close()  # the keeper then ends it
            kept.wait()


@contextmanager
def reached(url: str, weights: str) -> Iterator[Served]:
    """The backend of a server that another process of ours has started on this machine."""
    served = Served(url, weights, key=os.environ.get("ENDONYM_SERVER_KEY", ""))
    try:
        yield served
    finally:
        served.close()


def check_command() -> None:
    """MachineError where no usable command is named: to be known before there is work to be lost."""
    _command(Path("MODEL"), "NAME")


def _command(folder: Path, weights: str) -> tuple[list[str], int]:
    """The command with its fields filled in, and the port."""
    template = os.environ.get("ENDONYM_SERVER", "")
    missing = [field for field in FIELDS if field not in template]
    if missing:
        raise MachineError(
            "no command is named that starts a model server"
            if not template
            else "the command that starts a model server lacks a field",
            where="ENDONYM_SERVER",
            wanted="vllm serve {model} --served-model-name {name} --port {port} "
            "--logprobs-mode processed_logprobs",
            got=template or "nothing",
        )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    values = dict(zip(FIELDS, (str(folder), weights, str(port))))
    words = shlex.split(template)
    for field, value in values.items():
        words = [word.replace(field, value) for word in words]
    return words, port


def _wait_until_ready(
    url: str, kept: subprocess.Popen, until: float, command: list[str], log: Path
) -> None:
    import httpx

    # No proxy, no certificates: it is on this machine.
    with httpx.Client(timeout=5.0, trust_env=False, verify=False) as client:
        while not _lists_models(client, url):
            code = kept.poll()
            if code is not None or time.monotonic() > until:
                raise MachineError(
                    "the model server ended before it was ready"
                    if code is not None
                    else "the model server was not ready in time",
                    where=shlex.join(command),
                    got=_end_of(log) or (f"exit {code}" if code is not None else "no word"),
                    do="run the command by hand, or raise ENDONYM_SERVER_SECONDS",
                )
            time.sleep(POLL)


def _lists_models(client: "httpx.Client", url: str) -> bool:
    """It does when it can answer; who may ask is Served's to find out."""
    import httpx

    try:
        return client.get(f"{url}/models").status_code in (200, 401, 403)
    except httpx.TransportError:
        return False


def _has_ended(kept: subprocess.Popen) -> bool:
    """Now, or in a moment: a connection breaks before a process is gone."""
    with suppress(subprocess.TimeoutExpired):
        kept.wait(1.0)
    return kept.returncode is not None


def _end_of(log: Path) -> str:
    """The last words of a log. Of a server that falls these are often about tidying up, long after the
    reason, and what it says of its parts comes in between: the last few different errors stand first."""
    lines = log.read_text(errors="replace").splitlines()
    found = (re.search(r"\b\w*(Error|Exception): .*", line) for line in lines[:-WORDS])
    named = list(dict.fromkeys(error[0] for error in found if error))
    return "\n".join(line[-300:] for line in [*named[-ERRORS:], *lines[-WORDS:]])
