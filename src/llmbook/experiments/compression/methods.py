"""What is compared, by name: each method takes a case and gives a smaller model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from llmbook.compression import lowrank, pruning, quantization, structure
from llmbook.compression.calibration import block_linears, by_block
from llmbook.compression.distillation import distil
from llmbook.compression.grids import Grid
from llmbook.experiments.compression.cases import Case, Real, Toy
from llmbook.transformer import GPT

HEAL, STUDENT = 400, 1200  # steps: to mend a model that was cut, to train one from the start
FAMILIES = ("whole", "pruning", "quantisation", "low rank", "distillation", "together")


@dataclass(frozen=True)
class Method:
    """How a model is made smaller, and in which floats the rest of it is kept on disk."""

    family: str
    apply: Callable[[Any], GPT]
    dtype: str = "float16"
    calibrated: bool = True  # False: the seed matters only where it chooses the model

    @property
    def kind(self) -> tuple[str, str]:
        """The way through the code: the function, and what it is told to do."""
        name = getattr(self.apply, "func", self.apply).__qualname__
        return name, getattr(self.apply, "keywords", {}).get("method", "")


def heal(case: Toy, model: GPT, callback: Callable[..., None] | None = None) -> GPT:
    """Train on the whole model's probabilities, for stories that it has not read."""
    distil(model, case.base, case.stories, case.arguments(HEAL, 1e-3), callback=callback)
    return model


# ------------------------------------------------------------ pruning


def pruned(case: Case, method: str, sparsity: float | None = None, **pattern: int) -> GPT:
    """Zeros inside the blocks, at one go."""
    model = case.fresh()
    batches = None if method == "magnitude" else case.batches
    pruning.prune_blocks(model, method, sparsity, batches=batches, **pattern)
    return model


def pruned_and_healed(case: Toy, sparsity: float) -> GPT:
    """The smallest weights go, and the rest is trained with the zeros held."""
    model = pruned(case, "magnitude", sparsity)
    masks = {name: layer.weight != 0 for name, layer in block_linears(model).items()}
    return heal(case, model, callback=pruning.keep_zeros(model, masks))


