"""The oldest versions of other packages that we say we run with."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

import bare_environment
import commands
import served

ROOT = bare_environment.SOURCE.parent
UV_VARIABLES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "cert": "SSL_CERT_FILE",
}
"""By what pip calls it; uv does not read pip's configuration."""

pytestmark = pytest.mark.network


def done(*command, **options):
    """What a command says, which is to succeed."""
    found = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, check=False, **options
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.long
def test_a_bundle_runs_on_the_oldest_versions_of_its_requirements(made_once, tmp_path, picture):
    place = made_once(served.make_run)
    command = commands.run(["export", served.RUN, "--bundle", "away"], folder=place)
    assert command.wait() == 0, command.output
    oldest = (place / "away/requirements.txt").read_text().replace(">=", "==").split()
    pip = [sys.executable, "-m", "pip", "install", "-q", "--only-binary", ":all:"]
    installed = subprocess.run(
        [*pip, "--target", tmp_path / "packages", *oldest],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if installed.returncode:
        pytest.skip(f"they can't be had here: {installed.stderr.strip().splitlines()[-1]}")
    said = done(
        *bare_environment.command(place / "away/predict.py", picture),
        env={**os.environ, "PYTHONPATH": str(tmp_path / "packages")},
    )
    here = done(sys.executable, place / "away/predict.py", picture)
    assert said.split("(")[0] == here.split("(")[0]


@pytest.mark.long
def test_everything_runs_on_the_oldest_versions_that_are_admitted(tmp_path, picture):
    uv = shutil.which("uv", path=Path(sys.executable).parent) or shutil.which("uv")
    if uv is None:
        pytest.skip("needs uv")
    listed = done(sys.executable, "-m", "pip", "config", "list").splitlines()
    told = {line.split("=")[0].split(".")[-1]: line.partition("=")[2] for line in listed}
    known = {
        UV_VARIABLES[name]: ast.literal_eval(told[name]) for name in UV_VARIABLES & told.keys()
    }
    variables = {**os.environ, "UV_INDEX_STRATEGY": "unsafe-best-match", **known}
    python = tmp_path / "oldest/bin/python"
    compiled = ["--resolution", "lowest-direct", "--extra", "all", "-o", tmp_path / "oldest.txt"]
    done(uv, "pip", "compile", "-q", ROOT / "pyproject.toml", *compiled, env=variables)
    done(uv, "venv", "-q", "--python", sys.executable, tmp_path / "oldest", env=variables)
    wanted = ["--python", python, "-r", tmp_path / "oldest.txt"]
    done(uv, "pip", "install", "-q", *wanted, env=variables)

    variables = {**os.environ, "PYTHONPATH": str(bare_environment.SOURCE)}
    tenfold = [python, "-m", "tenfold"]
    at = {"cwd": tmp_path, "env": variables}
    commands.write_tiny_recipe(tmp_path)
    done(*tenfold, "train", "tiny.toml", "--data", "digits", **at)
    done(*tenfold, "export", "runs/tiny/1", "--maps", **at)
    done(*tenfold, "export", "runs/tiny/1", "--int8", "--bundle", "away", **at)
    label = done(*tenfold, "predict", "runs/tiny/1", picture, "--json", **at)
    label = json.loads(label.splitlines()[-1])["label"]
    assert label in done(python, "away/predict.py", picture, **at)
    serving = [*tenfold, "serve", "runs/tiny/1", "--port", "0", "--json"]
    with subprocess.Popen(serving, stdout=subprocess.PIPE, text=True, **at) as process:
        try:
            address = json.loads(process.stdout.readline())["address"]
            reply = httpx.post(f"{address}predict", content=picture.read_bytes(), timeout=30)
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()
    assert reply.json()["label"] == label
