"""A stand-in for vLLM that serves a saved folder: our own engine behind HTTP, loaded from what was written.

    python folder_stand_in.py MODEL NAME PORT BACK

The server is a process of its own that starts in no time, since it has no torch: what it is asked it asks
the test's process (`Behind`, listening at BACK), which has loaded MODEL anew under NAME.
"""

import json
import os
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Client, Listener
from pathlib import Path

KEY = b"loopback"
DIES = "dies"


class Behind:
    """served: names, in the order in which they were asked for first; requests: (name, body) of each.

    dies_at: number of the request that ends the server; raw: it tells log-probabilities at temperature 1;
    as_name: what stands in the command for the name
    """

    def __init__(self, monkeypatch, as_name="{name}"):
        self.served, self.requests, self.models = [], [], {}
        self.dies_at, self.raw = None, False
        self.listener = Listener(("127.0.0.1", 0), backlog=64, authkey=KEY)
        port = self.listener.address[1]
        command = f"{sys.executable} -I {__file__} {{model}} {as_name} {{port}} {port}"
        monkeypatch.setenv("ENDONYM_SERVER", command)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        while True:
            with suppress(OSError, EOFError), self.listener.accept() as caller:  # it may die
                folder, name, body = caller.recv()
                self.requests.append((name, body))
                if len(self.requests) - 1 == self.dies_at:
                    caller.send(DIES)
                else:
                    caller.send(self._answer(Path(folder), name, body))

    def _answer(self, folder, name, body):
        from endonym.engine.generate import generate
        from endonym.engine.sampler import Sampling
        from endonym.model import hf

        if name not in self.models:
            self.served.append(name)
            self.models = {name: hf.load(folder).eval()}
        sampling = Sampling(
            temperature=body["temperature"], top_k=max(body["top_k"], 0), top_p=body["top_p"],
            min_p=body["min_p"], max_tokens=body["max_tokens"], seed=body["seed"],
        )  # fmt: skip
        (one,) = generate(
            self.models[name], [body["prompt"]], sampling, body["stop_token_ids"], keys=[0]
        )
        raw = self.raw or not body["temperature"]
        return one.tokens, one.raw_logprobs if raw else one.logprobs, one.finish


def main(folder, name, port, back):
    sys.path.insert(0, str(Path(__file__).parent))
    from stand_in import StandIn

    class Served(StandIn):
        def answer(self, body):
            with Client(("127.0.0.1", back), authkey=KEY) as behind:
                behind.send((folder, name, body))
                said = behind.recv()
            if said == DIES:
                print("no memory is left, for instance", file=sys.stderr, flush=True)
                os._exit(1)
            tokens, logprobs, finish = said
            choice = {
                "index": 0, "finish_reason": finish, "token_ids": tokens,
                "prompt_token_ids": body["prompt"], "logprobs": {"token_logprobs": logprobs},
            }  # fmt: skip
            return {"model": self.name, "choices": [choice]}

    with Served(name, port=port) as served:
        config = json.loads(Path(folder, "config.json").read_text())
        served.context = config["max_position_embeddings"]
        threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
