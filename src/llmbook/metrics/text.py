"""chrF, and the loss in a unit that no vocabulary can change."""

from __future__ import annotations

import math
from collections.abc import Sequence

from numpy.typing import ArrayLike

from llmbook.applications.translation import ngrams
from llmbook.evaluation import cross_entropy

ORDERS = range(1, 7)


def chrf(hypotheses: Sequence[str], references: Sequence[str], beta: float = 2.0) -> float:
    """Corpus chrF in per cent: the F-score of runs of 1 to 6 characters, blanks left out (Popović, 2015).

    Counts are summed over the texts, precision and recall averaged over the six lengths (those that occur on both
    sides), and recall weighs β² times as much. What is said where the reference has no run of this length does not
    count. Equal to ``sacrebleu.corpus_chrf`` with one reference.
    """
    if len(hypotheses) != len(references) or not hypotheses:
        raise ValueError(f"references must match {len(hypotheses)} hypotheses, at least one, got {len(references)}")
    if isinstance(hypotheses, str) or isinstance(references, str):
        raise ValueError("hypotheses and references must be sequences of texts, got a single text")
    ours, theirs = (["".join(text.split()) for text in texts] for texts in (hypotheses, references))
    precisions, recalls = [], []
    for n in ORDERS:
        pairs = [(ngrams(a, n), ngrams(b, n)) for a, b in zip(ours, theirs, strict=True)]
        said, wanted = sum(a.total() for a, b in pairs if b), sum(b.total() for _, b in pairs)
        if said and wanted:
            shared = sum((a & b).total() for a, b in pairs)
            precisions.append(shared / said)
            recalls.append(shared / wanted)
    if not sum(precisions):
        return 0.0
    p, r = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    return 100 * (1 + beta**2) * p * r / (beta**2 * p + r)


def bits_per_byte(logprobs: ArrayLike, text: str) -> float:
    """What a model needs to write a text down, bits for each byte of its UTF-8, however it cuts the text.

    ``logprobs`` (N,) are those of all its tokens, nats. Whoever uses few or coarse tokens has to pay for each of
    them; so losses of models with different vocabularies can be compared, if the tokens spell the whole text.
    """
    size = len(text.encode())
    if not size:
        raise ValueError("text must hold at least one byte, got none")
    count = len(logprobs)  # type: ignore[arg-type]
    return cross_entropy(logprobs) * count / math.log(2) / size
