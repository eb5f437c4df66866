"""The report page: whole, closed to the outside, escaped, and the same for the same run."""

import json
import re
import sys
from html.parser import HTMLParser
from itertools import pairwise
from subprocess import run as run_process

import pytest

from endonym.core import curves, report, words
from endonym.core.errors import DataError

ATTACK = "<script>alert('x')</script><img src=x onerror=alert(1)>"
VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """Checks that elements close in order; keeps tags, attributes and the visible text."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.texts, self.ids = [], [], [], [], []
        self.languages = {}  # text -> lang of its nearest element that has one
        self.feed(text)
        self.close()
        assert self.open == [], self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append((tag, dict(attrs).get("lang")))

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop()[0] == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data):
        if self.open and self.open[-1][0] != "style" and data.strip():
            self.texts.append(data.strip())
            self.languages[data.strip()] = next((l for _, l in reversed(self.open) if l), None)

    @property
    def text(self):
        return "\n".join(self.texts)


def stage(name, kind, parents=(), **more):
    inputs = {"input": list(parents)} if parents else {}
    return {"name": name, "kind": kind, "address": f"addr-{name}", "inputs": inputs} | more


@pytest.fixture
def full(tmp_path):
    """A run with every part: five stages, two models, Thai and Korean."""
    metrics = tmp_path / "metrics.jsonl"
    lines = [
        {"step": s, "loss": 5 - s / 300, "grad_norm": 1.0, "learning_rate": 1e-3, "tokens": 64 * s}
        for s in range(1, 1001)
    ]
    metrics.write_text("\n".join(map(json.dumps, lines)) + '\n{"step": 10')  # torn by a kill
    figures = {
        "facts": {"value": 61.5, "low": 55.9, "high": 66.8, "n": 300},
        "bpb": {"value": 0.77, "low": 0.76, "high": 0.78, "n": 1000},
    }
    base = {"facts": {"value": 24.0, "low": 19.5, "high": 29.1, "n": 300}}
    return {
        "title": "Thai & Korean assistant",
        "recipe": "typhoon_s",
        "scale": "tiny",
        "language": "th",
        "command": "endonym run typhoon_s.toml",
        "created": "2025-11-21",
        "endonym_version": "0.1.0",
        "host": {"cpu": "two cores", "device": "cpu", "threads": 2},
        "stages": [
            stage("base", "checkpoint", seconds=3.0, reused=True, licences=["Apache-2.0"]),
            stage("almanac", "documents", seconds=11.0, config={"words": "สระอำ", "seed": 7}),
            stage("cpt", "checkpoint", ["base", "almanac"], seconds=331.0, metrics=str(metrics)),
            stage("sft", "checkpoint", ["cpt"], seconds=75.0, figures={"loss": 0.61234567}),
            stage("scores", "scores", ["base", "sft"], seconds=0.4, bytes=12_300),
        ],
        "scoreboard": {
            "columns": [
                {"key": "facts", "title": "Facts", "better": "higher", "unit": "%"},
                {"key": "bpb", "title": "Thai text", "better": "lower", "unit": "bits per byte"},
            ],
            "rows": [
                {"label": "base", "figures": base},
                {"label": "+ SFT " + ATTACK, "figures": figures},
            ],
            "notes": ["Wilson intervals."],
        },
        "samples": [
            {
                "prompt": "ปีนี้ พ.ศ. อะไร",
                "language": "th",
                "expected": "๒๕๖๘",
                "replies": [
                    {"label": "base", "text": ATTACK, "ok": False, "reason": "no year"},
                    {"label": "+ SFT", "text": "พ.ศ. ๒๕๖๘ ครับ", "ok": True, "reason": ""},
                ],
            },
            {
                "prompt": "수도는?",
                "language": "ko",
                "expected": "",
                "replies": [{"label": "base", "text": "서울", "ok": None, "reason": "by hand"}],
            },
        ],
        "splits": ["No test question stands in the training data."],
        "data": [
            {"source": "https://example.org/wiki", "language": "th", "rows": 18211}
            | {"licence": "CC-BY-SA-4.0", "quarantined": 3, "dropped": 3208}
        ],
        "costs": {"seconds": 420.4, "tokens": 25_890_000, "flops": 2.23e16},
        "chat": "endonym chat sft",
    }


def test_page_holds_every_part_and_parses(full, tmp_path):
    report.write_report(tmp_path / "report.html", full)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    for each in full["stages"]:
        assert each["name"] in page.texts
        assert f"{each['address']}" in page.text
    for said in (
        "Thai & Korean assistant",
        "พ.ศ. ๒๕๖๘ ครับ",
        "서울",
        "CC-BY-SA-4.0",
        "18,211",
        "7 min 0 s",
        "25.9 million",
        "2.2 × 10¹⁶",
        "endonym chat sft",
        "No test question stands in the training data.",
        "0.6123",
        "12.3 kB",
        '"สระอำ"',
        "each point is the mean of 3 steps",
        "lines that could not be read: 1",
    ):
        assert said in page.text, said
    for mark in ("right", "wrong", "not judged"):
        assert mark in page.texts
    assert len(page.ids) == len(set(page.ids)), "an id stands twice"
    targets = [value[1:] for _, name, value in page.attributes if name == "href"]
    assert targets and set(targets) <= set(page.ids)


def test_charts_draw_what_was_measured(full):
    text = report.render(full)
    assert "NaN" not in text
    # One point for each measured figure: facts of two rows, bits per byte of one.
    assert text.count('aria-roledescription="point"') == 3
    assert text.count('aria-roledescription="rule mark"') == 3
    # Loss falls along a straight line, so its path falls on the screen: y grows with every point.
    curve = curves.curve(full["stages"][2])
    path = re.search(r'role="graphics-symbol" aria-roledescription="line mark"[^>]*', curve["svg"])
    points = re.findall(r"[ML]([\d.]+),([\d.]+)", path[0])
    assert len(points) == 334  # 1,000 steps, three a point
    assert all(a[0] != b[0] and float(a[1]) < float(b[1]) for a, b in pairwise(points))


def test_text_carries_its_language(full):
    page = Page(report.render(full))
    assert page.languages["พ.ศ. ๒๕๖๘ ครับ"] == "th"
    assert page.languages["서울"] == "ko"
    assert page.languages["ไทย"] == "th"
    assert page.languages["Scores"] == "en"


def test_nothing_is_fetched_and_nothing_can_run(full):
    text = report.render(full)
    page = Page(text)
    assert "script" not in page.tags and "img" not in page.tags and "link" not in page.tags
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in ("href", "src", "xlink:href"):
            assert value.startswith("#"), (tag, name, value)
    assert set(re.findall(r"url\(([^)]*)\)", text)) == {"#arrowhead"}
    assert "@import" not in text and "xmlns" not in text
    assert "default-src 'none'" in text
    # The only address on the page is the one the run itself names, as text.
    assert re.findall(r"https?://\S{7}", text) == ["https://example"]


def test_markup_in_any_text_is_shown_as_text(full):
    page = Page(report.render(full))
    assert ATTACK in page.texts, "the reply"
    assert "+ SFT " + ATTACK in page.texts, "the row's label"

    def poison(value):
        if isinstance(value, dict):
            return {
                key: value[key] if key in ("inputs", "metrics", "language") else poison(value[key])
                for key in value
            }
        if isinstance(value, list):
            return [poison(each) for each in value]
        return value + '"><script>x</script>' if isinstance(value, str) else value

    for each in full["stages"]:
        each["inputs"] = {}
    for column in full["scoreboard"]["columns"]:
        column.pop("better")  # a choice of two words, not a text
    page = Page(report.render(poison(full)))
    assert "script" not in page.tags


def test_equal_runs_give_equal_bytes(full):
    first = report.render(full)
    assert report.render(json.loads(json.dumps(full))) == first
    full["scoreboard"]["rows"][1]["figures"]["facts"]["value"] += 1
    assert report.render(full) != first


def test_missing_parts_are_one_sentence_each():
    page = Page(report.render({"title": "Bare", "stages": [stage("only", "documents")]}))
    for sentence in (
        "This run measured nothing, so there is no score to show.",
        "This run kept no sample answers.",
        "No stage of this run recorded a training curve.",
        "This run recorded no data source.",
        "This run recorded no totals.",
        "This run made no model to talk with.",
    ):
        assert sentence in page.texts
    assert "Made in 1 stage from only." in page.text.replace("\n", " ")


def test_lost_metrics_are_said(full):
    full["stages"][2]["metrics"] = "gone.jsonl"
    assert "its metrics.jsonl is no longer there." in Page(report.render(full)).texts


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"title": ""}, "no 'title'"),
        ({"stages": []}, "no 'stages'"),
        ({"stages": [stage("a", "x", ["bse"]), stage("base", "x")]}, "did you mean 'base'"),
        ({"stages": [stage("a", "x", ["b"]), stage("b", "x", ["a"])]}, "circle"),
    ],
)
def test_a_run_that_cannot_be_drawn_is_refused_and_leaves_no_file(change, said, tmp_path):
    run = {"title": "t", "stages": [stage("a", "x")]} | change
    (tmp_path / "report.html").write_text("the page before")
    with pytest.raises(DataError, match=said):
        report.write_report(tmp_path / "report.html", run)
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text() == "the page before"


def test_thinning_keeps_means_ends_and_range():
    # 5 steps to at most 2 points: ceil(5 / 2) = 3 a point. Losses 1 2 6 | 4 8: means 3 and 6.
    steps = [{"step": i + 1, "loss": loss} for i, loss in enumerate([1, 2, 6, 4, 8])]
    points, per_point = curves.thin(steps, most=2)
    assert per_point == 3
    assert points == [
        {"step": 3, "loss": 3, "low": 1, "high": 6},
        {"step": 5, "loss": 6, "low": 4, "high": 8},
    ]
    many = [{"step": i, "loss": 1.0} for i in range(12_345)]
    assert len(curves.thin(many)[0]) <= curves.MAX_POINTS
    assert curves.thin(many)[0][-1]["step"] == 12_344


def test_metrics_resumed_torn_and_infinite(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = ['{"step": 2, "loss": 9.0}', '{"step": 1, "loss": 3.0}', '{"step": 2, "loss": 2.0}']
    path.write_text("\n".join([*lines, '{"step": 3, "loss": NaN}', "7", '{"step": 4, "lo']))
    steps, notes = curves.read_metrics(path)
    assert [(step["step"], step["loss"]) for step in steps] == [(1, 3.0), (2, 2.0)]
    assert notes == ["steps without a finite loss: 1", "lines that could not be read: 2"]


def test_a_verdict_needs_intervals_that_do_not_touch():
    first = {"value": 50, "low": 45, "high": 55}
    clear, touching = {"value": 61, "low": 56, "high": 66}, {"value": 60, "low": 55, "high": 65}
    assert report._cell(clear, first, "higher", 0)["verdict"] == "better"
    assert report._cell(clear, first, "lower", 0)["verdict"] == "worse"
    assert report._cell(first, clear, "higher", 0)["verdict"] == "worse"
    assert "verdict" not in report._cell(touching, first, "higher", 0)
    assert "verdict" not in report._cell(clear, {"value": 50}, "higher", 0)
    assert "verdict" not in report._cell(clear, first, None, 0)


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (words.duration(0.44), "0.4 s"),
        (words.duration(59.7), "1 min 0 s"),
        (words.duration(7500), "2 h 5 min"),
        (words.duration(300_000), "3 d 11 h"),
        (words.count(12_345), "12,345"),
        (words.count(1.23e7), "12.3 million"),
        (words.count(3.4e17), "3.4 × 10¹⁷"),
        (words.size(538_000_000), "538 MB"),
        (words.figure(True), "True"),
        (words.figure(2.04171), "2.042"),
        (words.figure(float("nan")), "nan"),
        (words.language_names("ko"), ("Korean", "한국어")),
        (words.language_names("en"), ("English", "")),
        (words.language_names("Lanna"), ("Lanna", "")),
    ],
)
def test_numbers_and_names_as_a_reader_says_them(said, wanted):
    assert said == wanted


def test_decimals_follow_the_narrowest_interval():
    # widths 9.9 and 0.018: two digits of 0.018 are 0.018, three decimals
    wide, narrow = {"value": 63, "low": 58.1, "high": 68}, {"value": 1, "low": 0.99, "high": 1.008}
    assert report._decimals([wide]) == 1
    assert report._decimals([wide, narrow]) == 3
    assert report._decimals([{"value": 123.4}]) == 0
    assert report._decimals([{"value": 1.234}]) == 2


def test_what_is_put_on_the_page_is_escaped_unless_we_drew_it(full):
    """Autoescape is on for every value; the only markup let through is the SVG of our charts.

    A row's label stands both in the table (escaped by jinja2) and in the SVG (escaped by vl-convert,
    then let through), so each of the two escapes is needed for this to hold.
    """
    mark = "<b>&\"'"
    for row in full["scoreboard"]["rows"]:
        row["label"] = mark
    full["stages"][1]["config"] = {mark: {mark: mark}}
    text = report.render(full)
    assert "<b>" not in text
    assert "&lt;b&gt;&amp;&#34;&#39;" in text, "as jinja2 writes it"
    assert "&lt;b&gt;" in report._scores(full["scoreboard"])["columns"][0]["svg"], "as the SVG does"


def test_importing_the_report_loads_no_chart_library():
    heavy = "{'altair', 'vl_convert', 'torch', 'jinja2', 'babel'}"
    code = f"import sys, endonym.core.report; print({heavy} & set(sys.modules))"
    done = run_process([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_probes_are_drawn_below_the_loss_and_torn_lines_passed_over(tmp_path):
    lines = [{"step": 0, "probe": {"needle/found": 0.25, "validation/bpb_th": 2.0}}]
    lines += [{"step": n, "loss": 3.0 - n / 10, "grad_norm": 1.0} for n in range(4)]
    lines += [{"step": 4, "probe": {"needle/found": 0.75, "validation/bpb_th": 1.5}}]
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + '\n{"step": 8, "probe": {"nee')
    drawn = curves.curve({"name": "cpt", "metrics": str(path)})
    assert drawn["probes"]["said"] == "needle/found 0.25 to 0.75, validation/bpb_th 2 to 1.5"
    assert drawn["said"].startswith("3 steps"), "a probe is no step"
    assert "validation/bpb_th" in drawn["probes"]["svg"]
    page = report.render({"title": "t", "stages": [stage("cpt", "model", metrics=str(path))]})
    assert "Probes of cpt: needle/found 0.25 to 0.75" in page
    path.write_text(json.dumps(lines[1]))
    assert curves.curve({"name": "cpt", "metrics": str(path)})["probes"] is None


def test_a_reinforcement_run_shows_its_rewards_and_answers(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [
        {"step": n, "loss": 0.0, "reward": n / 100, "rewards/answer/mean": n / 200}
        for n in range(150)
    ]
    lines.insert(0, {"step": 0, "loss": 0.0, "reward": 9.0})  # what a kill took back
    path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    call = {"function": {"name": "search_law", "arguments": {"query_list": ["<b>"]}}}
    said = [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "มาตรา 1"},
        {"role": "assistant", "content": "ห้าม"},
    ]
    prompt = [{"role": "system", "content": "unseen"}, {"role": "user", "content": "ทำอะไรไม่ได้"}]
    answers = [{"messages": said, "reward": 0.9}, {"messages": [], "reward": None}]
    log = tmp_path / "rollouts.jsonl"
    log.write_text(json.dumps({"batch": 3, "id": "x", "prompt": prompt, "answers": answers}))
    stage = {"name": "policy", "metrics": str(path), "rollouts": str(log)}
    curve = curves.curve(stage)
    assert curve["rewards"]["said"] == "reward 0.01 to 1.48, answer 0.005 to 0.74"
    page = report.render({"title": "t", "stages": [stage | {"use": "rl", "inputs": {}}]})
    assert "→ search_law" in page and "&lt;b&gt;" in page and "← มาตรา 1" in page
    assert "0.90" in page and "not judged" in page and "unseen" not in page
    plain = curves.curve({"name": "sft", "metrics": str(write_steps(tmp_path / "plain.jsonl"))})
    assert plain["rewards"] is None and plain["rollouts"] == []


def write_steps(path):
    path.write_text('{"step": 0, "loss": 1.0}\n{"step": 1, "loss": 0.5}\n')
    return path


def test_what_was_drawn_stands_beside_what_was_asked(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"step": 0, "loss": 1.0}))
    drawn = {
        "<b>news": {"asked": 0.27, "share": 0.2698, "tokens": 540, "epochs": 0.5},
        "english": {"asked": 0.73, "share": 0.7302, "tokens": 1460, "epochs": 2.0},
        "unused": {"asked": 0.0, "share": 0.0, "tokens": 0, "epochs": 0.0},
    }
    one = stage("cpt", "model", metrics=str(path), mixture=drawn)
    page = Page(report.render({"title": "t", "stages": [one]}))
    at = page.texts.index("<b>news")
    assert page.texts[at : at + 5] == ["<b>news", "27.0 %", "27.0 %", "540", "0.5"]
    assert "unused" not in page.texts


def test_a_needle_grid_says_its_worst_cell():
    cells = [
        {"length": length, "depth": depth, "found": 0.9 if length == 512 else depth}
        for length in (512, 4096)
        for depth in (0.5, 1.0)
    ]
    run = {"title": "t", "stages": [stage("a", "b")]}
    page = report.render(run | {"needles": [{"label": "+long", "cells": cells}]})
    assert "worst: 50 % at 4,096 tokens, depth 0.5" in page and 'href="#needles"' in page
    assert 'id="needles"' not in report.render(run)


def test_many_answers_are_folded_behind_the_first_ten():
    sample = {"prompt": "?", "language": "", "expected": "", "replies": []}
    samples = [sample | {"prompt": f"question {n}"} for n in range(13)]
    run = {"title": "t", "stages": [{"name": "s", "use": "sft", "inputs": {}}], "samples": samples}
    page = report.render(run)
    before, _, after = page.partition("<summary>3 more questions</summary>")
    assert "question 9" in before and "question 10" not in before and "question 12" in after
    assert page.count("<details>") == page.count("</details>")
    few = report.render(run | {"samples": samples[:10]})
    assert "more questions" not in few
