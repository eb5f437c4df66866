"""A chat whose answers a test writes, and a stand-in for the sandbox that runs tame functions here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from endonym.rewards.chat import Answer
from endonym.synth.instruct.chat import Request


class Scripted:
    """Answers by a function of the request; None is a failed call."""

    name = "scripted"

    def __init__(self, script: Callable[[Request], Answer | None]):
        self.script, self.requests = script, []

    def answers(self, requests, take):
        for number in reversed(range(len(requests))):  # answers come in any order
            self.requests.append(requests[number])
            take(number, self.script(requests[number]))


@dataclass
class Called:
    value: Any = None
    error: str | None = None


class Tame:
    """Sandbox.call_many for functions that the test itself wrote."""

    def map(self, function, items):
        return [function(each) for each in items]

    def call_many(self, source, calls, **limits):
        space: dict = {}
        try:
            exec(source, space)
        except Exception as error:
            return [Called(error=f"{type(error).__name__}: ")] * len(calls)
        found = []
        for name, arguments in calls:
            try:
                found.append(Called(space[name](*arguments)))
            except Exception as error:
                found.append(Called(error=f"{type(error).__name__}: {error}"))
        return found
