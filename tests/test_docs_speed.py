"""`docs/make_speed.py`: tables and picture from what `make bench` measured."""

import json
import runpy
from pathlib import Path

import pytest

from fabricated_runs import Recipe, make_run

SCRIPT = Path(__file__).parent.parent / "docs/make_speed.py"
MARKED = "before\n<!-- speed:begin -->\nold\n<!-- speed:end -->\nafter\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(MARKED)
    (tmp_path / "docs/speed.md").write_text(MARKED)
    return tmp_path


def measure(folder: Path, target: str, accuracies: list[float]) -> None:
    folder.mkdir(exist_ok=True)
    values = {
        "target": target,
        "environment": {
            "hardware": {"cpu": "Some Processor", "cores": 2},
            "libraries": {"torch": "2.15.0"},
        },
        "seeds": [{"accuracy": a, "product_rate": 1.5e11 + i} for i, a in enumerate(accuracies)],
        "summary": {
            "recipe": f"fast-{target}",
            "mean": sum(accuracies) / len(accuracies),
            "seconds": 83.0,
            "operations": 1.234e13,
            "num_seeds": len(accuracies),
        },
    }
    (folder / f"to-{target}.json").write_text(json.dumps(values))


def make(root: Path, folder: Path) -> int:
    return runpy.run_path(str(SCRIPT))["main"](["--root", str(root), str(folder)])


def test_both_documents_get_a_row_for_each_goal_and_keep_the_rest(root, tmp_path):
    measure(tmp_path / "bench", "85", [0.861, 0.865])
    measure(tmp_path / "bench", "75", [0.76])
    assert make(root, tmp_path / "bench") == 0
    for document in ("README.md", "docs/speed.md"):
        lines = (root / document).read_text().splitlines()
        assert (lines[0], lines[-1]) == ("before", "after")
        rows = [line for line in lines if line.startswith("| `")]
        assert rows == [
            "| `fast-75` | 75.09 % | 76.00 % (76.00 to 76.00) | 1 | 1 min 23 s | 1.23e13 | "
            "3.00e12 |",
            "| `fast-85` | 85 % | 86.30 % (86.10 to 86.50) | 2 | 1 min 23 s | 1.23e13 | 1.20e13 |",
        ]
        assert "old" not in lines
        assert "Some Processor, 2 cores, PyTorch 2.15.0" in (root / document).read_text()


def test_what_serving_costs_is_written_where_it_is_described(root, tmp_path):
    (tmp_path / "bench").mkdir()
    served = {"rate": 500.4, "median_ms": 10.0, "p99_ms": 21.26}
    values = {
        "recipe": "fast-91",
        "environment": {"hardware": {"cpu": "Some Processor", "cores": 2}},
        "onnxruntime": 1000.0,
        "onnxruntime_int8": 2000.0,
        "one_view": served,
        "tenfold": served | {"rate": 400.0},
        "int8": served | {"rate": 800.0},
        "unbatched": served | {"rate": 250.0},
    }
    (tmp_path / "bench/serving.json").write_text(json.dumps(values))
    (root / "docs/deploy.md").write_text(MARKED.replace("speed:", "serving:"))
    assert make(root, tmp_path / "bench") == 0
    text = (root / "docs/deploy.md").read_text()
    assert "| `tenfold serve --one-view` | 500 | 50 % | 10.0 ms | 21.3 ms |" in text
    assert "| FastAPI without batching, one view | 250 | 25 % |" in text
    assert "| `tenfold serve --one-view`, in eight bits | 800 | 40 % |" in text
    assert "1,000 pictures a second of `fast-91` in floats, 2,000 in eight bits" in text
    assert (root / "README.md").read_text() == MARKED  # Of the recipes nothing was measured.


def test_the_picture_names_each_curve(root, tmp_path):
    bench = tmp_path / "bench"
    measure(bench, "75", [0.76])
    for name, skill in (("cnn", 2.0), ("fast-75", 2.5)):
        make_run(bench / "curves" / name / "1", Recipe(name=name, skill=skill))
    assert make(root, bench) == 0
    picture = (root / "docs/accuracy-against-time.svg").read_text()
    assert all(f">{name}<" in picture for name in ("cnn", "fast-75"))
    assert "held-out pictures" in picture
    first = picture
    assert make(root, bench) == 0
    assert (root / "docs/accuracy-against-time.svg").read_text() == first


def test_without_measurements_a_sentence_says_so(root, tmp_path, capsys):
    assert make(root, tmp_path / "nothing") == 2
    assert "holds no measurements; `make bench`" in capsys.readouterr().err
    assert (root / "README.md").read_text() == MARKED
