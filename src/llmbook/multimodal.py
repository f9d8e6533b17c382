"""Beyond text: pictures and sounds as sequences of vectors, CLIP's loss, and a model that writes what it is shown.

A :class:`Scene` of ToyWorld is a picture whose content is known: a place, some fruit, a thing with a colour, and
which of the two is left of the other. So what a model sees, and what it misses, can be counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from llmbook.attention import sinusoidal_positions
from llmbook.toyworld import words
from llmbook.transformer import GPT, Encoder, GPTConfig, Output

SIZE = 16  # pixels, of a scene's height and width
CELL = 4  # pixels, of the grid on which fruit lie
PLACES, THINGS, COLOURS, FRUITS = (
    tuple(table)[:n] for table, n in ((words.PLACES, 8), (words.THINGS, 10), (words.COLOURS, 6), (words.FRUITS, 3))
)
COUNTS = tuple(words.NUMBERS)[1:6]  # one to five
SIDES = ("left", "right")
CHOICES: Mapping[str, tuple[str, ...]] = {
    "place": PLACES, "number": COUNTS, "fruit": FRUITS, "side": SIDES, "colour": COLOURS, "thing": THINGS,
}  # fmt: skip
SLOTS = {"place": 3, "number": 4, "fruit": 5, "side": 7, "colour": 10, "thing": 11}  # where each word stands in a row
_PLURAL = {plural: row[0] for plural, row in words.FRUITS.items()}  # to the singular
VOCABULARY = tuple(
    dict.fromkeys(["<bos>", "in", "the", "is", "are", "of", "a", ".", *(w for row in CHOICES.values() for w in row)]
    + [_PLURAL[fruit] for fruit in FRUITS])
)  # fmt: skip
IDS = {word: number for number, word in enumerate(VOCABULARY)}


# ------------------------------------------------------------ scenes


@dataclass(frozen=True)
class Scene:
    """What a picture shows: ``number`` of ``fruit`` on ``side`` of a ``colour`` ``thing``, in a ``place``."""

    place: str
    number: str
    fruit: str
    side: str
    colour: str
    thing: str

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value not in CHOICES[name]:
                raise ValueError(f"{name} must be one of {', '.join(CHOICES[name])}, got {value!r}")

    @property
    def tokens(self) -> list[str]:
        """The sentence that describes it, always of twelve words."""
        one = self.number == "one"
        fruit, verb = (_PLURAL[self.fruit], "is") if one else (self.fruit, "are")
        return ["in", "the", self.place, self.number, fruit, verb, self.side, "of", "a", self.colour, self.thing, "."]

    @property
    def text(self) -> str:
        return " ".join(self.tokens)


def draw_scenes(n: int, rng: np.random.Generator) -> list[Scene]:
    """n scenes, every property drawn by itself and uniformly: a sentence carries Σ ln(number of choices) nats."""
    if n < 1:
        raise ValueError(f"n must be at least 1 scene, got {n}")
    drawn = {name: rng.integers(len(row), size=n) for name, row in CHOICES.items()}
    return [Scene(**{name: CHOICES[name][i[k]] for name, i in drawn.items()}) for k in range(n)]


def changed(scene: Scene, what: str, rng: np.random.Generator) -> Scene:
    """The same scene with another value of one property. A number changes by one, so that only counting can tell."""
    if what not in CHOICES:
        raise ValueError(f"what must be one of {', '.join(CHOICES)}, got {what!r}")
    values, now = CHOICES[what], CHOICES[what].index(getattr(scene, what))
    if what == "number":
        others = [i for i in (now - 1, now + 1) if 0 <= i < len(values)]
    else:
        others = [i for i in range(len(values)) if i != now]
    return replace(scene, **{what: values[others[int(rng.integers(len(others)))]]})


def encode(scenes: Sequence[Scene]) -> Tensor:
    """Ids of the sentences, each opened by ``<bos>``: (B, 13)."""
    return torch.tensor([[0, *(IDS[word] for word in scene.tokens)] for scene in scenes])


def decode(ids: Tensor) -> str:
    """Words of one row of ids, without ``<bos>``."""
    return " ".join(VOCABULARY[i] for i in ids.tolist() if i)


def parse(ids: Tensor) -> Scene | None:
    """The scene that one row of ids, with ``<bos>``, describes; None where it is no scene's sentence."""
    found = [VOCABULARY[i] for i in ids.tolist()]
    if len(found) <= max(SLOTS.values()):
        return None
    values = {name: found[place] for name, place in SLOTS.items()}
    singular = {one: many for many, one in _PLURAL.items()}
    values["fruit"] = singular.get(values["fruit"], values["fruit"])
    if any(value not in CHOICES[name] for name, value in values.items()):
        return None
    scene = Scene(**values)
    return scene if ["<bos>", *scene.tokens] == found else None


