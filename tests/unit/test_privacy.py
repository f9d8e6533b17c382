"""What is measured about privacy agrees with its definitions, and DP-SGD with Opacus."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from llmbook import privacy
from llmbook.transformer import GPT, GPTConfig

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from opacus import GradSampleModule
    from opacus.accountants import PRVAccountant, RDPAccountant
    from opacus.accountants.analysis.rdp import compute_rdp
    from opacus.optimizers import DPOptimizer

CONFIG = GPTConfig(30, 12, n_embd=16, n_layer=2, n_head=2, positions="rotary", tie_word_embeddings=False,
                   initializer_range=0.2)  # fmt: skip


def model(seed: int = 0) -> GPT:
    return GPT(CONFIG, generator=torch.Generator().manual_seed(seed))


def labels(count: int = 5, seed: int = 1) -> torch.Tensor:
    rows = torch.randint(CONFIG.vocab_size, (count, 10), generator=torch.Generator().manual_seed(seed))
    rows[0, 6:] = -100
    return rows


# Rows


def test_training_weighs_every_row_alike():
    """One step of plain descent moves by the mean of the rows' own gradients, long and short ones alike."""
    m, rows, seen = model(), labels(), []
    before = {k: p.detach().clone() for k, p in m.named_parameters()}
    own = privacy.per_sample_gradients(m, rows)
    privacy.train(m, [rows], torch.optim.SGD(m.parameters(), lr=0.5), seen.append)
    for name, p in m.named_parameters():
        assert torch.allclose(p, before[name] - 0.5 * own[name].mean(0), atol=1e-5), name
    assert seen == [1]


def test_rows_are_padded_and_padding_is_not_scored():
    rows = privacy.as_labels([[1, 2, 3], [4, 5]])
    assert rows.tolist() == [[1, 2, 3], [4, 5, -100]]
    m = model()
    kept = torch.tensor([[4, 5]])
    assert privacy.text_loss(m(rows.clamp(min=0)).logits, rows)[1].item() == pytest.approx(
        m(kept, kept).loss.item(), abs=1e-5
    )
    with pytest.raises(ValueError, match="none that is empty"):
        privacy.as_labels([[1], []])


# Planted secrets


def test_a_code_has_the_probability_of_its_digits():
    m, prefix, digits = model(), [3, 8, 1], [20, 21, 22, 23]
    scores = privacy.code_logprobs(m, prefix, digits, length=3)
    assert scores.shape == (64,)
    for number, code in ((0, [20, 20, 20]), (27, [21, 22, 23]), (63, [23, 23, 23])):
        ids = torch.tensor([[*prefix, *code]])
        logp = m(ids).logits.detach().log_softmax(-1)[0]
        want = sum(float(logp[2 + i, code[i]]) for i in range(3))
        assert scores[number] == pytest.approx(want, abs=1e-4)
    assert len(privacy.code_logprobs(m, prefix, digits, length=1)) == 4
    with pytest.raises(ValueError, match="2 or more different digits"):
        privacy.code_logprobs(m, prefix, [4, 4])


def test_exposure_is_that_of_the_paper():
    scores = -np.arange(1000.0)
    assert privacy.exposure(scores, 0) == pytest.approx(math.log2(1000))
    assert privacy.exposure(scores, 999) == 0
    assert privacy.exposure(scores, 1) == pytest.approx(math.log2(500))
    assert privacy.exposure(np.zeros(8), 3) == 0  # who says the same of all knows nothing
    unknown = np.mean([privacy.exposure(scores, k) for k in range(1000)])
    assert unknown == pytest.approx(1 / math.log(2), abs=0.01)
    with pytest.raises(ValueError, match=r"secret must be a place in 0\.\.7, got 8"):
        privacy.exposure(np.zeros(8), 8)
    with pytest.raises(ValueError, match="at least 2 numbers"):
        privacy.exposure([1.0], 0)


def test_copies_are_dropped_and_near_ones_only_by_overlap():
    rows = [[1, 2, 3, 4, 5], [7, 8, 9, 7, 8], [1, 2, 3, 4, 5], [9, 2, 3, 4, 5], [1, 2, 3]]
    assert [list(r) for r in privacy.drop_copies(rows)] == [rows[0], rows[1], rows[3], rows[4]]
    assert privacy.drop_overlaps(rows, 4) == [rows[0], rows[1], rows[4]]
    assert privacy.drop_overlaps(rows, 3) == [rows[0], rows[1]]
    with pytest.raises(ValueError, match="run must be at least 1"):
        privacy.drop_overlaps(rows, 0)


# Membership


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=4, max_size=60))
def test_area_and_true_positives_are_scikit_learns(pairs):
    scores, members = map(np.array, zip(*pairs, strict=True))
    if members.all() or not members.any():
        with pytest.raises(ValueError, match="with members and others"):
            privacy.area_under_roc(scores, members)
        return
    assert privacy.area_under_roc(scores, members) == pytest.approx(roc_auc_score(members, scores))
    false, true, _ = roc_curve(members, scores, drop_intermediate=False)
    for level in (0.01, 0.3):
        assert privacy.true_positives_at(scores, members, level) == pytest.approx(true[false <= level].max())


