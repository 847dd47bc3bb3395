"""`make install`, and the wheel that others install."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

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


@pytest.mark.slow
@pytest.mark.network
def test_a_wheel_that_is_built_is_installed_elsewhere_and_trains(tmp_path):
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    built = subprocess.run(
        [*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)],
        capture_output=True,
        text=True,
    )
    if built.returncode and "hatchling" in built.stderr:
        pytest.skip("hatchling can't be had")
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("tenfold-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in (ROOT / "src/tenfold").rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            assert path.relative_to(ROOT / "src").as_posix() in names
    course = ROOT / "course"
    for path in filter(Path.is_file, course.rglob("*")):
        assert f"tenfold/course/chapters/{path.relative_to(course).as_posix()}" in names
    # Its packages are those of this environment, which has no tenfold of its own to be found.
    place = tmp_path / "elsewhere"
    venv.create(place, with_pip=False, symlinks=True)
    packages = next(place.glob("lib/python*/site-packages"))
    zipfile.ZipFile(wheel).extractall(packages)
    (packages / "shared.pth").write_text(f"{Path(pytest.__file__).parent.parent}\n")
    code = "import sys, tenfold.cli as c; print(c.__file__); c.main()"
    few = ["--set", "training.epochs=1", "--set", "training.min_steps=0", "--threads", "1"]
    for command in (["train", "ann", "--data", "digits", *few], ["course", "5"]):
        done = subprocess.run(
            [place / "bin/python", "-c", code, *command],
            cwd=tmp_path,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(str(packages))
    assert (tmp_path / "runs/ann/1/report.html").exists()
    assert (tmp_path / "05-convolution-and-pooling.ipynb").exists()
    assert (tmp_path / "widgets/kernel-stride-padding.html").exists()
