"""`tenfold predict` and `tenfold score`, from training to the score, as real processes."""

import csv
import io
import json
import re
import shutil
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import commands
from commands import events, refuse, succeed
from tenfold.data import load
from tenfold.evaluation.predictions import load_predictions, save_predictions
from tenfold.evaluation.trained import load as load_model

RUN = Path("runs/tiny/1")
TRAIN = ["train", "tiny.toml", "--data", "tiny.npz", "--threads", "1", "--no-report"]
TRAIN += ["--set", "training.epochs=1", "--set", "optimizer.lr=0.002"]  # else all is right
PREDICT = ["predict", str(RUN), "--threads", "1"]


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A folder with tiny data, the same exported, and a finished run."""
    folder = tmp_path_factory.mktemp("template") / "work"
    commands.write_tiny_recipe(folder)
    commands.write_tiny_data(folder / "tiny.npz")
    succeed(TRAIN, folder)
    succeed(["data", "export", "tiny.npz", "exported"], folder)
    return folder


@pytest.fixture
def folder(template, tmp_path):
    """A copy of the template."""
    shutil.copytree(template, tmp_path / "work")
    return tmp_path / "work"


def table(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def result(folder):
    return json.loads((folder / RUN / "result.json").read_text())


def contents(folder):
    return {path: path.read_bytes() for path in (folder / RUN).rglob("*") if path.is_file()}


def png(pixels):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def as_terminal():
    sys.stdout.isatty = lambda: True


def test_a_scored_submission_has_exactly_the_accuracy_of_evaluate(folder):
    evaluated = events(["evaluate", str(RUN), "--threads", "1"], folder)[-1]
    succeed([*PREDICT, "--split", "test", "--csv", "submission.csv"], folder)
    rows = table(folder / "submission.csv")
    assert rows[0] == ["id", "label"]
    assert [row[0] for row in rows[1:]] == [str(n) for n in range(1, 129)]
    scored = events(["score", "submission.csv", "exported/testLabels.csv"], folder)[-1]
    assert scored["event"] == "score"
    for key in ("accuracy", "accuracy_interval", "num_images", "confusion", "macro_f1"):
        assert scored[key] == evaluated[key]
    for ours, theirs in zip(scored["per_class"], evaluated["per_class"], strict=True):
        assert ours.items() <= theirs.items()  # Areas under curves take probabilities.
    assert 0.25 < scored["accuracy"] < 1  # it learned something, and not all


def test_a_held_out_split_is_scored_by_its_own_labels(folder):
    arguments = ["--split", "validation", "--csv", "new folder/v.csv", "--labels", "true.csv"]
    output = succeed([*PREDICT, *arguments], folder)
    assert "64 predictions are in new folder/v.csv" in output
    scored = events(["score", "new folder/v.csv", "true.csv"], folder)[-1]
    assert scored["accuracy"] == result(folder)["splits"]["validation"]["accuracy"]
    exported = dict(table(folder / "exported/trainLabels.csv")[1:])
    true = dict(table(folder / "true.csv")[1:])
    assert len(true) == 64
    assert true.items() <= exported.items()
    succeed([*PREDICT, "--split", "test", "--csv", "own.csv"], folder)
    other = ["--split", "test", "--data", "exported", "--csv", "other.csv"]
    succeed([*PREDICT, *other], folder)
    assert table(folder / "own.csv") == table(folder / "other.csv")


def test_predictions_without_an_accuracy_leave_the_run_as_it_was(folder):
    before = contents(folder)
    output = succeed([*PREDICT, "--split", "test", "--csv", "s.csv"], folder)
    assert "right" not in output
    assert "%" not in output
    piped = succeed([*PREDICT, "--split", "test"], folder)
    lines = [line for line in piped.splitlines() if "," in line]
    assert lines == (folder / "s.csv").read_text().splitlines()
    records = [e for e in events([*PREDICT, "--split", "test"], folder) if e["event"] != "info"]
    assert [[e["id"], e["label"]] for e in records] == table(folder / "s.csv")[1:]
    assert all(0.25 <= e["probability"] <= 1 for e in records)
    assert contents(folder) == before


@pytest.mark.parametrize("is_saved", [True, False])
def test_an_accuracy_that_is_shown_is_a_use_of_the_test_split(folder, is_saved):
    if is_saved:  # Then no images are needed.
        (folder / "tiny.npz").unlink()
    else:
        (folder / RUN / "predictions-test.npz").unlink()
    output = succeed([*PREDICT, "--split", "test"], folder, before=as_terminal)
    after = result(folder)
    accuracy = after["splits"]["test"]["accuracy"]
    assert f"{100 * accuracy:.2f} %" in output
    assert "grey" in output
    assert "written down in the run's result.json" in output
    assert len(output.splitlines()) < 60
    assert [use["purpose"] for use in after["test_uses"]] == [
        "after training",
        f"tenfold predict {RUN} --threads 1 --split test",
    ]
    assert after["test_uses"][1]["accuracy"] == accuracy
    succeed([*PREDICT, "--split", "validation"], folder, before=as_terminal)
    assert len(result(folder)["test_uses"]) == 2


@pytest.mark.parametrize("harm", ["", "damaged", "of another model", "missing"])
def test_saved_predictions_are_used_and_made_again_where_they_are_not_the_runs_own(folder, harm):
    succeed([*PREDICT, "--split", "test", "--csv", "first.csv"], folder)
    path = folder / RUN / "predictions-test.npz"
    if harm == "damaged":
        path.write_bytes(path.read_bytes()[:-100])
    elif harm == "missing":
        path.unlink()
    elif harm:
        own = load_predictions(path)
        save_predictions(path, own._replace(logits=np.roll(own.logits, 1, axis=1)))
    else:
        (folder / "tiny.npz").unlink()
    output = succeed([*PREDICT, "--split", "test", "--csv", "again.csv"], folder)
    assert ("has the predictions already" in output) == (not harm)
    assert ("is passed over" in output) == (harm not in ("", "missing"))
    assert table(folder / "again.csv") == table(folder / "first.csv")


def test_picture_files_get_the_classes_of_the_same_pixels(folder):
    model = load_model(folder / RUN)
    expected = model.predict(load(folder / "tiny.npz").test.pixels)
    succeed([*PREDICT, "exported/test", "--csv", "pictures.csv", "--top", "3"], folder)
    rows = table(folder / "pictures.csv")
    assert rows[0] == [
        *("id", "label", "probability", "label_2", "probability_2", "label_3", "probability_3"),
        "error",
    ]
    labels = {row[0]: row[1] for row in rows[1:]}
    assert labels == {f"exported/test/{n}.png": name for n, name in enumerate(expected, start=1)}
    first = rows[1]
    assert float(first[2]) >= float(first[4]) >= float(first[6])
    assert sum(map(float, first[2:7:2])) <= 1.00001
    scored = events(["score", "pictures.csv", "exported/testLabels.csv"], folder)[-1]
    assert scored["accuracy"] == result(folder)["splits"]["test"]["accuracy"]


def test_a_broken_picture_is_named_and_the_others_predicted(folder):
    (folder / "größe 1.png").write_bytes((folder / "exported/test/1.png").read_bytes())
    (folder / "broken.png").write_bytes(b"nonsense")
    arguments = [*PREDICT, "größe 1.png", "broken.png", "exported/test/2.png"]
    command = commands.run(arguments, folder=folder)
    assert command.wait() == 1
    assert "warning: broken.png can't be read as an image: is no " in command.output
    lines = [line for line in command.output.splitlines() if not line.startswith("warning")]
    assert [line.split(",")[0] for line in lines] == [
        *("id", "größe 1.png", "broken.png", "exported/test/2.png")
    ]
    assert lines[2].startswith("broken.png,,,is no ")
    skipped = events([*arguments, "--skip-broken"], folder)
    assert [e["id"] for e in skipped if e["event"] == "prediction"] == [
        *("größe 1.png", "exported/test/2.png")
    ]
    assert "broken.png" in next(e["message"] for e in skipped if e["event"] == "warning")
    command = commands.run([*arguments, "--csv", "out.csv"], folder=folder)
    assert command.wait() == 1
    assert "2 predictions are in out.csv" in command.output
    assert [row[0] for row in table(folder / "out.csv")][2] == "broken.png"


@pytest.mark.parametrize("total", [4_000, pytest.param(10_000, marks=pytest.mark.long)])
def test_row_37_many_images_with_broken_ones_whole_or_not_at_all(folder, total):
    pixels = load(str(folder / "tiny.npz")).test.pixels
    (folder / "many").mkdir()
    contents = [png(each) for each in pixels[:50]]
    broken = {number for number in range(total) if number % 97 == 0}
    for number in range(total):
        content = b"nothing" if number in broken else contents[number % 50]
        (folder / f"many/{number:05}.png").write_bytes(content)
    predict = [*PREDICT, "many", "--csv", "guesses.csv"]
    started = time.monotonic()
    assert commands.run(predict, folder=folder).wait() == 1
    seconds = time.monotonic() - started
    whole = (folder / "guesses.csv").read_text()
    for share in (0.5, 0.95):
        (folder / "guesses.csv").write_text("of yesterday")
        command = commands.start(predict, folder=folder)
        time.sleep(share * seconds)
        command.kill()
        assert (folder / "guesses.csv").read_text() in ("of yesterday", whole)
    (folder / "guesses.csv").write_text(whole)
    header, *rows = table(folder / "guesses.csv")
    assert [row[0] for row in rows] == [f"many/{number:05}.png" for number in range(total)]
    assert {int(row[0][5:10]) for row in rows if row[header.index("error")]} == broken
    labels = {int(row[0][5:10]): row[1] for row in rows}
    assert all(labels[number] == "" for number in broken)
    expected = load_model(folder / RUN).predict(pixels[:50])
    assert all(labels[n] == expected[n % 50] for n in labels if n not in broken)


def test_a_folder_of_parts_has_what_the_table_has(folder):
    (folder / "exported/test/200.png").write_bytes(b"nonsense")
    assert commands.run([*PREDICT, "exported/test", "--csv", "all.csv"], folder=folder).wait() == 1
    predict = [*PREDICT, "exported/test", "--out", "parts"]
    output = succeed(predict, folder)
    assert "128 predictions are in parts (1 of 1 part)." in output
    assert "1 image can't be read" in output
    assert table(folder / "parts/part-00000.csv") == table(folder / "all.csv")
    [written] = [event for event in events(predict, folder) if event["event"] == "written"]
    assert (written["num_images"], written["num_broken"]) == (129, 1)


def test_sets_stand_in_a_column_in_parts_and_in_json(folder):
    predict = [*PREDICT, "exported/test", "--sets", "95"]
    succeed([*predict, "--csv", "sets.csv"], folder)
    header, *rows = table(folder / "sets.csv")
    assert header == ["id", "label", "probability", "set", "error"]
    held = [row[3].split("|") for row in rows]
    pixels = [folder / row[0] for row in rows]
    assert [tuple(each) for each in held] == load_model(folder / RUN).predict_sets(pixels)
    assert all(each[0] == row[1] for each, row in zip(held, rows, strict=True))
    assert max(map(len, held)) > 1
    labels = dict(table(folder / "exported/testLabels.csv")[1:])
    true = [labels[Path(row[0]).stem] for row in rows]
    assert np.mean([name in each for name, each in zip(true, held, strict=True)]) > 0.9
    succeed([*predict, "--out", "parts"], folder)
    assert table(folder / "parts/part-00000.csv") == [header, *rows]
    again = commands.run([*PREDICT, "exported/test", "--out", "parts"], folder=folder)
    assert again.wait() == 2
    assert "predictions with set threshold 0." in again.output
    found = [e for e in events(predict, folder) if e["event"] == "prediction"]
    assert [e["set"] for e in found] == held


def test_what_is_asked_for_has_its_column_whatever_is_found(folder):
    known = result(folder)
    for each in known["calibration"]["thresholds"]:
        each["confidence"] = 0.0
    (folder / RUN / "result.json").write_text(json.dumps(known))
    (folder / "broken.png").write_bytes(b"nonsense")
    for place in ("exported/test/1.png", "broken.png"):  # A sure prediction, and none.
        asked = [*PREDICT, place, "--accuracy", "95", "--sets", "95"]
        commands.run([*asked, "--csv", "all.csv"], folder=folder).wait()
        found, name = table(folder / "all.csv"), f"parts of {Path(place).stem}"
        assert found[0] == ["id", "label", "probability", "unsure", "set", "error"]
        succeed([*asked, "--out", name], folder)
        assert table(folder / name / "part-00000.csv") == found


def test_a_terminal_shows_a_short_table(folder):
    arguments = [*PREDICT, "exported/test", "--top", "9"]
    wide = {"COLUMNS": "140"}
    output = succeed(arguments, folder, before=as_terminal, environment=wide)
    assert "exported/test/1.png" in output
    assert "88 more" in output
    alone = succeed(
        ["predict", str(RUN / "model.safetensors"), "exported/test/3.png"],
        folder,
        before=as_terminal,
    )
    assert "exported/test/3.png" in alone


def test_a_score_reads_well_in_a_pipe(folder):
    succeed([*PREDICT, "--split", "test", "--csv", "s.csv"], folder)
    output = succeed(["score", "s.csv", "exported/testLabels.csv"], folder)
    assert re.search(r"an accuracy of [\d.]+ % on 128 images \(95 % interval", output)
    assert re.search(r"class +images +recall", output)
    assert "Most often confused" in output
    lines = (folder / "s.csv").read_text().splitlines()
    (folder / "s.csv").write_text("\n".join(lines[:101]) + "\n")
    output = succeed(["score", "s.csv", "exported/testLabels.csv", "--allow-missing"], folder)
    assert "28 of them have no prediction and count as wrong." in output


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "Neither images nor --split"),
        (["a.png", "--split", "test"], "Both images and --split"),
        (["a.png"], "a.png"),
        (["tiny.toml", "runs/empty"], "runs/empty holds no images"),
        (["tiny.toml", "--data", "tiny.npz"], "--data goes with --split"),
        (["tiny.toml", "--labels", "out.csv"], "--labels goes with --split"),
        (["--split", "test", "--labels", "out.csv"], "--labels goes with --csv"),
        (["--split", "test", "--csv", "out.csv", "--labels", "./out.csv"], "two files"),
        (["--split", "test", "--sets", "95"], "Both --sets and --split"),
        (["exported/test/1.png", "--sets", "99"], "64 validation images, where 99"),
        (["tiny.toml", "--out", "o", "--csv", "out.csv"], "--csv and --out"),
        (["tiny.toml", "--out", "o", "--skip-broken"], "--skip-broken"),
        (["tiny.toml", "--part", "1/2"], "--part goes with --out"),
        (["tiny.toml", "--out", "o", "--part", "3/2"], "'3/2'"),
        (["tiny.toml", "--out", "o", "--format", "xls"], "'xls'"),
        (["tiny.toml", "--out", "exported"], "exported holds something else"),
        (["--split", "../1/x", "--csv", "out.csv"], "'../1/x'"),
        (["--split", "test", "--csv", "tiny.npz/out.csv"], "tiny.npz"),
        (["--watch", "exported", "--csv", "out.csv"], "Both --csv and --watch"),
    ],
)
def test_options_of_predict_that_do_not_fit_get_one_sentence(folder, arguments, named):
    (folder / "runs/empty").mkdir()
    assert named in refuse([*PREDICT, *arguments], folder)
    assert not (folder / "out.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["predict", f"{RUN}/model.safetensors", "tiny.toml", "--sets", "95"], "leave out --sets"),
        (["predict", "runs/tiny/9", "--split", "test"], "runs/tiny/9"),
        (["predict", "runs", "tiny.toml"], "recipe.json"),
        (["score", "nothing.csv", "exported/testLabels.csv"], "nothing.csv"),
        (["score", "exported/testLabels.csv", "exported"], "exported/testLabels.csv"),
        (["score", "exported/testLabels.csv", "exported/trainLabels.csv"], "384 ids"),
        (["score", "tiny.npz", "exported/testLabels.csv"], "tiny.npz line"),
    ],
)
def test_wrong_places_get_one_sentence(folder, arguments, named):
    assert named in refuse(arguments, folder)


def test_a_shard_without_images_is_no_success(folder):
    with tarfile.open(folder / "words.tar", "w") as archive:
        archive.add(folder / "tiny.toml", "tiny.toml")
    said = refuse([*PREDICT, "words.tar", "--csv", "out.csv"], folder)
    assert "There are no images in words.tar" in said
    assert not (folder / "out.csv").exists()


def test_an_unfinished_run_says_what_to_do(folder):
    (folder / RUN / "result.json").unlink()
    wanted = [*PREDICT, "--split", "test", "--csv", "out.csv"]
    assert "is not finished" in refuse(wanted, folder)
