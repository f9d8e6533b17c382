"""Muon from scratch, and several optimisers that a training loop takes for one.

Muon (Jordan et al. 2024) steps along the momentum with all its singular values made about equal, the steepest
descent where a matrix is measured by its spectral norm. It is for the matrices inside the blocks; embeddings, the
head and vectors stay with AdamW.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

ADJUSTMENTS = (None, "original", "match_rms_adamw")


def orthogonalize(
    matrix: Tensor,
    ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
    ns_steps: int = 5,
    eps: float = 1e-7,
    dtype: torch.dtype = torch.bfloat16,
) -> Tensor:
    r"""Newton-Schulz: the matrix (n, m) with singular values near 1 and its own singular vectors, in ``dtype``.

    Each step applies the odd polynomial :math:`\sigma \mapsto a\sigma + b\sigma^3 + c\sigma^5` to every singular
    value, by products alone. The default coefficients are Jordan's: steep at zero, and they leave values between
    about 0.7 and 1.2, not exactly 1. Raises ``ValueError`` for what is no matrix.
    """
    if matrix.ndim != 2:
        raise ValueError(f"matrix must have two dimensions, got shape {tuple(matrix.shape)}")
    a, b, c = ns_coefficients
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.mT if tall else matrix).to(dtype)  # (n, m) with n ≤ m: the smaller Gram matrix
    x = x / x.norm().clamp(min=eps)  # no singular value above 1
    for _ in range(ns_steps):
        gram = x @ x.mT  # (n, n)
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)  # a X + (b G + c G²) X
    return x.mT if tall else x


def adjusted_lr(lr: float, adjust_lr_fn: str | None, shape: tuple[int, ...]) -> float:
    """Muon's rate for a matrix of a shape (n, m).

    ``"original"`` (and None): × √max(1, n/m). ``"match_rms_adamw"`` (Liu et al. 2025): × 0.2 √max(n, m), so that an
    entry moves by about 0.2 of the rate in the root mean square, as under AdamW, whose rates can then be kept.
    """
    n, m = shape
    if adjust_lr_fn == "match_rms_adamw":
        return lr * 0.2 * math.sqrt(max(n, m))
    return lr * math.sqrt(max(1.0, n / m))


class Muon(Optimizer):
    """MomentUm Orthogonalised by Newton-Schulz; names, defaults and numbers are those of ``torch.optim.Muon``.

    ``ns_dtype`` is ours: the precision of Newton-Schulz, for processors that are slow at bfloat16.
    Raises ``ValueError`` for a parameter that is no matrix, and for settings out of their range.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
        *,
        ns_dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        for name, value in {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "ns_steps": ns_steps}.items():
            if not value >= 0:
                raise ValueError(f"{name} must not be negative, got {value}")
        if adjust_lr_fn not in ADJUSTMENTS:
            raise ValueError(f"adjust_lr_fn must be one of {ADJUSTMENTS}, got {adjust_lr_fn!r}")
        settings = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov}
        settings |= {"ns_coefficients": ns_coefficients, "eps": eps, "ns_steps": ns_steps, "adjust_lr_fn": adjust_lr_fn}
        super().__init__(params, settings)
        self.ns_dtype = ns_dtype

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's, and refuses what is no matrix."""
        super().add_param_group(param_group)
        for p in self.param_groups[-1]["params"]:
            if p.ndim != 2:
                raise ValueError(f"params must be matrices, got one of shape {tuple(p.shape)}: leave it to AdamW")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every matrix that has a gradient; returns what ``closure`` gives, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, group)
        return loss

    def _update(self, p: Tensor, group: dict[str, Any]) -> None:
        state, mu = self.state[p], group["momentum"]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(p)
        mean = state["momentum_buffer"].lerp_(p.grad, 1 - mu)  # M ← μ M + (1 − μ) G
        ahead = p.grad.lerp(mean, mu) if group["nesterov"] else mean  # Nesterov: where M is going
        how = tuple(group["ns_coefficients"]), group["ns_steps"], group["eps"], self.ns_dtype
        update = orthogonalize(ahead, *how)
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.add_(update, alpha=-adjusted_lr(group["lr"], group["adjust_lr_fn"], p.shape))


class Combined(Optimizer):
    """Several optimisers as one, each for its own parameters: to step, to save, and to load.

    The groups are the parts' own, so that a schedule which sets their rates reaches the parts.
    """

    def __init__(self, *parts: Optimizer) -> None:
        if not parts:
            raise ValueError("parts must hold at least one optimiser, got none")
        super().__init__([dict(group) for part in parts for group in part.param_groups], {})
        self.parts = parts
        self._share()

    def _share(self) -> None:
        """Give each part its own of the groups, and the one state."""
        start = 0
        for part in self.parts:
            end = start + len(part.param_groups)
            part.param_groups, part.state = self.param_groups[start:end], self.state
            start = end

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step of every part; returns what ``closure`` gives, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's; the parts go on from what was loaded."""
        super().load_state_dict(state_dict)
        self._share()


def newton_schulz_flops(shape: tuple[int, ...], ns_steps: int = 5) -> int:
    """Operations of :func:`orthogonalize` on a matrix of a shape, in its matrix products: X Xᵀ, G G and G X."""
    n, m = min(shape), max(shape)
    return ns_steps * (2 * n * n * m + 2 * n**3 + 2 * n * n * m)


def block_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The matrices inside the blocks of a model whose blocks are called ``h.0``, ``h.1``, …: what Muon is for."""
    inside = re.compile(r"(^|\.)h\.\d+\.")
    return [p for name, p in model.named_parameters() if p.requires_grad and p.ndim == 2 and inside.search(name)]


def muon_and_adamw(
    model: nn.Module,
    lr: float = 1e-3,
    weight_decay: float = 0.1,
    betas: tuple[float, float] = (0.9, 0.95),
    momentum: float = 0.95,
    adjust_lr_fn: str | None = "match_rms_adamw",
    ns_dtype: torch.dtype = torch.bfloat16,
) -> Combined:
    """One optimiser for ``fit``: Muon for the matrices inside the blocks, AdamW for the rest, at one rate.

    Like the loop's own AdamW it decays matrices, and leaves vectors alone. Raises ``ValueError`` for a model
    without blocks.
    """
    matrices = block_matrices(model)
    if not matrices:
        raise ValueError("model must have matrices in blocks called h.0, h.1, …, found none")
    taken = set(matrices)
    rest = [p for p in model.parameters() if p.requires_grad and p not in taken]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    muon = Muon(matrices, lr, weight_decay, momentum, adjust_lr_fn=adjust_lr_fn, ns_dtype=ns_dtype)
    adamw = torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, betas=betas, fused=True)
    return Combined(muon, adamw)
