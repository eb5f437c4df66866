"""IFEval's 25 kinds of instruction (arXiv:2311.07911), by its own ids and arguments, in any language.

    f(reply, *, language, **arguments) -> bool        arguments as in the column `kwargs` of its data

The published checkers are written for English. Where ours depart, and why (the left is theirs):

    keyword as a regular expression  ->  literal: "a.c" is not in "abc"
    \\b around a forbidden word       ->  a word as lang/segment.py cuts it; Korean particles may follow.
                                         \\b never matches after a Thai vowel sign or tone mark
    \\w+ for words, nltk's sentences  ->  words and sentences of lang/segment.py: newmm and crfcut for
                                         Thai, eojeol and kiwi for Korean, spaces and marks for English
    a letter is one character        ->  a code point of the NFC text, so a Thai consonant counts under
                                         any vowel; a lone Hangul letter (ㄱ) counts inside syllables too;
                                         a letter of several code points counts as a grapheme cluster
    langdetect, seedless             ->  the script rule of lang/script.py, then lang/identify.py among
                                         IFEval's languages; no letters: fail (theirs passes)
    "," alone                        ->  also "，" "、" "،"
    '"' alone for a quotation        ->  also “ ” ‘ ’ 「 」 『 』 « »
    any valid JSON                   ->  an object or a list: a bare 5 is no JSON output
    one of the allowed answers in it ->  exactly one of them: listing all three is no answer
    a marker is there                ->  and something after it: postscripts, sections, titles, bullets
                                         and what follows a repeated request hold a letter or digit
    "* a *" is a highlight           ->  not where a space follows the star: that is a bullet

Letter case means nothing in a script without it: `applies` is False for the three change_case kinds
when the language is written so (Thai, Korean), and they are left out of every score, above and below
the line. In other languages english_capital and english_lowercase ask for Latin letters of one case;
which Latin language it is they do not ask, as no detector can read short texts in capitals.
"""

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from endonym.lang.identify import identify
from endonym.lang.normalize import latin_digits
from endonym.lang.pack import pack, read_packed
from endonym.lang.script import in_language, script_of
from endonym.lang.segment import graphemes, sentences, words
from endonym.rewards.parts import json_value
from endonym.rewards.wording import (
    COMMAS,
    MARKS,
    QUOTES,
    bare_words,
    fold,
    has_word,
    holds,
    visible,
)

LANGUAGES = frozenset(
    {"en", "es", "pt", "ar", "hi", "fr", "ru", "de", "ja", "it", "bn", "uk", "th", "ur", "ta"}
    | {"te", "bg", "ko", "pl", "he", "fa", "vi", "ne", "sw", "kn", "mr", "gu", "pa", "ml", "fi"}
)
CASED = {"Latn", "Grek", "Cyrl", "Armn", "Cher", "Copt", "Glag", "Dsrt", "Adlm", "Osge"}
ANSWERS = ["My answer is yes.", "My answer is no.", "My answer is maybe."]


def existence(reply: str, *, keywords: list[str], language: str) -> bool:
    return all(fold(word) in fold(reply) for word in keywords)


def frequency(reply: str, *, keyword: str, frequency: int, relation: str, language: str) -> bool:
    return holds(fold(reply).count(fold(keyword)), frequency, relation)


def forbidden_words(reply: str, *, forbidden_words: list[str], language: str) -> bool:
    return not any(has_word(fold(reply), fold(word), language) for word in forbidden_words)


def letter_frequency(
    reply: str, *, letter: str, let_frequency: int, let_relation: str, language: str
) -> bool:
    return holds(count_letter(fold(reply), fold(letter)), let_frequency, let_relation)


def count_letter(text: str, letter: str) -> int:
    """How often a letter stands in a text; both are folded. See the head of this file."""
    if len(letter) != 1:
        return graphemes(text).count(letter)
    found = text.count(letter)
    if "\u3131" <= letter <= "\u3163":
        syllables = "".join(c for c in text if "\uac00" <= c <= "\ud7a3")
        found += sum(_jamo(part) == letter for part in unicodedata.normalize("NFD", syllables))
    return found


@lru_cache(maxsize=256)
def _jamo(part: str) -> str:
    """The letter of a conjoining jamo: U+1100 and U+11A8 are both ㄱ."""
    return unicodedata.lookup(f"HANGUL LETTER {unicodedata.name(part).split(maxsplit=2)[2]}")


