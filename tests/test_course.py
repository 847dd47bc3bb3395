"""The course: every stub fails its test, every solution passes, and what is learned is kept."""

import html
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pages
from tenfold import TenfoldError
from tenfold.course import check, load_images, reduced
from tenfold.course.exercises import EXERCISES
from tenfold.course.notebooks import (
    chapters,
    course_folder,
    find_chapter,
    read_cells,
    run_exercises,
    solved_in,
)

CHAPTERS = chapters()
BY_NAME = {chapter.path.stem: chapter for chapter in CHAPTERS}
SECTIONS = (
    *("Predict first", "By hand", "With tenfold", "The experiment", "Exercises", "Questions"),
    *("What this doesn't show", "Where to read on"),
)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def solved(cells):
    """The cells of a chapter with each exercise's solution in the place of its stub."""
    cells = list(cells)
    stubs = [n for n, cell in enumerate(cells) if "exercise" in cell.tags]
    solutions = [cell.source for cell in cells if "solution" in cell.tags]
    for stub, solution in zip(stubs, solutions, strict=True):
        [code] = re.findall(r"```python\n(.*?)```", solution, re.DOTALL)
        cells[stub] = cells[stub]._replace(source=code)
    return cells


@pytest.mark.parametrize("name", BY_NAME)
def test_every_stub_fails_and_every_solution_passes(name):
    chapter = BY_NAME[name]
    tried = list(run_exercises(chapter.cells))
    assert 2 <= len(tried) <= 5
    for exercise, wrong in tried:
        assert wrong is not None, f"the stub of {exercise} passes"
        assert re.search(r"returns nothing yet|replace", wrong), wrong
    assert [each for each in run_exercises(solved(chapter.cells)) if each.wrong] == []


@pytest.mark.parametrize("name", BY_NAME)
def test_every_chapter_has_all_its_parts(name):
    cells = BY_NAME[name].cells
    text = "\n".join(cell.source for cell in cells if not cell.is_code)
    heads = re.findall(r"^## (.*)", text, re.MULTILINE)
    for section in SECTIONS:
        assert any(head.startswith(section) for head in heads), section
    assert "**You will be able to**" in text
    questions = text[text.index("## Questions") : text.index("## What this doesn't show")]
    assert questions.count("<details><summary>Answer</summary>") == 5
    assert text.count("<details>") == text.count("</details>")
    assert BY_NAME[name].title
    assert BY_NAME[name].minutes
    for widget in re.findall(r"\((widgets/[^)]+)\)", text):
        assert (course_folder() / widget).exists()


def test_every_exercise_is_in_a_chapter_once():
    listed = [name for chapter in CHAPTERS for name in chapter.exercises]
    assert sorted(listed) == sorted(EXERCISES)


def with_scales_in_a_column(weight):
    """Symmetric integers of 8 bits, all right, and the scales of their rows as (O, 1)."""
    scales = np.maximum(np.abs(weight).max(axis=1, keepdims=True), 1e-9) / 127
    return np.rint(weight / scales).astype(np.int8), scales


@pytest.mark.parametrize(
    ("exercise", "function", "said"),
    [
        ("softmax", lambda z: np.exp(z) / np.exp(z).sum(1, keepdims=True), "largest logit"),
        ("mcnemar", lambda a, b: float(a.mean() == b.mean()), "fair coin"),
        ("holm", lambda p: [min(1, x * len(p)) for x in p], "m - i"),
        ("output_size", lambda n, k, s, p: (n + 2 * p - k) / s + 1, r"floor"),
        ("leaked", lambda a, b: sum((x == y).all() for x in a for y in b), "not pairs"),
        ("stratified_split", lambda y, s, g: (np.arange(20, 100), np.arange(20)), "in each class"),
        ("max_pool2d", lambda x: np.zeros(x.shape), "shape"),
        ("set_threshold", lambda p, c: np.sort(p)[0] * int(10 * (1 - c)), "add 1e-9"),
        ("quantise", with_scales_in_a_column, "one for each row"),
    ],
)
def test_a_wrong_solution_is_told_why(exercise, function, said):
    with pytest.raises(AssertionError, match=said) as caught, np.errstate(all="ignore"):
        check(exercise, function)
    # What IPython shows in the place of a trace, which would give the solution away.
    lines = caught.value._render_traceback_()
    assert " ".join(lines) == str(caught.value)
    assert max(map(len, lines)) <= 80  # Where a notebook breaks them, it does so within words.


