"""llmbook.interpretability against captum, scikit-learn and transformers, by its properties, and broken on purpose."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import InputXGradient, IntegratedGradients, Saliency
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from llmbook import interpretability as look
from llmbook.transformer import GPT, GPTConfig, record_attention

B, T, V, C, H = 3, 7, 11, 12, 3


@pytest.fixture(scope="module")
def model() -> GPT:
    config = GPTConfig(V, n_positions=16, n_embd=C, n_layer=2, n_head=H, positions="rotary", initializer_range=0.3)
    return GPT(config, generator=torch.Generator().manual_seed(0)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=V, hidden_size=C, intermediate_size=16, num_hidden_layers=2, num_attention_heads=H,
        num_key_value_heads=H, max_position_embeddings=16, initializer_range=0.3, pad_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def pairs() -> look.Pairs:
    told = torch.randint(V, (B, T), generator=torch.Generator().manual_seed(1))
    other = told.clone()
    other[:, 2] = (told[:, 2] + 1) % V
    last = torch.tensor([6, 5, 6])
    return look.Pairs(told, other, last, torch.full((B,), 2), told[:, 2], other[:, 2])


def score_of(model, pairs):
    rows = torch.arange(len(pairs.told))

    def score(e):
        return pairs.difference(model.lm_head(model.blocks(e)[0][rows, pairs.last]))

    return score


# ------------------------------------------------------------ hooks


@pytest.mark.parametrize("kind", ["model", "llama"])
def test_hooks_that_change_nothing_change_nothing(kind, request):
    m = request.getfixturevalue(kind)
    ids = torch.arange(T)[None]
    plain = m(ids).logits
    with look.record_heads(m) as heads, look.record_stream(m) as stream:
        m(ids)
    assert sorted(stream) == [0, 1, 2]
    assert heads[0].shape == (1, T, H, C // H)
    same = {(b, h): heads[b][:, :, h] for b in range(2) for h in range(H)}
    with look.replace_heads(m, same), look.change_stream(m, 1, lambda x: x):
        assert torch.equal(m(ids).logits, plain)
    with look.replace_heads(m, {(1, 2): 0.0}):
        assert not torch.allclose(m(ids).logits, plain)
    assert torch.equal(m(ids).logits, plain)  # and nothing of them stays


def test_stream_is_transformers_hidden_states(llama):
    ids = torch.arange(T)[None]
    theirs = llama(ids, output_hidden_states=True).hidden_states  # the last one is normalised
    with look.record_stream(llama) as stream:
        logits = llama(ids).logits
    assert torch.equal(stream[0], theirs[0])
    assert torch.equal(stream[1], theirs[1])
    lens = look.logit_lens(llama, stream)
    assert torch.allclose(lens[2], logits, atol=1e-6)
    assert torch.allclose(lens[1], llama.lm_head(llama.model.norm(theirs[1])))


def test_a_silent_head_is_a_zeroed_matrix(model):
    ids = torch.arange(T)[None]
    with look.replace_heads(model, {(0, 1): 0.0}):
        silent = model(ids).logits
    weight = model.h[0].attn.c_proj.weight
    kept = weight.clone()
    size = C // H
    weight[:, size : 2 * size] = 0
    zeroed = model(ids).logits
    weight.copy_(kept)
    assert torch.allclose(silent, zeroed, atol=1e-6)


def test_mean_heads_leaves_padding_out(model):
    z = {0: torch.arange(24.0).reshape(1, 4, 3, 2)}
    mask = torch.tensor([[True, True, False, False]])
    assert look.mean_heads(z, [(0, 1)], mask)[0, 1].tolist() == [5.0, 6.0]
    assert look.mean_heads(z, [(0, 1)])[0, 1].tolist() == [11.0, 12.0]


def test_bad_places_are_named(model):
    with (
        pytest.raises(ValueError, match=r"heads of 2 blocks of 3, got \(2, 0\)"),
        look.replace_heads(model, {(2, 0): 0}),
    ):
        pass
    with pytest.raises(ValueError, match=r"in 0\.\.2, got 3"), look.change_stream(model, 3, lambda x: x):
        pass
    with pytest.raises(ValueError, match="model must be a GPT or a transformers Llama, got Linear"):
        look.blocks_of(nn.Linear(2, 2))


# ------------------------------------------------------------ attribution


def test_attributions_are_captums(model, pairs):
    score, e = score_of(model, pairs), model.embed(pairs.told)
    base = model.wte.weight.mean(0).expand_as(e)
    ours = look.integrated_gradients(score, e, base, 9)
    theirs = IntegratedGradients(score).attribute(e, base, n_steps=9, method="riemann_middle", internal_batch_size=B)
    assert torch.allclose(ours, theirs.sum(-1), atol=1e-5)
    slope = Saliency(score).attribute(e.detach().requires_grad_(), abs=False)
    assert torch.allclose(look.saliency(score, e), slope.norm(dim=-1), atol=1e-6)
    product = InputXGradient(score).attribute(e.detach().requires_grad_()).sum(-1)
    assert torch.allclose(look.gradient_times_input(score, e), product, atol=1e-6)


def test_integrated_gradients_are_complete_and_more_so_with_more_steps(model, pairs):
    score, e = score_of(model, pairs), model.embed(pairs.told)
    base = model.wte.weight.mean(0).expand_as(e)
    gaps = [look.completeness_gap(score, e, base, look.integrated_gradients(score, e, base, n)).max() for n in (2, 64)]
    assert gaps[1] < 0.02
    assert gaps[1] < gaps[0] / 5


def test_gradient_times_input_vanishes_behind_a_norm(model):
    """Euler: a token read through a norm alone has no slope along its own embedding."""
    norm, w = nn.LayerNorm(C, eps=0), torch.randn(C, generator=torch.Generator().manual_seed(2))
    e = torch.randn(2, 4, C, generator=torch.Generator().manual_seed(3))
    score = lambda x: (norm(x) @ w).sum(-1)  # noqa: E731
    assert look.gradient_times_input(score, e).abs().max() < 1e-5 < look.saliency(score, e).min()


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_linear_scores_are_attributed_exactly(seed):
    g = torch.Generator().manual_seed(seed)
    e, w, base = (torch.randn(2, 3, 4, generator=g) for _ in range(3))
    score = lambda x: (x * w).sum((1, 2))  # noqa: E731
    exact = ((e - base) * w).sum(-1)
    assert torch.allclose(look.integrated_gradients(score, e, base, 1), exact, atol=1e-5)
    assert torch.allclose(look.leave_one_out(score, e, torch.zeros(4)), (e * w).sum(-1), atol=1e-5)


def test_hits_end_at_the_last_place():
    scores = torch.tensor([[1.0, 5.0, 2.0, 9.0], [1.0, 5.0, 7.0, 9.0]])
    assert look.hits(scores, torch.tensor([1, 1]), torch.tensor([2, 2])).tolist() == [True, False]


def test_attribution_refuses_what_it_cannot_read(model, pairs):
    score = score_of(model, pairs)
    with pytest.raises(ValueError, match=r"e must be embeddings .*got shape \(7, 12\)"):
        look.saliency(score, torch.zeros(T, C))
    with pytest.raises(ValueError, match="one number for each of 3 rows"):
        look.saliency(lambda x: x.sum(), torch.zeros(B, T, C))
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        look.integrated_gradients(score, torch.zeros(B, T, C), torch.zeros(C), 0)


# ------------------------------------------------------------ patching


def test_stream_patches_at_both_ends_are_one_or_nothing(model, pairs):
    table = look.patch_stream(model, pairs, {"source": pairs.source, "first": pairs.source * 0, "last": pairs.last})
    assert table[0, 0] == pytest.approx(1, abs=1e-4)
    assert table[2, 2] == pytest.approx(1, abs=1e-4)
    assert table[:, 1].abs().max() < 1e-5
    assert table[2, 0].abs() < 1e-5


def test_all_paths_at_once_are_the_head(model, pairs):
    """Adding the change to every reader is the same as patching the head itself."""
    sender = (0, 1)
    with look.record_heads(model) as seen:
        pairs.logits(model, pairs.told)
    with look.record_heads(model) as plain:
        pairs.logits(model, pairs.other)
    z = seen[0][:, :, 1]
    delta = look.written_by(model, sender, z - plain[0][:, :, 1])
    with look.replace_heads(model, {sender: z}):
        whole = pairs.logits(model, pairs.other)
    paths = [look.add_on_path(model, r, delta) for r in ("h.0.ln_2", "h.1.ln_1", "h.1.ln_2", "ln_f")]
    with paths[0], paths[1], paths[2], paths[3]:
        assert torch.allclose(pairs.logits(model, pairs.other), whole, atol=1e-5)


def test_queries_keys_and_values_together_are_the_attention(model, pairs):
    delta = torch.randn(B, T, C, generator=torch.Generator().manual_seed(5))
    with look.add_on_path(model, "h.1.ln_1", delta):
        whole = pairs.logits(model, pairs.told)
    with (
        look.add_on_path(model, "h.1.ln_1:q", delta),
        look.add_on_path(model, "h.1.ln_1:k", delta),
        look.add_on_path(model, "h.1.ln_1:v", delta),
    ):
        assert torch.allclose(pairs.logits(model, pairs.told), whole, atol=1e-5)
    with look.add_on_path(model, "h.1.ln_1:k", delta):
        assert not torch.allclose(pairs.logits(model, pairs.told), whole, atol=1e-3)


def test_keys_alone_leave_values_alone(model, pairs):
    """A change that only keys read moves the weights of that block's attention, not what the values hold."""
    delta = torch.randn(B, T, C, generator=torch.Generator().manual_seed(6))
    with record_attention(model) as plain:
        model(pairs.told)
    with record_attention(model) as moved, look.add_on_path(model, "h.1.ln_1:v", delta):
        model(pairs.told)
    assert torch.allclose(plain["h.1.attn"], moved["h.1.attn"])
    with record_attention(model) as moved, look.add_on_path(model, "h.1.ln_1:k", delta):
        model(pairs.told)
    assert not torch.allclose(plain["h.1.attn"], moved["h.1.attn"])


