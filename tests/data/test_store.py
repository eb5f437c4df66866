import json
import os
import shutil

import numpy as np
import pytest

from data.fake import Letters
from data.fake import conversations as talks
from data.fake import documents as papers
from endonym.core.errors import DataError
from endonym.data import encode
from endonym.data.document import Conversation, Document
from endonym.data.store import TokenStore, identity_of
from endonym.tokenizer.folder import Tokenizer
from endonym.tokenizer.train import train

TEXTS = [" ".join(["ab", "ba", "aab"][: n % 4]) + f" {n}" * (n % 17) for n in range(120)]


def chat(n):
    return [
        {"role": "user", "content": f"what is {n}?" + " please" * (n % 5)},
        {"role": "assistant", "content": f"{n}" * (n % 3 + 1)},
    ]


@pytest.fixture(scope="module")
def tokenizer():
    return train(TEXTS * 3, 300)


@pytest.fixture(scope="module")
def documents(tokenizer, tmp_path_factory):
    rows = [Document(str(n), text) for n, text in enumerate(TEXTS)]
    return TokenStore.build(tmp_path_factory.mktemp("a") / "documents", rows, tokenizer, key="k")


@pytest.fixture(scope="module")
def chats(tokenizer, tmp_path_factory):
    rows = [Conversation(str(n), chat(n)) for n in range(60)]
    return TokenStore.build(tmp_path_factory.mktemp("b") / "chats", rows, tokenizer, key="k")


def test_a_document_is_its_text_and_its_end(tokenizer, documents):
    assert len(documents) == len(TEXTS)
    for number, text in enumerate(TEXTS):
        assert documents.tokens(number).tolist() == [*tokenizer.encode(text), tokenizer.eos_id]
    assert documents.meta["bytes"] == sum(len(text.encode()) for text in TEXTS)
    assert documents.meta["targets"] == documents.num_tokens - len(TEXTS)


def test_a_text_cannot_end_its_own_document(tokenizer, tmp_path):
    store = TokenStore.build(tmp_path / "s", ["a<|endoftext|>b"], tokenizer, key="k")
    assert store.tokens(0).tolist().count(tokenizer.eos_id) == 1


def test_a_conversation_keeps_its_mask(tokenizer, chats):
    ids, supervised = tokenizer.encode_chat(chat(7))
    assert chats.tokens(7).tolist() == ids
    assert chats.supervised(7).tolist() == supervised


def test_a_conversation_whose_thoughts_are_dropped_is_several_sequences(tokenizer, tmp_path):
    thought = [m | {"reasoning_content": "hm"} if m["role"] == "assistant" else m for m in chat(7)]
    store = TokenStore.build(tmp_path / "s", [thought * 2, chat(7)], tokenizer, key="k")
    wanted = [*tokenizer.training_rows(thought * 2), tokenizer.encode_chat(chat(7))]
    assert len(store) == len(wanted) == 3
    for number, (ids, supervised) in enumerate(wanted):
        assert store.tokens(number).tolist() == ids
        assert store.supervised(number).tolist() == supervised
    with pytest.raises(DataError, match="conversation 1 cannot be trained on"):
        TokenStore.build(tmp_path / "t", [thought * 2, chat(2)[:1]], tokenizer, key="k")


def test_a_tokenizer_with_an_opening_token_opens_documents_with_it(tmp_path):
    from endonym.tokenizer import convert

    control = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", "a"]
    llama = convert.from_pieces([(n, piece, -float(n)) for n, piece in enumerate(control)])
    store = TokenStore.build(tmp_path / "s", ["a"], llama, key="k")
    assert store.tokens(0).tolist() == [1, 259, 260, 2]