def test_values_that_look_alike_are_not_shown_as_different():
    def one_sided(function, at, step=1e-5):
        moved = (at + step * np.eye(at.size)[i].reshape(at.shape) for i in range(at.size))
        return np.array([(function(x) - function(at)) / step for x in moved]).reshape(at.shape)

    with pytest.raises(AssertionError, match=r"off by 1.9e-05 at worst\. Move one value"):
        check("numerical_gradient", one_sided)


def test_what_a_solution_raises_is_traced_to_it_without_the_test():
    def without_keepdims(logits):
        return np.exp(logits) / np.exp(logits).sum(axis=1)

    with pytest.raises(ValueError, match="broadcast") as caught:
        check("softmax", without_keepdims)
    names = [entry.name for entry in caught.traceback]
    assert names[1:] == ["without_keepdims"]
    with pytest.raises(ValueError, match="convert") as caught:  # In the test, of what is returned.
        check("softmax", lambda logits: "?")
    assert caught.traceback[-1].name == "_array"


def test_an_exercise_that_does_not_exist():
    with pytest.raises(TenfoldError, match=r"no exercise 'softmaxx' \(did you mean 'softmax'"):
        check("softmaxx", np.exp)


def test_the_images_are_those_of_cifar_10():
    images = load_images()
    for split in images.splits().values():
        assert len(set(map(bytes, split.pixels.reshape(len(split), -1)))) == len(split)
    # Known from the published archive: the first frog and the first airplane to train on.
    assert images.train.pixels[900, 0, :2].tolist() == [[59, 62, 63], [43, 46, 45]]
    assert images.train.class_names[images.train.labels[900]] == "frog"
    assert np.bincount(images.test.labels).tolist() == [50] * 10


def test_a_notebook_is_made_worked_in_and_checked(run_command):
    listed = run_command("course", "--json")
    assert [each["solved"] for each in listed if each["event"] == "chapter"] == [[]] * len(CHAPTERS)
    run_command("course", "2")
    path = Path("02-a-linear-classifier.ipynb")
    notebook = json.loads(path.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert [tuple(cell) for cell in read_cells(path)] == [
        tuple(cell) for cell in find_chapter("2").cells
    ]

    [stub] = [c for c in notebook["cells"] if "def softmax(" in "".join(c["source"][:1])]
    stub["source"] = [
        "def softmax(z):\n",
        "    e = np.exp(z - z.max(1, keepdims=True))\n",
        "    return e / e.sum(1, keepdims=True)",
    ]
    path.write_text(json.dumps(notebook))
    tried = run_command("course", "check", "--json", status=1)
    wrong = {each["name"]: each["wrong"] for each in tried if each["event"] == "exercise"}
    assert wrong.pop("softmax") is None
    assert all("returns nothing yet" in said for said in wrong.values())
    assert solved_in(Path()) == {"softmax"}
    assert "right" in check("accuracy", lambda a, b: np.mean(a == b))
    listed = run_command("course", "--json")
    assert [e["solved"] for e in listed if e["event"] == "chapter"][:3] == [
        ["accuracy"], [], ["softmax"],
    ]  # fmt: skip

    run_command("course", "5")
    assert (Path("widgets") / "kernel-stride-padding.html").is_file()
    run_command("course", "2")
    assert "e.sum" in path.read_text(), "work that somebody did was overwritten"
    stub["source"] = ["def softmax(z):\n", "    return z"]
    path.write_text(json.dumps(notebook))
    run_command("course", "check", status=1)
    assert solved_in(Path()) == {"accuracy"}
    path.write_text('{"cells": 3}')
    with pytest.raises(TenfoldError, match=path.name):
        read_cells(path)


@pytest.fixture
def run_command(capsys):
    """A function that runs `tenfold` in this process; the objects that it prints with --json."""
    from tenfold.cli.app import app

    def run(*arguments, status=0):
        found = app(args=list(arguments), standalone_mode=False)
        assert (found or 0) == status
        printed = capsys.readouterr().out
        return [json.loads(line) for line in printed.splitlines()] if "--json" in arguments else []

    return run


JUPYTER = """
import signal, sys, time
def ask(number, frame):
    print("Shut down?", flush=True)
    time.sleep(1)  # As long as somebody takes to answer.
    print("Ended.", flush=True)
    sys.exit(5)
signal.signal(signal.SIGINT, ask)
print("Serving", sys.argv[1], flush=True)
time.sleep(60)
"""


def test_jupyter_opens_the_notebook_and_ctrl_c_is_its_own(tmp_path):
    (tmp_path / "jupyterlab.py").write_text(JUPYTER)
    place = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    pid, terminal = pty.fork()
    if pid == 0:
        command = [sys.executable, "-m", "tenfold", "course", "5"]
        os.execve(sys.executable, command, {**os.environ, "PYTHONPATH": place})
    shown, made = b"", "05-convolution-and-pooling.ipynb"
    while chunk := _read(terminal):
        shown += chunk
        if shown.endswith(f"Serving {made}\r\n".encode()):
            os.write(terminal, b"\x03")  # Which the terminal shows as ^C.
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    lines = shown.decode().replace("^C", "").split("\r\n")
    assert lines == [f"Made {made}.", f"Serving {made}", "Shut down?", "Ended.", ""]


def _read(terminal):
    try:
        return os.read(terminal, 65536)
    except OSError:  # The other end is closed.
        return b""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["99"], "no chapter '99'; choose 0, 1"),
        (["check"], "No notebook of the course is in this folder"),
    ],
)
def test_wrong_input_is_one_sentence(run_command, arguments, said):
    with pytest.raises(TenfoldError, match=said) as caught:
        run_command("course", *arguments)
    assert "\n" not in str(caught.value)


