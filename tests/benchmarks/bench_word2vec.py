"""llmbook.word2vec beside gensim: words per second and agreement with people, on one thread.

`python tests/benchmarks/bench_word2vec.py` trains both on the book's Wikipedia articles with the same
arguments, taking turns, at five seeds, and exits with 1 if a bound of the book is missed. Words are raw words
(before subsampling) times epochs, over the time of the whole constructor: vocabulary, tree and training. Of the
seeds' ratios the median counts, with what five rounds allow to say of it (racing.py): where the bound lies within
that, the race is not decided.
The clock is the process's CPU time, which another program on the machine disturbs least; with one worker
thread it is the wall-clock time of an idle machine. Compilation happens before the clock starts.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before the libraries load

import statistics
import sys
import time
from collections import defaultdict

import gensim.models
from racing import compare as ratio_of
from racing import in_turn

from llmbook import corpora
from llmbook.word2vec import Word2Vec

SEEDS = (1, 2, 3, 4, 5)
# method: arguments, epochs (enough to learn from half a million words), least speed as a multiple of gensim's
METHODS = {
    "skip-gram, negative sampling": ({"sg": 1}, 12, 3.0),
    "CBOW, negative sampling": ({"sg": 0}, 20, 1.3),
    "skip-gram, hierarchical softmax": ({"sg": 1, "hs": 1, "negative": 0}, 8, 1.0),
    "CBOW, hierarchical softmax": ({"sg": 0, "hs": 1, "negative": 0}, 12, 1.0),
}
LIBRARIES = {"gensim": gensim.models.Word2Vec, "llmbook": Word2Vec}


def train(library: str, sentences: list[list[str]], epochs: int, seed: int, **arguments: int) -> tuple[float, float]:
    """(seconds, Spearman correlation with WordSim-353) of one training."""
    start = time.process_time()
    model = LIBRARIES[library](sentences, epochs=epochs, seed=seed, workers=1, **arguments)
    seconds = time.process_time() - start
    rho = model.wv.evaluate_word_pairs(str(corpora.gensim_file("wordsim353.tsv")))[1].statistic
    return seconds, rho


def compare(name: str, sentences: list[list[str]]) -> bool:
    """Train both at each seed, print a line for each library, and say whether the bounds hold."""
    arguments, epochs, bound = METHODS[name]
    times, rhos = defaultdict(list), defaultdict(list)
    for number, seed in enumerate(SEEDS):
        for library in in_turn(list(LIBRARIES), number):
            seconds, rho = train(library, sentences, epochs, seed, **arguments)
            times[library].append(seconds)
            rhos[library].append(rho)
    ratio = ratio_of(times["gensim"], times["llmbook"])  # speeds: the times' ratio upside down
    verdict = ratio.verdict(at_least=bound)
    for library in LIBRARIES:
        speed = sum(map(len, sentences)) * epochs / statistics.median(times[library]) / 1e3
        shown = f"{ratio} {bound:5.1f} {verdict}" if library == "llmbook" else ""
        mean, sd = statistics.mean(rhos[library]), statistics.stdev(rhos[library])
        print(f"{name:32} {library:8} {speed:7.0f} {mean:7.3f} ± {sd:.3f}   {shown}", flush=True)
    # Equal quality: not below gensim by more than three standard errors of the difference of the two means.
    # 0.015 is the least spread believed of one training: a few seeds can agree by chance.
    spread = max(0.015, *(statistics.stdev(rhos[library]) for library in LIBRARIES))
    behind = statistics.mean(rhos["gensim"]) - statistics.mean(rhos["llmbook"])
    allowed = 3 * spread * (2 / len(SEEDS)) ** 0.5
    if behind > allowed:
        print(f"  ✗ rho is {behind:.3f} below gensim's; {allowed:.3f} would be within the seeds' spread")
    if verdict == "missed":
        print(f"  ✗ {ratio} times gensim's speed, wanted {bound}")
    return verdict != "missed" and behind <= allowed


def main() -> int:
    sentences = corpora.sentences(corpora.wikipedia())
    Word2Vec(sentences[:20], min_count=1, epochs=1)  # compiles, or loads the compiled kernel
    print(f"{sum(map(len, sentences)):,} words of Wikipedia, one thread, seeds {SEEDS}")
    print(f"{'method':32} {'library':8} {'kwords/s':>8} {'rho WordSim-353':>16}   times gensim, bound")
    held = [compare(name, sentences) for name in METHODS]  # all of them, even after one failed
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