def test_patch_heads_and_paths_agree_with_single_patches(model, pairs):
    table = look.patch_heads(model, pairs)
    assert table.shape == (2, H)
    shares = look.patch_paths(model, pairs, (1, 0), ["h.1.ln_2", "ln_f"])
    delta_only = shares["ln_f"]
    assert np.isfinite(delta_only)
    assert set(shares) == {"h.1.ln_2", "ln_f"}
    assert look.recovery(pairs, pairs.logits(model, pairs.told), pairs.logits(model, pairs.told),
                         pairs.logits(model, pairs.other)) == pytest.approx(1.0)  # fmt: skip


def test_pairs_differ_in_one_token():
    a = torch.zeros(1, 4, dtype=torch.long)
    one = torch.zeros(1, dtype=torch.long)
    with pytest.raises(ValueError, match="exactly one token"):
        look.Pairs(a, a, one, one, one, one)
    with pytest.raises(ValueError, match="of one shape"):
        look.Pairs(a, a[:, :2], one, one, one, one)
    model = GPT(GPTConfig(4, n_positions=4, n_embd=4, n_layer=1, n_head=1), generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="receiver must be a norm"):
        look.add_on_path(model, "h.0.ln_2:k", torch.zeros(1, 4, 4))


# ------------------------------------------------------------ probes, lenses