def test_a_store_is_built_once_and_again_when_its_key_changes(tokenizer, tmp_path):
    def never():
        raise AssertionError("the rows were read although the store is there")
        yield

    first = TokenStore.build(tmp_path / "s", ["a b"], tokenizer, key="one")
    again = TokenStore.build(tmp_path / "s", never(), tokenizer, key="one")
    assert again.ids.tolist() == first.ids.tolist()
    changed = TokenStore.build(tmp_path / "s", ["b a b"], tokenizer, key="two")
    assert changed.num_tokens != first.num_tokens
    other = Tokenizer(tokenizer.backend, tokenizer.named, None)
    with pytest.raises(AssertionError, match="were read"):
        TokenStore.build(tmp_path / "s", never(), other, key="two")
    # the store that stood there was not harmed by the failed attempt
    assert TokenStore(tmp_path / "s").num_tokens == changed.num_tokens


def test_a_half_written_store_is_not_taken_for_a_whole_one(tokenizer, tmp_path):
    store = TokenStore.build(tmp_path / "s", ["a b"], tokenizer, key="one")
    (store.folder / "ids.bin").write_bytes(b"\0\0\0\0")
    with pytest.raises(DataError, match="not as it was written"):
        TokenStore(tmp_path / "s")


def test_documents_and_conversations_do_not_mix(tokenizer, tmp_path):
    with pytest.raises(DataError, match="in one token store"):
        TokenStore.build(tmp_path / "s", ["a", chat(1)], tokenizer, key="k")


def test_a_conversation_that_teaches_nothing_is_named(tokenizer, tmp_path):
    with pytest.raises(DataError, match="conversation 1 cannot be trained on"):
        TokenStore.build(tmp_path / "s", [chat(1), chat(2)[:1]], tokenizer, key="k")


def test_weights_are_those_of_the_messages_times_the_conversations_own(tmp_path):
    # 3 tokens asked, then 2 + 1 answered at 0.5, 1 + 1 answered at 1; the whole at 0.25
    messages = [
        {"role": "user", "content": "qq"},
        {"role": "assistant", "content": "aa", "weight": 0.5},
        {"role": "user", "content": ""},
        {"role": "assistant", "content": "a"},
    ]
    rows = [
        Conversation("half", messages, weight=0.25),
        Conversation("none", messages, weight=0.0),
        messages,
    ]
    store = TokenStore.build(tmp_path / "s", rows, Letters(), key="k")
    wanted = [0, 0, 0, 0.125, 0.125, 0.125, 0, 0.25, 0.25]
    assert store.weights.dtype == np.float16
    assert store.weights[:9].tolist() == wanted
    assert store.weights[9:18].tolist() == [0] * 9
    assert store.weights[18:].tolist() == [4 * each for each in wanted]
    assert store.meta["targets"] == 10
    assert store.supervised(0).tolist() == [each > 0 for each in wanted]


def test_documents_have_no_weights(documents):
    assert documents.weights is None and not (documents.folder / "weights.bin").exists()


def test_every_token_can_be_learnt_but_for_turns_of_weight_0(tmp_path):
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a", "weight": 0},
        {"role": "assistant", "content": "a", "weight": 2},
    ]
    rows = [Conversation("one", messages, weight=0.5)]
    store = TokenStore.build(tmp_path / "s", rows, Letters(), key="k", learn="all")
    assert store.weights.tolist() == [0.5, 0.5, 0, 0, 1, 1]
    assert store.identity != identity_of("k", Letters())
    assert store.identity == identity_of("k", Letters(), learn="all", variables={})


def test_tools_and_template_variables_reach_the_template(tokenizer, tmp_path):
    tool = {"type": "function", "function": {"name": "weather", "parameters": {}}}
    row = Conversation("0", chat(3), tools=[tool])
    store = TokenStore.build(tmp_path / "s", [row], tokenizer, key="k")
    assert store.tokens(0).tolist() == tokenizer.encode_chat(chat(3), [tool])[0]
    assert len(store.tokens(0)) > len(tokenizer.encode_chat(chat(3))[0])
    thought = [m | {"reasoning_content": "hm"} if m["role"] == "assistant" else m for m in chat(7)]
    kept = {"keep_thinking": True}
    store = TokenStore.build(tmp_path / "t", [thought * 2], tokenizer, key="k", variables=kept)
    assert store.tokens(0).tolist() == tokenizer.encode_chat(thought * 2, **kept)[0]


