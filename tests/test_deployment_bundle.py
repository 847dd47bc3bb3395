"""The bundle: what is in it works without tenfold."""

import contextlib
import dataclasses
import errno
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

import bare_environment
import served
from tenfold.deployment.bundle import write_bundle
from tenfold.deployment.export import Export, Gate
from tenfold.deployment.predictor import Predictor
from tenfold.errors import TenfoldError
from tenfold.evaluation.trained import load
from tenfold.run import RunFolder


@pytest.fixture(scope="module")
def model(made_once):
    return made_once(served.make_run, served.make_model) / served.MODEL


@pytest.fixture
def bundle(model, tmp_path):
    """A function that writes a bundle, and gives its folder."""
    gate = Gate(64, "test", 1.0, 0.0, 0.0, 0.75, 0.75, 64, 0, 0)

    def write(name="bundle", opset=18, run=model.parents[1]):
        export = Export(model, opset, model.stat().st_size, gate, ())
        written = write_bundle(RunFolder(run), export, tmp_path / name, card="# A card\n")
        assert set(written) == set((tmp_path / name).iterdir())
        return tmp_path / name

    return write


def test_a_run_at_a_relative_path_names_its_bundle(bundle, model):
    with contextlib.chdir(model.parents[2]):
        readme = (bundle(run=Path("1")) / "README.md").read_text()
    assert readme.startswith("# tiny\n")


def test_on_a_full_disk_nothing_is_left(bundle, tmp_path, monkeypatch):
    write = Path.write_bytes

    def fill(path, content):
        if path.name == "README.md":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", fill)
    with pytest.raises(TenfoldError, match=r"bundle could not be written \(No space left"):
        bundle()
    assert list(tmp_path.iterdir()) == []


def run_script(folder, *arguments):
    command = [sys.executable, "-Es", str(folder / "predict.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_its_script_gives_the_predictions_of_the_predictor(model, bundle, tmp_path):
    folder = bundle()
    assert {path.name for path in folder.iterdir()} == {
        *("model.onnx", "predict.py", "images.py", "dicom.py"),
        *("requirements.txt", "README.md", "card.md"),
    }
    assert "75.0% of 64 test images" in (folder / "README.md").read_text()
    assert len((folder / "predict.py").read_text().splitlines()) < 50
    for path in folder.glob("*.py"):
        lines = (line.split() for line in path.read_text().splitlines())
        imports = [words[1] for words in lines if words[:1] in (["import"], ["from"])]
        assert not any(name.startswith("tenfold") for name in imports)
    (tmp_path / "a.png").write_bytes(served.encoded(served.noise()))
    (tmp_path / "b.png").write_bytes(b"nothing")
    found = run_script(folder, tmp_path / "a.png", tmp_path / "b.png")
    assert found.returncode == 1  # For the one that is broken.
    first, second = found.stdout.splitlines()
    expected = Predictor(model).predict(tmp_path / "a.png")
    assert first.endswith(f"{expected.label} ({expected.confidence:.1%})")
    assert "b.png: can't be read" in second
    found = run_script(folder)
    assert (found.returncode, found.stderr[:27]) == (1, "Name the class of images: p")


def test_its_script_names_sets_or_says_which_there_are(model, bundle, tmp_path):
    folder, paths = bundle(), [tmp_path / f"{seed}.png" for seed in range(3)]
    for seed, path in enumerate(paths):
        path.write_bytes(served.encoded(served.noise(seed)))
    found = run_script(folder, "--sets", "90", *paths)
    held = [line.partition("; set: ")[2] for line in found.stdout.splitlines()]
    predictor = Predictor(model, sets=0.9)
    assert held == [", ".join(predictor.predict(path).conformal_set) for path in paths]
    assert all(held)
    found = run_script(folder, "--sets", "97", *paths)
    assert found.returncode == 1  # 64 validation images are too few for 99.
    assert found.stderr == "Sets of 97 % can't be had; there are some of: 90, 95.\n"


ODD = {
    "large.jpg": {"quality": 90},
    "turned.jpg": {"exif": 6},
    "turned.webp": {"exif": 8, "lossless": True},
    "garbage.jpg": {"exif": bytes(range(40, 140))},
    "xmp.jpg": {"xmp": b'<rdf:Description tiff:Orientation="6"/>'},
    "grey16.png": {"mode": "I;16", "level": 65535},
    "grey12.tif": {"mode": "I;16", "level": 4095},
    "alpha.png": {"mode": "RGBA"},
    "cmyk.tif": {"mode": "CMYK"},
    "palette.gif": {"mode": "P"},
}


def odd_image(path, *, mode="RGB", level=0, exif=None, **options):
    coarse = np.random.default_rng(5).integers(0, 256, (6, 9, 4), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((360, 240), Image.Resampling.BICUBIC)
    if level:
        values = np.asarray(image.convert("L")) / 255 * level
        image = Image.fromarray(values.round().astype(np.uint16))
    elif mode != "RGBA":
        image = image.convert("RGB").convert(mode)
    if isinstance(exif, int):
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = exif
    elif exif:
        options["exif"] = b"Exif\0\0" + exif
    image.save(path, **options)


@pytest.mark.parametrize("window", [(), (0, 4095)])
def test_run_predictor_and_script_see_the_same_pixels(model, bundle, tmp_path, window):
    for name, options in ODD.items():
        odd_image(tmp_path / name, **options)
    paths = [str(tmp_path / name) for name in ODD]
    trained = dataclasses.replace(load(model.parents[1]), window=window)
    predictor = Predictor(model)
    predictor.window = window
    seen = trained.pixels(paths)
    np.testing.assert_array_equal([predictor.pixels(path) for path in paths], seen)
    code = (
        "import sys, numpy; from images import prepare_image; numpy.save(sys.argv[1], "
        f"[prepare_image(p, size=(16, 16), window={window}) for p in sys.argv[2:]])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "seen.npy"), *paths]
    subprocess.run(command, check=True, cwd=bundle())
    np.testing.assert_array_equal(np.load(tmp_path / "seen.npy"), seen)
    grey12 = seen[list(ODD).index("grey12.tif")]
    assert (grey12.mean() > 60) == (window == (0, 4095))


def test_its_requirements_are_what_reads_the_model(bundle):
    oldest, newest = (
        (bundle(f"{opset}", opset) / "requirements.txt").read_text().splitlines()
        for opset in (18, 25)
    )
    text = (bare_environment.SOURCE.parent / "pyproject.toml").read_text()
    project = tomllib.loads(text)["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["serve"]]
    assert set(oldest) <= set(wanted)
    assert newest[1] == f"onnxruntime>={onnxruntime.__version__}"


def test_a_folder_with_something_in_it_is_left_alone(bundle, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/mine.txt").write_text("mine")
    with pytest.raises(TenfoldError, match="exists already"):
        bundle("mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["mine.txt"]
