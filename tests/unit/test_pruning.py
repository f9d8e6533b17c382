"""Pruning against torch.nn.utils.prune, closed forms and least squares; and its properties."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

from llmbook.compression import pruning, structure
from llmbook.compression.calibration import block_linears, input_statistics
from llmbook.compression.reconstruction import layer_error, reconstruct
from llmbook.training import TrainingArguments, fit
from llmbook.transformer import GPT, GPTConfig


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tiny(**changes):
    config = {"n_positions": 16, "n_embd": 8, "n_layer": 2, "n_head": 2, "positions": "rotary"} | changes
    return GPT(GPTConfig(11, **config), generator=torch.Generator().manual_seed(0)).eval()


LLAMA = {"n_embd": 16, "n_head": 4, "n_kv_head": 2, "norm": "rmsnorm", "mlp": "swiglu", "bias": False, "n_inner": 32}
IDS = torch.tensor([[1, 5, 2, 9, 0, 3], [4, 4, 1, 10, 7, 2]])


def gram_of(size, seed=1):
    x = draw(6 * size, size, seed=seed) @ draw(size, size, seed=seed + 1)  # correlated features
    return x.T @ x / len(x)


# ------------------------------------------------------------ masks


@settings(deadline=None)
@given(sparsity=st.floats(0, 1), seed=st.integers(0, 50))
def test_the_layers_mask_is_torchs(sparsity, seed):
    layer = nn.Linear(7, 5)
    layer.weight.data = draw(5, 7, seed=seed)
    ours = pruning.mask_of(pruning.magnitude(layer.weight), sparsity)
    prune.l1_unstructured(layer, "weight", amount=sparsity)
    assert torch.equal(ours, layer.weight_mask.bool())


@settings(deadline=None)
@given(sparsity=st.floats(0, 1), seed=st.integers(0, 50))
def test_the_models_masks_are_torchs(sparsity, seed):
    layers = {"a": nn.Linear(7, 5), "b": nn.Linear(5, 9), "c": nn.Linear(3, 2)}
    for i, layer in enumerate(layers.values()):
        layer.weight.data = draw(*layer.weight.shape, seed=seed + i)
    scores = {name: pruning.gradient(layer.weight, layer.weight**2 + 0.1) for name, layer in layers.items()}
    ours = pruning.global_masks(scores, sparsity)
    chosen = [(layer, "weight") for layer in layers.values()]
    importance = {(layer, "weight"): scores[name] for name, layer in layers.items()}
    prune.global_unstructured(chosen, prune.L1Unstructured, importance_scores=importance, amount=sparsity)
    assert all(torch.equal(ours[name], layer.weight_mask.bool()) for name, layer in layers.items())
    assert pruning.sparsity_of(ours) == pytest.approx(round(sparsity * 86) / 86)


@settings(deadline=None)
@given(sparsity=st.floats(0, 1), seed=st.integers(0, 50), levels=st.integers(1, 4))
def test_a_mask_keeps_as_many_as_it_should_whatever_is_tied(sparsity, seed, levels):
    scores = draw(4, 10, seed=seed).mul(levels).round()
    rows, layer = pruning.mask_of(scores, sparsity, per="row"), pruning.mask_of(scores, sparsity)
    assert set(rows.sum(1).tolist()) == {10 - round(10 * sparsity)}
    assert layer.sum() == 40 - round(40 * sparsity)
    assert all(scores[i][~rows[i]].max() <= scores[i][rows[i]].min() for i in range(4) if 0 < rows[i].sum() < 10)
    assert not 0 < layer.sum() < 40 or scores[~layer].max() <= scores[layer].min()


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 2), (4, 8), (4, 4)])
def test_n_of_m_keeps_the_best_of_each_group(n, m):
    scores = draw(3, 16).abs()
    mask = pruning.n_m_mask(scores, n, m)
    for values, kept in zip(scores.view(-1, m), mask.view(-1, m), strict=True):
        assert kept.sum() == n
        assert kept.all() or values[kept].min() > values[~kept].max()


def test_zeros_are_put_and_stay_through_training():
    model = tiny()
    masks = {
        name: pruning.mask_of(pruning.magnitude(layer.weight), 0.5) for name, layer in block_linears(model).items()
    }
    before = {name: layer.weight.detach().clone() for name, layer in block_linears(model).items()}
    args = TrainingArguments(max_steps=3, batch_size=2, block_size=6, learning_rate=0.1)
    back = pruning.keep_zeros(model, masks)
    assert all(torch.equal(layer.weight, before[name] * masks[name]) for name, layer in block_linears(model).items())
    fit(model, lambda step: {"input_ids": IDS, "labels": IDS}, args, callback=back, progress=False)
    for name, layer in block_linears(model).items():
        assert not layer.weight[~masks[name]].any()
        assert (layer.weight != before[name])[masks[name]].all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pruning.mask_of(draw(2, 2), 1.5), "sparsity must lie between 0 and 1, got 1.5"),
        (lambda: pruning.mask_of(draw(2, 2), 0.5, per="head"), "per must be 'layer' or 'row', got 'head'"),
        (lambda: pruning.mask_of(draw(2, 2) / 0 * 0, 0.5), "scores must not hold NaN, got 4"),
        (lambda: pruning.global_masks({}, 0.5), "scores must hold at least one layer"),
        (lambda: pruning.n_m_mask(draw(2, 6)), "groups of m=4, got 6"),
        (lambda: pruning.n_m_mask(draw(2, 8), 5, 4), "n must lie between 1 and m, got n=5, m=4"),
        (lambda: pruning.prune_model(tiny(), {"h.9.mlp.c_fc": IDS}), "named after layers of the model, got 'h.9"),
        (lambda: pruning.prune_model(tiny(), {"h.0.mlp.c_fc": IDS}), r"c_fc'\] must have shape \(32, 8\), got"),
        (lambda: pruning.gradient(draw(2, 2), draw(2)), r"grad must have shape \(2, 2\), got \(2,\)"),
        (lambda: pruning.wanda(draw(2, 3), draw(2)), r"rms must have shape \(3,\), got \(2,\)"),
        (lambda: pruning.gradients(tiny(), []), "batches must hold at least one batch"),
        (lambda: pruning.block_influence(tiny(), []), "batches must hold at least one batch"),
        (lambda: pruning.sparsegpt(draw(2, 4), torch.eye(4)), "give either sparsity, or n and m: got sparsity=None"),
        (lambda: pruning.sparsegpt(draw(2, 4), torch.eye(4), 0.5, n=2, m=4), "give either sparsity, or n and m"),
        (lambda: pruning.sparsegpt(draw(2, 6), torch.eye(6), n=2, m=4), "groups of m=4, got 6"),
        (lambda: pruning.sparsegpt(draw(2, 6), torch.eye(6), -1), "sparsity must lie between 0 and 1, got -1"),
        (lambda: pruning.prune_blocks(tiny(), "luck", 0.5), "method must be one of .*, got 'luck'"),
        (lambda: pruning.prune_blocks(tiny(), "wanda", 0.5), "method 'wanda' needs either batches .* or statistics"),
        (lambda: pruning.neuron_scores(tiny().h[0].mlp, torch.eye(3)), r"gram must have shape \(32, 32\), got"),
        (lambda: pruning.head_scores(tiny().h[0].attn, torch.eye(3)), r"gram must have shape \(8, 8\), got \(3, 3\)"),
    ],
)  # fmt: skip
def test_what_pruning_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ------------------------------------------------------------ scores


def test_wanda_is_the_exact_cost_of_one_weight():
    w, gram = draw(3, 5), gram_of(5)
    scores = pruning.wanda(w, gram.diagonal().sqrt())
    for i, j in ((0, 0), (1, 4), (2, 2)):
        change = torch.zeros_like(w)
        change[i, j] = -w[i, j]
        assert layer_error(change, gram) == pytest.approx(scores[i, j].item() ** 2, rel=1e-5)


def test_the_gradients_score_is_the_first_order_change_of_the_loss():
    model, batch = tiny().double(), {"input_ids": IDS, "labels": IDS}  # the change is a millionth of the loss
    found = pruning.gradients(model, [batch])["h.1.mlp.c_fc"]
    torch.testing.assert_close(found.mean.abs(), found.rms)  # of one batch
    weight = model.h[1].mlp.c_fc.weight
    scores = pruning.gradient(weight, found.mean)
    with torch.no_grad():
        i, j = divmod(int(scores.argmax()), 8)
        before, value = model(**batch).loss, weight[i, j].clone()
        weight[i, j] = 0.99 * value  # a hundredth of the way to zero
        moved = (model(**batch).loss - before).abs().item()
    assert moved == pytest.approx(0.01 * scores[i, j].item(), rel=0.05)


def test_gradients_are_means_over_batches():
    model = tiny()
    batches = [{"input_ids": ids[None], "labels": ids[None]} for ids in IDS]
    alone = [pruning.gradients(model, [batch])["h.0.attn.c_proj"].mean for batch in batches]
    both = pruning.gradients(model, batches)["h.0.attn.c_proj"]
    torch.testing.assert_close(both.mean, sum(alone) / 2)
    torch.testing.assert_close(both.rms, ((alone[0] ** 2 + alone[1] ** 2) / 2).sqrt())
    assert model.h[0].attn.c_proj.weight.grad is None


@pytest.mark.parametrize("kind", [{}, LLAMA], ids=["gpt", "llama"])
def test_a_parts_score_is_what_the_stream_loses_with_it(kind):
    model, fed = tiny(**kind), {}
    names = ["h.0.attn.c_proj", "h.0.mlp.c_proj"]
    layers = [model.get_submodule(name) for name in names]
    handles = [
        each.register_forward_pre_hook(lambda m, x, n=n: fed.update({n: x[0]}))
        for n, each in zip(names, layers, strict=True)
    ]
    model(IDS)
    grams = {name: seen.gram for name, seen in input_statistics(model, [IDS], names).items()}
    attention, mlp = model.h[0].attn, model.h[0].mlp
    neurons, heads = pruning.neuron_scores(mlp, grams[names[1]]), pruning.head_scores(attention, grams[names[0]])
    added = fed[names[1]][..., 3:4] * mlp.c_proj.weight[:, 3]
    assert neurons[3] == pytest.approx(added.square().sum(-1).mean().sqrt().item(), rel=1e-4)
    size = attention.c_proj.in_features // attention.kv_heads
    added = fed[names[0]][..., size : 2 * size] @ attention.c_proj.weight[:, size : 2 * size].T
    assert heads[1] == pytest.approx(added.square().sum(-1).mean().sqrt().item(), rel=1e-4)
    assert pruning.neuron_scores(mlp).shape == neurons.shape
    assert pruning.head_scores(attention).shape == heads.shape == (attention.kv_heads,)
    for handle in handles:
        handle.remove()


def test_a_neuron_that_reads_or_writes_nothing_scores_zero():
    for kind, read in (({}, "c_fc"), (LLAMA, "c_fc")):
        mlp = tiny(**kind).h[0].mlp
        with torch.no_grad():
            mlp.c_proj.weight[:, 1] = 0
            if read == "c_fc" and not hasattr(mlp, "c_gate"):
                mlp.c_fc.weight[2] = 0
        scores = pruning.neuron_scores(mlp)
        assert scores[1] == 0
        assert hasattr(mlp, "c_gate") or scores[2] == 0


def test_a_block_that_does_nothing_has_no_influence():
    model = tiny()
    with torch.no_grad():
        for layer in (model.h[1].attn.c_proj, model.h[1].mlp.c_proj):
            layer.weight.zero_()
            layer.bias.zero_()
    first, second = pruning.block_influence(model, [IDS, IDS[:, :3]])
    assert first > 1e-3
    assert second == pytest.approx(0, abs=1e-6)
    assert not any(module._forward_hooks for module in model.modules())


# ------------------------------------------------------------ making good


def surgeon(w, gram, count):
    """Optimal Brain Surgeon on one row: the cheapest weight goes, all others move, again and again."""
    w, alive = w.clone().double(), list(range(len(w)))
    for _ in range(count):
        inverse = gram.double()[alive][:, alive].inverse()
        cost = w[alive] ** 2 / inverse.diagonal()
        q = int(cost.argmin())
        w[alive] -= w[alive[q]] / inverse[q, q] * inverse[q]
        w[alive.pop(q)] = 0
    return w


def test_one_weight_of_sparsegpt_is_the_surgeons_if_it_is_in_front():
    w, gram = draw(1, 6), gram_of(6)
    order = [int(surgeon(w[0], gram, 1).abs().argmin())]
    order += [j for j in range(6) if j not in order]  # the one that the surgeon takes goes first
    got = pruning.sparsegpt(w[:, order], gram[order][:, order], 1 / 6, damping=0.0)
    torch.testing.assert_close(got[0].double(), surgeon(w[0], gram, 1)[order], rtol=1e-3, atol=1e-4)


def test_refit_is_least_squares_and_what_the_surgeon_ends_with():
    w, gram = draw(1, 6), gram_of(6)
    wanted = surgeon(w[0], gram, 3)
    keep = wanted != 0
    got = pruning.refit(w, gram, keep, damping=0.0)
    torch.testing.assert_close(got[0].double(), wanted[keep], rtol=1e-3, atol=1e-4)
    kept = keep.nonzero()[:, 0]
    best = torch.linalg.lstsq(gram[kept][:, kept], gram[kept] @ w.T).solution.T
    torch.testing.assert_close(got, best, rtol=1e-3, atol=1e-3)


def test_refit_with_all_kept_changes_nothing_and_damping_holds_it_back():
    w, gram = draw(3, 6), gram_of(6)
    torch.testing.assert_close(pruning.refit(w, gram, torch.ones(6, dtype=torch.bool)), w, rtol=1e-4, atol=1e-5)
    keep = torch.tensor([0, 1, 4])
    held = pruning.refit(w, gram, keep, damping=1e6)
    torch.testing.assert_close(held, w[:, keep], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("way", [{"sparsity": 0.5}, {"n": 2, "m": 4}])
def test_sparsegpt_errs_less_than_wanda_and_wanda_less_than_magnitude(way):
    pattern = {name: way[name] for name in ("n", "m") if name in way}
    errors = []
    for seed in range(10):
        w, gram = draw(16, 32, seed=seed), gram_of(32, seed)
        scale = torch.logspace(-1, 1, 32)[torch.randperm(32, generator=torch.Generator().manual_seed(seed))]
        gram = gram * scale * scale[:, None]  # features of different sizes
        scores = {"magnitude": pruning.magnitude(w), "wanda": pruning.wanda(w, gram.diagonal().sqrt())}
        changed = {
            name: w * (pruning.n_m_mask(s, **pattern) if pattern else pruning.mask_of(s, 0.5, per="row"))
            for name, s in scores.items()
        }
        changed["sparsegpt"] = pruning.sparsegpt(w, gram, **way)
        assert (changed["sparsegpt"] == 0).float().mean() == 0.5
        errors.append([layer_error(new - w, gram) for new in changed.values()])
    first, second, third = torch.tensor(errors).T
    assert (second < first).all()
    assert (third < second).all()
    assert third.mean() < 0.85 * second.mean()


def test_sparsegpt_leaves_n_of_m():
    got = pruning.sparsegpt(draw(5, 16), gram_of(16), n=2, m=4)
    assert set((got.view(-1, 4) != 0).sum(1).tolist()) == {2}


def test_with_inputs_that_know_nothing_of_each_other_sparsegpt_is_magnitude():
    w = draw(4, 8)
    got = pruning.sparsegpt(w, torch.eye(8), 0.5)
    torch.testing.assert_close(got, w * pruning.mask_of(w.abs(), 0.5))


@pytest.mark.parametrize("kind", [{}, LLAMA], ids=["gpt", "llama"])
@pytest.mark.parametrize("method", pruning.METHODS)
@pytest.mark.parametrize("way", [{"sparsity": 0.5}, {"n": 2, "m": 4}], ids=["half", "2:4"])
def test_a_whole_model(kind, method, way):
    model, dense = tiny(**kind), tiny(**kind)
    seen = input_statistics(model, [IDS] * 4)
    pruning.prune_blocks(model, method, **way, statistics=None if method == "magnitude" else seen)
    for name, layer in block_linears(model).items():
        assert (layer.weight == 0).float().mean() == pytest.approx(0.5, abs=0.01), name
    assert torch.equal(model.wte.weight, dense.wte.weight)
    by_block = tiny(**kind)
    pruning.prune_blocks(by_block, method, **way, batches=[IDS] * 4)
    first = "h.0.attn.c_attn"  # sees the same in both ways; what comes behind sees pruned blocks
    assert torch.equal(by_block.get_submodule(first).weight, model.get_submodule(first).weight)
    last = "h.1.mlp.c_proj"
    same = torch.equal(by_block.get_submodule(last).weight, model.get_submodule(last).weight)
    assert same or method != "magnitude"
    assert not same or method != "sparsegpt"


def test_neurons_taken_out_and_made_good():
    """Half the neurons go; with what is left refitted the layer errs less than without."""
    model = tiny(n_embd=16)
    name, mlp = "h.0.mlp.c_proj", model.h[0].mlp
    ids = torch.randint(11, (20, 12), generator=torch.Generator().manual_seed(3))
    gram = input_statistics(model, [ids], [name])[name].gram
    keep = pruning.mask_of(pruning.neuron_scores(mlp, gram)[None], 0.5)[0]
    whole = mlp.c_proj.weight.detach().clone()
    refitted = pruning.refit(whole, gram, keep)
    structure.remove_neurons(mlp, keep.nonzero()[:, 0].tolist())
    error = {}
    for way, part in (("left", whole[:, keep]), ("refitted", refitted)):
        new = torch.zeros_like(whole)
        new[:, keep] = part
        error[way] = layer_error(new - whole, gram)
    assert mlp.c_proj.weight.shape == refitted.shape
    assert error["refitted"] < 0.8 * error["left"]


def test_each_group_of_m_is_chosen_when_all_before_it_are_settled():
    w, gram, blocks = draw(64, 8), gram_of(8), []

    def first_group_only(block, curvatures):
        blocks.append((block, curvatures))
        mask = pruning.n_m_mask(block.square() * curvatures) if len(blocks) == 1 else torch.ones_like(block).bool()
        return lambda j, column: column * mask[:, j]

    reconstruct(w, gram, first_group_only, block_size=4)
    moved, curvatures = blocks[1]
    wanted = pruning.n_m_mask(moved.square() * curvatures)
    assert not torch.equal(wanted, pruning.n_m_mask(w[:, 4:].square() * curvatures))  # what moved makes a difference
    assert torch.equal(pruning.sparsegpt(w, gram, n=2, m=4)[:, 4:] != 0, wanted)