def test_only_the_setting_reduces(monkeypatch):
    assert reduced(10, 2) == 10
    monkeypatch.setenv("TENFOLD_COURSE", "reduced")
    assert reduced(10, 2) == 2
    assert {split: len(each) for split, each in load_images().splits().items()} == {
        "train": 500, "test": 500,
    }  # fmt: skip


RUN = """
import sys
import matplotlib
matplotlib.use("Agg")
from pathlib import Path
from tenfold.course.notebooks import read_cells
space = {"__name__": "__main__"}
for cell in read_cells(Path(sys.argv[1])):
    if cell.is_code and "check" not in cell.tags:
        exec(compile(cell.source, sys.argv[1], "exec"), space)
"""


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", BY_NAME)
def test_every_chapter_runs_in_its_reduced_form(name):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN, str(BY_NAME[name].path)],
        env={**os.environ, "TENFOLD_COURSE": "reduced"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.browser
def test_the_widget_of_convolution_by_keyboard(browser):
    with pages.opened(browser, course_folder() / "widgets/kernel-stride-padding.html") as page:
        for _ in pages.in_all_sizes(page):
            pass
        assert page.locator("#output > *").count() == 25
        page.select_option("#stride", "2")
        page.select_option("#padding", "1")
        assert page.locator("#output > *").count() == 16
        page.focus("#output > [tabindex='0']")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith(
            "output in row 2, column 2"
        )
        # Window rows 1 to 3, columns 1 to 3 of the image, and weights -1, 0, 1 in each row.
        assert page.inner_text("#sum").endswith("= 0")
        page.keyboard.press("ArrowRight")
        assert page.inner_text("#sum").endswith("= 24")
        page.fill("#kernel-grid input >> nth=0", "-2")
        assert page.inner_text("#sum").endswith("= 23")


@pytest.mark.browser
def test_the_widget_of_significance_agrees_with_scipy(browser):
    from scipy import stats

    with pages.opened(browser, course_folder() / "widgets/significance.html") as page:
        for _ in pages.in_all_sizes(page):
            pass
        page.focus("#seeds")
        page.keyboard.press("ArrowRight")
        assert page.inner_text("#seeds-is") == "4 seeds"
        drawn = page.evaluate("last")
        first, second = drawn["first"], drawn["second"]
        expected = stats.ttest_ind(first, second, equal_var=False)
        assert drawn["p"] == pytest.approx(expected.pvalue, abs=1e-6)
        ends = expected.confidence_interval(0.95)
        assert (drawn["low"], drawn["high"]) == pytest.approx((ends.low, ends.high), abs=1e-4)
        page.focus("#many")
        page.keyboard.press("Enter")
        assert page.inner_text("#drawn") == "1,001"
        assert 2 < float(page.inner_text("#called").removesuffix(" %")) < 8


@pytest.mark.browser
def test_every_widget_is_linked_to_and_works_in_all_sizes(browser):
    widgets = sorted((course_folder() / "widgets").glob("*.html"))
    text = "\n".join(cell.source for chapter in CHAPTERS for cell in chapter.cells)
    assert len(widgets) == 7
    for widget in widgets:
        assert f"(widgets/{widget.name})" in text
        with pages.opened(browser, widget) as page:
            for _ in pages.in_all_sizes(page):
                pass
            assert not page.locator("noscript p").is_visible()
        # JupyterLab shows it so at first, without scripts.
        source = html.escape(widget.read_text(encoding="utf-8"))
        page = browser.new_page()
        page.set_content(f'<iframe sandbox="allow-same-origin" srcdoc="{source}"></iframe>')
        hint = page.frame_locator("iframe").locator("noscript p")
        assert hint.is_visible()
        assert "press “Trust HTML” above" in hint.inner_text()
        page.close()


@pytest.mark.browser
def test_the_network_of_a_widget_computes_as_pytorch_does(browser):
    """Its integers through PyTorch's layers, on the image that the widget shows first."""
    import base64

    import torch
    from torch.nn.functional import conv2d, linear, max_pool2d

    with pages.opened(browser, course_folder() / "widgets/augmentation.html") as page:
        page.wait_for_function("document.querySelectorAll('#choices button').length === 8")
        page.click("#choices [aria-label=truck]")
        page.check("#flip")
        page.fill("#right", "5")
        network, pixels, found = page.evaluate(
            "[NETWORK, Array.from(augmented()), probabilities(augmented())]"
        )
        assert page.inner_text("#said").startswith("truck")
        whole = page.evaluate("Array.from(pixels)")
        page.focus("#reset")
        page.keyboard.press("Enter")
        assert page.evaluate("Array.from(augmented())") == whole
    before = np.array(whole).reshape(32, 32, 3)[:, ::-1]
    after = np.array(pixels).reshape(32, 32, 3)
    np.testing.assert_allclose(after[:, 5:], before[:, :-5])  # Mirrored, then shifted.
    outputs = torch.tensor((after / 255 - network["mean"]) / network["std"]).permute(2, 0, 1)[None]
    for layer in network["layers"]:
        integers = np.frombuffer(base64.b64decode(layer["weight"]), np.int8)
        weight = torch.tensor(integers.reshape(len(layer["scale"]), -1) * 1.0)
        weight = (weight * torch.tensor(layer["scale"])[:, None]).reshape(layer["shape"])
        bias = torch.tensor(layer["bias"], dtype=torch.float64)
        if weight.ndim == 4:
            outputs = max_pool2d(conv2d(outputs, weight.double(), bias, padding=1), 2).relu()
        else:
            outputs = linear(outputs.flatten(1), weight.double(), bias)
    np.testing.assert_allclose(found, outputs.softmax(dim=1)[0], atol=1e-5)


@pytest.mark.browser
def test_the_widgets_of_shortcuts_weights_and_calibration_by_keyboard(browser):
    widgets = course_folder() / "widgets"
    with pages.opened(browser, widgets / "shortcuts.html") as page:
        page.focus("#none")
        page.keyboard.press("Enter")
        said = page.inner_text("#said")
        assert "learns nothing" in said
        assert "16 shortcuts cut" in said
        # Without shortcuts a linear chain: the gradient shrinks by the share of He's each block.
        first, half = page.evaluate("[0.4, 0.2].map((s) => compute(s, boxes.map(() => 0)))")
        ratio = first["gradients"][0] / half["gradients"][0]
        assert ratio == pytest.approx(2**16, rel=1e-6)
    with pages.opened(browser, widgets / "logits.html") as page:
        for _ in range(20):
            page.click("#steps")
        said = page.inner_text("#said")
        assert float(re.search(r"[\d.]+", said)[0]) < 0.3
        assert "of 120 points" in said
        page.focus("#w00")
        before = page.inner_text("#o00")
        page.keyboard.press("ArrowRight")
        assert page.inner_text("#o00") != before
        page.focus("#plane")
        logits = page.inner_text("#logits")
        page.keyboard.press("ArrowRight")
        assert page.inner_text("#logits") != logits
    with pages.opened(browser, widgets / "reliability.html") as page:
        page.fill("#images", "6")
        page.fill("#sharpness", "2")
        assert "too sure" in page.inner_text("#said")
        page.focus("#fit")
        page.keyboard.press("Enter")
        # Logits that were multiplied by 2 are mended by dividing them by 2.
        assert float(page.input_value("#temperature")) == pytest.approx(2, abs=0.1)
        assert float(page.inner_text("#ece").removesuffix(" %")) < 2
    with pages.opened(browser, widgets / "channels-and-crops.html") as page:
        page.wait_for_function("document.querySelectorAll('#choices button').length === 8")
        page.focus("#board")
        page.keyboard.press("ArrowDown")
        assert page.inner_text("#where").startswith("Rows 13 to 17, columns 12 to 16")
        from_data, shown = page.evaluate(
            "[at(13, 12, 0), Number(document.querySelector('#numbers .r').textContent)]"
        )
        assert from_data == shown
