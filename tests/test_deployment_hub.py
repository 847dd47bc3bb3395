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


@pytest.fixture(scope="module")
def folder(made_once):
    return made_once(served.make_run)


def run(*arguments, folder):
    """In a process of its own: the hub's library reads its address when it is imported."""
    done = commands.run(arguments, folder=folder, environment=hub_stand_in.environment())
    return done.wait(), done.output


def test_a_run_comes_back_as_it_went(folder, hub, tmp_path):
    status, output = run("push", "runs/tiny/1", "somebody/tiny", "--private", folder=folder)
    assert status == 0, output
    assert hub.private == {"somebody/tiny": True}
    files = hub.models["somebody/tiny"]
    assert {"README.md", "model.safetensors", "recipe.json", "result.json"} <= set(files)
    assert files["README.md"].startswith(b"---\nlibrary_name: tenfold\n")
    assert not any(name.startswith(("checkpoint", "lock")) for name in files)
    status, output = run("pull", "somebody/tiny", "--runs", str(tmp_path / "pulled"), folder=folder)
    assert status == 0, output
    theirs, ours = load(tmp_path / "pulled/tiny/1"), load(folder / "runs/tiny/1")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    assert np.array_equal(theirs.predict_proba(pixels), ours.predict_proba(pixels))
    status, output = run(
        "evaluate", str(tmp_path / "pulled/tiny/1"), "--data", "tiny.npz", folder=folder
    )
    assert status == 0, output


def test_nothing_is_said_of_the_machine(folder, hub):
    at = str(folder / "runs/tiny/1")
    old = folder / "runs/tiny/1/export/model.onnx"
    old.parent.mkdir()
    old.write_bytes((folder / "runs/tiny/1/recipe.json").read_bytes())
    status, output = run("push", at, "somebody/tiny", folder=folder)
    assert status == 2
    assert "export/model.onnx names a folder of this machine" in output
    for arguments in (["evaluate", at], ["export", at], ["push", at, "somebody/tiny"]):
        status, output = run(*arguments, folder=folder)
        assert status == 0, output
    files = hub.models["somebody/tiny"]
    pushed = json.loads(files["provenance.json"])
    assert not {"hardware", "platform", "sessions"} & set(pushed)
    assert pushed["data"]["location"] is None
    assert pushed["data"]["checksums"]
    known = json.loads((folder / "runs/tiny/1/provenance.json").read_text())
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


def test_without_a_login_it_says_what_to_do(folder, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    status, output = run("push", "runs/tiny/1", "somebody/tiny", folder=folder)
    assert status == 2
    assert "can't be pushed to somebody/tiny" in output
    assert "hf auth login" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("name", ["somebody/nothing", "no good name"])
def test_what_is_not_there_can_not_be_pulled(folder, hub, name, tmp_path):
    status, output = run("pull", name, "--runs", str(tmp_path), folder=folder)
    assert status == 2
    assert f"{name} can't be pulled" in output
    assert not list(tmp_path.glob("*/*"))


def test_a_model_of_others_is_no_run(folder, hub, tmp_path):
    hub.models["somebody/other"] = {"model.safetensors": b"x", "pytorch_model.bin": b"evil"}
    hub.private["somebody/other"] = False
    status, output = run("pull", "somebody/other", "--runs", str(tmp_path / "r"), folder=folder)
    assert status == 2
    assert "is no run of tenfold: it has no recipe.json" in output
    assert not any("pytorch_model.bin" in path for path in hub.requests)


def test_names_of_recipes_are_no_paths(folder, hub, tmp_path):
    status, output = run("push", "runs/tiny/1", "somebody/tiny", folder=folder)
    assert status == 0, output
    files = hub.models["somebody/tiny"]
    files["recipe.json"] = json.dumps(
        {**json.loads(files["recipe.json"]), "name": "../../x"}
    ).encode()
    status, output = run("pull", "somebody/tiny", "--runs", str(tmp_path / "r"), folder=folder)
    assert status == 0, output
    assert [path.parent for path in (tmp_path / "r").glob("*/*")] == [tmp_path / "r/-..-x"]
