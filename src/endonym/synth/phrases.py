"""The almanac's sentences for one skill of one language, read from its pack and checked.

    [<skill>]        document = [...], question = [...], mixed = [...]       {key}, {value}
    [switch]         prompt = [...]          {question}, {english}, {name}: the language in English
    [[constraint]]   type, prompt, reply, words, facts

A constraint's reply may use {value}, {word}, {sentence}, and over all its facts {lines},
{bullets}, {sentences}; its prompt {question}, {key}, {value}, {word}, {count}, {questions}.
"""

from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any

from pydantic import Field

from endonym.core.config import Config
from endonym.core.errors import DataError
from endonym.lang.locale import Fact
from endonym.lang.pack import pack, read_packed


class SkillPhrases(Config):
    document: list[str] = Field(default_factory=list)
    question: list[str] = Field(default_factory=list)
    mixed: list[str] = Field(default_factory=list)


class Rule(Config):
    """One kind of constraint: how it is asked for and what a reply that obeys it looks like."""

    type: str
    prompt: list[str]
    reply: str
    words: list[str] = Field(default_factory=list)
    facts: int = 1


@dataclass(frozen=True)
class Phrases:
    """Everything that can be said about a fact of one skill."""

    document: list[str]
    question: list[str]
    mixed: list[str]
    english: list[str]
    """The same question in English, around a key of the language."""
    switch: list[str]
    constraints: list[Rule]

    @property
    def clozes(self) -> list[str]:
        """The document sentences up to {value}, of those in which it comes after {key}."""
        heads = [form.partition("{value}")[0] for form in self.document]
        return [head for head in heads if "{key}" in head]


# For languages without sentences: lists of CLDR's words, instructions in English.
PLAIN = SkillPhrases(
    document=["{key} = {value}.", "{key}: {value}.", "{value} = {key}."],
    question=["{key} = ?", "{key}: ?", "? = {key}"],
)
PLAIN_SWITCH = [
    "{english} Answer in {name}.",
    "{english} Reply in {name} only.",
    "Please answer in {name}: {question}",
]
PLAIN_RULES = [
    Rule(
        type="language",
        prompt=["Answer in {name} only: {question}", "{question} Use {name} and nothing else."],
        reply="{value}",
    ),
    Rule(type="quoted", prompt=["Answer inside double quotes: {question}"], reply="“{value}”"),
    Rule(
        type="lines",
        facts=2,
        prompt=["Answer in exactly {count} lines, one answer a line.\n{questions}"],
        reply="{lines}",
    ),
]


@lru_cache(maxsize=1024)
def phrases_of(language: str, skill: str) -> Phrases:
    """The phrases of one skill; without a written almanac, plain lists."""
    own, english = read_packed(language, "almanac.toml"), read_packed("en", "almanac.toml")
    where = f"lang/packs/{language}/almanac.toml"
    asked = SkillPhrases.read(english.get(skill, {}), where=f"en: {skill}").question
    if not own:
        return Phrases(
            PLAIN.document, PLAIN.question, PLAIN.mixed, asked, PLAIN_SWITCH, PLAIN_RULES
        )
    said = SkillPhrases.read(own.get(skill, {}), where=f"{where}: {skill}")
    rules = [Rule.read(row, where=f"{where}: constraint") for row in own.get("constraint", [])]
    switch = own.get("switch", {}).get("prompt", [])
    found = Phrases(said.document, said.question, said.mixed, asked, switch, rules)
    if said.document and not found.clozes:
        raise DataError(
            f"no sentence of {skill!r} names its value after its key",
            where=where,
            wanted="at least one document sentence with {key} before {value}",
        )
    return found


def constraint(
    language: str, phrases: Phrases, rule: Rule, asked: list[Fact], random: Random
) -> tuple[str, str, list[dict[str, Any]]]:
    """(prompt, a reply that obeys, checks) for a rule over one or more facts."""
    first, count = asked[0], len(asked)
    word = random.choice(rule.words) if rule.words else ""
    questions = [random.choice(phrases.question).format(key=fact.key) for fact in asked]
    told = [
        random.choice(phrases.document).format(key=fact.key, value=fact.value) for fact in asked
    ]
    prompt = random.choice(rule.prompt).format(
        question=questions[0],
        questions="\n".join(questions),
        key=first.key,
        value=first.value,
        word=word,
        count=count,
        name=pack(language).name,
    )
    reply = rule.reply.format(
        value=first.value,
        word=word,
        sentence=told[0],
        sentences=pack(language).sentence_join.join(told),
        lines="\n".join(fact.value for fact in asked),
        bullets="\n".join(f"- {fact.value}" for fact in asked),
    )
    return prompt, reply, [{"type": rule.type} | _arguments(language, rule, first, word, count)]


def _arguments(language: str, rule: Rule, fact: Fact, word: str, count: int) -> dict[str, Any]:
    if rule.type in ("language", "polite"):
        return {"language": language}
    if rule.type in ("starts_with", "ends_with"):
        return {"text": word}
    if rule.type == "contains":
        return {"words": [fact.value]}
    if rule.type in ("lines", "bullets", "sentences"):
        return {"count": count, "relation": "exactly"}
    if rule.type in ("quoted", "no_comma"):
        return {}
    raise DataError(
        f"the almanac does not know how to check {rule.type!r}",
        where=f"lang/packs/{language}/almanac.toml: constraint",
        do="add its arguments to synth/phrases.py",
    )
