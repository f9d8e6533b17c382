"""What the layers of a model are, and what their inputs look like on calibration text."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn


def block_linears(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers inside a model's blocks, by name: what compression is about. The head and embeddings are not.

    A block is an entry of an ``nn.ModuleList``, as in ``GPT``, ``Encoder`` and transformers. Raises ValueError where
    there is none.
    """
    lists = [name for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and any(name.startswith(f"{each}.") for each in lists)
    }
    if not found:
        raise ValueError(f"model must hold linear layers within blocks, got a {type(model).__name__} with none")
    return found


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
    sums: dict[str, tuple[Tensor, Tensor, int]] = {}

    def adder(name: str):
        def add(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].flatten(0, -2).float()  # (B·T, in)
            gram, largest, count = sums.get(name, (0.0, x.new_zeros(()), 0))
            sums[name] = gram + x.T @ x, torch.maximum(largest, x.abs().amax(0)), count + len(x)

        return add

    was_training = model.training
    with _hooks(layer.register_forward_pre_hook(adder(name)) for name, layer in layers.items()):
        model.eval()
        for ids in batches:
            model(ids)
    model.train(was_training)
    if not sums:
        raise ValueError("batches must hold at least one batch of ids, got none")
    return {name: InputStatistics(gram / count, largest, count) for name, (gram, largest, count) in sums.items()}


def _linear(model: nn.Module, name: str) -> nn.Linear:
    try:
        layer = model.get_submodule(name)
    except AttributeError:
        layer = None
    if not isinstance(layer, nn.Linear):
        raise ValueError(f"names must be linear layers of the model, got {name!r}")
    return layer


@contextmanager
def _hooks(handles: Iterable[torch.utils.hooks.RemovableHandle]):
    """Keep hooks for as long as a block runs, whatever happens in it."""
    handles = list(handles)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
