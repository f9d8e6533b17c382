"""Translation: pairs of sentences, an encoder-decoder and its search, word alignment, and BLEU with its error.

Pairs come from ToyWorld's two renderings of one story. Model 1 is that of Brown et al. (1993), BLEU that of Papineni
et al. (2002), the paired bootstrap that of Koehn (2004).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from llmbook.decoding import BeamSettings, Reader, beam_search
from llmbook.toyworld.story import Story
from llmbook.training import TrainingArguments, fit
from llmbook.training.batches import GetBatch
from llmbook.transformer import IGNORE, EncoderDecoder, GPTConfig, record_attention

START, END, UNKNOWN = "<start>", "<end>", "<unknown>"  # ids 0 (padding, too), 1 and 2
STOPS = frozenset(".?。？")
NULL = "<null>"
Links = frozenset[tuple[int, int]]


# ------------------------------------------------------------ pairs


@dataclass(frozen=True)
class Pair:
    """A sentence in two languages, and which source word became which target word: (source, target) places."""

    source: tuple[str, ...]
    target: tuple[str, ...]
    links: Links = frozenset()

    def reversed(self) -> Pair:
        """The same pair for the other direction."""
        return Pair(self.target, self.source, frozenset((j, i) for i, j in self.links))

    def __add__(self, other: Pair) -> Pair:
        """Both, one after the other: a longer text."""
        shifted = {(i + len(self.source), j + len(self.target)) for i, j in other.links}
        return Pair(self.source + other.source, self.target + other.target, self.links | shifted)


def sentence_pairs(story: Story) -> list[Pair]:
    """A story cut into sentences, English and Chinese. ValueError where the two don't have equally many."""
    english, chinese = story.words, story.chinese.tokens
    cuts, other = _cuts(english), _cuts(chinese)
    if len(cuts) != len(other):
        raise ValueError(f"story must have as many sentences in both languages, got {len(cuts)} and {len(other)}")
    pairs = []
    for (a, b), (c, d) in zip(cuts, other, strict=True):
        links = {(i - a, j - c) for i, j in story.chinese.alignment if a <= i < b and c <= j < d}
        pairs.append(Pair(tuple(english[a:b]), tuple(chinese[c:d]), frozenset(links)))
    return pairs


def _cuts(tokens: Sequence[str]) -> list[tuple[int, int]]:
    """Where each sentence begins and ends."""
    ends = [i + 1 for i, token in enumerate(tokens) if token in STOPS]
    return list(zip([0, *ends], ends, strict=False))


class Vocabulary:
    """Words of both languages as ids; 0 starts a target and fills up short rows, 1 ends, 2 is a word not known."""

    def __init__(self, words: Iterable[str]) -> None:
        self.words = [START, END, UNKNOWN, *sorted(set(words))]
        self.ids = {word: i for i, word in enumerate(self.words)}

    @classmethod
    def of(cls, pairs: Iterable[Pair]) -> Vocabulary:
        """All words of these pairs."""
        return cls(word for pair in pairs for word in (*pair.source, *pair.target))

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, words: Sequence[str]) -> list[int]:
        """Ids, closed by that of the end."""
        return [*(self.ids.get(word, 2) for word in words), 1]

    def decode(self, ids: Iterable[int]) -> tuple[str, ...]:
        """Words up to the first end."""
        words = []
        for i in ids:
            if i == 1:
                break
            words.append(self.words[i])
        return tuple(words)


def padded(rows: Sequence[Sequence[int]], fill: int = 0) -> Tensor:
    """Rows of ids as a tensor (B, longest)."""
    if not rows:
        raise ValueError("rows must hold at least one row of ids, got none")
    return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=fill)


