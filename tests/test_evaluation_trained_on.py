"""Images that a run was trained on are known again, wherever they turn up."""

import json
import logging
import shutil

import numpy as np
import pytest
from PIL import Image

from commands import write_class_folders
from tenfold.console.output import Output
from tenfold.console.summaries import show_metrics
from tenfold.data import export, load
from tenfold.errors import TenfoldError
from tenfold.evaluation.evaluate import evaluate_run, keep_sums, predict_split, sums_of
from tenfold.evaluation.runs import read_run
from tenfold.recipe import load_recipe
from tenfold.reporting.templating import environment
from tenfold.run import RunFolder
from tenfold.training.train import TrainOptions, train


class StopAfterTheFirstEpoch:
    """A reporter that ends the training after its first checkpoint."""

    def __getattr__(self, name):
        def told(*_arguments, **_keywords):
            if name == "epoch_ended":
                raise TenfoldError("stopped")

        return told


def recipe_of(data):
    return load_recipe(
        "ann",
        [f"data.name={data}", "data.validation_size=4", "model.widths=[8]", "training.epochs=2",
         "training.batch_size=8", "training.min_steps=0"],
    )  # fmt: skip


def known_in(run, split):
    return json.loads(run.result.read_text())["splits"][split].get("num_trained_on", 0)


def ids_of(run, split):
    with np.load(run.predictions(split)) as file:
        return set(file["ids"].tolist())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run, and the folder of 40 images that it held its test split out of."""
    folder = tmp_path_factory.mktemp("finished")
    write_class_folders(folder / "data")
    return train(recipe_of(folder / "data/train"), options=TrainOptions(runs=folder)).run


def lead(run):
    """The first sentences of its page."""
    return environment().get_template("parts.html").module.lead(run)


def notices(run):
    """What its page says before that."""
    return environment().get_template("parts.html").module.notices([run])


def copied(finished, tmp_path):
    shutil.copytree(finished.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def test_a_run_that_saw_nothing_twice_says_nothing(finished):
    result = json.loads(finished.result.read_text())
    assert set(result["splits"]) == {"validation", "test"}
    assert "num_trained_on" not in json.dumps(result)
    assert "that it was not trained on" in lead(read_run(finished.path))


@pytest.mark.parametrize("added", [4, 15])
def test_f23_images_added_to_a_stopped_run_without_a_test_split(tmp_path, added):
    place = tmp_path / "data/train"
    write_class_folders(tmp_path / "data")
    recipe = recipe_of(place)
    options = TrainOptions(folder=tmp_path / "run", allow_changes=True)
    with pytest.raises(TenfoldError, match="stopped"):
        train(recipe, options=options, reporter=StopAfterTheFirstEpoch())
    before = load(place)
    for number in range(added):
        image = Image.new("RGB", (8, 8), (0, number, 100) if number % 2 else (100, number, 0))
        image.save(place / ("blue" if number % 2 else "red") / f"added-{number}.png")
    run = train(recipe, options=options).run
    with np.load(run.trained_on) as kept:
        earlier = set(kept["earlier"].tolist())
    sums = dict(zip(before.train.ids.tolist(), sums_of(before.train).tolist(), strict=True))
    expected = {
        split: sum(sums.get(name) in earlier for name in ids_of(run, split))
        for split in ("validation", "test")
    }
    assert expected["test"] > 0
    assert {split: known_in(run, split) for split in expected} == expected
    page = read_run(run.path)
    assert f"was trained on {expected['test']} of" in notices(page)
    assert "was not trained on" not in lead(page)
    assert evaluate_run(run).num_trained_on == expected["test"]


def test_f23_a_run_stopped_before_its_first_step_learnt_from_nothing(tmp_path, make_images):
    run = RunFolder(tmp_path)
    keep_sums(run, make_images(6), goes_on=False)
    keep_sums(run, make_images(6, seed=1), goes_on=False)
    with np.load(run.trained_on) as kept:
        assert len(kept["sums"]) == 6
        assert not len(kept["earlier"])


def one_more(data, copy):
    shutil.copytree(data, copy)
    Image.new("RGB", (8, 8), (9, 99, 9)).save(copy / "red/more.png")
    return copy


def as_npz(data, copy):
    export(load(one_more(data, copy.with_name("more"))), copy.with_suffix(".npz"), "npz")
    return copy.with_suffix(".npz")


def other_names(data, copy):
    for number, file in enumerate(sorted(data.rglob("*.png"))[1:]):
        (copy / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy / file.parent.name / f"{number}-again.png")
    return copy


@pytest.mark.parametrize("make", [one_more, as_npz, other_names])
def test_f24_a_copy_of_what_it_was_trained_on(
    finished, tmp_path, make, caplog, capsys, monkeypatch
):
    monkeypatch.setattr(logging.getLogger("tenfold"), "propagate", True)  # an Output changes both
    monkeypatch.setattr(logging.getLogger("tenfold"), "handlers", [])
    run = copied(finished, tmp_path)
    provenance = json.loads(run.provenance.read_text())
    num_train = provenance["data"]["splits"]["train"]
    data = make(tmp_path.joinpath(provenance["data"]["location"]), tmp_path / "copy")
    metrics = evaluate_run(run, data=str(data))
    assert metrics.num_trained_on in (num_train - 1, num_train)  # other_names lacks one image
    predict_split(run, split="test", data=str(data))
    assert f"was trained on {metrics.num_trained_on} of the images" in caplog.text
    show_metrics(Output(), "test", metrics)
    assert f"trained on {metrics.num_trained_on} of them" in capsys.readouterr().out
    assert f"was trained on {metrics.num_trained_on} of" in notices(read_run(run.path))


def test_f24_other_images_and_runs_without_sums_are_not_said_to_be_known(finished, tmp_path):
    run = copied(finished, tmp_path)
    for name in ("red", "blue"):
        (tmp_path / "new" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), (50, 60, 70)).save(tmp_path / "new" / name / "1.png")
    assert not evaluate_run(run, data=str(tmp_path / "new")).num_trained_on
    location = json.loads(run.provenance.read_text())["data"]["location"]
    run.trained_on.write_bytes(b"damaged")
    data = one_more(tmp_path.joinpath(location), tmp_path / "copy")
    assert not evaluate_run(run, data=str(data)).num_trained_on
