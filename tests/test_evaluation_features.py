"""Features of a frozen network: computed once, and never those of something else."""

import shutil

import numpy as np
import pytest
import torch

from parts import build
from tenfold.data.normalisation import Normalisation
from tenfold.evaluation import features, onnx_forward
from tenfold.evaluation.features import features_of
from tenfold.evaluation.trained import TrainedModel
from tenfold.recipe import load_recipe

pytest.importorskip("timm")

CONSTANTS = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build(
        "pretrained",
        num_classes=3,
        image_size=(16, 16),
        backbone="test_efficientnet",
        weights="none",
        input_size=32,
        head=(),
        activation="relu",
        dropout=0.0,
    )


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (7, 16, 16, 3), dtype=np.uint8)


def counted(model, monkeypatch):
    """How many pictures the backbone sees from now on, as a list of batches."""
    seen = []
    real = model.features

    def features(inputs, **options):
        seen.append(len(inputs))
        return real(inputs, **options)

    monkeypatch.setattr(model, "features", features)
    return seen


def test_they_are_what_the_network_says_of_each_picture(cache, model, pixels):
    found = features_of(model, pixels, CONSTANTS)
    model.eval()
    inputs = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    with torch.inference_mode():
        wanted = model.features(inputs).numpy()
    assert found.shape == (7, 256)
    assert np.allclose(found, wanted, atol=1e-4)


def test_the_second_time_nothing_is_computed(cache, model, pixels, monkeypatch):
    first = features_of(model, pixels, CONSTANTS)
    seen = counted(model, monkeypatch)
    assert np.array_equal(features_of(model, pixels, CONSTANTS), first)
    assert not seen
    assert len(list(cache.rglob("*.npy"))) == 1


def test_another_picture_network_size_or_constant_is_something_else(
    cache, model, pixels, monkeypatch
):
    features_of(model, pixels, CONSTANTS)
    seen = counted(model, monkeypatch)
    other = pixels.copy()
    other[3, 2, 1, 0] ^= 1
    features_of(model, other, CONSTANTS)
    features_of(model, pixels[::-1], CONSTANTS)
    features_of(model, pixels, Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.25)))
    model.preprocessing = model.preprocessing._replace(side=64)
    features_of(model, pixels, CONSTANTS)
    with torch.no_grad():
        model.backbone.conv_stem.weight[0, 0, 0, 0] += 1
    features_of(model, pixels, CONSTANTS)
    assert seen == [7] * 5
    with torch.no_grad():  # The head has no part in it.
        model.head[0].weight += 1
    features_of(model, pixels, CONSTANTS)
    assert seen == [7] * 5


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", None])
def test_a_damaged_file_is_computed_again(cache, model, pixels, monkeypatch, damage):
    first = features_of(model, pixels, CONSTANTS)
    [path] = cache.rglob("*.npy")
    path.write_bytes(path.read_bytes()[:-4] if damage is None else damage)
    seen = counted(model, monkeypatch)
    assert np.array_equal(features_of(model, pixels, CONSTANTS), first)
    assert seen == [7]
    assert np.array_equal(np.load(path), first)


def test_a_training_network_stays_one_and_learns_nothing(cache, model, pixels):
    model.train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    features_of(model, pixels, CONSTANTS)
    assert model.training
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


def test_progress_is_told(cache, model, pixels, monkeypatch):
    told = []
    monkeypatch.setattr(type(model), "batch_size", lambda self, most: 3)
    features_of(model, pixels, CONSTANTS, progress=lambda *arguments: told.append(arguments))
    assert told == [("features", 3, 7), ("features", 6, 7), ("features", 7, 7)]


def test_pictures_are_kept_in_parts(cache, model, pixels, monkeypatch):
    monkeypatch.setattr(features, "KEPT_TOGETHER", 3)
    whole = features_of(model, pixels, CONSTANTS)
    assert len(list(cache.rglob("*.npy"))) == 3
    seen = counted(model, monkeypatch)
    other = pixels.copy()
    other[4] = 0
    found = features_of(model, other, CONSTANTS)
    assert seen == [3]  # The part that the changed picture is in.
    assert np.array_equal(found[:3], whole[:3])
    assert not np.array_equal(found[4], whole[4])