def test_linear_probe_is_scikit_learns():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(120, 5, generator=g, dtype=torch.float64)
    y = (x[:, 0] + 0.5 * torch.randn(120, generator=g, dtype=torch.float64) > 0).long() + (x[:, 1] > 1).long()
    ours = look.fit_probe(x, y, 3, C=0.7, steps=300)
    theirs = LogisticRegression(C=0.7, tol=1e-10, max_iter=2000).fit(x.numpy(), y.numpy())
    assert np.allclose(ours.weight.T.numpy(), theirs.coef_, atol=1e-4)
    assert ours.accuracy(x, y) == pytest.approx(theirs.score(x.numpy(), y.numpy()))
    with pytest.raises(ValueError, match=r"classes 0..1, got 0 to 2"):
        look.fit_probe(x, y, 2)


def test_a_deep_probe_reads_what_a_linear_one_cannot():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(400, 2, generator=g)
    y = (x[:, 0] * x[:, 1] > 0).long()  # exclusive or
    assert look.fit_probe(x, y, 2).accuracy(x, y) < 0.7 < 0.9 < look.fit_deep_probe(x, y, 2, 32, g).accuracy(x, y)


def test_control_labels_follow_the_word():
    words = torch.tensor([5, 3, 5, 9, 3, 5])
    labels = look.control_labels(words, 4, np.random.default_rng(0))
    assert labels[0] == labels[2] == labels[5]
    assert labels[1] == labels[4]
    assert int(labels.max()) < 4
    many = look.control_labels(torch.arange(4000), 4, np.random.default_rng(0))
    assert torch.bincount(many).float().std() < 100
    with pytest.raises(ValueError, match="classes must be at least 2"):
        look.control_labels(words, 1, np.random.default_rng(0))


