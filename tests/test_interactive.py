"""tenfold in Python: training, runs, their reprs and pages, and what the docstrings show."""

import doctest
import importlib
import re
import sys
import types
from pathlib import Path

import numpy as np
import pandas
import pytest
from matplotlib.figure import Figure

import tenfold
from fabricated_runs import Recipe as Fabricated
from fabricated_runs import make_run
from tenfold.console.output import NotebookOutput
from tenfold.errors import TenfoldError
from tenfold.recipe import load_recipe
from tiny_training import pictures

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
QUICK = {"epochs": 2, "training__min_steps": 0, "model__widths": (16,), "progress": False}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", tenfold.__all__)
def test_public_names_say_what_they_are_and_their_examples_hold(name):
    public = getattr(tenfold, name)
    assert public.__doc__
    module = importlib.import_module(public.__module__)
    for example in doctest.DocTestFinder(recurse=False).find(public, name, module=module):
        found = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example)
        assert found.failed == 0
        assert found.attempted or isinstance(public, type), f"{name} has no example"


def test_the_section_of_the_tour_runs():
    tour = (Path(__file__).parent.parent / "docs/tour.md").read_text()
    [code] = re.findall(r"## In Python\n\n```python\n(.*?)```", tour, re.DOTALL)
    exec(code, {})


def test_a_run_says_what_came_of_it():
    run = tenfold.train("ann", "digits", lr=0.02, batch_size=64, seed=3, **QUICK)
    assert run.path == Path("runs/ann/1")
    assert (run.recipe.optimizer.lr, run.recipe.training.batch_size, run.recipe.seed) == (
        0.02, 64, 3,
    )  # fmt: skip
    assert set(run.metrics) == {"validation", "test"}
    curves = pandas.DataFrame(run.curves)
    assert list(curves["epoch"]) == [1, 2]
    assert {"train_loss", "validation_accuracy", "learning_rate"} < set(curves.columns)
    assert isinstance(run.plot(), Figure)
    assert run.report() == run.path / "report.html"
    assert run.model.class_names == DIGITS
    assert re.fullmatch(r"Run\(ann/1: [\d.]+ % on test, [\d.]+ % on validation\)", repr(run))
    shown = run._repr_html_()
    assert '<a href="runs/ann/1/report.html">runs/ann/1/report.html</a>' in shown
    scores = run.metrics["test"]
    low, high = (100 * end for end in scores.accuracy_interval)
    assert f"<td>{100 * scores.accuracy:.2f} %</td><td>{low:.1f} to {high:.1f} %</td>" in shown
    assert f"<td>{scores.num_images:,}</td></tr></table><svg " in shown
    assert run.evaluate().accuracy == run.metrics["test"].accuracy
    assert "TrainedModel(ann, 10 classes, 32x32" in repr(run.model)
    again = tenfold.open_run(str(run.path))
    assert again == run
    assert again.curves == run.curves


def test_data_may_be_in_memory():
    dataset = tenfold.Dataset("mine", pictures(120), None, pictures(60, seed=5), "arrays")
    run = tenfold.train(load_recipe("ann"), dataset, **QUICK)
    assert run.metrics["test"].num_images == 60
    assert run.recipe.data.name == "mine"
    assert "report.html" not in run._repr_html_()
    page = run.report().read_text()
    assert "data:image/webp;base64," in page, "the page has no images of data in memory"
    assert "data:image/webp;base64," not in tenfold.open_run(run.path).report().read_text()


def test_a_recipe_shows_what_differs_from_the_defaults():
    shown = repr(load_recipe("ann", {"training.epochs": 7}))
    assert "epochs=7" in shown
    assert "momentum" not in shown


def test_an_unfinished_run_has_no_metrics_but_curves(tmp_path):
    run = tenfold.open_run(make_run(tmp_path / "cnn/3", Fabricated(finished=False, epochs=6)))
    assert run.metrics == {}
    assert repr(run) == "Run(cnn/3: unfinished after 3 epochs)"
    assert len(run.curves["train_loss"]) == 3


@pytest.fixture
def shown(monkeypatch):
    """What a notebook shows, as HTML, each time that it changes."""
    shown = []
    handle = types.SimpleNamespace(update=lambda output: shown.append(output._repr_html_()))
    display = types.SimpleNamespace(display=lambda output, display_id: handle)
    ipython = types.ModuleType("IPython")
    ipython.version_info, ipython.get_ipython = (9, 0), lambda: None  # pyplot asks for them.
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return shown


def test_a_notebook_shows_progress_in_one_output_and_the_page_is_written(shown):
    run = tenfold.train("ann", "digits", **{**QUICK, "progress": True})
    assert (run.path / "report.html").exists()
    assert ">ann: ann with " in shown[0]
    assert "epoch 1/2  train loss" in shown[-1]
    assert "epoch 2/2  train loss" in shown[-1]


def test_what_passes_is_gone_from_a_notebook_at_the_end(shown):
    output = NotebookOutput()
    with output.training():
        output.say("epoch 1/1")
        output.say("evaluating: 50 % of 500", passing=True)
        assert "evaluating" in shown[-1]
    assert "epoch 1/1" in shown[-1]
    assert "evaluating" not in shown[-1]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: tenfold.train("cnnn"), r"no recipe 'cnnn'.*'cnn'"),
        (lambda: tenfold.train("cnn", optimizer__lrr=1), r"did you mean 'lr'"),
        (lambda: tenfold.train("cnn", data="nowhere"), "nowhere"),
        (lambda: tenfold.train("transfer-lite0", data="digits", lr=0.1, stages=STAGES), "own"),
        (lambda: tenfold.open_run("nowhere"), "no run folder nowhere"),
    ],
)
def test_row_e_wrong_input_is_one_sentence(call, said):
    with pytest.raises(TenfoldError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)


STAGES = [{"trains": "head", "lr": 0.1}]


def test_overrides_may_be_numpys():
    assert load_recipe("ann", {"optimizer.lr": float(np.float64(0.5))}).optimizer.lr == 0.5
    run = tenfold.train("ann", "digits", lr=np.float64(0.01), **QUICK)
    assert run.recipe.optimizer.lr == 0.01