def test_the_likelihood_ratio_by_hand():
    losses = np.array([[1.0, 9.0], [2.0, 4.0], [5.0, 6.0], [6.0, 8.0]])
    trained = np.array([[True, False], [True, True], [False, False], [False, True]])
    scores = privacy.likelihood_ratio(losses, trained, target=0)
    # text 0: in 2; out 5 and 6. text 1: in 4 and 8; out 6. Squared residuals 0.5 + 8, freedom 6 - 4.
    variance = 8.5 / 2
    want = [((1 - 5.5) ** 2 - (1 - 2) ** 2) / (2 * variance), ((9 - 6) ** 2 - (9 - 6) ** 2) / (2 * variance)]
    assert scores == pytest.approx(want)


def test_the_likelihood_ratio_is_that_of_two_gaussians():
    rng = np.random.default_rng(0)
    trained = np.array([rng.permutation(40) < 20 for _ in range(200)]).T
    hardness = rng.normal(0, 5, 200)
    losses = hardness - trained + rng.normal(size=trained.shape)
    scores = privacy.likelihood_ratio(losses, trained, 0)
    mine = trained[0]
    assert privacy.area_under_roc(scores, mine) > privacy.area_under_roc(-losses[0], mine) + 0.1
    x = losses[0] - hardness  # in: N(-1, 1), out: N(0, 1)
    assert np.corrcoef(scores, (x**2 - (x + 1) ** 2) / 2)[0, 1] > 0.9


def test_a_text_needs_shadows_of_both_kinds():
    with pytest.raises(ValueError, match="seen by a shadow model and be unknown to another"):
        privacy.likelihood_ratio(np.zeros((3, 1)), [[True], [True], [True]], 0)
    with pytest.raises(ValueError, match="with target below M"):
        privacy.likelihood_ratio(np.zeros((3, 1)), [[True], [True], [True]], 3)


# Anonymity


def test_crowds():
    table = [{"job": "nurse", "town": "Oslo"}, {"job": "nurse", "town": "Lima"}, {"job": "nurse", "town": "Oslo"}]
    assert privacy.crowd_sizes(table, ["job"]).tolist() == [3, 3, 3]
    assert privacy.crowd_sizes(table, ["job", "town"]).tolist() == [2, 1, 2]
    with pytest.raises(ValueError, match="table must have rows, and the columns"):
        privacy.crowd_sizes(table, ["name"])


# DP-SGD


def test_each_rows_gradient_is_that_of_a_loop():
    m, rows = model(), labels()
    found = privacy.per_sample_gradients(m, rows)
    for i, row in enumerate(rows):
        m.zero_grad()
        kept = row[row >= 0][None]
        m(kept, kept).loss.backward()
        for name, p in m.named_parameters():
            assert torch.allclose(found[name][i], p.grad, atol=1e-5), name
    assert privacy.gradient_norms(found)[2] == pytest.approx(
        math.sqrt(sum(float(g[2].square().sum()) for g in found.values())), rel=1e-5
    )
    with pytest.raises(ValueError, match=r"labels must be \(B, T\)"):
        privacy.per_sample_gradients(m, rows[0])


@pytest.mark.filterwarnings("ignore")
def test_gradients_are_those_of_opacus():
    """The clipped sum, with noise 0, is what Opacus' optimiser would step with; so are the norms."""
    rows, clip = labels(), 0.5
    rows[0, 6:] = 3  # Opacus' loss below knows no padding
    hooked = GradSampleModule(model(), loss_reduction="mean")
    optimizer = DPOptimizer(
        torch.optim.SGD(hooked.parameters(), lr=1.0), noise_multiplier=0.0, max_grad_norm=clip, expected_batch_size=8
    )
    logits = hooked(rows).logits[:, :-1]
    torch.nn.functional.cross_entropy(logits.transpose(1, 2), rows[:, 1:]).backward()
    ours = privacy.per_sample_gradients(model(), rows)
    for name, p in hooked._module.named_parameters():
        assert torch.allclose(p.grad_sample, ours[name], rtol=1e-4, atol=1e-6), name
    optimizer.pre_step()
    stepped = privacy.private_gradient(ours, clip, 0.0, 8, torch.Generator())
    for name, p in hooked._module.named_parameters():
        assert torch.allclose(p.grad, stepped[name], rtol=0, atol=1e-6), name


def test_no_row_moves_the_gradient_by_more_than_its_share():
    found = privacy.per_sample_gradients(model(), labels())
    without = {name: g[1:] for name, g in found.items()}
    for clip in (0.01, 1e6):
        a, b = (privacy.private_gradient(g, clip, 0.0, 4, torch.Generator()) for g in (found, without))
        moved = math.sqrt(sum(float((a[name] - b[name]).square().sum()) for name in a))
        assert moved <= clip / 4 * 1.001
        assert moved == pytest.approx(min(clip, float(privacy.gradient_norms(found)[0])) / 4, rel=1e-3)


