"""`make results`: studies become docs/results.md and the README's table, the same every time."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from fabricated_studies import ALL, make_published, write_study
from fabricated_study_runs import Made as MadeRun
from fabricated_study_runs import make_study
from tenfold.recipe import load_recipe
from tenfold.results.measured import MeasuredFile
from tenfold.studies.analysis import summarise_study

SCRIPT = Path(__file__).parent.parent / "docs/make_results.py"
README = "# project\n\n<!-- results:begin -->\nold\n<!-- results:end -->\n\nThe end.\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with a README, and studies beside it."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(README)
    for name, make in ALL.items():
        write_study(tmp_path / "studies" / name, make())
    write_study(tmp_path / "studies" / "published", make_published())
    return tmp_path


class Made(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def make_results(capsys: pytest.CaptureFixture[str]):
    main = runpy.run_path(str(SCRIPT))["main"]

    def make(root: Path, *arguments: str, folders: list[Path] | None = None) -> Made:
        chosen = sorted((root / "studies").iterdir()) if folders is None else folders
        status = main(["--root", str(root), *arguments, *map(str, chosen)])
        return Made(status, *capsys.readouterr())

    return make


def test_it_is_a_command(root: Path):
    command = [sys.executable, str(SCRIPT), "--root", str(root), str(root / "studies/one-seed")]
    assert subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0


def test_studies_named_before_are_kept(make_results, root: Path):
    make_results(root)
    whole = (root / "docs/results.md").read_text()
    alone = make_results(root, folders=[root / "studies/one-seed"])
    assert alone.returncode == 0, alone.stderr
    assert (root / "docs/results.md").read_text() == whole
    # A section of before summaries were kept stays, and loses neither its place nor its line.
    (root / "docs/studies/activations.json").unlink()
    assert make_results(root, folders=[]).returncode == 0
    assert (root / "docs/results.md").read_text() == whole


def section(document: str, name: str) -> str:
    return next(part for part in document.split("\n## ") if part.startswith(f"{name}\n"))


def rows_of(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_study_has_a_section_with_ours_beside_the_published(make_results, root: Path):
    made = make_results(root)
    assert made.returncode == 0, made.stderr
    document = (root / "docs/results.md").read_text()
    names = [line[3:] for line in document.splitlines() if line.startswith("## ")]
    assert names == ["published", "ann-vs-cnn", "activations", "dropout", "depth", "augmentation"]
    activations = section(document, "activations")
    assert "```\ntenfold study activations\n```" in activations
    assert "- All but Sigmoid fall after 30 to 40 epochs" in activations
    relu = next(row for row in rows_of(activations) if row[0] == "ReLU")
    assert relu[1:6] == ["59.1 % (58.4 to 59.9)", "3", "62,006", "10.3 min", "10.5"]
    assert relu[6].startswith("66.12 % at 30 epochs (PyTorch thesis")
    assert relu[7] == "**not reproduced**, 65.1 % (64.3 to 65.8)<br>beaten"
    milestones = [row for row in rows_of(activations) if row[0].isdigit()]
    assert [row[0] for row in milestones] == [str(epoch) for epoch in range(10, 101, 10)]
    assert milestones[0][2].endswith("<br>published 61 %: **not reproduced**")
    assert "AMD EPYC 7B13, 2 cores, 1 thread a run" in activations
    assert "2 h 39 min of training in all" in activations


def test_shipped_studies_that_were_not_run_are_named(make_results, root: Path):
    make_results(root, folders=[root / "studies/published"])
    head = (root / "docs/results.md").read_text().partition("\n## ")[0]
    missing = head.partition("Not measured yet")[2]
    assert "`dropout`" in missing
    assert "`published`" not in missing


def test_a_study_cut_short_says_what_was_run(make_results, root: Path):
    make_results(root)
    dropout = section((root / "docs/results.md").read_text(), "dropout")
    assert "4 of 6 planned runs are finished, 2 failed" in dropout
    assert "- dropout 0.9: no run" in dropout
    assert "The loss is not finite at step 1,204" in dropout
    row = next(row for row in rows_of(dropout) if row[0] == "dropout 0.9")
    assert row[1:3] == ["not run", "0 of 1"]
    assert row[-1] == "not measured"
    assert "1 of 2 (interval over images)" in dropout


def test_the_readme_has_a_row_for_each_published_result(make_results, root: Path):
    make_results(root)
    readme = (root / "README.md").read_text()
    assert readme.startswith("# project\n\n<!-- results:begin -->\n| source |")
    assert readme.endswith("<!-- results:end -->\n\nThe end.\n")
    rows = rows_of(readme)[2:]
    assert [row[1] for row in rows] == [
        "ANN, 6 epochs",
        "LeNet, Leaky ReLU, 5 epochs",
        "LeNet, Leaky ReLU, 10 epochs",
        "ResNet-18, 10 epochs",
    ]
    assert rows[1][6] == "1.1 min for all 10 epochs (1.1 core-minutes)"
    assert rows[2][7] == "**not reproduced**"
    assert rows[3][3:] == ["not run", "the source's", "0 of 3", "–", "not measured"]
    assert "old" not in readme


def test_no_path_of_a_machine_gets_out(make_results, root: Path):
    make_results(root)
    for path in (root / "docs/results.md", root / "README.md"):
        text = path.read_text()
        assert "/home" not in text
        assert str(root) not in text
    assert "…/x can't be written (Read-only file system)" in (root / "docs/results.md").read_text()


def test_the_same_studies_give_the_same_bytes_in_any_order(make_results, root: Path):
    folders = sorted((root / "studies").iterdir())
    make_results(root, folders=folders)
    before = [(root / name).read_bytes() for name in ("docs/results.md", "README.md")]
    again = make_results(root, folders=folders[::-1])
    assert again.stdout.startswith("Nothing has changed")
    assert [(root / name).read_bytes() for name in ("docs/results.md", "README.md")] == before


def test_check_writes_nothing_and_tells_a_change(make_results, root: Path):
    checked = make_results(root, "--check")
    assert checked.returncode == 1
    assert "docs/results.md would change" in checked.stderr
    assert not (root / "docs/results.md").exists()
    assert (root / "README.md").read_text() == README
    make_results(root)
    assert make_results(root, "--check").returncode == 0
    path = root / "studies" / "activations" / "summary.json"
    summary = json.loads(path.read_text())
    summary["findings"].append("And another thing.")
    path.write_text(json.dumps(summary))
    assert make_results(root, "--check").returncode == 1


def test_studies_that_are_missing_are_left_out(make_results, root: Path):
    (root / "studies" / "planned").mkdir()
    folders = [root / "studies" / name for name in ("planned", "nowhere", "ann-vs-cnn")]
    made = make_results(root, folders=folders)
    assert made.returncode == 0
    assert made.stderr.count("has no summary.json and is left out") == 2
    assert "its table stays as it is" in made.stderr
    assert (root / "README.md").read_text() == README
    assert "## ann-vs-cnn" in (root / "docs/results.md").read_text()


@pytest.mark.parametrize(
    ("changed", "is_shipped"),
    [
        ({}, True),
        ({"milestones": [10, 20]}, True),
        ({"batch_size": 99}, False),
        ({"of": "an older version"}, False),
    ],
)
def test_runs_of_shipped_recipes_alone_get_into_measured_json(
    make_results, root: Path, changed: dict[str, object], is_shipped: bool
):
    folder = root / "studies" / "lenets"
    make_study(folder, {"LeNet": [MadeRun(0, 0.60), MadeRun(1, 0.62)]}, title="LeNets")
    path = folder / "study.json"
    plan = json.loads(path.read_text())
    for trial in plan["trials"]:
        recipe = load_recipe("lenet", [f"seed={trial['seed']}"]).to_dict()
        trial["recipe"] = recipe | {"training": recipe["training"] | changed}
    path.write_text(json.dumps(plan))
    summarise_study(folder)
    assert make_results(root).returncode == 0
    path = root / "src/tenfold/measured.json"
    assert path.exists() == is_shipped
    if is_shipped:
        one = MeasuredFile.model_validate_json(path.read_text()).first("lenet")
        assert (one.accuracy.mean, one.accuracy.n, one.accuracy.interval) == (0.61, 2, "seeds")
        assert one.command == "tenfold study lenets"
        assert one.machine.cpu == "Xeon"
        assert make_results(root, "--check").returncode == 0


@pytest.mark.parametrize(
    ("readme", "folders", "said"),
    [
        ("# no markers\n", ["ann-vs-cnn"], "README.md has no table to replace"),
        ("<!-- results:end --> <!-- results:begin -->", ["ann-vs-cnn"], "README.md has no table"),
        (README, ["nowhere"], "None of the folders holds a study"),
        (README, ["ann-vs-cnn", "ann-vs-cnn"], "Two folders hold the study ann-vs-cnn"),
        (README, ["broken"], "is not the summary of a study"),
    ],
)
def test_wrong_input_is_named_and_nothing_is_written(
    make_results, root: Path, readme: str, folders: list[str], said: str
):
    (root / "README.md").write_text(readme)
    (root / "studies" / "broken").mkdir()
    (root / "studies" / "broken" / "summary.json").write_text("{}")
    made = make_results(root, folders=[root / "studies" / name for name in folders])
    assert made.returncode == 2
    assert said in made.stderr
    assert "Traceback" not in made.stderr
    assert not (root / "docs/results.md").exists()
    assert (root / "README.md").read_text() == readme


def test_labels_cannot_break_a_table_or_make_a_link(make_results, root: Path):
    path = root / "studies" / "ann-vs-cnn" / "summary.json"
    label = "[0, 1](http://x) | <b>*a*</b> `lr=1`"
    path.write_text(path.read_text().replace('"CNN"', json.dumps(label)))
    make_results(root, folders=[path.parent])
    document = (root / "docs/results.md").read_text()
    assert r"\[0, 1\](http://x) \| \<b>\*a\*\</b> `lr=1`" in document
    assert "](http" not in document.replace(r"\](http", "")
