"""ToyWorld: a small language whose true next-token probabilities are known.

words, state, choosers, events: the grammar · story, labels: what is known of a story · world: telling,
reading, the floor · cooccurrence: exact pair counts.
"""

from llmbook.toyworld.cooccurrence import expected_cooccurrence, pmi
from llmbook.toyworld.story import BOS, EOS, ImpossibleText, Rate, Story, Verdict
from llmbook.toyworld.world import ToyWorld

__all__ = ["BOS", "EOS", "ImpossibleText", "Rate", "Story", "ToyWorld", "Verdict", "expected_cooccurrence", "pmi"]
