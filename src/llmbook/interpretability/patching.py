"""Which part carries it? Activation and path patching: run on one text with a part of what it did on another.

A **pair** of texts differs in one token, and so in the right answer. ``measure(logits)`` maps the logits (B, V) at the
place of the answer to one number a row, as a rule the difference of the two answers' logits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmbook.compression.calibration import hooked
from llmbook.interpretability.hooks import (
    Head,
    blocks_of,
    change_stream,
    head_count,
    output_projection,
    record_heads,
    record_stream,
    replace_heads,
)


@dataclass(frozen=True)
class Pairs:
    """Texts told twice: ids (B, T) padded on the right, where the answer is read, where they differ, both answers."""

    told: Tensor  # (B, T)
    other: Tensor  # (B, T), the same but for one token
    last: Tensor  # (B,) the token whose logits give the answer
    source: Tensor  # (B,) where they differ
    answer: Tensor  # (B,) ids, right after `told`
    rival: Tensor  # (B,) ids, right after `other`

    def __post_init__(self) -> None:
        if self.told.shape != self.other.shape or self.told.dim() != 2:
            shapes = tuple(self.told.shape), tuple(self.other.shape)
            raise ValueError(f"told and other must be (rows, tokens) of one shape, got {shapes}")
        if not bool(((self.told != self.other).sum(1) == 1).all()):
            raise ValueError("told and other must differ in exactly one token of each row")

    def logits(self, model: nn.Module, ids: Tensor) -> Tensor:
        """The model's logits at the place of the answer, (B, V)."""
        with torch.no_grad():
            return model(ids).logits[torch.arange(len(ids)), self.last]

    def difference(self, logits: Tensor) -> Tensor:
        """Logit of the answer less that of its rival, (B,)."""
        rows = torch.arange(len(logits))
        return logits[rows, self.answer] - logits[rows, self.rival]


def recovery(pairs: Pairs, patched: Tensor, told: Tensor, other: Tensor) -> float:
    """The share of the difference between the two runs that a patch brings back: 0 nothing, 1 all of it.

    From logits (B, V) of the run on ``other`` with a patch, of the run on ``told``, and of the plain run on ``other``.
    """
    new, full, none = (pairs.difference(x).mean() for x in (patched, told, other))
    return float((new - none) / (full - none))


def patch_heads(model: nn.Module, pairs: Pairs) -> Tensor:
    """Recovery (L, H): the run on ``other``, with one head's output, at every token, taken from the run on ``told``."""
    with record_heads(model) as seen:
        told = pairs.logits(model, pairs.told)
    other = pairs.logits(model, pairs.other)
    table = torch.zeros(len(blocks_of(model)), head_count(model))
    for block, z in seen.items():
        for head in range(z.shape[2]):
            with replace_heads(model, {(block, head): z[:, :, head]}):
                table[block, head] = recovery(pairs, pairs.logits(model, pairs.other), told, other)
    return table


def patch_stream(model: nn.Module, pairs: Pairs, places: Mapping[str, Tensor]) -> Tensor:
    """Recovery (stages, places): the stream of the run on ``told`` put in at one stage and one place (B,) a row."""
    with record_stream(model) as seen:
        told = pairs.logits(model, pairs.told)
    other = pairs.logits(model, pairs.other)
    rows, table = torch.arange(len(pairs.told)), torch.zeros(len(seen), len(places))
    for stage, x in sorted(seen.items()):
        for j, place in enumerate(places.values()):
            with change_stream(model, stage, _putting(x, rows, place)):
                table[stage, j] = recovery(pairs, pairs.logits(model, pairs.other), told, other)
    return table


def _putting(x: Tensor, rows: Tensor, place: Tensor) -> Callable[[Tensor], Tensor]:
    def put(stream: Tensor) -> Tensor:
        stream = stream.clone()
        stream[rows, place] = x[rows, place]
        return stream

    return put


def written_by(model: nn.Module, head: Head, change: Tensor) -> Tensor:
    """What a change (B, T, D) of a head's output adds to the stream: (B, T, C)."""
    weight = output_projection(blocks_of(model)[head[0]]).weight  # (C, H · D)
    size = change.shape[-1]
    return F.linear(change, weight[:, head[1] * size : (head[1] + 1) * size])


def add_on_path(model: nn.Module, receiver: str, delta: Tensor):
    """Run with ``delta`` (B, T, C) added to what one reader of the stream reads, and to nothing else (a ``with``).

    Path patching's edge (Wang et al., 2023; Goldowsky-Dill et al., 2023): the sender's change reaches this reader
    straight along the stream, and what the reader then does flows on. ``receiver`` is the norm in front of the
    reader: "h.1.ln_1" (attention of block 1), "h.1.ln_2" (its feed-forward layer), "ln_f" (the logits); for the book's
    GPT only. With ":q", ":k" or ":v" behind an attention, only its queries, keys or values read the change.
    """
    name, _, part = receiver.partition(":")
    named = dict(model.named_modules())
    if name not in named or part not in ("", "q", "k", "v") or (part and not name.endswith("ln_1")):
        raise ValueError(f"receiver must be a norm like 'h.1.ln_2', 'ln_f' or 'h.1.ln_1:k', got {receiver!r}")
    norm = named[name]
    if not part:
        return hooked([norm.register_forward_pre_hook(lambda module, args: (args[0] + delta,))])
    attention = named[name.removesuffix("ln_1") + "attn"]
    start = ("q", "k", "v").index(part)
    place = slice(sum(attention.sizes[:start]), sum(attention.sizes[: start + 1]))
    changed: list[Tensor] = []

    def read(module: nn.Module, args: tuple[Tensor]) -> None:
        changed[:] = [module.forward(args[0] + delta)]  # forward: no hook within a hook

    def mix(module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
        output = output.clone()
        output[..., place] = F.linear(changed[0], module.weight, module.bias)[..., place]
        return output

    return hooked([norm.register_forward_pre_hook(read), attention.c_attn.register_forward_hook(mix)])


def patch_paths(model: nn.Module, pairs: Pairs, sender: Head, receivers: list[str]) -> dict[str, float]:
    """Recovery by each direct path from a head to a reader: the run on ``other``, where this reader alone sees what
    the head did on ``told``. Paths need not add up to the head's whole share: readers are not linear."""
    outputs, logits = {}, {}
    for name, ids in (("told", pairs.told), ("other", pairs.other)):
        with record_heads(model) as seen:
            logits[name] = pairs.logits(model, ids)
        outputs[name] = seen[sender[0]][:, :, sender[1]]
    delta = written_by(model, sender, outputs["told"] - outputs["other"])
    shares = {}
    for receiver in receivers:
        with add_on_path(model, receiver, delta):
            shares[receiver] = recovery(pairs, pairs.logits(model, pairs.other), logits["told"], logits["other"])
    return shares
