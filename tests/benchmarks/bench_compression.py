"""What compression saves in time and bytes: ratios against the float32 model, one thread.

``python tests/benchmarks/bench_compression.py`` (about three minutes). int8: linear layers of a GPT of width 512,
activations quantised as they come, at batches of 1 to 1,024 tokens; bounds at 256, the others are shown. Pruning: a
GPT of width 512 end to end, with half of its neurons and heads taken out, with half of its neurons alone, and with
half of all weights set to zero, which must gain nothing.

Contestants run in turn; the clock is the process's CPU time; racing.py says how the median ratio is bounded. Exits
with 1 when a bound is not met.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before the libraries load

import copy
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from racing import Ratio, compare, in_turn
from safetensors.torch import save_file
from torch import Tensor, nn

from llmbook.compression import pruning, structure
from llmbook.compression.calibration import block_linears
from llmbook.compression.integers import Int8Linear
from llmbook.transformer import GPT, GPTConfig

ROUNDS, WIDTH, INNER = 15, 512, 2048
BATCHES = (1, 8, 32, 256, 1024)  # tokens at once
INT8_SPEED, INT8_BYTES, HALF_SPEED = 2.5, 0.27, 1.8  # at least, at most, at least
ZEROS = 1.1  # at most: what zeros that stay in the matrix may seem to gain

Contestants = Mapping[str, Callable[[], object]]


def race(contestants: Contestants, milliseconds: float = 60.0) -> dict[str, list[float]]:
    """CPU seconds of a call of each contestant, round by round; a round repeats it for about so long."""
    for call in contestants.values():
        call()
    first = next(iter(contestants.values()))
    started = time.process_time()
    first()
    calls = max(1, int(milliseconds / 1000 / max(time.process_time() - started, 1e-6)))
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for round_number in range(ROUNDS):
        for name in in_turn(list(contestants), round_number):
            started = time.process_time()
            for _ in range(calls):
                contestants[name]()
            times[name].append((time.process_time() - started) / calls)
    return times


def gpt() -> GPT:
    """Six layers of width 512, untrained: speed does not ask what weights are."""
    config = GPTConfig(1000, 128, WIDTH, 6, 8, n_inner=INNER, positions="rotary")
    return GPT(config, generator=torch.Generator().manual_seed(0)).eval()


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


# ------------------------------------------------------------ int8


def layers() -> dict[str, nn.Linear]:
    """The four matrices of a block, by their sizes."""
    return {f"{d_in} → {d_out}": nn.Linear(d_in, d_out) for d_in, d_out in
            ((WIDTH, 3 * WIDTH), (WIDTH, WIDTH), (WIDTH, INNER), (INNER, WIDTH))}  # fmt: skip


def block_speed(batch: int) -> tuple[Ratio, dict[str, float]]:
    """float32's time over int8's for all four together, and the median of each alone."""
    alone, totals = {}, {"int8": [0.0] * ROUNDS, "float32": [0.0] * ROUNDS}
    for name, layer in layers().items():
        x, quantised = draw(batch, layer.in_features), Int8Linear(layer)
        times = race({"int8": lambda q=quantised, x=x: q(x), "float32": lambda m=layer, x=x: m(x)}, 20.0)
        alone[name] = compare(times["float32"], times["int8"]).median
        for who, each in times.items():
            totals[who] = [total + t for total, t in zip(totals[who], each, strict=True)]
    return compare(totals["float32"], totals["int8"]), alone


def bytes_ratio() -> float:
    """A file of the four layers in int8 over one in float32."""
    with tempfile.TemporaryDirectory() as folder:
        sizes = []
        for make in (lambda layer: layer, Int8Linear):
            file = Path(folder) / f"{len(sizes)}.safetensors"
            state = nn.ModuleDict({str(i): make(layer) for i, layer in enumerate(layers().values())}).state_dict()
            save_file({name: tensor.contiguous() for name, tensor in state.items()}, file)
            sizes.append(file.stat().st_size)
    return sizes[1] / sizes[0]


def show_int8() -> bool:
    print("int8 against float32: how many times as fast, the four linear layers of a block of width 512")
    good = True
    with torch.inference_mode():
        for batch in BATCHES:
            ratio, alone = block_speed(batch)
            parts = "   ".join(f"{name}: {median:.2f}" for name, median in alone.items())
            verdict = ""
            if batch == 256:
                verdict = f"  wanted at least {INT8_SPEED}: {ratio.verdict(at_least=INT8_SPEED)}"
                good = ratio.verdict(at_least=INT8_SPEED) != "missed"
            print(f"  batch {batch:5}: {ratio}{verdict}      {parts}")
    share = bytes_ratio()
    small = share <= INT8_BYTES
    print(f"  bytes on disk: {share:.3f} of float32's, wanted at most {INT8_BYTES}: {'met' if small else 'missed'}")
    return good and small


# ------------------------------------------------------------ pruning


def halved(model: GPT, *, heads: bool) -> GPT:
    """A copy without every other neuron and, on request, without every other head."""
    model = copy.deepcopy(model)
    for block in model.h:
        structure.remove_neurons(block.mlp, range(0, INNER, 2))
        if heads:
            structure.remove_heads(block.attn, range(0, block.attn.n_head, 2))
    return model


def zeroed(model: GPT) -> GPT:
    """A copy with the smaller half of each layer's weights set to zero."""
    model = copy.deepcopy(model)
    found = block_linears(model)
    masks = {name: pruning.mask_of(pruning.magnitude(layer.weight), 0.5) for name, layer in found.items()}
    pruning.prune_model(model, masks)
    return model


def show_pruning() -> bool:
    whole = gpt()
    models = {
        "half of neurons and heads taken out": halved(whole, heads=True),
        "half of neurons taken out": halved(whole, heads=False),
        "half of all weights zero": zeroed(whole),
        "whole": whole,
    }
    ids = torch.randint(1000, (4, 128), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        times = race({name: lambda m=m: m(ids) for name, m in models.items()})
    print(f"\npruning, a GPT of width {WIDTH} end to end: how many times as fast as the whole one")
    bounds = {"half of neurons and heads taken out": {"at_least": HALF_SPEED},
              "half of all weights zero": {"at_most": ZEROS}}  # fmt: skip
    good = True
    for name in list(models)[:-1]:
        ratio = compare(times["whole"], times[name])
        wanted = bounds.get(name, {})
        words = "".join(f"  wanted {k.replace('_', ' ')} {v}: {ratio.verdict(**wanted)}" for k, v in wanted.items())
        good &= not wanted or ratio.verdict(**wanted) != "missed"
        print(f"  {name:38} {ratio}{words}")
    return good


def main() -> int:
    torch.set_num_threads(1)
    good = show_int8()
    return 0 if show_pruning() and good else 1


if __name__ == "__main__":
    sys.exit(main())
