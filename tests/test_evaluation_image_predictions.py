"""Picture files through a model: found, converted as training pictures are, broken ones named."""

import numpy as np
import pytest
import torch
from PIL import Image

from tenfold.data.decoding import decode_image
from tenfold.data.image_sources import Part, find_images
from tenfold.data.normalisation import normalisation_of
from tenfold.errors import TenfoldError
from tenfold.evaluation.image_predictions import predict_parts
from tenfold.evaluation.trained import TrainedModel, build_network
from tenfold.recipe import load_recipe

NAMES = ("ant", "bee", "cat")


def predicted(model, paths, *, top=1):
    found = predict_parts(model, [Part(list(map(str, paths)))], top=top)
    return [prediction for _, some in found for prediction in some]


@pytest.fixture
def make_model(make_images):
    """A function that makes an untrained model of pictures of a size."""

    def make(size=(16, 16)):
        torch.manual_seed(0)
        recipe = load_recipe("ann", ["model.widths=[8]"])
        module = build_network(recipe, num_classes=3, image_size=size).eval()
        constants = normalisation_of(make_images(size=size), "standardise")
        return TrainedModel(module, recipe, NAMES, constants, size)

    return make


def picture(path, size=(16, 16), *, mode="RGB", seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = len(mode) if mode != "L" else 1
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], channels), dtype=np.uint8)
    Image.fromarray(pixels.squeeze(), mode).save(path)
    return path


@pytest.fixture(autouse=True)
def _without_the_warning_of_pillow():
    """`Image.fromarray` warns of its mode in some versions of Pillow and not in others."""
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=__name__)
        yield


def test_pictures_of_any_kind_and_size_are_seen_as_training_pictures_are(tmp_path, make_model):
    model = make_model()
    paths = [
        picture(tmp_path / "own.png"),
        picture(tmp_path / "wide.jpg", (60, 33), seed=1),
        picture(tmp_path / "clear.png", (20, 40), mode="RGBA", seed=2),
        picture(tmp_path / "grey.bmp", (9, 5), mode="L", seed=3),
        picture(tmp_path / "still.webp", (31, 31), seed=4),
        picture(tmp_path / "print.tif", (31, 31), mode="CMYK", seed=5),
    ]
    predictions = predicted(model, paths, top=3)
    assert [prediction.path for prediction in predictions] == list(map(str, paths))
    for path, prediction in zip(paths, predictions, strict=True):
        pixels = decode_image(path, image_size=16).pixels[None]
        expected = dict(zip(NAMES, model.predict_proba(pixels)[0].tolist(), strict=True))
        assert dict(prediction.likeliest) == pytest.approx(expected, abs=1e-6)
        shares = [each.probability for each in prediction.likeliest]
        assert shares == sorted(shares, reverse=True)
        assert prediction.likeliest[0].label == model.predict(pixels)[0]


def test_row_37_a_broken_picture_has_its_row_and_its_reason(tmp_path, make_model):
    model = make_model()
    paths = [str(picture(tmp_path / f"{n}.png", seed=n)) for n in range(300)]
    expected = predicted(model, paths)
    broken = {3: b"", 130: b"not a picture", 299: b"\x89PNG\r\n\x1a\n"}
    for number, content in broken.items():
        (tmp_path / f"{number}.png").write_bytes(content)
    predictions = predicted(model, paths)
    assert [number for number, p in enumerate(predictions) if p.error] == list(broken)
    assert all(not predictions[number].likeliest for number in broken)
    for number in set(range(300)) - set(broken):
        mine, other = predictions[number], expected[number]
        assert (mine.path, mine.likeliest[0].label) == (other.path, other.likeliest[0].label)
        assert mine.likeliest[0].probability == pytest.approx(
            other.likeliest[0].probability, abs=1e-5
        )


def test_a_model_of_oblong_pictures_takes_those_of_its_size(tmp_path, make_model):
    model = make_model((16, 12))
    paths = [
        picture(tmp_path / "fits.png", (12, 16)),
        picture(tmp_path / "turned.png", (16, 12)),
        tmp_path / "none.png",
    ]
    fits, turned, none = predicted(model, paths)
    assert fits.likeliest[0].label == model.predict(decode_image(paths[0]).pixels[None])[0]
    assert turned.error == "has 16x12 pixels where this model takes 12x16"
    assert none.error == "no such file or directory"


def test_files_and_folders_are_found_in_order_and_once(tmp_path, monkeypatch):
    for name in ("b.jpg", "a.png", "deep/er/c.GIF", ".hidden/d.png"):
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).touch()
    (tmp_path / "folder/notes.txt").touch()
    (tmp_path / "no suffix").touch()
    monkeypatch.chdir(tmp_path)
    found = find_images(["no suffix", "folder/b.jpg", "folder"])
    assert found == ["no suffix", "folder/b.jpg", "folder/a.png", "folder/deep/er/c.GIF"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(TenfoldError, match="empty holds no images"):
        find_images(["folder", "empty"])
    with pytest.raises(TenfoldError, match=r"no image or folder nowhere\.png"):
        find_images(["folder", "nowhere.png"])


def test_no_class_at_all_is_no_answer(tmp_path, make_model):
    with pytest.raises(TenfoldError, match="is 0, where 1 or more"):
        predicted(make_model(), [tmp_path / "a.png"], top=0)
