"""The process in which a template that we did not write is rendered; and the rendering itself.

As a program it reads a request a line (JSON) and answers a line each, until its input ends; its
argument, if any, is the seconds of one rendering. It imports nothing of this package. After its
imports it may grow by a fixed amount of memory and write no file; each rendering has its own seconds
of processor time. The system holds these limits, so they also hold inside one long C call
('a' * 10 ** 10, 10 ** 10 ** 9), where no watchdog thread of Python's could break in.
"""

import json
import sys
from typing import Any

MAX_TEMPLATE = 1 << 18
"""Characters of a template; the longest published ones have some 3 * 10^4."""
MAX_TEXT = 1 << 24
"""Characters of a rendered conversation: some four million tokens."""
MAX_SECONDS = 5.0
"""Processor time of one rendering; an ordinary one takes under a millisecond."""
MAX_MEMORY = 1 << 30
"""Bytes by which the process may grow."""


def texts(request: dict[str, Any], before_each=lambda: None) -> list[str]:
    """What the template writes for the first n messages, for each (n, with generation prompt).

    The renderer is transformers' own: a sandboxed Jinja that sees plain data only.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    found = []
    for count, generate in request["parts"]:
        before_each()
        (text,), _ = render_jinja_template(
            [request["messages"][:count]],
            tools=request["tools"],
            chat_template=request["template"],
            add_generation_prompt=generate,
            **request["variables"],
        )
        if len(text) > MAX_TEXT:
            raise OverflowError(f"it writes {len(text):,} characters, more than {MAX_TEXT:,}")
        found.append(text)
    return found


def main(seconds: float = MAX_SECONDS) -> None:
    import resource
    import signal

    import transformers.utils.chat_template_utils  # noqa: F401 (before memory is limited)

    try:
        with open("/proc/self/statm") as file:
            size = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MAX_MEMORY, size + MAX_MEMORY))
    except FileNotFoundError:
        pass  # macOS: neither /proc nor a limit that it keeps; the time limit bounds the growth
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle

    def start_clock() -> None:
        signal.setitimer(signal.ITIMER_PROF, seconds)  # SIGPROF ends a process that does nothing

    replies = sys.stdout
    sys.stdout = sys.stderr
    for line in sys.stdin:
        try:
            reply = json.dumps({"texts": texts(json.loads(line), start_clock)})
        except Exception as error:
            reply = json.dumps({"error": type(error).__name__, "message": str(error)[:2000]})
        signal.setitimer(signal.ITIMER_PROF, 0)
        replies.write(reply + "\n")
        replies.flush()


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
