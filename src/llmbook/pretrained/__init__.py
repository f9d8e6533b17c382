"""Real pre-trained models, from files that packages of the Python index ship.

registry: which, where from, their checksums · gguf: the file format · llama: as models and tokenisers ·
sentences: a sentence encoder.
"""

from llmbook.pretrained.gguf import GGUF, GGUFError, read_gguf
from llmbook.pretrained.llama import (
    llama_options,
    llama_state,
    to_fast_tokenizer,
    to_gpt,
    to_tokenizer,
    to_transformers,
)
from llmbook.pretrained.registry import MODELS, ModelError, available, download, find
from llmbook.pretrained.sentences import SentenceEncoder

__all__ = [
    "GGUF", "MODELS", "GGUFError", "ModelError", "SentenceEncoder", "available", "download", "find", "llama_options",
    "llama_state", "load", "read_gguf", "sentence_encoder", "to_fast_tokenizer", "to_gpt", "to_tokenizer",
    "to_transformers", "tokenizer",
]  # fmt: skip


def load(name: str = "smollm2"):
    """(model, tokeniser) of :data:`MODELS`, as in transformers. Raises :class:`ModelError` where it is not here."""
    path = find(name)
    return to_transformers(path), to_fast_tokenizer(path)


def tokenizer(name: str = "smollm2"):
    """A model's ``tokenizers.Tokenizer`` alone. Raises :class:`ModelError` where it is not here."""
    return to_tokenizer(find(name))


def sentence_encoder(name: str = "minilm") -> SentenceEncoder:
    """A real sentence encoder, all-MiniLM-L6-v2 (22.7 M). Raises :class:`ModelError` where it is not here."""
    return SentenceEncoder(find(name).parent)
