"""Training our GPT beside transformers' GPT-2: tokens per second, end loss and peak memory, one thread.

``python tests/benchmarks/bench_training.py`` (about eight minutes) trains nanoGPT's small recipe on characters:
4 layers, 4 heads, width 128, blocks of 64, batches of 12, no dropout, 65 symbols. Ours runs through ``fit``,
checks, records and all; a peer runs what a user of transformers writes. All begin with the same weights, see
the same batches in the same order and follow the same schedule with AdamW.

Each runs in a process of its own, as it would be used, and takes a step in turn, so that a busy machine slows all
alike. The clock is the process's CPU time, which other programs disturb least; on one thread it is the wall clock
of an idle machine. After a warm-up, which leaves the time to compile out, ten stretches of the race count as its
rounds (racing.py), each with its median step. A bound within the spread of their ratios is "not decided". Where
oneDNN is of no use (products.py), ours runs without it: the second race imitates such a processor. A "tuned" peer is
shown too: transformers with two of the settings that ``fit`` makes by itself. Memory is what the tensors of a first
step occupy at most, gradients and the optimiser's moments included, weights not.
Exits with 1 when a bound is not met.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before the libraries load

import contextlib
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

import torch
from racing import Ratio, compare
from torch import nn
from transformers import GPT2LMHeadModel
from transformers.utils import logging

from llmbook import corpora, products
from llmbook.profiling import peak_memory
from llmbook.training import TrainingArguments, fit, learning_rate, packed_batches
from llmbook.transformer import GPT, GPTConfig

SYMBOLS, WARM_UP, ROUNDS = 65, 20, 10
CONFIG = GPTConfig(vocab_size=SYMBOLS, n_positions=64, n_embd=128, n_layer=4, n_head=4)
RECIPE = TrainingArguments(max_steps=300, batch_size=12, block_size=64, learning_rate=1e-3, warmup_steps=20)
SHOWN = 80  # steps of the races that have no bound
EQUAL = 1e-3  # nats: how far apart the end losses may lie in float32


@dataclass(frozen=True)
class Way:
    """How a model is run: precision and compilation for both libraries, the rest for one of them."""

    precision: str = "float32"
    compiled: bool = False
    onednn: bool = True  # ours: where the processor gains by it
    attention: str = "eager"  # theirs
    tuned: bool = False  # theirs, with what ``fit`` does: AdamW in one kernel, and products by oneDNN ("medium")
    bound: float | None = None  # least speed of ours as a multiple of theirs; None: only shown

    @property
    def ours(self) -> str:
        return f"llmbook, {self.precision}{', compiled' * self.compiled}{', no oneDNN' * (not self.onednn)}"

    @property
    def theirs(self) -> str:
        compiled = ", compiled" if self.compiled else ""
        return f"transformers, {self.attention}{', tuned' * self.tuned}, {self.precision}{compiled}"


EAGER, SDPA = Way(bound=1.25), Way(attention="sdpa", bound=1.25)
RACES = {  # ours: its peers; transformers' eager float32 is in each, so that all ratios have one base
    Way(): (EAGER, SDPA, Way(tuned=True)),
    Way(onednn=False): (EAGER, SDPA),
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
        if way.tuned:
            torch.set_float32_matmul_precision("medium")

    def step(self, batch: dict[str, torch.Tensor], rate: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        half = self.way.precision == "bfloat16"
        with torch.autocast("cpu", dtype=torch.bfloat16) if half else contextlib.nullcontext():
            loss = self.model(**batch).loss
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), RECIPE.max_grad_norm)
        self.optimizer.step()
        return loss.item()


def train_ours(weights: str, way: Way, args: TrainingArguments, after_step: Callable[[], None]) -> list[float]:
    """Our loop; the losses."""
    if not way.onednn:
        products._keeps_float32 = lambda: False
    model = GPT.from_pretrained(weights)
    trained = torch.compile(model) if way.compiled else model
    batches = packed_batches(characters(), args)
    return fit(trained, batches, args, callback=lambda step, model: after_step()).column("loss").tolist()


def train_peer(weights: str, way: Way, args: TrainingArguments, after_step: Callable[[], None]) -> list[float]:
    """The peer's loop; the losses."""
    peer, batches, losses = Peer(weights, way), packed_batches(characters(), args), []
    for step in range(args.max_steps):
        losses.append(peer.step(batches(step), learning_rate(step, args)))
        after_step()
    return losses


