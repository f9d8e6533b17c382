"""Training our GPT beside transformers' GPT-2: tokens per second, end loss and peak memory, one thread.

``python tests/benchmarks/bench_training.py`` (about five minutes) trains nanoGPT's small recipe on characters:
4 layers, 4 heads, width 128, blocks of 64, batches of 12, no dropout, 65 symbols. Ours runs through ``fit``,
checks, records and all; a peer runs what a user of transformers writes. All begin with the same weights, see
the same batches in the same order and follow the same schedule with AdamW.

Everybody takes a step in turn, the peers inside ``fit``'s callback, so that a busy machine slows all alike. The
clock is the process's CPU time, which other programs disturb least; on one thread it is the wall clock of an
idle machine. The median step counts, after a warm-up, which leaves the time to compile out. A "tuned" peer is
shown too: transformers with the settings that ``fit`` makes by itself. Memory is what
the tensors of a first step occupy at most, gradients and the optimiser's moments included, weights not.
Exits with 1 when a bound is not met.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before the libraries load

import contextlib
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, replace

import torch
from torch import nn
from transformers import GPT2LMHeadModel
from transformers.utils import logging

from llmbook import corpora
from llmbook.profiling import peak_memory
from llmbook.training import TrainingArguments, fit, learning_rate, packed_batches
from llmbook.transformer import GPT, GPTConfig

SYMBOLS, WARM_UP = 65, 20
CONFIG = GPTConfig(vocab_size=SYMBOLS, n_positions=64, n_embd=128, n_layer=4, n_head=4)
RECIPE = TrainingArguments(max_steps=300, batch_size=12, block_size=64, learning_rate=1e-3, warmup_steps=20)
SHOWN = 80  # steps of the races that have no bound
EQUAL = 1e-3  # nats: how far apart the end losses may lie in float32


@dataclass(frozen=True)
class Way:
    """How a model is run: precision and compilation for both libraries, the rest for transformers only."""

    precision: str = "float32"
    compiled: bool = False
    attention: str = "eager"
    tuned: bool = False  # what ``fit`` does: AdamW in one kernel, and products by oneDNN ("medium")
    bound: float | None = None  # least speed of ours as a multiple; None: only shown

    def __str__(self) -> str:
        compiled = ", compiled" if self.compiled else ""
        return f"{self.attention}{', tuned' * self.tuned}, {self.precision}{compiled}"


RACES = {  # ours: its peers; transformers' eager float32 is in each, so that all ratios have one base
    Way(): (Way(bound=1.2), Way(attention="sdpa", bound=1.2), Way(tuned=True)),
    Way("bfloat16"): (Way(), Way("bfloat16", attention="sdpa")),
    Way(compiled=True): (Way(), Way(compiled=True, attention="sdpa")),
    Way("bfloat16", compiled=True): (Way(), Way("bfloat16", compiled=True, attention="sdpa")),
}


def characters() -> torch.Tensor:
    """Australian news as ids: its 64 commonest characters, and one id for all others. (N,)"""
    text = corpora.gensim_file("lee_background.cor").read_text(encoding="utf-8")
    ids = {symbol: i for i, (symbol, _) in enumerate(Counter(text).most_common(SYMBOLS - 1))}
    return torch.tensor([ids.get(symbol, SYMBOLS - 1) for symbol in text])


class Peer:
    """transformers' GPT-2 and the loop that its users write."""

    def __init__(self, weights: str, way: Way) -> None:
        model = GPT2LMHeadModel.from_pretrained(weights, attn_implementation=way.attention).train()
        self.way, self.model = way, torch.compile(model) if way.compiled else model
        groups = [
            {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": RECIPE.weight_decay},
            {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ]
        betas = (RECIPE.adam_beta1, RECIPE.adam_beta2)
        self.optimizer = torch.optim.AdamW(groups, betas=betas, fused=way.tuned)
        self.seconds: list[float] = []
        self.losses: list[float] = []

    def step(self, batch: dict[str, torch.Tensor], rate: float) -> None:
        start = time.process_time()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        torch.set_float32_matmul_precision("medium" if self.way.tuned else "highest")
        half = self.way.precision == "bfloat16"
        with torch.autocast("cpu", dtype=torch.bfloat16) if half else contextlib.nullcontext():
            loss = self.model(**batch).loss
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), RECIPE.max_grad_norm)
        self.optimizer.step()
        self.losses.append(loss.item())
        torch.set_float32_matmul_precision("highest")
        self.seconds.append(time.process_time() - start)


