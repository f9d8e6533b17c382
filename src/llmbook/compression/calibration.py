"""What the layers of a model are, and what their inputs look like on calibration text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

Call = tuple[Tensor, tuple[Any, ...], dict[str, Any]]


def block_linears(model: nn.Module, names: Iterable[str] | None = None) -> dict[str, nn.Linear]:
    """The linear layers inside a model's blocks, by name: what compression is about. The head and embeddings are not.

    A block is an entry of an ``nn.ModuleList``, as in ``GPT``, ``Encoder`` and transformers. ``names``: only these, in
    their order. Raises ValueError where there is none, and for a name that is none.
    """
    lists = [name for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and any(name.startswith(f"{each}.") for each in lists)
    }
    if not found:
        raise ValueError(f"model must hold linear layers within blocks, got a {type(model).__name__} with none")
    chosen = list(found) if names is None else list(names)
    unknown = [name for name in chosen if name not in found]
    if unknown:
        raise ValueError(f"names must be linear layers within the model's blocks, got {unknown[0]!r}")
    return {name: found[name] for name in chosen}


class InputStatistics(NamedTuple):
    """What a linear layer was fed: X has a row for each token, (N, in)."""

    gram: Tensor  # Xᵀ X / N, (in, in)
    largest: Tensor  # the largest |x| of each feature, (in,)
    count: int  # N

    @property
    def rms(self) -> Tensor:
        """Root mean square of each feature, ‖X_j‖₂ / √N: (in,)."""
        return self.gram.diagonal().sqrt()


@torch.no_grad()
def input_statistics(
    model: nn.Module, batches: Iterable[Tensor], names: Iterable[str] | None = None
) -> dict[str, InputStatistics]:
    """Run the model over batches of ids (B, T) and gather, for each named layer, what it was fed.

    ``names`` defaults to those of :func:`block_linears`. Every position counts: give rows without padding. Raises
    ValueError for a name that is no linear layer, and where there are no batches.
    """
    layers = {name: _linear(model, name) for name in (block_linears(model) if names is None else names)}
    batches = list(batches)
    if not batches:
        raise ValueError("batches must hold at least one batch of ids, got none")
    with evaluating(model), _watching(layers) as found:
        for ids in batches:
            model(ids)
        return found()


@torch.no_grad()
def by_block(model: nn.Module, batches: Iterable[Tensor]) -> Iterator[dict[str, InputStatistics]]:
    """Block by block, what its linear layers are fed by the blocks before it, as these are by then.

    Whoever compresses a block before asking for the next one lets the next see, and make good, what was lost. Costs
    two passes through each block. For a ``GPT``; batches of ids (B, T) as above.
    """
    with evaluating(model):
        calls = [_first_call(model, ids) for ids in batches]
        if not calls:
            raise ValueError("batches must hold at least one batch of ids, got none")
        for number, block in enumerate(model.h):
            layers = {f"h.{number}.{name}": m for name, m in block.named_modules() if isinstance(m, nn.Linear)}
            with _watching(layers) as found:
                for x, rest, options in calls:
                    block(x, *rest, **options)
            yield found()
            calls = [(block(x, *rest, **options)[0], rest, options) for x, rest, options in calls]


class _Called(Exception):
    """The first block was called: all that one wanted to know."""


def _first_call(model: nn.Module, ids: Tensor) -> Call:
    """What the first block is called with, the stream (B, T, C) apart from the rest; no block runs."""

    def look(_module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        raise _Called(args[0], args[1:], options)

    with hooked([model.h[0].register_forward_pre_hook(look, with_kwargs=True)]):
        try:
            model(ids)
        except _Called as call:
            return call.args
    raise ValueError(f"model must run its blocks h, got a {type(model).__name__} that doesn't")


@contextmanager
def _watching(layers: Mapping[str, nn.Module]) -> Iterator[Callable[[], dict[str, InputStatistics]]]:
    """While it runs, gather what layers are fed; the function it gives tells what was gathered."""
    sums: dict[str, tuple[Tensor, Tensor, int]] = {}

    def adder(name: str) -> Callable[..., None]:
        def add(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].flatten(0, -2).float()  # (B·T, in)
            gram, largest, count = sums.get(name, (0.0, x.new_zeros(()), 0))
            sums[name] = gram + x.T @ x, torch.maximum(largest, x.abs().amax(0)), count + len(x)

        return add

    with hooked([layer.register_forward_pre_hook(adder(name)) for name, layer in layers.items()]):
        yield lambda: {name: InputStatistics(gram / n, largest, n) for name, (gram, largest, n) in sums.items()}


def _linear(model: nn.Module, name: str) -> nn.Linear:
    try:
        layer = model.get_submodule(name)
    except AttributeError:
        layer = None
    if not isinstance(layer, nn.Linear):
        raise ValueError(f"names must be linear layers of the model, got {name!r}")
    return layer


@contextmanager
def hooked(handles: Sequence[RemovableHandle]) -> Iterator[None]:
    """Keep hooks for as long as the body runs, whatever happens in it."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for as long as the body runs, then the mode as it was."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
