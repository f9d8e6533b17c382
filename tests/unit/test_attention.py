"""Attention against torch's own, in values and gradients, at the edges and with bad input."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbook.attention import (
    MultiHeadAttention,
    alibi_bias,
    alibi_slopes,
    apply_rotary,
    attention_weights,
    blockwise_attention,
    causal_mask,
    rotary_embedding,
    scaled_dot_product_attention,
    sinusoidal_positions,
)
from llmbook.profiling import peak_memory

BOTH = [scaled_dot_product_attention, blockwise_attention]


def draw(*shapes, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


def qkv(lead=(2, 3), queries=5, keys=7, features=4, value_features=4, seed=0, dtype=torch.float32):
    shapes = (*lead, queries, features), (*lead, keys, features), (*lead, keys, value_features)
    return draw(*shapes, seed=seed, dtype=dtype)


def assert_same(ours, reference, inputs, atol=1e-5):
    """Equal values, and equal gradients of a fixed weighted sum."""
    torch.testing.assert_close(ours, reference, atol=atol, rtol=1e-5)
    weights = draw(ours.shape, seed=99, dtype=ours.dtype)[0].detach()
    theirs = torch.autograd.grad(reference, inputs, weights, retain_graph=True)
    for mine, other in zip(torch.autograd.grad(ours, inputs, weights, retain_graph=True), theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=atol, rtol=1e-5)


# ------------------------------------------------------------ values and gradients equal torch's

lengths = st.integers(1, 40)
leads = st.lists(st.integers(1, 3), max_size=3).map(tuple)


@settings(max_examples=60, deadline=None)
@given(leads, lengths, lengths, st.integers(1, 9), st.integers(1, 9), st.booleans(), st.integers(1, 50))
def test_both_equal_torch(lead, queries, keys, features, value_features, is_causal, block_size):
    inputs = qkv(lead, queries, keys, features, value_features)
    reference = F.scaled_dot_product_attention(*inputs, is_causal=is_causal)
    assert_same(scaled_dot_product_attention(*inputs, is_causal=is_causal), reference, inputs)
    assert_same(blockwise_attention(*inputs, is_causal=is_causal, block_size=block_size), reference, inputs)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 12),
    st.integers(1, 12),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["TS", "S", "T1", "BTS", "BHTS"]),
    st.integers(0, 2**31),
)
def test_masks_equal_torch(batch, queries, keys, boolean, is_causal, axes, seed):
    inputs = qkv((batch, 2), queries, keys)
    sizes = {
        "TS": (queries, keys),
        "S": (1, keys),
        "T1": (queries, 1),
        "BTS": (batch, 1, queries, keys),
        "BHTS": (batch, 2, queries, keys),
    }
    noise = draw(sizes[axes], seed=seed)[0].detach()
    mask = noise > -0.3 if boolean else noise.masked_fill(noise < -0.5, -math.inf)
    merged = mask
    if is_causal:  # torch documents no answer for both at once: merge by hand
        seen = causal_mask(queries, keys)
        merged = mask & seen if boolean else mask.masked_fill(~seen, -math.inf)
    ours = scaled_dot_product_attention(*inputs, attn_mask=mask, is_causal=is_causal)
    assert_same(ours, F.scaled_dot_product_attention(*inputs, attn_mask=merged), inputs)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 2), max_size=2).map(tuple),
    st.sampled_from([(1, 1, 1), (4, 1, 1), (4, 2, 2), (6, 3, 2), (4, 4, 1)]),
    st.integers(1, 12),
    st.integers(1, 12),
    st.booleans(),
    st.sampled_from([None, 0.0, 0.05, 1, 2.5, -0.7]),
)
def test_scale_and_grouped_heads_equal_torch(lead, heads, queries, keys, is_causal, scale):
    """Query, key and value heads; torch lets key and value have different numbers."""
    shapes = [(*lead, heads[0], queries, 4), (*lead, heads[1], keys, 4), (*lead, heads[2], keys, 3)]
    inputs = draw(*shapes)
    options = {"is_causal": is_causal, "scale": scale, "enable_gqa": True}
    reference = F.scaled_dot_product_attention(*inputs, **options)
    assert_same(scaled_dot_product_attention(*inputs, **options), reference, inputs)
    assert_same(blockwise_attention(*inputs, block_size=5, **options), reference, inputs)
    weights = attention_weights(*inputs[:2], **options)
    value = inputs[2].repeat_interleave(heads[0] // heads[2], dim=-3)
    torch.testing.assert_close(weights @ value, reference, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("is_causal", [False, True])
def test_a_scale_of_ones_own_passes_gradcheck(is_causal):
    inputs = qkv((2,), 5, 5, features=3, value_features=2, dtype=torch.float64)
    for function in BOTH:
        scaled = lambda *x, f=function: f(*x, is_causal=is_causal, scale=1.7)  # noqa: E731
        assert torch.autograd.gradcheck(scaled, inputs)


def test_grouped_heads_share_with_their_neighbours():
    """Query heads 0 and 1 read key head 0, as in Llama: repeated one by one, not as a whole."""
    query, key, value = (x.detach() for x in draw((4, 3, 5), (2, 6, 5), (2, 6, 5)))
    ours = scaled_dot_product_attention(query, key, value, enable_gqa=True)
    for head in range(4):
        alone = scaled_dot_product_attention(query[head], key[head // 2], value[head // 2])
        torch.testing.assert_close(ours[head], alone)


def test_a_mask_goes_with_grouped_heads():
    inputs = draw((2, 4, 5, 3), (2, 2, 7, 3), (2, 2, 7, 3))
    mask = draw((2, 4, 5, 7), seed=5)[0].detach() > -0.5
    reference = F.scaled_dot_product_attention(*inputs, attn_mask=mask, enable_gqa=True)
    assert_same(scaled_dot_product_attention(*inputs, attn_mask=mask, enable_gqa=True), reference, inputs)


def test_gradient_reaches_a_float_mask():
    inputs = [*qkv((2,), 5, 5), *draw((5, 5), seed=7)]
    reference = F.scaled_dot_product_attention(*inputs[:3], attn_mask=inputs[3])
    assert_same(scaled_dot_product_attention(*inputs[:3], attn_mask=inputs[3]), reference, inputs)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4), (1, 1)])
def test_gradcheck(shape, is_causal):
    inputs = qkv((2,), *shape, features=3, value_features=2, dtype=torch.float64)
    for function in BOTH:
        assert torch.autograd.gradcheck(lambda *x, f=function: f(*x, is_causal=is_causal), inputs)
    blocks_of_two = lambda *x: blockwise_attention(*x, is_causal=is_causal, block_size=2)  # noqa: E731
    assert torch.autograd.gradcheck(blocks_of_two, inputs)


def test_blockwise_takes_gradients_and_inputs_that_are_views():
    base = qkv((2,), 9, 9, dtype=torch.float64)
    views = [x.unflatten(-1, (2, 2)).transpose(1, 2) for x in base]  # (2, 2, 9, 2), not contiguous
    ours = blockwise_attention(*views, block_size=4)
    reference = F.scaled_dot_product_attention(*views)
    assert_same(ours.transpose(1, 2).flatten(2), reference.transpose(1, 2).flatten(2), base)
    ours.sum().backward()  # an expanded gradient


@pytest.mark.parametrize("function", BOTH)
def test_large_scores_do_not_overflow(function):
    query, key, value = (x.detach() * 300 for x in qkv((1, 2), 33, 33))
    expected = F.scaled_dot_product_attention(query.double(), key.double(), value.double())
    ours = function(query, key, value)
    assert ours.isfinite().all()
    torch.testing.assert_close(ours.double(), expected, rtol=1e-3, atol=1e-1)


def test_blocks_whose_maximum_rises_and_falls_are_rescaled():
    key = 40 * torch.arange(12.0)[:, None] * torch.tensor([1.0, -1.0, 1.0])[:, None, None]  # up, down, up
    query, value = torch.ones(3, 12, 1), torch.eye(12).expand(3, 12, 12)
    ours = blockwise_attention(query, key, value, block_size=3)
    torch.testing.assert_close(ours, torch.softmax(query @ key.mT, -1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("function", BOTH)
def test_other_floating_dtypes(function, dtype):
    inputs = [x.detach().to(dtype) for x in qkv((1, 2), 9, 9)]
    ours = function(*inputs, is_causal=True)
    assert ours.dtype == dtype
    tolerance = {torch.float16: 5e-3, torch.bfloat16: 5e-2, torch.float64: 1e-12}[dtype]
    reference = F.scaled_dot_product_attention(*(x.double() for x in inputs), is_causal=True)
    torch.testing.assert_close(ours.double(), reference, rtol=tolerance, atol=tolerance)


# ------------------------------------------------------------ the weights themselves


def test_weights_are_the_scaled_softmax():
    query, key = torch.tensor([[1.0, 1.0, 0.0, 0.0]]), torch.eye(4)
    scores = torch.tensor([0.5, 0.5, 0.0, 0.0])  # 1 / √4
    torch.testing.assert_close(attention_weights(query, key)[0], scores.exp() / scores.exp().sum())


def test_causal_weights_see_the_present_and_no_future():
    query, key, _ = qkv((2,), 6, 6)
    weights = attention_weights(query, key, is_causal=True)
    assert (weights.triu(1) == 0).all()
    assert (weights.tril() > 0).sum() == 2 * 21
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 6))


@pytest.mark.parametrize("boolean", [True, False])
def test_a_row_that_may_look_nowhere_is_zero_and_has_zero_gradient_as_in_torch(boolean):
    inputs = qkv((2,), 4, 5)
    mask = torch.ones(4, 5, dtype=torch.bool)
    mask[1] = False
    mask = mask if boolean else torch.zeros(4, 5).masked_fill(~mask, -math.inf)
    ours = scaled_dot_product_attention(*inputs, attn_mask=mask)
    assert (ours[:, 1] == 0).all()
    assert_same(ours, F.scaled_dot_product_attention(*inputs, attn_mask=mask), inputs)
    assert (attention_weights(*inputs[:2], attn_mask=mask)[:, 1] == 0).all()
    assert all(x.isfinite().all() for x in torch.autograd.grad(ours.sum(), inputs))


@pytest.mark.parametrize("function", BOTH)
def test_no_keys_and_no_queries(function):
    query, key, value = qkv((2,), 3, 4)
    assert (function(query, key[:, :0], value[:, :0]) == 0).all()
    assert function(query[:, :0], key, value).shape == (2, 0, 4)
    gradient = torch.autograd.grad(function(query, key[:, :0], value[:, :0]).sum(), query)[0]
    assert (gradient == 0).all()


@pytest.mark.parametrize("function", BOTH)
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_nan_is_passed_on_to_every_query_that_sees_it(function, which):
    inputs = [x.detach() for x in qkv((1,), 6, 6)]
    inputs[which][0, 3, 1] = math.nan
    result = function(*inputs)
    seen_by = [3] if which == 0 else range(6)
    assert result[0, list(seen_by)].isnan().any(-1).all()
    causal = function(*inputs, is_causal=True)
    assert causal[0, 3].isnan().any()
    assert causal[0, 2].isfinite().all() or which == 2  # 0 · NaN is NaN, so a masked value can still show


# ------------------------------------------------------------ dropout


def test_dropout_keeps_the_mean_and_drops_whole_weights():
    query, key = (x.detach() for x in qkv((), 400, 20)[:2])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        dropped = scaled_dot_product_attention(query, key, torch.eye(20), dropout_p=0.25)
    kept = dropped != 0
    assert abs(kept.float().mean() - 0.75) < 0.02
    torch.testing.assert_close(dropped[kept], (attention_weights(query, key) / 0.75)[kept])
    assert (scaled_dot_product_attention(query, key, torch.eye(20), dropout_p=1.0) == 0).all()


@pytest.mark.parametrize("dropout_p", [-0.1, 1.1, math.nan])
def test_dropout_outside_its_range_is_refused(dropout_p):
    with pytest.raises(ValueError, match="dropout_p"):
        scaled_dot_product_attention(*qkv(), dropout_p=dropout_p)
    with pytest.raises(ValueError, match="dropout"):
        MultiHeadAttention(4, 2, dropout=dropout_p)


# ------------------------------------------------------------ bad input


@pytest.mark.parametrize("function", BOTH)
@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda q, k, v: (q.long(), k.long(), v.long()), TypeError, "query must be a floating-point"),
        (lambda q, k, v: (q.tolist(), k, v), TypeError, "query must be a floating-point tensor, got list"),
        (lambda q, k, v: (q, k.double(), v), TypeError, "key must have query's dtype"),
        (lambda q, k, v: (q, k, v.half()), TypeError, "value must have query's dtype"),
        (lambda q, k, v: (q, k.to("meta"), v), ValueError, "key must be on query's device"),
        (lambda q, k, v: (q, k[..., :3], v), ValueError, "equally many features"),
        (lambda q, k, v: (q[..., :0], k[..., :0], v), ValueError, "not 0"),
        (lambda q, k, v: (q, k, v[..., :-1, :]), ValueError, "value must be as long as key, 7, got 6"),
        (lambda q, k, v: (q, k[0], v), ValueError, "key must be"),
        (lambda q, k, v: (q, k[:1], v[:1]), ValueError, "leading dimensions"),
        (lambda q, k, v: (q[0, 0, 0], k[0, 0, 0], v[0, 0, 0]), ValueError, "query must be"),
    ],
)
def test_inputs_that_do_not_fit_are_named(function, change, error, says):
    with pytest.raises(error, match=says):
        function(*change(*(x.detach() for x in qkv())))


@pytest.mark.parametrize(
    ("mask", "error", "says"),
    [
        (torch.ones(5, 7, dtype=torch.long), TypeError, "attn_mask must be bool or torch.float32"),
        (torch.zeros(5, 7, dtype=torch.float64), TypeError, "attn_mask"),
        (torch.ones(7, 5, dtype=torch.bool), ValueError, "broadcast to .2, 3, 5, 7."),
        (torch.ones(4, 2, 3, 5, 7, dtype=torch.bool), ValueError, "broadcast"),
        (torch.full((5, 7), math.nan), ValueError, "NaN"),
        (torch.full((5, 7), math.inf), ValueError, "inf"),
        (torch.ones(5, 7, dtype=torch.bool, device="meta"), ValueError, "device"),
    ],
)
def test_masks_that_do_not_fit_are_named(mask, error, says):
    with pytest.raises(error, match=says):
        scaled_dot_product_attention(*qkv(), attn_mask=mask)


@pytest.mark.parametrize("function", [*BOTH, lambda q, k, v, **options: attention_weights(q, k, **options)])
@pytest.mark.parametrize(
    ("scale", "error"), [(math.nan, ValueError), (math.inf, ValueError), ("1", TypeError), (torch.ones(2), TypeError)]
)
def test_a_scale_that_is_no_finite_number_is_refused(function, scale, error):
    with pytest.raises(error, match="scale must be"):
        function(*qkv(), scale=scale)


@pytest.mark.parametrize("function", BOTH)
@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda q, k, v: (q, k[:, :2], v), ValueError, "key must have a divisor of query's 3 heads, got 2"),
        (lambda q, k, v: (q, k, v[:, :0]), ValueError, "value must have a divisor of query's 3 heads, got 0"),
        (lambda q, k, v: (q[0, 0], k[0, 0], v[0, 0]), ValueError, "query must be .* with enable_gqa"),
        (lambda q, k, v: (q, k[:1, :1], v), ValueError, "leading dimensions"),
        (lambda q, k, v: (q, k.tolist(), v), TypeError, "key must be a floating-point tensor, got list"),
    ],
)
def test_heads_that_cannot_be_grouped_are_named(function, change, error, says):
    with pytest.raises(error, match=says):
        function(*change(*(x.detach() for x in qkv())), enable_gqa=True)


def test_fewer_key_heads_need_enable_gqa():
    query, key, value = draw((4, 3, 5), (2, 6, 5), (2, 6, 5))
    with pytest.raises(ValueError, match="leading dimensions"):
        scaled_dot_product_attention(query, key, value)


@pytest.mark.parametrize("block_size", [0, -3])
def test_block_size_must_be_positive(block_size):
    with pytest.raises(ValueError, match="block_size must be at least 1"):
        blockwise_attention(*qkv(), block_size=block_size)


# ------------------------------------------------------------ memory


def test_blockwise_memory_grows_linearly_and_plain_memory_quadratically():
    def peak(function, length):
        inputs = qkv((1, 2), length, length, 16, 16)
        grad = torch.ones(1, 2, length, 16)
        return peak_memory(lambda: torch.autograd.grad(function(*inputs, is_causal=True), inputs, grad))

    def blocks(*inputs, **options):
        return blockwise_attention(*inputs, block_size=32, **options)

    growth = {f: peak(f, 2048) / peak(f, 512) for f in (blocks, scaled_dot_product_attention)}
    assert growth[blocks] < 4.2  # four times the length
    assert growth[scaled_dot_product_attention] > 14
    assert peak(blocks, 2048) < peak(scaled_dot_product_attention, 2048) / 30


# ------------------------------------------------------------ many heads


def twins(embed_dim=8, num_heads=2, bias=True):
    """Ours and torch's module with the same weights (biases included, which torch sets to zero)."""
    theirs = torch.nn.MultiheadAttention(embed_dim, num_heads, bias=bias, batch_first=True)
    parameters = theirs.state_dict()
    drawn = draw(*(p.shape for p in parameters.values()), seed=3)
    theirs.load_state_dict(dict(zip(parameters, (0.4 * x.detach() for x in drawn), strict=True)))
    ours = MultiHeadAttention(embed_dim, num_heads, bias=bias)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
