"""The long run of part IV: every method of compression on two models, what it costs and how many bytes it leaves.

A row is a model, a method and a seed: bytes on disk, and the quality lost against the whole model, nats per token on
ToyWorld or bits per character of news, with its standard error. The rows are kept in ``book/data/compression.jsonl``;
``make compression`` computes those that are missing or that other code has made.
"""

from llmbook.experiments.compression.cases import CASES, Case, Real, Toy, stored
from llmbook.experiments.compression.methods import METHODS, Method
from llmbook.experiments.compression.runs import code_key, compress, is_current, load, main, measure, missing

__all__ = [
    "CASES", "METHODS", "Case", "Method", "Real", "Toy", "code_key", "compress", "is_current", "load", "main",
    "measure", "missing", "stored",
]  # fmt: skip
