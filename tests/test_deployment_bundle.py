"""The bundle: what is in it works without tenfold."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import served
from tenfold.deployment.bundle import write_bundle
from tenfold.deployment.predictor import Predictor
from tenfold.errors import TenfoldError
from tenfold.run import RunFolder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return served.make_model(tmp_path_factory.mktemp("bundled"))


def test_its_script_gives_the_answers_of_the_predictor(model, tmp_path):
    (model.parents[1] / "card.md").write_text("# A card\n")
    written = write_bundle(RunFolder(model.parents[1]), model, tmp_path / "bundle")
    names = {path.name for path in written}
    assert names == {"model.onnx", "predict.py", "requirements.txt", "README.md"}
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
        check=True,
        cwd=tmp_path,
    )
    first, second = found.stdout.splitlines()
    expected = Predictor(model).predict(tmp_path / "a.png")
    assert first.endswith(f"{expected.label} ({expected.confidence:.1%})")
    assert "cannot identify image file" in second


def test_a_folder_with_something_in_it_is_left_alone(model, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(TenfoldError, match="is not empty"):
        write_bundle(RunFolder(model.parents[1]), model, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
