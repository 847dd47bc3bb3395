"""A model as a file: the same answers after loading, and nothing hostile ever run or obeyed."""

import contextlib
import copy
import dataclasses
import json
import math
import pickle
import resource
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load, save

from tenfold.data.decoding import decode_image
from tenfold.data.image_sources import Part
from tenfold.data.normalisation import Normalisation
from tenfold.errors import TenfoldError
from tenfold.evaluation.image_predictions import predict_parts
from tenfold.evaluation.predictions import predict_images
from tenfold.evaluation.trained import (
    TrainedModel,
    build_network,
    load_model,
    require_same_tensors,
    save_model,
)
from tenfold.recipe import recipe_from_dict

NAMES = ("Ameise", "蜂", "cat")
NORMALISATION = Normalisation((0.1, 0.45, 0.9), (0.2, 0.25, 1 / 3))
RECIPES = {
    "ann": {"name": "tiny ann", "model": {"name": "ann", "widths": [20]}},
    "cnn": {"name": "tiny", "model": {"name": "cnn", "widths": [6, 8], "dense": [10]}},
}


def make_model(kind="cnn", *, size=(16, 12), seed=0):
    recipe = recipe_from_dict(RECIPES[kind])
    torch.manual_seed(seed)
    module = build_network(recipe, num_classes=3, image_size=size)
    module.train()(torch.randn(20, 3, *size))  # running statistics away from their start
    return TrainedModel(module, recipe, NAMES, NORMALISATION, size)


@pytest.fixture
def pixels(make_images):
    return make_images(23).pixels


@pytest.fixture
def path(tmp_path):
    """A sound model file."""
    save_model(tmp_path / "model.safetensors", make_model())
    return tmp_path / "model.safetensors"


# -- using a model -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", RECIPES)
def test_logits_are_those_of_the_network_on_normalised_pictures(pixels, kind):
    model = make_model(kind)
    mean, std = (np.array(values) for values in NORMALISATION)
    inputs = torch.from_numpy((pixels / 255 - mean) / std).float().permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = model.module.eval()(inputs).numpy()
    found = model.logits(pixels)
    assert found.dtype == np.float32
    assert found.shape == (23, 3)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_in_training_mode_each_batch_has_its_own_statistics_and_dropout_its_share(pixels):
    model = make_model("cnn")
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    state = torch.get_rng_state()
    found = model.logits(pixels, batch_size=11, training_mode=True)  # of 11 and 12
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], v) for name, v in model.module.state_dict().items())
    np.testing.assert_array_equal(found, model.logits(pixels, batch_size=11, training_mode=True))
    assert not np.allclose(found, model.logits(pixels, batch_size=11), atol=1e-3)

    plain = replace(model, module=copy.deepcopy(model.module))
    for layer in plain.module.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    mean, std = (np.array(values) for values in NORMALISATION)
    inputs = torch.from_numpy((pixels / 255 - mean) / std).float().permute(0, 3, 1, 2)
    with torch.no_grad():
        network = copy.deepcopy(plain.module).train()
        expected = torch.cat([network(inputs[:11]), network(inputs[11:])])
    without_dropout = plain.logits(pixels, batch_size=11, training_mode=True)
    np.testing.assert_allclose(without_dropout, expected, atol=1e-5)
    assert not np.allclose(found, expected, atol=1e-3)


def test_the_size_of_batches_does_not_matter(pixels):
    model = make_model()
    whole = model.logits(pixels)
    for batch_size in (1, 7, 22, 23, 24):
        np.testing.assert_allclose(model.logits(pixels, batch_size=batch_size), whole, atol=1e-5)
    assert model.logits(pixels[:0]).shape == (0, 3)


def test_a_model_in_training_is_only_lent(pixels):
    model = make_model()
    before = {name: t.clone() for name, t in model.module.state_dict().items()}
    model.module.train()
    first = model.logits(pixels)
    assert model.module.training
    np.testing.assert_array_equal(model.logits(pixels), first)
    assert all(torch.equal(t, before[name]) for name, t in model.module.state_dict().items())
    model.module.eval()
    model.logits(pixels)
    assert not model.module.training


