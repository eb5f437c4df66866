"""Teachers of every kind: padded, with ids dealt out otherwise, of another tokenizer, prefixed, kept."""

import json

import pytest
import torch

from endonym.core.artifact import Artifact
from endonym.core.errors import DataError, RecipeError
from endonym.data.document import Conversation
from endonym.model import hf
from endonym.rollouts.states import States
from endonym.rollouts.vocabularies import same
from endonym.stages.states import StatesConfig, states
from endonym.tokenizer.folder import Backend, Tokenizer
from endonym.tokenizer.train import train
from eval.tiny import ENGLISH, THAI, context, model, tokenizer
from stages.test_distill import artifact, lines, run, start, talk, weights

SMALL = {"lmbda": 0, "steps": 2, "row_length": 64}


@pytest.fixture
def inputs(tmp_path):
    return {
        "model": start(tmp_path / "model", model()),
        "teacher": start(tmp_path / "teacher", model(1)),
        "data": {"chat": talk(tmp_path / "chat", 12, ENGLISH[:20], "yes it is")},
    }


def with_rows(net, rows):
    """A copy whose embedding has other rows: a longer one is padded with noise."""
    config = net.config.model_copy(update={"vocab_size": rows})
    made = hf.new(config, 5)
    state, own = net.state_dict(), made.state_dict()
    for name, tensor in state.items():
        if tensor.shape == own[name].shape:
            own[name] = tensor
        else:
            count = min(len(tensor), rows)
            own[name][:count] = tensor[:count]
    made.load_state_dict(own)
    return made.eval()


def folder(path, net, words):
    hf.save(net, path, eos_ids=words.stop_ids)
    words.save(path)
    return Artifact(path, {"address": path.name, "licences": ["MIT"], "files": {}, "figures": {}})


def first(out):
    return lines(out)[0]["loss"]


def test_padding_of_either_side_changes_nothing(tmp_path, inputs):
    size = tokenizer().vocab_size
    _, plain = run(tmp_path, inputs, "plain", **SMALL)
    wide = {
        "model": start(tmp_path / "wide", with_rows(model(), size + 9)),
        "teacher": start(tmp_path / "wider", with_rows(model(1), size + 31)),
    }
    for name, given in (
        ("student", {"model": wide["model"]}), ("teacher", {"teacher": wide["teacher"]}),
        ("both", wide),
    ):  # fmt: skip
        _, out = run(tmp_path, inputs | given, name, **SMALL)
        assert [line["loss"] for line in lines(out)] == pytest.approx(
            [line["loss"] for line in lines(plain)], rel=1e-5
        )


def test_an_answer_ends_before_a_token_without_a_name(tmp_path, inputs):
    """A student that draws from its padding: row 420 is drawn nearly always after any token."""
    size = tokenizer().vocab_size
    net = with_rows(model(), size + 4)
    with torch.no_grad():
        net.head[size:] = 0.0
        net.head[size] = 1e3  # times hidden states of either sign: about half of all draws
    given = inputs | {"model": start(tmp_path / "wild", net)}
    outcome, _ = run(tmp_path, given, "wild", lmbda=1, steps=2)
    assert outcome.figures["drawn"]["truncated"] > 0


def renumbered(words, swap):
    """The tokenizer with the ids of two tokens exchanged."""
    state = json.loads(words.backend.to_str())
    a, b = swap
    vocab = state["model"]["vocab"]
    back = {number: text for text, number in vocab.items()}
    vocab[back[a]], vocab[back[b]] = b, a
    return Tokenizer(Backend.from_str(json.dumps(state)), words.named, words.template)


def test_ids_dealt_out_otherwise_are_matched_by_name(tmp_path, inputs):
    _, plain = run(tmp_path, inputs, "plain", **SMALL)
    words, net = tokenizer(), model(1)
    both = [words.encode(text)[0] for text in ("the", "yes")]
    other = renumbered(words, both)
    assert other.encode("the") == both[1:] and words.encode("the") == both[:1]
    moved = with_rows(net, len(net.head))
    with torch.no_grad():
        moved.head[both] = net.head[both[::-1]]
    _, out = run(tmp_path, inputs | {"teacher": folder(tmp_path / "moved", moved, other)}, **SMALL)
    assert [line["loss"] for line in lines(out)] == pytest.approx(
        [line["loss"] for line in lines(plain)], rel=1e-5
    )
    # and an answer of the teacher's comes back in the student's ids
    given = inputs | {"teacher": folder(tmp_path / "again", moved, other)}
    # (the most probable one: a draw goes through the tokens by their ids)
    settings = {**SMALL, "references": "teacher", "sampling": {"temperature": 0}}
    _, mine = run(tmp_path, inputs, "mine", **settings)
    _, its = run(tmp_path, given, "its", **settings)
    assert lines(its)[0]["tokens"] == lines(mine)[0]["tokens"]
    assert first(its) == pytest.approx(first(mine), rel=1e-5)


def other_words():
    """Of other texts: it has strings that tokenizer() has not, and lacks some of its own."""
    return train(
        [THAI[20:] * 3, "their capitals were old cities on the hill of the people" * 3], 400
    )


