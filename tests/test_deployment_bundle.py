"""The bundle: what is in it works without tenfold."""

import dataclasses
import subprocess
import sys
import tomllib

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


def export(model, opset=18):
    gate = Gate(64, "test", 1.0, 0.0, 0.0, 0.75, 0.75, 64, 0, 0)
    return Export(model, opset, False, model.stat().st_size, gate, ())


def test_its_script_gives_the_answers_of_the_predictor(model, tmp_path):
    run = RunFolder(model.parents[1])
    written = write_bundle(run, export(model), tmp_path / "bundle", card="# A card\n")
    names = {path.name for path in written}
    assert names == {
        *("model.onnx", "predict.py", "pictures.py", "dicom.py"),
        *("requirements.txt", "README.md", "card.md"),
    }
    assert "75.0% of 64 test images" in (tmp_path / "bundle/README.md").read_text()
    script = tmp_path / "bundle/predict.py"
    assert len(script.read_text().splitlines()) < 50
    for path in (script, *map(script.with_name, ("pictures.py", "dicom.py"))):
        lines = path.read_text().splitlines()
        imports = [
            line.split()[1] for line in lines if line.lstrip().startswith(("import", "from"))
        ]
        assert not any(name.startswith("tenfold") for name in imports)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"nothing")
    found = subprocess.run(
        [sys.executable, "-Es", str(script), str(tmp_path / "a.png"), str(tmp_path / "b.png")],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert found.returncode == 1  # For the one that is broken.
    first, second = found.stdout.splitlines()
    expected = Predictor(model).predict(tmp_path / "a.png")
    assert first.endswith(f"{expected.label} ({expected.confidence:.1%})")
    assert "can't be read (is no image of a kind that can be read" in second
    found = subprocess.run([sys.executable, "-Es", str(script)], capture_output=True, check=False)
    assert (found.returncode, found.stderr[:27]) == (1, b"Name the class of images: p")


@pytest.mark.parametrize("asked", ["90", "97"])
def test_its_script_names_sets_or_says_which_there_are(model, tmp_path, asked):
    write_bundle(RunFolder(model.parents[1]), export(model), tmp_path / "bundle", card="")
    generator = np.random.default_rng(0)
    for name in "abc":
        pixels = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    paths = [str(tmp_path / f"{name}.png") for name in "abc"]
    found = subprocess.run(
        [sys.executable, "-Es", "bundle/predict.py", "--sets", asked, *paths],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    if asked == "97":  # 64 validation images are too few for 99.
        assert found.returncode == 1
        assert found.stderr == "Sets of 97 % can't be had; there are some of: 90, 95.\n"
        return
    predictor = Predictor(model, sets=0.9)
    held = [line.partition("; set: ")[2] for line in found.stdout.splitlines()]
    assert held == [", ".join(predictor.predict(path).conformal_set) for path in paths]
    assert all(held)


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


def odd_picture(path, *, mode="RGB", level=0, exif=None, **options):
    coarse = np.random.default_rng(5).integers(0, 256, (6, 9, 4), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((360, 240), Image.Resampling.BICUBIC)
    if level:
        values = np.asarray(picture.convert("L")) / 255 * level
        picture = Image.fromarray(values.round().astype(np.uint16))
    elif mode != "RGBA":
        picture = picture.convert("RGB").convert(mode)
    if isinstance(exif, int):
        tags = Image.Exif()
        tags[0x0112] = exif
        options["exif"] = tags
    elif exif:
        options["exif"] = b"Exif\0\0" + exif
    picture.save(path, **options)


@pytest.mark.parametrize("window", [(), (0, 4095)])
def test_run_predictor_and_script_see_the_same_pixels(model, tmp_path, window):
    run = RunFolder(model.parents[1])
    write_bundle(run, export(model), tmp_path / "bundle", card="")
    for name, options in ODD.items():
        odd_picture(tmp_path / name, **options)
    paths = [str(tmp_path / name) for name in ODD]
    trained = dataclasses.replace(load(run.path), window=window)
    predictor = Predictor(model)
    predictor.window = window
    seen = trained.pixels(paths)
    np.testing.assert_array_equal([predictor.pixels(path) for path in paths], seen)
    code = (
        "import sys, numpy; from pictures import prepare_picture; numpy.save(sys.argv[1], "
        f"[prepare_picture(p, size=(16, 16), window={window}) for p in sys.argv[2:]])"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "seen.npy"), *paths],
        check=True,
        cwd=tmp_path / "bundle",
    )
    np.testing.assert_array_equal(np.load(tmp_path / "seen.npy"), seen)
    grey12 = seen[list(ODD).index("grey12.tif")]
    assert (grey12.mean() > 60) == (window == (0, 4095))


def test_its_requirements_are_what_reads_the_model(model, tmp_path):
    lines = {}
    for opset in (18, 25):
        write_bundle(
            RunFolder(model.parents[1]), export(model, opset), tmp_path / f"{opset}", card=""
        )
        lines[opset] = (tmp_path / f"{opset}/requirements.txt").read_text().splitlines()
    project = tomllib.loads((bare_environment.SOURCE.parent / "pyproject.toml").read_text())
    wanted = project["project"]["dependencies"]
    wanted = [*wanted, *project["project"]["optional-dependencies"]["serve"]]
    assert set(lines[18]) <= set(wanted)
    assert lines[25][1] == f"onnxruntime>={onnxruntime.__version__}"


def test_a_folder_with_something_in_it_is_left_alone(model, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(TenfoldError, match="is not empty"):
        write_bundle(RunFolder(model.parents[1]), export(model), tmp_path, card="")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