def test_a_cache_that_can_not_be_written_is_only_a_warning(cache, model, pixels, caplog):
    cache.parent.mkdir(parents=True)
    cache.write_text("a file where the folder should be")
    found = features_of(model, pixels, CONSTANTS)
    assert found.shape == (7, 256)
    assert "not kept for another time" in caplog.text


def test_what_was_not_used_for_the_longest_goes_first(cache, model, pixels, monkeypatch):
    import os

    monkeypatch.setattr(features, "KEPT_TOGETHER", 2)
    features_of(model, pixels, CONSTANTS)
    files = sorted(cache.rglob("*.npy"))
    assert len(files) == 4
    for file in files:
        os.utime(file, (1, 1))
    (cache / "left over.tmp").write_bytes(b"x" * 1000)
    os.utime(cache / "left over.tmp", (0, 0))
    features_of(model, pixels[:4], CONSTANTS)  # Two of the four are used again.
    recent = {file for file in files if file.stat().st_mtime > 1}
    assert len(recent) == 2
    size = max(file.stat().st_size for file in files)
    monkeypatch.setattr(features, "MOST_BYTES", 3 * size)
    features_of(model, pixels[:1], CONSTANTS)
    kept = {file for file in cache.rglob("*") if file.is_file()}
    assert recent < kept
    assert len(kept) == 3


def test_those_in_use_stay_even_if_they_are_too_many(cache, model, pixels, monkeypatch):
    monkeypatch.setattr(features, "MOST_BYTES", 0)
    features_of(model, pixels, CONSTANTS)
    assert len(list(cache.rglob("*.npy"))) == 1


@pytest.fixture
def with_onnx(monkeypatch):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(onnx_forward, "WORTH_IT", 5)


def test_many_are_computed_by_onnx_runtime_to_the_same_features(
    cache, model, pixels, with_onnx, monkeypatch
):
    used = []
    real = model.features

    def features(inputs, *, through=None):
        used.append(through is not None)
        return real(inputs, through=through)

    monkeypatch.setattr(model, "features", features)
    found = features_of(model, pixels, CONSTANTS)
    assert used == [True]
    few = features_of(model, pixels[:4], CONSTANTS)
    assert used == [True, False]
    assert np.abs(found[:4] - few).max() < 1e-4 * np.abs(few).max()
    assert np.array_equal(features_of(model, pixels, CONSTANTS), found)
    assert len(used) == 2  # From the cache.


def test_threads_change_no_bit_of_them(cache, model, pixels, with_onnx):
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            shutil.rmtree(cache, ignore_errors=True)
            found.append(features_of(model, pixels, CONSTANTS))
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(*found)


def test_a_network_that_cannot_be_converted_is_computed_by_torch(
    cache, model, pixels, with_onnx, monkeypatch
):
    plain = features_of(model, pixels[:4], CONSTANTS)

    def refuse(*arguments, **options):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    assert np.allclose(features_of(model, pixels, CONSTANTS)[:4], plain, atol=1e-6)


def test_logits_of_a_fine_tuned_network_are_the_same_with_it(model, monkeypatch, with_onnx):
    recipe = load_recipe(
        "transfer-lite0", ["model.backbone=test_efficientnet", "evaluation.views=mirror"]
    )
    trained = TrainedModel(model.eval(), recipe, ("ant", "bee", "cow"), CONSTANTS, (16, 16))
    pixels = np.random.default_rng(1).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
    quick = trained.logits(pixels)
    monkeypatch.setattr(onnx_forward, "WORTH_IT", 100)
    plain = trained.logits(pixels)
    assert np.abs(quick - plain).max() < 1e-4 * np.abs(plain).max()
    assert not np.array_equal(quick, plain)
