"""Privacy, measured and protected: planted secrets, membership, anonymity, private gradients and their accountants.

A model that has seen a text once too often can be made to tell it. The first half of this module measures by how
much: the exposure of a canary, a membership attack, the crowd in which a row of a table hides. The second half is
DP-SGD: the gradient of each example by itself, clipped and blurred, and what a run of it spends of a budget ε.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import scipy.optimize
import scipy.special
import scipy.stats
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from llmbook.transformer import IGNORE
from llmbook.uncertainty import auroc

Floats = NDArray[np.float64]
Gradients = dict[str, Tensor]  # by parameter; each (B, …) where every example has its own

# ------------------------------------------------------------ rows, and training on them


def as_labels(rows: Sequence[Sequence[int]]) -> Tensor:
    """Rows of ids as one tensor (N, T), padded on the right with −100."""
    if not rows or not all(len(row) for row in rows):
        raise ValueError("rows must hold at least one row, and none that is empty")
    tensors = [torch.as_tensor(np.asarray(row, dtype=np.int64)) for row in rows]
    return nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=IGNORE)


def text_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean loss of each row's next tokens, in nats: (B, T, V), (B, T) → (B,); −100 is not scored.

    What a model's own loss does, without the look at the data that ``vmap`` forbids.
    """
    losses = nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), labels[:, 1:], ignore_index=IGNORE, reduction="none"
    )  # (B, T − 1)
    return losses.sum(1) / (labels[:, 1:] != IGNORE).sum(1).clamp(min=1)


def train(
    model: nn.Module,
    batches: Iterable[Tensor],
    optimizer: torch.optim.Optimizer,
    watch: Callable[[int], object] = lambda step: None,
) -> nn.Module:
    """A step for each batch of labels (B, T), every row of equal weight; ``watch(step)`` is told of each, from 1."""
    for step, labels in enumerate(batches, start=1):
        model.train()
        optimizer.zero_grad()
        text_loss(model(labels.clamp(min=0)).logits, labels).mean().backward()
        optimizer.step()
        watch(step)
    return model.eval()


# ------------------------------------------------------------ planted secrets


@torch.no_grad()
def code_logprobs(model: nn.Module, prefix: Sequence[int], digits: Sequence[int], length: int = 3) -> Floats:
    """What a causal model thinks of every code: ln p(code | prefix) of all Dᴸ, (D ** length,), in counting order.

    ``digits`` are the D ids that stand for 0, 1, …; code number 314 is the digits 3, 1, 4. Puts the model into
    evaluation mode.
    """
    if length < 1 or len(set(digits)) != len(digits) or len(digits) < 2:
        raise ValueError(f"want a length of at least 1 and 2 or more different digits, got {length} and {digits}")
    model.eval()
    ids = torch.as_tensor(list(digits))
    begun = torch.cartesian_prod(*[torch.arange(len(ids))] * (length - 1)) if length > 1 else torch.zeros(1, 0)
    begun = begun.long().reshape(len(ids) ** (length - 1), length - 1)  # all but the last digit, (D ** (L−1), L−1)
    rows = torch.cat([torch.as_tensor(list(prefix)).expand(len(begun), -1), ids[begun]], dim=1)
    logits = model(rows).logits[:, len(prefix) - 1 :]  # (D ** (L−1), L, V)
    logp = logits.log_softmax(-1)[..., ids].double()  # of the digits only, among all words
    known = logp[:, :-1].gather(2, begun[..., None])[..., 0].sum(1)  # (D ** (L−1),)
    return (known[:, None] + logp[:, -1]).flatten().numpy()


def exposure(scores: ArrayLike, secret: int) -> float:
    """log₂ R − log₂ rank of the secret among all R candidates (Carlini et al., 2019, eq. 1), in bits.

    ``scores`` (R,) are higher for what a model finds likelier. 0 where the secret comes last, log₂ R where it
    comes first, and a little over 1.44 − (log₂ R)/R on average where the model knows nothing. Ties count against it.
    """
    x = np.asarray(scores, dtype=float)
    if x.ndim != 1 or x.size < 2 or np.isnan(x).any():
        raise ValueError(f"scores must be an (R,) array of at least 2 numbers, got shape {x.shape}")
    if not 0 <= secret < x.size:
        raise ValueError(f"secret must be a place in 0..{x.size - 1}, got {secret}")
    return math.log2(x.size) - math.log2(int((x >= x[secret]).sum()))


