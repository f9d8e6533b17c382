"""Low-rank adaptation (Hu et al. 2022): a frozen matrix, and beside it two thin ones that learn.

An adapted layer computes y = x Wᵀ + b + (α/r) (x Aᵀ) Bᵀ, with W (out, in) frozen, A (r, in) and B (out, r)
trained. B starts at zero, so that the model starts as it was. Names, start and files are those of the ``peft``
library: ``PeftModel.from_pretrained`` reads what :func:`save_adapter` writes.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from llmbook.files import write_whole

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # before each name in peft's files


def transposed(layer: nn.Module) -> bool:
    """Whether a layer keeps its weight as (in, out), as transformers' ``Conv1D`` in GPT-2 does."""
    return type(layer).__name__ == "Conv1D"


class LoRA(nn.Module):
    """A linear layer, frozen, and a trainable update of rank ``r``: (..., in) → (..., out).

    ``base``: ``nn.Linear`` or transformers' ``Conv1D``. ``generator`` draws A as peft does, uniformly within
    ±1/√in; B is zero. Raises TypeError for another layer, ValueError for a rank that is no rank.
    """

    def __init__(self, base: nn.Module, r: int, alpha: float, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if not (isinstance(base, nn.Linear) or transposed(base)):
            raise TypeError(f"base must be nn.Linear or transformers' Conv1D, got {type(base).__name__}")
        rows, columns = base.weight.shape
        d_in, d_out = (rows, columns) if transposed(base) else (columns, rows)
        if not 1 <= r <= min(d_in, d_out):
            raise ValueError(f"r must lie in 1..{min(d_in, d_out)}, the layer's smaller side, got {r}")
        if not alpha > 0:
            raise ValueError(f"alpha must be positive, got {alpha}")
        self.base, self.scale = base.requires_grad_(False), alpha / r
        like = {"device": base.weight.device, "dtype": base.weight.dtype}
        bound = 1 / math.sqrt(d_in)
        self.lora_A = nn.Parameter(torch.empty(r, d_in, **like).uniform_(-bound, bound, generator=generator))
        self.lora_B = nn.Parameter(torch.zeros(d_out, r, **like))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.scale * F.linear(F.linear(x, self.lora_A), self.lora_B)  # (..., out)

    def delta(self) -> Tensor:
        """What the update adds to the weight: (α/r) B A, (out, in)."""
        return self.scale * self.lora_B @ self.lora_A

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """A plain layer that computes the same: the base with the update added to its weight."""
        layer = copy.deepcopy(self.base)
        layer.weight += self.delta().T if transposed(layer) else self.delta()
        return layer


def add_lora(
    model: nn.Module,
    target_modules: Sequence[str],
    *,
    r: int = 8,
    alpha: float = 16,
    generator: torch.Generator | None = None,
) -> list[str]:
    """Freeze the whole model, put a :class:`LoRA` on each layer so named, and return their full names.

    As in peft, ``target_modules`` are last parts of names: ``["c_attn"]`` for GPT-2's attention, ``["q_proj",
    "v_proj"]`` for a Llama's. In place. Raises ValueError where no layer has such a name.
    """
    if isinstance(target_modules, str):
        raise TypeError(f"target_modules must be a list of names, got the string {target_modules!r}")
    found = {t: [n for n, _ in model.named_modules() if n == t or n.endswith(f".{t}")] for t in target_modules}
    named = [n for n, _ in model.named_modules() if any(n in names for names in found.values())]
    missing = [t for t, names in found.items() if not names]
    if missing or not named:
        raise ValueError(f"target_modules must name layers of the model, got {missing or list(target_modules)}")
    adapted = {name: LoRA(model.get_submodule(name), r, alpha, generator=generator) for name in named}
    model.requires_grad_(False)
    for name, layer in adapted.items():
        model.set_submodule(name, layer)
    return named


def layers(model: nn.Module) -> Iterator[tuple[str, LoRA]]:
    """The adapted layers with their names."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoRA))


def merge_lora(model: nn.Module) -> nn.Module:
    """Replace each adapted layer by its :meth:`LoRA.merged`, in place: no cost is left. Returns the model."""
    for name, layer in list(layers(model)):
        model.set_submodule(name, layer.merged())
    return model


def remove_lora(model: nn.Module) -> nn.Module:
    """Put back each adapted layer's base, in place: the model as it was, frozen. Returns the model."""
    for name, layer in list(layers(model)):
        model.set_submodule(name, layer.base)
    return model


def trainable_parameters(model: nn.Module) -> tuple[int, int]:
    """(trainable, all) numbers of a model; a tied matrix counts once."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, trains in sizes if trains), sum(n for n, _ in sizes)


# ------------------------------------------------------------ files, as peft's


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """A and B of each adapted layer, by peft's names."""
    return {
        f"{PREFIX}{name}.{part}.weight": getattr(layer, part).detach().contiguous()
        for name, layer in layers(model)
        for part in ("lora_A", "lora_B")
    }


def save_adapter(model: nn.Module, path: str | Path, base: str = "") -> None:
    """Write the adapter alone, in peft's format; ``base`` says of which model. ValueError for a model without one."""
    found = dict(layers(model))
    if not found:
        raise ValueError("model must have adapted layers, got none: call add_lora first")
    first = next(iter(found.values()))
    r = first.lora_A.shape[0]
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "r": r,
        "lora_alpha": first.scale * r, "target_modules": sorted(found), "bias": "none", "lora_dropout": 0.0,
        "fan_in_fan_out": transposed(first.base), "inference_mode": True,
    }  # fmt: skip
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / WEIGHTS, save(adapter_state(model), metadata={"format": "pt"}))
    write_whole(folder / CONFIG, json.dumps(config, indent=2) + "\n")


def load_adapter(model: nn.Module, path: str | Path) -> list[str]:
    """Adapt a model as :func:`save_adapter` wrote, in place; returns the layers' names. Never a pickle.

    Raises FileNotFoundError, and ValueError, with the file's name, for what is no such adapter or another model's.
    """
    folder = Path(path)
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        state = load_file(folder / WEIGHTS)
    except (ValueError, SafetensorError) as error:
        raise ValueError(f"{folder} holds no adapter, or only part of one: {error}") from error
    missing = [key for key in ("r", "lora_alpha", "target_modules") if key not in config]
    if missing:
        raise ValueError(f"{folder / CONFIG} lacks {', '.join(missing)}")
    names = add_lora(model, config["target_modules"], r=config["r"], alpha=config["lora_alpha"],
                     generator=torch.Generator(next(model.parameters()).device))  # fmt: skip
    wanted = {name: tuple(t.shape) for name, t in adapter_state(model).items()}
    if (got := {name: tuple(t.shape) for name, t in state.items()}) != wanted:
        odd = sorted(set(got.items()) ^ set(wanted.items()))[0]
        raise ValueError(f"{folder / WEIGHTS} does not fit the model: {odd[0]} {odd[1]}")
    with torch.no_grad():
        for name, layer in layers(model):
            layer.lora_A.copy_(state[f"{PREFIX}{name}.lora_A.weight"])
            layer.lora_B.copy_(state[f"{PREFIX}{name}.lora_B.weight"])
    return names
