"""`fit` and transformers' `Trainer` on the same batches: the same losses and weights. Needs the accelerate package."""

import copy

import pytest
import torch
import transformers
from transformers import GPT2Config, GPT2LMHeadModel

from llmbook.training import TrainingArguments, fit

pytest.importorskip("accelerate")
pytestmark = pytest.mark.filterwarnings("default")
T, STEPS = 16, 4


@pytest.fixture
def model():
    config = GPT2Config(vocab_size=50, n_positions=32, n_embd=16, n_layer=1, n_head=2,
                        resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return GPT2LMHeadModel(config)


def rows(first_is_scored):
    """Rows of ids and labels; the first label is never scored, and says so or not."""
    ids = torch.randint(50, (8 * STEPS, T), generator=torch.Generator().manual_seed(1))
    labels = ids.clone()
    if not first_is_scored:
        labels[:, 0] = -100
    return [{"input_ids": i, "labels": j} for i, j in zip(ids, labels, strict=True)]


def their_losses(model, data, folder):
    args = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=STEPS, per_device_train_batch_size=8, learning_rate=1e-3,
        lr_scheduler_type="constant", weight_decay=0.01, adam_beta2=0.95, max_grad_norm=1.0, logging_steps=1,
        report_to="none", save_strategy="no", train_sampling_strategy="sequential", disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    with torch.random.fork_rng():
        trainer = transformers.Trainer(model=model, args=args, train_dataset=data)
        trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def our_losses(model, data):
    def get_batch(step):
        some = data[8 * step : 8 * step + 8]
        return {key: torch.stack([row[key] for row in some]) for key in ("input_ids", "labels")}

    args = TrainingArguments(max_steps=STEPS, learning_rate=1e-3, lr_scheduler_type="constant", weight_decay=0.01)
    return list(fit(model, get_batch, args).column("loss"))


def test_same_losses_and_weights(model, tmp_path):
    data, other = rows(first_is_scored=False), copy.deepcopy(model)
    assert their_losses(other, data, tmp_path) == pytest.approx(our_losses(model, data), abs=1e-5)
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=1e-5, rtol=1e-4)


def test_the_trainer_counts_a_label_that_nothing_predicts(model, tmp_path):
    """With labels equal to the ids, it divides by T, not by the T − 1 targets: its first loss is that much smaller."""
    data = rows(first_is_scored=True)
    first = their_losses(copy.deepcopy(model), data, tmp_path)[0]
    assert first == pytest.approx(our_losses(model, data)[0] * (T - 1) / T, abs=1e-5)