def test_module_equals_torch_in_values_weights_and_gradients(bias, masked, cross, need_weights):
    ours, theirs = twins(bias=bias)
    x, memory, value = draw((3, 5, 8), (3, 6, 8), (3, 6, 8))
    inputs = (x, memory, value) if cross else (x, x, x)
    mask = causal_mask(5, 6 if cross else 5) if masked else None
    output, weights = ours(*inputs, attn_mask=mask, need_weights=need_weights)
    # torch's module means the opposite by True
    expected, expected_weights = theirs(*inputs, attn_mask=None if mask is None else ~mask, average_attn_weights=False)
    assert_same(output, expected, inputs if cross else (x,))
    if need_weights:
        torch.testing.assert_close(weights, expected_weights)
    ours.zero_grad()
    theirs.zero_grad()
    output.square().sum().backward()
    expected.square().sum().backward()
    for (name, mine), (_, other) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, atol=1e-4, rtol=1e-4, msg=name)


def test_module_pads_and_looks_back_at_once():
    ours, theirs = twins()
    x = draw((3, 5, 8))[0]
    real = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]], dtype=torch.bool)
    expected = theirs(x, x, x, key_padding_mask=~real, attn_mask=~causal_mask(5), need_weights=False)[0]
    for need_weights in (False, True):
        output, _ = ours(x, attn_mask=real[:, None, None], is_causal=True, need_weights=need_weights)
        torch.testing.assert_close(output, expected)
    expected = theirs(x, x, x, attn_mask=~causal_mask(5))[0]
    torch.testing.assert_close(ours(x, is_causal=True)[0], expected)
    bias = draw((5, 5), seed=5)[0].detach()
    expected = theirs(x, x, x, attn_mask=bias.masked_fill(~causal_mask(5), -math.inf))[0]
    torch.testing.assert_close(ours(x, attn_mask=bias, is_causal=True)[0], expected)


