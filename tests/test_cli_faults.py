"""Commands given what nobody expects: wrong arguments, odd names, closed streams, no folder."""

import contextlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import typer

import commands
from tenfold.cli import main

CHECKED = """
import json, os, sys
from tenfold.cli import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["tenfold", *arguments]
    try:
        main()
    except SystemExit as ended:
        print(ended.code)
    assert "torch" not in sys.modules, arguments
    assert "matplotlib" not in sys.modules, arguments
"""
RUN = "runs/tiny/1"
WRONG = [
    (["evaluate", RUN, "--split", "tset"], "'tset' is not one of 'test', 'validation', 'train'"),
    (["evaluate", RUN, "--data", "nowhere"], "nowhere is neither a path"),
    (["evaluate", "runs/tiny/2"], "no run folder runs/tiny/2"),
    (["predict", RUN, "none.png"], "no image or folder none.png"),
    (["predict", "runs/tiny/2", "here.png"], "no run folder runs/tiny/2"),
    (["predict", "none.onnx", "here.png"], "There is no model none.onnx"),
    (["predict", RUN, "--split", "tset"], "'tset' is not one of 'test', 'validation', 'train'"),
    (["predict", RUN, "--split", "test", "--data", "nowhere"], "nowhere is neither a path"),
    (["audit", RUN, "errors", "calibrate"], "no part 'calibrate'"),
    (["audit", RUN, "--strange", "nowhere"], "nowhere is neither a path"),
    (["audit", RUN, "--cifar-10-c", "no-folder"], "'no-folder' does not exist"),
    (["explain", RUN, "test/1", "none.png"], "no image or folder none.png"),
    (["explain", RUN, "--out", "runs"], "runs is a folder"),
    (["train", "cnn", "--data", "nowhere"], "nowhere is neither a path"),
    (["train", "cn", "--time", "5m"], "did you mean 'cnn'?"),
    (["train", "--time", "soon"], "--time 'soon'"),
    (["bench", "cn", "cnn"], "did you mean 'cnn'?"),
    (["report", RUN, "runs/tiny/2"], "no run folder runs/tiny/2"),
    (["report", RUN, "--out", "runs"], "runs is a folder"),
    (["serve", "none.onnx"], "no run or model none.onnx"),
    (["serve", RUN], "was not exported yet"),
    (["serve", "runs"], "runs is not a run folder"),
    (["predict", RUN, "labels.csv"], "labels.csv is a table of labels"),
    (["export", "runs/tiny/2"], "no run folder runs/tiny/2"),
    (["export", RUN, "--out", "runs"], "runs is a folder"),
    (["export", RUN, "--bundle", "runs"], "runs exists already"),
    (["heads", "transfer-lite0", "--data", "nowhere"], "nowhere is neither a path"),
    (["tune", "cnn", "--data", "nowhere"], "nowhere is neither a path"),
    (["study", "cnn", "--data", "nowhere"], "nowhere is neither a path"),
]


def test_arguments_are_checked_before_torch_is_imported_or_data_read(tmp_path, run_python):
    run = tmp_path / RUN
    run.mkdir(parents=True)
    for name in ("recipe.json", "result.json"):
        (run / name).write_text("{}")
    for name in ("here.png", "labels.csv"):
        (tmp_path / name).touch()
    logits, ids = np.zeros((1, 2)), np.array(["test/1"])
    names, labels = np.array(["a", "b"]), np.zeros(1, np.int64)
    np.savez(run / "predictions-test.npz", logits=logits, labels=labels, ids=ids, class_names=names)
    with contextlib.chdir(tmp_path):
        done = run_python(CHECKED, json.dumps([arguments for arguments, _ in WRONG]))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["2"] * len(WRONG)
    errors = done.stderr.splitlines()
    for (arguments, sentence), error in zip(WRONG, errors, strict=True):
        assert error.startswith("error: "), arguments
        assert sentence in error, arguments


@pytest.fixture
def tenfold(tmp_path, monkeypatch, capsys):
    """A function that runs a command in this process, in `tmp_path`: its status and its lines."""
    monkeypatch.chdir(tmp_path)
    logger = logging.getLogger("tenfold")
    before = logger.handlers, logger.level, logger.propagate

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["tenfold", *arguments])
        status = 0
        try:
            main()
        except SystemExit as ended:
            status = ended.code
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    yield call
    logger.handlers, logger.level, logger.propagate = before


def odd(name):
    """A name with bytes that are not UTF-8."""
    return os.fsdecode(name)


def odd_pictures(root):
    """Two class folders and a test split, with bytes that are not UTF-8 in all names."""
    commands.write_class_folders(root, num_images=40)
    for path in sorted(root.glob("train/red/*.png"))[:2]:
        path.rename(path.with_name(odd(b"x\xff") + path.name))
    (root / "train/blue").rename(root / "train" / odd(b"bl\xff"))
    shutil.copytree(root / "train", root / "test")
    return str(root)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere all names are Unicode")
