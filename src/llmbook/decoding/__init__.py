"""From a model's probabilities to a text: ``generate``, and the parts that it is made of.

processors: what stands between logits and choice · reader: a model with its key-value cache · beam: search ·
speculative: several tokens for one pass · grammar: texts of a given form.
"""

from llmbook.decoding.beam import Beams, BeamSettings, beam_search, exact_search
from llmbook.decoding.generation import generate, sampling_processors
from llmbook.decoding.grammar import JSON, Grammar, GrammarMask
from llmbook.decoding.processors import (
    MinNewTokens,
    MinP,
    NoRepeatNGram,
    OnlyAllowed,
    RepetitionPenalty,
    Temperature,
    TopK,
    TopP,
    Typical,
    process,
)
from llmbook.decoding.reader import Reader
from llmbook.decoding.speculative import (
    Choice,
    LookupGuesser,
    ModelGuesser,
    Speculation,
    accept,
    look_up,
    speculate,
)

__all__ = [
    "JSON", "BeamSettings", "Beams", "Choice", "Grammar", "GrammarMask", "LookupGuesser", "MinNewTokens", "MinP",
    "ModelGuesser", "NoRepeatNGram", "OnlyAllowed", "Reader", "RepetitionPenalty", "Speculation", "Temperature",
    "TopK", "TopP", "Typical", "accept", "beam_search", "exact_search", "generate", "look_up", "process",
    "sampling_processors", "speculate",
]  # fmt: skip