# ------------------------------------------------------------ pictures

_GLYPHS = {  # 5 × 5, one for each thing
    "ball": ".###. ##### ##### ##### .###.", "cup": "#...# #...# #...# #...# #####",
    "book": "##### #.#.# #.#.# #.#.# #####", "key": "##... ##... .##.. ..##. ..###",
    "hat": "..... .###. .###. .###. #####", "letter": "##### ##.## #.#.# #...# #####",
    "map": "#.#.# .#.#. #.#.# .#.#. #.#.#", "coat": "##.## ##### .###. .###. .###.",
    "kite": "..#.. .###. ##### .###. ..#..", "lamp": ".###. ##### ..#.. ..#.. .###.",
}  # fmt: skip
_FRUIT_GLYPHS = {"apples": "### ### ###", "cherries": "#.# .#. #.#", "mushrooms": "### .#. .#."}
_RGB = {
    "red": (0.90, 0.10, 0.10), "blue": (0.10, 0.20, 0.95), "green": (0.05, 0.70, 0.15),
    "white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0), "yellow": (1.0, 0.95, 0.10),
}  # fmt: skip
_FRUIT_RGB = {"apples": (0.95, 0.45, 0.05), "cherries": (0.75, 0.0, 0.45), "mushrooms": (0.45, 0.25, 0.10)}
_GROUND = {  # light walls and floors: upper half, lower half
    "hospital": ((0.80, 0.90, 0.95), (0.70, 0.75, 0.80)), "garden": ((0.65, 0.85, 0.95), (0.55, 0.80, 0.50)),
    "school": ((0.95, 0.85, 0.65), (0.80, 0.65, 0.50)), "station": ((0.65, 0.65, 0.70), (0.50, 0.50, 0.55)),
    "library": ((0.80, 0.65, 0.50), (0.60, 0.45, 0.40)), "museum": ((0.90, 0.75, 0.85), (0.75, 0.60, 0.70)),
    "theatre": ((0.60, 0.45, 0.70), (0.50, 0.40, 0.55)), "office": ((0.75, 0.85, 0.75), (0.60, 0.65, 0.70)),
}  # fmt: skip


def _mask(rows: str) -> NDArray[np.bool_]:
    return np.array([[mark == "#" for mark in row] for row in rows.split()])


_THING_MASKS = {thing: _mask(rows) for thing, rows in _GLYPHS.items()}
_FRUIT_MASKS = {fruit: _mask(rows) for fruit, rows in _FRUIT_GLYPHS.items()}


def render(scenes: Sequence[Scene], rng: np.random.Generator, noise: float = 0.05) -> Tensor:
    """Pictures (B, 3, 16, 16), values 0 to 1. Where in its half a thing lies, and where each fruit, is drawn anew.

    ``noise`` is the standard deviation of what is added to each value.
    """
    if not scenes:
        raise ValueError("scenes must hold at least one scene, got none")
    if not noise >= 0:
        raise ValueError(f"noise must be at least 0, got {noise}")
    images = np.stack([_paint(scene, rng) for scene in scenes])  # (B, 16, 16, 3)
    images = (images + noise * rng.standard_normal(images.shape)).clip(0, 1)
    return torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2).contiguous()


