"""Runs in phases, on stores of letters. The curricula of METHODS 9.3 and 11.5 are in test_curricula.py."""

from collections import Counter

import numpy as np
import pytest

from data.fake import documents
from endonym.core.errors import DataError, RecipeError
from endonym.data.loader import Loader
from endonym.data.phased import phased
from endonym.data.phases import Phase, Sampling, Threshold

RUN = {"rows_per_step": 4, "row_length": 32, "seed": 3}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    rng = np.random.default_rng(0)

    def store(name, number, languages, scores=None):
        lengths = rng.integers(1, 32, number)
        chosen = [languages[n % len(languages)] for n in range(number)]
        return documents(folder / name, lengths, name, languages=chosen, scores=scores)

    return {
        "web": store("web", 300, ["en", "en", "ko"], {"edu": rng.normal(2, 1, 300)}),
        "books": store("books", 120, ["ko", "th"], {"edu": rng.normal(4, 1, 120)}),
        "code": store("code", 80, [""]),
    }


def drawn(run, steps):
    """(store's name, sequence) of everything in these steps, in order."""
    for step in steps:
        phase, _ = run.at(step)
        names = [source.name for source in run.loaders[phase].sources]
        for row in run.sequences(step):
            yield from ((names[store], sequence) for store, sequence, _ in row)


def test_a_run_of_one_plain_phase_is_the_loader(stores):
    mixture = {"web": 0.5, "code": 0.5}
    run = phased(stores, [Phase(steps=9, mixture=mixture)], **RUN)
    loader = Loader([stores["web"], stores["code"]], [0.5, 0.5], **RUN)
    assert [run.sequences(n) for n in range(12)] == [loader.sequences(n) for n in range(12)]
    assert run.report(9) == loader.report(9)
    run, loader = phased(stores, [Phase(steps=9)], **RUN), Loader(list(stores.values()), **RUN)
    assert [run.sequences(n) for n in range(12)] == [loader.sequences(n) for n in range(12)]


def test_the_steps_of_a_phase_are_its_own(stores):
    phases = [
        Phase(name="short", steps=3, mixture={"web": 1}),
        Phase(name="long", tokens=1000, row_length=64, rows_per_step=2, mixture={"books": 1}),
    ]
    run = phased(stores, phases, **RUN)
    # 1000 tokens in steps of 2 x 64: 8
    assert run.lengths == [3, 8] and run.steps == 11
    assert [run.at(step) for step in (0, 2, 3, 10, 11, 50)] == [
        (0, 0), (0, 2), (1, 0), (1, 7), (1, 8), (1, 47),
    ]  # fmt: skip
    assert len(run.rows(2)) == 4 and len(run.rows(3)) == 2
    assert run.rows(2).tokens.shape[1] <= 32 < run.rows(3).tokens.shape[1]
    assert run.rows(3, (1, 2)).tokens.tolist() == run.rows(3).tokens[1:].tolist()
    assert run.names(3)[0].startswith("books: ") and run.names(2)[0].startswith("web: ")
    assert run.state(2)["phase"] == 1 and run.state(3) == {"phase": 2.0, "epoch/books": 0.0}
    assert [row["source"] for row in run.report(5)] == ["short/web", "long/books"]
    assert list(run.measured(3)["phases"]) == ["short"]


