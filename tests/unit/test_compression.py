"""What all compression rests on: layers and their inputs, the column loop against its closed forms, bits of text."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from llmbook.compression import calibration, quality, reconstruction, structure
from llmbook.transformer import GPT, GPTConfig


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tiny(**changes):
    config = {"n_positions": 16, "n_embd": 8, "n_layer": 2, "n_head": 2, "positions": "rotary"} | changes
    return GPT(GPTConfig(11, **config), generator=torch.Generator().manual_seed(0)).eval()


# ------------------------------------------------------------ layers and their inputs


def test_block_linears_leave_out_the_head():
    names = set(calibration.block_linears(tiny()))
    parts = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert names == {f"h.{i}.{part}" for i in (0, 1) for part in parts}


def test_a_model_without_blocks_is_named():
    with pytest.raises(ValueError, match="model must hold linear layers within blocks, got a Linear"):
        calibration.block_linears(nn.Linear(2, 2))


def test_statistics_are_those_of_what_the_layer_was_fed():
    model, seen = tiny(), []
    layer = model.h[1].mlp.c_fc
    batches = [torch.randint(11, (2, 5)), torch.randint(11, (3, 7))]
    found = calibration.input_statistics(model, batches, ["h.1.mlp.c_fc"])["h.1.mlp.c_fc"]
    handle = layer.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0].flatten(0, 1)))
    with torch.no_grad():
        for ids in batches:
            model(ids)
    handle.remove()
    x = torch.cat(seen)
    assert found.count == len(x) == 31
    torch.testing.assert_close(found.gram, x.T @ x / len(x))
    torch.testing.assert_close(found.largest, x.abs().amax(0))
    torch.testing.assert_close(found.rms, x.square().mean(0).sqrt())


def test_statistics_leave_no_hooks_and_the_mode_as_it_was():
    model = tiny().train()
    calibration.input_statistics(model, [torch.zeros(1, 3, dtype=torch.long)])
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("name", ["h.0", "h.9.mlp.c_fc", "wte"])
def test_a_name_that_is_no_linear_layer(name):
    with pytest.raises(ValueError, match=f"names must be linear layers of the model, got '{name}'"):
        calibration.input_statistics(tiny(), [torch.zeros(1, 3, dtype=torch.long)], [name])


def test_no_calibration_text():
    with pytest.raises(ValueError, match="batches must hold at least one batch"):
        calibration.input_statistics(tiny(), [])


@pytest.mark.parametrize("kind", [{}, {"positions": "learned"}, {"positions": "alibi"}], ids=str)
def test_block_by_block_is_all_at_once_if_nothing_is_changed(kind):
    model = tiny(**kind)
    batches = [torch.randint(11, (2, 5)), torch.randint(11, (3, 7))]
    together = calibration.input_statistics(model, batches)
    found = {}
    for some in calibration.by_block(model, batches):
        assert len({name.split(".")[1] for name in some}) == 1
        found |= some
    assert found.keys() == together.keys()
    for name in found:
        torch.testing.assert_close(found[name].gram, together[name].gram)
        assert found[name].count == 31


def test_the_next_block_sees_what_was_done_to_the_one_before():
    model, batches = tiny(), [torch.randint(11, (2, 5))]
    blocks = calibration.by_block(model, batches)
    next(blocks)
    with torch.no_grad():
        model.h[0].mlp.c_proj.weight.zero_()
    found = next(blocks)
    wanted = calibration.input_statistics(model, batches, ["h.1.attn.c_attn"])
    torch.testing.assert_close(found["h.1.attn.c_attn"].gram, wanted["h.1.attn.c_attn"].gram)


def test_block_by_block_passes_each_block_twice_and_leaves_the_model_as_it_was():
    model, calls = tiny().train(), []
    for number, block in enumerate(model.h):
        block.register_forward_hook(lambda *_, number=number: calls.append(number))
    assert len(list(calibration.by_block(model, [torch.zeros(1, 3, dtype=torch.long)]))) == 2
    assert calls == [0, 0, 1, 1]
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_block_by_block_without_text():
    with pytest.raises(ValueError, match="batches must hold at least one batch"):
        next(calibration.by_block(tiny(), []))


# ------------------------------------------------------------ the column loop


def gram_of(size, seed=1):
    x = draw(4 * size, size, seed=seed) @ draw(size, size, seed=seed + 1)  # correlated features
    return x.T @ x / len(x)


def test_layer_error_is_the_outputs_mean_squared_change():
    x, change = draw(50, 6), draw(4, 6, seed=1)
    wanted = (x @ change.T).square().sum(1).mean()
    assert reconstruction.layer_error(change, x.T @ x / 50) == pytest.approx(wanted.item(), rel=1e-5)


def test_the_factor_is_one_of_the_damped_inverse():
    gram = gram_of(7)
    u = reconstruction.inverse_factor(gram, 0.1)
    damped = gram.double() + 0.1 * gram.diagonal().mean() * torch.eye(7)
    torch.testing.assert_close(u.T @ u, damped.inverse(), rtol=1e-6, atol=1e-8)
    assert torch.equal(u, u.triu())


def zero(columns):
    return lambda block, curvatures: lambda j, column: column * (j not in columns)


@pytest.mark.parametrize("dropped", range(6))
def test_dropping_one_column_is_the_best_that_least_squares_can_do_with_those_after_it(dropped):
    w, gram = draw(3, 6), gram_of(6)
    got = reconstruction.reconstruct(w, gram, zero({dropped}), damping=0.0)
    free = slice(dropped + 1, None)  # min tr(ΔW H ΔWᵀ): ΔW_free = w_dropped H_dropped,free H_free,free⁻¹
    wanted = w.clone()
    wanted[:, dropped] = 0
    wanted[:, free] += w[:, [dropped]] @ gram[[dropped], free] @ gram[free, free].inverse()
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)


def test_the_curvature_is_what_dropping_the_column_costs():
    w, gram, seen = draw(1, 6), gram_of(6), []

    def begin(block, curvatures):
        seen.append(curvatures)
        return zero({2})(block, curvatures)

    got = reconstruction.reconstruct(w, gram, begin, damping=0.0)
    cost = reconstruction.layer_error(got - w, gram)
    assert cost == pytest.approx((w[0, 2] ** 2 * seen[0][2]).item(), rel=1e-3)


@settings(deadline=None)
@given(block_size=st.integers(1, 9), seed=st.integers(0, 50))
def test_blocks_only_postpone_work(block_size, seed):
    w, gram = draw(3, 8, seed=seed), gram_of(8, seed)

    def begin(block, curvatures):
        return lambda j, column: column.round()

    whole = reconstruction.reconstruct(w, gram, begin, block_size=8)
    parts = reconstruction.reconstruct(w, gram, begin, block_size=block_size)
    near_a_tie = (whole - parts).abs().max() > 0.5  # rounded the other way somewhere
    assert near_a_tie or torch.allclose(whole, parts, atol=1e-4)


def test_rounding_with_compensation_errs_less_than_rounding():
    better = 0
    for seed in range(20):
        w, gram = draw(8, 16, seed=seed), gram_of(16, seed)
        plain = reconstruction.layer_error(w.round() - w, gram)
        made_good = reconstruction.reconstruct(w, gram, lambda *_: lambda j, column: column.round(), block_size=4)
        better += reconstruction.layer_error(made_good - w, gram) < 0.7 * plain
    assert better == 20


def test_a_rule_that_keeps_changes_nothing():
    w = draw(3, 5)
    assert torch.equal(reconstruction.reconstruct(w, gram_of(5), lambda *_: lambda j, column: column), w)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gram": torch.eye(4)}, r"gram must be \(in, in\) for weight \(2, 3\), got \(4, 4\)"),
        ({"block_size": 0}, "block_size must be at least 1, got 0"),
        ({"damping": -1.0}, "damping must not be negative, got -1"),
        ({"gram": torch.zeros(3, 3)}, "gram must be positive definite"),
        ({"gram": torch.zeros(3, 2)}, r"gram must be square \(in, in\), got shape \(3, 2\)"),
        ({"gram": torch.full((3, 3), math.nan)}, "gram must be positive definite"),
    ],
)
def test_what_reconstruct_refuses(change, message):
    arguments = {"weight": draw(2, 3), "gram": torch.eye(3), "begin": zero({0})} | change
    with pytest.raises(ValueError, match=message):
        reconstruction.reconstruct(**arguments)


# ------------------------------------------------------------ bits of text


class Letters:
    """A tokeniser whose tokens are pairs of letters."""

    class Code:
        def __init__(self, text):
            pairs = [text[i : i + 2] for i in range(0, len(text), 2)]
            self.ids = [1 + ord(pair[0]) % 10 for pair in pairs]
            self.offsets = [(2 * i, min(2 * i + 2, len(text))) for i in range(len(pairs))]

    def encode(self, text):
        return self.Code(text)

    def token_to_id(self, token):
        return {"<|endoftext|>": 0}[token]


def test_a_uniform_model_needs_the_logarithm_of_its_vocabulary():
    model = tiny()
    with torch.no_grad():
        model.wte.weight.zero_()  # all logits 0
    found = quality.text_bits(model, Letters(), ["abcd", "abcdefg"])
    np.testing.assert_allclose(found.bits, math.log2(11) * np.array([2, 4]), rtol=1e-5)
    np.testing.assert_array_equal(found.characters, [4, 7])
    assert found.rate == pytest.approx(math.log2(11) * 6 / 11)


def test_a_long_text_is_cut_and_so_are_its_characters():
    found = quality.text_bits(tiny(), Letters(), ["abcdefgh"], longest=3)
    np.testing.assert_array_equal(found.characters, [6])


def test_the_error_of_a_difference_is_the_jackknifes():
    rng = np.random.default_rng(0)
    characters = rng.integers(50, 500, 40).astype(float)
    base = quality.TextBits(characters * rng.normal(1.0, 0.1, 40), characters)
    worse = quality.TextBits(base.bits + characters * rng.normal(0.1, 0.02, 40), characters)
    found = worse.above(base)
    assert found.mean == pytest.approx(worse.rate - base.rate)
    left_out = [np.delete(worse.bits - base.bits, i).sum() / np.delete(characters, i).sum() for i in range(40)]
    jackknife = math.sqrt(39 / 40 * ((left_out - np.mean(left_out)) ** 2).sum())
    assert found.se == pytest.approx(jackknife, rel=0.1)


def test_what_quality_refuses():
    one = quality.TextBits(np.array([1.0]), np.array([2.0]))
    with pytest.raises(ValueError, match="other must have scored the same documents"):
        one.above(quality.TextBits(np.array([1.0]), np.array([3.0])))
    with pytest.raises(ValueError, match="at least 2 documents, got 1"):
        one.above(one)
    with pytest.raises(ValueError, match="texts must hold at least one text"):
        quality.text_bits(tiny(), Letters(), ["ab", ""])


# ------------------------------------------------------------ parts taken out


LLAMA = {"n_embd": 16, "n_head": 4, "n_kv_head": 2, "norm": "rmsnorm", "mlp": "swiglu", "bias": False}
IDS = torch.tensor([[1, 5, 2, 9, 0, 3]])


@pytest.mark.parametrize("kind", [{}, LLAMA], ids=["gpt", "llama"])
def test_what_is_taken_out_might_as_well_have_been_zero(kind):
    zeroed, smaller = tiny(**kind), tiny(**kind)
    heads, d = zeroed.h[0].attn.kv_heads, zeroed.h[0].attn.head_size
    served = zeroed.config.n_head // heads
    with torch.no_grad():
        zeroed.h[0].attn.c_proj.weight[:, : served * d] = 0  # the first head, with all queries that share its keys
        zeroed.h[1].mlp.c_proj.weight[:, ::2] = 0
    structure.remove_heads(smaller.h[0].attn, range(1, heads))
    structure.remove_neurons(smaller.h[1].mlp, range(1, smaller.config.inner, 2))
    with torch.no_grad():
        torch.testing.assert_close(smaller(IDS).logits, zeroed(IDS).logits)
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in zeroed.parameters())


def test_a_layer_taken_out_is_skipped():
    model, one = tiny(), tiny(n_layer=1)
    structure.remove_layers(model, [1])
    one.load_state_dict(model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(model(IDS).logits, one(IDS).logits)


@pytest.mark.parametrize("kind", [{}, LLAMA], ids=["gpt", "llama"])
def test_a_smaller_model_is_loaded_into_a_fresh_one(kind):
    smaller, fresh = tiny(**kind), tiny(**kind, n_layer=3)
    structure.remove_heads(smaller.h[1].attn, [1])
    structure.remove_neurons(smaller.h[0].mlp, [3, 1, 4, 1, 5])
    structure.restructure(fresh, structure.structure(smaller))
    fresh.load_state_dict(smaller.state_dict())
    with torch.no_grad():
        assert torch.equal(fresh(IDS).logits, smaller(IDS).logits)


def test_a_smaller_model_still_trains_and_remembers():
    model = tiny()
    structure.remove_heads(model.h[0].attn, [0])
    model(IDS, labels=IDS).loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    with torch.no_grad():
        past = model(IDS[:, :4], use_cache=True).past_key_values
        after = model(IDS[:, 4:], past_key_values=past).logits
        torch.testing.assert_close(after, model(IDS).logits[:, 4:])


@pytest.mark.parametrize("keep", [[], [-1], [0, 2]])
def test_heads_that_are_none(keep):
    with pytest.raises(ValueError, match=r"keep must hold some of the 2 heads 0\.\.1, got"):
        structure.remove_heads(tiny().h[0].attn, keep)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"heads": [1]}, "a list of whole numbers 'neurons', got None"),
        ({"heads": [1], "neurons": ["4"]}, "a list of whole numbers 'neurons'"),
        ({"heads": [1, 1], "neurons": [4]}, "one entry for each layer, got 2 heads and 1 neurons"),
        ({"heads": [1, 1], "neurons": [4, 99]}, r"some of the 32 neurons 0\.\.31"),
        ([], "a list of whole numbers 'heads', got None"),
    ],
)
def test_sizes_that_are_none(sizes, message):
    with pytest.raises(ValueError, match=message):
        structure.restructure(tiny(), sizes)