def drop_copies(rows: Sequence[Sequence[int]]) -> list[Sequence[int]]:
    """Each row once, at its first place: exact deduplication."""
    seen: set[tuple[int, ...]] = set()
    return [row for row in rows if (key := tuple(map(int, row))) not in seen and not seen.add(key)]


def drop_overlaps(rows: Sequence[Sequence[int]], run: int) -> list[Sequence[int]]:
    """The rows, in order, that share no run of ``run`` tokens with one that was kept (Lee et al., 2022, in small)."""
    if run < 1:
        raise ValueError(f"run must be at least 1 token, got {run}")
    seen: set[tuple[int, ...]] = set()
    kept = []
    for row in rows:
        runs = {tuple(map(int, row[i : i + run])) for i in range(len(row) - run + 1)}
        if not runs & seen:
            kept.append(row)
            seen |= runs
    return kept


# ------------------------------------------------------------ membership


def true_positives_at(scores: ArrayLike, members: ArrayLike, false_positives: float = 0.01) -> float:
    """The share of members above the threshold that at most this share of the others pass (Carlini et al., 2022)."""
    s, m = _scores_and_members(scores, members)
    if not 0 <= false_positives < 1:
        raise ValueError(f"false_positives must lie in [0, 1), got {false_positives}")
    others = np.sort(s[~m])[::-1]
    threshold = others[int(false_positives * len(others))]  # so many others lie above it
    return float((s[m] > threshold).mean())


def area_under_roc(scores: ArrayLike, members: ArrayLike) -> float:
    """The chance that a member scores above another text, ties by half: Mann and Whitney's statistic."""
    return auroc(*_scores_and_members(scores, members))


def likelihood_ratio(losses: ArrayLike, trained: ArrayLike, target: int) -> Floats:
    """LiRA in its smallest form: for each text, how much likelier its loss is if the target was trained on it.

    ``losses`` (M, N) are those of M models on N texts, ``trained`` (M, N) says which model saw which text; all
    but ``target`` are shadow models. Each text has its own two means, over the shadows that saw it and those that
    did not; both Gaussians share one variance (Carlini et al., 2022, section VI.B), so the log-ratio is
    (ℓ − μ_out)² − (ℓ − μ_in)² over 2σ². Returns (N,) scores, higher for likelier members.
    """
    x, seen = np.asarray(losses, dtype=float), np.asarray(trained, dtype=bool)
    if x.ndim != 2 or x.shape != seen.shape or not 0 <= target < len(x):
        raise ValueError(
            f"losses and trained must be (M, N) with target below M, got {x.shape}, {seen.shape}, {target}"
        )
    shadows = np.arange(len(x)) != target
    inside, outside = seen & shadows[:, None], ~seen & shadows[:, None]
    if not (inside.any(0) & outside.any(0)).all():
        raise ValueError("each text must be seen by a shadow model and be unknown to another")
    mu_in, mu_out = (np.average(x, axis=0, weights=which) for which in (inside, outside))
    rest = np.where(seen, x - mu_in, x - mu_out)[shadows]
    freedom = max(1, rest.size - 2 * x.shape[1])  # two means for each text
    return ((x[target] - mu_out) ** 2 - (x[target] - mu_in) ** 2) / (2 * (rest**2).sum() / freedom)


def _scores_and_members(scores: ArrayLike, members: ArrayLike) -> tuple[Floats, NDArray[np.bool_]]:
    s, m = np.asarray(scores, dtype=float), np.asarray(members, dtype=bool)
    if s.ndim != 1 or s.shape != m.shape or not m.any() or m.all():
        raise ValueError(f"scores and members must be (N,), with members and others; got {s.shape} and {m.shape}")
    return s, m


# ------------------------------------------------------------ anonymity


