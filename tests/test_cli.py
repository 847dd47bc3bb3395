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

RUN = Path("runs/tiny/1")
TRAIN = ["train", "tiny.toml", "--data", "tiny.npz", "--threads", "1"]


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A folder with a tiny recipe, tiny data and a finished run."""
    folder = tmp_path_factory.mktemp("template") / "work"
    commands.write_tiny_recipe(folder)
    commands.write_tiny_data(folder / "tiny.npz")
    command = commands.start([*TRAIN, "--tensorboard"], folder=folder)
    assert command.wait() == 0, command.output
    (folder / "first.log").write_text(command.output)
    return folder


@pytest.fixture
def folder(template, tmp_path):
    """A copy of the template."""
    shutil.copytree(template, tmp_path / "work")
    return tmp_path / "work"


HELPING = """
import sys
from tenfold.cli import main

sys.argv = ["tenfold", "--help"]
try:
    main()
finally:
    print(sorted({"torch", "numpy", "PIL", "sklearn", "rich", "tenfold.data"} & set(sys.modules)))
"""


def test_help_waits_for_no_large_library(run_python):
    done = run_python(HELPING)
    assert done.returncode == 0
    assert done.stdout.endswith("[]\n"), done.stdout.splitlines()[-1]
    for command in ("demo", "data", "train", "evaluate", "report", "study", "recipes", "models"):
        assert re.search(rf"^\s+{command}\b", done.stdout, re.M)


def test_version(tmp_path):
    assert (
        commands.run_cold(["--version"], folder=tmp_path).stdout
        == f"tenfold {tenfold.__version__}\n"
    )


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["train", "cn"], "did you mean 'cnn'?"),
        (["train", "cnn", "--set", "optimizer.lrr=1"], "did you mean 'lr'?"),
        (["train", "cnn", "--data", "/no/such/folder"], "/no/such/folder"),
        (["train", "cnn", "--time", "soon"], "--time 'soon'"),
        (["train", "cnn", "--set", "training.precision=fp16", "--cpu"], "fp16"),
        (["train", "missing.toml"], "missing.toml"),
        (["train", "tiny.toml", "--data", "tiny.npz", "--resume"], "--resume"),
        (["train", "tiny.toml", "--folder", "runs/tiny/1"], "is finished"),
        (["evaluate", "runs/tiny/9"], "runs/tiny/9"),
        (["evaluate", "runs/tiny/1", "--split", "tset"], "tset"),
        (["report", "nowhere"], "nowhere"),
        (["data", "info", "nothing-here"], "nothing-here"),
        (["study", "cnn", "--grid", "optimizer.lr"], "optimizer.lr"),
        (["study", "cnn", "--grid", "optimizer.lr=0.1,abc"], "abc"),
    ],
)
def test_wrong_input_gets_one_sentence_and_status_2(folder, arguments, named):
    before = sorted((folder / "runs").rglob("*"))
    command = commands.start(arguments, folder=folder)
    assert command.wait() == 2, command.output
    errors = [line for line in command.output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, command.output
    assert named in errors[0]
    assert "Traceback" not in command.output
    runs = sorted((folder / "runs").rglob("*"))
    assert [path for path in runs if path.is_file()] == [p for p in before if p.is_file()]
    assert not list((folder / "runs").glob("cnn/*"))


@pytest.mark.parametrize("there", [True, False])
def test_a_run_that_is_refused_leaves_a_folder_of_the_users_own(folder, there):
    if there:
        (folder / "mine").mkdir()
    refused = ["train", "cnn", "--data", "/no/such/folder", "--folder", "mine"]
    assert commands.run(refused, folder=folder).wait() == 2
    assert (folder / "mine").exists() == there
    assert not list(folder.glob("mine/*"))


def test_debug_shows_the_traceback(folder):
    command = commands.start(["--debug", "train", "cn"], folder=folder)
    assert command.wait() == 2
    assert "Traceback" in command.output


def test_a_run_in_a_pipe_prints_plain_lines(template):
    output = (template / "first.log").read_text()
    assert "\x1b" not in output
    for epoch in range(1, 5):
        assert re.search(rf"^epoch {epoch}/4  train loss \d\.\d+ .* images/s", output, re.M)
    assert re.search(r"^test: \d+\.\d\d % of 128 pictures right \(95 % interval", output, re.M)


def test_json_lines_for_machines(folder):
    command = commands.start([*TRAIN, "--new", "--json"], folder=folder)
    assert command.wait() == 0, command.output
    events = [json.loads(line) for line in command.output.splitlines()]
    names = [event["event"] for event in events]
    assert names == ["started", *["epoch"] * 4, "ended", "result", "page"]
    log = (folder / "runs/tiny/2/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["validation_accuracy"] for line in log] == [
        event["validation_accuracy"] for event in events if event["event"] == "epoch"
    ]


def test_live_bars_on_a_terminal(folder):
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    process = subprocess.Popen(
        [sys.executable, "-m", "tenfold", *TRAIN, "--new", "--no-report"],
        cwd=folder,
        stdout=follower,
        stderr=follower,
        env=environment,
    )
    os.close(follower)
    shown = b""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        if select.select([leader], [], [], 1)[0]:
            try:
                shown += os.read(leader, 65536)
            except OSError:  # The other end is closed.
                break
    os.close(leader)
    assert process.wait(10) == 0
    text = shown.decode(errors="replace")
    assert "\x1b[" in text
    for word in (
        "epochs",
        "steps",
        "loss",
        "images/s",
        "left",
        "validation accuracy",
        "evaluating",
    ):
        assert word in text


def test_what_a_run_leaves(template):
    run = template / RUN
    for name in (
        "recipe.json",
        "provenance.json",
        "metrics.jsonl",
        "timings.jsonl",
        "model.safetensors",
        "predictions-test.npz",
        "predictions-validation.npz",
        "result.json",
        "report.html",
        "figures",
    ):
        assert (run / name).exists(), name
    assert list((run / "tensorboard").glob("events.out.*"))
    assert not (run / "writer.json").exists()
    provenance = json.loads((run / "provenance.json").read_text())
    assert provenance["threads"] == 1
    assert provenance["data"]["splits"] == {"train": 448, "validation": 64, "test": 128}
    assert "tiny.toml" in provenance["sessions"][0]["command"]


def test_tensorboard_has_the_curves(template):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(template / RUN / "tensorboard"))
    events.Reload()
    accuracies = [scalar.value for scalar in events.Scalars("validation/accuracy")]
    log = (template / RUN / "metrics.jsonl").read_text().splitlines()
    expected = [json.loads(line)["validation_accuracy"] for line in log]
    assert accuracies == pytest.approx(expected, abs=1e-6)


def test_evaluate_records_each_use_of_the_test_split(folder):
    assert commands.run(["evaluate", str(RUN)], folder=folder).wait() == 0
    assert commands.run(["evaluate", str(RUN), "--split", "validation"], folder=folder).wait() == 0
    uses = json.loads((folder / RUN / "result.json").read_text())["test_uses"]
    assert [use["purpose"] for use in uses] == ["after training", "tenfold evaluate runs/tiny/1"]
    assert uses[0]["accuracy"] == uses[1]["accuracy"]


def test_classes_without_images_are_said_before_training_and_beside_the_accuracy(folder):
    commands.write_class_folders(folder / "own")
    for split, colour in (("train", "grey"), ("test", "red"), ("test", "pink")):
        (folder / "own" / split / colour).mkdir(parents=True)
        picture = Image.new("RGB", (8, 8), colour)
        picture.save(folder / "own" / split / colour / f"{split}.png")
    (folder / "own/train/empty").mkdir()
    few = ["--set", "data.validation_size=4", "--set", "training.epochs=1"]
    command = commands.start(["train", "tiny.toml", "--data", "own", "--new", *few], folder=folder)
    assert command.wait() == 0, command.output
    before, _, after = command.output.partition("epoch 1/1")
    assert "Class folders without images were left out: empty." in before
    assert "warning: The train split has no images of: pink. What only other" in before
    assert "warning: The test split has no images of: blue, grey." in before
    assert "test: no images of blue, grey" in after
    run = folder / "runs/tiny/2"
    assert "The test split has no images of: blue, grey." in (run / "provenance.json").read_text()
    scores = json.loads((run / "result.json").read_text())["splits"]["test"]["per_class"]
    assert [score["name"] for score in scores if score["f1"] is None] == ["blue", "grey"]
    page = (run / "report.html").read_text()
    assert "There were no images of blue and grey to try it on." in page


def test_no_test_leaves_the_split_alone(folder):
    command = commands.start([*TRAIN, "--new", "--no-test", "--no-report"], folder=folder)
    assert command.wait() == 0, command.output
    result = json.loads((folder / "runs/tiny/2/result.json").read_text())
    assert list(result["splits"]) == ["validation"]
    assert result["test_uses"] == []
    assert not (folder / "runs/tiny/2/predictions-test.npz").exists()


def test_a_report_of_two_runs(folder):
    assert (
        commands.run([*TRAIN, "--new", "--no-report", "--set", "seed=1"], folder=folder).wait() == 0
    )
    arguments = ["report", "runs/tiny/1", "runs/tiny/2", "--out", "both.html"]
    assert commands.run(arguments, folder=folder).wait() == 0
    assert "tiny" in (folder / "both.html").read_text()


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
    arguments = [*TRAIN, "--new", "--no-report", "--set", "training.epochs=5000"]
    changes = ["--set", "training.time_limit_seconds=1"]
    command = commands.start([*arguments, *changes], folder=folder)
    assert command.wait() == 0, command.output
    result = json.loads((folder / "runs/tiny/2/result.json").read_text())
    assert result["training"]["ended"] == "time limit"
    assert 0 < result["training"]["epochs"] < 5000
    assert "test" in result["splits"]


def test_too_little_time_is_refused_with_what_is_missing(folder):
    command = commands.start([*TRAIN, "--new", "--time", "0.2s"], folder=folder)
    assert command.wait() == 2
    assert "too short by" in command.output
    assert not (folder / "runs/tiny/2").exists()
    assert not (folder / "runs/tiny-in-0.2s").exists()


def test_a_recipe_or_a_time_must_be_given(folder):
    command = commands.start(["train"], folder=folder)
    assert command.wait() == 2
    assert "tenfold train --time 5m" in command.output


def test_a_known_data_set_is_checked_again_and_its_sources_are_listed(tmp_path):
    described = commands.run(["data", "info", "digits"], folder=tmp_path)
    assert described.wait() == 0, described.output
    assert "checked again" in described.output
    assert "needs no network" in described.output


def test_a_run_with_trivialaugment(tmp_path):
    changes = ["augmentation.trivialaugment=true", "training.epochs=1", "training.min_steps=0"]
    changes += ["model.widths=[8]", "model.dense=[16]"]
    options = [part for change in changes for part in ("--set", change)]
    run = commands.run(
        ["train", "cnn", "--data", "digits", "--no-report", *options], folder=tmp_path
    )
    assert run.wait() == 0, run.output


def test_recipes_and_models_are_listed(tmp_path):
    recipes = commands.run(["recipes", "--json"], folder=tmp_path)
    shipped = {line["name"]: line for line in map(json.loads, recipes.output.splitlines())}
    assert {"ann", "cnn"} <= set(shipped)
    assert shipped["cnn"]["model"]["name"] == "cnn"
    assert shipped["cnn"]["num_parameters"] == 357_162
    assert shipped["cnn"]["measured"][0]["accuracy"]["median"] == 0.809
    assert shipped["vgg"]["measured"] == []
    assert "published" in shipped["vgg"]["text"]
    models = commands.run(["models", "--json"], folder=tmp_path)
    counts = {m["name"]: m["num_parameters"] for m in map(json.loads, models.output.splitlines())}
    assert counts["cnn"] == 357_162


def test_recipes_fit_a_terminal_and_need_no_torch(run_python, tmp_path):
    listed = commands.run(["recipes"], folder=tmp_path)
    assert listed.wait() == 0, listed.output
    assert max(map(len, listed.output.splitlines())) <= 100
    assert re.search(
        r"^cnn-10k-tuned +357,162 +80.0 % ± 0.7 \(3\) +5 min 24 s +C$", listed.output, re.M
    )
    assert re.search(r"^vgg +14,724,042 +– +–$", listed.output, re.M)
    assert "  C  AMD EPYC with AVX-512, 2 cores, 1 thread a run" in listed.output
    script = """
