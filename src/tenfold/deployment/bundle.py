"""A folder to give away: the model, what is known of it, and a script that needs no tenfold."""

import shutil
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from tenfold.data import decoding
from tenfold.errors import TenfoldError
from tenfold.files import require_writable, write_text
from tenfold.run import RunFolder

if TYPE_CHECKING:
    from tenfold.deployment.export import Export

SCRIPT = Path(__file__).with_name("predict_script.py")
REQUIREMENTS = "numpy>=1.26\nonnxruntime>={onnxruntime}\npillow>=10.4\n"
OLDEST_RUNTIME, ITS_OPSET = "1.20", 21
"""Of ONNX Runtime that we are tested with, and the newest opset that it reads."""

README = """# {name}

`model.onnx` and `predict.py` classify images, without tenfold or PyTorch:

    pip install -r requirements.txt
    python predict.py photo.jpg ...
    python predict.py --sets 95 photo.jpg ...

`--sets 95` adds the classes that hold the true one in at least 95 % of cases, for images like those
that the model was validated on. DICOM files take `pip install pydicom` as well.

Accuracy, with one view an image as `predict.py` takes it:
{accuracy:.1%} of {num_images:,} {split} images.
"""


def require_new(folder: Path) -> None:
    """Raise TenfoldError where something is in `folder` already, or where it can't be written."""
    if folder.is_file() or (folder.exists() and any(folder.iterdir())):
        raise TenfoldError(f"{folder} is not empty; name another folder for the bundle.")
    require_writable(folder)


def write_bundle(run: RunFolder, export: "Export", folder: Path, *, card: str) -> list[Path]:
    """Write `model.onnx`, `predict.py`, the `pictures.py` and `dicom.py` by whose rules tenfold
    reads files, `requirements.txt`, a `README.md` and the run's `card.md`
    into `folder`, and return them. Raises TenfoldError as `require_new` does."""
    require_new(folder)
    rules = Path(decoding.__file__)
    copies = {"model.onnx": export.path, "predict.py": SCRIPT, "pictures.py": rules}
    copies["dicom.py"] = rules.with_name("dicom.py")
    runtime = OLDEST_RUNTIME if export.opset <= ITS_OPSET else metadata.version("onnxruntime")
    texts = {
        "requirements.txt": REQUIREMENTS.format(onnxruntime=runtime),
        "README.md": README.format(name=run.path.parent.name, **export.gate._asdict()),
        "card.md": card,
    }
    for name, source in copies.items():
        shutil.copyfile(source, folder / name)
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in (*copies, *texts)]
