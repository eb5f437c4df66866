"""Every form of tokenizer file, against the libraries that made them (tiktoken, sentencepiece)."""

import base64
import gzip
import io
import json
import os
import pickle
import unicodedata
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, trainers

from endonym.core.errors import DataError, RecipeError
from endonym.tokenizer import convert, families
from endonym.tokenizer.read import read
from endonym.tokenizer.units import byte_letters
from tokenizer.samples import english, shared, thai

tiktoken = pytest.importorskip("tiktoken")
sentencepiece = pytest.importorskip("sentencepiece")

KOREAN = ["국회의원은 국민의 보통·평등·직접·비밀선거에 의하여 선출한다. 2024년 3월 1일\n"] * 20
CODE = ["def main(x):\n    if x > 10:\n\treturn [x ** 2, 'it''s']\n\n\n# end  \n"] * 20
LEARNT = thai(60) + english(60) + KOREAN + CODE
HARD = [
    "", " ", "  a", "a  ", "\n", "a\n  ", "a \n\n b", "\t\tx\r\n", "a    b     c", "I'LL don'T 'ſ",
    "๑๒๓ 1234567 ²³", "น้ำใจ นํ้า", "한국어 ㅋㅋㅋ 각", "e\u0301 é", "ǅemal HTTPServer", "😀👨‍👩‍👧",
    "\u00a0\u0085\u2028\u200b\u3000\ufeff", "<|endoftext|> <s> [INST] <0x41>", "///\r\n/a", "aaaaaaaaaaa",
]  # fmt: skip
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.text("กขคงี่้ำเแ 각한국어 aB's'LL12\n\r\t./é\u0301😀", max_size=60),
    st.lists(st.sampled_from([*HARD, *LEARNT[::9]]), max_size=3).map("".join),
)

# tiktoken's own spelling where it has one (tiktoken_ext/openai_public.py), else the maker's
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
BIG, SMALL = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
ORACLES = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
    "cl100k": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    "o200k": rf"[^\r\n\p{{L}}\p{{N}}]?{BIG}*{SMALL}+{SHORT}|[^\r\n\p{{L}}\p{{N}}]?{BIG}+{SMALL}*{SHORT}"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "llama3": WORDS + "{1,3}" + REST,
    "qwen": WORDS + REST,
}
ORACLES |= {"p50k": ORACLES["gpt2"], "llama4": ORACLES["o200k"]}
REAL_RANKS = {
    "tiktoken/r50k_base.tiktoken": "gpt2",
    "tiktoken/p50k_base.tiktoken": "p50k",
    "tiktoken/cl100k_base.tiktoken": "cl100k",
    "tiktoken/o200k_base.tiktoken": "o200k",
    "llama3/tokenizer.model": "llama3",
    "llama4/tokenizer.model": "llama4",
    "qwen/qwen.tiktoken": "qwen",
}
REAL_MODELS = [
    "llama2/tokenizer.model",
    "mistral/tokenizer.model.v1",
    "mistral/mistral_instruct_tokenizer_240323.model.v3",
]


THOROUGH = "ENDONYM_THOROUGH" in os.environ
"""All rank files take two minutes; by default the one with tokens that no merge makes is enough."""
LETTERS = byte_letters()[0]


def real(name):
    file = shared() / "tokenizers" / name
    if not file.exists():
        pytest.skip(f"real data is not here: {file}")
    return file


def ranks_of(file):
    lines = file.read_bytes().splitlines()
    return {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, lines)}


