"""What would it say if it had to answer now? The stream at each stage, read by the model's own last layer.

The logit lens (nostalgebraist, 2020) takes the final norm and the head as they are; the tuned lens (Belrose et al.,
2023) puts an affine map before them, one for each stage, learned so that its answer is near the model's last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def read_out(model: nn.Module, x: Tensor) -> Tensor:
    """Logits (..., V) of streams x (..., C) by the model's final norm and head; ours, or transformers' Llama."""
    norm = model.ln_f if hasattr(model, "ln_f") else model.model.norm
    return model.lm_head(norm(x))


@torch.no_grad()
def logit_lens(model: nn.Module, stream: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """Logits at each recorded stage; at the last stage they are the model's own."""
    return {stage: read_out(model, x) for stage, x in sorted(stream.items())}


def divergence(final: Tensor, logits: Tensor) -> Tensor:
    """KL(final ‖ lens) at each place, nats: (..., V), (..., V) → (...)."""
    p, q = final.log_softmax(-1), logits.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


@dataclass(frozen=True)
class Translator:
    """x + x A + b: the identity where A and b are 0, as they are before training."""

    A: Tensor  # (C, C)
    b: Tensor  # (C,)

    def __call__(self, x: Tensor) -> Tensor:
        return x + x @ self.A + self.b


def fit_translator(
    model: nn.Module, x: Tensor, final: Tensor, *, steps: int = 200, batch: int = 256, lr: float = 3e-3, seed: int = 0
) -> Translator:
    """The tuned lens of one stage: minimises the mean KL from the model's last logits (N, V), over streams x (N, C).

    The model's own weights are left as they are. ValueError where x and final don't belong together.
    """
    if x.dim() != 2 or len(x) != len(final):
        raise ValueError(f"x must be (N, C) and final (N, V), got {tuple(x.shape)} and {tuple(final.shape)}")
    generator = torch.Generator().manual_seed(seed)
    A = torch.zeros(x.shape[1], x.shape[1], requires_grad=True)
    b = torch.zeros(x.shape[1], requires_grad=True)
    adam = torch.optim.Adam([A, b], lr)
    schedule = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.05, steps)
    goal = final.softmax(-1)
    for _ in range(steps):
        chosen = torch.randint(len(x), (min(batch, len(x)),), generator=generator)
        adam.zero_grad()
        logits = read_out(model, Translator(A, b)(x[chosen]))
        loss = F.cross_entropy(logits, goal[chosen])  # KL up to a constant
        A.grad, b.grad = torch.autograd.grad(loss, [A, b])
        adam.step()
        schedule.step()
    return Translator(A.detach(), b.detach())
