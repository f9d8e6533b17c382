"""Writing with our ``generate`` beside transformers' with the same weights: tokens per second, one thread.

``python tests/benchmarks/bench_decoding.py`` (about five minutes) writes greedily with a cache, at batch 1 and 8,
with GPTs of width 128 and 512 and with the real model where its file is here (``--without-real`` leaves it out).
Both must write the same tokens. Then, only shown: what the cache is worth at 512 tokens, and what speculative
decoding is worth with a good draft, a bad one and a look-up, slower included.

Contestants write in turn; the clock is the process's CPU time, which on one thread is the wall clock of an idle
machine; each text is a round (racing.py). A bound within the spread of the rounds' ratios is "not decided".
Exits with 1 when a bound is not met, or when tokens differ.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before the libraries load

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from racing import compare, in_turn
from transformers import GPT2LMHeadModel
from transformers.utils import logging

from llmbook import pretrained
from llmbook.decoding import generate
from llmbook.transformer import GPT, GPTConfig

ROUNDS, NEW, PROMPT = 7, 96, 16
VOCABULARY = 4000
BOUNDS = {128: 2.0, 512: 1.2, "SmolLM2-135M": 1.0}  # least speed of ours as a multiple of theirs
LAYERS = {128: 4, 512: 6}


@dataclass
class Pair:
    """Our model and transformers', of the same weights."""

    name: str
    ours: GPT
    theirs: Any
    bound: float

    def __post_init__(self) -> None:
        for config in (self.theirs.config, self.theirs.generation_config):
            config.eos_token_id = None  # write to the end


def gpts(width: int) -> Pair:
    """GPT-2s of this width, untrained, with a wide start so that ties are rare."""
    config = GPTConfig(VOCABULARY, 640, width, LAYERS[width], width // 32, initializer_range=0.1)
    with tempfile.TemporaryDirectory() as folder:
        ours = GPT(config, generator=torch.Generator().manual_seed(0)).eval()
        ours.save_pretrained(folder)
        theirs = GPT2LMHeadModel.from_pretrained(folder).eval()
    return Pair(f"GPT-2, {LAYERS[width]} layers of width {width}", ours, theirs, BOUNDS[width])


def real() -> Pair:
    """SmolLM2 in our classes and in theirs, float32."""
    path = pretrained.find("smollm2")
    return Pair("SmolLM2-135M", pretrained.to_gpt(path), pretrained.to_transformers(path), BOUNDS["SmolLM2-135M"])


def prompts(pair: Pair, batch: int) -> torch.Tensor:
    vocabulary = pair.ours.config.vocab_size
    return torch.randint(5, vocabulary, (batch, PROMPT), generator=torch.Generator().manual_seed(1))


def write_ours(pair: Pair, ids: torch.Tensor, new: int) -> torch.Tensor:
    return generate(pair.ours, ids, new, eos_token_id=[])


def write_theirs(pair: Pair, ids: torch.Tensor, new: int) -> torch.Tensor:
    with torch.inference_mode():
        return pair.theirs.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new,
            do_sample=False,
            pad_token_id=0,
        )


def race(contestants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each contestant, round by round, in turn; the first round, a warm-up, is left out."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name in in_turn(list(contestants), number):
            start = time.process_time()
            contestants[name]()
            if number:
                seconds[name].append(time.process_time() - start)
    return seconds


def race_libraries(pair: Pair, batch: int, new: int, rounds: int) -> list[str]:
    """Race the two libraries, print a line, and return what breaks a bound."""
    ids = prompts(pair, batch)
    mine, other = write_ours(pair, ids, new), write_theirs(pair, ids, new)
    seconds = race({"ours": lambda: write_ours(pair, ids, new), "theirs": lambda: write_theirs(pair, ids, new)}, rounds)
    ratio = compare(seconds["theirs"], seconds["ours"])
    verdict = ratio.verdict(at_least=pair.bound)
    speeds = [batch * new / statistics.median(seconds[name]) for name in ("ours", "theirs")]
    print(
        f"{pair.name:32} {batch:5} {speeds[0]:9.0f} {speeds[1]:9.0f}  {ratio}  {pair.bound} wanted: {verdict}",
        flush=True,
    )
    faults = [] if torch.equal(mine, other) else [f"{pair.name}, batch {batch}: the tokens differ"]
    if verdict == "missed":
        faults.append(f"{pair.name}, batch {batch}: {ratio.median:.2f} times their speed, wanted {pair.bound}")
    return faults


def show(name: str, seconds: dict[str, list[float]]) -> None:
    slow, quick = seconds.values()
    print(f"{name:60} {compare(slow, quick)} times as fast", flush=True)


def show_cache(pair: Pair) -> None:
    ids = prompts(pair, 1)
    ways = {
        "without": lambda: generate(pair.ours, ids, 512, use_cache=False, eos_token_id=[]),
        "with": lambda: generate(pair.ours, ids, 512, eos_token_id=[]),
    }
    show(f"{pair.name}, 512 tokens: with the cache", race(ways, 2))


def show_speculation(large: Pair, drafts: dict[str, dict[str, Any]]) -> None:
    ids = prompts(large, 1)
    for name, options in drafts.items():
        ways = {
            "plain": lambda: generate(large.ours, ids, NEW, eos_token_id=[]),
            "speculative": lambda options=options: generate(large.ours, ids, NEW, eos_token_id=[], **options),
        }
        show(f"{large.name}, speculative, {name}", race(ways, 3))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--without-real", action="store_true", help="leave the real model out")
    parser.add_argument("--quick", action="store_true", help="three rounds each")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    rounds, faults = 3 if arguments.quick else ROUNDS, []
    print(f"greedy, cached, {NEW} new tokens behind {PROMPT}, 1 thread, float32, torch {torch.__version__}")
    print(f"{'':32} {'batch':>5} {'llmbook':>9} {'theirs':>9}  llmbook is times as fast (spread)")
    pairs = {width: gpts(width) for width in LAYERS}
    for pair in pairs.values():
        for batch in (1, 8):
            faults += race_libraries(pair, batch, NEW, rounds)
    if not arguments.without_real and pretrained.available("smollm2"):
        pair = real()
        for batch in (1, 8):
            faults += race_libraries(pair, batch, 32, rounds)
        del pair
    show_cache(pairs[128])
    good, bad = {"assistant_model": pairs[512].ours}, {"assistant_model": pairs[128].ours}
    drafts = {"a draft that is always right, and as dear": good, "a draft that is never right": bad}
    show_speculation(pairs[512], drafts | {"a look-up": {"prompt_lookup_num_tokens": 5}})
    print("\n" + ("\n".join(faults) or "no bound is broken"))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