@cache
def real_texts():
    files = ["th/thaigov_v2", "th/wisesight_social", "ko/law_kr", "ko/nsmc_reviews"]
    texts = [*HARD, *LEARNT[::5]]
    for name in files:
        with gzip.open(shared() / "text" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            texts += [json.loads(line)["text"][:4000] for _, line in zip(range(25), lines)]
    return texts


# --- tiktoken -----------------------------------------------------------------------------------


def learnt_ranks():
    """Ranks of a small byte-level BPE: bytes first, then merges in the order learnt."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=alphabet, show_progress=False, special_tokens=[]
    )
    backend.train_from_iterator(LEARNT, trainer)
    codes = byte_letters()[1]
    return {bytes(codes[c] for c in token): n for token, n in backend.get_vocab().items()}


RANKS = learnt_ranks()


def rank_file(folder, ranks=None, name="some.model"):
    rows = sorted((ranks or RANKS).items(), key=lambda row: row[1])
    lines = [f"{base64.b64encode(token).decode()} {rank}" for token, rank in rows]
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder / name


@pytest.fixture(scope="module")
def by_family(tmp_path_factory):
    file = rank_file(tmp_path_factory.mktemp("ranks"))
    oracles = {
        name: tiktoken.Encoding(name, pat_str=ORACLES[name], mergeable_ranks=RANKS, special_tokens={})
        for name in families.FAMILIES
    }  # fmt: skip
    return {name: (read(file, name), oracle) for name, oracle in oracles.items()}


@settings(max_examples=60)
@given(TEXTS)
def test_a_rank_file_encodes_as_tiktoken(by_family, text):
    for name, (tokenizer, oracle) in by_family.items():
        wanted = unicodedata.normalize("NFC", text) if name == "qwen" else text
        assert tokenizer.encode(text, literal=True) == oracle.encode_ordinary(wanted), name
        assert tokenizer.decode(tokenizer.encode(text, literal=True)) == wanted


@pytest.mark.parametrize("name", REAL_RANKS if THOROUGH else ["llama3/tokenizer.model"])
def test_real_rank_files_encode_as_tiktoken(name):
    family, tokenizer = families.FAMILIES[REAL_RANKS[name]], read(real(name))
    ranks = ranks_of(real(name))
    oracle = tiktoken.Encoding(
        name, pat_str=ORACLES[family.name], mergeable_ranks=ranks, special_tokens=family.special
    )
    texts = real_texts()
    wanted = [unicodedata.normalize("NFC", text) if family.nfc else text for text in texts]
    encoded = tokenizer.encode_batch(texts, literal=True)
    for text, found in zip(wanted, encoded):
        assert found == oracle.encode_ordinary(text)
    for token, number in family.special.items():
        assert tokenizer.special(token) == number
    assert tokenizer.vocab_size == oracle.n_vocab


def test_qwens_ranks_give_qwen2s_published_merges():
    lines = real("qwen2/merges.txt").read_text(encoding="utf-8").split("\n")
    published = [line for line in lines if line and not line.startswith("#version")]
    ranks = ranks_of(real("qwen/qwen.tiktoken"))
    spelt = [["".join(map(LETTERS.get, part)) for part in pair] for pair in convert.merges(ranks)]
    assert [" ".join(pair) for pair in spelt] == published


def test_a_real_folder_of_vocab_json_and_merges_txt():
    qwen2 = read(real("qwen2"))
    assert qwen2.named == {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    assert (qwen2.eos_id, qwen2.vocab_size) == (151_643, 151_646)
    assert qwen2.template.startswith("{% set system_message")
    assert qwen2.encode("<|im_start|>") == [151_644]
    ranks = ranks_of(real("qwen/qwen.tiktoken"))
    oracle = tiktoken.Encoding(
        "qwen", pat_str=ORACLES["qwen"], mergeable_ranks=ranks, special_tokens={}
    )
    for text in real_texts():
        wanted = oracle.encode_ordinary(unicodedata.normalize("NFC", text))
        assert qwen2.encode(text, literal=True) == wanted


def test_the_families_number_their_special_tokens_on_from_the_ranks():
    llama3, llama4 = families.FAMILIES["llama3"], families.FAMILIES["llama4"]
    assert list(llama3.special.values()) == list(range(128_000, 128_256))
    assert list(llama4.special.values()) == list(range(200_000, 202_048))
    assert llama3.special["<|eot_id|>"] == 128_009 and llama4.special["<|eot|>"] == 200_008
    assert llama4.special["<|image_start|>"] == 200_080 and llama4.special["<|patch|>"] == 200_092
    assert families.FAMILIES["qwen"].special["<|extra_204|>"] == 151_850


def test_a_token_that_no_merge_makes_is_found_as_a_whole_word(tmp_path):
    # "xq" comes first, so "xqz" is never made from letters; tiktoken finds it by looking it up
    ranks = {bytes([n]): n for n in range(256)} | {b"qz": 257, b"xq": 256, b"xqzy": 258}
    tokenizer = read(rank_file(tmp_path, ranks), "gpt2")
    oracle = tiktoken.Encoding(
        "x", pat_str=ORACLES["gpt2"], mergeable_ranks=ranks, special_tokens={}
    )
    for text in ("xqzy", "xqzy xqzy", " xqzy", "qzxqzy"):
        assert tokenizer.encode(text) == oracle.encode(text)


@pytest.mark.parametrize("name", ["gpt2", "o200k"])
def test_a_saved_rank_file_loads_with_the_same_ids(name, tmp_path, by_family):
    from transformers import AutoTokenizer

    tokenizer = by_family[name][0]
    tokenizer.save(tmp_path / "saved")
    auto = AutoTokenizer.from_pretrained(tmp_path / "saved")
    for text in [*HARD, *LEARNT[::7]]:
        assert auto.encode(text, add_special_tokens=False) == tokenizer.encode(text)


def test_special_tokens_with_gaps_between_survive_saving(tmp_path):
    family = families.Family("gaps", families.CL100K, len(RANKS), {"<|a|>": 905, "<|b|>": 930})
    tokenizer = convert.from_ranks(RANKS, family)
    tokenizer.save(tmp_path)
    again = read(tmp_path)
    assert again.encode("a<|b|><|a|>") == tokenizer.encode("a<|b|><|a|>") == [RANKS[b"a"], 930, 905]
    assert again.vocab_size == 931


# --- SentencePiece ------------------------------------------------------------------------------


def sp_model(kind="bpe", **options):
    """A model learnt here: identity normalisation and Llama's settings, unless told otherwise."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LEARNT),
        model_writer=written,
        model_type=kind,
        minloglevel=2,
        num_threads=1,
        **{
            "vocab_size": 700,
            "byte_fallback": True,
            "normalization_rule_name": "identity",
            "remove_extra_whitespaces": False,
            **options,
        },
    )
    return written.getvalue()