def crowd_sizes(table: Sequence[Mapping[str, object]], columns: Sequence[str]) -> NDArray[np.int64]:
    """For each row, how many rows agree with it in these columns, itself among them (N,). The least is k.

    A table is k-anonymous for quasi-identifiers ``columns`` if no crowd is smaller than k (Sweeney, 2002).
    """
    if not table or not set(columns) <= set(table[0]):
        raise ValueError(f"table must have rows, and the columns {list(columns)}")
    keys = [tuple(row[c] for c in columns) for row in table]
    counts = Counter(keys)
    return np.array([counts[key] for key in keys])


# ------------------------------------------------------------ DP-SGD


def per_sample_gradients(
    model: nn.Module, labels: Tensor, loss: Callable[[Tensor, Tensor], Tensor] = text_loss
) -> Gradients:
    """The gradient of each row's own loss: {parameter: (B, …)} for labels (B, T).

    ``torch.func`` in three words: ``functional_call`` makes the model a function of its weights, ``grad``
    differentiates it for one row, ``vmap`` does so for all rows at once. Padding (−100) is read as token 0.
    """
    if labels.ndim != 2:
        raise ValueError(f"labels must be (B, T), got shape {tuple(labels.shape)}")
    weights = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}

    def row_loss(weights: Gradients, row: Tensor) -> Tensor:
        return loss(functional_call(model, weights, (row.clamp(min=0)[None],)).logits, row[None]).sum()

    with sdpa_kernel(SDPBackend.MATH):  # the fused kernel has no rule for vmap
        return vmap(grad(row_loss), in_dims=(None, 0))(weights, labels)


def sum_by(gradients: Gradients, owners: Tensor) -> Gradients:
    """Gradients of rows (B, …) added up by their owners (B,): one gradient for each owner who occurs, (U, …)."""
    different, place = owners.unique(return_inverse=True)
    return {name: torch.zeros(len(different), *g.shape[1:]).index_add_(0, place, g) for name, g in gradients.items()}


def gradient_norms(gradients: Gradients) -> Tensor:
    """The length of each example's gradient over all parameters, (B,)."""
    return torch.stack([g.flatten(1).square().sum(1) for g in gradients.values()]).sum(0).sqrt()


def private_gradient(
    gradients: Gradients, clip: float, noise_multiplier: float, expected: float, generator: torch.Generator
) -> Gradients:
    """DP-SGD's gradient (Abadi et al., 2016): clip each example's to length ``clip``, add up, add noise, divide.

    The noise is Gaussian with standard deviation ``noise_multiplier · clip`` in each coordinate. Divided by the
    *expected* number of examples, since the true one is a secret too.
    """
    for name, value in {"clip": clip, "expected": expected}.items():
        if not value > 0:
            raise ValueError(f"{name} must be positive, got {value}")
    if not noise_multiplier >= 0:
        raise ValueError(f"noise_multiplier must not be negative, got {noise_multiplier}")
    shrink = (clip / gradient_norms(gradients).clamp(min=1e-12)).clamp(max=1)  # (B,)
    found = {}
    for name, g in gradients.items():
        noise = torch.randn(g.shape[1:], generator=generator) * noise_multiplier * clip
        found[name] = (torch.tensordot(shrink, g, 1) + noise) / expected
    return found


def poisson_sample(n: int, rate: float, rng: np.random.Generator) -> Tensor:
    """Each of n examples by itself with probability ``rate``: what the accountants assume. (k,) places."""
    if not 0 < rate <= 1:
        raise ValueError(f"rate must lie in (0, 1], got {rate}")
    return torch.from_numpy(np.flatnonzero(rng.random(n) < rate))


# ------------------------------------------------------------ accountants

ORDERS = tuple(1 + x / 10 for x in range(1, 100)) + tuple(range(12, 64))  # Opacus'


def privacy_loss(z: ArrayLike, rate: float, sigma: float) -> Floats:
    """ln of (1 − q) N(0, σ²) + q N(1, σ²) over N(0, σ²) at z: how much an output tells for an example's presence."""
    x = (2 * np.asarray(z, dtype=float) - 1) / (2 * sigma**2)
    return np.logaddexp(np.log1p(-rate) if rate < 1 else -np.inf, np.log(rate) + x)