import sys
from tenfold.cli.app import main
sys.argv = ["tenfold", "recipes"]
try:
    main()
finally:
    assert not {"torch", "rich", "numpy"} & set(sys.modules)
"""
    done = run_python(script)
    assert done.returncode == 0, done.stderr


def test_a_shown_recipe_is_one_to_start_from(tmp_path):
    shown = commands.run(["recipes", "transfer-lite0"], folder=tmp_path)
    assert shown.wait() == 0, shown.output
    assert tomllib.loads(shown.output)["model"]["backbone"] == "tf_efficientnet_lite0"
    assert "#   test accuracy  94.5 % (94.1 to 94.9), one seed, 95 % interval" in shown.output
    schema = json.loads(commands.run(["recipes", "--schema"], folder=tmp_path).output)
    assert schema["properties"]["seed"]["minimum"] == 0
    wrong = commands.run(["recipes", "fast-9"], folder=tmp_path)
    assert wrong.wait() == 2
    assert "did you mean 'fast-94'?" in wrong.output


def test_debug_may_stand_anywhere(folder):
    command = commands.start(["train", "cn", "--debug"], folder=folder)
    assert command.wait() == 2
    assert "Traceback" in command.output


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_to_a_full_disk_is_a_sentence(folder):
    script = f"{sys.executable} -m tenfold recipes > /dev/full"
    done = subprocess.run(script, shell=True, cwd=folder, capture_output=True, text=True)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


def test_an_export_to_an_npz_file_needs_no_format(folder):
    assert commands.run(["data", "export", "tiny.npz", "copy.npz"], folder=folder).wait() == 0
    assert (folder / "copy.npz").is_file()
    wanted = ["data", "export", "tiny.npz", "copy", "--format", "folder"]
    assert commands.run(wanted, folder=folder).wait() == 0
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
    short, whole = (commands.run([flag], folder=tmp_path).output for flag in ("-h", "--help"))
    assert short == whole
    assert re.findall(r"^(\w[\w ]+):$", short, re.M)[1:] == [
        "Start here", "Train and compare", "Look at runs", "Deploy",
    ]  # fmt: skip
    assert "..." not in re.sub(r"\[ARGS\]\.\.\.", "", short)
    assert "--install-completion" in short
    assert "Commands:" in commands.run(["data", "-h"], folder=tmp_path).output
    shell = {"_TENFOLD_COMPLETE": "complete_bash", "COMP_WORDS": "tenfold stu", "COMP_CWORD": "1"}
    found = commands.run([], folder=tmp_path, environment=shell).output
    assert found.split() == ["study", "studies"]


def test_short_forms_are_those_of_set(folder):
    short = ["--epochs", "1", "--lr", "0.01", "--batch-size", "64", "--device", "cpu"]
    command = commands.run([*TRAIN, "--new", "--no-report", *short], folder=folder)
    assert command.wait() == 0, command.output
    recipe = json.loads((folder / "runs/tiny/2/recipe.json").read_text())
    assert (recipe["training"]["epochs"], recipe["training"]["batch_size"]) == (1, 64)
    assert recipe["optimizer"]["lr"] == 0.01
    assert json.loads((folder / "runs/tiny/2/provenance.json").read_text())["device"] == "cpu"


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


def listed(folder, *arguments):
    command = commands.run(["runs", *arguments, "--json"], folder=folder)
    assert command.wait() == 0, command.output
    rows = [json.loads(line) for line in command.output.splitlines()]
    return [row["run"] for row in rows if row["event"] == "run"]


def test_runs_are_listed_sorted_compared_and_deleted(folder):
    poor = [*TRAIN, "--no-report", "--epochs", "1", "--lr", "0.0001", "--folder", "runs/poor/1"]
    assert commands.run(poor, folder=folder).wait() == 0
    (folder / "runs/begun/1").mkdir(parents=True)
    shutil.copy(folder / RUN / "recipe.json", folder / "runs/begun/1")
    assert listed(folder) == ["runs/poor/1", "runs/tiny/1", "runs/begun/1"]
    assert listed(folder, "--sort", "accuracy") == ["runs/tiny/1", "runs/poor/1", "runs/begun/1"]
    assert listed(folder, "--state", "unfinished") == ["runs/begun/1"]
    assert len(listed(folder, "--recipe", "tiny", "--data", "tiny")) == 2
    assert listed(folder, "--data", "cifar10") == []
    compared = commands.run(["runs", "--state", "finished", "--compare"], folder=folder)
    assert compared.wait() == 0, compared.output
    assert (folder / "report.html").exists()
    assert commands.run(["runs", "runs/begun/1", "--delete"], folder=folder).wait() == 2
    assert (folder / "runs/begun/1").exists()
    done = commands.run(["runs", "runs/begun/1", "--delete", "--yes"], folder=folder)
    assert done.wait() == 0, done.output
    assert listed(folder) == ["runs/poor/1", "runs/tiny/1"]


def test_recipes_are_in_groups(tmp_path):
    found = commands.run(["recipes"], folder=tmp_path).output
    groups = re.findall(r"^\n(.+)$", found.partition("\n±")[0], re.M)
    assert groups == ["start here", "fast", "edge", "published", "transfer", "GPU"]