def contestant(pipe: Connection, train: Callable[..., list[float]], weights: str, way: Way, steps: int) -> None:
    """A process that takes a step each time that it is told to, and says how many seconds it took; then the losses."""
    quieten()

    def take_turns() -> None:
        nonlocal start
        pipe.send(time.process_time() - start)
        pipe.recv()
        start = time.process_time()

    pipe.recv()
    start = time.process_time()
    pipe.send(train(weights, way, replace(RECIPE, precision=way.precision, max_steps=steps), take_turns))


def race(weights: str, ours: Way, peers: tuple[Way, ...], steps: int) -> list[tuple[list[float], list[float]]]:
    """Seconds and losses, step by step, of ours and of each peer."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for train, way in ((train_ours, ours), *((train_peer, peer) for peer in peers)):
        pipe, other = context.Pipe()
        processes.append(context.Process(target=contestant, args=(other, train, weights, way, steps), daemon=True))
        pipes.append(pipe)
        processes[-1].start()
    seconds: list[list[float]] = [[] for _ in pipes]
    for _ in range(steps):
        for pipe, mine in zip(pipes, seconds, strict=True):
            pipe.send("go")
            mine.append(pipe.recv())
    losses = []
    for pipe, process in zip(pipes, processes, strict=True):
        pipe.send("finish")
        losses.append(pipe.recv())
        process.join()
    return list(zip(seconds, losses, strict=True))


def memory(weights: str, way: Way, own: bool) -> float:
    """Peak MiB of a first step."""
    get_batch = packed_batches(characters(), RECIPE)
    if own:
        model, args = GPT.from_pretrained(weights), replace(RECIPE, precision=way.precision, max_steps=1)
        return peak_memory(lambda: fit(model, get_batch, args)) / 2**20
    peer, batch = Peer(weights, replace(way, tuned=False)), get_batch(0)
    return peak_memory(lambda: peer.step(batch, RECIPE.learning_rate)) / 2**20


def row(name: str, seconds: list[float], losses: list[float], mebibytes: float | None, end: str = "") -> None:
    """Print a line of the table."""
    speed = RECIPE.batch_size * RECIPE.block_size / statistics.median(seconds[WARM_UP:]) / 1e3
    shown = "-" if mebibytes is None else f"{mebibytes:.1f}"
    print(f"{name:44} {speed:8.1f} {statistics.mean(losses[-10:]):9.5f} {shown:>7} {end}", flush=True)


def speed_ratio(ours: list[float], theirs: list[float]) -> Ratio:
    """How many times as fast ours is: a round is a stretch of the race, its time the median step's."""
    ours, theirs = ours[WARM_UP:], theirs[WARM_UP:]
    size = len(ours) // ROUNDS
    rounds = [slice(i * size, (i + 1) * size) for i in range(ROUNDS)]
    times = ([statistics.median(each[part]) for part in rounds] for each in (theirs, ours))
    return compare(*times)


def run_race(weights: str, ours: Way, ways: tuple[Way, ...], steps: int) -> list[str]:
    """Run one race and print its table; return what breaks a bound."""
    (own, losses), *peers = race(weights, ours, ways, steps)
    row(ours.ours, own, losses, None if ours.compiled else memory(weights, ours, own=True))
    failures = []
    for way, (seconds, peer_losses) in zip(ways, peers, strict=True):
        ratio = speed_ratio(own, seconds)
        verdict = ratio.verdict(at_least=way.bound) if way.bound else "only shown"
        said = f" {way.bound} wanted: {verdict}" if way.bound else ""
        mebibytes = None if way.compiled else memory(weights, way, own=False)
        row(way.theirs, seconds, peer_losses, mebibytes, f"  {ratio}{said}")
        if verdict == "missed":
            failures.append(f"{ours.ours} has {ratio.median:.2f} times the speed of {way.theirs}, wanted {way.bound}")
        apart = max(abs(a - b) for a, b in zip(losses[-10:], peer_losses[-10:], strict=True))
        if way.bound and apart > EQUAL:
            failures.append(f"end losses of {ours.ours} and {way.theirs} lie {apart:.1e} nats apart, allowed {EQUAL}")
    return failures


def quieten() -> None:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)


def main() -> int:
    quieten()
    failures = []
    print(f"{len(characters()):,} characters of news, 1 thread, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as weights:
        GPT(CONFIG, generator=torch.Generator().manual_seed(0)).save_pretrained(weights)
        for ours, peers in RACES.items():
            steps = RECIPE.max_steps if any(peer.bound for peer in peers) else SHOWN
            print(
                f"\n{f'{steps} steps':44} {'ktokens/s':>9} {'loss':>8} {'MiB':>7}   llmbook is times as fast (spread)"
            )
            failures += run_race(weights, ours, peers, steps)
    print("\n" + ("\n".join(failures) or "no bound is broken"))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