@pytest.mark.parametrize("weight", [-1.0, 1e6, float("nan")])
def test_a_weight_that_cannot_be_kept_is_refused(tmp_path, weight):
    rows = [Conversation("a", chat(1)), Conversation("b", chat(2), weight=weight)]
    with pytest.raises(DataError, match="conversation 6 has a weight") as error:
        TokenStore.build(tmp_path / "s", rows, Letters(), key="k", first=5)
    assert error.value.where == "b"


def test_scores_languages_and_sources_of_each_sequence(tmp_path):
    rows = [
        Document("0", "a", "en", "web"),
        Document("1", "b", "ko", "book", scores={"edu": 3.5}),
        Document("2", "c", "en", "book", scores={"edu": 1.0, "noise": 0.25}),
        Document("3", "d", "en", "book"),
    ]
    store = TokenStore.build(tmp_path / "s", rows, Letters(), key="k")
    assert store.scores["edu"].tolist()[1:3] == [3.5, 1.0]
    assert np.isnan(store.scores["edu"][[0, 3]]).all()
    assert np.isnan(store.scores["noise"]).tolist() == [True, True, False, True]
    assert store.languages.names == ["en", "ko"]
    assert store.languages.codes.tolist() == [0, 1, 0, 0]
    assert [store.sources.names[n] for n in store.sources.codes] == ["web", "book", "book", "book"]


def test_sources_without_end_are_counted_together(tmp_path, monkeypatch):
    monkeypatch.setattr(encode, "MOST_NAMES", 3)
    store = papers(tmp_path / "s", [1] * 6, sources=["a", "b", "c", "d", "e", "b"])
    assert [store.sources.names[n] for n in store.sources.codes] == [
        "a", "b", "c", "(others)", "(others)", "b",
    ]  # fmt: skip
    with pytest.raises(DataError, match="too many languages"):
        papers(tmp_path / "t", [1] * 4, languages=["a", "b", "c", "d"])


def joined(folder, parts=((3, 1), (), (4, 1, 5)), of=papers, **more):
    for number, part in enumerate(parts):
        chosen = {
            name: values[sum(map(len, parts[:number])) :][: len(part)]
            for name, values in more.items()
        }
        of(folder / f"{number:03d}", part, key=f"part {number}", **chosen)
    return TokenStore.join(folder, "whole")


def test_a_joined_store_reads_as_one(tmp_path):
    more = {"languages": ["en", "ko", "th", "ko", "en"], "sources": list("abcab")}
    both = joined(tmp_path / "j", **more)
    plain = papers(tmp_path / "p", [3, 1, 4, 1, 5], **more)
    again = TokenStore(tmp_path / "j")
    for store in (both, again):
        assert len(store) == 5 and store.identity == "whole"
        assert store.lengths.tolist() == plain.lengths.tolist() == [4, 2, 5, 2, 6]
        assert store.offsets.tolist() == plain.offsets.tolist()
        assert store.ids.tolist() == plain.ids.tolist()
        for number in range(5):
            assert store.tokens(number).tolist() == plain.tokens(number).tolist()
            assert store.stretch(number, 1, 1)[0].tolist() == [plain.tokens(number)[1]]
        for table in ("languages", "sources"):
            names, codes = getattr(store, table)
            assert [names[code] for code in codes] == more[table]
        same = ("sequences", "tokens", "targets", "bytes", "kind")
        assert [store.meta[key] for key in same] == [plain.meta[key] for key in same]
    # read through the map, not out of a copy
    assert all(isinstance(shard.ids, np.memmap) for shard in both.shards if len(shard.ids))
    assert isinstance(both.tokens(3).base, np.memmap)