def test_probabilities_and_names(pixels):
    model = make_model()
    logits = model.logits(pixels)
    expected = torch.from_numpy(logits).softmax(dim=1).numpy()
    np.testing.assert_allclose(model.predict_proba(pixels), expected, atol=1e-6)
    assert model.predict(pixels) == [NAMES[i] for i in expected.argmax(axis=1)]


def photograph(height=40, width=30):
    coarse = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def test_it_takes_paths_pillow_images_and_arrays_of_any_size_also_mixed(tmp_path):
    model = make_model(size=(16, 16))
    pixels = photograph()
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    forms = [path, str(path), path.read_bytes(), Image.open(path), pixels, pixels / 255]
    expected = model.predict_proba(decode_image(path, image_size=16).pixels[None])
    np.testing.assert_allclose(model.predict_proba(forms), expected.repeat(6, axis=0), atol=1e-5)
    assert model.predict(forms) == model.predict(pixels[None]) * 6
    for form in forms:  # One alone is a list of one.
        assert model.predict(form) == model.predict(pixels[None])
    assert model.predict(tmp_path.glob("*.png")) == model.predict([path])
    assert model.predict([]) == []
    [grey] = model.pixels(Image.fromarray(pixels).convert("L"))
    assert (grey[..., 0] == grey[..., 2]).all()


def test_floats_between_0_and_1_are_the_pictures_that_they_are_of(pixels):
    model = make_model()
    expected = model.logits(pixels)
    for kind in (np.float32, np.float64):
        np.testing.assert_array_equal(model.logits((pixels / 255).astype(kind)), expected)
    assert model.predict(pixels / 255) == model.predict(pixels)


@pytest.mark.parametrize("kind", ["uint16", "int64", "bool", "float32"])
def test_arrays_whose_range_is_not_known_are_refused(pixels, kind):
    model = make_model()
    wrong = pixels.astype(kind)
    for predict in (model.predict, model.predict_proba, model.logits):
        with pytest.raises(TenfoldError, match=f"array of {kind}.* where uint8, or floats in"):
            predict(wrong)
    with pytest.raises(TenfoldError, match="image 2 can't be used: it is an array of"):
        model.predict([pixels[0], wrong[0]])


@pytest.mark.parametrize("content", [None, b"", b"nothing"])
def test_a_picture_that_can_not_be_read_is_named(tmp_path, content):
    path = tmp_path / "broken.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TenfoldError, match=r"broken\.png can't be used: it "):
        make_model().predict([path])


@pytest.mark.parametrize("level", [255, 4095, 16383])
def test_files_of_few_bits_are_seen_as_those_of_the_training_data_were(tmp_path, level):
    grey = photograph()[..., 0].astype(np.uint16)
    Image.fromarray((grey / 255 * level).round().astype(np.uint16)).save(tmp_path / "few.png")
    Image.fromarray(grey.astype(np.uint8)).save(tmp_path / "eight.png")
    path = tmp_path / "model.safetensors"
    save_model(path, dataclasses.replace(make_model(size=(16, 16)), window=(0, level)))
    model = load_model(path)
    assert model.window == (0, level)
    few, eight = model.pixels([tmp_path / "few.png", tmp_path / "eight.png"]).astype(int)
    assert np.abs(few - eight).max() <= 1
    [(_, [found])] = predict_parts(model, [Part([str(tmp_path / "few.png")])], top=3)
    expected = model.predict_proba(tmp_path / "eight.png").max()
    assert found.likeliest[0].probability == pytest.approx(expected, abs=1e-2)


def test_progress_ends_at_the_total(pixels):
    calls = []
    make_model().logits(pixels, batch_size=10, progress=lambda *call: calls.append(call))
    assert [(done, total) for _, done, total in calls] == [(10, 23), (20, 23), (23, 23)]


def test_memory_mapped_pictures_are_taken_as_they_are(tmp_path, pixels):
    np.save(tmp_path / "pixels.npy", pixels)
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    model = make_model()
    np.testing.assert_array_equal(model.logits(mapped), model.logits(pixels))
    np.testing.assert_array_equal(model.logits(pixels[::-1]), model.logits(pixels[::-1].copy()))


