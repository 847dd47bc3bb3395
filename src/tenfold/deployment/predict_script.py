"""Name what is on pictures: python predict.py photo.jpg ... (needs requirements.txt alone)"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def read(path: str, height: int, width: int) -> np.ndarray:
    """The middle of a picture, upright, in RGB on white, at the model's size."""
    picture = ImageOps.exif_transpose(Image.open(path))
    if picture.mode.startswith("I"):  # Sixteen bits become eight.
        picture = Image.fromarray((np.asarray(picture).clip(0, 65535) // 257).astype(np.uint8))
    white = Image.new("RGBA", picture.size, "white")
    picture = Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
    return np.asarray(ImageOps.fit(picture, (width, height), Image.Resampling.BICUBIC))


def main(paths: list[str], status: int = 0) -> int:
    """Print the class and the confidence of each picture; 1 if one of them can't be read."""
    model = Path(__file__).with_name("model.onnx").read_bytes()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    facts = json.loads(session.get_modelmeta().custom_metadata_map["tenfold"])
    for path in paths:
        try:
            pixels = read(path, *facts["image_size"])[None]
            [[shares]] = session.run(["probabilities"], {"pixels": pixels})
            answer = f"{facts['class_names'][shares.argmax()]} ({shares.max():.1%})"
        except Exception as error:  # What a broken picture raises is without limits.
            answer, status = f"can't be read ({error})", 1
        print(f"{path}: {answer}")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) if sys.argv[1:] else __doc__)
