"""`make install`, and the wheel that others install."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import tenfold

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def install(monkeypatch):
    """scripts/install.py as a module."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import install

    return install


def test_uv_looks_for_packages_where_pip_does(install, tmp_path):
    there = tmp_path / "wheels"
    there.mkdir()
    pip = {
        "index-url": "https://example.org/simple",
        "extra-index-url": f"file:///no/such/simple {there.as_uri()}\nhttps://example.com/simple",
        "find-links": f"/no/such/folder {there}",
        "trusted-host": "example.org example.com",
        "cert": "/etc/own.pem",
        "default-timeout": "180",
    }
    assert install.uv_settings(pip, {"UV_INSECURE_HOST": "mine"}) == {
        "UV_DEFAULT_INDEX": "https://example.org/simple",
        "UV_INDEX": f"{there.as_uri()} https://example.com/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": str(there),
        "SSL_CERT_FILE": "/etc/own.pem",
    }
    assert install.uv_settings({"find-links": "/no/such", "no-index": "false"}, {}) == {}
    assert install.uv_settings({"no-index": "true"}, {}) == {"UV_NO_INDEX": "1"}


def test_the_environment_wins_over_files_of_pip_configuration(install, tmp_path, monkeypatch):
    file = tmp_path / "pip.conf"
    file.write_text(
        "[global]\nindex-url = https://example.org/all\ncert = /a.pem\nfind-links = /a\n"
        "[install]\nindex-url = https://example.org/install\n[freeze]\ncert = /no.pem\n"
    )
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    monkeypatch.setenv("PIP_FIND_LINKS", "/b")
    found = install.pip_settings()
    assert found["index-url"] == "https://example.org/install"
    assert (found["cert"], found["find-links"]) == ("/a.pem", "/b")


@pytest.mark.parametrize("failing", [None, "--quiet uv", "--compile-bytecode"])
def test_pip_installs_where_uv_cannot_be_had_or_fails(install, monkeypatch, failing):
    commands = []

    def run(*command, **settings):
        commands.append(" ".join(command))
        return int(failing is not None and failing in commands[-1])

    monkeypatch.setattr(install, "run", run)
    assert install.main() == 0
    *_, last = [command for command in commands if "--editable .[all]" in command]
    assert ("-m pip" in last) == (failing is not None)
    by_uv = [command for command in commands if "--compile-bytecode" in command]
    assert len(by_uv) == (failing != "--quiet uv")


@pytest.fixture
def dist(monkeypatch):
    """scripts/dist.py as a module."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import dist

    return dist


def test_changelog_and_citation_are_of_this_version():
    assert f"\n## [{tenfold.__version__}] - 2" in (ROOT / "CHANGELOG.md").read_text()
    assert f"\nversion: {tenfold.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_what_does_not_belong_into_a_distribution_is_named(dist):
    whole = {
        path.relative_to(ROOT).as_posix(): 100
        for folder in ("src/tenfold", "course")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert dist.faults(whole | {"PKG-INFO": 100, "docs/web-export.png": 33_000}) == []
    chapter = "course/05-convolution-and-pooling.py"
    assert dist.faults({n: s for n, s in whole.items() if n != chapter}) == [
        f"{chapter} is missing"
    ]
    unwanted = {
        "src/tenfold/cifar-10-python.tar.gz": 100,
        "runs/cnn/1/model.safetensors": 100,
        "runs/cnn/1/result.json": 100,
        "docs/everything.html": 600_000,
        "src/tenfold/__pycache__/run.cpython-311.pyc": 100,
    }
    found = dist.faults(whole | unwanted)
    assert [fault.partition(" ")[0] for fault in found] == list(unwanted)


def test_the_places_of_a_wheel_are_those_of_the_clone(dist, tmp_path):
    wheel = tmp_path / "tenfold-9-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("tenfold/run.py", "#")
        file.writestr("tenfold/course/chapters/widgets/a.html", "<p>")
    assert dist.files_in(wheel) == {"src/tenfold/run.py": 1, "course/widgets/a.html": 3}


@pytest.mark.slow
@pytest.mark.network
def test_wheel_and_source_are_installed_elsewhere_train_and_teach(tmp_path):
    pytest.importorskip("build", reason="make install brings it")
    made = tmp_path / "dist"
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/dist.py", "--out", made], capture_output=True, text=True
    )
    if "Could not find a version that satisfies the requirement hatchling" in done.stdout:
        pytest.skip("hatchling can't be had")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("installed and tried") == 2
    assert {path.name.partition("-")[2] for path in made.iterdir()} == {
        f"{tenfold.__version__}-py3-none-any.whl",
        f"{tenfold.__version__}.tar.gz",
    }
