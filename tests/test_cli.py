"""The command line as people and machines meet it."""

import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from PIL import Image

import commands
import tenfold
from commands import events, refuse, succeed

RUN = Path("runs/tiny/1")
TRAIN = ["train", "tiny.toml", "--data", "tiny.npz", "--threads", "1"]
AGAIN = [*TRAIN, "--new", "--no-report"]
SECOND = Path("runs/tiny/2")


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A folder with a tiny recipe, tiny data and a finished run."""
    folder = tmp_path_factory.mktemp("template") / "work"
    commands.write_tiny_recipe(folder)
    commands.write_tiny_data(folder / "tiny.npz")
    (folder / "first.log").write_text(succeed([*TRAIN, "--tensorboard"], folder))
    return folder


@pytest.fixture
def folder(template, tmp_path):
    """A copy of the template."""
    shutil.copytree(template, tmp_path / "work")
    return tmp_path / "work"


def load_json(path):
    return json.loads(path.read_text())


CHEAP = """
import sys
from tenfold.cli import main

sys.argv = ["tenfold", sys.argv[1]]
try:
    main()
finally:
    print(sorted({"torch", "numpy", "PIL", "sklearn", "rich", "tenfold.data"} & set(sys.modules)))
"""


@pytest.mark.parametrize("argument", ["--help", "recipes", "--version"])
def test_what_only_says_something_waits_for_no_large_library(run_python, argument):
    done = run_python(CHEAP, argument)
    assert done.returncode == 0
    assert done.stdout.endswith("[]\n"), done.stdout.splitlines()[-1]
    assert argument != "--version" or done.stdout.startswith(f"tenfold {tenfold.__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["train", "cnn", "--set", "optimizer.lrr=1"], "did you mean 'lr'?"),
        (["train", "cnn", "--set", "training.precision=fp16", "--cpu"], "fp16"),
        (["train", "missing.toml"], "missing.toml"),
        (["train", "tiny.toml", "--data", "tiny.npz", "--resume"], "--resume"),
        (["train", "tiny.toml", "--folder", "runs/tiny/1"], "is finished"),
        (["train"], "tenfold train --time 5m"),
        ([*TRAIN, "--new", "--time", "0.2s"], "too short by"),
        (["data", "info", "nothing-here"], "nothing-here"),
        (["study", "cnn", "--grid", "optimizer.lr=0.1,abc"], "abc"),
        (["recipes", "fast-9"], "did you mean 'fast-94'?"),
        (["train", "cnn", "--data", "nowhere", "--folder", "mine"], "nowhere"),
    ],
)
def test_wrong_input_gets_one_sentence_and_status_2(folder, arguments, named):
    def files():
        return sorted(path for path in folder.rglob("*") if path.suffix != ".log")

    before = files()
    assert named in refuse(arguments, folder)
    assert [path for path in files() if path.is_file()] == [p for p in before if p.is_file()]
    assert not any((folder / name).exists() for name in ("mine", "runs/cnn/1", SECOND))


@pytest.mark.parametrize("arguments", [["--debug", "train", "cn"], ["train", "cn", "--debug"]])
def test_debug_shows_the_traceback_wherever_it_stands(folder, arguments):
    command = commands.run(arguments, folder=folder)
    assert command.wait() == 2
    assert "Traceback" in command.output


def test_a_run_in_a_pipe_prints_plain_lines(template):
    output = (template / "first.log").read_text()
    assert "\x1b" not in output
    for epoch in range(1, 5):
        assert re.search(rf"^epoch {epoch}/4  train loss \d\.\d+ .* images/s", output, re.M)
    assert re.search(r"^test: .*\d+\.\d\d % .*\(95 % interval", output, re.M)


def test_json_lines_for_machines(folder):
    lines = events([*TRAIN, "--new"], folder)
    names = [event["event"] for event in lines]
    assert names == ["started", *["epoch"] * 4, "ended", "result", "page"]
    log = (folder / SECOND / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["validation_accuracy"] for line in log] == [
        event["validation_accuracy"] for event in lines if event["event"] == "epoch"
    ]


def test_live_bars_on_a_terminal(folder):
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "tenfold", *AGAIN],
        cwd=folder,
        stdout=follower,
        stderr=follower,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"},
    )
    os.close(follower)
    shown, deadline = b"", time.monotonic() + 90
    while time.monotonic() < deadline:
        if select.select([leader], [], [], 1)[0]:
            try:
                shown += os.read(leader, 65536)
            except OSError:  # The other end is closed.
                break
    os.close(leader)
    assert process.wait(10) == 0
    text = shown.decode(errors="replace")
    words = ("\x1b[", "epochs", "steps", "loss", "images/s", "left", "validation accuracy")
    for word in (*words, "evaluating"):
        assert word in text


def test_what_a_run_leaves(template):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = template / RUN
    names = ("recipe.json", "timings.jsonl", "model.safetensors", "report.html", "figures")
    for name in (*names, "predictions-test.npz", "predictions-validation.npz", "result.json"):
        assert (run / name).exists(), name
    assert not (run / "writer.json").exists()
    provenance = load_json(run / "provenance.json")
    assert provenance["threads"] == 1
    assert provenance["data"]["splits"] == {"train": 448, "validation": 64, "test": 128}
    assert "tiny.toml" in provenance["sessions"][0]["command"]
    curves = EventAccumulator(str(run / "tensorboard"))
    curves.Reload()
    accuracies = [scalar.value for scalar in curves.Scalars("validation/accuracy")]
    log = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    assert accuracies == pytest.approx([line["validation_accuracy"] for line in log], abs=1e-6)


def test_evaluate_records_each_use_of_the_test_split(folder):
    succeed(["evaluate", str(RUN)], folder)
    succeed(["evaluate", str(RUN), "--split", "validation"], folder)
    uses = load_json(folder / RUN / "result.json")["test_uses"]
    assert [use["purpose"] for use in uses] == ["after training", "tenfold evaluate runs/tiny/1"]
    assert uses[0]["accuracy"] == uses[1]["accuracy"]


def test_classes_without_images_are_said_before_training_and_beside_the_accuracy(folder):
    commands.write_class_folders(folder / "own")
    for split, colour in (("train", "grey"), ("test", "red"), ("test", "pink")):
        (folder / "own" / split / colour).mkdir(parents=True)
        image = Image.new("RGB", (8, 8), colour)
        image.save(folder / "own" / split / colour / f"{split}.png")
    (folder / "own/train/empty").mkdir()
    few = ["--set", "data.validation_size=4", "--epochs", "1"]
    output = succeed(["train", "tiny.toml", "--data", "own", "--new", *few], folder)
    before, _, after = output.partition("epoch 1/1")
    assert "Class folders without images were left out: empty." in before
    assert "warning: The train split has no images of: pink. What only other" in before
    assert "warning: The test split has no images of: blue, grey." in before
    assert "no images of blue, grey" in after
    provenance = (folder / SECOND / "provenance.json").read_text()
    assert "The test split has no images of: blue, grey." in provenance
    scores = load_json(folder / SECOND / "result.json")["splits"]["test"]["per_class"]
    assert [score["name"] for score in scores if score["f1"] is None] == ["blue", "grey"]
    assert "no images of blue and grey" in (folder / SECOND / "report.html").read_text()


def test_short_forms_are_those_of_set_and_no_test_leaves_the_split_alone(folder):
    short = ["--epochs", "1", "--lr", "0.01", "--batch-size", "64", "--device", "cpu"]
    succeed([*AGAIN, "--no-test", *short], folder)
    recipe = load_json(folder / SECOND / "recipe.json")
    assert (recipe["training"]["epochs"], recipe["training"]["batch_size"]) == (1, 64)
    assert recipe["optimizer"]["lr"] == 0.01
    assert load_json(folder / SECOND / "provenance.json")["device"] == "cpu"
    result = load_json(folder / SECOND / "result.json")
    assert (list(result["splits"]), result["test_uses"]) == (["validation"], [])
    assert not (folder / SECOND / "predictions-test.npz").exists()


def test_the_trained_model_in_python(template):
    from tenfold.evaluation.predictions import load_predictions

    model = tenfold.load(template / RUN)
    data = tenfold.load_data(template / "tiny.npz")
    saved = load_predictions(template / RUN / "predictions-test.npz")
    assert model.predict(data.test.pixels) == [
        model.class_names[index] for index in saved.logits.argmax(axis=1)
    ]
    assert model.predict_proba(data.test.pixels[:5]).sum(axis=1) == pytest.approx([1] * 5)


def test_time_limit_ends_training_early_and_whole(folder):
    changes = ["--epochs", "5000", "--set", "training.time_limit_seconds=1"]
    succeed([*AGAIN, *changes], folder)
    result = load_json(folder / SECOND / "result.json")
    assert result["training"]["ended"] == "time limit"
    assert 0 < result["training"]["epochs"] < 5000
    assert "test" in result["splits"]


def test_digits_are_not_said_to_be_in_the_cache(tmp_path):
    assert "cache" not in succeed(["data", "info", "digits"], tmp_path)


def test_recipes_and_models_have_lines_for_machines(tmp_path):
    shipped = {line["name"]: line for line in events(["recipes"], tmp_path)}
    assert {"ann", "cnn"} <= set(shipped)
    assert shipped["cnn"]["model"]["name"] == "cnn"
    assert shipped["cnn"]["measured"][0]["accuracy"]["median"] == 0.809
    assert shipped["vgg"]["measured"] == []
    assert "published" in shipped["vgg"]["text"]
    counts = {line["name"]: line["num_parameters"] for line in events(["models"], tmp_path)}
    assert counts["cnn"] == shipped["cnn"]["num_parameters"] == 357_162


def test_recipes_are_in_groups_and_fit_a_terminal(tmp_path):
    listed = succeed(["recipes"], tmp_path)
    assert max(map(len, listed.splitlines())) <= 100
    groups = re.findall(r"^\n(.+)$", listed.partition("\n±")[0], re.M)
    assert groups == ["start here", "fast", "edge", "published", "transfer", "GPU"]
    row = re.search(r"^cnn-10k-tuned +357,162 +80.0 % ± 0.7 \(3\) +5 min 24 s +(.)$", listed, re.M)
    assert re.search(r"^vgg +14,724,042 +– +–$", listed, re.M)
    assert row
    assert f"  {row[1]}  AMD EPYC with AVX-512, 2 cores, 1 thread a run" in listed
    assert "--set data.train_size=10000`" in listed


def test_a_shown_recipe_is_one_to_start_from(tmp_path):
    shown = succeed(["recipes", "transfer-lite0"], tmp_path)
    assert tomllib.loads(shown)["model"]["backbone"] == "tf_efficientnet_lite0"
    assert "#   test accuracy  94.5 % (94.1 to 94.9), one seed, 95 % interval" in shown
    schema = json.loads(succeed(["recipes", "--schema"], tmp_path))
    assert schema["properties"]["seed"]["minimum"] == 0


def test_an_export_to_an_npz_file_needs_no_format(folder):
    succeed(["data", "export", "tiny.npz", "copy.npz"], folder)
    succeed(["data", "export", "tiny.npz", "copy", "--format", "folder"], folder)
    assert (folder / "copy.npz").is_file()
    assert (folder / "copy").is_dir()


def test_garbage_is_looked_for_again_after_imports(run_python):
    found = run_python(
        "import atexit, gc\n"
        "from tenfold.cli.train import quick_imports\n"
        "atexit.register(lambda: print(gc.get_freeze_count()))\n"
        "with quick_imports():\n"
        "    print(gc.isenabled())\n"
        "print(gc.isenabled(), gc.get_freeze_count() > 0)"
    )
    # And in the end all of it is let go, or extension modules would complain of leaks.
    assert found.stdout.split() == ["False", "True", "True", "0"], found.stderr


def test_help_is_whole_and_in_groups_and_completion_is_offered(tmp_path):
    short, whole = (succeed([flag], tmp_path) for flag in ("-h", "--help"))
    assert short == whole
    groups = ["Start here", "Train and compare", "Look at runs", "Deploy"]
    assert re.findall(r"^(\w[\w ]+):$", short, re.M)[1:] == groups
    assert "..." not in re.sub(r"\[ARGS\]\.\.\.", "", short)
    assert "--install-completion" in short
    assert "Commands:" in succeed(["data", "-h"], tmp_path)
    for words, completed in {
        "tenfold stu": ["study", "studies"],
        "tenfold report run --out new/page.html --fu": ["--full"],
    }.items():
        shell = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        shell["_TENFOLD_COMPLETE"] = "complete_bash"
        assert commands.run([], folder=tmp_path, environment=shell).output.split() == completed
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["train", "cnn", "--set", "lr=0.1"], "did you mean 'optimizer.lr'?"),
        (["train", "tiny.toml", "--data", "tiny.npz", "--device", "mps"], "no mps device"),
        (["train", "cnn", "--device", "gpu"], "must be cpu, cuda, cuda:1 or mps"),
        (
            ["train", "transfer-lite0", "--set", 'stages=[{trains="head", lr=0.1}]', "--lr", "0.2"],
            "has lr of its own",
        ),
        (["train", "cnn", "--track", "tensorbord"], "did you mean 'tensorboard'?"),
        (["train", "cnn", "--seed", "one"], "--seed"),
        (["trian"], "train"),
    ],
)
def test_errors_are_objects_with_json(folder, arguments, named):
    command = commands.run([*arguments, "--json"], folder=folder)
    assert command.wait() == 2, command.output
    (error,) = map(json.loads, command.output.splitlines())
    assert (error["event"], error["status"]) == ("error", 2)
    assert named in error["message"]


def test_runs_are_listed_sorted_compared_and_deleted(folder):
    def listed(*arguments):
        rows = events(["runs", *arguments], folder)
        return [row["run"] for row in rows if row["event"] == "run"]

    poor = [*TRAIN, "--no-report", "--epochs", "1", "--lr", "0.0001", "--folder", "runs/poor/1"]
    succeed(poor, folder)
    (folder / "runs/begun/1").mkdir(parents=True)
    shutil.copy(folder / RUN / "recipe.json", folder / "runs/begun/1")
    assert listed() == ["runs/poor/1", "runs/tiny/1", "runs/begun/1"]
    assert listed("--sort", "accuracy") == ["runs/tiny/1", "runs/poor/1", "runs/begun/1"]
    assert listed("--state", "unfinished") == ["runs/begun/1"]
    assert len(listed("--recipe", "tiny", "--data", "tiny")) == 2
    assert listed("--data", "cifar10") == []
    succeed(["runs", "--state", "finished", "--compare"], folder)
    assert (folder / "report.html").exists()
    assert "add --yes" in refuse(["runs", "runs/begun/1", "--delete"], folder)
    assert (folder / "runs/begun/1").exists()
    succeed(["runs", "runs/begun/1", "--delete", "--yes"], folder)
    assert listed() == ["runs/poor/1", "runs/tiny/1"]
