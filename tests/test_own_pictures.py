"""A folder of ordinary photographs: mixed sizes, formats, orientations; no flag but --data."""

import json
from pathlib import Path

import numpy as np
import pytest

import commands

CLASSES = ("gardens", "people", "temples")


def photographs() -> dict[str, "np.ndarray"]:
    """Three real photographs that come with the libraries, (H, W, 3) uint8."""
    import matplotlib.cbook
    from PIL import Image
    from sklearn.datasets import load_sample_images

    samples = load_sample_images()
    china, flower = samples.images
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        person = np.asarray(Image.open(file).convert("RGB"))
    return dict(zip(CLASSES, (flower, person, china), strict=True))


def make_folder(folder: Path, *, number: int = 30) -> None:
    """Crops of every size and shape, saved in every format that people have."""
    from PIL import Image

    generator = np.random.default_rng(0)
    formats = ("jpg", "png", "webp", "bmp", "gif", "tif", "JPEG")
    for name, photograph in photographs().items():
        (folder / name).mkdir(parents=True)
        height, width = photograph.shape[:2]
        for index in range(number):
            sides = generator.integers(60, 260, 2)
            top = generator.integers(0, height - sides[0])
            left = generator.integers(0, width - sides[1])
            crop = Image.fromarray(photograph[top : top + sides[0], left : left + sides[1]])
            path = folder / name / f"picture {index:02}.{formats[index % len(formats)]}"
            if index % 5 == 0 and path.suffix in (".jpg", ".JPEG"):
                exif = Image.Exif()
                exif[0x0112] = 6
                crop.save(path, exif=exif)
            elif index % 4 == 0 and path.suffix == ".png":
                crop.convert("RGBA").save(path)
            else:
                crop.save(path)


def run_here(arguments: list[str], folder: Path) -> commands.Command:
    """Run a command that keeps decoded pictures in `folder`, not in the user's cache."""
    environment = {"TENFOLD_CACHE": str(folder / "cache")}
    command = commands.start(arguments, folder=folder, environment=environment)
    command.wait(500)  # A minute at most, but two hundred steps take long on a busy machine.
    return command


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What `tenfold train cnn --data FOLDER` leaves, and what it says."""
    folder = tmp_path_factory.mktemp("photographs")
    make_folder(folder / "my pictures")
    command = run_here(["train", "cnn", "--data", "my pictures"], folder)
    assert command.wait() == 0, command.output
    return folder, command.output


@pytest.mark.slow
def test_it_trains_evaluates_and_reports(trained):
    folder, output = trained
    run = folder / "runs/cnn/1"
    result = json.loads((run / "result.json").read_text())
    assert result["splits"]["test"]["accuracy"] >= 0.8
    assert [entry["name"] for entry in result["splits"]["test"]["per_class"]] == list(CLASSES)
    provenance = json.loads((run / "provenance.json").read_text())
    assert sum(provenance["data"]["splits"].values()) == 90
    assert set(provenance["data"]["splits"]) == {"train", "validation", "test"}
    page = (run / "report.html").read_text()
    assert all(name in page for name in CLASSES)
    assert page.count("data:image/png") >= 10
    assert "Traceback" not in output


@pytest.mark.slow
def test_it_evaluates_again_and_resumes_nothing(trained):
    folder, _ = trained
    command = run_here(["evaluate", "runs/cnn/1", "--json"], folder)
    assert command.wait() == 0, command.output
    again = next(json.loads(line) for line in command.output.splitlines() if '"metrics"' in line)
    first = json.loads((folder / "runs/cnn/1/result.json").read_text())["splits"]["test"]
    assert again["confusion"] == first["confusion"]


@pytest.mark.slow
def test_the_pictures_can_be_explored(trained):
    folder, _ = trained
    command = run_here(["data", "eda", "my pictures", "--out", "eda"], folder)
    assert command.wait() == 0, command.output
    assert "gardens" in (folder / "eda/eda.html").read_text()
    assert json.loads((folder / "eda/eda.json").read_text())
