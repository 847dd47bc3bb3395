"""Runs on the Hugging Face hub: pushed with the usual login, pulled by their name."""

import json
import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from tenfold.errors import TenfoldError, first_line
from tenfold.evaluation.trained import load_model, save_model
from tenfold.files import read_json, write_json, write_text
from tenfold.recipe import without_places
from tenfold.run import RunFolder, create_run, finished_run

FILES = (
    "model.safetensors", "recipe.json", "provenance.json", "result.json", "metrics.jsonl",
    "timings.jsonl", "predictions-*.npz", "export/*.onnx", "export/exports.json", "code/*.py",
)  # fmt: skip
"""Of a run folder that are pushed and pulled; code isn't imported without `--trust-code`. The page
is not among them: it speaks of the machine, and is written anew from these."""

REQUIRED = ("model.safetensors", "recipe.json", "result.json")


def push(run: RunFolder, name: str, *, card: str, private: bool = False) -> str:
    """Put `run` on the hub as the model `name`, such as `somebody/photos`, and return its address.

    card: the README. The login is that of `hf auth login`, or the variable HF_TOKEN. Raises
    TenfoldError where the run is not finished and where the hub does not take it.
    """
    from huggingface_hub import HfApi

    run = finished_run(run.path)
    with tempfile.TemporaryDirectory() as place:
        folder, api = Path(place), HfApi()
        for file in (file for pattern in FILES for file in run.path.glob(pattern)):
            copy = folder / file.relative_to(run.path)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        write_text(folder / "README.md", card)
        _leave_out_the_machine(folder)
        try:
            address = str(api.create_repo(name, private=private, exist_ok=True))
            api.upload_folder(repo_id=name, folder_path=folder, commit_message=run.path.parent.name)
        except Exception as error:  # Network, rights, names: the hub's errors share no base.
            raise _refused(f"{run.path} can't be pushed to {name}", error) from error
    return address


def pull(name: str, runs: Path, *, revision: str | None = None) -> RunFolder:
    """The run that was pushed as `name`, as a new folder in `runs`.

    revision: a branch, tag or commit; None for the newest. Nothing in it is executed. Raises
    TenfoldError where the hub has no such model, or one that tenfold did not push.
    """
    from huggingface_hub import snapshot_download

    with tempfile.TemporaryDirectory() as place:
        folder, wanted = Path(place), [*FILES, "README.md"]
        try:
            snapshot_download(name, revision=revision, local_dir=folder, allow_patterns=wanted)
        except Exception as error:  # As above.
            raise _refused(f"{name} can't be pulled", error) from error
        for file in REQUIRED:
            if not (folder / file).is_file():
                raise TenfoldError(f"{name} is no run of tenfold: it has no {file}.")
        recipe = read_json(folder / "recipe.json")
        named = str(recipe.get("name")) if isinstance(recipe, dict) else ""
        # As the name of a folder, whoever wrote it.
        run = create_run(runs, re.sub(r"[^\w.-]", "-", named).strip(".") or "pulled")
        left_out = shutil.ignore_patterns(".cache", "result.json")
        shutil.copytree(folder, run.path, dirs_exist_ok=True, ignore=left_out)
        # Last, since it says that the run is finished.
        shutil.copyfile(folder / "result.json", run.result)
    return run


def _refused(what: str, error: Exception) -> TenfoldError:
    remedy = "check the name and the network, and log in with `hf auth login`"
    return TenfoldError(f"{what} ({first_line(error)}); {remedy}.")


def _leave_out_the_machine(folder: Path) -> None:
    """Take out of the files in `folder` what they say of the machine, its folders and commands.

    Raises TenfoldError where any byte of them, as in files that older versions exported, says it.
    """
    model, known = load_model(folder / "model.safetensors"), read_json(folder / "provenance.json")
    data = known.get("data") or {}
    places = {str(Path.home()), model.recipe.data.name, str(data.get("location"))}
    model = replace(model, recipe=without_places(model.recipe))
    save_model(folder / "model.safetensors", model)
    write_json(folder / "recipe.json", model.recipe.to_dict())
    data |= {"name": Path(str(data.get("name"))).name, "location": None, "source": None}
    left_out = dict.fromkeys(("hardware", "platform", "sessions"))
    known = {key: value for key, value in known.items() if key not in left_out}
    write_json(folder / "provenance.json", known | {"data": data | {"notes": []}})
    result = read_json(folder / "result.json")
    for use in result.get("test_uses", ()):  # Of a command no more than what it was.
        use["purpose"] = " ".join(use["purpose"].split()[:2])
    write_json(folder / "result.json", result)
    named = [json.dumps(place).strip('"').encode() for place in places if Path(place).is_absolute()]
    for file in filter(Path.is_file, folder.rglob("*")):
        content = file.read_bytes()
        if any(place in content for place in named if len(place) > 4):
            raise TenfoldError(
                f"{file.relative_to(folder)} names a folder of this machine; export or evaluate "
                "the run again, and push it then."
            )