def test_names_that_are_not_utf_8_work_in_every_command(tenfold, tmp_path):
    data, runs = odd_pictures(tmp_path / odd(b"d\xff\xe9")), odd(b"runs\xfe")
    commands.write_tiny_recipe(tmp_path)
    few = ["--set", "training.epochs=1", "--set", "data.validation_size=0.2", "--threads", "1"]
    trained = ["train", "tiny.toml", "--data", data, "--runs", runs, *few]
    run = f"{runs}/tiny/1"
    said = []
    for arguments in (
        ["data", "eda", data, "--out", odd(b"eda\xff")],
        trained,
        ["report", run],
        ["predict", run, data, "--csv", odd(b"p\xff.csv")],
        ["predict", run, "--split", "test", "--csv", "s.csv", "--labels", "l.csv"],
        ["score", "s.csv", "l.csv"],
    ):
        status, output = tenfold(*arguments)
        assert status == 0, (arguments, output)
        said.append(output)
    recipe = json.loads((tmp_path / run / "recipe.json").read_text())
    assert recipe["data"]["name"] == data  # as it will be opened again
    page = (tmp_path / run / "report.html").read_text(encoding="utf-8")
    assert "bl\\xff" in page or "bl\\udcff" in page
    provenance = json.loads((tmp_path / run / "provenance.json").read_text())
    assert provenance["arithmetic"] == "float32"
    # And one of something is never "1 epochs".
    wrong = r"(?<![\d.,/])1 (pictures|epochs|steps|threads|predictions|runs|seeds|parameters)\b"
    assert not re.search(wrong, "".join(said))
    status, output = tenfold(*trained, "--new", "--tensorboard")
    assert status == 0
    assert "tensorboard failed, and training goes on without it" in output


def test_ctrl_c_is_said_and_the_end_of_a_file_is_none(tenfold, monkeypatch):
    def ending(error):
        def load(*arguments, **options):
            raise error

        return load

    monkeypatch.setattr("tenfold.data.load", ending(KeyboardInterrupt))
    assert tenfold("data", "info", "digits") == (130, "Stopped.\n")
    monkeypatch.setattr("tenfold.data.load", ending(EOFError("a damaged file")))
    with pytest.raises(typer.Abort) as found:
        tenfold("data", "info", "digits")
    assert isinstance(found.value.__cause__, EOFError)


EARLY = """
import sys
class Interrupting:
    def find_spec(self, name, *more):
        if name == "tenfold.cli.app":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
from tenfold.cli import main
main()
"""


def test_ctrl_c_while_it_starts_shows_no_traceback(run_python):
    done = run_python(EARLY)
    assert (done.returncode, done.stdout + done.stderr) == (130, "")


def test_what_only_a_library_cannot_name_is_a_sentence(tenfold, monkeypatch):
    def export(*arguments, **options):
        odd(b"name\xff").encode()

    monkeypatch.setattr("tenfold.data.export", export)
    status, output = tenfold("data", "export", "digits", "out.npz")
    assert status == 2
    assert output.splitlines()[-1].startswith("error: 'name\\udcff' is not UTF-8")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_command_works_where_streams_are_closed(tmp_path, closed):
    commands.write_tiny_data(tmp_path / "tiny.npz", num_train=8, num_test=8)
    command = f"{sys.executable} -m tenfold data export tiny.npz out.npz {closed}"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(np.load(tmp_path / "out.npz")["train_labels"]) == 8
    done = subprocess.run(f"{command} --format bmp", shell=True, cwd=tmp_path, capture_output=True)
    assert done.returncode == 2


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it can't be deleted")
def test_a_working_folder_that_was_deleted_is_a_sentence(tmp_path):
    script = f'mkdir gone && cd gone && rmdir ../gone && exec "{sys.executable}" -m tenfold recipes'
    done = subprocess.run(script, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: The working folder has been deleted; change to one that exists, and run the "
        "command there."
    ]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_output_to_a_full_disk_is_a_sentence(tmp_path):
    script = f"{sys.executable} -m tenfold recipes > /dev/full"
    done = subprocess.run(script, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs /dev/null")
def test_a_home_that_cannot_be_written_goes_unmentioned(tmp_path, run_python, monkeypatch):
    for name in ("MPLCONFIGDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/dev/null/home")
    code = "import sys\nfrom tenfold.cli import main\nsys.argv = ['tenfold', '--version']\n"
    drawn = "try:\n    main()\nexcept SystemExit:\n    from matplotlib import font_manager"
    done = run_python(code + drawn)
    assert (done.returncode, done.stderr) == (0, "")
