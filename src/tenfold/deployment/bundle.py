"""Folders to give away: the model with a script that needs no tenfold, or with a page that
classifies in the browser, from any server of files, where no image leaves the browser."""

import hashlib
import json
import tarfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from tenfold.data import decoding
from tenfold.data.cache_folder import cache_folder
from tenfold.data.sources.origins import from_npm
from tenfold.data.writing import new_folder
from tenfold.deployment.predictor import EVEN, Predictor
from tenfold.errors import TenfoldError
from tenfold.files import write_bytes
from tenfold.progress import Progress
from tenfold.run import RunFolder

if TYPE_CHECKING:
    from tenfold.deployment.export import Export

HERE, RULES = Path(__file__).parent, Path(decoding.__file__)

REQUIREMENTS = "numpy>=1.26\nonnxruntime>={onnxruntime}\npillow>=10.4\n"
OLDEST_RUNTIME, ITS_OPSET = "1.20", 21  # The latter: the newest that it reads.

PACKAGE = "onnxruntime-web@1.23.2"
# The files of PACKAGE that a page needs, by their SHA-256 sums. They have the MIT licence.
WASM = "ort-wasm-simd-threaded"
RUNTIME = {
    "c6bc9f8e1d0ecc3983a57910e6a30b2230a512bcd2e0207cd64306459c3de7b4": "ort.wasm.min.js",
    "90a557d15c02bac4504d95b67f431d8594635ed2a0a62a7f2cd83d090ff91d3e": f"{WASM}.mjs",
    "45eaee27761ad883742a8d4b8fce1538d60ce43b51adf1726fafccc59b8c1a15": f"{WASM}.wasm",
}
SLOT = "<!-- A web export has its scripts here. -->\n"


def write_bundle(run: RunFolder, export: "Export", folder: Path, *, card: str) -> list[Path]:
    """Write `model.onnx`, `predict.py`, the `images.py` and `dicom.py` by whose rules tenfold
    reads files, `requirements.txt`, a `README.md` and the run's `card.md`
    into `folder`, and return them. Raises TenfoldError as `new_folder` does."""
    runtime = OLDEST_RUNTIME if export.opset <= ITS_OPSET else metadata.version("onnxruntime")
    known = {"name": run.path.resolve().parent.name, **export.gate._asdict()}
    contents: dict[str, str | Path] = {
        "model.onnx": export.path,
        "predict.py": HERE / "predict_script.py",
        "images.py": RULES,
        "dicom.py": RULES.with_name("dicom.py"),
        "requirements.txt": REQUIREMENTS.format(onnxruntime=runtime),
        "README.md": (HERE / "bundle_readme.md").read_text(encoding="utf-8").format(**known),
        "card.md": card,
    }
    return _write(folder, contents)


def write_web(model: Path, folder: Path, runtime: list[Path]) -> list[Path]:
    """Write `index.html`, its scripts, `model.onnx`, `model.json` and the runtime into `folder`,
    and return them.

    model: a file that `tenfold export` wrote. runtime: the files that `find_runtime` gives.
    """
    predictor = Predictor(model, threads=1)
    predictor.threshold = EVEN  # As the service does.
    scripts = [f'<script src="{name}"></script>\n' for name in ("ort.wasm.min.js", "local.js")]
    page = (HERE / "page.html").read_text(encoding="utf-8").replace(SLOT, "".join(scripts))
    contents: dict[str, str | Path] = {
        "index.html": page,
        "model.json": json.dumps(predictor.known_to_page(model.stem)) + "\n",
        "local.js": HERE / "local.js",
        "model.onnx": model,
        **{file.name: file for file in runtime},
    }
    return _write(folder, contents)


def _write(folder: Path, contents: dict[str, str | Path]) -> list[Path]:
    """Texts and copies of files by name, all of them or none."""
    with new_folder(folder.absolute()) as new:
        for name, given in contents.items():
            (new / name).write_bytes(
                given.read_bytes() if isinstance(given, Path) else given.encode()
            )
    return [folder / name for name in contents]


def find_runtime(folder: Path | None, *, progress: Progress | None = None) -> list[Path]:
    """The runtime's files, whose sums have been checked.

    folder: has the files of PACKAGE, such as `node_modules/onnxruntime-web/dist`; None takes the
    cache's, which npm fills. Raises TenfoldError where they can't be had or are others.
    """
    place = folder or cache_folder() / "web" / PACKAGE
    files = [place / name for name in RUNTIME.values()]
    if folder is None and not all(file.is_file() for file in files):
        try:
            package = from_npm(PACKAGE, place, progress=progress)
            with tarfile.open(package) as archive:
                for file in files:
                    member = archive.extractfile(f"package/dist/{file.name}")
                    write_bytes(file, member.read() if member else b"")
            package.unlink()
        except (OSError, KeyError, tarfile.TarError) as error:
            wrong = f"{PACKAGE} can't be had through npm ({error})"
            raise TenfoldError(f"{wrong}; name a folder that has it with --runtime.") from error
    for file, sum_ in zip(files, RUNTIME, strict=True):
        if not file.is_file():
            raise TenfoldError(f"{place} has no {file.name}; name the folder dist of {PACKAGE}.")
        if hashlib.sha256(file.read_bytes()).hexdigest() != sum_:
            raise TenfoldError(f"{file} is not that of {PACKAGE}; remove or replace it.")
    return files
