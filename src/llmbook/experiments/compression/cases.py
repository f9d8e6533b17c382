"""What is compressed, and how it is measured: the GPT of ToyWorld at a seed, and the real model."""

from __future__ import annotations

import copy
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from llmbook import corpora, pretrained, zoo
from llmbook.compression import storage
from llmbook.compression.calibration import InputStatistics, input_statistics
from llmbook.compression.quality import text_bits
from llmbook.evaluation import Estimate, mean_and_error
from llmbook.experiments import sweep
from llmbook.training import TrainingArguments, row_logprobs
from llmbook.transformer import GPT

HELD_OUT, CALIBRATION = 300, 200  # stories
TEST_ARTICLES, ARTICLES, TOKENS = 20, 16, 256  # of Lee news: measured on, calibrated on, tokens of each of these


class Case:
    """A model to compress, at a seed: the seed chooses calibration text, and with ToyWorld the model, too."""

    model: str

    def __init__(self, seed: int) -> None:
        self.seed = seed

    @functools.cached_property
    def base(self) -> GPT:
        """The model as it is: never changed."""
        raise NotImplementedError

    def fresh(self) -> GPT:
        """A copy to compress."""
        return copy.deepcopy(self.base)

    @functools.cached_property
    def batches(self) -> list[Tensor]:
        """Calibration text, ids (1, T)."""
        raise NotImplementedError

    @functools.cached_property
    def statistics(self) -> dict[str, InputStatistics]:
        """What the layers of the whole model are fed."""
        return input_statistics(self.base, self.batches)

    def cost(self, model: GPT) -> Estimate:
        """What compression cost, in the model's unit, against the whole model on the same text."""
        raise NotImplementedError


class Toy(Case):
    """The GPT of ToyWorld; nats per token."""

    model = "toyworld-gpt"

    @functools.cached_property
    def base(self) -> GPT:
        return zoo.toyworld_gpt(self.seed)

    @functools.cached_property
    def stories(self) -> list[np.ndarray]:
        """Rows that neither the model was trained on nor is measured on."""
        return sweep.rows_of(sweep.stories(8000, 10**5 + self.seed))

    @functools.cached_property
    def batches(self) -> list[Tensor]:
        return [torch.as_tensor(row)[None] for row in self.stories[:CALIBRATION]]

    @functools.cached_property
    def _logprobs(self) -> np.ndarray:
        return row_logprobs(self.base, sweep.held_out(HELD_OUT)[1])

    def cost(self, model: GPT) -> Estimate:
        _, rows, _, numbers = sweep.held_out(HELD_OUT)
        return mean_and_error(self._logprobs - row_logprobs(model, rows), numbers)

    def arguments(self, steps: int, learning_rate: float = 1e-3) -> TrainingArguments:
        """Of a retraining: batches of eight stories, a rate that ends at zero."""
        return TrainingArguments(
            max_steps=steps, batch_size=8, block_size=sweep.LONGEST, learning_rate=learning_rate,
            warmup_steps=max(1, steps // 20), min_lr_ratio=0.0, weight_decay=0.01, adam_beta2=0.98, seed=self.seed,
        )  # fmt: skip


class Real(Case):
    """SmolLM2; bits per character of twenty news articles."""

    model = "smollm2"

    @functools.cached_property
    def base(self) -> GPT:
        return pretrained.to_gpt(pretrained.find("smollm2"))

    @functools.cached_property
    def _articles(self) -> list[str]:
        return corpora.gensim_file("lee_background.cor").read_text(encoding="utf-8").splitlines()

    @functools.cached_property
    def batches(self) -> list[Tensor]:
        """Articles from the hundredth on, the first tokens of each that is long enough, in an order of the seed."""
        tokenizer = pretrained.tokenizer("smollm2")
        order = np.random.default_rng(self.seed).permutation(len(self._articles) - 100) + 100
        coded = (tokenizer.encode(self._articles[i]).ids for i in order)
        rows = [ids[:TOKENS] for ids in coded if len(ids) >= TOKENS][:ARTICLES]
        return list(torch.tensor(rows).split(4))

    @functools.cached_property
    def _bits(self):
        return self._text_bits(self.base)

    def _text_bits(self, model: GPT):
        return text_bits(model, pretrained.tokenizer("smollm2"), self._articles[:TEST_ARTICLES])

    def cost(self, model: GPT) -> Estimate:
        return self._text_bits(model).above(self._bits)


CASES: dict[str, Callable[[int], Case]] = {case.model: case for case in (Toy, Real)}


def file_size(model: nn.Module) -> int:
    """Bytes of the model's folder on disk, as :mod:`llmbook.compression.storage` writes it."""
    with tempfile.TemporaryDirectory() as folder:
        storage.save(model, Path(folder))
        return storage.size(Path(folder))
