"""Stacks of blocks: the encoder, the decoder that the later chapters train, and both together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmbook import weights
from llmbook.attention import alibi_bias, rotary_embedding, sinusoidal_positions
from llmbook.transformer.config import GPTConfig
from llmbook.transformer.layers import Attention, Block, Cache, Experts, KeysAndValues, make_norm

IGNORE = -100  # a label that is not scored, as in transformers


@dataclass
class Output:
    """What a model returns; fields as in transformers."""

    logits: Tensor  # (B, T, V)
    loss: Tensor | None = None  # mean over the scored labels, in nats
    last_hidden_state: Tensor | None = None  # (B, T, C)
    past_key_values: tuple[KeysAndValues, ...] | None = None  # one per layer


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
        self.ln_e = nn.Identity() if config.norm_first else make_norm(config)
        self.drop = nn.Dropout(config.embd_pdrop)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = make_norm(config) if config.norm_first else nn.Identity()
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
                p.zero_()  # the norms' weights stay 1

    def embed(self, input_ids: Tensor, start: int = 0, position_ids: Tensor | None = None) -> Tensor:
        """Token embeddings plus positions ``start``, ``start + 1``, …, or those given (B, T): (B, T) → (B, T, C)."""
        self._check_ids(input_ids, start)
        end = start + input_ids.shape[1]
        try:
            x = self.wte(input_ids)
        except IndexError:  # costs nothing where all is well; a GPU reports it by its own assertion
            low, high = input_ids.min().item(), input_ids.max().item()
            raise ValueError(f"input_ids must lie in 0..{self.config.vocab_size - 1}, got {low} to {high}") from None
        where = slice(start, end) if position_ids is None else position_ids
        if self.config.positions == "learned":
            x = x + self.wpe.weight[where]
        elif self.config.positions == "sinusoidal":
            x = x + sinusoidal_positions(end, self.config.n_embd).to(x)[where]
        return self.drop(self.ln_e(x))

    def blocks(
        self,
        x: Tensor,
        attention_mask: Tensor | None = None,
        past: tuple[KeysAndValues | Cache, ...] | None = None,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> tuple[Tensor, tuple[KeysAndValues, ...]]:
        """The stream (B, T, C) through all blocks and the last norm, and each block's keys and values.

        The masks (B, S) are 1 where there is a token and 0 where there is padding; S counts the past, too.
        ``position_ids`` (B, T) stand in for positions counted from the past's end.
        """
        start = _length(past)
        mask, is_causal = self._mask(x, start, attention_mask)
        rotary = None
        if self.config.positions == "rotary":
            positions = torch.arange(start, start + x.shape[1], device=x.device)
            positions = positions if position_ids is None else position_ids.flatten()
            rotary = rotary_embedding(positions, self.config.head_size, self.config.rope_theta)  # (T, C/H) each
            if position_ids is not None:
                rotary = tuple(t.unflatten(0, (-1, 1, x.shape[1])) for t in rotary)  # (B, 1, T, C/H)
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
            hidden = attention_mask[:, None, None] == 0  # (B, 1, 1, S)
            if self.is_causal:  # padding in front sees itself: nothing reads it, but no mean of nothing is a NaN
                hidden = hidden & ~torch.eye(T, S, dtype=torch.bool, device=x.device).roll(start, dims=1)
            bias = bias.masked_fill(hidden, -math.inf)  # (B, ·, T, S)
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
        past_key_values: tuple[KeysAndValues | Cache, ...] | None = None,
        use_cache: bool = False,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        logits_to_keep: int = 0,
    ) -> Output:
        """Ids (B, T) to logits (B, T, V); with ``labels`` (B, T) also the mean loss in nats.

        As in transformers, labels are shifted here (``labels=input_ids`` trains a language model) and −100 is
        not scored. ``past_key_values`` is what an earlier call with ``use_cache=True`` returned; then
        ``input_ids`` are the tokens after it. A :class:`Cache` in the place of a layer's pair is appended to.
        ``attention_mask`` (B, past + T) is 0 on padding, ``position_ids`` (B, T) say where each token stands if not
        right behind the past, and ``logits_to_keep`` above 0 gives the logits of so many last tokens only. Raises
        TypeError or ValueError for ids, labels and lengths that don't fit the configuration.
        """
        if (encoder_hidden_states is None) == self.config.add_cross_attention:
            raise ValueError("encoder_hidden_states go with add_cross_attention=True: both or neither")
        start = _length(past_key_values)
        _check_places(input_ids, start, attention_mask, position_ids)
        x = self.embed(input_ids, start, position_ids)
        memory = encoder_hidden_states, encoder_attention_mask
        x, presents = self.blocks(x, attention_mask, past_key_values, *memory, position_ids)  # (B, T, C)
        logits = self.lm_head(x[:, -logits_to_keep:])  # (B, T, V); all of them where it is 0
        loss = None
        if labels is not None:
            _check_labels(labels, input_ids.shape)
            # Shifting the labels, not the logits, saves a copy of the largest tensor.
            loss = _cross_entropy(logits, F.pad(labels[:, 1:], (0, 1), value=IGNORE))
        return Output(logits, loss, x, presents if use_cache else None)

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path) -> GPT:
        """A model from a folder (``save_pretrained``'s, transformers' GPT-2 or Llama), or from the hub by name.

        Reads ``config.json`` and ``model.safetensors`` only, never a pickle, and returns the model in
        evaluation mode. Errors: FileNotFoundError, and ValueError for what is no model that we can run.
        """
        options, state, folder = weights.read_pretrained(name_or_path)
        try:
            return cls.from_state(options, state)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{folder}: {error}") from error

    @classmethod
    def from_state(cls, options: Mapping[str, Any], state: Mapping[str, Tensor]) -> GPT:
        """A model from what transformers' ``config.json`` and weights hold, in evaluation mode, float32.

        ``options["model_type"]`` is "gpt2" or "llama". As in transformers, a head that differs from the embedding
        is kept, whatever the configuration says about tying. Raises ValueError or TypeError for what doesn't fit.
        """
        options, state = weights.translate(options, state)
        config = GPTConfig(**{f.name: options[f.name] for f in fields(GPTConfig) if f.name in options})
        if config.tie_word_embeddings:
            head = state.setdefault("lm_head.weight", state.get("wte.weight"))
            config = replace(config, tie_word_embeddings=_equal(head, state.get("wte.weight")))
        with torch.device("meta"):  # no memory, no random numbers: the weights follow
            model = cls(config)
        _check_state(state, {name: p.shape for name, p in model.state_dict().items()})
        model.load_state_dict(state, assign=True)
        if config.tie_word_embeddings:
            model.lm_head.weight = model.wte.weight
        return model.eval()

    def save_pretrained(self, path: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors``, for ``GPT.from_pretrained``.

        A model that is a GPT-2 or a Llama is written as one: ``GPT2LMHeadModel`` and ``LlamaForCausalLM`` read it.
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
    with _recording(model, Attention, _attention_weights) as seen:
        yield seen


def _attention_weights(module: Attention, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """The weights of a call that is over: a cache holds its tokens already, and must not get them twice."""
    past = kwargs.get("past")
    if isinstance(past, Cache):
        kwargs = {**kwargs, "past": past.before(args[0].shape[1])}
    return module.weights(*args, **kwargs).detach()


@contextmanager
def record_routing(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Collect the routers' scores (N tokens, E experts) of all that runs inside, with gradients, for the balance."""
    with _recording(model, Experts, lambda module, args, _: module.router(args[0].flatten(0, -2))) as seen:
        yield seen