@pytest.mark.parametrize("shape", [(2, 12, 16, 3), (2, 16, 12, 4), (16, 12, 3), (2, 16, 12), (0,)])
def test_pictures_of_another_size_are_refused(shape):
    with pytest.raises(TenfoldError) as raised:
        make_model().logits(np.zeros(shape, np.uint8))
    assert "16x12" in str(raised.value)
    assert str(shape) in str(raised.value)


def test_predictions_carry_ids_and_labels_in_the_order_of_the_model(make_images):
    images = make_images(9, class_names=("cat", "Ameise", "蜂"))
    model = make_model()
    found = predict_images(model, images)
    assert found.labels.tolist() == [2, 0, 1] * 3
    assert found.class_names == NAMES
    assert found.ids.tolist() == images.ids.tolist()
    assert found.images_per_second > 0
    np.testing.assert_array_equal(found.logits, model.logits(images.pixels))


# -- on the disk ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", RECIPES)
@pytest.mark.parametrize("folder", ["with some spaces", "Bilder-für-Ωμέγα-猫", "x" * 200])
def test_a_loaded_model_gives_the_same_bits(tmp_path, pixels, kind, folder):
    model, path = make_model(kind), tmp_path / folder / "model.safetensors"
    save_model(path, model)
    found = load_model(path)
    np.testing.assert_array_equal(found.logits(pixels), model.logits(pixels))
    assert found.recipe == model.recipe
    assert found.class_names == NAMES
    assert found.normalisation == NORMALISATION
    assert found.image_size == (16, 12)
    assert not found.module.training
    assert [entry.name for entry in path.parent.iterdir()] == ["model.safetensors"]


def test_loading_leaves_the_stream_of_random_numbers_alone(path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_model(path)
    assert torch.equal(torch.rand(3), expected)


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(TenfoldError, match="no model file"):
        load_model(tmp_path / "model.safetensors")
    with pytest.raises(TenfoldError, match="no model file"):
        load_model(tmp_path)


def test_a_file_cut_off_anywhere_is_refused(path):
    content = path.read_bytes()
    for length in [*range(64), *range(64, len(content), 211)]:
        path.write_bytes(content[:length])
        with pytest.raises(TenfoldError, match=r"model\.safetensors"):
            load_model(path)


def header_of(path):
    """What tenfold writes into the header of a model file."""
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["tenfold"])


def with_header(path, text, *, key="tenfold"):
    """Write the model file again with other text in its header."""
    path.write_bytes(save(load(path.read_bytes()), metadata={key: text}))


LEFT_OUT = object()


def with_values(path, **changes):
    """Write the model file again with other values in its header."""
    values = {**header_of(path), **changes}
    values = {key: value for key, value in values.items() if value is not LEFT_OUT}
    with_header(path, json.dumps(values))


@pytest.mark.parametrize("key", ["format", "recipe", "class_names", "normalisation", "image_size"])
def test_a_header_that_lacks_something_is_refused(path, key):
    with_values(path, **{key: LEFT_OUT})
    with pytest.raises(TenfoldError, match=key):
        load_model(path)


def test_weights_without_any_header_are_refused(path):
    path.write_bytes(save(load(path.read_bytes())))
    with pytest.raises(TenfoldError, match="not a model that tenfold wrote"):
        load_model(path)


def test_row_10_another_format_is_refused_with_both(path):
    with_values(path, format="tenfold-model-99")
    with pytest.raises(TenfoldError, match=r"tenfold-model-99.*tenfold-model-1"):
        load_model(path)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"class_names": ["a", "b"]}, ".bias it has (3,), and the network needs (2,)"),
        ({"image_size": [32, 32]}, ".weight it has (10, 96), and the network needs (10, 512)"),
        (
            {"recipe": recipe_from_dict(RECIPES["ann"]).to_dict()},
            "the network needs nothing",
        ),
    ],
)
def test_row_10_weights_of_another_network_are_refused_with_the_difference(path, changes, named):
    with_values(path, **changes)
    with pytest.raises(TenfoldError) as raised:
        load_model(path)
    assert named in str(raised.value)


