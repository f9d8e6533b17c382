"""Few bits: grids against torchao and closed forms, codes in bytes, methods that err less, integer products."""

import logging
import math

import gguf
import numpy as np
import pytest
import scipy.stats
import torch
from gguf import quants
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from llmbook.compression import blocks, calibration, grids, integers, quantization
from llmbook.compression.cache import QuantizedCache
from llmbook.compression.grids import Grid, round_to
from llmbook.compression.reconstruction import layer_error
from llmbook.transformer import GPT, GPTConfig

GRIDS = [Grid(bits, size, symmetric) for bits in (2, 3, 4, 8) for size in (8, "row", "tensor") for symmetric in (0, 1)]
GRIDS += [Grid(bits, size, levels=levels) for levels, bits in grids.BITS.items() for size in (8, "row", "tensor")]
names = {"ids": lambda grid: f"{grid.levels}{grid.bits}-{grid.group_size}{'-symmetric' * bool(grid.symmetric)}"}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def linear(inputs, outputs, seed=0):
    layer = nn.Linear(inputs, outputs)  # its own weights come from torch's global generator
    with torch.no_grad():
        layer.weight.copy_(draw(outputs, inputs, seed=seed + 100) / inputs**0.5)
        layer.bias.copy_(draw(outputs, seed=seed + 200) / inputs**0.5)
    return layer


def tiny(**changes):
    config = {"n_positions": 64, "n_embd": 16, "n_layer": 2, "n_head": 2, "positions": "rotary"} | changes
    return GPT(GPTConfig(11, **config), generator=torch.Generator().manual_seed(0)).eval()


IDS = torch.tensor([[1, 5, 2, 9, 0, 3]])


def fed(size=32, count=400, seed=1):
    """Correlated inputs with a few large features, and their statistics."""
    x = draw(count, size, seed=seed) @ draw(size, size, seed=seed + 1) * (1 + 9 * (torch.arange(size) % 11 == 0))
    return x, calibration.InputStatistics(x.T @ x / count, x.abs().amax(0), count)


# ------------------------------------------------------------ grids


