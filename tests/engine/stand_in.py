"""A stand-in for vLLM: answers completions of token ids on loopback, and breaks in the ways asked for.

    python stand_in.py MODEL NAME PORT     MODEL: a folder; with a file `broken` in it, it ends at once

Its answers depend on the prompt and the seed alone: token (sum of the prompt + seed + place) mod 40.
"""

import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class StandIn:
    """name: of what is served; broken: for a request, by number, what to do instead: a status code,
    "hang up", "malformed", or a function that changes the answer; mode: of vLLM's log-probabilities."""

    def __init__(self, name="weights-1", mode="processed_logprobs", port=0):
        self.name, self.mode, self.context = name, mode, 64
        self.broken, self.requests, self.lock = {}, [], threading.Lock()
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                card = {"id": stand_in.name, "object": "model", "owned_by": "stand-in"}
                card["max_model_len"] = stand_in.context
                self.send(200, {"object": "list", "data": [card]})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with stand_in.lock:
                    number = len(stand_in.requests)
                    stand_in.requests.append(body)
                    what = stand_in.broken.get(number)
                if what == "hang up":
                    self.close_connection = True
                    self.connection.shutdown(2)
                elif what == "malformed":
                    self.send(200, "{'model': ")
                elif isinstance(what, int):
                    self.send(what, {"error": {"message": "as asked"}})
                elif body["model"] != stand_in.name:
                    self.send(404, {"error": {"message": "no such model"}})
                else:
                    answer = stand_in.answer(body)
                    self.send(200, what(answer) or answer if what else answer)

            def send(self, code, content):
                data = (content if isinstance(content, str) else json.dumps(content)).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def answer(self, body):
        tokens, finish, stop = [], "length", None
        for place in range(body["max_tokens"]):
            tokens.append((sum(body["prompt"]) + body["seed"] + place) % 40)
            text = "".join(chr(97 + each % 26) for each in tokens)
            if tokens[-1] in body["stop_token_ids"]:
                finish = "stop"
                break
            stop = next((each for each in body["stop"] if each in text), None)
            if stop is not None:
                finish, text = "stop", text[: text.index(stop)]
                break
        certain = self.mode == "processed_logprobs" and body["top_k"] == 1
        logprobs = [0.0 if certain else -0.5 - place for place in range(len(tokens))]
        choice = {
            "index": 0, "text": text, "finish_reason": finish, "stop_reason": stop,
            "token_ids": tokens, "prompt_token_ids": body["prompt"],
            "logprobs": {"tokens": [], "token_logprobs": logprobs, "top_logprobs": [], "text_offset": []},
        }  # fmt: skip
        return {
            "id": "cmpl-1",
            "object": "text_completion",
            "model": self.name,
            "choices": [choice],
        }

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


if __name__ == "__main__":
    folder, name, port = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    if (folder / "broken").exists():
        sys.exit("out of memory, for instance")
    sleeping = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (folder / "child").write_text(str(sleeping.pid))
    (folder / "server").write_text(str(os.getpid()))
    time.sleep(0.3)  # weights are read
    with StandIn(name, port=port) as stand_in:
        threading.Event().wait()
