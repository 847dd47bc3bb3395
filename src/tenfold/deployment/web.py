"""A folder that classifies in the browser: the service's page, the model and ONNX Runtime for the
web. Any server of files shows it, and no image leaves the browser.
"""

import hashlib
import json
import shutil
import tarfile
from pathlib import Path

from tenfold.data.cache_folder import cache_folder
from tenfold.data.sources.origins import from_npm
from tenfold.deployment.predictor import EVEN, Predictor
from tenfold.errors import TenfoldError
from tenfold.files import atomic_file, write_text
from tenfold.progress import Progress

PACKAGE = "onnxruntime-web@1.23.2"
RUNTIME = {
    "ort.wasm.min.js": "c6bc9f8e1d0ecc3983a57910e6a30b2230a512bcd2e0207cd64306459c3de7b4",
    "ort-wasm-simd-threaded.mjs": (
        "90a557d15c02bac4504d95b67f431d8594635ed2a0a62a7f2cd83d090ff91d3e"
    ),
    "ort-wasm-simd-threaded.wasm": (
        "45eaee27761ad883742a8d4b8fce1538d60ce43b51adf1726fafccc59b8c1a15"
    ),
}
"""The files of PACKAGE that a page needs, with their SHA-256 sums. They have the MIT licence."""

_HERE = Path(__file__).parent
_SLOT = "<!-- A web export has its scripts here. -->\n"


def write_web(model: Path, folder: Path, runtime: list[Path]) -> list[Path]:
    """Write `index.html`, its scripts, `model.onnx`, `model.json` and the runtime into `folder`,
    which is new, and return them.

    model: a file that `tenfold export` wrote. runtime: the files that `find_runtime` gives.
    """
    predictor = Predictor(model, threads=1)
    predictor.threshold = EVEN  # As the service does.
    page = (_HERE / "page.html").read_text(encoding="utf-8")
    scripts = [f'<script src="{name}"></script>\n' for name in ("ort.wasm.min.js", "local.js")]
    written = [folder / name for name in ("index.html", "model.json", "local.js", "model.onnx")]
    write_text(written[0], page.replace(_SLOT, "".join(scripts)))
    write_text(written[1], json.dumps(known_to_page(predictor, model.stem)) + "\n")
    for source, target in zip((_HERE / "local.js", model), written[2:], strict=True):
        shutil.copyfile(source, target)
    return [*written, *(Path(shutil.copy(file, folder)) for file in runtime)]


def known_to_page(predictor: Predictor, name: str) -> dict[str, object]:
    """What a page in a browser needs to know of the model called `name`."""
    own = ("class_names", "image_size", "threshold", "sets", "has_map")
    known = {"samples": [], "operating_points": [], "scores": {}, **predictor.facts}
    stated = ("accuracy", "data", "samples", "temperature", "views", "operating_points", "scores")
    return {
        "name": name,
        **{each: getattr(predictor, each) for each in own},
        **{each: known[each] for each in stated},
    }


def find_runtime(folder: Path | None, *, progress: Progress | None = None) -> list[Path]:
    """The runtime's files, whose sums have been checked.

    folder: has the files of PACKAGE, such as `node_modules/onnxruntime-web/dist`; None takes the
    cache's, which npm fills. Raises TenfoldError where they can't be had or are others.
    """
    place = folder or cache_folder() / "web" / PACKAGE
    if folder is None and not all((place / name).is_file() for name in RUNTIME):
        _fetch(place, progress=progress)
    for name, sum_ in RUNTIME.items():
        file = place / name
        if not file.is_file():
            raise TenfoldError(f"{place} has no {name}; name the folder dist of {PACKAGE}.")
        if hashlib.sha256(file.read_bytes()).hexdigest() != sum_:
            raise TenfoldError(
                f"{file} is not that of {PACKAGE}; remove it, or name another folder."
            )
    return [place / name for name in RUNTIME]


def _fetch(place: Path, *, progress: Progress | None) -> None:
    """Have npm bring the package, and keep of it what is needed."""
    try:
        package = from_npm(PACKAGE, place, progress=progress)
        with tarfile.open(package) as archive:
            for name in RUNTIME:
                member = archive.extractfile(f"package/dist/{name}")
                assert member is not None
                with atomic_file(place / name) as file:
                    shutil.copyfileobj(member, file)
        package.unlink()
    except (OSError, KeyError, tarfile.TarError) as error:
        raise TenfoldError(
            f"{PACKAGE} can't be had through npm ({error}); name a folder that has it with "
            "--runtime."
        ) from error