def _masked(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids (B, S) and what of them is no padding (B, S)."""
    return padded(rows), (padded([[1] * len(row) for row in rows]) > 0).long()


# ------------------------------------------------------------ the encoder-decoder


def pair_batches(pairs: Sequence[Pair], vocabulary: Vocabulary, args: TrainingArguments) -> GetBatch:
    """Batches for an ``EncoderDecoder``; which pairs a step sees follows from the seed and the step alone."""
    if not pairs:
        raise ValueError("pairs must hold at least one pair, got none")
    sources = [vocabulary.encode(pair.source) for pair in pairs]
    targets = [vocabulary.encode(pair.target) for pair in pairs]

    def get_batch(step: int) -> dict[str, Tensor]:
        chosen = np.random.default_rng([args.seed, step]).integers(len(pairs), size=args.batch_size)
        ids, mask = _masked([sources[i] for i in chosen])
        labels = padded([targets[i] for i in chosen], IGNORE)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    return get_batch


def train_translator(
    pairs: Sequence[Pair],
    vocabulary: Vocabulary,
    *,
    steps: int = 400,
    width: int = 64,
    layers: int = 2,
    seed: int = 0,
    device: str = "cpu",
) -> tuple[EncoderDecoder, list[float]]:
    """An encoder-decoder that learnt the pairs (rotary positions, both languages one table), and its losses in nats."""
    config = GPTConfig(
        vocab_size=len(vocabulary), n_positions=160, n_embd=width, n_layer=layers, n_head=4, n_inner=2 * width,
        positions="rotary", initializer_range=0.02 * math.sqrt(768 / width),
    )  # fmt: skip
    args = TrainingArguments(
        max_steps=steps, batch_size=32, learning_rate=4e-3, warmup_steps=steps // 10, min_lr_ratio=0.0,
        adam_beta2=0.98, weight_decay=0.01, seed=seed,
    )  # fmt: skip
    model = EncoderDecoder(config, generator=torch.Generator().manual_seed(seed)).to(device)
    history = fit(
        model,
        pair_batches(pairs, vocabulary, args),
        args,
        loss_function=lambda m, batch: m(**batch).loss,
        count_targets=lambda batch: int((batch["labels"] != IGNORE).sum()),
        progress=False,
    )
    return model.eval(), [row["loss"] for row in history.steps]


class SourceReader(Reader):
    """A decoder that reads on while it looks at its sources; ``select`` goes along with both."""

    def __init__(self, model: EncoderDecoder, input_ids: Tensor, attention_mask: Tensor) -> None:
        super().__init__(self._decode)
        self.decoder, self.memory_mask = model.decoder, attention_mask
        self.memory = model.encoder(input_ids, attention_mask)  # (B, S, C)

    def _decode(self, ids: Tensor, **how):
        return self.decoder(ids, encoder_hidden_states=self.memory, encoder_attention_mask=self.memory_mask, **how)

    def select(self, rows: Tensor) -> None:
        super().select(rows)
        self.memory, self.memory_mask = self.memory[rows], self.memory_mask[rows]


@torch.inference_mode()
def translate(
    model: EncoderDecoder,
    vocabulary: Vocabulary,
    sources: Sequence[Sequence[str]],
    *,
    num_beams: int = 1,
    length_penalty: float = 1.0,
    batch_size: int = 128,
    longest: int = 60,
) -> list[tuple[str, ...]]:
    """The likeliest target of each source that a beam search finds; one beam is greedy. In the order of sources."""
    if num_beams < 1:
        raise ValueError(f"num_beams must be at least 1, got {num_beams}")
    settings = BeamSettings(num_beams, length_penalty, "never" if num_beams > 1 else False, (1,), fill=1)
    device = next(model.parameters()).device
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    found: dict[int, tuple[str, ...]] = {}
    for begin in range(0, len(order), batch_size):
        rows = order[begin : begin + batch_size]
        ids, mask = _masked([vocabulary.encode(sources[i]) for i in rows])
        most = min(longest, 3 * ids.shape[1])
        starts = torch.zeros(len(rows), 1, dtype=torch.long, device=device)
        reader = SourceReader(model, ids.to(device), mask.to(device))
        best = beam_search(reader, starts, most, [], settings).best(1).ids[:, 0, 1:]
        found |= {i: vocabulary.decode(row) for i, row in zip(rows, best.tolist(), strict=True)}
    return [found[i] for i in range(len(sources))]


@torch.inference_mode()
def cross_attention(model: EncoderDecoder, vocabulary: Vocabulary, pair: Pair) -> Tensor:
    """Cross-attention while the true target is read: (layers, heads, target words + 1, source words).

    Row t is what the decoder looks at when it predicts target word t, having read word t − 1; the source's end is
    left out. The last row predicts the target's end.
    """
    ids, labels = padded([vocabulary.encode(pair.source)]), padded([vocabulary.encode(pair.target)])
    with record_attention(model) as seen:
        model(ids, labels)
    crossing = [weights[0] for name, weights in seen.items() if "cross" in name]  # (H, T, S) each
    if not crossing:
        raise ValueError("model must have cross-attention, got one without")
    return torch.stack(crossing)[..., :-1]


def attention_links(weights: Tensor, shift: int = 0) -> Links:
    """Each target word linked to the source word that has most weight (T + 1, S); shift 1 takes the row after it."""
    rows = weights[shift : len(weights) - 1 + shift]
    return frozenset((int(i), j) for j, i in enumerate(rows.argmax(-1)))


# ------------------------------------------------------------ word alignment: IBM Model 1


class Model1:
    """p(target word | source word) by EM, every alignment alike beforehand (Brown et al., 1993); NULL included.

    Attributes: ``table`` (V_target, V_source) probabilities, columns summing to 1 where the source word occurs;
    ``loglik`` the corpus's log-likelihood (nats, without the constant of lengths) before each round.
    """

    def __init__(self, pairs: Sequence[Pair], rounds: int = 10) -> None:
        if not pairs or rounds < 1:
            raise ValueError(f"pairs and rounds must not be empty, got {len(pairs)} pairs and {rounds} rounds")
        self.source = {w: i for i, w in enumerate([NULL, *sorted({w for p in pairs for w in p.source})])}
        self.targets = sorted({w for p in pairs for w in p.target})
        self.target = {w: i for i, w in enumerate(self.targets)}
        self._cells = self._candidates(pairs)
        shape = (len(self.targets), len(self.source))
        self.table, self.loglik = np.full(shape, 1 / shape[0]), []
        for _ in range(rounds):
            self.round()

    def round(self) -> None:
        """One more round of EM over the pairs."""
        e, f, group = self._cells
        shape = self.table.shape
        t = self.table[e, f]
        total = np.bincount(group, weights=t)  # one for each target word of the corpus
        self.loglik.append(float(np.log(total).sum()))
        share = t / total[group]  # E: who made this word?
        counts = np.bincount(e * shape[1] + f, weights=share, minlength=shape[0] * shape[1]).reshape(shape)
        self.table = counts / np.maximum(counts.sum(0), 1e-12)  # M

    def _candidates(self, pairs: Sequence[Pair]) -> tuple[NDArray, NDArray, NDArray]:
        """Each target word of the corpus with each source word that may have made it, and the former's number."""
        e, f, group, number = [], [], [], 0
        for pair in pairs:
            sources = [0, *(self.source[w] for w in pair.source)]
            for word in pair.target:
                e += [self.target[word]] * len(sources)
                f += sources
                group += [number] * len(sources)
                number += 1
        return np.array(e), np.array(f), np.array(group)

    def links(self, pair: Pair) -> Links:
        """The likeliest source word of each target word; none where that is NULL or the target word is unknown."""
        places = [(i, self.source[w]) for i, w in enumerate(pair.source) if w in self.source]
        found = set()
        for j, word in enumerate(pair.target):
            if word not in self.target or not places:
                continue
            row = self.table[self.target[word]]
            i, s = max(places, key=lambda place: row[place[1]])
            if row[s] > row[0]:
                found.add((i, j))
        return frozenset(found)

    def translate(self, words: Sequence[str]) -> tuple[str, ...]:
        """Each word by its likeliest partner, in the source's order; unknown words are left out."""
        best = self.table.argmax(0)
        return tuple(self.targets[best[self.source[w]]] for w in words if w in self.source)


def alignment_error(found: Sequence[Links], gold: Sequence[Links]) -> float:
    """Alignment error rate 1 − 2|A ∩ S| / (|A| + |S|), all gold links sure (Och and Ney, 2003). Over a whole corpus."""
    if len(found) != len(gold):
        raise ValueError(f"found must have as many sentences as gold, {len(gold)}, got {len(found)}")
    size = sum(map(len, found)) + sum(map(len, gold))
    if not size:
        raise ValueError("gold must hold at least one link, got none")
    return 1 - 2 * sum(len(a & s) for a, s in zip(found, gold, strict=True)) / size


# ------------------------------------------------------------ BLEU


def ngrams(words: Sequence[str], n: int) -> Counter:
    """How often each run of n words occurs."""
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def bleu_counts(hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> NDArray[np.int64]:
    """What BLEU needs of each sentence (N, 10): clipped matches of 1 to 4 words, runs of 1 to 4 words, both lengths."""
    if len(hypotheses) != len(references) or not hypotheses:
        raise ValueError(f"references must match {len(hypotheses)} hypotheses, at least one, got {len(references)}")
    rows = []
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        ours = [ngrams(hypothesis, n) for n in range(1, 5)]
        matches = [(grams & ngrams(reference, n)).total() for n, grams in enumerate(ours, start=1)]
        rows.append([*matches, *(grams.total() for grams in ours), len(hypothesis), len(reference)])
    return np.array(rows)


def bleu(counts: NDArray) -> float:
    """Corpus BLEU in per cent from :func:`bleu_counts`: sums first, then the mean; 0 where no run of 4 matches."""
    sums = np.asarray(counts).sum(axis=0)
    matches, totals, (ours, theirs) = sums[:4], sums[4:8], sums[8:]
    if not matches.all():
        return 0.0
    brevity = min(0.0, 1 - theirs / ours)
    return float(100 * math.exp(brevity + np.log(matches / totals).mean()))


def bleu_of(hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> float:
    """Corpus BLEU in per cent of texts that are cut into words already, one reference each, unsmoothed."""
    return bleu(bleu_counts(hypotheses, references))


def bleu_interval(
    counts: NDArray, rng: np.random.Generator, *, resamples: int = 1000, confidence: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap over sentences (Koehn, 2004)."""
    draws = [bleu(counts[rng.integers(len(counts), size=len(counts))]) for _ in range(resamples)]
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def paired_bleu(
    counts: NDArray, baseline: NDArray, rng: np.random.Generator, *, resamples: int = 1000
) -> tuple[tuple[float, float], float]:
    """BLEU minus the baseline's on the same resampled sentences: 95 % interval, and the share above 0."""
    if counts.shape != baseline.shape:
        raise ValueError(f"baseline must have the shape of counts {counts.shape}, got {baseline.shape}")
    rows = [rng.integers(len(counts), size=len(counts)) for _ in range(resamples)]
    gains = np.array([bleu(counts[r]) - bleu(baseline[r]) for r in rows])
    low, high = np.quantile(gains, [0.025, 0.975])
    return (float(low), float(high)), float((gains > 0).mean())