def test_the_first_difference_between_tensors_is_named():
    one = {"a": torch.zeros(2), "b": torch.zeros(3, 4)}
    require_same_tensors(one, {name: t + 1 for name, t in one.items()}, source="x")
    for other, said in (
        ({"a": torch.zeros(2)}, "for b it has (3, 4), and the network needs nothing"),
        ({**one, "c": torch.zeros(())}, "for c it has nothing, and the network needs ()"),
        ({**one, "b": torch.zeros(4, 3)}, "for b it has (3, 4), and the network needs (4, 3)"),
    ):
        with pytest.raises(TenfoldError) as raised:
            require_same_tensors(one, other, source="x")
        assert said in str(raised.value)


# -- hostile files -------------------------------------------------------------------------------


@contextlib.contextmanager
def memory_limited(extra=1 << 30):
    """No more than `extra` bytes of address space on top of what the process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    wanted = pages * resource.getpagesize() + extra
    resource.setrlimit(resource.RLIMIT_AS, (wanted, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def container(header, *, data=b"", length=None):
    """A safetensors file with any header, be it JSON or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(*, shape=(4,), offsets=(0, 16), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


HOSTILE = {
    "nothing": b"",
    "half a length": b"\x10\x00",
    "only a length": struct.pack("<Q", 100),
    "length 2^64 - 1": container(b"{}", length=2**64 - 1),
    "length 2^63": container(b"{}", length=2**63),
    "length of 100 GB": container(b"{}", length=10**11),
    "length just below the limit": container(b"{}", length=99_999_999),
    "length of 0": container(b"", length=0),
    "no JSON": container(b"\x00\xff garbage \x80"),
    "invalid UTF-8": container(b'{"\xff\xfe": 1}'),
    "half of JSON": container(b'{"a": {"dtype": "F32", '),
    "a list": container([]),
    "a number": container(1),
    "deeply nested": container(b"[" * 1_000_000),
    "deeply nested objects": container(b'{"a":' * 200_000),
    "negative offsets": container({"a": tensor(offsets=(-16, 0))}, data=bytes(16)),
    "offsets in reverse": container({"a": tensor(offsets=(16, 0))}, data=bytes(16)),
    "offsets beyond the end": container({"a": tensor(offsets=(0, 16))}, data=bytes(8)),
    "offsets beyond everything": container(
        {"a": tensor(shape=(2**60,), offsets=(0, 2**62))}, data=bytes(16)
    ),
    "offsets of 2^64": container({"a": tensor(offsets=(0, 2**64))}, data=bytes(16)),
    "offsets of 10^30": container({"a": tensor(offsets=(0, 10**30))}, data=bytes(16)),
    "overlapping": container({"a": tensor(), "b": tensor(offsets=(8, 24))}, data=bytes(24)),
    "the same bytes twice": container({"a": tensor(), "b": tensor()}, data=bytes(16)),
    "a hole": container({"a": tensor(), "b": tensor(offsets=(20, 36))}, data=bytes(36)),
    "bytes to spare": container({"a": tensor()}, data=bytes(32)),
    "shape too large for its bytes": container({"a": tensor(shape=(2**40,))}, data=bytes(16)),
    "shape that overflows": container({"a": tensor(shape=(2**62, 8))}, data=bytes(16)),
    "shape that overflows to fit": container({"a": tensor(shape=(2**63, 2, 4))}, data=bytes(16)),
    "negative shape": container({"a": tensor(shape=(-2, -2))}, data=bytes(16)),
    "empty shape of huge sides": container({"a": tensor(shape=(0, 2**62, 2**62), offsets=(0, 0))}),
    "unknown type": container({"a": tensor(dtype="F31")}, data=bytes(16)),
    "type that is no word": container({"a": tensor(dtype=[1])}, data=bytes(16)),
    "metadata that is no text": container({"__metadata__": {"format": 1}, "a": tensor()}),
    "metadata that is a list": container({"__metadata__": ["format"], "a": tensor()}),
    "a tensor of no kind": container({"a": 7}),
    "a sound file of something else": container({"a": tensor()}, data=bytes(16)),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_row_12_a_hostile_header_is_refused(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with memory_limited(), pytest.raises(TenfoldError, match=r"model\.safetensors"):
        load_model(path)


def recipe_with(**model):
    return {**recipe_from_dict(RECIPES["cnn"]).to_dict(), "model": model}


HOSTILE_VALUES = {
    "a recipe that is a list": {"recipe": []},
    "a recipe that is null": {"recipe": None},
    "a recipe with an unknown key": {"recipe": {"run": "rm"}},
    "a huge convolution": {"recipe": recipe_with(name="cnn", widths=[10**6, 10**6])},
    "a huge kernel": {"recipe": recipe_with(name="cnn", kernel_size=10**6 + 1)},
    "a kernel beyond 64 bits": {"recipe": recipe_with(name="cnn", kernel_size=10**30 + 1)},
    "a huge layer": {"recipe": recipe_with(name="ann", widths=[10**9])},
    "a layer beyond 64 bits": {"recipe": recipe_with(name="ann", widths=[10**30])},
    "huge pictures": {"image_size": [60_000, 60_000]},
    "absurd pictures": {"image_size": [10**15, 10**15]},
    "pictures beyond 64 bits": {"image_size": [10**30, 10**30]},
    "negative pictures": {"image_size": [-16, -12]},
    "pictures of no size": {"image_size": [0, 0]},
    "pictures of half pixels": {"image_size": [16.5, 12.0]},
    "pictures of words": {"image_size": ["16", "12"]},
    "pictures of one side": {"image_size": [16]},
    "pictures of truth": {"image_size": [True, True]},
    "names that are a number": {"class_names": 3},
    "names that are null": {"class_names": None},
    "names that are numbers": {"class_names": [1, 2, 3]},
    "names that are lists": {"class_names": [["a"], ["b"], ["c"]]},
    "names that are too many": {"class_names": [str(i) for i in range(100_000)]},
    "the same name twice": {"class_names": ["a", "a", "b"]},
    "no names": {"class_names": []},
    "normalisation by a list": {"normalisation": [1, 2]},
    "normalisation by words": {"normalisation": {"mean": "abc", "std": ["1", "1", "1"]}},
    "normalisation of two channels": {"normalisation": {"mean": [0, 0], "std": [1, 1]}},
    "normalisation by zero": {"normalisation": {"mean": [0, 0, 0], "std": [1, 0, 1]}},
    "normalisation by nothing": {"normalisation": {"mean": [0, 0, 0], "std": [1, math.nan, 1]}},
    "a format that is a list": {"format": ["tenfold-model-1"]},
}


@pytest.mark.parametrize("changes", HOSTILE_VALUES.values(), ids=HOSTILE_VALUES.keys())
def test_row_12_hostile_values_in_a_sound_header_are_refused(path, changes):
    with_values(path, **changes)
    with memory_limited(), pytest.raises(TenfoldError, match=r"model\.safetensors") as raised:
        load_model(path)
    assert len(str(raised.value)) < 2_000


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "[" * 200_000, '{"a":' * 100_000])
def test_row_12_garbage_in_a_sound_header_is_refused(path, text):
    with_header(path, text)
    with memory_limited(), pytest.raises(TenfoldError, match=r"model\.safetensors"):
        load_model(path)


class Canary:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("form", ["pickle", "torch", "old torch", "pickle in a header"])
def test_row_11_a_pickle_given_as_weights_is_never_executed(tmp_path, form):
    path, canary = tmp_path / "model.safetensors", tmp_path / "canary"
    bait = {"0.weight": Canary(canary)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(bait))
    elif form == "pickle in a header":
        text = pickle.dumps(bait)
        path.write_bytes(struct.pack("<Q", len(text)) + text)
    else:
        torch.save(bait, path, _use_new_zipfile_serialization=form == "torch")
    with pytest.raises(TenfoldError, match="not a sound safetensors file"):
        load_model(path)
    assert not canary.exists()
    if form == "pickle":
        pickle.loads(path.read_bytes())
        assert canary.exists()  # so the bait was a real one
