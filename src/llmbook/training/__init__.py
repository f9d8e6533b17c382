"""The training loop: batches, schedules, accumulation, mixed precision, exact resume, several processes.

Everything random is a function of ``(seed, step)``: which examples step 1,234 sees and what its dropout
drops. So a run needs no hidden state beside the weights and the optimiser's moments, and one that was
killed and resumed ends in the same bits as one that was not.

From the shell: ``python -m llmbook.training --help``; on several processes under ``torchrun``.
"""

from llmbook.training.arguments import PRECISIONS, SCHEDULES, TrainingArguments, learning_rate
from llmbook.training.batches import Batch, GetBatch, pack, packed_batches, padded_batches
from llmbook.training.checkpoints import History, latest_checkpoint
from llmbook.training.loop import NonFiniteLoss, configure_optimizer, fit, next_token_targets
from llmbook.training.measures import evaluate_loss, model_loss, row_logprobs
from llmbook.training.recompute import Recomputed, recompute_blocks
from llmbook.training.shell import load_corpus, main
from llmbook.training.watching import shows_progress

__all__ = [
    "PRECISIONS",
    "SCHEDULES",
    "Batch",
    "GetBatch",
    "History",
    "NonFiniteLoss",
    "Recomputed",
    "TrainingArguments",
    "configure_optimizer",
    "evaluate_loss",
    "fit",
    "latest_checkpoint",
    "learning_rate",
    "load_corpus",
    "main",
    "model_loss",
    "next_token_targets",
    "pack",
    "packed_batches",
    "padded_batches",
    "recompute_blocks",
    "row_logprobs",
    "shows_progress",
]
