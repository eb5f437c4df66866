"""Facts: known examples, every skill of five languages, no placeholder anywhere, stable splits."""

import subprocess
import sys
import unicodedata

import pytest

from endonym.core.errors import DataError
from endonym.lang.locale import (
    RECALL,
    RULES,
    Ranges,
    facts,
    kind_of,
    missing,
    skills,
)

LANGUAGES = ["lo", "th", "ko", "en", "vi"]  # Lao first: it is the one that poisons Babel's months


def value(language: str, skill: str, key: str) -> str:
    return next(fact.value for fact in facts(language, skill) if fact.key == key)


@pytest.mark.parametrize(
    "language, skill, key, wanted",
    [
        ("th", "numbers", "21", "ยี่สิบเอ็ด"),
        ("th", "money", "฿101", "หนึ่งร้อยเอ็ดบาทถ้วน"),
        ("th", "years", "2024", "2567"),
        ("th", "units", "48 km", "48 กิโลเมตร"),
        ("th", "units", "5 min", "5 นาที"),  # only a short form in CLDR
        ("th", "countries", "JP", "ญี่ปุ่น"),
        ("th", "months", "4", "เมษายน"),
        ("th", "weekdays", "วันจันทร์", "วันอังคาร"),
        ("th", "provinces", "ชม", "เชียงใหม่"),
        ("ko", "numbers", "48", "사십팔"),
        ("ko", "money", "₩25", "이십오원"),
        ("ko", "country_currency", "태국", "태국 바트"),
        ("ko", "months", "3", "3월"),
        ("en", "money", "$25", "twenty-five dollars"),
        ("en", "languages", "th", "Thai"),
        ("vi", "numbers", "105", "một trăm lẻ năm"),
        ("lo", "countries", "LA", "ລາວ"),
        ("ja", "months", "4", "4月"),
    ],
)
def test_known_facts(language, skill, key, wanted):
    assert value(language, skill, key) == wanted


def test_dates_keep_the_calendar_of_the_country():
    thai = {fact.key: fact.value for fact in facts("th", "dates")}
    english = {fact.key: fact.value for fact in facts("en", "dates")}
    day = next(key for key in thai if key.startswith("2024-04-"))
    assert thai[day].endswith("เมษายน 2567")
    assert english[day].startswith("April ") and english[day].endswith(", 2024")


def test_weekdays_of_dates_against_the_standard_library():
    from datetime import date

    names = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
    days = [fact.key for fact in facts("en", "dates")]
    for day, fact in zip(days, facts("en", "weekday_of")):
        assert fact.value == names[date.fromisoformat(day).weekday()]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_skill_has_facts_and_no_placeholder(language):
    assert set(skills(language)) | set(missing(language)) == set(RULES + RECALL)
    assert all(missing(language).values())  # each absence has its reason
    for skill in skills(language):
        found = facts(language, skill)
        assert len(found) >= 7, skill
        assert len({fact.key for fact in found}) == len(found), skill
        for fact in found:
            for text in (fact.key, fact.value):
                assert text and text == unicodedata.normalize("NFC", text)
                assert "None" not in text and "duration-" not in text and "-meter" not in text
                assert "\u200b" not in text and "\u00a0" not in text


def test_absent_skills_are_named_with_a_reason():
    assert "numbers" in missing("lo") and "numbers" not in skills("lo")
    assert "money" in missing("vi")
    assert "money" in missing("ar")  # its converter says riyal whatever the currency
    assert missing("th") == {}
    with pytest.raises(DataError, match="'lo' has no skill 'numbers'"):
        facts("lo", "numbers")
    with pytest.raises(DataError, match="did you mean 'numbers'"):
        facts("th", "number")


def test_one_hash_of_the_number_decides_for_every_rule_skill():
    held = {int(fact.key) for fact in facts("th", "numbers") if fact.held_out}
    money = {int(fact.key[1:]) for fact in facts("th", "money") if fact.held_out}
    units = {int(fact.key.split()[0]) for fact in facts("th", "units") if fact.held_out}
    years = {int(fact.key) for fact in facts("th", "years") if fact.held_out}
    dated = {int(fact.key[:4]) for fact in facts("th", "dates") if fact.held_out}
    assert money == held - {0}
    assert units == {n for n in held if 2 <= n <= 99}
    assert years == dated
    assert held == {int(f.key) for f in facts("ko", "numbers") if f.held_out}
    assert not held & set(range(21)) and not held & {30, 40, 500, 900}
    assert 0.15 < len(held) / 1000 < 0.25
    assert kind_of("numbers") == "rule" and kind_of("countries") == "recall"


def test_ranges_are_a_parameter_and_early_thai_years_are_refused():
    small = Ranges(numbers=(5, 9), years=(2000, 2001))
    assert [fact.key for fact in facts("th", "numbers", small)] == ["5", "6", "7", "8", "9"]
    assert len(facts("th", "dates", small)) == 24
    with pytest.raises(DataError, match="began in April"):
        facts("th", "years", Ranges(years=(1930, 1950)))


def test_facts_do_not_depend_on_what_was_asked_before_nor_on_hash_seed():
    """Babel's shared tables: Lao months asked first must not become German ones."""
    code = (
        "from endonym.lang.locale import facts\n"
        "{first}\n"
        "print(hash(''), [(f.key, f.value, f.held_out) for s in ('months', 'weekdays', 'countries')"
        " for f in facts('de', s)])"
    )
    outputs = []
    for first, seed in (("", "1"), ("facts('lo', 'months')", "2")):
        run = subprocess.run(
            [sys.executable, "-c", code.format(first=first)],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PATH": ""},
        )
        outputs.append(run.stdout.partition("[")[2])
    assert outputs[0] == outputs[1] and "Januar" in outputs[0]
