"""A sentence encoder: texts to vectors of length one, whose products say how near the texts are in meaning.

Reimers and Gurevych (2019): a BERT reads the text, and the mean of its last layer over the text's tokens is the
text's vector.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

MAX_TOKENS = 256  # what all-MiniLM-L6-v2 was trained to read; longer texts are cut


class SentenceEncoder:
    """A folder with ``model.safetensors``, ``config.json`` and ``tokenizer.json`` of a BERT, read as it was saved.

    Raises:
        ValueError: where the folder's weights are not those that its configuration needs.
    """

    def __init__(self, folder: str | Path):
        from safetensors.torch import load_file
        from transformers import BertConfig, BertModel  # takes seconds to import

        folder = Path(folder)
        options = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.model = BertModel(BertConfig(**options), add_pooling_layer=False).eval()
        state = load_file(folder / "model.safetensors")
        missing = [name for name in self.model.state_dict() if name not in state]
        if missing:
            raise ValueError(f"{folder} lacks the weights {', '.join(missing[:3])}")
        self.model.load_state_dict({name: state[name] for name in self.model.state_dict()})
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(MAX_TOKENS)
        self.tokenizer.enable_padding(pad_id=self.model.config.pad_token_id)

    @property
    def width(self) -> int:
        return self.model.config.hidden_size

    @torch.no_grad()
    def encode(self, sentences: Sequence[str], batch_size: int = 32) -> Tensor:
        """Vectors (N, C) of length one, in the order of the sentences.

        Sentences of like length go through the model together, so that little of the work is padding.
        """
        if isinstance(sentences, str):
            raise TypeError("sentences must be a list of texts, got one text; write [text]")
        order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
        vectors = torch.empty(len(sentences), self.width)  # (N, C)
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            vectors[chosen] = self._mean([sentences[i] for i in chosen])
        return torch.nn.functional.normalize(vectors, dim=-1)

    def _mean(self, sentences: list[str]) -> Tensor:
        """The mean of the last layer over each sentence's own tokens, (B, C)."""
        read = self.tokenizer.encode_batch(sentences)
        ids = torch.tensor([one.ids for one in read])  # (B, T)
        mask = torch.tensor([one.attention_mask for one in read])  # (B, T), 0 where padded
        states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state  # (B, T, C)
        weights = mask.unsqueeze(-1).to(states.dtype)  # (B, T, 1)
        return (states * weights).sum(1) / weights.sum(1)
