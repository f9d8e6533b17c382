"""What compression cost on real text: bits per character of a model, document by document."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from llmbook.evaluation import Estimate
from llmbook.training import row_logprobs


class TextBits(NamedTuple):
    """What a model needs for each of n documents."""

    bits: np.ndarray  # (n,)
    characters: np.ndarray  # (n,) of the text that was scored

    @property
    def rate(self) -> float:
        """Bits per character over all documents."""
        return float(self.bits.sum() / self.characters.sum())

    def above(self, other: TextBits) -> Estimate:
        """Bits per character more than another model needs for the same text, and its standard error over documents."""
        if not np.array_equal(self.characters, other.characters):
            raise ValueError("other must have scored the same documents")
        n, total = len(self.bits), self.characters.sum()
        if n < 2:
            raise ValueError("a standard error needs at least 2 documents, got 1")
        difference = self.bits - other.bits
        mean = difference.sum() / total
        residuals = difference - mean * self.characters  # of a ratio of sums
        return Estimate(float(mean), float(math.sqrt(n / (n - 1) * (residuals**2).sum()) / total))


@torch.no_grad()
def text_bits(
    model: nn.Module, tokenizer: Any, texts: Sequence[str], *, longest: int = 512, batch_size: int = 4
) -> TextBits:
    """Score each text from its first token on, opened by ``<|endoftext|>`` and cut after ``longest`` tokens.

    ``tokenizer`` is a ``tokenizers.Tokenizer`` (``pretrained.tokenizer()``). Raises ValueError for no or empty texts.
    """
    if not texts or not all(texts):
        raise ValueError("texts must hold at least one text, and none that is empty")
    opening = tokenizer.token_to_id("<|endoftext|>")
    coded = [tokenizer.encode(text) for text in texts]
    rows = [[opening, *code.ids[:longest]] for code in coded]
    logprobs = np.split(row_logprobs(model, rows, batch_size), np.cumsum([len(row) - 1 for row in rows])[:-1])
    ends = [code.offsets[:longest][-1][1] for code in coded]  # characters up to the last token scored
    return TextBits(np.array([-each.sum() / math.log(2) for each in logprobs]), np.array(ends, dtype=float))
