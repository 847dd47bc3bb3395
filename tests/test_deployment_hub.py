"""Runs pushed to and pulled from a hub, with the real client and real requests."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import commands
import hub_stand_in
import served
from tenfold.evaluation.trained import load

RUN = served.RUN


@pytest.fixture(scope="module")
def folder(made_once):
    return made_once(served.make_run)


@pytest.fixture
def run(folder):
    """A function that runs a command, in a process of its own: the hub's library reads its address
    when it is imported. It gives the output, after a look at the exit status."""

    def call(*arguments, status=0):
        done = commands.run(arguments, folder=folder, environment=hub_stand_in.environment())
        assert done.wait() == status, done.output
        assert "Traceback" not in done.output
        return done.output

    return call


def test_a_run_comes_back_as_it_went(folder, run, hub, tmp_path):
    run("push", RUN, "somebody/tiny", "--private")
    assert hub.private == {"somebody/tiny": True}
    files = hub.models["somebody/tiny"]
    assert {"README.md", "model.safetensors", "recipe.json", "result.json"} <= set(files)
    assert files["README.md"].startswith(b"---\nlibrary_name: tenfold\n")
    assert not any(name.startswith(("checkpoint", "lock")) for name in files)
    run("pull", "somebody/tiny", "--runs", str(tmp_path / "pulled"))
    theirs, ours = load(tmp_path / "pulled/tiny/1"), load(folder / RUN)
    pixels = np.stack([served.noise(seed) for seed in range(8)])
    assert np.array_equal(theirs.predict_proba(pixels), ours.predict_proba(pixels))
    run("evaluate", str(tmp_path / "pulled/tiny/1"), "--data", "tiny.npz")
    # Names of recipes are no paths.
    recipe = json.loads(files["recipe.json"]) | {"name": "../../x"}
    files["recipe.json"] = json.dumps(recipe).encode()
    run("pull", "somebody/tiny", "--runs", str(tmp_path / "r"))
    assert [path.parent for path in (tmp_path / "r").glob("*/*")] == [tmp_path / "r/-..-x"]


def test_row_56_nothing_is_said_of_the_machine(folder, run, hub):
    at = str(folder / RUN)
    old = folder / RUN / "export/model.onnx"
    old.parent.mkdir()
    old.write_bytes((folder / RUN / "recipe.json").read_bytes())
    said = run("push", at, "somebody/tiny", status=2)
    assert "export/model.onnx names a folder of this machine" in said
    for arguments in (["evaluate", at], ["export", at], ["push", at, "somebody/tiny"]):
        run(*arguments)
    files = hub.models["somebody/tiny"]
    pushed = json.loads(files["provenance.json"])
    assert not {"hardware", "platform", "sessions"} & set(pushed)
    assert pushed["data"]["location"] is None
    assert pushed["data"]["checksums"]
    known = json.loads((folder / RUN / "provenance.json").read_text())
    processor = known["hardware"]["cpu"]
    places = [folder, Path(known["data"]["location"]).parent, Path.home(), Path(sys.prefix)]
    assert {"export/model.onnx", "model.safetensors", "predictions-test.npz"} <= set(files)
    for name in files:
        content = files[name] if isinstance(files[name], bytes) else files[name].encode()
        if name.endswith(".npz"):  # Which is compressed.
            content = b"".join(array.tobytes() for array in np.load(io.BytesIO(content)).values())
        for place in places:  # Of texts in arrays, too, each letter of which has four bytes.
            assert str(place).encode() not in content.replace(b"\0", b""), name
        if name.endswith((".json", ".jsonl", ".md")):
            assert b"--" not in content or name == "README.md", name
            assert processor.encode() not in content, name


def test_without_a_login_it_says_what_to_do(run, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    said = run("push", RUN, "somebody/tiny", status=2)
    assert "can't be pushed to somebody/tiny" in said
    assert "hf auth login" in said


@pytest.mark.parametrize("name", ["somebody/nothing", "no good name"])
def test_what_is_not_there_can_not_be_pulled(run, hub, name, tmp_path):
    said = run("pull", name, "--runs", str(tmp_path), status=2)
    assert f"{name} can't be pulled" in said
    assert not list(tmp_path.glob("*/*"))


def test_a_model_of_others_is_no_run(run, hub, tmp_path):
    hub.models["somebody/other"] = {"model.safetensors": b"x", "pytorch_model.bin": b"evil"}
    hub.private["somebody/other"] = False
    said = run("pull", "somebody/other", "--runs", str(tmp_path / "r"), status=2)
    assert "is no run of tenfold: it has no recipe.json" in said
    assert not any("pytorch_model.bin" in path for path in hub.requests)
