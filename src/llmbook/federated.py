"""Federated learning in small: averaged models, sums that nobody can open, gradients that tell, clients as processes.

The loop in one process and the clients under torchrun share ``local_update``; everything random follows from a seed,
a round and a client's number, so both see the same batches. ``torchrun … -m llmbook.federated averaging`` runs what
:func:`llmbook.parallel.launch.launch` starts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from llmbook.parallel.__main__ import main
from llmbook.privacy import per_sample_gradients, train
from llmbook.transformer import GPT, GPTConfig

State = dict[str, Tensor]
Words = NDArray[np.uint64]  # numbers modulo 2⁶⁴

# ------------------------------------------------------------ averaging


def average(states: Sequence[Mapping[str, Tensor]], weights: Sequence[float]) -> State:
    """The weighted mean of models, parameter by parameter: w ← Σ (n_k / n) w_k (McMahan et al., 2017)."""
    share = np.asarray(weights, dtype=float)
    if len(states) != len(share) or not len(share) or not (share >= 0).all() or not share.sum() > 0:
        raise ValueError(f"want a weight that is not negative for each of {len(states)} states, got {list(share)}")
    share = share / share.sum()
    return {name: sum(float(s) * state[name] for s, state in zip(share, states, strict=True)) for name in states[0]}


def batch_of(rows: Tensor, size: int, key: Sequence[int]) -> Tensor:
    """``size`` different rows (B, T), drawn by the key (seed, round, client, step): the same wherever it is asked."""
    if not 1 <= size <= len(rows):
        raise ValueError(f"size must lie in 1..{len(rows)}, got {size}")
    return rows[torch.from_numpy(np.random.default_rng(list(key)).permutation(len(rows))[:size])]


def local_update(
    model: nn.Module, batches: Sequence[Tensor], optimizer: torch.optim.Optimizer | None = None, lr: float = 0.1
) -> nn.Module:
    """Train ``model`` in place, one step for each batch of labels (B, T); plain descent without ``optimizer``."""
    return train(model, batches, optimizer or torch.optim.SGD(model.parameters(), lr=lr))


def federated_round(
    model: nn.Module,
    clients: Sequence[Tensor],
    train: Callable[[nn.Module, int], object],
    scratch: nn.Module,
) -> list[State]:
    """One round: each client trains a copy of ``model``, and the mean by their sizes replaces it.

    ``train(copy, k)`` trains in place on client k's rows; ``scratch`` is a model of the same shape to work in.
    Returns the clients' models, which a server without secure aggregation would see.
    """
    start = {name: p.detach().clone() for name, p in model.state_dict().items()}
    states = []
    for k in range(len(clients)):
        scratch.load_state_dict(start)
        train(scratch, k)
        states.append({name: p.detach().clone() for name, p in scratch.state_dict().items()})
    model.load_state_dict(average(states, [len(rows) for rows in clients]))
    return states


# ------------------------------------------------------------ sums that nobody can open

SCALE = 2.0**32  # a number is sent as a whole multiple of 2⁻³²


def encode(values: ArrayLike) -> Words:
    """Numbers as whole ones modulo 2⁶⁴, in steps of 2⁻³²; those below 0 as their complement."""
    x = np.asarray(values, dtype=float)
    if not (np.isfinite(x).all() and (np.abs(x) < 2.0**30).all()):
        raise ValueError("values must be finite and below 2^30 in size, so that sums do not wrap")
    return np.rint(x * SCALE).astype(np.int64).view(np.uint64)


def decode(words: Words) -> NDArray[np.float64]:
    """The numbers that :func:`encode` wrote, or their sum."""
    return np.asarray(words, dtype=np.uint64).view(np.int64) / SCALE


def mask_for(client: int, clients: int, size: int, seed: int) -> Words:
    """The mask that a client adds: + a secret shared with each later client, − that with each earlier one (size,).

    Modulo 2⁶⁴ all clients' masks add up to 0 (Bonawitz et al., 2017, without their care for clients who leave). A
    real system agrees on each pair's secret by a key exchange; here it follows from the seed and the pair.
    """
    if not 0 <= client < clients:
        raise ValueError(f"client must lie in 0..{clients - 1}, got {client}")
    total = np.zeros(size, dtype=np.uint64)
    for other in range(clients):
        if other != client:
            pair = [seed, *sorted((client, other))]
            shared = np.random.default_rng(pair).integers(2**64, size=size, dtype=np.uint64)
            total = total + shared if client < other else total - shared
    return total


# ------------------------------------------------------------ gradients that tell


def tokens_in_gradient(embedding_gradient: Tensor) -> list[int]:
    """The tokens of a batch, from the gradient of an untied input embedding (V, C): its rows that are not 0."""
    return embedding_gradient.abs().sum(1).nonzero().flatten().tolist()


def read_gradient(
    model: nn.Module,
    gradient: Mapping[str, Tensor],
    ends: tuple[int, int],
    length: int,
    rng: np.random.Generator,
    tries: int = 10,
) -> tuple[list[int], float]:
    """The text whose gradient was sent, and the squared distance between its gradient and that one.

    The embedding betrays which tokens there are; then their order is sought for which the gradients agree: from a
    random one, exchange two stretches or replace a token as long as the distance falls, and begin anew up to
    ``tries`` times (the discrete part of Balunović et al., 2022). Knows the first and last token (``ends``) and the
    length. One text at a time.
    """
    present = [t for t in tokens_in_gradient(gradient["wte.weight"]) if t not in ends]
    if not present or length < 2 + len(present):
        raise ValueError(f"length must be at least {2 + len(present)}, for the tokens that are present; got {length}")
    found: tuple[list[int], float] = ([], np.inf)
    for _ in range(tries):
        inner = [*present, *rng.choice(present, length - 2 - len(present))]
        row = [ends[0], *map(int, rng.permutation(inner)), ends[1]]
        found = min(found, _descend(model, gradient, row, present), key=lambda pair: pair[1])
        if found[1] < 1e-9:
            break
    return found


def _descend(
    model: nn.Module, gradient: Mapping[str, Tensor], row: list[int], present: Sequence[int]
) -> tuple[list[int], float]:
    """The nearest row by single changes, and its distance."""
    best = float(_distances(model, [row], gradient)[0])
    while True:
        rows = list(_neighbours(row, present))
        distances = _distances(model, rows, gradient)
        place = int(distances.argmin())
        if float(distances[place]) >= best:
            return row, best
        row, best = rows[place], float(distances[place])


def _neighbours(row: list[int], present: Sequence[int]) -> Iterator[list[int]]:
    """Rows with two neighbouring stretches exchanged, or with one inner token replaced by another that is present."""
    for i, j, k in itertools.combinations(range(1, len(row)), 3):
        yield [*row[:i], *row[j:k], *row[i:j], *row[k:]]
    for i in range(1, len(row) - 1):
        for token in present:
            if token != row[i]:
                yield [*row[:i], token, *row[i + 1 :]]


def _distances(model: nn.Module, rows: Sequence[list[int]], gradient: Mapping[str, Tensor]) -> Tensor:
    """Squared distance of each row's own gradient to the one that was sent (N,)."""
    own = per_sample_gradients(model, torch.tensor(rows))
    return torch.stack([(g - gradient[name]).flatten(1).square().sum(1) for name, g in own.items()]).sum(0)