def test_module_defaults_to_self_attention_and_key_as_value():
    ours, _ = twins()
    x, memory = draw((2, 5, 8), (2, 6, 8))
    torch.testing.assert_close(ours(x)[0], ours(x, x, x)[0])
    torch.testing.assert_close(ours(x, memory)[0], ours(x, memory, memory)[0])


def test_module_gives_the_output_bias_where_nothing_may_be_seen():
    ours, _ = twins()
    x = draw((2, 5, 8))[0]
    for need_weights in (False, True):
        output, _ = ours(x, attn_mask=torch.zeros(5, 5, dtype=torch.bool), need_weights=need_weights)
        torch.testing.assert_close(output, ours.out_proj.bias.expand(2, 5, 8))


def test_weights_go_back_to_torch():
    ours, theirs = twins()
    theirs.load_state_dict(MultiHeadAttention(8, 2).state_dict())
    assert ours.state_dict().keys() == theirs.state_dict().keys()


@pytest.mark.parametrize("need_weights", [False, True])
def test_module_drops_only_in_training(need_weights):
    module = MultiHeadAttention(8, 2, dropout=0.5)
    x = draw((2, 5, 8))[0]
    assert not torch.equal(module(x, need_weights=need_weights)[0], module(x, need_weights=need_weights)[0])
    module.eval()
    assert torch.equal(module(x, need_weights=need_weights)[0], module(x, need_weights=need_weights)[0])


