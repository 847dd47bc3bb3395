"""What importing tenfold costs, and what every module owes its reader."""

import ast
from pathlib import Path

import pytest

import tenfold
from tenfold.errors import TenfoldError, require_packages

SOURCES = sorted(Path(tenfold.__file__).parent.rglob("*.py"))
HEAVY = ("torch", "torchvision", "accelerate", "matplotlib", "sklearn", "pyarrow", "httpx", "PIL")

LOADED = """
import sys
for name in sys.argv[2:]:
    assert name not in sys.modules, f"{name} is there before anything is imported"
__import__(sys.argv[1])
print(*[name for name in sys.argv[2:] if name in sys.modules])
"""


@pytest.mark.parametrize("module", ["tenfold", "tenfold.recipe", "tenfold.data", "tenfold.run"])
def test_an_import_loads_nothing_heavy(run_python, module):
    done = run_python(LOADED, module, *HEAVY)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


TRAINED = """
import sys, tenfold
for name in ("sgd", "adam", "adamw", "muon"):
    model, widths = ("speedrun", (8, 8, 8)) if name == "muon" else ("ann", (8,))
    options = {"model__name": model, "model__widths": widths, "data__image_size": 16}
    options |= {"epochs": 1, "training__min_steps": 0, "data__train_size": 100, "progress": False}
    tenfold.train("ann", data="digits", optimizer__name=name, **options)
print(*[name for name in sys.argv[1:] if name in sys.modules])
"""


def test_a_training_imports_neither_compiler_nor_scikit_learn(run_python, tmp_path, monkeypatch):
    """Each takes two seconds, of runs that may take five."""
    monkeypatch.chdir(tmp_path)
    done = run_python(TRAINED, "torch._dynamo", "sklearn", "sympy", "pandas")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: "/".join(path.parts[-2:]))
def test_every_module_says_what_it_is(path):
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring is not None
    assert len(docstring.split()) >= 3


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: "/".join(path.parts[-2:]))
def test_only_the_command_line_prints(path):
    if "/".join(path.parts[-2:]) in ("cli/app.py", "console/output.py"):
        return
    if path.name == "predict_script.py":  # It is copied, and is a command line of its own.
        return
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert not [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]


def test_a_package_that_is_missing_or_broken_is_named_with_its_extra(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("raise ImportError('a library is missing')")
    monkeypatch.syspath_prepend(tmp_path)
    require_packages("json", what="Serving needs X", extra="serve")
    for name in ("broken_package", "absent_package"):
        with pytest.raises(TenfoldError, match=r"Serving needs X; .*pip install '.\[serve\]'"):
            require_packages("json", name, what="Serving needs X", extra="serve")
