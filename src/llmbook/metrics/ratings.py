"""Ranking by games: the model of Zermelo (1929), Bradley and Terry (1952), and Elo's running estimate of it."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Game = tuple[int, int, float]  # player, opponent, and what the player got: 1 for a win, 1/2 a draw, 0 a loss
SCALE = 400 / math.log(10)  # Elo's points for one nat of log-odds


def win_probability(rating: ArrayLike, other: ArrayLike) -> NDArray[np.float64]:
    """That of the first to win, ratings in Elo's points: 1 / (1 + 10^((other − rating) / 400))."""
    return 1 / (1 + 10 ** ((np.asarray(other, dtype=float) - np.asarray(rating, dtype=float)) / 400))


def elo(games: Iterable[Game], players: int, k: float = 16.0, start: float = 1000.0) -> NDArray[np.float64]:
    """Ratings (players,) after the games, in this order (Elo, 1978).

    After each game the player gains k · (result − expected) points and the opponent loses them: a step of gradient
    ascent on the log-likelihood of the model of Bradley and Terry, so it never settles, and the last games count most.
    """
    if not k > 0:
        raise ValueError(f"k must be above 0, got {k}")
    ratings = np.full(players, float(start))
    for i, j, result in games:
        _check_game(i, j, result, players)
        gain = k * (result - float(win_probability(ratings[i], ratings[j])))
        ratings[i] += gain
        ratings[j] -= gain
    return ratings


def wins_of(games: Iterable[Game], players: int) -> NDArray[np.float64]:
    """How often i beat j, (players, players); a draw is half a win for both."""
    wins = np.zeros((players, players))
    for i, j, result in games:
        _check_game(i, j, result, players)
        wins[i, j] += result
        wins[j, i] += 1 - result
    return wins


def bradley_terry(wins: ArrayLike, tol: float = 1e-10, rounds: int = 10_000) -> NDArray[np.float64]:
    """Log-strengths (K,) of maximum likelihood, mean 0: P(i beats j) = e^(sᵢ) / (e^(sᵢ) + e^(sⱼ)).

    By Zermelo's fixed point πᵢ ← (wins of i) / Σⱼ n_ij / (πᵢ + πⱼ), which never lowers the likelihood (Hunter, 2004).
    Raises ValueError where no maximum exists: some group of players never lost to the rest, or never met it.
    """
    w = np.asarray(wins, dtype=float)
    if w.ndim != 2 or w.shape[0] != w.shape[1] or (w < 0).any() or np.diag(w).any():
        raise ValueError(f"wins must be a (K, K) matrix of counts with an empty diagonal, got shape {w.shape}")
    if not _strongly_connected(w > 0):
        raise ValueError("wins must connect all players: some group never lost to the others, or never met them")
    games, won = w + w.T, w.sum(1)
    strength = np.ones(len(w))
    for _ in range(rounds):
        new = won / (games / (strength[:, None] + strength[None, :])).sum(1)
        new /= np.exp(np.log(new).mean())
        if np.abs(np.log(new / strength)).max() < tol:
            return np.log(new)
        strength = new
    return np.log(strength)


def to_elo(log_strengths: ArrayLike, start: float = 1000.0) -> NDArray[np.float64]:
    """Log-strengths in Elo's points around ``start``."""
    return start + SCALE * np.asarray(log_strengths, dtype=float)


def _strongly_connected(beats: NDArray[np.bool_]) -> bool:
    """Whether each player beat each other one, directly or over others."""
    reach = beats | np.eye(len(beats), dtype=bool)
    for _ in range(len(beats)):
        reach = reach | ((reach.astype(float) @ reach.astype(float)) > 0)
    return bool(reach.all())


def _check_game(i: int, j: int, result: float, players: int) -> None:
    if not (0 <= i < players and 0 <= j < players and i != j and 0 <= result <= 1):
        raise ValueError(f"games must be of two of {players} players with a result from 0 to 1, got {(i, j, result)}")
