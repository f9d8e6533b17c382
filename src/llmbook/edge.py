"""A GPT outside of torch: as an ONNX file that keeps its keys and values, and as a file that the page's script reads.

The graph has two inputs, new tokens and the cache of those before them, and two outputs, logits and the cache with
the new ones in it. One tensor holds the cache of all layers: (layers, 2, B, heads, tokens, head size).

``python -m llmbook.edge`` writes the committed file that the page runs anew, from ``zoo.toyworld_gpt(0)``.
"""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save as save_bytes
from torch import Tensor, nn

from llmbook import zoo
from llmbook.attention import rotary_embedding
from llmbook.files import write_whole
from llmbook.toyworld import ToyWorld
from llmbook.transformer import GPT
from llmbook.weights import names

KINDS = ("float32", "float16", "int8")
PAGE_WEIGHTS = Path(__file__).resolve().parents[2] / "book" / "_static" / "toyworld_gpt.safetensors"
Array = NDArray[Any]

# ------------------------------------------------------------ ONNX


class Step(nn.Module):
    """A GPT's forward pass with nothing that depends on a number of tokens but through shapes, for the exporter."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        if model.config.positions != "rotary":
            raise ValueError(f"model must have rotary positions, got {model.config.positions!r}")
        self.model = model

    def forward(self, input_ids: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Ids (B, T) after a cache (L, 2, B, H, S, D) to logits (B, T, V) and the cache (L, 2, B, H, S + T, D)."""
        model, start, new = self.model, past.shape[4], input_ids.shape[1]
        positions = torch.arange(start, start + new)
        rotary = rotary_embedding(positions, model.config.head_size, model.config.rope_theta)
        mask = torch.arange(start + new)[None] <= positions[:, None]  # (T, S + T): what each token may see
        x, presents = model.wte(input_ids), []
        for layer, block in enumerate(model.h):
            x, present = block(x, mask=mask, is_causal=False, rotary=rotary, past=(past[layer, 0], past[layer, 1]))
            presents.append(torch.stack(present))
        return model.lm_head(model.ln_f(x)), torch.stack(presents)


def export(model: GPT, path: str | Path) -> None:
    """Write the model as ONNX: inputs ``input_ids`` and ``past``, outputs ``logits`` and ``present``, one text.

    Numbers of new tokens and of those in the cache are free; the exporter sees two and three.
    """
    config, dim = model.config, torch.export.Dim
    cache = torch.zeros(config.n_layer, 2, 1, config.kv_heads, 3, config.head_size)
    shapes = {"input_ids": {1: dim("new")}, "past": {4: dim("old")}}
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            Step(model).eval(), (torch.zeros(1, 2, dtype=torch.long), cache),
            input_names=["input_ids", "past"], output_names=["logits", "present"],
            dynamic_shapes=shapes, dynamo=True, verbose=False,
        )  # fmt: skip
        program.save(str(path))


def quantize(source: str | Path, target: str | Path) -> None:
    """Write an ONNX file in int8: a scale for each column of the blocks' matrices, one for the table of words.

    Before a block's product the activations are rounded too, with one scale for the whole tensor of a call.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic  # takes a second to import

    with _quiet():
        quantize_dynamic(str(source), str(target), weight_type=QuantType.QInt8, per_channel=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's advice out of a chapter: it names packages that are not needed, and its own old calls."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


class OnnxGPT:
    """An ONNX file of :func:`export`, run by ONNX Runtime on ``threads`` threads of the processor."""

    def __init__(self, path: str | Path, threads: int = 1) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        layers, two, batch, heads, _, size = self.session.get_inputs()[1].shape
        self.empty = np.zeros((layers, two, batch, heads, 0, size), np.float32)

    def __call__(self, ids: Array, past: Array | None = None) -> tuple[Array, Array]:
        """Ids (1, T), after a cache or none, to logits (1, T, V) and the new cache."""
        past = self.empty if past is None else past
        logits, present = self.session.run(None, {"input_ids": np.asarray(ids, np.int64), "past": past})
        return logits, present

    def write(self, ids: Sequence[int], new: int) -> list[int]:
        """``new`` likeliest tokens behind ``ids``, one after another, with the cache."""
        if not len(ids) or new < 1:
            raise ValueError(f"ids and new must be at least one token each, got {len(ids)} and {new}")
        logits, past = self(np.array([ids]))
        written = [int(logits[0, -1].argmax())]
        while len(written) < new:
            logits, past = self(np.array([written[-1:]]), past)
            written.append(int(logits[0, -1].argmax()))
        return written


# ------------------------------------------------------------ a file for the page


def save_page(model: GPT, vocabulary: Sequence[str], path: str | Path, kind: str = "float16") -> None:
    """Write one safetensors file with weights in GPT-2's names, and configuration and words in its header.

    ``kind`` is float32, float16, or int8: then each matrix has whole numbers and a float32 scale for each of its
    rows. Vectors stay float32 in int8's file. Raises ValueError for a model that ``gpt.js`` cannot run.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    config = model.config
    wants = {"positions": "rotary", "norm_first": True, "norm": "layernorm", "mlp": "plain", "bias": True,
             "tie_word_embeddings": True, "activation_function": "gelu_new", "kv_heads": config.n_head,
             "qk_norm": False, "n_expert": 0, "add_cross_attention": False}  # fmt: skip
    for name, wanted in wants.items():
        if getattr(config, name) != wanted:
            raise ValueError(f"model must have {name} {wanted!r} for the page, got {getattr(config, name)!r}")
    if len(vocabulary) != config.vocab_size:
        raise ValueError(f"vocabulary must have {config.vocab_size} words, got {len(vocabulary)}")
    tensors = names.to_gpt2(model.state_dict(), tied=True)
    about = {"config": json.dumps(asdict(config)), "vocabulary": json.dumps(list(vocabulary)), "weights": kind}
    write_whole(path, save_bytes(_as_kind(tensors, kind), metadata=about))


def _as_kind(tensors: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    if kind != "int8":
        return {name: tensor.to(getattr(torch, kind)) for name, tensor in tensors.items()}
    found = {}
    for name, tensor in tensors.items():
        if tensor.dim() == 2:
            scale = tensor.abs().amax(1).clamp(min=1e-12) / 127  # (rows,)
            found[f"{name}.scale"] = scale
            tensor = (tensor / scale[:, None]).round().to(torch.int8)
        found[name] = tensor
    return found


def load_page(path: str | Path) -> tuple[GPT, list[str]]:
    """The model, in float32, and the words of a file that :func:`save_page` wrote."""
    with safe_open(path, "pt") as file:
        about, tensors = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if not {"config", "vocabulary"} <= about.keys():
        raise ValueError(f"{path} must hold configuration and vocabulary in its header, got {sorted(about)}")
    state = {}
    for name, tensor in tensors.items():
        if not name.endswith(".scale"):
            scale = tensors.get(f"{name}.scale")
            state[name] = tensor.float() if scale is None else tensor.float() * scale[:, None]
    options = {"model_type": "llmbook_gpt"} | json.loads(about["config"])
    return GPT.from_state(options, state), json.loads(about["vocabulary"])


if __name__ == "__main__":
    save_page(zoo.toyworld_gpt(0), ToyWorld("small").vocabulary, PAGE_WEIGHTS)
