"""A model that reads on: with a cache each call reads only what is new."""

from __future__ import annotations

import torch
from torch import Tensor

from llmbook.transformer import GPT, Cache


class Reader:
    """Feeds a ``GPT`` token by token and keeps the keys and values of what was read, unless ``use_cache`` is False.

    ``attention_mask`` (B, T) belongs to the first ids: 0 on the padding in front of short rows. Each row's positions
    are counted from its first token. Attributes: ``ids`` (B, length) that were read, ``hidden`` (B, n, C) the last
    block's output at those read last.
    """

    def __init__(self, model: GPT, attention_mask: Tensor | None = None, use_cache: bool = True) -> None:
        self.model, self.use_cache = model, use_cache
        padded = attention_mask is not None and not bool(attention_mask.all())
        self.mask = attention_mask.long() if padded else None
        self.past: tuple[Cache, ...] | None = None
        self.ids: Tensor | None = None
        self.hidden: Tensor | None = None

    @property
    def length(self) -> int:
        """Tokens read so far, padding included."""
        return 0 if self.ids is None else self.ids.shape[1]

    @property
    def padding(self) -> Tensor | None:
        """How many ids in front of each row are padding (B,); None where no row has any."""
        return None if self.mask is None else (self.mask == 0).sum(1)

    def read(self, new_ids: Tensor, keep: int = 1) -> Tensor:
        """Read (B, n) more ids; the logits (B, keep, V) at the last ``keep`` of them."""
        n = new_ids.shape[1]
        self.ids = new_ids if self.ids is None else torch.cat([self.ids, new_ids], dim=1)
        if self.mask is not None and (missing := self.length - self.mask.shape[1]) > 0:
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.ids), missing)], dim=1)
        fed = new_ids if self.use_cache else self.ids
        output = self.model(
            fed,
            past_key_values=self.past,
            use_cache=self.use_cache,
            attention_mask=self.mask,
            position_ids=None if self.mask is None else places(self.mask)[:, -fed.shape[1] :],
            logits_to_keep=keep,
        )
        if self.past is None and self.use_cache:
            self.past = tuple(Cache(k, v) for k, v in output.past_key_values)
        self.hidden = output.last_hidden_state[:, -n:]
        return output.logits

    def catch_up(self, ids: Tensor, keep: int = 1) -> Tensor:
        """Have read exactly ``ids`` (B, T): forget what differs, read the rest; the logits of the last ``keep``."""
        known = min(self.length, ids.shape[1] - keep)
        if known > 0:
            same = (self.ids[:, :known] == ids[:, :known]).all(0)  # (known,)
            known = int(same.int().cumprod(0).sum())
        self.forget(max(known, 0))
        return self.read(ids[:, max(known, 0) :], keep)

    def forget(self, length: int) -> None:
        """Keep the first ``length`` tokens only."""
        if length >= self.length:
            return
        self.ids = self.ids[:, :length] if length else None
        for cache in self.past or ():
            cache.length = length
        if not length:
            self.past = None

    def select(self, rows: Tensor) -> None:
        """Go on with these rows (N,) of the batch; a row may come several times."""
        self.ids, self.hidden = self.ids[rows], self.hidden[rows]
        self.mask = None if self.mask is None else self.mask[rows]
        if self.past is not None:
            self.past = tuple(Cache(*(t[rows] for t in cache.tensors)) for cache in self.past)


def places(mask: Tensor) -> Tensor:
    """Positions (B, T) counted from each row's first token; padding in front gets 0."""
    return (mask.cumsum(1) - 1).clamp(min=0)
