"""Pages as axe-core (Deque) judges them: contrast, labels, landmarks, keyboard, names."""

import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tenfold
from fabricated_runs import Recipe, make_dataset, make_run
from fabricated_studies import make_published, write_study
from pages import in_all_sizes, opened
from tenfold.audit import AuditOptions, audit
from tenfold.data.explore import explore
from tenfold.data.sources.origins import from_npm
from tenfold.reporting.eda import write_exploration_page
from tenfold.reporting.page import write_report
from tenfold.reporting.study import write_study_page
from tenfold.run import RunFolder
from test_reporting_search_page import make_summary, show

pytestmark = [pytest.mark.long, pytest.mark.browser, pytest.mark.network]


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script; a skip where npm does not have it."""
    try:
        package = from_npm("axe-core@4", tmp_path_factory.mktemp("axe"))
    except OSError as error:
        pytest.skip(str(error))
    with tarfile.open(package) as archive:
        file = archive.extractfile("package/axe.min.js")
        assert file is not None
        return file.read().decode()


def audited(folder: Path) -> Path:
    options = tenfold.TrainOptions(runs=folder)
    run = tenfold.train("cnn", data="digits", epochs=2, options=options, progress=False)
    audit(RunFolder(run.path), options=AuditOptions(images=60))
    return write_report([run.path])


def compared(folder: Path) -> Path:
    dataset = make_dataset()
    runs = [make_run(folder / name / "1", Recipe(name=name, skill=s), dataset=dataset)
            for name, s in (("ann", 1.2), ("cnn", 2.6), ("lenet", 2.0))]  # fmt: skip
    return write_report(runs, folder / "page.html", loader=lambda _: dataset)


def hundred(folder: Path) -> Path:
    names = tuple(f"class number {index}" for index in range(100))
    dataset = make_dataset(names)
    run = make_run(folder / "cnn" / "1", Recipe(class_names=names), dataset=dataset)
    return write_report([run], loader=lambda _: dataset)


def study(folder: Path) -> Path:
    return write_study_page(write_study(folder, make_published()))


def search(folder: Path) -> Path:
    show(folder, make_summary())
    return folder / "report.html"


def explored(folder: Path) -> Path:
    data, path = tenfold.load_data("digits"), folder / "page.html"
    write_exploration_page(explore(data), data, path)
    return path


@pytest.mark.parametrize("write", [audited, compared, hundred, study, search, explored])
def test_axe_finds_nothing(
    write: Callable[[Path], Path], axe: str, browser: Any, tmp_path: Path
) -> None:
    with opened(browser, write(tmp_path)) as page:
        page.evaluate(axe)
        for _ in in_all_sizes(page):
            found = page.evaluate("axe.run({ resultTypes: ['violations'] })")["violations"]
            assert {each["id"]: each["nodes"][0]["html"] for each in found} == {}
