"""The Transformer: encoder, decoder and both, out of one block; the GPT that the later chapters train.

Shapes: B batch, T tokens, S tokens attended to, C features (``n_embd``), H heads, V vocabulary.
Parameters are named as in transformers' GPT-2 (``h.0.attn.c_attn.weight``); linear layers are stored as
torch stores them, (out, in), where GPT-2's files hold the transpose. ``llmbook.weights`` translates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmbook import weights
from llmbook.attention import (
    alibi_bias,
    apply_rotary,
    attention_weights,
    rotary_embedding,
    sinusoidal_positions,
)

POSITIONS = ("none", "sinusoidal", "learned", "rotary", "alibi")
ACTIVATIONS = {"gelu_new": partial(F.gelu, approximate="tanh"), "gelu": F.gelu, "relu": F.relu}
IGNORE = -100  # a label that is not scored, as in transformers

KeysAndValues = tuple[Tensor, Tensor]  # of one layer, each (B, H, S, C/H)


@dataclass(frozen=True)
class GPTConfig:
    """Sizes and choices of a model; names and defaults are those of ``transformers.GPT2Config``.

    Dropout is 0 unless asked for (GPT-2 used 0.1). ``positions``, ``norm_first`` and their like are ours:
    GPT-2 has learned positions and normalises first.
    """

    vocab_size: int = 50257
    n_positions: int = 1024  # the longest input
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None  # width of the feed-forward layer; None means 4 · n_embd
    activation_function: str = "gelu_new"
    resid_pdrop: float = 0.0
    embd_pdrop: float = 0.0
    attn_pdrop: float = 0.0
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    tie_word_embeddings: bool = True
    add_cross_attention: bool = False
    eos_token_id: int | None = None
    positions: str = "learned"  # or none, sinusoidal, rotary, alibi
    norm_first: bool = True  # False: after each addition, as in the original Transformer and BERT

    def __post_init__(self) -> None:
        for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "inner"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd must be a multiple of n_head, got {self.n_embd} and {self.n_head}")
        for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        if self.positions not in POSITIONS:
            raise ValueError(f"positions must be one of {POSITIONS}, got {self.positions!r}")
        if self.positions == "rotary" and self.n_embd // self.n_head % 2:
            raise ValueError(f"rotary positions want an even head size, got {self.n_embd // self.n_head}")
        if self.activation_function not in ACTIVATIONS:
            raise ValueError(
                f"activation_function must be one of {tuple(ACTIVATIONS)}, got {self.activation_function!r}"
            )

    @property
    def inner(self) -> int:
        """Width of the feed-forward layer."""
        return 4 * self.n_embd if self.n_inner is None else self.n_inner


@dataclass
class Output:
    """What a model returns; fields as in transformers."""

    logits: Tensor  # (B, T, V)
    loss: Tensor | None = None  # mean over the scored labels, in nats
    last_hidden_state: Tensor | None = None  # (B, T, C)
    past_key_values: tuple[KeysAndValues, ...] | None = None  # one per layer


# ------------------------------------------------------------ one block


class Attention(nn.Module):
    """Multi-head attention; queries, keys and values come from one matrix, in one product where they can."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.n_head, self.dropout = config.n_head, config.attn_pdrop
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)  # W_Q, W_K, W_V stacked
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        mask: Tensor | None = None,
        is_causal: bool = False,
        rotary: tuple[Tensor, Tensor] | None = None,
        past: KeysAndValues | None = None,
    ) -> tuple[Tensor, KeysAndValues]:
        """Output (B, T, C), and all keys and values; attends to ``x`` itself, or to ``memory`` (B, S, C)."""
        q, k, v = self._project(x, memory, rotary, past)
        dropout_p = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, mask, dropout_p, is_causal)  # (B, H, T, C/H)
        return self.c_proj(y.transpose(1, 2).flatten(2)), (k, v)

    def weights(self, x, memory=None, mask=None, is_causal=False, rotary=None, past=None) -> Tensor:
        """The weights that ``forward`` uses, which its fused kernel never shows: (B, H, T, S)."""
        q, k, _ = self._project(x, memory, rotary, past)
        return attention_weights(q, k, mask, is_causal)

    def _project(
        self,
        x: Tensor,
        memory: Tensor | None,
        rotary: tuple[Tensor, Tensor] | None,
        past: KeysAndValues | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, T, C/H), keys and values (B, H, S, C/H), rotated and with the past in front."""
        if memory is None:
            q, k, v = self.c_attn(x).chunk(3, dim=-1)  # (B, T, C) each
        else:
            C = x.shape[-1]
            weight, bias = self.c_attn.weight, self.c_attn.bias
            q = F.linear(x, weight[:C], bias[:C])  # (B, T, C)
            k, v = F.linear(memory, weight[C:], bias[C:]).chunk(2, dim=-1)  # (B, S, C) each
        q, k, v = (t.unflatten(-1, (self.n_head, -1)).transpose(1, 2) for t in (q, k, v))
        if rotary is not None:
            q, k = apply_rotary(q, *rotary), apply_rotary(k, *rotary)
        if past is not None:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        return q, k, v


class MLP(nn.Module):
    """The feed-forward layer: each position by itself, out to ``inner`` features and back."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, config.inner)
        self.c_proj = nn.Linear(config.inner, config.n_embd)
        self.act = ACTIVATIONS[config.activation_function]

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(self.act(self.c_fc(x)))  # (B, T, C) → (B, T, inner) → (B, T, C)