def halved(case: Toy, *, heads: bool = False, healed: bool = True) -> GPT:
    """Half of the neurons, and on request of the heads, taken out: those that add least to the stream."""
    model = case.fresh()
    for i, block in enumerate(model.h):
        gram = {part: case.statistics[f"h.{i}.{part}.c_proj"].gram for part in ("mlp", "attn")}
        scores = pruning.neuron_scores(block.mlp, gram["mlp"])
        structure.remove_neurons(block.mlp, scores.topk(len(scores) // 2).indices)
        if heads:
            scores = pruning.head_scores(block.attn, gram["attn"])
            structure.remove_heads(block.attn, scores.topk(len(scores) // 2).indices)
    return heal(case, model) if healed else model


def one_layer(case: Toy) -> GPT:
    """The second block taken out; then healed."""
    model = case.fresh()
    structure.remove_layers(model, range(len(model.h) - 1))
    return heal(case, model)


def without_layers(case: Real, count: int) -> GPT:
    """The blocks gone that turn the stream least (Men et al. 2025)."""
    model = case.fresh()
    influence = pruning.block_influence(model, case.batches)
    structure.remove_layers(model, influence.topk(len(model.h) - count).indices)
    return model


# ------------------------------------------------------------ quantisation


def quantised(
    case: Case, bits: int, group_size: int | str, method: str = "rtn", embedding: bool = True, **grid: Any
) -> GPT:
    """Packed codes inside the blocks, and 8 bits with a scale for each row in the embedding."""
    model = case.fresh()
    options = {"method": method} | grid
    for seen in [None] if method == "rtn" else by_block(model, case.batches):
        quantization.quantize_model(model, bits, group_size, statistics=seen, names=seen, **options)
    if embedding:
        quantization.quantize_embedding(model, 8, "row", symmetric=True)
    return model


def with_more_text(case: Real, articles: int, bits: int) -> GPT:
    """GPTQ, calibrated on more: a layer of 1,536 inputs has over a million second moments to estimate."""
    return quantised(replace(case, articles=articles), bits, 64, "gptq")


def rounded_in_training(case: Toy, grid: Grid) -> GPT:
    """Healed with the rounding in the forward pass (Jacob et al. 2018), then packed."""
    model = heal(case, quantization.prepare_qat(case.fresh(), grid))
    quantization.quantize_model(model, grid.bits, grid.group_size, symmetric=grid.symmetric, levels=grid.levels)
    quantization.quantize_embedding(model, 8, "row", symmetric=True)
    return model


# ------------------------------------------------------------ low rank, small students


def low_rank(case: Case, share: float, *, aware: bool = True, healed: bool = False) -> GPT:
    """Every layer at the rank that leaves a share of its numbers."""
    model = case.fresh()
    lowrank.factorize_model(model, share, case.statistics if aware else None)
    return heal(case, model) if healed else model


def student(case: Toy, n_embd: int, n_inner: int) -> GPT:
    """A narrower model that starts from nothing and learns the whole one's probabilities."""
    config = replace(case.base.config, n_embd=n_embd, n_inner=n_inner)
    model = GPT(config, generator=torch.Generator().manual_seed(case.seed))
    rate = 2e-3 * case.base.config.n_embd / n_embd
    distil(model, case.base, case.stories, case.arguments(STUDENT, rate))
    return model


# ------------------------------------------------------------ together


def then(first: Callable[[Any], GPT], second: Callable[[Any], GPT]) -> Callable[[Any], GPT]:
    """A second method on what a first one leaves: calibrated on that model, healed by the whole one."""
    return lambda case: second(case.on(first(case)))


# ------------------------------------------------------------ all of them


def _shared() -> dict[str, Method]:
    """What is done to both models."""
    patterns = {"50%": {"sparsity": 0.5}, "2:4": {"n": 2, "m": 4}}
    data_free = {
        **{f"magnitude {s:.0%}": partial(pruned, method="magnitude", sparsity=s) for s in (0.3, 0.5, 0.7)},
        "magnitude 2:4": partial(pruned, method="magnitude", n=2, m=4),
    }
    zeros = {
        f"{method} {name}": partial(pruned, method=method, **pattern)
        for method in ("wanda", "sparsegpt")
        for name, pattern in patterns.items()
    }
    rounded = {
        "int8 rtn": partial(quantised, bits=8, group_size="row"),
        "int4 rtn, a scale a row": partial(quantised, bits=4, group_size="row"),
        "nf4, groups of 64": partial(quantised, bits=4, group_size=64, levels="nf4"),
        **{f"int{b} rtn, groups of 64": partial(quantised, bits=b, group_size=64) for b in (4, 3)},
    }
    compensated = {
        f"int{bits} {method}, groups of 64": partial(quantised, bits=bits, group_size=64, method=method)
        for bits in (4, 3)
        for method in ("gptq", "awq")
    } | {"int2 gptq, groups of 32": partial(quantised, bits=2, group_size=32, method="gptq")}
    ranks = {f"SVD {s:.0%}": partial(low_rank, share=s, aware=False) for s in (0.75, 0.5)}
    whitened = {f"whitened SVD {s:.0%}": partial(low_rank, share=s) for s in (0.75, 0.5)}
    return {
        "float32": Method("whole", lambda case: case.fresh(), "float32", calibrated=False),
        "float16": Method("whole", lambda case: case.fresh(), calibrated=False),
        **{name: Method("pruning", call, calibrated=False) for name, call in data_free.items()},
        **{name: Method("pruning", call) for name, call in zeros.items()},
        **{name: Method("quantisation", call, calibrated=False) for name, call in rounded.items()},
        **{name: Method("quantisation", call) for name, call in compensated.items()},
        **{name: Method("low rank", call, calibrated=False) for name, call in ranks.items()},
        **{name: Method("low rank", call) for name, call in whitened.items()},
    }


def _toy() -> dict[str, Method]:
    """What only a small model is trained for."""
    grids = {"int4": Grid(4, 64), "int2": Grid(2, 64), "ternary": Grid(2, 64, levels="ternary")}
    in_training = {name: partial(rounded_in_training, grid=grid) for name, grid in grids.items()}
    cut = partial(halved, heads=True)
    healed = {f"magnitude {s:.0%}, healed": partial(pruned_and_healed, sparsity=s) for s in (0.7, 0.9)}
    healed |= {
        "half the neurons": partial(halved, healed=False),
        "half the neurons, healed": halved,
        "half of neurons and heads, healed": cut,
        "one layer of two, healed": one_layer,
    }
    together = {
        "half the neurons, then int4 in training": then(halved, in_training["int4"]),
        "int4 in training, then half the neurons, then int4": then(
            then(then(in_training["int4"], _unpacked), halved), partial(quantised, bits=4, group_size=64)
        ),
        "half of neurons and heads, then int4 in training": then(cut, in_training["int4"]),
        "one layer of two, half its neurons, then int2 in training": then(then(one_layer, halved), in_training["int2"]),
        **{
            f"student of width {w}, then int{bits} in training": then(
                partial(student, n_embd=w, n_inner=4 * w), partial(rounded_in_training, grid=Grid(bits, 32))
            )
            for w, bits in ((96, 4), (64, 2))
        },
    }
    return {
        **{name: Method("pruning", call) for name, call in healed.items()},
        **{f"{name} in training, groups of 64": Method("quantisation", c) for name, c in in_training.items()},
        "SVD 50%, healed": Method("low rank", partial(low_rank, share=0.5, healed=True)),
        **{
            f"student of width {w}": Method("distillation", partial(student, n_embd=w, n_inner=4 * w))
            for w in (32, 64, 96)
        },
        **{name: Method("together", call) for name, call in together.items()},
    }


def _unpacked(case: Toy) -> GPT:
    """Rounded weights as floats, to be cut."""
    return quantization.dequantize_model(case.fresh())


def _real() -> dict[str, Method]:
    """What only the large model shows."""
    together = {
        "without 2 of 30 layers, then int4 awq": then(
            partial(without_layers, count=2), partial(quantised, bits=4, group_size=64, method="awq")
        ),
    }
    return {
        **{f"without {n} of 30 layers": Method("pruning", partial(without_layers, count=n)) for n in (1, 2, 4)},
        "int4 rtn, groups of 32": Method("quantisation", partial(quantised, bits=4, group_size=32), calibrated=False),
        **{
            f"int{bits} gptq, groups of 64, 48 articles": Method(
                "quantisation", partial(with_more_text, articles=48, bits=bits)
            )
            for bits in (4, 3)
        },
        **{name: Method("together", call) for name, call in together.items()},
    }


METHODS: dict[str, dict[str, Method]] = {Toy.model: _shared() | _toy(), Real.model: _shared() | _real()}