def rdp(rate: float, sigma: float, orders: ArrayLike = ORDERS) -> Floats:
    """Rényi divergence of one step of the subsampled Gaussian, at each order α > 1 (Mironov et al., 2019), in nats.

    ln E[e^{α L(z)}] / (α − 1) with z from N(0, σ²) and L the privacy loss; the integral is done on a grid.
    """
    _check_mechanism(rate, sigma)
    alpha = np.asarray(orders, dtype=float)[:, None]
    if not (alpha > 1).all():
        raise ValueError(f"orders must all be above 1, got {alpha.min()}")
    z = np.arange(-14 * sigma, 14 * sigma + alpha.max(), sigma / 10)  # e^{αL} moves the mean to α at most
    density = scipy.stats.norm.logpdf(z, 0, sigma)
    moments = scipy.special.logsumexp(alpha * privacy_loss(z, rate, sigma) + density, axis=1) + np.log(z[1] - z[0])
    return np.maximum(moments, 0) / (alpha[:, 0] - 1)


def rdp_epsilon(rate: float, sigma: float, steps: int, delta: float, orders: ArrayLike = ORDERS) -> float:
    """ε of a run by Rényi divergences: they add up over steps, and the best order is converted.

    ε = min over α of T·RDP(α) + ln((α − 1)/α) − (ln δ + ln α)/(α − 1) (Canonne, Kamath and Steinke, 2020).
    """
    _check_run(steps, delta)
    alpha = np.asarray(orders, dtype=float)
    spent = steps * rdp(rate, sigma, alpha) + np.log1p(-1 / alpha) - (np.log(delta) + np.log(alpha)) / (alpha - 1)
    return float(max(0.0, spent.min()))


def prv_epsilon(
    rate: float, sigma: float, steps: int, delta: float, *, spacing: float = 5e-4, reach: float = 60
) -> float:
    """ε of a run by the distribution of its privacy loss itself (Gopi et al., 2021): an estimate, not a bound.

    The losses of steps are independent, so that of the run is their sum: one step's distribution on a grid from
    −reach to reach, raised to a power by the fast Fourier transform. δ(ε) = E[(1 − e^{ε − L})₊] is solved for ε.
    """
    _check_mechanism(rate, sigma)
    _check_run(steps, delta)
    half = round(reach / spacing)
    grid = spacing * np.arange(-half, half)
    pmf = np.diff(_loss_cdf(spacing * (np.arange(-half, half + 1) - 0.5), rate, sigma))
    shifted = np.fft.ifftshift(pmf)  # loss 0 at the first place
    total = np.fft.fftshift(np.fft.irfft(np.fft.rfft(shifted) ** steps, n=len(pmf)))

    def excess(epsilon: float) -> float:
        over = grid > epsilon
        return float((total[over] * -np.expm1(epsilon - grid[over])).sum()) - delta

    return 0.0 if excess(0.0) <= 0 else float(scipy.optimize.brentq(excess, 0.0, reach - spacing))


def _loss_cdf(loss: Floats, rate: float, sigma: float) -> Floats:
    """P(L ≤ loss), z drawn with the example present: L grows with z, so one looks up z."""
    above = np.expm1(loss) + rate  # e^L − (1 − q)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(above > 0, sigma**2 * (np.log(above) - np.log(rate)) + 0.5, -np.inf)
    return (1 - rate) * scipy.stats.norm.cdf(z / sigma) + rate * scipy.stats.norm.cdf((z - 1) / sigma)


def _check_mechanism(rate: float, sigma: float) -> None:
    if not 0 < rate <= 1:
        raise ValueError(f"rate must lie in (0, 1], got {rate}")
    if not sigma > 0:
        raise ValueError(f"sigma must be positive, got {sigma}: without noise no budget is enough")


def _check_run(steps: int, delta: float) -> None:
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if not 0 < delta < 1:
        raise ValueError(f"delta must lie in (0, 1), got {delta}")