@given(st.integers(0, 10**6), st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_projected_out_leaves_nothing_along_the_directions(seed, count):
    g = torch.Generator().manual_seed(seed)
    x, directions = torch.randn(6, 8, generator=g), torch.randn(count, 8, generator=g)
    directions = torch.cat([directions, directions[:1]])  # dependent ones do no harm
    rest = look.projected_out(x, directions)
    assert (rest @ directions.T).abs().max() < 1e-4
    assert torch.allclose(look.projected_out(rest, directions), rest, atol=1e-5)


def test_tuned_lens_starts_as_the_logit_lens_and_improves(model):
    ids = torch.randint(V, (40, T), generator=torch.Generator().manual_seed(3))
    with look.record_stream(model) as stream:
        final = model(ids).logits.flatten(0, 1)
    x = stream[1].flatten(0, 1)
    start = look.divergence(final, look.read_out(model, x)).mean()
    zero = look.Translator(torch.zeros(C, C), torch.zeros(C))
    assert torch.equal(look.read_out(model, zero(x)), look.read_out(model, x))
    lens = look.fit_translator(model, x, final, steps=150)
    assert look.divergence(final, look.read_out(model, lens(x))).mean() < 0.6 * start
    with pytest.raises(ValueError, match="x must be"):
        look.fit_translator(model, x, final[:-1])


def test_divergence_is_kullback_leibler():
    p, q = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.9, 0.1]).log()
    assert float(look.divergence(p, q)) == pytest.approx(0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1))


# ------------------------------------------------------------ induction


def test_periodic_rows_repeat_and_say_where():
    ids, period = look.periodic_rows(np.random.default_rng(0), 30, 20, 12, (3, 9))
    assert period.min() >= 3
    assert period.max() <= 9
    assert len(set(period.tolist())) > 3
    for row, p in zip(ids, period.tolist(), strict=True):
        assert torch.equal(row[p:], row[:-p])
        assert len(set(row[:p].tolist())) == p
    assert look.repeated(torch.tensor([3]), 6).tolist() == [[False, False, False, False, True, True]]
    with pytest.raises(ValueError, match=r"periods must lie in 2..vocab_size = 12"):
        look.periodic_rows(np.random.default_rng(0), 1, 5, 12, (3, 13))


def test_scores_of_perfect_heads():
    period, length = torch.tensor([4, 5]), 12
    t = torch.arange(length)
    perfect = torch.zeros(2, 2, length, length)
    for b, p in enumerate(period.tolist()):
        perfect[b, 0, t, (t - p + 1).clamp(min=0)] = 1.0
        perfect[b, 1, t, (t - 1).clamp(min=0)] = 1.0
    assert look.induction_scores({0: perfect}, period).tolist() == [[1.0, 0.0]]
    assert look.previous_scores({0: perfect}, period).tolist() == [[0.0, 1.0]]


def test_copy_losses_part_the_copies():
    ids, period = look.periodic_rows(np.random.default_rng(1), 4, 14, 8, (4, 6))
    logits = torch.zeros(4, 14, 8)
    for b, p in enumerate(period.tolist()):
        for t in range(p, 13):
            logits[b, t, ids[b, t + 1]] = 50.0  # a copier that knows from the second copy on
    first, again = look.copy_losses(logits, ids, period)
    assert first == pytest.approx(np.log(8))
    assert again == pytest.approx(0, abs=1e-6)


# ------------------------------------------------------------ dictionaries


