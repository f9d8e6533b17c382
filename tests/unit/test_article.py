"""Statements of the source article about its own code and commands (§4.2, §5), shown by running them.

The audit (book/audit.md) names these tests as its evidence.
"""

import os
import shutil
import subprocess

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model

VOCABULARY = 50


@pytest.fixture(scope="module")
def config() -> GPT2Config:
    return GPT2Config(
        vocab_size=VOCABULARY, n_positions=32, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )


@pytest.fixture(scope="module")
def ids() -> torch.Tensor:
    return torch.randint(VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(0))  # (B, T)


def test_no_logits(config, ids):
    """GPT2Model gives hidden states and no logits; GPT2LMHeadModel gives logits."""
    output = GPT2Model(config)(ids)
    assert not hasattr(output, "logits")
    assert output.last_hidden_state.shape == (*ids.shape, config.n_embd)
    assert GPT2LMHeadModel(config)(ids).logits.shape == (*ids.shape, VOCABULARY)


def test_call(config, ids):
    """The wrapper cannot be called as ``generate_text`` calls it."""

    class Wrapper(nn.Module):
        """The article's class: forward takes one argument, a dictionary."""

        def __init__(self):
            super().__init__()
            self.model = GPT2Model(config)

        def forward(self, inputs):
            return self.model(**inputs)

    batch = {"input_ids": ids}
    assert Wrapper()(batch).last_hidden_state is not None
    with pytest.raises(TypeError, match="input_ids"):
        Wrapper()(**batch)


def test_ellipsis():
    """``dataloader = ...`` is valid and cannot be iterated over."""
    with pytest.raises(TypeError, match="not iterable"):
        iter(...)


def test_unshifted(ids):
    """A 'model' that repeats each input token has loss 0 against unshifted labels, and predicts nothing."""
    copier = 100.0 * F.one_hot(ids, VOCABULARY)  # logits (B, T, V)
    unshifted = F.cross_entropy(copier.flatten(0, 1), ids.flatten())
    shifted = F.cross_entropy(copier[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert unshifted < 1e-6
    assert shifted > torch.log(torch.tensor(VOCABULARY))  # worse than guessing uniformly


def test_shifted(config, ids):
    """The library shifts labels itself."""
    output = GPT2LMHeadModel(config).eval()(ids, labels=ids)
    by_hand = F.cross_entropy(output.logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    torch.testing.assert_close(output.loss, by_hand)


def test_length(config, ids):
    """So no text of four new sentences can come out of it, whatever max_length says."""
    predictions = GPT2LMHeadModel(config)(ids).logits.argmax(-1)
    assert predictions.shape == ids.shape


def test_greedy():
    """Always taking the likeliest word does not follow the distribution."""
    stated = torch.tensor([0.1, 0.2, 0.6, 0.1], dtype=torch.float64)
    produced = F.one_hot(stated.argmax(), len(stated)).double()
    total_variation = 0.5 * (stated - produced).abs().sum()
    assert total_variation.item() == pytest.approx(0.4)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("CUDA-VERSION=10.1.243", "CUDA-VERSION=10.1.243: command not found"),
        ("Distribution=Ubuntu; Codename=focal; Suite=$Distribution $Codename", "focal: command not found"),
    ],
)
def test_bash(line, complaint):
    """Bash rejects two of the set-up lines."""
    english = {**os.environ, "LC_ALL": "C"}
    result = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, env=english)
    assert result.returncode == 127
    assert complaint in result.stderr
