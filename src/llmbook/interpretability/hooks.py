"""Where to look into a model, and where to change it: its blocks, its heads, its residual stream.

All of it works on the book's :class:`~llmbook.transformer.GPT` and on a Llama of transformers, by hooks that are gone
when the ``with`` ends. Shapes: B rows, T tokens, C width, H heads, D features of a head (C = H · D).
A **stage** is a place on the stream (Elhage et al., 2021): 0 is what the first block reads, l what block l left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

from llmbook.compression.calibration import hooked

Head = tuple[int, int]  # (block, head), both counted from 0


def blocks_of(model: nn.Module) -> nn.ModuleList:
    """The blocks of a GPT of ours or of a Llama of transformers. ValueError for another kind of model."""
    if isinstance(found := getattr(model, "h", None), nn.ModuleList):
        return found
    inner = getattr(model, "model", None)
    if isinstance(found := getattr(inner, "layers", None), nn.ModuleList):
        return found
    raise ValueError(f"model must be a GPT or a transformers Llama, got {type(model).__name__}")


def head_count(model: nn.Module) -> int:
    """How many query heads a block has."""
    config = model.config
    return config.n_head if hasattr(config, "n_head") else config.num_attention_heads


def output_projection(block: nn.Module) -> nn.Linear:
    """The matrix that reads all heads of a block side by side (B, T, H · D) and writes to the stream."""
    return block.attn.c_proj if hasattr(block, "attn") else block.self_attn.o_proj


@contextmanager
def record_heads(model: nn.Module) -> Iterator[dict[int, Tensor]]:
    """Collect what each head read off the values, before the output projection: block -> (B, T, H, D)."""
    seen: dict[int, Tensor] = {}
    heads = head_count(model)

    def hook(number: int) -> Callable:
        return lambda module, args: seen.__setitem__(number, args[0].detach().unflatten(-1, (heads, -1)))

    projections = [output_projection(block) for block in blocks_of(model)]
    with hooked([p.register_forward_pre_hook(hook(i)) for i, p in enumerate(projections)]):
        yield seen


@contextmanager
def replace_heads(model: nn.Module, values: Mapping[Head, Tensor | float]) -> Iterator[None]:
    """Run with other outputs of some heads: (block, head) -> what broadcasts to (B, T, D); 0.0 silences a head.

    Raises ValueError for a block or head that the model does not have.
    """
    blocks, heads = blocks_of(model), head_count(model)
    by_block: dict[int, dict[int, Tensor | float]] = {}
    for (block, head), value in values.items():
        if not (0 <= block < len(blocks) and 0 <= head < heads):
            raise ValueError(f"values must name heads of {len(blocks)} blocks of {heads}, got {(block, head)}")
        by_block.setdefault(block, {})[head] = value

    def hook(new: Mapping[int, Tensor | float]) -> Callable:
        def change(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            z = args[0].unflatten(-1, (heads, -1)).clone()  # (B, T, H, D)
            for head, value in new.items():
                z[:, :, head] = value
            return (z.flatten(-2), *args[1:])

        return change

    with hooked([output_projection(blocks[i]).register_forward_pre_hook(hook(new)) for i, new in by_block.items()]):
        yield


def mean_heads(seen: Mapping[int, Tensor], heads: list[Head], mask: Tensor | None = None) -> dict[Head, Tensor]:
    """For mean ablation: each head's mean output (D,) over rows and tokens (those of ``mask`` (B, T), if given)."""
    return {(b, h): (seen[b][:, :, h] if mask is None else seen[b][:, :, h][mask]).flatten(0, -2).mean(0)
            for b, h in heads}  # fmt: skip


@contextmanager
def record_stream(model: nn.Module) -> Iterator[dict[int, Tensor]]:
    """Collect the residual stream at each stage: 0, 1, …, L -> (B, T, C), the last one before the final norm."""
    seen: dict[int, Tensor] = {}
    with ExitStack() as stack:
        for stage in range(len(blocks_of(model)) + 1):
            stack.enter_context(change_stream(model, stage, _keeper(seen, stage)))
        yield seen


def _keeper(seen: dict[int, Tensor], stage: int) -> Callable[[Tensor], Tensor]:
    def keep(x: Tensor) -> Tensor:
        seen[stage] = x.detach()
        return x

    return keep


@contextmanager
def change_stream(model: nn.Module, stage: int, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Run with ``change(x)`` in the place of the stream x (B, T, C) at a stage. ValueError for no such stage."""
    blocks = blocks_of(model)
    if not 0 <= stage <= len(blocks):
        raise ValueError(f"stage must lie in 0..{len(blocks)}, got {stage}")

    def before(module: nn.Module, args: tuple, kwargs: dict) -> tuple:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": change(kwargs["hidden_states"])}

    def after(module: nn.Module, args: tuple, output: Tensor | tuple) -> Tensor | tuple:
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    if stage == 0:
        handle = blocks[0].register_forward_pre_hook(before, with_kwargs=True)
    else:
        handle = blocks[stage - 1].register_forward_hook(after)
    with hooked([handle]):
        yield
