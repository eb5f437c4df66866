"""draw: the distribution it says it draws from is the one it draws from."""

import math

import pytest
import torch

from endonym.engine.sampler import Sampling, draw, uniforms

LOGITS = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()


def frequencies(sampling, count=20_000):
    """(how often each token comes, the log-probability it comes with)."""
    uniform = (torch.arange(count, dtype=torch.float64) + 0.5) / count  # an even grid: no chance
    tokens, logprobs, raw = draw(LOGITS.expand(count, -1), sampling, uniform)
    shares = [(tokens == token).double().mean().item() for token in range(4)]
    told = [logprobs[tokens == token].double() for token in range(4)]
    assert all(each.std() == 0 for each in told if len(each) > 1)
    torch.testing.assert_close(raw, LOGITS[0][tokens], rtol=0, atol=1e-6)  # float32
    return shares, [each[0].exp().item() if len(each) else 0.0 for each in told]


@pytest.mark.parametrize(
    "settings, wanted",
    [
        ({}, [0.5, 0.3, 0.15, 0.05]),
        # squares 0.25 0.09 0.0225 0.0025, sum 0.365
        ({"temperature": 0.5}, [0.25 / 0.365, 0.09 / 0.365, 0.0225 / 0.365, 0.0025 / 0.365]),
        ({"top_k": 2}, [0.625, 0.375, 0, 0]),
        ({"top_k": 9}, [0.5, 0.3, 0.15, 0.05]),
        # 0.5 does not reach 0.6, 0.5 + 0.3 does
        ({"top_p": 0.6}, [0.625, 0.375, 0, 0]),
        ({"top_p": 0.01}, [1, 0, 0, 0]),
        # 0.3 / 0.5 = 0.6 stays, 0.15 / 0.5 = 0.3 goes
        ({"min_p": 0.4}, [0.625, 0.375, 0, 0]),
        # of the three that top_k leaves (0.526, 0.316, 0.158), two reach 0.8
        ({"top_k": 3, "top_p": 0.8}, [0.625, 0.375, 0, 0]),
        ({"top_k": 3, "min_p": 0.4}, [0.625, 0.375, 0, 0]),
    ],
)
def test_drawn_as_told(settings, wanted):
    shares, told = frequencies(Sampling(**settings))
    assert shares == pytest.approx(wanted, abs=1e-4)  # the grid's step is 5e-5
    assert told == pytest.approx(wanted, abs=1e-6)  # float32


def test_greedy():
    tokens, logprobs, raw = draw(LOGITS, Sampling(temperature=0), None)
    assert tokens.tolist() == [0] and logprobs.tolist() == [0.0]
    assert raw.item() == pytest.approx(math.log(0.5), abs=1e-6)


def test_impossible_tokens_are_never_drawn():
    logits = torch.full((3, 1000), -torch.inf)
    logits[:, [0, 7, 999]] = 0.0
    ends = torch.tensor([0.0, 0.5, 1 - 2.0**-52], dtype=torch.float64)
    assert draw(logits, Sampling(), ends)[0].tolist() == [0, 7, 999]
    logits[:, 999] = -torch.inf
    assert draw(logits, Sampling(), ends)[0].tolist()[2] == 7


def test_uniforms_depend_on_their_names_alone():
    keys, positions = torch.arange(6), torch.arange(6) % 2
    alone = [uniforms(1, keys[i : i + 1], positions[i : i + 1]).item() for i in range(6)]
    assert uniforms(1, keys, positions).tolist() == alone
    assert len({*alone, *uniforms(2, keys, positions).tolist()}) == 12


@pytest.mark.parametrize("along", ["keys", "positions", "seeds"])
def test_uniforms_are_uniform_and_independent(along):
    count = 20_000
    one = torch.arange(count)
    zero = torch.zeros(count, dtype=torch.long)
    if along == "seeds":
        values = torch.cat([uniforms(seed, zero[:1], zero[:1]) for seed in range(2000)])
    else:
        values = uniforms(
            0, one if along == "keys" else zero, one if along == "positions" else zero
        )
    n = len(values)
    assert ((values >= 0) & (values < 1)).all()
    # mean 1/2 +- 4 standard errors, 1/sqrt(12 n) each; neighbours uncorrelated to 4 / sqrt(n)
    assert values.mean().item() == pytest.approx(0.5, abs=4 / math.sqrt(12 * n))
    pairs = torch.corrcoef(torch.stack([values[:-1], values[1:]]))[0, 1].item()
    assert abs(pairs) < 4 / math.sqrt(n)
    shares = torch.histc(values, 10, 0, 1) / n
    assert (shares - 0.1).abs().max() < 4 * math.sqrt(0.09 / n)
