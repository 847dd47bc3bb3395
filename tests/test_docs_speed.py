"""`docs/make_speed.py`: tables and picture from what `make bench` measured."""

import json
import runpy
from pathlib import Path

import pytest

from fabricated_runs import Recipe, make_run
from tenfold.results.measured import MeasuredFile, read_measured

SCRIPT = Path(__file__).parent.parent / "docs/make_speed.py"
DOCUMENTS = ("docs/speed.md", "docs/tour.md")
MARKED = "before\n<!-- speed:begin -->\nold\n<!-- speed:end -->\nafter\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    for name in DOCUMENTS:
        (tmp_path / name).write_text(MARKED)
    return tmp_path


def measure(folder: Path, target: str, accuracies: list[float]) -> None:
    folder.mkdir(exist_ok=True)
    values = {
        "target": target,
        "environment": {
            "hardware": {"cpu": "Some Processor", "cores": 2},
            "libraries": {"torch": "2.15.0"},
        },
        "seeds": [
            {"accuracy": a, "run": str(folder / f"runs/fast-{target}/{i}")}
            for i, a in enumerate(accuracies, start=1)
        ],
        "summary": {
            "recipe": f"fast-{target}",
            "mean": sum(accuracies) / len(accuracies),
            "low": 0.75,
            "high": 0.87,
            "seconds": 83.0,
            "core_seconds": 161.2,
            "flop": 1.2e13,
            "matmul_equivalents": 1.234e13,
            "utilisation": 0.81,
            "precision": "bf16",
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
    for document in DOCUMENTS:
        lines = (root / document).read_text().splitlines()
        assert (lines[0], lines[-1]) == ("before", "after")
        rows = [line for line in lines if line.startswith("| `")]
        assert rows == [
            "| `fast-75` | 75.09 % | 76.00 % (75.00 to 87.00) | 1 | bf16 | 1 min 23 s | 161 | "
            "1.20e13 (1.40e12) | 1.23e13 (–) | 81 % |",
            "| `fast-85` | 85 % | 86.30 % (75.00 to 87.00) | 2 | bf16 | 1 min 23 s | 161 | "
            "1.20e13 (7.00e12) | 1.23e13 (–) | 81 % |",
        ]
        assert "old" not in lines
        text = (root / document).read_text()
        assert "Some Processor, 2 cores; PyTorch 2.15.0; float32 matrix products ran at 149" in text


def test_the_runs_say_what_measured_json_states(root, tmp_path):
    bench = tmp_path / "bench"
    measure(bench, "75", [0.761, 0.765])
    path = root / "src/tenfold/measured.json"
    path.parent.mkdir(parents=True)
    others = {"recipes": {"cnn": read_measured().to_dict()["recipes"]["cnn"]}}
    path.write_text(json.dumps(others))
    for number in (1, 2):
        make_run(bench / f"runs/fast-75/{number}", Recipe(name="fast-75", seconds=12.0))
    assert make(root, bench) == 0
    found = MeasuredFile.model_validate_json(path.read_text())
    assert found.recipes["cnn"] == read_measured().recipes["cnn"]
    one = found.first("fast-75")
    assert one.command == "tenfold bench --to 75"
    assert (one.accuracy.mean, one.accuracy.n, one.accuracy.interval) == (0.763, 2, "seeds")
    assert (one.seconds, one.seconds_of, one.matmul_equivalents) == (83.0, "run", 1.234e13)
    assert (one.core_seconds, one.flop, one.utilisation) == (161.2, 1.2e13, 0.81)
    assert (one.commit, one.machine.threads) == ("2119441-dirty", 2)


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
    assert "1,000 images a second of `fast-91` in floats, 2,000 in eight bits" in text
    assert (root / "docs/speed.md").read_text() == MARKED  # Of the recipes nothing was measured.


def test_the_picture_names_each_curve(root, tmp_path):
    bench = tmp_path / "bench"
    measure(bench, "75", [0.76])
    for name, skill in (("cnn", 2.0), ("fast-75", 2.5)):
        make_run(bench / "curves" / name / "1", Recipe(name=name, skill=skill))
    assert make(root, bench) == 0
    picture = (root / "docs/accuracy-against-time.svg").read_text()
    assert all(f">{name}<" in picture for name in ("cnn", "fast-75"))
    assert "held-out images" in picture
    first = picture
    assert make(root, bench) == 0
    assert (root / "docs/accuracy-against-time.svg").read_text() == first


def test_without_measurements_a_sentence_says_so(root, tmp_path, capsys):
    assert make(root, tmp_path / "nothing") == 2
    assert "holds no measurements; `make bench`" in capsys.readouterr().err
    assert (root / "docs/speed.md").read_text() == MARKED
