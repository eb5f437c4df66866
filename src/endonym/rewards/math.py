"""Whether an answer is the gold answer as mathematics: equal numbers, expressions, sets, equations.

    reply -> what it says after its thoughts -> its answer -> plain() -> verdict

    the answer   the content of the last \\boxed{}; without one what follows the last "answer is" of a
                 language, else the last line, or the one number or formula in it
    plain()      digits of every script as 0-9, no unit, currency or polite word of the language, one
                 LaTeX expression
    verdict      equal | different | unparsed | timeout | failed

Equal by spelling and equal as numbers are settled here; the rest is compared by math-verify in
processes that can be killed (rewards/math_pool.py), after why_refused() has kept out what only burns
time. A timeout is 0.0 and counted; "failed", our own fault, is FAILED.

math-verify alone pays for answers that do not answer; these are ours:

    a gold number wants a number: 2+3 is not 5, and "0 = 5" is not either (math-verify: both true)
    at most one "=", and a name at its left: x = 5
    what stands word for word in the question is no answer to it: "factor x^2-1": x^2-1
    gold words are compared as words: "evas" is not "save" (as products of letters they are equal)
    boxes in a row, or more than three different ones, are a list, not an answer
    km is not m where both name a unit
"""

import re
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from threading import Lock
from typing import Any

from endonym.lang.normalize import clean, latin_digits
from endonym.lang.pack import pack, packs
from endonym.rewards import math_pool
from endonym.rewards.answer import affixes, box, clear, last_boxed, number
from endonym.rewards.base import FAILED, Completion, column, question_text, raw_text, said
from endonym.rewards.units import split_unit

LONGEST = 2000
DEEPEST = 50
MOST_DIGITS = 200
ALERT = 0.005  # share of timeouts above which somebody should look at the data

