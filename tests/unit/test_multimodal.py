"""Pictures and sounds as sequences: scenes, patches, a vision Transformer, CLIP's loss, captions, spectrograms."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbook import multimodal as mm
from llmbook.transformer import GPTConfig

CONFIG = GPTConfig(len(mm.VOCABULARY), 17, 24, 2, 3, 40, initializer_range=0.2)
scenes = st.builds(mm.Scene, **{name: st.sampled_from(row) for name, row in mm.CHOICES.items()})


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# ------------------------------------------------------------ scenes


@given(scenes)
def test_a_sentence_says_all_and_comes_back(scene):
    ids = mm.encode([scene])
    assert ids.shape == (1, 13)
    assert mm.decode(ids[0]) == scene.text
    assert mm.parse(ids[0]) == scene
    for name, place in mm.SLOTS.items():
        word = mm.VOCABULARY[ids[0, place]]
        value = getattr(scene, name)
        assert word == value or (name == "fruit" and scene.number == "one" and word == mm._PLURAL[value])


def test_every_scene_has_its_own_sentence():
    drawn = set(mm.draw_scenes(3000, rng()))
    assert len({scene.text for scene in drawn}) == len(drawn)
    for name, row in mm.CHOICES.items():
        assert {getattr(scene, name) for scene in drawn} == set(row)


@given(scenes, st.sampled_from(list(mm.CHOICES)), st.integers(0, 99))
def test_a_change_changes_one_thing(scene, what, seed):
    other = mm.changed(scene, what, rng(seed))
    assert {name for name in mm.CHOICES if getattr(scene, name) != getattr(other, name)} == {what}
    if what == "number":
        assert abs(mm.COUNTS.index(scene.number) - mm.COUNTS.index(other.number)) == 1


def test_bad_scenes():
    scene = mm.draw_scenes(1, rng())[0]
    with pytest.raises(ValueError, match="colour must be one of"):
        replace(scene, colour="pink")
    with pytest.raises(ValueError, match="what"):
        mm.changed(scene, "smell", rng())
    for call in (lambda: mm.draw_scenes(0, rng()), lambda: mm.render([], rng()), lambda: mm.render([scene], rng(), -1)):
        with pytest.raises(ValueError, match="must"):
            call()


# ------------------------------------------------------------ pictures


@settings(max_examples=60)
@given(scenes, st.integers(0, 999))
def test_a_picture_shows_its_scene(scene, seed):
    """Colours counted in the half where they belong; nothing of them in the other."""
    image = mm.render([scene], rng(seed), noise=0.0)[0].permute(1, 2, 0).numpy()
    halves = {"left": image[:, :8], "right": image[:, 8:]}
    fruit_half, thing_half = halves.pop(scene.side), next(iter(halves.values()))

    def pixels(half, colour):
        return int((np.abs(half - np.float32(colour)).max(-1) < 1e-6).sum())

    count = mm.COUNTS.index(scene.number) + 1
    fruit, colour = mm._FRUIT_RGB[scene.fruit], mm._RGB[scene.colour]
    assert pixels(fruit_half, fruit) == count * mm._FRUIT_MASKS[scene.fruit].sum()
    assert pixels(thing_half, colour) == mm._THING_MASKS[scene.thing].sum()
    assert pixels(thing_half, fruit) == pixels(fruit_half, colour) == 0


def test_pictures_differ_only_in_what_is_drawn():
    scene = mm.draw_scenes(1, rng())[0]
    a, b = mm.render([scene, scene], rng(), noise=0.0)
    assert a.shape == (3, 16, 16)
    assert not torch.equal(a, b)  # other places
    assert torch.equal(mm.render([scene], rng(4)), mm.render([scene], rng(4)))
    assert 0 <= float(mm.render([scene], rng(), 0.5).min()) <= float(mm.render([scene], rng(), 0.5).max()) <= 1


@pytest.mark.parametrize(("height", "width", "size"), [(16, 16, 4), (8, 12, 2), (6, 3, 3), (5, 7, 1)])
def test_a_patch_times_a_matrix_is_a_convolution(height, width, size):
    images = torch.randn(2, 3, height, width, generator=generator())
    conv = torch.nn.Conv2d(3, 5, size, stride=size)
    with torch.no_grad():
        wanted = conv(images).flatten(2).transpose(1, 2)  # (B, N, 5)
        got = mm.patches(images, size) @ conv.weight.flatten(1).T + conv.bias
        unfolded = torch.nn.functional.unfold(images, size, stride=size).transpose(1, 2)
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)
    assert torch.equal(mm.patches(images, size), unfolded)


def test_bad_patches():
    with pytest.raises(ValueError, match="size must divide"):
        mm.patches(torch.zeros(1, 1, 8, 8), 3)
    with pytest.raises(ValueError, match="images must be"):
        mm.patches(torch.zeros(1, 8, 8), 2)


# ------------------------------------------------------------ models


def test_it_is_the_librarys_vision_transformer():
    from transformers import ViTConfig, ViTModel

    config = replace(CONFIG, activation_function="gelu")
    ours = mm.SignalEncoder(48, 16, config, generator=generator()).eval()
    options = ViTConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40, image_size=16, patch_size=4,
        layer_norm_eps=config.layer_norm_epsilon,
    )  # fmt: skip
    theirs = ViTModel(options, add_pooling_layer=False).eval()
    _copy(ours, theirs)
    images = torch.rand(3, 3, 16, 16, generator=generator())
    with torch.no_grad():
        wanted = theirs(images).last_hidden_state
        torch.testing.assert_close(ours(mm.patches(images, 4)), wanted, atol=2e-5, rtol=0)


def _copy(ours: mm.SignalEncoder, theirs: torch.nn.Module) -> None:
    """Our weights into transformers' model: by the parts' meaning, whatever the version calls them."""
    state, mine = theirs.state_dict(), ours.encoder.state_dict()
    new = {
        "embeddings.cls_token": mine["wte.weight"][None],
        "embeddings.position_embeddings": mine["wpe.weight"][None],
        "embeddings.patch_embeddings.projection.weight": ours.project.weight.view(24, 3, 4, 4),
        "embeddings.patch_embeddings.projection.bias": ours.project.bias,
        "layernorm.weight": mine["ln_f.weight"],
        "layernorm.bias": mine["ln_f.bias"],
    }
    parts = {"layernorm_before": "ln_1", "layernorm_after": "ln_2"}
    outputs = {"attention.output.dense": "attn.c_proj", "attention.o_proj": "attn.c_proj",
               "intermediate.dense": "mlp.c_fc", "mlp.fc1": "mlp.c_fc", "output.dense": "mlp.c_proj",
               "mlp.fc2": "mlp.c_proj"}  # fmt: skip
    for name in state:
        if name in new:
            continue
        number = next(part for part in name.split(".") if part.isdigit())
        rest, kind = name.split(f".{number}.")[1].rsplit(".", 1)
        which = next(
            (i for i, part in enumerate("qkv") if rest.endswith((f"{part}_proj", ("query", "key", "value")[i]))), None
        )
        if which is not None:
            new[name] = mine[f"h.{number}.attn.c_attn.{kind}"].chunk(3)[which]
        else:
            new[name] = mine[f"h.{number}.{parts.get(rest) or outputs[rest]}.{kind}"]
    theirs.load_state_dict(new)


def test_without_positions_the_order_of_patches_is_not_seen():
    signals = torch.randn(2, 9, 6, generator=generator())
    mixed = signals[:, torch.randperm(9, generator=generator(1))]
    for positions, same in (("none", True), ("learned", False), ("sinusoidal", False)):
        model = mm.SignalEncoder(6, 9, replace(CONFIG, positions=positions), generator=generator()).eval()
        with torch.no_grad():
            a, b = (model(each)[:, 0] for each in (signals, mixed))
        assert torch.allclose(a, b, atol=1e-5) is same, positions


def test_bad_signals():
    model = mm.SignalEncoder(6, 9, CONFIG, generator=generator())
    for shape in ((2, 10, 6), (2, 9, 5)):
        with pytest.raises(ValueError, match="signals must be"):
            model(torch.zeros(shape))


def test_clips_loss_is_the_librarys():
    from transformers.models.clip.modeling_clip import image_text_contrastive_loss

    for seed in range(3):
        a, b = (torch.nn.functional.normalize(torch.randn(7, 5, generator=generator(s)), dim=-1) for s in (seed, 9))
        ours = mm.clip_loss(a, b, 3.7)
        torch.testing.assert_close(ours, image_text_contrastive_loss(3.7 * b @ a.T))
        torch.testing.assert_close(ours, mm.clip_loss(b, a, 3.7))  # neither side is the first


def test_clips_loss_at_its_ends():
    one = torch.eye(6)
    assert float(mm.clip_loss(one, one, 100.0)) < 1e-6
    assert float(mm.clip_loss(one, one, 0.0)) == pytest.approx(np.log(6), abs=1e-6)
    assert float(mm.clip_loss(one, one.roll(1, 0), 50.0)) > 40
    with pytest.raises(ValueError, match="images and texts"):
        mm.clip_loss(one, one[:3], 1.0)


@pytest.fixture(scope="module")
def pairs():
    drawn = mm.draw_scenes(6, rng())
    return mm.patches(mm.render(drawn, rng()), 4), mm.encode(drawn)


def test_two_towers(pairs):
    model = mm.TwoTowers(mm.SignalEncoder(48, 16, CONFIG, generator=generator()), CONFIG, 8, generator=generator())
    output = model(*pairs)
    images, texts = model.images(pairs[0]), model.texts(pairs[1])
    torch.testing.assert_close(images.norm(dim=-1), torch.ones(6))
    torch.testing.assert_close(output.logits, images @ texts.T / 0.07)
    torch.testing.assert_close(output.loss, mm.clip_loss(images, texts, 1 / 0.07))
    with torch.no_grad():
        model.log_scale.fill_(99.0)
    assert float(model.scale.detach()) == pytest.approx(100.0)


def test_a_captioner_learns_one_batch_and_writes_it(pairs):
    """Cached greedy writing is that of a whole pass, token for token; and the picture is what it reads."""
    model = mm.Captioner(mm.SignalEncoder(48, 16, CONFIG, generator=generator()), CONFIG, generator=generator())
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        loss = model(*pairs).loss
        loss.backward()
        optimizer.step()
    model.eval()
    written = model.write(pairs[0], 12)
    assert torch.equal(written, pairs[1])
    with torch.no_grad():
        assert torch.equal(model(pairs[0], written).logits[:, :-1].argmax(-1), written[:, 1:])
        assert not torch.equal(model.write(pairs[0].roll(1, 0), 12), written)


def test_classifier():
    model = mm.Classifier(mm.SignalEncoder(6, 9, CONFIG, generator=generator()), 4, generator=generator())
    output = model(torch.randn(5, 9, 6, generator=generator()), torch.arange(5) % 4)
    assert output.logits.shape == (5, 4)
    wanted = -output.logits.log_softmax(-1)[torch.arange(5), torch.arange(5) % 4].mean()
    torch.testing.assert_close(output.loss, wanted)


# ------------------------------------------------------------ sound


@settings(max_examples=20, deadline=None)
@given(st.integers(200, 700), st.sampled_from([32, 64, 128]), st.sampled_from([16, 32]))
def test_spectrogram_is_torchs_and_scipys(length, window, hop):
    wave = torch.randn(length, generator=generator(length))
    ours, hann = mm.spectrogram(wave, window, hop), torch.hann_window(window)
    theirs = torch.stft(wave, window, hop, window=hann, center=False, return_complex=True).abs().T
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)
    options = {"boundary": None, "padded": False, "scaling": "spectrum"}
    _, _, z = scipy.signal.stft(wave.numpy(), mm.RATE, hann.numpy(), window, window - hop, **options)
    np.testing.assert_allclose(ours, np.abs(z).T * float(hann.sum()), atol=1e-4)


@pytest.mark.parametrize("digit", range(10))
def test_a_digit_sounds_in_its_two_tones(digit):
    wave = mm.dial([digit], rng(digit), noise=0.01)
    strongest = mm.spectrogram(wave, 128, 64).amax(0).topk(20).indices * mm.RATE / 128  # hertz
    found = mm.spectrogram(wave, 240, 60).amax(0)
    tones = [float(f) * mm.RATE / 240 for f in _peaks(found)]
    assert len(strongest) == 20
    assert all(abs(a - b) < 12 for a, b in zip(sorted(tones), mm.KEYS[digit], strict=True))


def _peaks(strength: torch.Tensor) -> list[int]:
    """The two largest local maxima."""
    inner = strength[1:-1]
    tops = ((inner > strength[:-2]) & (inner >= strength[2:])).nonzero()[:, 0] + 1
    return sorted(tops.tolist(), key=lambda i: -float(strength[i]))[:2]


def test_bad_sound():
    with pytest.raises(ValueError, match="digits"):
        mm.dial([12], rng())
    with pytest.raises(ValueError, match="room"):
        mm.dial([1] * 9, rng())
    with pytest.raises(ValueError, match="hop"):
        mm.spectrogram(torch.zeros(100), 128)


def test_what_is_no_sentence_is_no_scene():
    ids = mm.encode([mm.Scene("garden", "three", "apples", "left", "red", "kite")])[0]
    assert mm.parse(ids) is not None
    for place, word in ((0, "the"), (3, "red"), (5, "apple"), (6, "is"), (9, "the"), (12, "of")):
        broken = ids.clone()
        broken[place] = mm.IDS[word]
        assert mm.parse(broken) is None, word  # each breaks one rule: a slot's value, the verb, the plural, a filler
    assert mm.parse(ids[:8]) is None
    assert mm.parse(torch.cat([ids, ids[-1:]])) is None