def test_any_step_can_be_drawn_first_and_thresholds_change_at_the_border(stores):
    """EVALUATION R13, over phases."""

    def make():
        return phased(
            stores,
            [
                Phase(steps=25, mixture={"web": 0.7, "books": 0.3}),
                Phase(steps=25, mixture={"web": 0.4, "books": 0.6}, thresholds={"edu": Threshold(top=0.5)}),
                Phase(steps=25, sampling=Sampling(by="temperature", over="language"), row_length=48),
            ],
            **RUN,
        )  # fmt: skip

    whole = make()
    order = [whole.sequences(step) for step in range(80)]
    for step in [79, 75, 74, 50, 49, 48, 26, 25, 24, 0]:
        again = make()
        assert again.identity == whole.identity
        assert again.sequences(step) == order[step]
    best = {
        name: np.nan_to_num(store.scores.get("edu", np.zeros(len(store))))
        for name, store in stores.items()
    }
    languages = {name: store.languages for name, store in stores.items()}
    median = {}
    for language in ("en", "ko", "th"):
        pool = [
            best[name][[languages[name].names[c] == language for c in languages[name].codes]]
            for name in ("web", "books")
        ]
        median[language] = np.median(np.concatenate(pool))
    for name, sequence in drawn(whole, range(25, 50)):
        language = languages[name].names[languages[name].codes[sequence]]
        assert best[name][sequence] >= median[language]
    assert any(best[n][s] < 1 for n, s in drawn(whole, range(25)))
    kept = whole.kept()
    assert kept["1"] == {} and kept["2"]["en"] == {"sequences": 200, "kept": 100}
    assert kept["2"][""] == {"sequences": 80, "kept": 0}


def test_a_source_goes_on_with_the_rows_that_were_not_seen(stores):
    same = {"edu": Threshold(top=0.5)}
    phases = [
        Phase(steps=6, mixture={"web": 1}, thresholds=same),
        Phase(steps=5, mixture={"books": 1}),
        Phase(steps=6, mixture={"web": 0.75, "books": 0.25}, thresholds=same),
        Phase(steps=4, mixture={"web": 1}),
        Phase(steps=1, mixture={"web": 1}, thresholds=same),
    ]
    run = phased(stores, phases, **RUN)
    first, _, third, last, back = run.loaders
    assert first.sources[0] is third.sources[0] and len(first.sources[0]) > 24 + 18
    rows = [row for step in range(6) for _, row in first.places(step)]
    rows += [row for step in range(6) for store, row in third.places(step) if store == 0]
    assert len(rows) == 24 + 18 and len(set(rows)) == len(rows)
    assert run.state(11)["epoch/web"] == 24 / len(first.sources[0])
    # without the threshold these are other rows, and books were other ones when all passed
    assert last.mixture.after == (0,) and third.mixture.after == (24, 0)
    assert back.mixture.after == (24 + 18,)


def test_order_hangs_on_the_label_not_on_the_place(stores):
    one = phased(
        stores, [Phase(steps=5, mixture={"web": 1}), Phase(steps=5, mixture={"web": 1})], **RUN
    )
    two = phased(
        stores,
        [Phase(steps=5, mixture={"web": 1}), Phase(steps=5, mixture={"code": 0.5, "web": 0.5})],
        **RUN,
    )
    rows = [row for step in range(5) for _, row in one.loaders[1].places(step)]
    mixed = [row for step in range(5) for store, row in two.loaders[1].places(step) if store == 1]
    assert mixed == rows[: len(mixed)]


def test_a_longer_row_length_begins_its_own_epoch(stores):
    phases = [Phase(steps=5, mixture={"web": 1}), Phase(steps=5, mixture={"web": 1}, row_length=64)]
    run = phased(stores, phases, **RUN)
    assert run.loaders[1].mixture.after == (0,)


def test_sampling_by_language_goes_through_all_stores(stores):
    rule = Sampling(by="weights", over="language")
    phase = Phase(steps=500, mixture={"ko": 0.2, "en": 0.8}, sampling=rule)
    found = phased(stores, [phase], **RUN).measured(500)["phases"]["1"]
    assert set(found["languages"]) == {"ko", "en"}
    assert found["languages"]["ko"]["share"] == pytest.approx(0.2, rel=0.03)
    assert set(found["sources"]) == {"web:ko", "web:en", "books:ko"}
    epochs = [found["sources"][name]["epochs"] for name in ("web:ko", "books:ko")]
    assert epochs[0] == pytest.approx(epochs[1], rel=0.05)