def test_a_joined_store_counts_targets_over_its_shards(tmp_path, monkeypatch):
    monkeypatch.setattr("endonym.data.store.COUNTED", 5)
    pairs = [(2, 3), (1, 1), (4, 0), (0, 6), (3, 3)]
    both = joined(tmp_path / "j", (pairs[:2], (), pairs[2:]), of=talks)
    weights = both.weights
    assert both.meta["kind"] == "conversations"
    rng = np.random.default_rng(0)
    ends = np.sort(rng.integers(0, both.num_tokens + 1, (50, 2)), axis=1)
    wanted = [int((weights[a:b] > 0).sum()) for a, b in ends]
    assert both.targets(ends[:, 0], ends[:, 1]).tolist() == wanted


def test_scores_that_only_some_shards_have(tmp_path):
    papers(tmp_path / "j" / "000", [1, 1])
    papers(tmp_path / "j" / "001", [1], scores={"edu": [2.0]})
    store = TokenStore.join(tmp_path / "j", "whole")
    assert np.isnan(store.scores["edu"]).tolist() == [True, True, False]


def test_what_cannot_be_joined(tmp_path):
    papers(tmp_path / "j" / "000", [1])
    papers(tmp_path / "j" / "002", [1])
    with pytest.raises(DataError, match="shards are missing"):
        TokenStore.join(tmp_path / "j", "whole")
    talks(tmp_path / "j" / "001", [(1, 1)])
    with pytest.raises(DataError, match="in one token store"):
        TokenStore.join(tmp_path / "j", "whole")


FILES = ["ids.bin", "offsets.npy", "weights.bin", "scores.npy", "languages.npy", "sources.npy"]


def flipped(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


DAMAGE = {
    "missing": lambda file: file.unlink(),
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "empty": lambda file: file.write_bytes(b""),
    "flipped": flipped,
}


@pytest.mark.parametrize("name", [*FILES, "meta.json"])
@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_shard_is_refused_by_name(tmp_path, name, how):
    """EVALUATION R12."""
    joined(tmp_path / "j", ([(1, 2)], [(2, 2), (1, 1)]), of=talks)
    file = tmp_path / "j" / "001" / name
    before = file.stat()
    if name == "scores.npy" and how == "flipped":
        file = file.with_name("languages.npy")  # no score, so the file is a head alone
    DAMAGE[how](file)
    if how == "flipped":  # a second later at most: the clock of files is coarser than a test
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))
    with pytest.raises(DataError) as error:
        TokenStore(tmp_path / "j")
    assert f"001/{file.name}" in str(error.value)


def test_a_shard_put_in_anothers_place_is_refused_by_name(tmp_path):
    joined(tmp_path / "j", ((1, 2), (3, 4)))
    papers(tmp_path / "other", [3, 4], key="another")
    shutil.rmtree(tmp_path / "j" / "001")
    shutil.copytree(tmp_path / "other", tmp_path / "j" / "001")
    with pytest.raises(DataError, match="not as it was written") as error:
        TokenStore(tmp_path / "j")
    assert "001/meta.json" in str(error.value)


def test_a_bit_that_the_disk_lost_is_found_by_the_full_check(tmp_path):
    store = papers(tmp_path / "s", [3, 4])
    file = tmp_path / "s" / "ids.bin"
    before = file.stat()
    flipped(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    TokenStore(tmp_path / "s")  # nothing tells it
    with pytest.raises(DataError, match="not as it was written"):
        store.check()


def test_a_copied_store_is_read_once_and_trusted_after(tmp_path, monkeypatch):
    papers(tmp_path / "s", [3, 4])
    shutil.copytree(tmp_path / "s", tmp_path / "t", copy_function=shutil.copyfile)
    read = []
    from endonym.data import shard

    real = shard.sha256_file
    monkeypatch.setattr(shard, "sha256_file", lambda file: read.append(file.name) or real(file))
    TokenStore(tmp_path / "t")
    assert sorted(read) == sorted(set(FILES) - {"weights.bin"})
    read.clear()
    TokenStore(tmp_path / "t")
    assert read == []


def test_a_store_of_an_older_format_is_built_again(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "meta.json").write_text(json.dumps({"identity": "old", "tokens": 1}))
    with pytest.raises(DataError, match="not as it was written"):
        TokenStore(tmp_path / "s")
    assert len(papers(tmp_path / "s", [3, 4])) == 2
