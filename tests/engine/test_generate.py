"""generate: the tokens and probabilities of a plain loop, whatever the batch."""

import pytest
import torch

from endonym.core.errors import DataError
from endonym.engine.generate import content_keys, generate, stream
from endonym.engine.sampler import Sampling
from endonym.model.config import ModelConfig
from endonym.model.hf import load, new

CONFIG = ModelConfig(
    vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
)  # fmt: skip
GREEDY = Sampling(temperature=0, max_tokens=12)
DRAWN = Sampling(temperature=0.9, top_p=0.95, top_k=40, max_tokens=12, seed=3)
STOP = {7, 11}


@pytest.fixture(scope="module")
def model():
    made = new(CONFIG, 0)
    with torch.no_grad():
        for weight in made.parameters():
            if weight.dim() > 1:
                weight.mul_(15)  # the initial weights answer every prompt with the same token
    return made


def prompts(count=13):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 16, (count,), generator=generator).tolist()
    return [torch.randint(50, (n,), generator=generator).tolist() for n in lengths]


@torch.no_grad()
def plain_greedy(model, prompt, limit=12):
    answer = []
    while len(answer) < limit and not (answer and answer[-1] in STOP):
        hidden = model(torch.tensor([prompt + answer]))
        answer.append(model.logits(hidden)[0, -1].argmax().item())
    return answer


@pytest.mark.parametrize("batch", [1, 4, 32])
def test_greedy_is_the_plain_loop(model, batch):
    done = generate(model, prompts(), GREEDY, STOP, batch=batch)
    assert [each.tokens for each in done] == [plain_greedy(model, each) for each in prompts()]
    finishes = ["stop" if each.tokens[-1] in STOP else "length" for each in done]
    assert [each.finish for each in done] == finishes
    assert {"stop", "length"} == set(finishes), "the prompts no longer try both"


@pytest.mark.parametrize("batch", [1, 4])
@torch.no_grad()
def test_logprobs_are_exact(model, batch):
    # float32 logits from other shapes of the same products: 1e-5
    for prompt, each in zip(prompts(), generate(model, prompts(), DRAWN, STOP, batch=batch)):
        whole = torch.tensor([prompt + each.tokens])
        logits = model.logits(model(whole))[0, len(prompt) - 1 : -1]
        tokens = torch.tensor(each.tokens)[:, None]
        raw = torch.log_softmax(logits, -1).gather(1, tokens)[:, 0]
        torch.testing.assert_close(torch.tensor(each.raw_logprobs), raw, rtol=0, atol=1e-5)
        top = (logits / 0.9).topk(40)
        p = top.values.softmax(-1)
        p = torch.where(p.cumsum(-1) - p < 0.95, p, 0)
        p = torch.zeros_like(logits).scatter(1, top.indices, p / p.sum(-1, keepdim=True))
        told = p.gather(1, tokens)[:, 0].log()
        torch.testing.assert_close(torch.tensor(each.logprobs), told, rtol=0, atol=1e-5)


def test_an_item_draws_the_same_in_any_company(model):
    together = generate(model, prompts(), DRAWN, STOP, batch=5)
    alone = [generate(model, [each], DRAWN, STOP)[0] for each in prompts()]
    reverse = generate(model, prompts()[::-1], DRAWN, STOP, batch=3)[::-1]
    tokens = [each.tokens for each in together]
    assert tokens == [each.tokens for each in alone] == [each.tokens for each in reverse]
    # what remains of the company: the last bits of the logits. Measured bound 1e-6 at size 1.
    for a, b in zip(together, alone):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)


def test_equal_prompts_draw_apart_and_seeds_differ(model):
    same = [prompts()[0]] * 4
    answers = [tuple(each.tokens) for each in generate(model, same, DRAWN)]
    assert len(set(answers)) > 1
    again = [tuple(each.tokens) for each in generate(model, same, DRAWN, batch=2)]
    other = DRAWN.model_copy(update={"seed": 4})
    assert answers == again
    assert answers != [tuple(each.tokens) for each in generate(model, same, other)]
    keys = content_keys([[1, 2], [1, 2], [3]])
    assert len(set(keys)) == 3 and content_keys([[3], [1, 2]]) == [keys[2], keys[0]]


def test_given_keys_decide(model):
    same = [prompts()[0]] * 3
    answers = [each.tokens for each in generate(model, same, DRAWN, keys=[5, 6, 5])]
    assert answers[0] == answers[2] != answers[1]


def test_answers_may_have_limits_of_their_own(model):
    limits = [1 + index % 5 for index in range(13)]
    done = generate(model, prompts(), GREEDY, STOP, batch=4, limits=limits)
    wanted = [plain_greedy(model, each, limit) for each, limit in zip(prompts(), limits)]
    assert [each.tokens for each in done] == wanted


def test_stream_and_callback_see_every_token(model):
    seen = {}
    done = generate(
        model, prompts(), DRAWN, STOP, batch=4,
        on_token=lambda index, token: seen.setdefault(index, []).append(token),
    )  # fmt: skip
    assert seen == {index: each.tokens for index, each in enumerate(done)}
    assert list(stream(model, prompts()[2], DRAWN, STOP)) == done[2].tokens


def test_stream_leaves_the_readers_gradients_alone(model):
    for _ in stream(model, prompts()[2], DRAWN, STOP):
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def test_the_context_ends_an_answer(model):
    long = prompts()[0] * 40
    done = generate(model, [long[:60], long[:5]], Sampling(temperature=0, max_tokens=12))
    assert [len(each.tokens) for each in done] == [4, 12]
    assert done[0].finish == "length"
    with pytest.raises(DataError, match="fills the model's context"):
        generate(model, [long[:64]], GREEDY)
    with pytest.raises(DataError, match="prompt 1"):
        generate(model, [[1], []], GREEDY)


def test_nothing_asked_nothing_given(model):
    assert generate(model, [], GREEDY) == []


def test_bfloat16_runs_and_tells_its_own_probabilities(model):
    # bfloat16 logits of size 10 are good to 2^-8 of that
    half = new(CONFIG, 0).to(torch.bfloat16)
    half.load_state_dict(model.state_dict())
    with torch.no_grad():
        prompt, each = prompts()[1], generate(half, prompts()[1:2], DRAWN)[0]
        logits = half.logits(half(torch.tensor([prompt + each.tokens])))[0, len(prompt) - 1 : -1]
    raw = torch.log_softmax(logits.float(), -1).gather(1, torch.tensor(each.tokens)[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(each.raw_logprobs), raw, rtol=0, atol=0.2)


def test_the_fallback_generates_too(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.Phi3Config(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
        pad_token_id=None, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = transformers.Phi3ForCausalLM(config)
    for weight in theirs.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    theirs.save_pretrained(tmp_path)
    model = load(tmp_path)
    done = generate(model, prompts(), GREEDY, STOP, batch=4)
    assert [each.tokens for each in done] == [plain_greedy(model, each) for each in prompts()]


@pytest.mark.parametrize("batch", [1, 3])
def test_under_autocast(model, batch):
    with torch.autocast("cpu", torch.bfloat16):
        done = generate(model, prompts(3), GREEDY, STOP, batch=batch)
        assert list(stream(model, prompts(3)[1], GREEDY, STOP))
    assert all(each.tokens for each in done)
