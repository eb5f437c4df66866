"""The phases of Solar Open and JAI-1 as printed, at token counts a laptop draws: asked against drawn.

METHODS 9.3 (arXiv:2601.07022, tables of section 4) and 11.5 (arXiv:2510.08620, section on phases).
"""

import numpy as np
import pytest

from data.fake import documents
from endonym.data.phased import phased
from endonym.data.phases import Phase, Threshold

TOLERANCE = 0.02
"""Of a share, relative: 1 % of a fine mixture (data/mix.py), and rows that are not quite full."""

# phase: tokens in 10^12, share of synthetic text, share of Korean, educational filter
SOLAR = {
    "1": (10.8, 0.102, 0.033, None),
    "2.A": (5.3, 0.320, 0.032, None),
    "2.B": (2.7, 0.361, 0.164, 0.50),
    "2.C": (1.2, 0.645, 0.136, 0.35),
}
SCALE = 2e4  # tokens for 10^12
RUN = {"rows_per_step": 8, "row_length": 64, "seed": 1}


@pytest.fixture(scope="module")
def solar(tmp_path_factory):
    folder = tmp_path_factory.mktemp("solar")
    rng = np.random.default_rng(0)

    def store(name, languages, educational):
        number = 1500
        scores = {
            "noise": rng.uniform(0, 1, number),
            "educational": np.clip(educational + rng.normal(0, 1, number), 0, 5),
            "topic": rng.uniform(0, 1, number),
        }
        chosen = [languages[n % len(languages)] for n in range(number)]
        return documents(
            folder / name, rng.integers(2, 24, number), name, languages=chosen, scores=scores
        )

    return {
        "organic": store("organic", ["en", "ja"], 1.5),
        "korean": store("korean", ["ko"], 1.0),
        "synthetic": store("synthetic", ["en"], 3.0),
        "curated_korean": store("curated_korean", ["ko"], 4.0),
        "repositories": store("repositories", ["code"], 2.5),
    }


def solar_phases():
    phases = []
    for name, (tokens, synthetic, korean, top) in SOLAR.items():
        thresholds = {"noise": Threshold(at_most=0.9)}
        if name != "1":  # all three filters from 2.A on; level 1 is not printed as a number
            thresholds |= {"educational": Threshold(at_least=0.5), "topic": Threshold(at_least=0.1)}
        if top:
            thresholds |= {"educational": Threshold(top=top)}
        mixture = {
            "organic": 1 - synthetic - korean,
            "korean": korean,
            "synthetic": synthetic,
        }
        phases.append(
            Phase(name=name, tokens=tokens * SCALE, mixture=mixture, thresholds=thresholds)
        )
    # 1.5 of which 0.5 curated Korean and 0.5 code of whole repositories; 2.C's text is the rest
    third = {"curated_korean": 0.5, "repositories": 0.5, "synthetic": 0.5}
    return [*phases, Phase(name="3", tokens=1.5 * SCALE, mixture=third)]


def test_solar_open_draws_the_printed_shares(solar):
    run = phased(solar, solar_phases(), **RUN)
    found = run.measured(run.steps)["phases"]
    for name, (tokens, synthetic, korean, _) in SOLAR.items():
        drawn = found[name]
        assert drawn["tokens"] == pytest.approx(tokens * SCALE, rel=TOLERANCE)
        assert drawn["sources"]["synthetic"]["share"] == pytest.approx(synthetic, rel=TOLERANCE)
        assert drawn["languages"]["ko"]["share"] == pytest.approx(korean, rel=TOLERANCE)
        for source in drawn["sources"].values():
            assert source["share"] == pytest.approx(source["asked"], rel=TOLERANCE)
    last = found["3"]["sources"]
    for name in ("curated_korean", "repositories"):
        assert last[name]["tokens"] == pytest.approx(0.5 * SCALE, rel=TOLERANCE)


