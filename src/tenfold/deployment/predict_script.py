"""Name what is on pictures: python predict.py photo.jpg ... (needs requirements.txt alone)"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def read(path: str, height: int, width: int) -> np.ndarray:
    """The middle of a picture, upright, in RGB on white, at the model's size."""
    picture = ImageOps.exif_transpose(Image.open(path)).convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    picture = Image.alpha_composite(white, picture).convert("RGB")
    size, method = (width, height), Image.Resampling.BICUBIC
    return np.asarray(ImageOps.fit(picture, size, method), dtype=np.uint8)


def main() -> None:
    """Print the class and the confidence of each picture that is named."""
    model = str(Path(__file__).with_name("model.onnx"))
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    facts = json.loads(session.get_modelmeta().custom_metadata_map["tenfold"])
    for path in sys.argv[1:]:
        try:
            pixels = read(path, *facts["image_size"])
        except OSError as error:
            print(f"{path}: {error}")
            continue
        [probabilities] = session.run(["probabilities"], {"pixels": pixels[None]})
        best = int(probabilities[0].argmax())
        print(f"{path}: {facts['class_names'][best]} ({probabilities[0, best]:.1%})")


if __name__ == "__main__":
    main()
