"""Tokens are bins of counts: encoded, decoded and scored."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scdiff_data import BinTokens, CountTokens, LogBinTokens, QuantileTokens

KINDS = [CountTokens(), LogBinTokens(), QuantileTokens(), BinTokens([0, 5, 6])]
COUNTS = np.random.default_rng(0).negative_binomial(0.4, 0.03, (2000, 50)).astype(np.int16)
TOTALS = COUNTS.sum(axis=1)


@pytest.fixture(params=KINDS, ids=lambda kind: type(kind).__name__)
def fitted(request: pytest.FixtureRequest) -> BinTokens:
    request.param.fit(COUNTS, TOTALS)
    return request.param


def test_tokens_are_the_bins_of_the_counts(fitted: BinTokens) -> None:
    counts = torch.arange(32_768, dtype=torch.int16).reshape(64, -1)
    expected = np.searchsorted(fitted.edges.numpy(), np.arange(32_768), side="right") - 1
    tokens = fitted.encode(counts)
    assert tokens.dtype == torch.int64
    assert tokens.shape == counts.shape
    assert np.array_equal(tokens.numpy().ravel(), expected)
    assert tokens.max() == fitted.n_tokens - 1 < fitted.mask_id


def test_decoding_stays_in_the_bin(fitted: BinTokens) -> None:
    tokens = torch.randint(fitted.n_tokens, (300, 40), generator=torch.Generator().manual_seed(0))
    counts = fitted.decode(tokens, torch.Generator().manual_seed(1))
    assert torch.equal(fitted.encode(counts), tokens)


def test_decoding_restores_the_training_cells_mean_and_variance(fitted: BinTokens) -> None:
    counts = torch.from_numpy(COUNTS)
    decoded = fitted.decode(fitted.encode(counts), torch.Generator().manual_seed(2)).double()
    assert decoded.mean().item() == pytest.approx(COUNTS.mean(), rel=0.02)
    assert decoded.var().item() == pytest.approx(COUNTS.var(), rel=0.2)


def test_p_count_given_token_sums_to_one(fitted: BinTokens) -> None:
    counts = torch.arange(32_768)
    probability = fitted.log_prob(counts).double().exp()
    sums = torch.zeros(fitted.n_tokens, dtype=torch.float64)
    sums.index_add_(0, fitted.encode(counts), probability)
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=1e-5, atol=1e-5)


def test_the_state_alone_rebuilds_a_tokenizer(fitted: BinTokens) -> None:
    rebuilt = BinTokens(fitted.edges.tolist())
    rebuilt.load_state_dict(fitted.state_dict())
    counts = torch.from_numpy(COUNTS)
    assert torch.equal(rebuilt.encode(counts), fitted.encode(counts))
    assert torch.equal(rebuilt.log_prob(counts), fitted.log_prob(counts))


def test_the_default_bins_are_those_of_the_design() -> None:
    assert CountTokens().edges.tolist() == list(range(32))
    assert LogBinTokens().edges.tolist()[:9] == [0, 1, 2, 3, 4, 6, 9, 13, 19]
    assert LogBinTokens().n_tokens == 16


@settings(max_examples=40)
@given(values=st.lists(st.integers(0, 300), min_size=1, max_size=300), n_tokens=st.integers(2, 20))
def test_quantile_bins_increase_and_keep_zero_apart(values: list[int], n_tokens: int) -> None:
    counts = np.array(values, np.int16)[:, None]
    tokenizer = QuantileTokens(n_tokens)
    if not counts.any():
        with pytest.raises(ValueError, match="no count above 0"):
            tokenizer.fit(counts, counts.sum(axis=1))
        return
    tokenizer.fit(counts, counts.sum(axis=1))
    assert tokenizer.edges.tolist()[:2] == [0, 1]
    assert (tokenizer.edges.diff() > 0).all()
    assert tokenizer.n_tokens <= n_tokens


def test_quantile_bins_hold_equal_shares() -> None:
    counts = np.arange(1, 1001, dtype=np.int16)[:, None]
    tokenizer = QuantileTokens(11)
    tokenizer.fit(counts, counts.sum(axis=1))
    shares = torch.bincount(tokenizer.encode(torch.from_numpy(counts)).ravel())
    assert shares.tolist() == [0, *[100] * 10]


def test_quantile_bins_are_needed_before_use() -> None:
    with pytest.raises(ValueError, match=r"has no bins yet: call fit"):
        QuantileTokens().encode(torch.zeros(1, dtype=torch.int16))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CountTokens(1), r"n_tokens must be in 2 … 32768, got 1"),
        (lambda: LogBinTokens(ratio=1.0), r"ratio must be above 1, got 1\.0"),
        (lambda: LogBinTokens(40), "pass the largest count 32767"),
        (lambda: BinTokens([1, 2]), r"edges must start at 0.*got \[1, 2\]"),
        (lambda: BinTokens([0, 3, 3]), "increase"),
    ],
)
def test_wrong_settings_are_clear_errors(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


@given(st.integers(2, 400))
def test_the_table_of_narrow_tokens_is_what_encode_gives(n_tokens: int) -> None:
    tokenizer = CountTokens(n_tokens)
    table, counts = tokenizer.count_table, torch.arange(32_768, dtype=torch.int16)
    assert table.dtype == (np.uint8 if n_tokens <= 256 else np.int16)
    assert np.array_equal(table, tokenizer.encode(counts).numpy())


def test_quantile_bins_have_no_table_before_a_fit() -> None:
    with pytest.raises(ValueError, match="has no bins yet"):
        _ = QuantileTokens().count_table