def other_teacher(path):
    words = other_words()
    net = with_rows(model(1), words.vocab_size)
    return folder(path, net, words)


def test_another_tokenizer_is_refused_by_its_differences(tmp_path, inputs):
    given = inputs | {"teacher": other_teacher(tmp_path / "other")}
    with pytest.raises(RecipeError) as caught:
        run(tmp_path, given, **SMALL)
    told = str(caught.value)
    assert "strings, only the student has ['" in told and 'alignment = "spans"' in told


def test_spans_of_one_tokenizer_are_the_plain_divergence(tmp_path, inputs):
    _, plain = run(tmp_path, inputs, "plain", **SMALL, cross_entropy=0.3)
    _, spans = run(tmp_path, inputs, "spans", **SMALL, cross_entropy=0.3, alignment="spans")
    for a, b in zip(lines(plain), lines(spans), strict=True):
        assert b == pytest.approx(a, rel=1e-5)


def test_a_student_learns_from_a_teacher_of_another_tokenizer(tmp_path, inputs):
    given = inputs | {"teacher": other_teacher(tmp_path / "other")}
    settings = {"alignment": "spans", "steps": 12, "learning_rate": 5e-3}
    for name, more in {
        "data": {"lmbda": 0}, "own": {"lmbda": 1}, "its": {"lmbda": 0, "references": "teacher"},
    }.items():  # fmt: skip
        outcome, _ = run(tmp_path, given, name, **settings, **more)
        assert outcome.figures["loss"] < 0.8 * outcome.figures["loss_first"], name


def test_the_prefix_is_the_teachers_alone(tmp_path, inputs, monkeypatch):
    from endonym.rollouts.teacher import Teacher

    seen, truly = [], Teacher.states

    def kept(self, rows):
        seen.append(rows)
        return truly(self, rows)

    monkeypatch.setattr(Teacher, "states", kept)
    told, plain = {}, {}
    for name, prefix in (("plain", ""), ("told", "Answer in Thai.")):
        seen.clear()
        _, out = run(tmp_path, inputs, name, **SMALL, teacher_prompt_prefix=prefix)
        target = told if prefix else plain
        target |= {"loss": first(out), "tokens": lines(out)[-1]["tokens"], "rows": list(seen)}
    assert told["tokens"] == plain["tokens"] and told["loss"] != plain["loss"]
    length = [sum(rows.num_tokens for rows in each["rows"]) for each in (plain, told)]
    ask = [{"role": "user", "content": "?"}]
    with_it = [{"role": "system", "content": "Answer in Thai."}, *ask]
    longer = len(tokenizer().encode_prompt(with_it)) - len(tokenizer().encode_prompt(ask))
    assert length[1] - length[0] == 8 * longer  # 8 prompts in two steps
    assert tokenizer().encode("Answer")[0] in told["rows"][0].tokens


def cache(tmp_path, inputs, name="states", changes=None, **settings):
    scratch, out = tmp_path / name / "scratch", tmp_path / name / "out"
    scratch.mkdir(parents=True, exist_ok=True)
    out.mkdir(exist_ok=True)
    here = context(scratch, threads=1, **(changes or {}))
    config = StatesConfig.read({"row_length": 64, **settings})
    given = {"teacher": inputs["teacher"], "data": inputs["data"]}
    outcome = states(config, here, out, **given)
    record = {"address": name, "licences": [], "files": {}, "figures": outcome.figures}
    return Artifact(out, record)


def test_kept_states_are_the_living_teacher_bit_for_bit(tmp_path, inputs):
    alone = {"rows_per_device": 1}
    kept = cache(tmp_path, inputs, changes=alone)
    assert kept.figures["rows"] == 12 and kept.figures["width"] == 32
    assert kept.figures["bytes"] == kept.figures["tokens"] * 32 * 4
    given = {"model": inputs["model"], "states": kept, "data": inputs["data"]}
    settings = SMALL | {"rows_per_step": 1, "steps": 6}
    _, live = run(tmp_path, inputs, "live", alone, **settings)
    _, late = run(tmp_path, given, "late", alone, **settings)
    assert weights(live) == weights(late)
    assert (live / "metrics.jsonl").read_bytes() == (late / "metrics.jsonl").read_bytes()
    # and in batches, whose products may round otherwise
    _, live = run(tmp_path, inputs, "lives", **SMALL)
    _, late = run(tmp_path, given, "lates", **SMALL)
    assert first(late) == pytest.approx(first(live), rel=1e-5)


def test_half_the_room_for_states_rounds_them(tmp_path, inputs):
    whole, half = cache(tmp_path, inputs), cache(tmp_path, inputs, "half", precision="bfloat16")
    assert half.figures["bytes"] * 2 == whole.figures["bytes"]
    one, two = States(whole.path), States(half.path)
    told = {"role": "user", "content": f"{ENGLISH[:20]} 3"}
    answer = {"role": "assistant", "content": "yes it is 3"}
    prompt = tokenizer().encode_prompt([told])
    ids, learnt = tokenizer().encode_chat([told, answer])
    said = ids[len(prompt) : 1 + max(n for n, is_learnt in enumerate(learnt) if is_learnt)]
    a, b = one.of(prompt, said), two.of(prompt, said)
    assert len(a) == len(said) and torch.equal(a.bfloat16(), b)
    assert torch.equal(one.head(), model(1).head)
    with pytest.raises(DataError, match="were not kept"):
        one.of(prompt, said[:-1])