def test_solar_open_filters_while_loading(solar):
    run = phased(solar, solar_phases(), **RUN)
    pools = {
        language: np.concatenate(
            [
                store.scores["educational"][store.languages.codes == code]
                for store in solar.values()
                for code, name in enumerate(store.languages.names)
                if name == language
            ]
        )
        for language in ("en", "ja", "ko")
    }
    for name, top in (("2.B", 0.50), ("2.C", 0.35)):
        phase = run.phases.index(name)
        begin = sum(run.lengths[:phase])
        names = [source.name for source in run.loaders[phase].sources]
        borders = {language: np.quantile(pool, 1 - top) for language, pool in pools.items()}
        seen = set()
        for step in range(begin, begin + run.lengths[phase]):
            for row in run.sequences(step):
                seen |= {(names[store], sequence) for store, sequence, _ in row}
        for label, sequence in seen:
            store = solar[label]
            language = store.languages.names[store.languages.codes[sequence]]
            assert store.scores["educational"][sequence] >= borders[language] - 1e-3
            assert store.scores["noise"][sequence] <= 0.9
    # a share of each language, so that the language with the lowest marks keeps as much
    half = phased(
        solar, [Phase(steps=1, thresholds={"educational": Threshold(top=0.5)})], **RUN
    ).kept()["1"]
    for language, counts in half.items():
        assert counts["kept"] / counts["sequences"] == pytest.approx(0.5, abs=0.01), language


def test_jai_1_in_three_phases(tmp_path):
    rng = np.random.default_rng(1)
    stores = {
        "english": documents(
            tmp_path / "english", rng.integers(2, 24, 2000), languages=["en"] * 2000
        ),
        "thai": documents(tmp_path / "thai", rng.integers(2, 24, 900), languages=["th"] * 900),
        "long": documents(tmp_path / "long", rng.integers(100, 500, 90), languages=["th"] * 90),
    }
    # 1.5T together; only the second phase's mixture and the lengths of rows, 4K to 32K, are printed
    phases = [
        Phase(name="P1", tokens=60_000, mixture={"english": 1}),
        Phase(name="P2", tokens=80_000, mixture={"thai": 27, "english": 73}),
        Phase(
            name="P3", tokens=20_000, mixture={"thai": 27, "english": 53, "long": 20},
            row_length=512, rows_per_step=1, never_truncate=True,
        ),
    ]  # fmt: skip
    run = phased(stores, phases, **RUN)
    found = run.measured(run.steps)["phases"]
    assert found["P1"]["languages"]["en"]["share"] == 1
    assert found["P2"]["languages"]["th"]["share"] == pytest.approx(0.27, rel=TOLERANCE)
    # 40 rows: a fifth is 8, within one row
    assert found["P3"]["sources"]["long"]["share"] == pytest.approx(0.2, abs=1 / 40)
    # English goes on where P1 stopped
    assert run.loaders[1].mixture.after == (0, found["P1"]["sources"]["english"]["rows"])
    last = run.loaders[2]
    assert last.row_length == 512 and last.shortened == [0, 0, 0]
    assert max(run.rows(step).tokens.shape[1] for step in range(*_span(run, 2))) > 500


def _span(run, phase):
    begin = sum(run.lengths[:phase])
    return begin, begin + run.lengths[phase]


def test_counting_rows_and_drawing_them_agree(solar):
    run = phased(solar, solar_phases(), **RUN)
    begin, end = _span(run, 3)
    tokens = {}
    for step in range(begin, end):
        rows = run.rows(step)
        for place, (store, _) in enumerate(run.loaders[3].places(step - begin)):
            name = run.loaders[3].sources[store].name
            tokens[name] = tokens.get(name, 0) + int((rows.segments[place] > 0).sum())
    sources = run.measured(run.steps)["phases"]["2.C"]["sources"]
    assert {name: row["tokens"] for name, row in sources.items()} == tokens