def response_language(reply: str, *, language: str) -> bool:
    """`language` is the instruction's own argument: the language that the reply must be in."""
    code = language.split("-")[0]
    return in_language(reply, code) and identify(reply, LANGUAGES | {code}).language == code


def number_words(reply: str, *, num_words: int, relation: str, language: str) -> bool:
    return holds(len(words(visible(reply), language)), num_words, relation)


def number_sentences(reply: str, *, num_sentences: int, relation: str, language: str) -> bool:
    return holds(len(sentences(visible(reply), language)), num_sentences, relation)


def number_paragraphs(reply: str, *, num_paragraphs: int, language: str) -> bool:
    """Paragraphs are parted by the divider ***; only the first and the last piece may be empty."""
    pieces = [piece.strip() for piece in re.split(r"\s?\*\*\*\s?", visible(reply))]
    if len(pieces) > 1:
        pieces = pieces[not pieces[0] :]
        pieces = pieces[: len(pieces) - (not pieces[-1])]
    return len(pieces) == num_paragraphs and all(map(_says, pieces))


def nth_paragraph_first_word(
    reply: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str, language: str
) -> bool:
    """Paragraphs are parted by empty lines here (the instruction says so)."""
    blocks = [block.strip() for block in re.split(r"\n\s*\n", fold(reply)) if block.strip()]
    if len(blocks) != num_paragraphs or not 1 <= nth_paragraph <= len(blocks):
        return False
    block, wanted = blocks[nth_paragraph - 1].lstrip(MARKS + " "), fold(first_word).strip()
    if pack(language).count.words == "none" or "Hang" in pack(language).scripts:
        return block.startswith(wanted)
    pieces = bare_words(wanted, language)
    return block.startswith(wanted) and bare_words(block, language)[: len(pieces)] == pieces


def number_placeholders(reply: str, *, num_placeholders: int, language: str) -> bool:
    """At least so many [placeholders]."""
    return sum(map(_says, re.findall(r"\[([^\n\[\]]*)\]", visible(reply)))) >= num_placeholders


def postscript(reply: str, *, postscript_marker: str, language: str) -> bool:
    """The marker, its dots with or without spaces after them, and something said behind it."""
    marker = re.escape(fold(postscript_marker).strip().rstrip("."))
    marker = marker.replace(r"\.", r"\.\s?").replace(r"\ ", r"\s?")
    found = re.search(rf"(?<!\w){marker}\.?(.*)", fold(reply), re.DOTALL)
    return found is not None and _says(found[1])


def number_bullet_lists(reply: str, *, num_bullets: int, language: str) -> bool:
    """Exactly so many lines "* ...", "- ..." or "• ..."; a line that begins in bold is none."""
    bullets = re.findall(r"^[^\S\n]*(?:[-•]|\*(?!\*))(.*)$", visible(reply), re.MULTILINE)
    return sum(map(_says, bullets)) == num_bullets


def constrained_response(reply: str, *, language: str) -> bool:
    """Exactly one of the allowed answers, in English or as lang/packs/<language>/ifeval.toml says it."""
    allowed = [*ANSWERS, *read_packed(language, "ifeval.toml").get("answers", [])]
    text = " ".join(fold(reply).split())
    return sum(fold(answer).rstrip(".") in text for answer in allowed) == 1


def number_highlighted_sections(reply: str, *, num_highlights: int, language: str) -> bool:
    """At least so many *highlights* or **highlights**, none over a line's end."""
    text = visible(reply)
    double = re.findall(r"\*\*([^\n*]+)\*\*", text)
    text = re.sub(r"\*\*[^\n*]*\*\*", " ", text)
    single = re.findall(r"\*(?!\s)([^\n*]+)(?<!\s)\*", text)
    return sum(map(_says, [*double, *single])) >= num_highlights


def multiple_sections(
    reply: str, *, section_spliter: str, num_sections: int, language: str
) -> bool:
    """At least so many sections "Section 1 ...", each of which says something."""
    mark = rf"\s?{re.escape(visible(section_spliter).strip())}\s?\d+"
    sections = re.split(mark, latin_digits(visible(reply)))[1:]
    return sum(map(_says, sections)) >= num_sections


def json_format(reply: str, *, language: str) -> bool:
    """The whole reply is a JSON object or list, in a fenced block or bare."""
    return json_value(reply) is not None


def title(reply: str, *, language: str) -> bool:
    """<<a title>> on one line."""
    return any(map(_says, re.findall(r"<<([^\n<>]+)>>", visible(reply))))


