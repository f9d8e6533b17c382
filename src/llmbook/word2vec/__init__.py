"""Word2Vec after Mikolov et al. (2013), with gensim's signature and a compiled training loop.

Every variant is the same small problem: given a hidden vector h, decide for a few output rows whether each
is right (1) or wrong (0). Skip-gram takes h from one word, CBOW from the mean of a window; negative sampling
asks about the true words and some drawn at random, hierarchical softmax about the inner nodes on the way to
a word's leaf in a Huffman tree. `logistic_step` is that problem's gradient step; `train_chunk` walks the text.

counts        what is computed from the words' counts
kernel        the compiled loop
keyedvectors  words and their vectors
model         the model itself
"""

from llmbook.word2vec.counts import alias_table, huffman_tree, keep_probability, noise_distribution
from llmbook.word2vec.kernel import logistic_step, train_chunk
from llmbook.word2vec.keyedvectors import KeyedVectors
from llmbook.word2vec.model import Word2Vec

__all__ = [
    "KeyedVectors",
    "Word2Vec",
    "alias_table",
    "huffman_tree",
    "keep_probability",
    "logistic_step",
    "noise_distribution",
    "train_chunk",
]
