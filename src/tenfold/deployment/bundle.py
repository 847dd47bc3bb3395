"""A folder to give away: the model, what is known of it, and a script that needs no tenfold."""

import shutil
from pathlib import Path

from tenfold.errors import TenfoldError
from tenfold.files import require_writable, write_text
from tenfold.run import RunFolder

SCRIPT = Path(__file__).with_name("predict_script.py")
REQUIREMENTS = "numpy\nonnxruntime\npillow\n"


def write_bundle(run: RunFolder, model: Path, folder: Path) -> list[Path]:
    """Write `model.onnx`, `predict.py`, `requirements.txt` and the run's card, if it has one, into
    `folder`, and return them. Raises TenfoldError where something is in the folder already."""
    if folder.exists() and any(folder.iterdir()):
        raise TenfoldError(f"{folder} is not empty; name another folder for the bundle.")
    require_writable(folder)
    written = [folder / "model.onnx", folder / "predict.py", folder / "requirements.txt"]
    shutil.copyfile(model, written[0])
    shutil.copyfile(SCRIPT, written[1])
    write_text(written[2], REQUIREMENTS)
    card = run.path / "card.md"
    if card.exists():
        written.append(folder / "README.md")
        shutil.copyfile(card, written[-1])
    return written