def race(weights: str, tokens: torch.Tensor, ours: Way, peers: list[Peer], steps: int) -> tuple[list, list]:
    """Our seconds and losses, step by step; the peers keep theirs."""
    model = GPT.from_pretrained(weights)
    get_batch = packed_batches(tokens, RECIPE)
    seconds, start = [], time.process_time()

    def others(step: int, _: nn.Module) -> None:
        nonlocal start
        seconds.append(time.process_time() - start)
        for peer in peers:
            peer.step(get_batch(step), learning_rate(step, args))
        start = time.process_time()

    args = replace(RECIPE, precision=ours.precision, max_steps=steps)
    history = fit(torch.compile(model) if ours.compiled else model, get_batch, args, callback=others)
    return seconds, list(history.column("loss"))


def memory(weights: str, tokens: torch.Tensor, way: Way, own: bool) -> float:
    """Peak MiB of a first step."""
    get_batch = packed_batches(tokens, RECIPE)
    if own:
        model, args = GPT.from_pretrained(weights), replace(RECIPE, precision=way.precision, max_steps=1)
        return peak_memory(lambda: fit(model, get_batch, args)) / 2**20
    peer, batch = Peer(weights, way), get_batch(0)
    return peak_memory(lambda: peer.step(batch, RECIPE.learning_rate)) / 2**20


def row(name: str, seconds: list[float], losses: list[float], mebibytes: float | None, end: str = "") -> float:
    """Print a line of the table and return the median step's seconds."""
    median = statistics.median(seconds[WARM_UP:])
    speed = RECIPE.batch_size * RECIPE.block_size / median / 1e3
    shown = "-" if mebibytes is None else f"{mebibytes:.1f}"
    print(f"{name:44} {speed:8.1f} {statistics.mean(losses[-10:]):9.5f} {shown:>7} {end}", flush=True)
    return median


def compare(weights: str, tokens: torch.Tensor, ours: Way, ways: tuple[Way, ...], steps: int) -> list[str]:
    """Run one race and print its table; return what breaks a bound."""
    peers = [Peer(weights, way) for way in ways]
    seconds, losses = race(weights, tokens, ours, peers, steps)
    measured = [None if w.compiled else memory(weights, tokens, w, i == 0) for i, w in enumerate((ours, *ways))]
    own = row(f"llmbook, {ours.precision}{', compiled' * ours.compiled}", seconds, losses, measured[0])
    failures = []
    for peer, mebibytes in zip(peers, measured[1:], strict=True):
        ratio = statistics.median(peer.seconds[WARM_UP:]) / own
        bound = peer.way.bound
        wanted = f"{ratio:6.2f}" + (f" (wanted {bound})" if bound else "")
        row(f"transformers, {peer.way}", peer.seconds, peer.losses, mebibytes, wanted)
        if bound and ratio < bound:
            failures.append(f"llmbook has {ratio:.2f} times the speed of {peer.way}, wanted {bound}")
        apart = max(abs(a - b) for a, b in zip(losses[-10:], peer.losses[-10:], strict=True))
        if bound and apart > EQUAL:
            failures.append(f"end losses of llmbook and {peer.way} lie {apart:.1e} nats apart, allowed {EQUAL}")
    return failures


def main() -> int:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    tokens, failures = characters(), []
    print(f"{len(tokens):,} characters of news, 1 thread, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as weights:
        GPT(CONFIG, generator=torch.Generator().manual_seed(0)).save_pretrained(weights)
        for ours, peers in RACES.items():
            steps = RECIPE.max_steps if ours == Way() else SHOWN
            print(f"\n{f'{steps} steps':44} {'ktokens/s':>9} {'loss':>8} {'MiB':>7}   llmbook is times as fast")
            failures += compare(weights, tokens, ours, peers, steps)
    print("\n" + ("\n".join(failures) or "every bound is met"))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
