"""Activation checkpointing: keep each block's input only, and compute the rest again on the way back."""

from __future__ import annotations

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from llmbook.transformer import GPT


class Recomputed(nn.Module):
    """A block that forgets what it computed and computes it again when its gradient is asked for (Chen et al., 2016).

    Returns no keys and values: they would be kept alive until the last block.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, *args, **kwargs) -> tuple[Tensor, None]:
        return checkpoint(lambda y: self.block(y, *args, **kwargs)[0], x, use_reentrant=False), None


def recompute_blocks(model: GPT) -> GPT:
    """The model, changed in place: each of its blocks :class:`Recomputed`. Same gradients, less memory, more work."""
    model.h = nn.ModuleList(Recomputed(block) for block in model.h)
    return model