def test_squeezed_without_relu_spans_what_pca_does():
    """Correlated features, no ReLU: the toy model is a linear autoencoder, and finds the principal plane."""
    g = torch.Generator().manual_seed(0)
    W, _ = look.train_squeezed(torch.ones(1), torch.tensor([3.0, 2.0, 0.2, 0.1]), 2, g, steps=600, linear=True)
    kept = W[0].norm(dim=-1)
    assert kept[:2].min() > 0.9
    assert kept[2:].max() < 0.35
    x = look.sparse_features((4000, 4), 1.0, g) * torch.tensor([3.0, 2.0, 0.2, 0.1])
    plane = torch.linalg.qr(W[0]).Q
    share = np.linalg.norm(PCA(2).fit(x.numpy()).components_ @ plane.numpy())
    assert share == pytest.approx(np.sqrt(2), abs=0.05)


def test_rare_features_are_stored_in_superposition():
    densities = torch.tensor([1.0, 0.05])
    g = torch.Generator().manual_seed(0)
    W, b = look.train_squeezed(densities, torch.ones(5), 2, g, steps=700, batch=256)
    few, many = look.represented(W).tolist()
    assert few < 5 == many
    assert W.shape == (2, 5, 2)
    assert b.shape == (2, 5)
    with pytest.raises(ValueError, match="m must be at least 1"):
        look.train_squeezed(densities, torch.ones(5), 0, g)


@given(st.floats(0.05, 0.95), st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_features_are_there_as_often_as_asked(density, seed):
    x = look.sparse_features((4000,), density, torch.Generator().manual_seed(seed))
    assert abs(float((x > 0).float().mean()) - density) < 0.06
    assert float(x.min()) >= 0
    assert float(x.max()) < 1


def test_autoencoder_finds_planted_directions():
    g = torch.Generator().manual_seed(0)
    planted = look.random_directions(24, 12, g)
    x = look.sparse_features((3000, 24), 0.08, g) @ planted
    sae = look.train_autoencoder(x, 24, 3, g, steps=800, batch=256, lr=1e-2)
    found = (sae.decoder @ planted.T).max(0).values  # for each planted one the nearest learnt one
    rival = (look.random_directions(24, 12, g) @ planted.T).max(0).values
    assert found.median() > 0.95 > 0.8 > rival.median()
    assert sae.unexplained(x) < 0.15
    f = sae.encode(x[:50])
    assert int((f > 0).sum(-1).max()) <= 3
    assert float(f.min()) >= 0
    assert torch.allclose(sae.decoder.norm(dim=-1), torch.ones(24), atol=1e-5)
    with pytest.raises(ValueError, match=r"k must lie in 1..24, got 25"):
        look.SparseAutoencoder(sae.center, planted, 25)


def test_principal_directions_are_scikit_learns():
    x = torch.randn(80, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([5.0, 3.0, 2.0, 1.0, 0.5])
    ours, theirs = look.principal_directions(x), PCA(5).fit(x.numpy()).components_
    assert ours.shape == (10, 5)
    assert np.allclose(np.abs((ours[:5].numpy() * theirs).sum(1)), 1, atol=1e-4)
    assert torch.equal(ours[5:], -ours[:5])


@given(st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_best_f1_is_the_best_of_all_thresholds(seed):
    g = torch.Generator().manual_seed(seed)
    a = torch.randint(0, 5, (30, 3), generator=g).float()
    y = torch.rand(30, 2, generator=g) < 0.4
    y[0] = True
    scores, at = look.best_f1(a, y)
    for unit in range(3):
        for k in range(2):
            tried = {c: f1_score(y[:, k], a[:, unit] >= c) for c in a[:, unit].unique().tolist() if c > 0}
            best = max(tried.values(), default=0.0)
            assert float(scores[unit, k]) == pytest.approx(best)
            if best:
                assert tried[float(at[unit, k])] == pytest.approx(best)


def test_best_units_are_judged_on_other_states():
    g = torch.Generator().manual_seed(0)
    y = (torch.rand(200, 1, generator=g) < 0.3).float()
    a = torch.cat([torch.rand(200, 1, generator=g), y + 0.1 * torch.rand(200, 1, generator=g)], 1)
    on = torch.arange(200) < 100
    unit, f1 = look.best_units(a, y, on)
    assert unit.tolist() == [1]
    assert float(f1[0]) == pytest.approx(1.0)
    noise = torch.rand(200, 400, generator=g)
    chosen = look.best_f1(noise[on], y[on])[0].max()
    assert float(look.best_units(noise, y, on)[1][0]) < float(chosen)  # the search itself flatters
    with pytest.raises(ValueError, match="each true of some state"):
        look.best_f1(a, torch.zeros(200, 1))
