"""llmbook: the small, tested library behind *The Uncertainty of AI: Large Language Models, Measured*."""

import logging

# transformers imports torchao where it is installed, and torchao and torch then warn of what no reader can mend.
for noisy in ("torchao", "torch.utils._pytree"):
    logging.getLogger(noisy).setLevel(logging.ERROR)