@contextmanager
def _recording(model: nn.Module, kind: type[nn.Module], look: Callable[..., Tensor]) -> Iterator[dict[str, Tensor]]:
    seen: dict[str, Tensor] = {}

    def hook(name, module, args, kwargs, output):
        seen[name] = look(module, args, kwargs)

    named = [(name, module) for name, module in model.named_modules() if isinstance(module, kind)]
    handles = [module.register_forward_hook(partial(hook, name), with_kwargs=True) for name, module in named]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


# ------------------------------------------------------------ losses and checks


def _length(past: tuple[KeysAndValues | Cache, ...] | None) -> int:
    """How many tokens it keeps."""
    if past is None:
        return 0
    return past[0].length if isinstance(past[0], Cache) else past[0][0].shape[2]


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


def _check_places(input_ids: Tensor, start: int, attention_mask: Tensor | None, position_ids: Tensor | None) -> None:
    shape = tuple(getattr(input_ids, "shape", ()))
    if position_ids is not None and position_ids.shape != shape:
        raise ValueError(f"position_ids must have input_ids' shape {shape}, got {tuple(position_ids.shape)}")
    if attention_mask is not None and attention_mask.shape != (shape[0], start + shape[1]):
        wanted, got = (shape[0], start + shape[1]), tuple(attention_mask.shape)
        raise ValueError(f"attention_mask must be (batch, past + length) = {wanted}, got {got}")


def _check_state(state: Mapping[str, Tensor], wanted: Mapping[str, torch.Size]) -> None:
    """Every tensor of the configuration there, none more, each of the configuration's shape; else ValueError."""
    missing = [name for name in wanted if state.get(name) is None]
    if missing:
        raise ValueError(f"the weights lack {_some(missing)}, which the configuration has")
    beyond = [name for name in state if name not in wanted]
    if beyond:
        raise ValueError(f"the weights hold {_some(beyond)}, which the configuration doesn't have")
    for name, shape in wanted.items():
        if state[name].shape != shape:
            raise ValueError(f"{name} must be {tuple(shape)} by the configuration, got {tuple(state[name].shape)}")


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _equal(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b or (a is not None and b is not None and torch.equal(a, b))