def test_the_noise_has_its_size():
    zero = {"w": torch.zeros(3, 200, 200)}
    noisy = privacy.private_gradient(zero, 0.5, 2.0, 10, torch.Generator().manual_seed(0))["w"]
    assert float(noisy.std()) == pytest.approx(2.0 * 0.5 / 10, rel=0.02)
    for wrong in ({"clip": 0.0}, {"expected": 0.0}, {"noise_multiplier": -1.0}):
        arguments = {"clip": 1.0, "noise_multiplier": 1.0, "expected": 1.0} | wrong
        with pytest.raises(ValueError, match=next(iter(wrong))):
            privacy.private_gradient(zero, **arguments, generator=torch.Generator())


def test_rows_of_one_owner_are_one_example():
    found = privacy.per_sample_gradients(model(), labels(4))
    owned = privacy.sum_by(found, torch.tensor([7, 2, 7, 9]))
    name = "h.0.mlp.c_fc.weight"
    assert owned[name].shape[0] == 3
    assert torch.allclose(owned[name][1], found[name][0] + found[name][2])
    assert torch.allclose(owned[name][0], found[name][1])


def test_poisson_samples():
    rng = np.random.default_rng(0)
    sizes = [len(privacy.poisson_sample(1000, 0.1, rng)) for _ in range(200)]
    assert np.mean(sizes) == pytest.approx(100, abs=3)
    assert np.var(sizes) == pytest.approx(90, rel=0.4)
    with pytest.raises(ValueError, match=r"rate must lie in \(0, 1\]"):
        privacy.poisson_sample(10, 0.0, rng)


# Accountants


@pytest.mark.parametrize(("rate", "sigma"), [(0.01, 0.7), (0.1, 1.0), (0.3, 3.0), (1.0, 2.0)])
def test_renyi_divergences_are_opacus(rate, sigma):
    ours = privacy.rdp(rate, sigma)
    theirs = compute_rdp(q=rate, noise_multiplier=sigma, steps=1, orders=list(privacy.ORDERS))
    assert ours == pytest.approx(np.asarray(theirs), rel=1e-4, abs=1e-9)


def test_the_whole_gaussian_in_closed_form():
    assert privacy.rdp(1.0, 2.0, [1.5, 3.0, 20.0]) == pytest.approx(np.array([1.5, 3.0, 20.0]) / (2 * 2.0**2))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("rate", "sigma", "steps"), [(0.01, 0.8, 500), (0.1, 1.0, 120), (0.25, 2.0, 60)])
def test_budgets_are_opacus(rate, sigma, steps):
    delta = 1e-4
    by_rdp, by_prv = RDPAccountant(), PRVAccountant()
    by_rdp.history = by_prv.history = [(sigma, rate, steps)]
    ours = privacy.rdp_epsilon(rate, sigma, steps, delta)
    tight = privacy.prv_epsilon(rate, sigma, steps, delta)
    assert ours == pytest.approx(by_rdp.get_epsilon(delta), abs=1e-3)
    above = by_prv.get_epsilon(delta, eps_error=0.01) - 0.01  # Opacus adds its bound for the grid's error
    assert tight == pytest.approx(above, abs=1e-3)
    assert tight < ours


def test_a_budget_of_one_whole_gaussian_is_known():
    """δ of one release (Balle and Wang, 2018, theorem 5), at the ε that we find."""
    from scipy.stats import norm

    sigma, delta = 2.0, 1e-5
    epsilon = privacy.prv_epsilon(1.0, sigma, 1, delta)
    a, b = 1 / (2 * sigma), epsilon * sigma
    assert norm.cdf(a - b) - math.exp(epsilon) * norm.cdf(-a - b) == pytest.approx(delta, rel=1e-3)


@settings(max_examples=15, deadline=None)
@given(st.floats(0.02, 0.5), st.floats(0.8, 3.0), st.integers(1, 50))
def test_budgets_grow_with_steps_and_shrink_with_noise(rate, sigma, steps):
    spent = privacy.prv_epsilon(rate, sigma, steps, 1e-4, spacing=0.01)
    assert privacy.prv_epsilon(rate, sigma, steps + 10, 1e-4, spacing=0.01) >= spent - 1e-6
    assert privacy.prv_epsilon(rate, 1.5 * sigma, steps, 1e-4, spacing=0.01) <= spent + 1e-6
    assert spent <= privacy.rdp_epsilon(rate, sigma, steps, 1e-4) + 1e-2


def test_what_no_accountant_takes():
    for wrong in ({"rate": 0.0}, {"sigma": 0.0}, {"steps": 0}, {"delta": 1.0}):
        arguments = {"rate": 0.1, "sigma": 1.0, "steps": 10, "delta": 1e-4} | wrong
        for account in (privacy.rdp_epsilon, privacy.prv_epsilon):
            with pytest.raises(ValueError, match=f"{next(iter(wrong))} must"):
                account(**arguments)
    with pytest.raises(ValueError, match="orders must all be above 1"):
        privacy.rdp(0.1, 1.0, [1.0])
