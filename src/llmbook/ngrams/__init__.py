"""n-gram models and the first neural one, which share a :class:`Vocabulary` and predict from ``order − 1`` tokens.

counts: streams and tables of k-grams · smoothing: add-k, interpolation, stupid backoff, absolute discounting,
Kneser-Ney · neural: Bengio et al. (2003). All give log-probabilities in **nats**, token by token.
"""

from llmbook.ngrams.counts import (
    END,
    START,
    GramTable,
    Stream,
    build_vocabulary,
    context_windows,
    count_grams,
    make_stream,
)
from llmbook.ngrams.neural import NeuralLM
from llmbook.ngrams.smoothing import (
    AbsoluteDiscounting,
    AddK,
    JelinekMercer,
    KneserNey,
    ModifiedKneserNey,
    NgramModel,
    StupidBackoff,
    interpolate,
)

__all__ = [
    "END",
    "START",
    "AbsoluteDiscounting",
    "AddK",
    "GramTable",
    "JelinekMercer",
    "KneserNey",
    "ModifiedKneserNey",
    "NeuralLM",
    "NgramModel",
    "Stream",
    "StupidBackoff",
    "build_vocabulary",
    "context_windows",
    "count_grams",
    "interpolate",
    "make_stream",
]
