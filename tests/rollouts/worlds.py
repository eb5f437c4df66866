"""Small worlds and scripted models, for the tests of episodes."""

import json
from dataclasses import dataclass, field

from endonym.data.document import Prompt
from endonym.engine.generate import Generation
from endonym.rollouts.environment import function_tool, tool_message
from eval.tiny import tokenizer


def call(name, **arguments):
    """A tool call as CHATML writes it."""
    told = json.dumps(arguments, ensure_ascii=False)
    return f'<tool_call>\n{{"name": "{name}", "arguments": {told}}}\n</tool_call>'


def asked(text="น้ำ", id="q"):
    return Prompt(id, [{"role": "user", "content": text}])


class Scripted:
    """A backend that says what a function of the text before says, and notes how it was asked.

    encode: text -> ids; by default the tokenizer's own, so that nothing is drawn in another way
    """

    weights = "script"

    def __init__(self, say, *, encode=None, context=None, words=None):
        self.say, self.context, self.words = say, context, words or tokenizer()
        self.encode = encode or (lambda text: self.words.encode(text, literal=True))
        self.asked = []

    def generate(self, prompts, sampling, stop_ids=(), *, keys=None, limits=None, **others):
        self.asked.append((len(prompts), list(limits or []), list(keys or [])))
        done = []
        for number, prompt in enumerate(prompts):
            said = self.say(self.words.backend.decode(prompt, skip_special_tokens=False))
            ids = [*self.encode(said), self.words.turn_end_id]
            finish = "stop"
            if limits and len(ids) > limits[number]:
                ids, finish = ids[: limits[number]], "length"
            done.append(Generation(ids, [-0.5] * len(ids), [-0.7] * len(ids), finish))
        return done


def in_turn(*replies):
    """Says the replies one after another, by the assistant's turns that stand before."""
    return lambda text: replies[text.count("<|im_start|>assistant") - 1]


@dataclass
class Till:
    stock: dict = field(default_factory=lambda: {"rice": 3})
    sold: list = field(default_factory=list)


class Shop:
    """A world with a state: what is sold is gone. The order must be three bags of rice, no more."""

    tools = [
        function_tool("look", "What there is.", {}, []),
        function_tool(
            "sell",
            "Sell so many.",
            {
                "what": {"type": "string", "enum": ["rice", "tea"]},
                "number": {"type": "integer"},
                "to": {"type": "array", "items": {"type": "string"}},
            },
            ["what", "number"],
        ),
    ]

    def __init__(self, stock=3):
        self.stock = stock

    def reset(self, prompt, seed):
        policy = {"role": "system", "content": "sell what is there"}
        return Till({"rice": self.stock}), [policy, *prompt.messages]

    def step(self, state, message):
        told = []
        for each in message.get("tool_calls", []):
            name, arguments = each["function"]["name"], each["function"]["arguments"]
            if name == "look":
                told.append(tool_message(each, state.stock))
                continue
            left = state.stock.get(arguments["what"], 0)
            if arguments["number"] > left:
                told.append(tool_message(each, {"error": "not enough", "left": left}))
                continue
            state.stock[arguments["what"]] -= arguments["number"]
            state.sold.append(arguments["number"])
            told.append(tool_message(each, "sold"))
        return told, not told

    def reward(self, state, messages):
        return float(sum(state.sold) == 3)

    def check(self, state):
        return {"stock": state.stock, "sold": state.sold}


class Chat:
    """No tools: a user who says something else after each answer, so many times; seeded."""

    tools = []

    def __init__(self, times=2):
        self.times = times

    def reset(self, prompt, seed):
        return {"left": self.times, "seed": seed}, prompt.messages

    def step(self, state, message):
        state["left"] -= 1
        if state["left"] < 0:
            return [], True
        return [{"role": "user", "content": f"and {(state['seed'] + state['left']) % 97}"}], False

    def reward(self, state, messages):
        return None

    def check(self, state):
        return dict(state)