def test_module_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="multiple of num_heads, got 8 and 3"):
        MultiHeadAttention(8, 3)
    with pytest.raises(ValueError, match="multiple of num_heads"):
        MultiHeadAttention(8, 0)
    module = MultiHeadAttention(8, 2)
    x = torch.zeros(1, 5, 8)
    with pytest.raises(ValueError, match=r"must be \(batch, length, 8\)"):
        module(x[0])
    with pytest.raises(ValueError, match=r"must be \(batch, length, 8\)"):
        module(x[..., :6])
    with pytest.raises(ValueError, match="equally many features"):
        module(x, torch.zeros(1, 5, 6))
    with pytest.raises(TypeError, match="query must be a floating-point tensor"):
        module(x.long())
    for need_weights in (False, True):
        with pytest.raises(ValueError, match="value must be as long as key"):
            module(x, x, torch.zeros(1, 4, 8), need_weights=need_weights)
        with pytest.raises(ValueError, match="attn_mask must broadcast"):
            module(x, attn_mask=torch.ones(4, 4, dtype=torch.bool), need_weights=need_weights)


# ------------------------------------------------------------ positions


def test_sinusoids_are_the_papers():
    table = sinusoidal_positions(50, 6)
    for position in (0, 1, 49):
        for i in range(3):
            angle = position / 10000 ** (2 * i / 6)
            pair = torch.tensor([math.sin(angle), math.cos(angle)])
            torch.testing.assert_close(table[position, 2 * i : 2 * i + 2], pair)
    assert table.dtype == torch.float32