class Block(nn.Module):
    """Attention, (cross-attention,) feed-forward: each reads the residual stream and adds to it."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        norm = partial(nn.LayerNorm, config.n_embd, eps=config.layer_norm_epsilon)
        self.norm_first = config.norm_first
        self.ln_1, self.attn = norm(), Attention(config)
        if config.add_cross_attention:
            self.ln_cross_attn, self.crossattention = norm(), Attention(config)
        self.ln_2, self.mlp = norm(), MLP(config)
        self.drop = nn.Dropout(config.resid_pdrop)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
        **self_attention: Tensor | bool | None,
    ) -> tuple[Tensor, KeysAndValues]:
        """The stream (B, T, C) after this block, and its self-attention's keys and values."""
        update, present = self.attn(self._read(x, self.ln_1), **self_attention)
        x = self._add(x, update, self.ln_1)
        if memory is not None:
            update, _ = self.crossattention(self._read(x, self.ln_cross_attn), memory, memory_mask)
            x = self._add(x, update, self.ln_cross_attn)
        x = self._add(x, self.mlp(self._read(x, self.ln_2)), self.ln_2)
        return x, present

    def _read(self, x: Tensor, norm: nn.LayerNorm) -> Tensor:
        return norm(x) if self.norm_first else x

    def _add(self, x: Tensor, update: Tensor, norm: nn.LayerNorm) -> Tensor:
        x = x + self.drop(update)
        return x if self.norm_first else norm(x)


# ------------------------------------------------------------ encoder and decoder


