"""Low rank: against torch's SVD and scikit-learn's, and that no other matrix of the rank errs less on its inputs."""

from __future__ import annotations

import pytest
import torch
from sklearn.decomposition import TruncatedSVD
from torch import nn

from llmbook.compression import lowrank
from llmbook.compression.calibration import InputStatistics, block_linears, input_statistics
from llmbook.compression.reconstruction import layer_error
from llmbook.transformer import GPT, GPTConfig


def randn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def layer():
    linear = nn.Linear(12, 8)
    with torch.no_grad():
        linear.weight.copy_(randn(0, 8, 12))
        linear.bias.copy_(randn(1, 8))
    return linear


@pytest.fixture
def fed():
    x = randn(2, 500, 12) * torch.logspace(0, 1.5, 12)  # some features are thirty times as large
    return x, InputStatistics(x.T @ x / 500, x.abs().amax(0), 500)


def test_full_rank_is_the_layer(layer, fed):
    x, statistics = fed
    for given in (None, statistics):
        low = lowrank.factorize(layer, 8, given)
        torch.testing.assert_close(low(x), layer(x), atol=1e-4, rtol=1e-4)


def test_by_weights_it_is_the_truncated_svd(layer):
    u, s, vt = torch.linalg.svd(layer.weight.detach())
    low = lowrank.factorize(layer, 3)
    torch.testing.assert_close(low.dense(), u[:, :3] * s[:3] @ vt[:3], atol=1e-5, rtol=1e-5)
    svd = TruncatedSVD(3, algorithm="arpack", random_state=0)  # scikit-learn's
    theirs = svd.inverse_transform(svd.fit_transform(layer.weight.detach().double().numpy()))
    torch.testing.assert_close(low.dense().double(), torch.from_numpy(theirs), atol=1e-5, rtol=1e-5)


def test_by_inputs_it_is_the_whitened_svd(layer, fed):
    """SVD-LLM's way: W S = U Σ Vᵀ with S Sᵀ = H, cut, and S⁻¹ from the right."""
    _, statistics = fed
    s = torch.linalg.cholesky(statistics.gram.double())
    u, sigma, vt = torch.linalg.svd(layer.weight.detach().double() @ s)
    whitened = u[:, :3] * sigma[:3] @ vt[:3] @ torch.linalg.inv(s)
    torch.testing.assert_close(lowrank.factorize(layer, 3, statistics).dense().double(), whitened, atol=1e-4, rtol=1e-4)


def test_the_error_is_what_the_directions_say(layer, fed):
    _, statistics = fed
    carried, u = lowrank.directions(layer.weight, statistics.gram)
    off = (layer.weight - lowrank.factorize(layer, 3, statistics).dense()).detach()
    assert layer_error(off, statistics.gram) == pytest.approx(carried[3:].sum().item(), rel=1e-3)
    torch.testing.assert_close(u.T @ u, torch.eye(8, dtype=torch.float64))


def test_no_neighbour_of_the_rank_errs_less_on_the_inputs(layer, fed):
    _, statistics = fed

    def error_of(other):
        return layer_error((layer.weight - other).detach(), statistics.gram)

    low = lowrank.factorize(layer, 3, statistics)
    least = error_of(low.dense())
    assert least < error_of(lowrank.factorize(layer, 3).dense())
    for seed in range(20):
        moved = (low.second.weight + 0.01 * randn(seed, 8, 3)) @ (low.first.weight + 0.01 * randn(seed + 99, 3, 12))
        assert error_of(moved) > least


def test_break_even():
    assert lowrank.break_even(512, 128) == 102
    for r, fewer in ((102, True), (103, False)):
        assert (r * (512 + 128) < 512 * 128) == fewer


@pytest.mark.parametrize("rank", [0, 9])
def test_a_rank_that_the_layer_lacks_is_refused(layer, rank):
    with pytest.raises(ValueError, match=rf"rank must lie in 1..8, got {rank}"):
        lowrank.factorize(layer, rank)


def test_a_gram_of_another_layer_is_refused(layer):
    with pytest.raises(ValueError, match=r"gram must be \(in, in\) for weight \(8, 12\), got \(8, 8\)"):
        lowrank.directions(layer.weight, torch.eye(8))


@pytest.fixture
def model():
    config = GPTConfig(20, 32, 16, 2, 2, positions="rotary", initializer_range=0.3)
    return GPT(config, generator=torch.Generator().manual_seed(0)).eval()


def test_a_model_keeps_its_share_and_still_runs(model):
    ids = torch.randint(0, 20, (4, 16), generator=torch.Generator().manual_seed(0))
    statistics = input_statistics(model, [ids])
    before = {name: m.weight.numel() for name, m in block_linears(model).items()}
    ranks = lowrank.factorize_model(model, 0.5, statistics)
    assert set(ranks) == set(before)
    for name, rank in ranks.items():
        low = model.get_submodule(name)
        assert isinstance(low, lowrank.LowRankLinear)
        assert low.rank == rank
        assert low.first.weight.numel() + low.second.weight.numel() <= before[name] / 2
    assert torch.isfinite(model(ids).logits).all()


def test_only_the_named_layers_change(model):
    lowrank.factorize_model(model, 0.5, names=["h.0.mlp.c_fc"])
    assert isinstance(model.h[0].mlp.c_fc, lowrank.LowRankLinear)
    assert isinstance(model.h[0].mlp.c_proj, nn.Linear)


def test_bad_shares_and_names_change_nothing(model):
    with pytest.raises(ValueError, match="share must lie between 0 and 1, got 1"):
        lowrank.factorize_model(model, 1)
    with pytest.raises(ValueError, match="share must leave rank 1"):
        lowrank.factorize_model(model, 0.01)
    with pytest.raises(ValueError, match="names must be linear layers within the model's blocks, got 'lm_head'"):
        lowrank.factorize_model(model, 0.5, names=["h.0.mlp.c_fc", "lm_head"])
    assert isinstance(model.h[0].mlp.c_fc, nn.Linear)
