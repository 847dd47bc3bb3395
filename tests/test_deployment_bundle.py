"""The bundle: what is in it works without tenfold."""

import importlib.util
import subprocess
import sys
import tomllib

import numpy as np
import onnxruntime
import pytest
from PIL import Image

import bare_environment
import served
from tenfold.deployment.bundle import SCRIPT, write_bundle
from tenfold.deployment.export import Export, Gate
from tenfold.deployment.predictor import Predictor
from tenfold.errors import TenfoldError
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
    assert names == {"model.onnx", "predict.py", "requirements.txt", "README.md", "card.md"}
    assert "right on 75.0% of 64 test" in (tmp_path / "bundle/README.md").read_text()
    script = tmp_path / "bundle/predict.py"
    assert len(script.read_text().splitlines()) < 40
    assert "tenfold" not in [
        line.split()[1].split(".")[0]
        for line in script.read_text().splitlines()
        if line.startswith(("import ", "from "))
    ]
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"nothing")
    found = subprocess.run(
        [sys.executable, "-I", str(script), str(tmp_path / "a.png"), str(tmp_path / "b.png")],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert found.returncode == 1  # For the one that is broken.
    first, second = found.stdout.splitlines()
    expected = Predictor(model).predict(tmp_path / "a.png")
    assert first.endswith(f"{expected.label} ({expected.confidence:.1%})")
    assert "can't be read (cannot identify image file" in second
    found = subprocess.run([sys.executable, "-I", str(script)], capture_output=True, check=False)
    assert (found.returncode, found.stderr[:27]) == (1, b"Name what is on pictures: p")


@pytest.mark.parametrize("kind", ["large", "turned", "grey16", "alpha", "cmyk", "palette"])
def test_its_script_sees_pictures_as_the_predictor_does(model, tmp_path, kind):
    generator = np.random.default_rng(5)
    coarse = generator.integers(0, 256, (6, 9, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((90, 60), Image.Resampling.BICUBIC)
    path, arguments = tmp_path / "p.png", {}
    if kind == "turned":
        path, exif = tmp_path / "p.jpg", Image.Exif()
        exif[0x0112] = 6
        arguments = {"exif": exif, "quality": 100}
    elif kind == "grey16":
        values = np.asarray(picture.convert("L")).astype(np.uint16) * 257
        picture = Image.fromarray(values)
    elif kind == "alpha":
        picture.putalpha(Image.fromarray(np.full((60, 90), 120, dtype=np.uint8)))
    elif kind == "cmyk":
        picture, path = picture.convert("CMYK"), tmp_path / "p.tif"
    elif kind == "palette":
        picture = picture.convert("P")
    picture.save(path, **arguments)
    specification = importlib.util.spec_from_file_location("script", SCRIPT)
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    ours = Predictor(model).pixels(path).astype(int)
    theirs = script.read(str(path), 16, 16).astype(int)
    assert np.abs(ours - theirs).max() <= 6


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