WORDS = re.compile(
    r"(?<![\\a-zA-Z])(?!(?:sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|pi|max|min|gcd|mod)\b)[^\W\d_]{2,}"
    r"|[^\W\d_\x00-\x7f\u0370-\u03ff]"  # a letter that is neither Latin nor Greek
)
SHORT_FRACTION = re.compile(r"(\\[dt]?frac)\s*(\d)\s*(\d)")
COMMAND = re.compile(r"\\[a-zA-Z]+")
NAMED = re.compile(r"^\s*(?:[a-zA-Z]|\\[a-zA-Z]+)(?:_\{?\w+\}?|'|\([a-zA-Z, ]+\))*\s*=\s*")
SCIENTIFIC = re.compile(
    r"([-+]?\d+(?:\.\d+)?)\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*\{?([-+]?\d{1,3})\}?"
    r"|([-+]?\d+(?:\.\d+)?)[eE]([-+]?\d{1,3})"
)
MIXED = re.compile(r"([-+]?)(\d+)\s*(?:\\[dt]?frac\s*\{(\d+)\}\s*\{(\d+)\}|\s(\d+)/(\d+))")
INLINE = re.compile(r"\$([^$]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
A_NUMBER = re.compile(r"(?<![0-9A-Za-z.])[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:/\d+)?(?![0-9A-Za-z])")
SIGNS = {
    "−": "-",
    "×": r"\times ",
    "÷": "/",
    "·": r"\cdot ",
    "π": r"\pi ",
    "∞": r"\infty ",
    "≤": r"\le ",
    "≥": r"\ge ",
    "±": r"\pm ",
    "∪": r"\cup ",
    "**": "^",
}


class Math:
    """1.0 where the completion's answer equals `answer` as mathematics, else 0.0.

    None where the row has no gold; FAILED where a worker could not do its work. counts: verdicts since
    the reward was made.
    """

    __name__ = "math"

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._lock = Lock()

    def __call__(
        self, prompts, completions: list[Completion], answer=None, language=None, **columns
    ) -> list[float | None]:
        golds = column("answer", answer, completions)
        languages = column("language", language, completions)
        rows = [row for row, gold in enumerate(golds) if gold]
        found = verdicts(
            [
                (
                    raw_text(completions[row]),
                    str(golds[row]),
                    languages[row] or "",
                    question_text(prompts[row]) if prompts else "",
                )
                for row in rows
            ]
        )
        with self._lock:
            self.counts.update(found)
        values: list[float | None] = [None] * len(completions)
        for row, verdict in zip(rows, found):
            values[row] = FAILED if verdict == "failed" else float(verdict == "equal")
        return values

    def described(self) -> dict[str, Any]:
        """The verdicts, and whether more timed out than honest answers do."""
        timeouts = self.counts["timeout"] / max(1, self.counts.total())
        return {"verdicts": dict(self.counts), "many_timeouts": timeouts > ALERT}


def verdicts(judged: Sequence[tuple[str, str, str, str]]) -> list[str]:
    """One verdict for each (reply, gold, language, question)."""
    settled = [_before_algebra(*each) for each in judged]
    pairs = [each for each in settled if not isinstance(each, str)]
    found = iter(math_pool.verdicts(pairs))
    return [each if isinstance(each, str) else next(found) for each in settled]


def _before_algebra(reply: str, gold: str, language: str, question: str) -> str | tuple[str, str]:
    """The verdict where no algebra is needed, else the pair that math-verify is to compare."""
    answer = answer_of(said(reply), language)
    if answer is None:
        return "different"
    if not any(map(str.isalnum, answer)) or len(answer) > LONGEST:
        return "unparsed"
    inner = last_boxed(gold)
    gold = gold if inner is None else inner
    (found, unit), (wanted, gold_unit) = plain(answer, language), plain(gold, language)
    if WORDS.search(_unwrapped(wanted)):
        return "equal" if clear(answer, language) == clear(gold, language) else "different"
    if unit and gold_unit and unit != gold_unit:
        return "different"
    if _squeezed(found) == _squeezed(wanted):
        return "equal"
    value, target = value_of(found), value_of(wanted)
    if target is not None and value is not None:
        return "equal" if _same_number(value, target, answer, gold) else "different"
    if why_refused(found) or why_refused(wanted) or WORDS.search(_unwrapped(found)):
        return "unparsed"
    if target is not None or found.count("=") != wanted.count("="):
        return "different"
    if len(_squeezed(found)) > 3 and _squeezed(found) in _squeezed(plain(question, language)[0]):
        return "different"
    return wanted, found


def answer_of(reply: str, language: str) -> str | None:
    """The part of a reply that is its answer; None where it lists several."""
    boxed, is_list = box(reply)
    if is_list:
        return None
    if boxed is not None:
        return boxed
    lines = [line.strip() for line in reply.splitlines() if line.strip()]
    if not lines:
        return ""
    marked = [line for line in lines if _markers().search(line)]
    text = marked[-1] if marked else lines[-1]
    if marked:
        text = text[[m.end() for m in _markers().finditer(text)][-1] :].strip(" :：")
    text = text[-LONGEST:]  # the patterns below take the square of its length at worst
    bare, _ = plain(text, language)
    if value_of(bare) is not None or not WORDS.search(_unwrapped(bare)):
        return text
    formulas = [next(filter(None, m.groups())) for m in INLINE.finditer(text)]
    numbers = formulas or [m[0] for m in A_NUMBER.finditer(latin_digits(clean(text)))]
    return numbers[0] if len(numbers) == 1 else text


@lru_cache(maxsize=1)
def _markers() -> re.Pattern:
    """What stands before an answer: the lead-ins and choice markers of all packs, and GSM8K's ####."""
    words = {"####", "answer is", "answer:"}
    for code in packs():
        known = pack(code)
        words |= {w for w in known.choice.markers if len(w) > 2}
    ordered = sorted(words, key=len, reverse=True)
    return re.compile("|".join(re.escape(word) for word in ordered), re.IGNORECASE)


def plain(text: str, language: str) -> tuple[str, str]:
    """(one LaTeX expression in 0-9 without its unit, the unit's name or "")."""
    text = latin_digits(clean(text[: 2 * LONGEST]))
    for sign, latex in SIGNS.items():
        text = text.replace(sign, latex)
    text = text.strip(" .。,;")
    for opening, closing in (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]")):
        if (
            len(text) > len(opening + closing)
            and text.startswith(opening)
            and text.endswith(closing)
        ):
            text = text[len(opening) : -len(closing)].strip()
    for ending in affixes(language)[1]:  # ครับ, 입니다
        text = text.removesuffix(ending).rstrip(" .")
    text = re.sub(r"\\(?:left|right|displaystyle|,|!|;|:)(?![a-zA-Z])", "", text)
    text, unit = split_unit(text.strip(" ."), language)
    text = SHORT_FRACTION.sub(r"\1{\2}{\3}", text)
    if text.startswith("{") and text.endswith("}"):
        text = rf"\{{{text[1:-1]}\}}"
    text = re.sub(r"(?<![\\a-zA-Z])sqrt\(([^()]*)\)", r"\\sqrt{\1}", text)
    return text.strip(), unit


def value_of(text: str) -> Fraction | None:
    """The number that an expression is, if nothing is left to compute in it: -3, 1,250, 1/2, 50%,
    2.5 x 10^3, 1e5, 3 1/2, or one of them after "x =". None for 2+3 and for \\sqrt{4}."""
    text = NAMED.sub("", text).strip()
    if scientific := SCIENTIFIC.fullmatch(text):
        base, power = scientific[1] or scientific[3], int(scientific[2] or scientific[4])
        return Fraction(base) * Fraction(10) ** power
    if mixed := MIXED.fullmatch(text):
        top, bottom = int(mixed[3] or mixed[5]), int(mixed[4] or mixed[6])
        value = int(mixed[2]) + Fraction(top, bottom) if bottom else None
        return -value if value is not None and mixed[1] == "-" else value
    if re.fullmatch(r"[-+]?\d{1,3}(?: \d{3})+", text):  # 1 250 000
        text = text.replace(" ", "")
    return number(text)


def _same_number(value: Fraction, target: Fraction, answer: str, gold: str) -> bool:
    """Equal; or per cent on one side only, either meant so or left out; or a decimal that is the gold
    fraction to six places."""
    if value == target:
        return True
    if ("%" in answer) != ("%" in gold):
        return target == (value / 100 if "%" in answer else value * 100)
    has_end = re.fullmatch(r"(?:2|5)*", "".join(map(str, _primes(target.denominator)))) is not None
    return not has_end and abs(value - target) <= Fraction(1, 2_000_000)


def _primes(n: int) -> list[int]:
    """The primes 2 and 5 of n as often as they are in it, and what remains."""
    found = []
    for prime in (2, 5):
        while n % prime == 0:
            found.append(prime)
            n //= prime
    return found + ([n] if n > 1 else [])


def why_refused(text: str) -> str:
    """ "" if an expression may be given to a computer algebra, else what in it only burns time."""
    text = text.replace("**", "^")
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    if len(text) > LONGEST:
        return "too long"
    if deepest > DEEPEST:
        return "nested too deep"
    if sum(map(str.isdigit, text)) > MOST_DIGITS:
        return "too many digits"
    if "$" in text or "\\boxed" in text:
        return "more than one expression"
    if re.search(r"\d{5,}\s*!|!\s*!", text) or re.search(r"[)}\]]\s*!", text):
        return "a large factorial"
    if text.count("^") > DEEPEST:
        return "too many powers"
    if tower(COMMAND.sub("", text).replace(" ", "")) > 1:
        return "a tower of powers"
    if re.search(r"\d\s+\d", text):
        return "two numbers side by side"
    return ""


def tower(text: str) -> int:
    """How many powers of numbers stand on one another: 1 in 9^{10}, 2 in 9^9^9, 9^{9^9} and (9^9)^9.

    A power with a letter in it is not computed and counts for nothing: e^{-x^2} is 0.
    """
    tallest = at = 0
    while at < len(text):
        height, at = _power(text, at)
        tallest = max(tallest, height)
    return tallest


def _power(text: str, at: int) -> tuple[int, int]:
    """(height, end) of the operand that begins at `at` with the powers upon it."""
    end = _operand_end(text, at)
    height = tower(text[at + 1 : end - 1]) if text[at] in "([{" else 0
    if text[end : end + 1] != "^" or end + 1 == len(text):
        return height, end
    above, stop = _power(text, end + 1)
    return max(height, above) + (not any(map(str.isalpha, text[at:stop]))), stop


def _operand_end(text: str, at: int) -> int:
    """Where a bracket, a number or a single character ends."""
    if digits := re.compile(r"\d[\d.,]*").match(text, at):
        return digits.end()
    depth = 0
    for end in range(at, len(text)):
        depth += (text[end] in "([{") - (text[end] in ")]}")
        if depth <= 0:
            return end + 1
    return len(text)


def _unwrapped(text: str) -> str:
    """An expression without LaTeX's commands, so that what is left of words are words."""
    return COMMAND.sub(" ", text)


def _squeezed(text: str) -> str:
    """Without the spaces and signs of size that mean nothing."""
    return re.sub(r"\s|\\(?:left|right)(?![a-zA-Z])", "", text)
