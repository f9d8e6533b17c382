"""Learning from which of two replies is better, and from a number that says how good a reply is.

Masked log-probabilities; the direct preference optimisation of Rafailov et al. (2023); the policy gradient with a
group's mean as baseline (REINFORCE: Williams, 1992; GRPO: Shao et al., 2024); and the closed form that both aim at,
a reference tilted by the exponential of a reward. Shapes: B rows, T tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from llmbook.transformer import GPT, IGNORE


def token_logprobs(model: GPT, input_ids: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """ln q of each token given those before it, and which of them are scored: (B, T − 1) each.

    ``labels`` (B, T) are −100 where a token is read and not written: there the first output is 0.
    """
    _check_same("labels", labels, input_ids)
    logits = model(input_ids).logits[:, :-1]  # (B, T - 1, V)
    scored = labels[:, 1:] != IGNORE
    logs = -F.cross_entropy(logits.flatten(0, 1), input_ids[:, 1:].flatten(), reduction="none")
    return logs.view_as(scored) * scored, scored


def sequence_logprobs(model: GPT, input_ids: Tensor, labels: Tensor) -> Tensor:
    """ln q of what is scored in each row, given the rest: (B,), nats."""
    return token_logprobs(model, input_ids, labels)[0].sum(1)


def supervised_loss(model: GPT, input_ids: Tensor, labels: Tensor) -> Tensor:
    """Mean −ln q per scored token, nats: what fine-tuning on conversations makes small. ()"""
    logs, scored = token_logprobs(model, input_ids, labels)
    if not bool(scored.any()):
        raise ValueError("labels leave nothing to score: every one is -100")
    return -logs.sum() / scored.sum()


# ------------------------------------------------------------ pairs


def preference_probability(better: Tensor, worse: Tensor) -> Tensor:
    """Bradley and Terry's (1952) probability that the first is preferred, from the rewards of both: σ(r₁ − r₂)."""
    return torch.sigmoid(better - worse)


class PreferenceLoss(NamedTuple):
    """The loss of each pair, and the rewards that the policy implies for its two replies: (B,) each."""

    losses: Tensor
    chosen_rewards: Tensor
    rejected_rewards: Tensor


def dpo_loss(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float = 0.1,
) -> PreferenceLoss:
    """−ln σ(β (ln π/π_ref of the chosen − ln π/π_ref of the rejected)), from the four log-probabilities (B,).

    The implied rewards β ln π/π_ref carry no gradient, as in trl. Raises ``ValueError`` for β that is not positive
    and for arguments of different shapes.
    """
    if not beta > 0:
        raise ValueError(f"beta must be positive, got {beta}")
    for name, value in (
        ("policy_rejected", policy_rejected),
        ("reference_chosen", reference_chosen),
        ("reference_rejected", reference_rejected),
    ):
        _check_same(name, value, policy_chosen)
    chosen = beta * (policy_chosen - reference_chosen)
    rejected = beta * (policy_rejected - reference_rejected)
    return PreferenceLoss(-F.logsigmoid(chosen - rejected), chosen.detach(), rejected.detach())


def tilted(reference: Tensor, rewards: Tensor, beta: float) -> Tensor:
    """What maximises E[reward] − β KL(π ‖ reference): reference · exp(reward / β), brought back to 1. (…, N)"""
    if not beta > 0:
        raise ValueError(f"beta must be positive, got {beta}")
    _check_same("rewards", rewards, reference)
    return (reference.log() + rewards / beta).softmax(-1)


def kl_divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p ‖ q) in nats over the last dimension; where p is 0, nothing is added."""
    _check_same("q", q, p)
    return torch.special.xlogy(p, p / q).nan_to_num(0.0).sum(-1)


# ------------------------------------------------------------ rewards


def group_advantages(rewards: Tensor, group_size: int, scale: bool = True, eps: float = 1e-4) -> Tensor:
    """Each reward less the mean of its group, over the group's standard deviation if ``scale``: (B,).

    Groups are consecutive: ``group_size`` replies to one question. The deviation is that of a sample (n − 1), and
    ``eps`` is added to it, as in trl. Raises ``ValueError`` where the groups don't come out even.
    """
    if rewards.ndim != 1 or group_size < 2 or len(rewards) % group_size:
        raise ValueError(f"rewards must be (B,) in groups of at least 2, got {tuple(rewards.shape)} and {group_size}")
    groups = rewards.float().view(-1, group_size)
    centred = groups - groups.mean(1, keepdim=True)
    return (centred / (groups.std(1, keepdim=True) + eps) if scale else centred).flatten()


def policy_loss(
    logprobs: Tensor,
    advantages: Tensor,
    scored: Tensor,
    *,
    old_logprobs: Tensor | None = None,
    reference_logprobs: Tensor | None = None,
    epsilon: float = 0.2,
    beta: float = 0.0,
) -> Tensor:
    """GRPO's loss: −min(ρ A, clip(ρ, 1 ± ε) A) + β k₃ per token, averaged over a reply's tokens, then over replies. ()

    ``logprobs`` and ``scored`` are (B, T), ``advantages`` (B,). ρ is the ratio to the policy that drew the replies;
    without ``old_logprobs`` it is that very policy, ρ is 1, and the gradient is REINFORCE's.
    """
    _check_same("scored", scored, logprobs)
    if advantages.shape != logprobs.shape[:1]:
        raise ValueError(f"advantages must be ({len(logprobs)},), got {tuple(advantages.shape)}")
    old = logprobs.detach() if old_logprobs is None else old_logprobs
    ratio = (logprobs - old).exp()  # (B, T)
    gain = advantages[:, None]
    loss = -torch.minimum(ratio * gain, ratio.clamp(1 - epsilon, 1 + epsilon) * gain)
    if beta:
        if reference_logprobs is None:
            raise ValueError("reference_logprobs must be given where beta is not 0, got None")
        loss = loss + beta * kl_estimates(logprobs, reference_logprobs)
    per_reply = (loss * scored).sum(1) / scored.sum(1).clamp(min=1)
    return per_reply.mean()


def kl_estimates(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """An estimate of KL(π ‖ reference) for each token that π drew, never negative: e^d − d − 1, d = ln ref − ln π.

    Its mean under π is the divergence (Schulman's k₃).
    """
    _check_same("reference_logprobs", reference_logprobs, logprobs)
    d = reference_logprobs - logprobs
    return d.exp() - d - 1


def _check_same(name: str, value: Tensor, like: Tensor) -> None:
    if value.shape != like.shape:
        raise ValueError(f"{name} must have shape {tuple(like.shape)}, got {tuple(value.shape)}")
