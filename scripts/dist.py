"""What `make dist` runs: builds wheel and source distribution, looks into both, and tries them.

Each is installed into a fresh environment outside the clone, which finds PyTorch and the other
packages in the environment of this Python.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent
DATA = (
    *(".npz", ".npy", ".parquet", ".arrow", ".csv", ".pkl", ".bin", ".mat", ".tar", ".gz", ".xz"),
    *(".zip", ".safetensors", ".pt", ".pth", ".ckpt", ".h5", ".onnx", ".png", ".jpg", ".jpeg"),
)
"""How files of data sets and weights end."""
RUN_FILES = {"result.json", "metrics.jsonl", "provenance.json", "study.json", "trials.json"}
KEPT = {
    "course/cifar10-2000.webp",  # The images of the course.
    "tests/fixtures/version-0.1.0.tar.xz",  # A run that an older version made, for a test.
    "docs/comparison.png",
    "docs/web-export.png",
}
MOST_BYTES = 500_000
"""More has no file of source."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=FOLDER / "dist")
    out = parser.parse_args().out
    shutil.rmtree(out, ignore_errors=True)
    # The wheel is built from the source distribution, which must hold all that it needs.
    subprocess.run([sys.executable, "-m", "build", "--outdir", out, FOLDER], check=True)
    [wheel], [source] = out.glob("*.whl"), out.glob("*.tar.gz")
    for archive in (wheel, source):
        files = files_in(archive)
        if found := faults(files):
            sys.exit("\n".join(f"{archive.name}: {fault}" for fault in found))
        try_out(archive)
        size = archive.stat().st_size / 1e6
        sys.stdout.write(
            f"{archive.name}: {len(files)} files, {size:.1f} MB; installed and tried\n"
        )


def files_in(archive: Path) -> dict[str, int]:
    """The bytes of each file, by its path in the clone."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            sizes = {each.filename: each.file_size for each in wheel.infolist()}
        chapters = "tenfold/course/chapters/"
        return {
            f"course/{name.removeprefix(chapters)}"
            if name.startswith(chapters)
            else f"src/{name}": size
            for name, size in sizes.items()
        }
    with tarfile.open(archive) as source:
        return {each.name.partition("/")[2]: each.size for each in source if each.isfile()}


def faults(files: Mapping[str, int]) -> list[str]:
    """What is missing from a distribution, and what doesn't belong there."""
    found = [
        f"{name} is missing"
        for folder in ("src/tenfold", "course")
        for path in sorted((FOLDER / folder).rglob("*"))
        if path.is_file() and path.suffix != ".pyc"
        if (name := path.relative_to(FOLDER).as_posix()) not in files
    ]
    for name, size in files.items():
        path = Path(name)
        is_data = path.suffix in DATA or path.name in RUN_FILES or size > MOST_BYTES
        if name not in KEPT and (is_data or "__pycache__" in path.parts):
            found.append(f"{name} ({size:,} bytes) is no source; it belongs to data or a run")
    return found


def try_out(archive: Path) -> None:
    """Install it in a fresh environment, train there, and make a chapter of the course."""
    version = re.fullmatch(r"tenfold-([\d.]+?)(-py3-none-any\.whl|\.tar\.gz)", archive.name)
    assert version, archive.name
    with tempfile.TemporaryDirectory() as folder:
        place, work = Path(folder, "venv"), Path(folder, "work")
        work.mkdir()
        venv.create(place, symlinks=os.name == "posix")
        scripts = place / ("Scripts" if os.name == "nt" else "bin")
        python = str(scripts / "python")
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

        def run(*command: str) -> str:
            done = subprocess.run(
                command, cwd=work, env=variables, capture_output=True, text=True, check=False
            )
            if done.returncode:
                sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
            return done.stdout

        packages = run(
            python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"
        ).strip()
        Path(packages, "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
        run(*pip, "install", "--quiet", "--no-deps", "--ignore-installed", str(archive))
        tenfold = str(scripts / "tenfold")
        place_of_package = run(python, "-c", "import tenfold; print(tenfold.__file__)")
        assert place_of_package.startswith(packages), place_of_package
        assert version[1] in run(tenfold, "--version")
        few = ("--set", "training.epochs=1", "--set", "training.min_steps=0", "--threads", "1")
        run(tenfold, "train", "ann", "--data", "digits", *few)
        assert (work / "runs/ann/1/report.html").exists()
        run(tenfold, "course", "5", "--no-open")
        assert (work / "05-convolution-and-pooling.ipynb").exists()
        assert (work / "widgets/kernel-stride-padding.html").exists()
        run(python, "-c", "from tenfold.course import load_images; load_images()")


if __name__ == "__main__":
    main()