# ------------------------------------------------------------ clients as processes

CONFIG = GPTConfig(32, 12, n_embd=32, n_layer=1, n_head=2, positions="rotary", initializer_range=0.1)
ROUNDS, STEPS, SIZES = 2, 3, (24, 12, 6, 18)  # of the lesson; how many rows each of up to four clients holds


def averaging(seed: int) -> dict[str, float]:
    """Rounds by processes, a client each, in the open and under masks, against the loop in one process."""
    rank, n = dist.get_rank(), dist.get_world_size()
    start = {k: p.detach().clone() for k, p in _model(seed).state_dict().items()}
    open_model, masked = _model(seed), _model(seed)
    for number in range(ROUNDS):
        _train(open_model, rank, number, seed)
        _exchange(open_model, rank, n)
        _train(masked, rank, number, seed)
        sent = _exchange(masked, rank, n, seed=1000 * seed + number)
    loop = _loop(seed, n)
    kept = decode(np.asarray(sent).view(np.uint64))
    return {
        "open": _gap(open_model.state_dict(), loop),
        "masked": _gap(masked.state_dict(), loop),
        "moved": _gap(start, loop),
        "seen": float(np.abs(kept).mean()),  # what the others would read in a masked message: noise, 2³⁰ on average
        "clients": n,
    }


def _exchange(model: nn.Module, rank: int, n: int, seed: int | None = None) -> NDArray[np.int64]:
    """Replace the model by the clients' mean; with a seed, each sends its share masked. Returns what it sent."""
    share = SIZES[rank] / sum(SIZES[:n])
    flat = torch.nn.utils.parameters_to_vector(model.parameters()).detach().double() * share
    if seed is None:
        dist.all_reduce(flat)
        sent, total = np.zeros(1, dtype=np.int64), flat
    else:
        words = encode(flat.numpy()) + mask_for(rank, n, len(flat), seed)
        message = torch.from_numpy(words.view(np.int64).copy())
        sent = message.numpy().copy()
        dist.all_reduce(message)  # whole numbers wrap: a sum modulo 2⁶⁴
        total = torch.from_numpy(decode(message.numpy().view(np.uint64)))
    torch.nn.utils.vector_to_parameters(total.float(), model.parameters())
    return sent


def _loop(seed: int, n: int) -> State:
    """The same rounds in one process."""
    model, scratch = _model(seed), _model(seed)
    clients = [_rows(seed, k) for k in range(n)]
    for number in range(ROUNDS):
        federated_round(model, clients, lambda m, k, number=number: _train(m, k, number, seed), scratch)
    return model.state_dict()


def _train(model: nn.Module, client: int, number: int, seed: int) -> None:
    rows = _rows(seed, client)
    local_update(model, [batch_of(rows, 4, (seed, number, client, step)) for step in range(STEPS)], lr=0.5)


def _rows(seed: int, client: int) -> Tensor:
    """A client's own texts: each has its favourite half of the vocabulary, so that no two are alike."""
    rng = np.random.default_rng([seed, client])
    favourites = rng.permutation(CONFIG.vocab_size)[: CONFIG.vocab_size // 2]
    return torch.from_numpy(favourites[rng.integers(len(favourites), size=(SIZES[client], CONFIG.n_positions))])


def _model(seed: int) -> GPT:
    return GPT(CONFIG, generator=torch.Generator().manual_seed(seed))


def _gap(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    return max(float((a[name] - b[name]).abs().max()) for name in a)


if __name__ == "__main__":
    main({"averaging": averaging})
