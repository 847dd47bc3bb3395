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
    picture = picture.convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    picture = Image.alpha_composite(white, picture).convert("RGB")
    return np.asarray(ImageOps.fit(picture, (width, height), Image.Resampling.BICUBIC))


def main() -> None:
    """Print the class and the confidence of each picture that is named."""
    model = str(Path(__file__).with_name("model.onnx"))
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    facts = json.loads(session.get_modelmeta().custom_metadata_map["tenfold"])
    for path in sys.argv[1:]:
        try:
            pixels = read(path, *facts["image_size"])
        except Exception as error:  # What a broken picture raises is without limits.
            print(f"{path}: can't be read ({error})")
            continue
        [[shares]] = session.run(["probabilities"], {"pixels": pixels[None]})
        print(f"{path}: {facts['class_names'][shares.argmax()]} ({shares.max():.1%})")


if __name__ == "__main__":
    main()