def two_responses(reply: str, *, language: str) -> bool:
    """Two different replies parted by six stars."""
    pieces = [piece.strip() for piece in visible(reply).split("******")]
    pieces = [p for at, p in enumerate(pieces) if p or 0 < at < len(pieces) - 1]
    return len(pieces) == 2 and all(map(_says, pieces)) and pieces[0] != pieces[1]


def repeat_prompt(reply: str, *, prompt_to_repeat: str, language: str) -> bool:
    """The request word for word first, and then something more."""
    text, wanted = fold(reply).strip(), fold(prompt_to_repeat).strip()
    return text.startswith(wanted) and _says(text[len(wanted) :])


def end_checker(reply: str, *, end_phrase: str, language: str) -> bool:
    """The reply's last words; a closing quotation mark is passed over, as in theirs."""
    return fold(reply).strip().strip('"').endswith(fold(end_phrase).strip())


def quotation(reply: str, *, language: str) -> bool:
    text = visible(reply).strip()
    return len(text) > 2 and QUOTES.get(text[0]) == text[-1] and _says(text)


def english_capital(reply: str, *, language: str) -> bool:
    return _one_case(reply, str.isupper)


def english_lowercase(reply: str, *, language: str) -> bool:
    return _one_case(reply, str.islower)


def _one_case(reply: str, test: Callable[[str], bool]) -> bool:
    letters = [c for c in visible(reply) if c.isalpha()]
    cased = [c for c in letters if c.isupper() or c.islower() or c.istitle()]
    is_latin = all(script_of(c) in ("Latn", None) for c in letters)
    return bool(cased) and is_latin and all(map(test, cased))


def capital_word_frequency(
    reply: str, *, capital_frequency: int, capital_relation: str, language: str
) -> bool:
    """Words all of whose letters are capitals, "A" and "I" among them, as in theirs."""
    capitals = sum(word.isupper() for word in words(visible(reply), language))
    return holds(capitals, capital_frequency, capital_relation)


def no_comma(reply: str, *, language: str) -> bool:
    return not any(comma in visible(reply) for comma in COMMAS)


def _says(text: str) -> bool:
    return any(character.isalnum() for character in text)


IFEVAL: dict[str, Callable[..., bool]] = {
    "keywords:existence": existence,
    "keywords:frequency": frequency,
    "keywords:forbidden_words": forbidden_words,
    "keywords:letter_frequency": letter_frequency,
    "language:response_language": response_language,
    "length_constraints:number_sentences": number_sentences,
    "length_constraints:number_paragraphs": number_paragraphs,
    "length_constraints:number_words": number_words,
    "length_constraints:nth_paragraph_first_word": nth_paragraph_first_word,
    "detectable_content:number_placeholders": number_placeholders,
    "detectable_content:postscript": postscript,
    "detectable_format:number_bullet_lists": number_bullet_lists,
    "detectable_format:constrained_response": constrained_response,
    "detectable_format:number_highlighted_sections": number_highlighted_sections,
    "detectable_format:multiple_sections": multiple_sections,
    "detectable_format:json_format": json_format,
    "detectable_format:title": title,
    "combination:two_responses": two_responses,
    "combination:repeat_prompt": repeat_prompt,
    "startend:end_checker": end_checker,
    "startend:quotation": quotation,
    "change_case:capital_word_frequency": capital_word_frequency,
    "change_case:english_capital": english_capital,
    "change_case:english_lowercase": english_lowercase,
    "punctuation:no_comma": no_comma,
}


def has_case(language: str) -> bool:
    """Whether one of the language's scripts has capital letters."""
    return bool(CASED & set(pack(language).scripts))


def checks_of(
    instruction_id_list: list[str], kwargs: list[dict[str, Any] | None], language: str
) -> list[dict[str, Any]]:
    """IFEval's two columns as checks of rewards/constraints.py. A null argument is one not given (the
    set's copy in Parquet fills every row with nulls); 0 and "" are arguments."""
    return [
        {
            "type": name,
            "language": language,
            **{key: value for key, value in (given or {}).items() if value is not None},
        }
        for name, given in zip(instruction_id_list, kwargs, strict=True)
    ]


def loose_forms(reply: str) -> list[str]:
    """The eight forms of a reply of which IFEval's loose score wants any to obey: as it is, without its
    first line, its last, both; each with and without "*"."""
    parts = reply.split("\n")
    forms = [reply, "\n".join(parts[1:]), "\n".join(parts[:-1]), "\n".join(parts[1:-1])]
    forms = [reply, *(form.strip() for form in forms[1:])]
    return forms + [form.replace("*", "") for form in forms]