def test_a_cache_that_was_cut_off_goes_on_by_whole_shards(tmp_path, inputs, monkeypatch):
    from endonym.rollouts import states as module
    from endonym.rollouts.teacher import Teacher

    monkeypatch.setattr(module, "SHARD_BYTES", 2000)
    whole = cache(tmp_path, inputs, changes={"rows_per_device": 1})
    files = sorted(path.name for path in whole.path.glob("states-*"))
    assert len(files) > 3
    truly, calls = Teacher.states, []

    def failing(self, rows):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return truly(self, rows)

    monkeypatch.setattr(Teacher, "states", failing)
    with pytest.raises(KeyboardInterrupt):
        cache(tmp_path, inputs, "cut", {"rows_per_device": 1})
    made, written = [], module._write_shard

    def seen(file, *given):
        made.append(file.name)
        written(file, *given)

    monkeypatch.setattr(module, "_write_shard", seen)
    late = cache(tmp_path, inputs, "cut", {"rows_per_device": 1})
    assert made == files[-len(made) :] and 0 < len(made) < len(files)
    for name in [*files, "keys.npy", "places.npy"]:
        assert (late.path / name).read_bytes() == (whole.path / name).read_bytes()


def long_talk(count, words):
    said = [("user", ENGLISH[:20]), ("assistant", " ".join(["water"] * words))]
    return [
        Conversation(f"long{n}", [{"role": role, "content": f"{text} {n}"} for role, text in said])
        for n in range(count)
    ]


def test_what_is_too_long_for_the_cache_is_left_out_of_both(tmp_path, inputs):
    folder = tmp_path / "long"
    long = artifact(folder, "conversations.parquet", "conversations", long_talk(3, 50))
    given = inputs | {"data": {**inputs["data"], "long": long}}
    kept = cache(tmp_path, given)
    assert (kept.figures["rows"], kept.figures["too_long"], kept.figures["without"]) == (12, 3, 0)
    late = {"model": inputs["model"], "states": kept, "data": given["data"]}
    # whether a row of the distillation would have room for them or not
    for name, length in (("as long", 64), ("longer", 128)):
        found, _ = run(tmp_path, late, name, **SMALL | {"row_length": length})
        assert found.figures["too_long"] == 3 and found.figures["drawn"]["rows"] == 8
    # and a cache of more than a distillation has room for serves it
    wide = cache(tmp_path, given, "wide", row_length=500)
    assert wide.figures["rows"] == 15 and wide.figures["too_long"] == 0
    found, _ = run(tmp_path, late | {"states": wide}, "narrow", **SMALL)
    assert found.figures["too_long"] == 3
    with pytest.raises(DataError, match="nothing to keep"):
        cache(tmp_path, given, "none", row_length=9)


def test_what_the_teacher_has_no_room_for_is_left_out(tmp_path, inputs):
    """Its context is shorter than the student's, or filled by a text that it alone reads."""
    answered = max(len(tokenizer().encode_chat(row.messages)[0]) for row in long_talk(3, 40))
    folder = tmp_path / "long"
    long = artifact(folder, "conversations.parquet", "conversations", long_talk(3, 40))
    given = inputs | {
        "teacher": start(tmp_path / "short", model(1, answered)),
        "data": {**inputs["data"], "long": long},
    }
    plain, _ = run(tmp_path, given, "plain", **SMALL | {"row_length": 128})
    assert plain.figures["too_long"] == 0
    told, _ = run(
        tmp_path, given, "told", **SMALL | {"row_length": 128}, teacher_prompt_prefix="Answer in Thai."
    )  # fmt: skip
    assert told.figures["too_long"] == 3


def test_what_kept_states_cannot_serve_is_refused(tmp_path, inputs):
    kept = cache(tmp_path, inputs)
    given = {"model": inputs["model"], "states": kept, "data": inputs["data"]}
    for name, setting in {
        "lmbda": {"lmbda": 0.5}, "references": {"references": "teacher"},
        "alignment": {"alignment": "spans"}, "teacher_prompt_prefix": {"teacher_prompt_prefix": "x"},
    }.items():  # fmt: skip
        with pytest.raises(RecipeError, match=name):
            run(tmp_path, given, name, **SMALL | setting)
    other = {"data": {"else": talk(tmp_path / "else", 4, THAI[:9], "no")}}
    with pytest.raises(DataError, match="were not kept"):
        run(tmp_path, given | other, "else", **SMALL)


def test_same_names_of_one_tokenizer():
    names = same(tokenizer(), tokenizer())
    assert (names.student == names.teacher).all()
    assert len(names.student) == tokenizer().vocab_size
