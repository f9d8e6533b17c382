"""Weights of other libraries as ours and back: ``names`` translates state dicts, ``folder`` reads and writes files.

None of it unpickles: a folder is read through safetensors and JSON.
"""

from llmbook.weights.folder import read_pretrained, translate, write_pretrained
from llmbook.weights.names import (
    from_bert,
    from_gpt2,
    from_llama,
    from_torch,
    to_bert,
    to_gpt2,
    to_llama,
    to_torch,
)

__all__ = [
    "from_bert",
    "from_gpt2",
    "from_llama",
    "from_torch",
    "read_pretrained",
    "to_bert",
    "to_gpt2",
    "to_llama",
    "to_torch",
    "translate",
    "write_pretrained",
]
