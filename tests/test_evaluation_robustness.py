"""Accuracy under changes: against networks whose answers are known."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from tenfold.data.images import Images
from tenfold.data.normalisation import Normalisation
from tenfold.errors import TenfoldError
from tenfold.evaluation import robustness
from tenfold.evaluation.corruptions import FAMILIES
from tenfold.evaluation.trained import TrainedModel
from tenfold.recipe import load_recipe

NORMALISATION = Normalisation((0.5, 0.5, 0.5), (0.25, 0.2, 0.25))


def brightness_model(scale=0.01):
    """Class 1 where the mean of all values is above a half, by a linear network."""
    head = nn.Linear(3 * 32 * 32, 2, bias=False)
    with torch.no_grad():
        per_colour = torch.tensor(NORMALISATION.std)[:, None, None].expand(3, 32, 32)
        head.weight[1] = scale * per_colour.reshape(-1)
        head.weight[0] = -scale * per_colour.reshape(-1)
    recipe = load_recipe("ann")
    module = nn.Sequential(nn.Flatten(), head)
    return TrainedModel(module, recipe, ("dark", "bright"), NORMALISATION, (32, 32))


def images(values):
    """Even pictures of these values; bright from 128 on."""
    values = np.asarray(values)
    pixels = np.broadcast_to(values[:, None, None, None], (len(values), 32, 32, 3))
    labels = (values >= 128).astype(np.int64)
    ids = np.array([f"test/{i}" for i in range(len(values))])
    return Images(pixels.astype(np.uint8), labels, ("dark", "bright"), ids)


def test_attacks_move_values_by_their_limit_and_no_more():
    # 2/255 and 8/255 carry a picture over the middle, 127.5, from up to 2 and 8 values away.
    x = images([100, 118, 121, 126, 129, 133, 137, 160])
    found = {
        (result.method, round(result.limit * 255)): result.accuracy
        for result in robustness.attack_accuracies(brightness_model(), x)
    }
    # 126 and 129 fall to the smaller limit; 121 and 133 to the larger.
    assert found == {("FGSM", 2): 6 / 8, ("PGD", 2): 6 / 8, ("FGSM", 8): 4 / 8, ("PGD", 8): 4 / 8}


def test_attacked_values_stay_colours():
    x = images([254, 1])
    seen = []
    model = brightness_model()
    module = nn.Sequential(nn.Identity(), model.module)
    module[0].register_forward_hook(lambda m, i, o: seen.append(o.detach().clone()))
    labels = torch.from_numpy(x.labels)
    robustness._attacked(
        dataclasses.replace(model, module=module),
        x.pixels,
        labels,
        8 / 255,
        steps=10,
        generator=torch.Generator().manual_seed(0),
    )
    std = torch.tensor(NORMALISATION.std)[:, None, None]
    values = torch.stack([each * std + 0.5 for each in seen])
    assert values.min() >= -1e-6
    assert values.max() <= 1 + 1e-6
    assert (values[-1][0] - 254 / 255).abs().max() <= 8 / 255 + 1e-6


def test_a_shift_by_a_pixel_is_noticed_where_it_matters():
    x = images([100, 160, 127, 128])
    assert robustness.shift_consistency(brightness_model(), x) == (1.0, ())
    # A bright column at the edge, that leaves with a shift, decides.
    pixels = np.full((2, 32, 32, 3), 127, dtype=np.uint8)
    pixels[0, :, 0] = 160
    edge = dataclasses.replace(images([127, 127]), pixels=pixels)
    found = robustness.shift_consistency(brightness_model(), edge)
    assert found.consistency == 0.5
    assert found.flips == (robustness.Flip(0, 1, 0, "left"),)


def test_a_move_by_a_pixel_is_what_its_name_says():
    x = np.arange(9, dtype=np.uint8).reshape(1, 3, 3, 1).repeat(3, axis=3)
    expected = {
        "up": [[3, 4, 5], [6, 7, 8], [6, 7, 8]],
        "down": [[0, 1, 2], [0, 1, 2], [3, 4, 5]],
        "left": [[1, 2, 2], [4, 5, 5], [7, 8, 8]],
        "right": [[0, 0, 1], [3, 3, 4], [6, 6, 7]],
    }
    for direction, rows in expected.items():
        assert robustness.shifted(x, direction)[0, :, :, 0].tolist() == rows


def test_each_corruption_has_five_accuracies():
    # Contrast and blurs leave even pictures alone; brightness makes dark ones bright.
    found = list(robustness.corruption_accuracies(brightness_model(), images([60, 90, 120, 200])))
    by_name = {result.corruption: result for result in found}
    assert [result.corruption for result in found] == [n for f in FAMILIES.values() for n in f]
    assert by_name["defocus_blur"].accuracies == (1.0,) * 5
    assert by_name["defocus_blur"].family == "blur"
    # 0.05 to 0.3 of 255: 12.75 to 76.5 on top of 120, 90 and 60.
    assert by_name["brightness"].accuracies == (0.75, 0.75, 0.5, 0.5, 0.25)


def official(folder, *, length=50_000):
    labels = np.tile(np.arange(10_000) % 2, 5).astype(np.uint8)[:length]
    pixels = np.zeros((length, 32, 32, 3), dtype=np.uint8)
    pixels[: length // 5][labels[: length // 5] == 1] = 255
    for names in FAMILIES.values():
        for name in names[:1]:
            np.save(folder / f"{name}.npy", pixels)
    np.save(folder / "labels.npy", labels)


def test_official_files_are_read_severity_by_severity(tmp_path):
    official(tmp_path)
    pixels, labels = robustness.read_official(tmp_path, "gaussian_noise", severity=1)
    assert pixels.shape == (10_000, 32, 32, 3)
    assert ((pixels[:, 0, 0, 0] == 255) == (labels == 1)).all()
    pixels, labels = robustness.read_official(tmp_path, "gaussian_noise", severity=5)
    assert pixels.max() == 0
    assert labels.mean() == 0.5
    with pytest.raises(TenfoldError, match=r"There is no .*shot_noise.npy"):
        robustness.read_official(tmp_path, "shot_noise", severity=1)


def test_other_files_are_refused(tmp_path):
    official(tmp_path, length=500)
    with pytest.raises(TenfoldError, match="no file of CIFAR-10-C"):
        robustness.read_official(tmp_path, "gaussian_noise", severity=1)
    (tmp_path / "gaussian_noise.npy").write_bytes(b"nothing")
    with pytest.raises(TenfoldError, match="can't be read"):
        robustness.read_official(tmp_path, "gaussian_noise", severity=1)