SP = {
    "llama": sp_model(),
    "no prefix": sp_model(add_dummy_prefix=False),
    "no bytes": sp_model(byte_fallback=False),
    "fewer spaces": sp_model(remove_extra_whitespaces=True),
    "nfkc": sp_model(normalization_rule_name="nmt_nfkc", remove_extra_whitespaces=True),
}
SP_READ = {name: convert.from_sentencepiece(raw) for name, raw in SP.items()}
SP_ORACLES = {
    name: sentencepiece.SentencePieceProcessor(model_proto=raw) for name, raw in SP.items()
}


@settings(max_examples=60)
@given(TEXTS)
def test_a_sentencepiece_model_encodes_as_sentencepiece(text):
    for name in ("llama", "no prefix", "no bytes", "fewer spaces"):
        found = SP_READ[name].encode(text, literal=True)
        assert found == SP_ORACLES[name].encode(text), name
    found = SP_READ["llama"].encode(text, literal=True)
    assert SP_READ["llama"].decode(found) == text.replace("\u2581", " ")


def test_sentencepieces_own_normalisation_is_kept():
    for text in ["ＡＢＣ　１２３", "ﬁn²", "  a   b ", "น้ำ", "한국어", *LEARNT[::11]]:
        assert SP_READ["nfkc"].encode(text, literal=True) == SP_ORACLES["nfkc"].encode(text)