def _paint(scene: Scene, rng: np.random.Generator) -> NDArray[np.float64]:
    image = np.empty((SIZE, SIZE, 3))
    image[: SIZE // 2], image[SIZE // 2 :] = _GROUND[scene.place]
    fruit_half, thing_half = (0, SIZE // 2) if scene.side == "left" else (SIZE // 2, 0)
    y, x = CELL * int(rng.integers(3)), thing_half + 1
    image[y : y + 5, x : x + 5][_THING_MASKS[scene.thing]] = _RGB[scene.colour]
    for cell in rng.permutation(SIZE // CELL * 2)[: COUNTS.index(scene.number) + 1]:
        y, x = np.array([CELL * (cell // 2), fruit_half + CELL * (cell % 2)]) + rng.integers(2, size=2)
        image[y : y + 3, x : x + 3][_FRUIT_MASKS[scene.fruit]] = _FRUIT_RGB[scene.fruit]
    return image


def patches(images: Tensor, size: int) -> Tensor:
    """Cut pictures (B, channels, H, W) into squares, row by row: (B, H·W/size², channels·size²).

    Within a patch the order is channel, row, column, as a convolution's weight has it (Dosovitskiy et al., 2021).
    """
    if images.dim() != 4:
        raise ValueError(f"images must be (batch, channels, height, width), got shape {tuple(images.shape)}")
    B, C, H, W = images.shape
    if size < 1 or H % size or W % size:
        raise ValueError(f"size must divide height and width {H} and {W}, got {size}")
    cut = images.view(B, C, H // size, size, W // size, size)  # (B, C, rows, size, columns, size)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(B, -1, C * size * size)


# ------------------------------------------------------------ models


def linear(inputs: int, outputs: int, generator: torch.Generator | None, bias: bool = True) -> nn.Linear:
    """A linear layer that starts from N(0, 1/inputs), drawn from ``generator``, and without an offset."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    with torch.no_grad():
        layer.weight.normal_(0.0, inputs**-0.5, generator=generator)
        if bias:
            layer.bias.zero_()
    return layer


class SignalEncoder(nn.Module):
    """The book's encoder over vectors instead of ids; with patches of a picture it is a vision Transformer.

    Its "vocabulary" is one word, which stands in front of the sequence: the class token, whose last state speaks
    for the whole (Dosovitskiy et al., 2021). ``config`` gives widths, layers and positions.
    """

    def __init__(
        self, features: int, length: int, config: GPTConfig, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.project = linear(features, config.n_embd, generator)
        self.encoder = Encoder(replace(config, vocab_size=1, n_positions=length + 1), generator=generator)

    def forward(self, signals: Tensor) -> Tensor:
        """Vectors (B, N, features) to states (B, 1 + N, C), the class token's first."""
        config, (B, N, features) = self.encoder.config, signals.shape
        if features != self.project.in_features or config.n_positions <= N:
            wanted = f"at most {config.n_positions - 1} vectors of {self.project.in_features}"
            raise ValueError(f"signals must be (batch, length, features) with {wanted}, got {tuple(signals.shape)}")
        first = self.encoder.wte.weight.expand(B, 1, -1)
        x = torch.cat([first, self.project(signals)], dim=1)  # (B, 1 + N, C)
        if config.positions == "learned":
            x = x + self.encoder.wpe.weight[: N + 1]
        elif config.positions == "sinusoidal":
            x = x + sinusoidal_positions(N + 1, config.n_embd).to(x)
        return self.encoder.blocks(x)[0]


class Classifier(nn.Module):
    """A signal encoder and one linear layer on its class token."""

    def __init__(self, encoder: SignalEncoder, classes: int, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = linear(encoder.project.out_features, classes, generator)

    def forward(self, signals: Tensor, labels: Tensor | None = None) -> Output:
        """Vectors (B, N, features) to logits (B, classes), and with labels (B,) the loss in nats."""
        logits = self.head(self.encoder(signals)[:, 0])
        return Output(logits, None if labels is None else F.cross_entropy(logits, labels))


def clip_loss(images: Tensor, texts: Tensor, scale: Tensor | float) -> Tensor:
    """CLIP's loss of B pictures and B texts, unit vectors (B, C), row i of one belonging to row i of the other.

    The mean of two cross-entropies: which text belongs to each picture, and which picture to each text, with
    ``scale`` times the cosine as the score (Radford et al., 2021).
    """
    if images.shape != texts.shape or images.dim() != 2:
        raise ValueError(f"images and texts must be two (B, C), got {tuple(images.shape)} and {tuple(texts.shape)}")
    scores = scale * images @ texts.T  # (B, B)
    right = torch.arange(len(scores), device=scores.device)
    return (F.cross_entropy(scores, right) + F.cross_entropy(scores.T, right)) / 2


class TwoTowers(nn.Module):
    """A picture's tower and a sentence's tower that end in one space: CLIP in its smallest form."""

    def __init__(
        self, vision: SignalEncoder, config: GPTConfig, width: int = 32, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.vision, self.text = vision, Encoder(config, generator=generator)
        self.of_image = linear(vision.project.out_features, width, generator, bias=False)
        self.of_text = linear(config.n_embd, width, generator, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def images(self, signals: Tensor) -> Tensor:
        """Patches (B, N, features) to unit vectors (B, width)."""
        return F.normalize(self.of_image(self.vision(signals)[:, 0]), dim=-1)

    def texts(self, ids: Tensor) -> Tensor:
        """Ids (B, T) to unit vectors (B, width)."""
        return F.normalize(self.of_text(self.text(ids)[:, 0]), dim=-1)

    @property
    def scale(self) -> Tensor:
        """What multiplies a cosine: learned, and at most 100, as in CLIP."""
        return self.log_scale.clamp(max=math.log(100)).exp()

    def forward(self, signals: Tensor, ids: Tensor) -> Output:
        """Pictures and their sentences to scores (B, B) and the loss in nats."""
        images, texts = self.images(signals), self.texts(ids)
        return Output(self.scale * images @ texts.T, clip_loss(images, texts, self.scale))


class Captioner(nn.Module):
    """A GPT whose cross-attention reads the states of a signal encoder: it writes what it is shown, or hears."""

    def __init__(self, encoder: SignalEncoder, config: GPTConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = GPT(replace(config, add_cross_attention=True), generator=generator)

    def forward(self, signals: Tensor, labels: Tensor) -> Output:
        """Vectors (B, N, features) and ids (B, T), the first a start token, to logits (B, T, V) and the loss."""
        return self.decoder(labels, labels, encoder_hidden_states=self.encoder(signals))

    @torch.no_grad()
    def write(self, signals: Tensor, steps: int, start: int = 0) -> Tensor:
        """The likeliest token, ``steps`` times, after a start token: (B, 1 + steps)."""
        memory = self.encoder(signals)
        ids = torch.full((len(signals), 1), start)
        output = self.decoder(ids, encoder_hidden_states=memory, use_cache=True)
        for step in range(steps):
            new = output.logits[:, -1:].argmax(-1)  # (B, 1)
            ids = torch.cat([ids, new], dim=1)
            if step + 1 < steps:
                past = output.past_key_values
                output = self.decoder(new, past_key_values=past, encoder_hidden_states=memory, use_cache=True)
        return ids


# ------------------------------------------------------------ sound

RATE = 4000  # samples a second
_LOW, _HIGH = (697, 770, 852, 941), (1209, 1336, 1477)  # hertz: the rows and columns of a telephone's keys
KEYS = {digit: (_LOW[(digit - 1) // 3], _HIGH[(digit - 1) % 3]) for digit in range(1, 10)} | {0: (941, 1336)}


def dial(digits: Sequence[int], rng: np.random.Generator, noise: float = 0.5, length: int = 2400) -> Tensor:
    """What a telephone sounds like when these digits are dialled: (length,) samples at 4,000 a second.

    Each digit is two tones at once (ITU-T Q.23), of 60 to 100 ms, with 15 to 40 ms of silence behind; begin, lengths
    and phases are drawn. ``noise`` is the standard deviation of what is added everywhere.
    """
    wave, at = noise * rng.standard_normal(length), int(rng.integers(20, 120))
    for digit in digits:
        if digit not in KEYS:
            raise ValueError(f"digits must be whole numbers from 0 to 9, got {digit!r}")
        n = int(rng.integers(240, 400))
        if at + n > length:
            raise ValueError(f"length must have room for {len(digits)} digits, got {length} samples")
        t = np.arange(n) / RATE  # seconds
        wave[at : at + n] += sum(np.sin(2 * np.pi * (f * t + rng.random())) for f in KEYS[digit])
        at += n + int(rng.integers(60, 160))
    return torch.from_numpy(wave.astype(np.float32))


def spectrogram(waves: Tensor, window: int = 128, hop: int = 64) -> Tensor:
    """How strong each frequency is in each short piece: (..., N samples) to (..., pieces, window/2 + 1).

    Pieces of ``window`` samples, ``hop`` apart, faded in and out by Hann's window; absolute values of their Fourier
    transforms. Frequencies lie RATE/window hertz apart. Raises ValueError for less sound than one window.
    """
    if not 1 <= hop <= window <= waves.shape[-1]:
        raise ValueError(f"hop <= window <= samples must hold, got {hop}, {window} and {waves.shape[-1]}")
    pieces = waves.unfold(-1, window, hop) * torch.hann_window(window)  # (..., pieces, window)
    return torch.fft.rfft(pieces).abs()
