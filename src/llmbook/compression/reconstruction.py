"""One column at a time, and the columns after it make good what was lost: the loop inside GPTQ and SparseGPT.

A layer y = W x, fed inputs with second moments H = E[x xᵀ], errs by tr(ΔW H ΔWᵀ) if W becomes W + ΔW. Optimal Brain
Surgeon (Hassibi and Stork 1993) says how the weights that are still free should move when one is changed; done
column by column, all rows share one inverse (Frantar et al. 2022, 2023).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Rule = Callable[[int, Tensor], Tensor]  # (j, column (out,)) → what is kept of it, (out,)
Begin = Callable[[Tensor, Tensor], Rule]  # (block (out, b), curvatures (b,)) → the rule for its columns


def layer_error(difference: Tensor, gram: Tensor) -> float:
    """E‖ΔW x‖² = tr(ΔW H ΔWᵀ) of a change ΔW (out, in) under inputs' second moments H (in, in)."""
    return float(((difference @ gram) * difference).sum())


def inverse_factor(gram: Tensor, damping: float = 0.01) -> Tensor:
    """The upper triangular U with Uᵀ U = (H + λ I)⁻¹, (in, in); λ is ``damping`` times the mean of H's diagonal.

    Row j of U, divided by U_jj, says how the columns after j move for each unit that column j loses, and 1 / U_jj² is
    the curvature of the error in column j once the columns before it are settled. Raises ValueError where H with its
    damping is not positive definite.
    """
    if gram.dim() != 2 or gram.shape[0] != gram.shape[1]:
        raise ValueError(f"gram must be square (in, in), got shape {tuple(gram.shape)}")
    if not damping >= 0:
        raise ValueError(f"damping must not be negative, got {damping}")
    damped = gram.double() + damping * gram.diagonal().mean().double() * torch.eye(len(gram), dtype=torch.float64)
    factor, failed = torch.linalg.cholesky_ex(damped)
    if failed:
        raise ValueError("gram must be positive definite with its damping; give more calibration text or more damping")
    return torch.linalg.cholesky(torch.cholesky_inverse(factor), upper=True)


@torch.no_grad()
def reconstruct(weight: Tensor, gram: Tensor, begin: Begin, *, block_size: int = 128, damping: float = 0.01) -> Tensor:
    """W (out, in) with every column put through a rule, and the later columns moved to make good the errors.

    At the start of each block of ``block_size`` columns, ``begin`` sees the block as it stands and the curvatures of
    its columns, and returns the rule. A rule that rounds gives GPTQ, one that puts zeros gives SparseGPT. Raises
    ValueError where the shapes don't fit.
    """
    if weight.shape[1:] != gram.shape[:1]:
        raise ValueError(f"gram must be (in, in) for weight {tuple(weight.shape)}, got {tuple(gram.shape)}")
    if block_size < 1:
        raise ValueError(f"block_size must be at least 1, got {block_size}")
    factor = inverse_factor(gram, damping).to(weight.dtype)  # U
    w = weight.detach().clone()
    for start in range(0, w.shape[1], block_size):
        block, u = w[:, start : start + block_size], factor[start : start + block_size, start:]
        rule = begin(block.clone(), u.diagonal() ** -2)
        errors = torch.empty_like(block)
        for j in range(block.shape[1]):
            kept = rule(j, block[:, j].clone())
            errors[:, j] = (block[:, j] - kept) / u[j, j]
            block[:, j + 1 :] -= errors[:, j, None] * u[j, j + 1 : block.shape[1]]  # (out, b − j − 1)
            block[:, j] = kept
        w[:, start + block_size :] -= errors @ u[:, block.shape[1] :]  # the rest waits for the whole block
    return w