@pytest.mark.parametrize("grid", GRIDS, **names)
def test_each_weight_gets_a_level_next_to_it(grid):
    w = draw(5, 16)
    got = round_to(w, grid)
    codes = torch.arange(grid.most + 1, dtype=torch.uint8)
    if grid.levels == "fp8":
        codes = codes[codes.view(grids.FP8).float().isfinite()]
    elif not grid.affine and grid.levels == "int":
        codes = codes[1:]  # the least code is not used
    every = []
    for code in codes:
        one = grids.Quantized(torch.full_like(got.codes, int(code)), got.scale, got.zero, grid)
        every.append(one.dequantize())
    best = (torch.stack(every) - w).abs().amin(0)
    torch.testing.assert_close((got.dequantize() - w).abs(), best, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
def test_weights_of_one_sign_err_by_half_a_step_at_most(sign):
    w = sign * (draw(4, 16).abs() + 1)
    got = round_to(w, Grid(4, 8))
    assert bool(((got.dequantize() - w).view(4, 2, 8).abs() <= 0.505 * got.scale[..., None]).all())


@pytest.mark.parametrize("grid", GRIDS, **names)
def test_what_lies_on_a_grid_stays(grid):
    once = round_to(draw(4, 24), grid)
    again = grids.encode(once.dequantize(), once.scale, once.zero, grid)
    assert torch.equal(grids.Quantized(again, once.scale, once.zero, grid).dequantize(), once.dequantize())


@pytest.mark.parametrize("grid", GRIDS, **names)
def test_zero_is_on_every_grid(grid):
    w = draw(3, 16) + 2
    w[:, ::5] = 0
    assert bool((round_to(w, grid).dequantize()[:, ::5] == 0).all())
    assert bool((round_to(torch.zeros(3, 16), grid).dequantize() == 0).all())


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("size", [8, "row", "tensor"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_equal_to_torchao_on_the_same_scales(bits, size, symmetric):
    logging.getLogger("torchao").setLevel(logging.ERROR)
    from torchao.quantization import quant_primitives as theirs

    w, grid = draw(6, 24), Grid(bits, size, symmetric)
    got = round_to(w, grid)
    block = {"row": (1, 24), "tensor": (6, 24)}.get(size, (1, size))
    zero = torch.full_like(got.scale, grid.middle).int() if got.zero is None else got.zero.int()
    # theirs multiplies by 1/scale, ours divides: compared on weights that lie off the ties
    bounds = {"quant_min": 1 if symmetric else 0, "quant_max": grid.most}
    codes = theirs.quantize_affine(w, block, got.scale.float(), zero, torch.uint8, **bounds)
    back = theirs.dequantize_affine(codes, block, got.scale.float(), zero, torch.uint8, **bounds)
    assert torch.equal(codes.view(6, 24), got.codes)
    assert torch.equal(back, got.dequantize())


def test_equal_to_torchaos_choice_of_scales():
    from torchao.quantization import quant_primitives as theirs

    w = draw(6, 24)
    scale, zero = theirs.choose_qparams_affine(w, theirs.MappingType.ASYMMETRIC, (1, 8), torch.uint8, 0, 15)
    got = round_to(w, Grid(4, 8))
    torch.testing.assert_close(got.scale.float().flatten(), scale.flatten(), rtol=1e-3, atol=0)  # float16
    assert torch.equal(got.zero.flatten().int(), zero.flatten().int())


def test_nf4_is_quantiles_of_a_normal_distribution_as_in_torchao():
    from torchao.quantization.quantize_.workflows.nf4.nf4_tensor import NF4Tensor

    theirs = NF4Tensor.from_tensor(draw(64), 64, 1).nf4
    torch.testing.assert_close(torch.tensor(grids.NF4), theirs.float(), rtol=0, atol=1e-4)  # rounded
    tail = 0.9677083  # (1/2)(1/32 + 1/30) short of 1, in the paper's appendix
    above, below = (scipy.stats.norm.ppf(np.linspace(tail, 0.5, n)[:-1]) for n in (9, 8))
    levels = np.concatenate([-below, [0], above[::-1]]) / above.max()
    np.testing.assert_allclose(grids.NF4, levels, atol=2e-6)


def test_fp8_is_torchs():
    w = draw(4, 16)
    scale = (w.abs().amax(1, keepdim=True) / 448).half().float()
    got = round_to(w, Grid(8, "row", levels="fp8"))
    assert torch.equal(got.dequantize(), (w / scale).clamp(-448, 448).to(torch.float8_e4m3fn).float() * scale)


def test_the_error_is_a_twelfth_of_the_squared_step():
    w = torch.rand(64, 4096, generator=torch.Generator().manual_seed(0))
    for bits in (3, 5, 8):
        got = round_to(w, Grid(bits, "row"))
        step = got.scale.float().mean().item()
        assert (got.dequantize() - w).square().mean().item() == pytest.approx(step**2 / 12, rel=0.03)


def test_ternary_is_bitnets():
    w = draw(4, 16)
    scale = w.abs().mean().half().float()
    wanted = scale * (w / scale).round().clamp(-1, 1)
    assert torch.equal(round_to(w, Grid(2, "tensor", levels="ternary")).dequantize(), wanted)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bits": 1}, r"bits must be a whole number in 2\.\.8, got 1"),
        ({"bits": 9}, r"bits must be a whole number in 2\.\.8, got 9"),
        ({"bits": 4.0}, r"bits must be a whole number in 2\.\.8, got 4\.0"),
        ({"bits": 8, "levels": "nf4"}, "bits must be 4 for levels='nf4', got 8"),
        ({"levels": "int5"}, "levels must be one of"),
        ({"group_size": 0}, "group_size must be at least 1, or 'row', or 'tensor', got 0"),
        ({"group_size": "column"}, "group_size must be at least 1, or 'row', or 'tensor', got 'column'"),
        ({"group_size": 7}, "group_size must divide a row of 16 weights, got 7"),
        ({"weight": torch.ones(16)}, r"weight must be a finite matrix \(out, in\), got shape \(16,\)"),
        ({"weight": torch.full((2, 16), math.nan)}, "weight must be a finite matrix"),
        ({"weight": torch.full((2, 32), 1e8)}, "weight must have scales that float16 holds"),
    ],
)
def test_what_quantize_weight_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        quantization.quantize_weight(**({"weight": draw(2, 16)} | arguments))


# ------------------------------------------------------------ bytes


@settings(deadline=None)
@given(bits=st.integers(2, 8), count=st.integers(1, 40), seed=st.integers(0, 9))
def test_codes_come_back_from_their_bytes(bits, count, seed):
    grid = Grid(bits)
    codes = torch.randint(2**bits, (3, count), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    packed = grids.pack(codes, grid)
    assert packed.shape == (3, math.ceil(count / 8) * bits)
    assert torch.equal(grids.unpack(packed, count, grid), codes)


@pytest.mark.parametrize("count", [1, 5, 13])
def test_five_ternary_codes_in_a_byte(count):
    grid = Grid(2, levels="ternary")
    codes = torch.randint(3, (2, count), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    packed = grids.pack(codes, grid)
    assert packed.shape == (2, math.ceil(count / 5))
    assert torch.equal(grids.unpack(packed, count, grid), codes)


def test_four_bits_two_to_a_byte_low_half_first():
    packed = grids.pack(torch.tensor([[1, 2, 3, 4, 5, 6, 7, 15]], dtype=torch.uint8), Grid(4))
    assert packed.tolist() == [[0x21, 0x43, 0x65, 0xF7]]


def test_what_packing_refuses():
    with pytest.raises(ValueError, match=r"codes must lie in 0\.\.7, got 8"):
        grids.pack(torch.tensor([8], dtype=torch.uint8), Grid(3))
    with pytest.raises(ValueError, match=r"packed must have 8 bytes for 16 codes, got 7 of torch\.uint8"):
        grids.unpack(torch.zeros(2, 7, dtype=torch.uint8), 16, Grid(4))


@pytest.mark.parametrize("grid", GRIDS, **names)
def test_a_layers_bytes_are_those_counted(grid):
    matrix = round_to(draw(5, 16), grid)
    assert quantization.QuantizedLinear(matrix).nbytes == matrix.nbytes


# ------------------------------------------------------------ layers and models


@pytest.mark.parametrize("grid", GRIDS, **names)
def test_a_layer_computes_with_the_rounded_weights(grid):
    layer, x = linear(16, 5), draw(3, 16)
    got = quantization.quantize_linear(layer, grid)
    assert torch.equal(got.weight, round_to(layer.weight, grid).dequantize())
    torch.testing.assert_close(got(x), nn.functional.linear(x, got.weight, layer.bias))


@pytest.mark.parametrize("grid", [Grid(8, "row", True), Grid(4, 8), Grid(4, "row", levels="nf4")], **names)
@pytest.mark.parametrize("tied", [True, False])
def test_an_embedding_in_few_bits(grid, tied):
    model = tiny(tie_word_embeddings=tied)
    wanted = round_to(model.wte.weight, grid).dequantize()
    quantization.quantize_embedding(model, grid.bits, grid.group_size, symmetric=grid.symmetric, levels=grid.levels)
    assert torch.equal(model.wte(IDS), wanted[IDS])
    assert (model.lm_head.weight.shape, isinstance(model.lm_head, quantization.QuantizedLinear)) == ((11, 16), tied)
    if tied:
        assert model.lm_head.packed is model.wte.packed
        assert torch.equal(model.lm_head.weight, wanted)


def test_a_model_is_quantized_in_place_and_put_back():
    model = tiny()
    float_names = list(calibration.block_linears(model))
    assert quantization.quantize_model(model, 8, "row") == float_names
    quantization.quantize_embedding(model)
    packed = model(IDS).logits
    torch.testing.assert_close(packed, tiny()(IDS).logits, rtol=0, atol=0.02)
    assert list(calibration.block_linears(quantization.dequantize_model(model))) == float_names
    torch.testing.assert_close(model(IDS).logits, packed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bits": 12}, "bits must be a whole number"),
        ({"group_size": 5}, r"group_size must divide the 16 inputs of h\.0\.attn\.c_attn, got 5"),
        ({"group_size": 32}, r"group_size must divide the 16 inputs of h\.0\.attn\.c_attn, got 32"),
        ({"method": "best"}, "method must be one of"),
        ({"method": "gptq", "group_size": 8}, r"needs statistics of every layer's inputs, got none for h\.0"),
        ({"names": ["wte"]}, "names must be linear layers within the model's blocks, got 'wte'"),
    ],
)
def test_what_quantize_model_refuses_leaves_it_as_it_was(arguments, message):
    model = tiny()
    with pytest.raises(ValueError, match=message):
        quantization.quantize_model(model, **arguments)
    assert not any(isinstance(m, quantization.QuantizedLinear) for m in model.modules())


# ------------------------------------------------------------ methods that err less


@pytest.mark.parametrize(
    "grid", [Grid(3, 8), Grid(4, "row", True), Grid(3, "tensor"), Grid(4, 8, levels="nf4")], **names
)
def test_gptq_errs_less_than_rounding_on_the_same_kind_of_grid(grid):
    _, seen = fed()
    w = draw(8, 32)
    got, plain = quantization.gptq(w, seen.gram, grid), round_to(w, grid)
    assert got.nbytes == plain.nbytes
    assert layer_error(got.dequantize() - w, seen.gram) < 0.8 * layer_error(plain.dequantize() - w, seen.gram)


def test_gptq_is_rounding_where_inputs_are_uncorrelated():
    w = draw(8, 32)
    for grid in (Grid(4, 8), Grid(3, "row")):
        got, plain = quantization.gptq(w, torch.eye(32), grid), round_to(w, grid)
        assert all(torch.equal(a, b) for a, b in zip(got[:2], plain[:2], strict=True))


def test_gptq_is_the_best_of_all_neighbours_for_two_columns():
    """With two columns, by enumeration: the second column's code is the best there is, given the first's."""
    gram, grid = torch.tensor([[1.0, 0.9], [0.9, 1.0]]), Grid(3, "row")
    for seed in range(20):
        w = draw(1, 2, seed=seed)
        got = quantization.gptq(w, gram, grid, damping=0.0)
        errors = {}
        for second in range(8):
            codes = torch.tensor([[int(got.codes[0, 0]), second]], dtype=torch.uint8)
            errors[second] = layer_error(got._replace(codes=codes).dequantize() - w, gram)
        assert errors[int(got.codes[0, 1])] == pytest.approx(min(errors.values()), rel=1e-4)


def test_awq_errs_less_where_a_few_inputs_are_large_and_never_more():
    _, seen = fed()
    w = draw(8, 32)
    matrix, t = quantization.awq(w, seen, Grid(3, 8))
    plain = layer_error(round_to(w, Grid(3, 8)).dequantize() - w, seen.gram)
    assert layer_error(matrix.dequantize() / t - w, seen.gram) < 0.9 * plain
    flat = calibration.InputStatistics(torch.eye(32), torch.ones(32), 1)
    assert torch.equal(quantization.awq(w, flat, Grid(3, 8))[1], torch.ones(32))


def test_awq_takes_the_power_that_errs_least_in_the_outputs():
    x, seen = fed()
    for seed in range(5):
        w, errors = draw(8, 32, seed=seed), []
        for step in range(21):
            t = quantization.smoothing(seen.rms, step / 20)
            moved = round_to(w * t, Grid(3, 8)).dequantize() / t - w
            errors.append(float((x @ moved.T).square().mean()))
        matrix, t = quantization.awq(w, seen, Grid(3, 8))
        found = float((x @ (matrix.dequantize() / t - w).T).square().mean())
        assert found == pytest.approx(min(errors), rel=1e-4)
        assert min(errors) < errors[0]


def test_smoothquants_scales():
    """t_j = max|x_j|^α / max|w_j|^(1 − α), up to one factor for all."""
    largest, w = draw(16).abs() + 0.1, draw(5, 16)
    t = quantization.smoothing(largest, 0.8, w)
    ratio = t / (largest**0.8 / w.abs().amax(0) ** 0.2)
    torch.testing.assert_close(ratio / ratio[0], torch.ones(16), rtol=2e-3, atol=0)  # t is in float16


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_methods_on_a_model(method):
    model, ids = tiny(), torch.randint(11, (20, 30), generator=torch.Generator().manual_seed(0))
    seen = calibration.input_statistics(model, [ids])
    found = quantization.quantize_model(model, 4, 8, method=method, statistics=seen)
    assert len(found) == 8
    assert (model.h[0].mlp.c_fc.input_scale is not None) == (method == "awq")
    torch.testing.assert_close(model(ids).logits, tiny()(ids).logits, rtol=0, atol=0.1)


def test_scaled_columns_and_divided_inputs_cancel():
    layer, x = linear(16, 5), draw(3, 16)
    t = quantization.smoothing(torch.arange(1.0, 17), 0.5)
    got = quantization.QuantizedLinear(round_to(layer.weight.detach() * t, Grid(8, "row")), layer.bias, t)
    torch.testing.assert_close(got(x), layer(x), rtol=0, atol=0.02)
    assert t.max() * t.min() == pytest.approx(1, rel=0.01)


# ------------------------------------------------------------ rounding that learns


def test_the_gradient_goes_straight_through():
    w, grid = draw(4, 8).requires_grad_(), Grid(3, 8)
    rounded = quantization.fake_quantize(w, grid)
    torch.testing.assert_close(rounded, round_to(w, grid).dequantize())
    weights = draw(4, 8, seed=5)
    (rounded * weights).sum().backward()
    assert torch.equal(w.grad, weights)


def test_training_with_rounding_keeps_what_it_computed_with():
    model, grid = quantization.prepare_qat(tiny(), Grid(2, 8)), Grid(2, 8)
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = model(IDS, labels=IDS).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    wanted = model(IDS).logits
    quantization.quantize_model(model, grid.bits, grid.group_size)
    torch.testing.assert_close(model(IDS).logits, wanted, rtol=1e-4, atol=1e-5)


def test_qat_refuses_rows_that_dont_divide():
    with pytest.raises(ValueError, match="group_size must divide 16 inputs, got 32"):
        quantization.prepare_qat(tiny(), Grid(4, 32))


# ------------------------------------------------------------ whole numbers


def relative(layer, got, x):
    return ((got(x) - layer(x)).square().mean().sqrt() / layer(x).std()).item()


def test_integer_products_are_exact():
    layer, x = linear(24, 8), draw(2, 5, 24)
    got = integers.Int8Linear(layer)
    codes, scale = integers.quantize_tokens(x.flatten(0, 1))
    wanted = (codes.double() @ got.codes.double().T) * scale.double() * got.scale.double() + layer.bias.double()
    torch.testing.assert_close(got(x), wanted.float().view(2, 5, 8))
    assert relative(layer, got, x) < 0.02


@pytest.mark.parametrize("bias", [True, False])
def test_many_tokens_in_chunks_are_each_token_alone(bias):
    layer, x = nn.Linear(24, 8, bias=bias), draw(2, integers.CHUNK - 7, 24).requires_grad_()
    got = integers.Int8Linear(layer)
    alone = torch.cat([got(row[None]) for row in x.flatten(0, 1)])
    assert torch.equal(got(x).flatten(0, 1), alone)
    assert not got(x).requires_grad
    assert got(x[:, :0]).shape == (2, 0, 8)


def test_int8_codes_are_the_symmetric_grids():
    layer = linear(24, 8)
    got = integers.Int8Linear(layer)
    codes = grids.encode(layer.weight, got.scale[:, None], None, Grid(8, "row", True))
    assert torch.equal(got.codes.int(), codes.int() - 128)


def test_a_static_scale_cuts_off_what_is_beyond():
    layer, x = linear(24, 8), draw(6, 24)
    whole = integers.Int8Linear(layer, input_scale=float(x.abs().max()) / 127)
    assert relative(layer, whole, x) < 0.03
    assert relative(layer, whole, 10 * x) > 0.3
    with pytest.raises(ValueError, match="input_scale must be positive, got 0"):
        integers.Int8Linear(layer, input_scale=0.0)


@pytest.mark.parametrize(("remedy", "most"), [("outliers", 0.03), ("smooth", 0.05), ("rotation", 0.7)])
def test_remedies_for_one_large_feature(remedy, most):
    layer, x = linear(24, 8), draw(50, 24)
    x[:, 3] *= 300
    with torch.no_grad():
        layer.weight[:, 3] *= 0.05
    largest = x.abs().amax(0)
    options = {
        "outliers": [3],
        "smooth": quantization.smoothing(largest, 0.5, layer.weight.detach()),
        "rotation": integers.hadamard(24),
    }
    got = integers.Int8Linear(layer, **{remedy: options[remedy]})
    assert relative(layer, got, x) < most * relative(layer, integers.Int8Linear(layer), x)


@pytest.mark.parametrize(
    "options", [{}, {"static": True}, {"outliers": 1.0}, {"smooth": 0.5, "static": True}, {"rotate": True}]
)
def test_a_model_on_int8(options):
    model, ids = tiny(), torch.randint(11, (20, 30), generator=torch.Generator().manual_seed(0))
    seen = calibration.input_statistics(model, [ids])
    assert len(integers.int8_model(model, seen, **options)) == 8
    torch.testing.assert_close(model(ids).logits, tiny()(ids).logits, rtol=0, atol=0.05)


def test_what_int8_refuses():
    with pytest.raises(ValueError, match=r"need every layer's statistics, got none for h\.0"):
        integers.int8_model(tiny(), smooth=0.5)
    with pytest.raises(ValueError, match="names must be linear layers within the model's blocks, got 'wte'"):
        integers.int8_model(tiny(), names=["wte"])
    with pytest.raises(ValueError, match=r"outliers must be features in 0\.\.23, got 24 to 24"):
        integers.Int8Linear(linear(24, 8), outliers=[24])


@pytest.mark.parametrize("size", [1, 2, 12, 24, 64, 576])
def test_hadamard_matrices(size):
    h = integers.hadamard(size)
    torch.testing.assert_close(h @ h.T, torch.eye(size), rtol=0, atol=1e-5)
    torch.testing.assert_close(h.abs(), torch.full((size, size), size**-0.5))


@pytest.mark.parametrize("size", [0, 3, 20, 100])
def test_sizes_without_a_hadamard_matrix_here(size):
    with pytest.raises(ValueError, match=f"size must be a product of 2s and 12s, got {size}"):
        integers.hadamard(size)


# ------------------------------------------------------------ keys and values


@pytest.mark.parametrize("keys", ["token", "channel"])
def test_a_cache_in_eight_bits_is_nearly_the_cache(keys):
    model, ids = tiny(), torch.randint(11, (2, 50), generator=torch.Generator().manual_seed(0))
    past = tuple(QuantizedCache(8, keys=keys, chunk=8) for _ in model.h)
    logits = [model(part, past_key_values=past).logits for part in ids.split([20, 1, 29], dim=1)]
    torch.testing.assert_close(torch.cat(logits, 1), model(ids).logits, rtol=0, atol=5e-3)
    assert past[0].length == 50
    plain = 2 * 2 * 2 * 50 * 8 * 4
    assert past[0].nbytes < 0.6 * plain


def test_channels_suit_keys_with_one_large_feature():
    k = draw(1, 1, 32, 16)
    k[..., 5] += 40
    errors = {}
    for keys in ("token", "channel"):
        got, _ = QuantizedCache(4, keys=keys).append(k, k)
        errors[keys] = (got - k).square().mean().item()
    assert errors["channel"] < 0.1 * errors["token"]


def test_what_the_cache_refuses():
    with pytest.raises(ValueError, match="keys must be one of"):
        QuantizedCache(keys="head")
    with pytest.raises(ValueError, match="chunk must be at least 1, got 0"):
        QuantizedCache(chunk=0)


# ------------------------------------------------------------ llama.cpp's blocks


def weights_of_blocks(weights):
    rng = np.random.default_rng(0)
    w = np.concatenate([rng.normal(size=(40, weights)), rng.standard_t(2, size=(40, weights))]).astype(np.float32)
    w[0], w[1, :8], w[2] = 0, 0, 3
    return w


@pytest.mark.parametrize("name", ["Q8_0", "Q4_0", "Q4_1", "MXFP4"])
def test_blocks_are_those_of_the_reference(name):
    w = weights_of_blocks(512)
    theirs = quants.quantize(w, getattr(gguf.GGMLQuantizationType, name))
    assert np.array_equal(blocks.to_blocks(w, name), theirs)


@pytest.mark.parametrize("name", list(blocks.BLOCKS))
def test_blocks_are_read_as_the_reference_reads_them(name):
    data = blocks.to_blocks(weights_of_blocks(512), name)
    theirs = quants.dequantize(data, getattr(gguf.GGMLQuantizationType, name))
    assert np.array_equal(blocks.from_blocks(data, name), theirs)


def test_superblocks_of_any_bytes_are_read_as_the_reference_reads_them():
    data = np.random.default_rng(0).integers(0, 256, (50, 144), dtype=np.uint8)
    data[:, [1, 3]] &= 0x3F  # finite scales
    assert np.array_equal(blocks.from_blocks(data, "Q4_K"), quants.dequantize(data, gguf.GGMLQuantizationType.Q4_K))


def test_a_superblock_errs_little_more_than_q4_1():
    w = np.random.default_rng(0).normal(size=(50, 512)).astype(np.float32)
    error = {name: np.square(blocks.from_blocks(blocks.to_blocks(w, name), name) - w).mean() for name in blocks.BLOCKS}
    assert error["Q8_0"] < 0.01 * error["Q4_1"]
    assert 0.9 < error["Q4_K"] / error["Q4_1"] < 1.15
    assert error["Q4_K"] < error["Q4_0"]


@pytest.mark.parametrize(
    ("weight", "name", "message"),
    [
        (np.ones((2, 40)), "Q4_0", "rows of 40 weights don't divide into Q4_0's blocks of 32"),
        (np.ones((2, 576)), "Q4_K", "rows of 576 weights don't divide into Q4_K's blocks of 256"),
        (np.ones(32), "Q4_0", "weight must be a finite matrix"),
        (np.full((1, 32), np.inf), "Q4_0", "weight must be a finite matrix"),
        (np.ones((2, 32)), "Q3_X", "name must be one of Q8_0, Q4_1"),
    ],
)
def test_what_cannot_be_blocks(weight, name, message):
    with pytest.raises(ValueError, match=message):
        blocks.to_blocks(weight, name)


def test_bytes_that_are_no_blocks():
    with pytest.raises(ValueError, match="whole Q4_0 blocks of 18 bytes"):
        blocks.from_blocks(np.zeros((1, 17), np.uint8), "Q4_0")