class _Stack(nn.Module):
    """Embeddings and blocks. Normalising first ends with a norm; normalising last begins with one."""

    is_causal: bool

    def __init__(self, config: GPTConfig, generator: torch.Generator | None) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        if config.positions == "learned":
            self.wpe = nn.Embedding(config.n_positions, config.n_embd)
        norm = partial(nn.LayerNorm, config.n_embd, eps=config.layer_norm_epsilon)
        self.ln_e = nn.Identity() if config.norm_first else norm()
        self.drop = nn.Dropout(config.embd_pdrop)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = norm() if config.norm_first else nn.Identity()
        self._init_weights(generator)

    @torch.no_grad()
    def _init_weights(self, generator: torch.Generator | None) -> None:
        """GPT-2's: N(0, 0.02²), and what is added to the stream divided by √(number of additions)."""
        additions = self.config.n_layer * (3 if self.config.add_cross_attention else 2)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                residual = name.endswith("c_proj.weight")
                std = self.config.initializer_range / (math.sqrt(additions) if residual else 1.0)
                p.normal_(0.0, std, generator=generator)
            elif name.endswith("bias"):
                p.zero_()  # LayerNorm's weights stay 1

    def embed(self, input_ids: Tensor, start: int = 0) -> Tensor:
        """Token embeddings plus positions ``start``, ``start + 1``, …: (B, T) → (B, T, C)."""
        self._check_ids(input_ids, start)
        end = start + input_ids.shape[1]
        try:
            x = self.wte(input_ids)
        except IndexError:  # costs nothing where all is well; a GPU reports it by its own assertion
            low, high = input_ids.min().item(), input_ids.max().item()
            raise ValueError(f"input_ids must lie in 0..{self.config.vocab_size - 1}, got {low} to {high}") from None
        if self.config.positions == "learned":
            x = x + self.wpe.weight[start:end]
        elif self.config.positions == "sinusoidal":
            x = x + sinusoidal_positions(end, self.config.n_embd)[start:].to(x)
        return self.drop(self.ln_e(x))

    def blocks(
        self,
        x: Tensor,
        attention_mask: Tensor | None = None,
        past: tuple[KeysAndValues, ...] | None = None,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
    ) -> tuple[Tensor, tuple[KeysAndValues, ...]]:
        """The stream (B, T, C) through all blocks and the last norm, and each block's keys and values.

        The masks (B, S) are 1 where there is a token and 0 where there is padding.
        """
        start = 0 if past is None else past[0][0].shape[2]
        mask, is_causal = self._mask(x, start, attention_mask)
        rotary = None
        if self.config.positions == "rotary":
            positions = torch.arange(start, start + x.shape[1], device=x.device)
            rotary = rotary_embedding(positions, self.config.n_embd // self.config.n_head)
        memory_mask = None if memory_mask is None else memory_mask[:, None, None].bool()  # (B, 1, 1, S)
        presents = []
        for i, block in enumerate(self.h):
            layer_past = None if past is None else past[i]
            x, present = block(x, memory, memory_mask, mask=mask, is_causal=is_causal, rotary=rotary, past=layer_past)
            presents.append(present)
        return self.ln_f(x), tuple(presents)

    def _mask(self, x: Tensor, start: int, attention_mask: Tensor | None) -> tuple[Tensor | None, bool]:
        """(mask, is_causal) for attention: the fused causal kernel, or no mask at all, where that is enough."""
        T, S = x.shape[1], start + x.shape[1]
        alibi = self.config.positions == "alibi"
        if attention_mask is None and not alibi and (start == 0 or T == 1):
            return None, self.is_causal and T > 1
        bias = x.new_zeros(1, 1, T, S)
        if alibi:
            bias = bias + alibi_bias(self.config.n_head, S)[:, start:].to(x)  # (1, H, T, S)
        if self.is_causal:
            future = torch.ones(T, S, dtype=torch.bool, device=x.device).triu(start + 1)
            bias = bias.masked_fill(future, -math.inf)
        if attention_mask is not None:
            bias = bias.masked_fill(attention_mask[:, None, None] == 0, -math.inf)  # (B, ·, T, S)
        return bias, False

    def _check_ids(self, input_ids: Tensor, start: int) -> None:
        if not isinstance(input_ids, Tensor) or input_ids.dtype not in (torch.long, torch.int):
            kind = getattr(input_ids, "dtype", type(input_ids).__name__)
            raise TypeError(f"input_ids must be a tensor of integers (torch.long), got {kind}")
        if input_ids.dim() != 2 or input_ids.numel() == 0:
            raise ValueError(f"input_ids must be (batch, length), got shape {tuple(input_ids.shape)}")
        if start + input_ids.shape[1] > self.config.n_positions:
            raise ValueError(
                f"input_ids must end within n_positions = {self.config.n_positions}, "
                f"got {input_ids.shape[1]} tokens after {start}"
            )


class Encoder(_Stack):
    """Blocks that look both ways (BERT: ``norm_first=False``, ``activation_function="gelu"``)."""

    is_causal = False

    def __init__(self, config: GPTConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__(replace(config, add_cross_attention=False), generator)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Ids (B, T) and mask (B, T; 1 token, 0 padding) to hidden states (B, T, C).

        Raises TypeError or ValueError for ids, lengths and masks that don't fit the configuration.
        """
        x = self.embed(input_ids)
        if attention_mask is not None:
            _check_padding("attention_mask", attention_mask, input_ids.shape)
        return self.blocks(x, attention_mask)[0]

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of the vocabulary, by the token embeddings themselves: (..., C) → (..., V)."""
        return F.linear(hidden, self.wte.weight)


class GPT(_Stack):
    """Blocks that look back only, and a head that predicts the next token (Radford et al., 2019)."""

    is_causal = True

    def __init__(self, config: GPTConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__(config, generator)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.wte.weight
        else:
            nn.init.normal_(self.lm_head.weight, 0.0, config.initializer_range, generator=generator)

    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor | None = None,
        *,
        past_key_values: tuple[KeysAndValues, ...] | None = None,
        use_cache: bool = False,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
    ) -> Output:
        """Ids (B, T) to logits (B, T, V); with ``labels`` (B, T) also the mean loss in nats.

        As in transformers, labels are shifted here (``labels=input_ids`` trains a language model) and −100 is
        not scored. ``past_key_values`` is what an earlier call with ``use_cache=True`` returned; then
        ``input_ids`` are the tokens after it. Raises TypeError or ValueError for ids, labels and lengths that
        don't fit the configuration.
        """
        if (encoder_hidden_states is None) == self.config.add_cross_attention:
            raise ValueError("encoder_hidden_states go with add_cross_attention=True: both or neither")
        x = self.embed(input_ids, 0 if past_key_values is None else past_key_values[0][0].shape[2])
        x, presents = self.blocks(x, None, past_key_values, encoder_hidden_states, encoder_attention_mask)  # (B, T, C)
        logits = self.lm_head(x)  # (B, T, V)
        loss = None
        if labels is not None:
            _check_labels(labels, input_ids.shape)
            # Shifting the labels, not the logits, saves a copy of the largest tensor.
            loss = _cross_entropy(logits, F.pad(labels[:, 1:], (0, 1), value=IGNORE))
        return Output(logits, loss, x, presents if use_cache else None)

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path) -> GPT:
        """A model from a folder (``save_pretrained``'s or transformers' GPT-2), or from the hub by name.

        Reads ``config.json`` and ``model.safetensors`` only, never a pickle, and returns the model in
        evaluation mode. Errors: FileNotFoundError, and ValueError for what is no GPT-2 that we can run.
        """
        options, state = weights.read_pretrained(name_or_path)
        config = GPTConfig(**{f.name: options[f.name] for f in fields(GPTConfig) if f.name in options})
        with torch.device("meta"):  # no memory, no random numbers: the weights follow
            model = cls(config)
        if config.tie_word_embeddings:
            state["lm_head.weight"] = state["wte.weight"]
        model.load_state_dict(state, assign=True)
        if config.tie_word_embeddings:
            model.lm_head.weight = model.wte.weight
        return model.eval()

    def save_pretrained(self, path: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors``, which ``GPT2LMHeadModel.from_pretrained`` reads.

        Positions or norms that GPT-2 doesn't have are written too, for ``GPT.from_pretrained`` alone.
        """
        weights.write_pretrained(path, self.config, self.state_dict())


class EncoderDecoder(nn.Module):
    """An encoder, and a GPT that also attends to the encoder's output (Vaswani et al., 2017; T5)."""

    def __init__(self, config: GPTConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.encoder = Encoder(config, generator=generator)
        self.decoder = GPT(replace(config, add_cross_attention=True), generator=generator)
        self.config = self.decoder.config
        if config.tie_word_embeddings:
            self.encoder.wte.weight = self.decoder.wte.weight

    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor | None = None,
        *,
        decoder_input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Output:
        """Source ids (B, S), and target ids as ``labels`` (B, T), to logits (B, T, V) and the mean loss.

        As in T5, ``logits[:, t]`` predicts ``labels[:, t]``: the decoder reads the labels one step later, after
        a start token of id 0. ``attention_mask`` (B, S) is 0 on the source's padding.
        """
        if (labels is None) == (decoder_input_ids is None):
            raise ValueError("give either labels or decoder_input_ids")
        if decoder_input_ids is None:
            _check_labels(labels, (input_ids.shape[0], labels.shape[-1]))
            decoder_input_ids = F.pad(labels[:, :-1], (1, 0)).clamp(min=0)  # ignored labels are read as 0
        memory = self.encoder(input_ids, attention_mask)  # (B, S, C)
        output = self.decoder(decoder_input_ids, encoder_hidden_states=memory, encoder_attention_mask=attention_mask)
        if labels is not None:
            output.loss = _cross_entropy(output.logits, labels)
        return output


@contextmanager
def record_attention(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Collect the attention weights (B, H, T, S) of all that runs inside the ``with``, by module name."""
    seen: dict[str, Tensor] = {}

    def hook(name, module, args, kwargs, output):
        seen[name] = module.weights(*args, **kwargs).detach()

    handles = [
        module.register_forward_hook(partial(hook, name), with_kwargs=True)
        for name, module in model.named_modules()
        if isinstance(module, Attention)
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


# ------------------------------------------------------------ what it costs


def parameter_count(config: GPTConfig) -> int:
    """Parameters of ``GPT(config)`` in closed form; tied embeddings count once."""
    C, inner = config.n_embd, config.inner
    attention, norm = 4 * C * C + 4 * C, 2 * C
    block = attention + norm + 2 * C * inner + C + inner + norm
    if config.add_cross_attention:
        block += attention + norm
    tables = config.vocab_size * (1 if config.tie_word_embeddings else 2)
    tables += config.n_positions if config.positions == "learned" else 0
    return tables * C + config.n_layer * block + norm


def forward_flops(config: GPTConfig, length: int) -> int:
    """Floating-point operations of ``GPT(config)`` on one sequence of ``length`` tokens.

    Matrix products only, two operations per multiply-add; attention over the full square, since a kernel may
    or may not skip the masked half. Backward costs twice as much again (chapter 5).
    """
    C, T = config.n_embd, length
    per_token = config.n_layer * (4 * C * C + 2 * C * config.inner) + C * config.vocab_size
    attention = config.n_layer * 2 * T * T * C  # QKᵀ and the weighted sum of V
    return 2 * (T * per_token + attention)


# ------------------------------------------------------------ losses and checks


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    if not torch.compiler.is_compiling() and bool((targets == IGNORE).all()):
        raise ValueError("labels leave nothing to score: every target is -100, or there is only one token")
    try:
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE)
    except IndexError as error:
        raise ValueError(f"labels must be token ids or {IGNORE}, got one outside the vocabulary") from error


def _check_labels(labels: Tensor, shape: tuple[int, ...]) -> None:
    if not isinstance(labels, Tensor) or labels.dtype != torch.long:
        raise TypeError(f"labels must be a torch.long tensor, got {getattr(labels, 'dtype', type(labels))}")
    if labels.shape != shape:
        raise ValueError(f"labels must have the shape of input_ids {tuple(shape)}, got {tuple(labels.shape)}")


def _check_padding(name: str, mask: Tensor, shape: tuple[int, ...]) -> None:
    if mask.shape != shape:
        raise ValueError(f"{name} must have input_ids' shape {tuple(shape)}, got {tuple(mask.shape)}")
    if not bool((mask != 0).any(dim=1).all()):
        raise ValueError(f"{name} must leave at least one token in every row")