def test_a_shift_of_sinusoids_is_one_linear_map():
    table = sinusoidal_positions(500, 16).double()
    solution = torch.linalg.lstsq(table[:-7], table[7:]).solution
    torch.testing.assert_close(table[:-7] @ solution, table[7:], atol=1e-4, rtol=0)


@pytest.mark.parametrize("shift", [1, 17, 10_000])
def test_rotary_scores_depend_on_distance_only(shift):
    query, key = (x.detach() for x in draw((2, 3, 6, 8), (2, 3, 6, 8)))

    def scores(start):
        table = rotary_embedding(torch.arange(start, start + 6), 8)
        return apply_rotary(query, *table) @ apply_rotary(key, *table).mT

    torch.testing.assert_close(scores(0), scores(shift), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(scores(0), query @ key.mT, atol=0.1)


def test_rotation_keeps_lengths_and_does_nothing_at_position_zero():
    x = draw((3, 6, 8))[0].detach()
    turned = apply_rotary(x, *rotary_embedding(torch.arange(6), 8))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(turned[:, 0], x[:, 0])


def test_rotation_turns_each_pair_by_its_angle():
    x = torch.tensor([[1.0, 2.0, 0.0, 0.0]])  # pairs (0, 2) and (1, 3)
    turned = apply_rotary(x, *rotary_embedding(torch.tensor([3]), 4))[0]
    slow = 3 / 10000**0.5
    expected = [math.cos(3), 2 * math.cos(slow), math.sin(3), 2 * math.sin(slow)]
    torch.testing.assert_close(turned, torch.tensor(expected))


def test_rotation_equals_transformers():
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    x = draw((2, 3, 6, 8))[0].detach()
    cos, sin = rotary_embedding(torch.arange(6), 8)
    theirs, _ = llama.apply_rotary_pos_emb(x, x, cos[None], sin[None])
    torch.testing.assert_close(apply_rotary(x, cos, sin), theirs)
    config = llama.LlamaConfig(hidden_size=24, num_attention_heads=3, head_dim=8)
    their_tables = llama.LlamaRotaryEmbedding(config)(x, torch.arange(6)[None])
    for ours, other in zip((cos, sin), their_tables, strict=True):
        torch.testing.assert_close(ours, other[0])


def test_alibi_slopes_are_the_papers():
    torch.testing.assert_close(alibi_slopes(8), torch.tensor([2.0**-n for n in range(1, 9)]))
    torch.testing.assert_close(alibi_slopes(16), torch.tensor([2.0 ** (-n / 2) for n in range(1, 17)]))
    # the paper's code for 12 heads: 8 slopes, then every second of 16
    expected = [2.0**-n for n in range(1, 9)] + [2.0 ** (-n / 2) for n in (1, 3, 5, 7)]
    torch.testing.assert_close(alibi_slopes(12), torch.tensor(expected))
    torch.testing.assert_close(alibi_slopes(1), torch.tensor([2.0**-8]))


def test_alibi_bias_falls_with_distance_and_serves_as_mask():
    bias = alibi_bias(2, 4)
    slope = 2.0**-4
    torch.testing.assert_close(bias[0, 3], torch.tensor([-3.0, -2.0, -1.0, 0.0]) * slope)
    assert alibi_bias(2, 3, 5).shape == (2, 3, 5)
    query, key, value = (x.detach() for x in qkv((1, 2), 4, 4))
    ours = scaled_dot_product_attention(query, key, value, attn_mask=bias, is_causal=True)
    # softmax is unmoved by a constant per row: the paper adds slope · j instead
    paper = (alibi_slopes(2)[:, None, None] * torch.arange(4.0)).expand(2, 4, 4)
    paper = paper.masked_fill(~causal_mask(4), -math.inf)
    torch.testing.assert_close(ours, F.scaled_dot_product_attention(query, key, value, attn_mask=paper))


def test_positions_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="dim must be even"):
        sinusoidal_positions(4, 5)
    with pytest.raises(ValueError, match="length must be at least 0"):
        sinusoidal_positions(-1, 4)
    with pytest.raises(ValueError, match="dim must be even and at least 2, got 0"):
        rotary_embedding(torch.arange(4), 0)
    with pytest.raises(ValueError, match="base must be above 1"):
        rotary_embedding(torch.arange(4), 4, base=0.5)
    with pytest.raises(ValueError, match="positions must have one dimension"):
        rotary_embedding(torch.zeros(2, 3), 4)
    with pytest.raises(ValueError, match="cos and sin must be"):
        apply_rotary(torch.zeros(2, 5, 4), *rotary_embedding(torch.arange(4), 4))
    with pytest.raises(ValueError, match="num_heads must be at least 1"):
        alibi_slopes(0)
    assert sinusoidal_positions(0, 4).shape == (0, 4)