@pytest.mark.parametrize("options", [{}, {"byte_fallback": False}])
def test_a_unigram_model_can_be_read(options, tmp_path):
    raw = sp_model("unigram", vocab_size=380, **options)
    (tmp_path / "any.name").write_bytes(raw)
    tokenizer = read(tmp_path / "any.name")
    oracle = sentencepiece.SentencePieceProcessor(model_proto=raw)
    for text in [*LEARNT[::3], *(text for text in HARD if "<s>" not in text)]:
        assert tokenizer.encode(text, literal=True) == oracle.encode(text)


def test_a_piece_of_letters_that_are_no_pieces_is_told():
    proto = convert.parsed(SP["llama"])
    letter = next(p for p in proto.pieces if p.piece == "t")
    letter.piece = "\ue000"
    with pytest.raises(DataError, match="letters that are no pieces"):
        convert.from_sentencepiece(proto.SerializeToString())
    letter.type = proto.SentencePiece.UNUSED
    with pytest.raises(DataError, match="out of use"):
        convert.from_sentencepiece(proto.SerializeToString())


def test_named_pieces_and_pieces_of_the_user(tmp_path):
    raw = sp_model(user_defined_symbols=["<think>"], control_symbols=["[INST]"])
    tokenizer = convert.from_sentencepiece(raw)
    oracle = sentencepiece.SentencePieceProcessor(model_proto=raw)
    assert tokenizer.named == {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    assert tokenizer.bos_id == oracle.bos_id()
    assert tokenizer.encode("[INST]", literal=True) == oracle.encode("[INST]")  # ten letters
    assert tokenizer.encode("[INST]") == [oracle.piece_to_id("[INST]")]
    assert tokenizer.encode("a b<think>", literal=True) == oracle.encode("a b<think>")


def test_sentencepieces_of_other_kinds_are_refused():
    with pytest.raises(DataError, match="another kind"):
        convert.from_sentencepiece(sp_model("char"))
    with pytest.raises(DataError, match="marks spaces otherwise"):
        convert.from_sentencepiece(sp_model(treat_whitespace_as_suffix=True))


@pytest.mark.parametrize("name", REAL_MODELS if THOROUGH else REAL_MODELS[:1])
def test_real_sentencepiece_models_encode_as_sentencepiece(name):
    tokenizer = read(real(name))
    oracle = sentencepiece.SentencePieceProcessor(model_file=str(real(name)))
    texts = real_texts()
    for text, found in zip(texts, tokenizer.encode_batch(texts, literal=True)):
        assert found == oracle.encode(text)
    assert tokenizer.vocab_size == oracle.get_piece_size()
    assert (tokenizer.bos_id, tokenizer.eos_id) == (oracle.bos_id(), oracle.eos_id())


def test_phi_3_is_llama_2_with_other_special_tokens():
    phi, llama = read(real("phi-3-mini")), read(real("llama2"))
    for text in real_texts()[:120]:
        assert phi.encode(text, literal=True) == llama.encode(text, literal=True)


# --- vocab.json and merges.txt ------------------------------------------------------------------


def pair(folder, config=None, **files):
    letters = byte_letters()[0]
    spelt = {"".join(letters[byte] for byte in token): rank for token, rank in RANKS.items()}
    merges = [
        " ".join("".join(letters[b] for b in part) for part in m) for m in convert.merges(RANKS)
    ]
    contents = {"vocab": json.dumps(spelt), "merges": "#version: 0.2\n" + "\n".join(merges) + "\n"}
    contents |= files
    (folder / "vocab.json").write_text(contents["vocab"], encoding="utf-8")
    (folder / "merges.txt").write_text(contents["merges"], encoding="utf-8")
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_a_pair_is_split_as_its_class_splits(tmp_path, by_family):
    flags = {"special": True, "lstrip": False, "rstrip": False, "normalized": False}
    config = {
        "tokenizer_class": "Qwen2TokenizerFast",
        "eos_token": {"content": "<|im_end|>"},
        "added_tokens_decoder": {"901": flags | {"content": "<|im_end|>", "single_word": False}},
    }
    tokenizer = read(pair(tmp_path, config))
    for text in [*HARD, *LEARNT[::7]]:
        assert tokenizer.encode(text, literal=True) == by_family["qwen"][0].encode(
            text, literal=True
        )
    assert tokenizer.encode("<|im_end|>") == [901]
    assert (tokenizer.eos_id, tokenizer.vocab_size) == (901, 902)
    for half in ("vocab.json", "merges.txt"):
        assert read(tmp_path / half).identity == tokenizer.identity


def test_a_pair_of_an_unknown_family_asks_for_its_pattern(tmp_path, by_family):
    with pytest.raises(DataError, match="unknown family"):
        read(pair(tmp_path))
    assert read(tmp_path, "gpt2").encode("12345") == by_family["gpt2"][1].encode("12345")
    assert read(tmp_path, r"\p{N}|\P{N}+").encode("12") == [RANKS[b"1"], RANKS[b"2"]]
    with pytest.raises(RecipeError, match="no tokenizer family 'gpt3'"):
        read(tmp_path, "gpt3")


def test_added_tokens_of_a_pair_without_a_config(tmp_path):
    folder = pair(tmp_path)
    (folder / "added_tokens.json").write_text('{"<|x|>": 903}')
    (folder / "special_tokens_map.json").write_text('{"eos_token": "<|x|>"}')
    tokenizer = read(folder, "gpt2")
    assert tokenizer.encode("a<|x|>") == [RANKS[b"a"], 903]
    assert tokenizer.eos_id == 903
    assert tokenizer.encode("a<|x|>", literal=True)[-1] != 903


def test_half_a_pair(tmp_path):
    (pair(tmp_path) / "merges.txt").unlink()
    with pytest.raises(DataError, match="half a tokenizer"):
        read(tmp_path)


# --- what is no tokenizer -----------------------------------------------------------------------


def test_bad_files_are_told(tmp_path):
    def refused(name, raw, match, pattern=None):
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(DataError, match=match) as caught:
            read(tmp_path / name, pattern)
        assert str(tmp_path / name) in str(caught.value.where)

    refused("a.model", b"", "not a tokenizer of a known form")
    refused("b.model", b"just some words\n", "not a tokenizer of a known form")
    refused("c.bin", pickle.dumps(print), "a pickle, which is never loaded")
    refused("d.json", b'{"model": ', "no JSON")
    refused("e.json", b'{"a": "b"}', "not a tokenizer of a known form")
    refused("f.tiktoken", b"IQ== 0\nIg== one\n", "cannot be read")
    refused("g.tiktoken", b"IQ== 0\nIQ== 1\n", "stands twice")
    refused("h.tiktoken", b"IQ== 0\nIg== 1\n", "unknown family")
    refused("i.tiktoken", b"IQ== 0\nIg== 1\n", "254 bytes are no token", "gpt2")
    ranks = {bytes([n]): n for n in range(256)} | {b"ab": 255}
    refused("j.tiktoken", rank_file(tmp_path, ranks).read_bytes(), "two tokens have one id", "gpt2")
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "absent")
    with pytest.raises(DataError, match="several tokenizers"):
        read(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no tokenizer in this folder"):
        read(tmp_path / "empty")


def test_a_file_that_says_its_own_pattern_takes_no_other(tmp_path, by_family):
    by_family["gpt2"][0].save(tmp_path)
    with pytest.raises(RecipeError, match="has its own"):
        read(tmp_path, "qwen")


def test_an_added_token_that_would_be_renumbered_is_told(tmp_path, by_family):
    by_family["gpt2"][0].save(tmp_path)
    state = json.loads((tmp_path / "tokenizer.json").read_text())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    state["added_tokens"] = [{"id": 950, "content": "<x>", "special": True, **flags}]
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    with pytest.raises(DataError, match="another id than the file says"):
        read(tmp_path)
