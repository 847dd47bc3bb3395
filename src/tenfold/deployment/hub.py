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

_PRIVATE = ("hardware", "platform", "sessions")
"""What a run knows of the machine that it was made on, which is nobody else's business."""


def push(run: RunFolder, name: str, *, card: str, private: bool = False) -> str:
    """Put `run` on the hub as the model `name`, such as `somebody/photos`, and return its address.

    card: the README. The login is that of `hf auth login`, or the variable HF_TOKEN. Raises
    TenfoldError where the run is not finished and where the hub does not take it.
    """
    from huggingface_hub import HfApi

    run = finished_run(run.path)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for pattern in FILES:
            for file in run.path.glob(pattern):
                copy = folder / file.relative_to(run.path)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
        write_text(folder / "README.md", card)
        _leave_out_the_machine(folder)
        api = HfApi()
        try:
            address = str(api.create_repo(name, private=private, exist_ok=True))
            api.upload_folder(repo_id=name, folder_path=folder, commit_message=run.path.parent.name)
        except Exception as error:  # Network, rights, names: the hub's errors share no base.
            raise TenfoldError(
                f"{run.path} can't be pushed to {name} ({first_line(error)}); log in with "
                "`hf auth login`, and check the name and the network."
            ) from error
    return address


def pull(name: str, runs: Path, *, revision: str | None = None) -> RunFolder:
    """The run that was pushed as `name`, as a new folder in `runs`.

    revision: a branch, tag or commit; None for the newest. Nothing in it is executed. Raises
    TenfoldError where the hub has no such model, or one that tenfold did not push.
    """
    from huggingface_hub import snapshot_download

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        try:
            snapshot_download(
                name, revision=revision, local_dir=folder, allow_patterns=[*FILES, "README.md"]
            )
        except Exception as error:  # As above.
            raise TenfoldError(
                f"{name} can't be pulled ({first_line(error)}); check the name and the network, "
                "and log in with `hf auth login` if it is private."
            ) from error
        missing = [file for file in REQUIRED if not (folder / file).is_file()]
        if missing:
            raise TenfoldError(f"{name} is no run of tenfold: it has no {missing[0]}.")
        recipe = read_json(folder / "recipe.json")
        run = create_run(runs, _folder_name(recipe))
        left_out = shutil.ignore_patterns(".cache", "result.json")
        shutil.copytree(folder, run.path, dirs_exist_ok=True, ignore=left_out)
        # Last, since it says that the run is finished.
        shutil.copyfile(folder / "result.json", run.result)
    return run


def _leave_out_the_machine(folder: Path) -> None:
    """Take out of the files in `folder` what they say of the machine, its folders and commands.

    Raises TenfoldError where any byte of them, as in files that older versions exported, says it.
    """
    model = load_model(folder / "model.safetensors")
    places = {str(Path.home()), model.recipe.data.name}
    model = replace(model, recipe=without_places(model.recipe))
    save_model(folder / "model.safetensors", model)
    write_json(folder / "recipe.json", model.recipe.to_dict())
    known = read_json(folder / "provenance.json")
    known = {key: value for key, value in known.items() if key not in _PRIVATE}
    if isinstance(known.get("data"), dict):
        places.add(str(known["data"].get("location")))
        name = Path(str(known["data"].get("name"))).name
        known["data"] |= {"name": name, "location": None, "source": None, "notes": []}
    write_json(folder / "provenance.json", known)
    result = read_json(folder / "result.json")
    for use in result.get("test_uses", ()):  # Of a command no more than what it was.
        use["purpose"] = " ".join(use["purpose"].split()[:2])
    write_json(folder / "result.json", result)
    exports = folder / "export/exports.json"
    if exports.exists():
        files = read_json(exports)
        for file in files.values():
            file["path"] = Path(file["path"]).name
        write_json(exports, files)
    told = [json.dumps(place).strip('"').encode() for place in places if Path(place).is_absolute()]
    for file in filter(Path.is_file, folder.rglob("*")):
        content = file.read_bytes()
        if any(place in content for place in told if len(place) > 4):
            raise TenfoldError(
                f"{file.relative_to(folder)} names a folder of this machine; export or evaluate "
                "the run again, and push it then."
            )


def _folder_name(recipe: object) -> str:
    """A recipe's name as that of a folder, whoever wrote it."""
    name = recipe.get("name") if isinstance(recipe, dict) else None
    kept = re.sub(r"[^\w.-]", "-", name) if isinstance(name, str) else ""
    return kept.strip(".") or "pulled"