def test_unimax_and_caps_are_kept_in_what_is_drawn(stores):
    # 800 rows; 4 epochs of code are 160 or so, of books 240, and web has the rest
    rule = Sampling(by="unimax", max_epochs=4)
    run = phased(stores, [Phase(steps=200, sampling=rule)], **RUN)
    found = run.measured(200)["phases"]["1"]["sources"]
    sizes = dict(zip(("web", "books", "code"), run.loaders[0].num_rows))
    assert 4 * (sizes["code"] + sizes["books"]) < 533 < 800 < 4 * sum(sizes.values())
    for name in ("books", "code"):
        assert found[name]["epochs"] == pytest.approx(4, rel=0.02)
    capped = Phase(
        steps=100,
        mixture={"web": 0.2, "code": 0.8},
        sampling=Sampling(max_epochs={"code": 3}),
    )
    found = phased(stores, [capped], **RUN).measured(100)["phases"]["1"]["sources"]
    assert found["code"]["epochs"] == pytest.approx(3, rel=0.02)
    assert found["web"]["rows"] == 400 - found["code"]["rows"]


ERRORS = [
    (dict(mixture={"wep": 1}), RecipeError, "no store named 'wep'"),
    (dict(mixture={"web": 0}), RecipeError, "not all 0"),
    (dict(mixture={"xx": 1}, sampling=Sampling(over="language")), RecipeError, "no language named"),
    (dict(mixture={"web": 1, "code": 2}, sampling=Sampling(by="size")), RecipeError, "from the sizes"),
    (dict(sampling=Sampling(max_epochs={"wep": 1})), RecipeError, "no store named"),
    (dict(sampling=Sampling(by="unimax", max_epochs=0.1)), RecipeError, "there is less"),
    (dict(sampling=Sampling(max_epochs=0.1)), RecipeError, "there is less"),
    (dict(thresholds={"noise": Threshold(at_least=1)}), RecipeError, "has the score 'noise'"),
    (dict(mixture={"web": 1}, thresholds={"edu": Threshold(at_least=99)}), DataError, "nothing of 'web'"),
    (dict(mixture={"code": 1}, thresholds={"edu": Threshold(top=0.5)}), DataError, "nothing of 'code'"),
    (dict(mixture={"web": 1}, never_truncate=True, row_length=9), DataError, "longer than a row"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "kind", "says"), ERRORS)
def test_what_cannot_be_drawn_names_the_phase(stores, settings, kind, says):
    phases = [Phase(steps=2, mixture={"web": 1}), Phase(name="late", steps=90, **settings)]
    with pytest.raises(kind, match=says) as error:
        phased(stores, phases, **RUN)
    assert "phase late" in str(error.value)


def test_sequences_without_a_score_can_stay(stores):
    keep = Threshold(at_least=2, missing="keep")
    phase = Phase(steps=40, mixture={"web": 0.5, "code": 0.5}, thresholds={"edu": keep})
    run = phased(stores, [phase], **RUN)
    seen = Counter(name for name, _ in drawn(run, range(40)))
    assert seen["code"] and seen["web"]
    assert all(
        stores["web"].scores["edu"][sequence] >= 2
        for name, sequence in drawn(run, range(40))
        if name == "web"
    )


@pytest.mark.parametrize(
    "settings",
    [
        dict(),
        dict(steps=1, tokens=5.0),
        dict(steps=1, thresholds={"edu": {}}),
        dict(steps=1, thresholds={"edu": {"top": 1.5}}),
        dict(steps=1, sampling={"by": "unimax"}),
        dict(steps=1, sampling={"max_epochs": {"web": 0}}),
    ],
)
def test_settings_without_sense_are_refused(settings):
    with pytest.raises(RecipeError):
        Phase.read(settings, "recipe.toml: phases")


def test_whole_numbers_are_read_as_such():
    phase = Phase.read({"tokens": 10, "sampling": {"by": "unimax", "max_epochs": 4}})
    assert phase.num_steps(2, 3) == 2 and phase.sampling.max_epochs == 4.0


def test_two_phases_of_one_name(stores):
    with pytest.raises(RecipeError, match="names of their own"):
        phased(stores, [Phase(name="a", steps=1), Phase(name="a", steps=1)], **RUN)
