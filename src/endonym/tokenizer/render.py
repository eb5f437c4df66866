"""Chat templates rendered: our own in this process, any other in a sandbox that can be stopped.

A template is a program that comes with somebody's model. transformers' sandbox keeps it from Python's
insides, but sets no limit to what it may compute. So a foreign template runs in a second process
(sandbox.py, one for all templates, started at first use: about a second) under limits of the
operating system on time, memory and files. Whatever it does, this process gets a text or a DataError.

What is not stopped: a template that stays just under the limits is slow for every conversation. The
process is no container: a template that broke out of the Jinja sandbox could read what this user
reads, but finds no secrets in its environment and cannot write a file.
"""

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from endonym.core.errors import DataError, MachineError
from endonym.tokenizer import sandbox

PROGRAM = [sys.executable, "-P", str(Path(sandbox.__file__))]
ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "LD_LIBRARY_PATH", "TMPDIR")
"""All that the sandbox sees of our environment: no keys, no tokens."""


def render_parts(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    parts: Sequence[tuple[int, bool]],
    *,
    tools: list[dict] | None,
    variables: Mapping[str, Any],
    trusted: bool,
) -> list[str]:
    """The text of the first n messages, with generation prompt or not, for each (n, bool) of parts.

    variables: what else the template sees (bos_token, enable_thinking, ...)
    trusted:   the template is ours and is rendered in this process
    Raises DataError where the template is too long, refuses the conversation or had to be stopped.
    """
    if len(template) > sandbox.MAX_TEMPLATE:
        raise DataError(
            "the chat template is too long",
            wanted=f"at most {sandbox.MAX_TEMPLATE:,} characters",
            got=f"{len(template):,}",
        )
    request = {
        "template": template,
        "messages": list(messages),
        "parts": list(parts),
        "tools": tools,
        "variables": dict(variables),
    }
    if not trusted:
        reply = _ask(request)
        if "texts" in reply:
            return reply["texts"]
        if reply["error"] in ("MemoryError", "OverflowError"):
            raise stopped(reply["message"] or "it wanted more memory")
        raise _refusal(messages, f"{reply['error']}: {reply['message']}")

    from jinja2.exceptions import TemplateError

    try:
        return sandbox.texts(request)
    except (TemplateError, TypeError, ValueError, RecursionError, OverflowError) as error:
        raise _refusal(messages, f"{type(error).__name__}: {error}") from None


def stopped(reason: str) -> DataError:
    """A template that went over a limit."""
    return DataError(
        "the chat template was stopped",
        wanted=f"at most {sandbox.MAX_SECONDS:g} s, {sandbox.MAX_MEMORY >> 20} MiB and "
        f"{sandbox.MAX_TEXT:,} characters for one conversation",
        got=reason,
        do="do not use this template; chat.with_chat(tokenizer) puts ours in its place",
    )


def _refusal(messages: Sequence[Mapping[str, Any]], got: str) -> DataError:
    roles = [message.get("role") for message in messages]
    shown = f"{roles[:8]} and {len(roles) - 8} more" if len(roles) > 8 else roles
    return DataError("the chat template refuses a conversation", where=f"roles {shown}", got=got)


# --- the sandbox's other end --------------------------------------------------------------------

_lock = threading.Lock()
_process: subprocess.Popen | None = None
_owner = 0


def _ask(request: dict[str, Any]) -> dict[str, Any]:
    """The sandbox's reply; a sandbox that died is said to have, and the next call starts another."""
    try:
        line = json.dumps(request, default=lambda value: f"<{type(value).__name__}>") + "\n"
    except (TypeError, ValueError, RecursionError) as error:  # keys that are no strings, cycles
        return {"error": type(error).__name__, "message": str(error)}
    with _lock:
        process = _running()
        try:
            process.stdin.write(line)
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        except (
            BaseException
        ):  # Ctrl-C between question and answer: the next answer would be this one
            _stop()
            raise
        if answer:
            return json.loads(answer)
        code = process.wait()
        _stop()
    if code == -signal.SIGPROF:
        raise stopped(f"it ran longer than {sandbox.MAX_SECONDS:g} s")
    if code < 0:
        raise stopped(f"its process died of {signal.Signals(-code).name}")
    raise MachineError(
        "the process that renders chat templates does not run",
        got=f"exit code {code} of {' '.join(PROGRAM)}",
        do="run that command to see why",
    )


def _running() -> subprocess.Popen:
    global _process, _owner
    if _process is None or _owner != os.getpid() or _process.poll() is not None:
        _process = subprocess.Popen(
            PROGRAM,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
            text=True,
            encoding="utf-8",
        )
        _owner = os.getpid()
    return _process


@atexit.register
def _stop() -> None:
    global _process
    process, _process = _process, None
    if process is None or _owner != os.getpid():
        return
    process.kill()
    process.wait()
    process.stdout.close()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
