"""Name what is on images: python predict.py photo.jpg ... (needs requirements.txt alone)"""

import json
import sys
from pathlib import Path

import onnxruntime
from pictures import prepare_picture  # type: ignore[import-not-found]


def main(paths: list[str], status: int = 0) -> int:
    """Print the class and the confidence of each image; 1 if one of them can't be read."""
    model = Path(__file__).with_name("model.onnx").read_bytes()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    facts = json.loads(session.get_modelmeta().custom_metadata_map["tenfold"])
    names = facts["class_names"]
    for path in paths:
        try:
            size, window = tuple(facts["image_size"]), facts["window"]
            pixels = prepare_picture(path, size=size, window=window)
            [[shares]] = session.run(["probabilities"], {"pixels": pixels[None]})
            answer = f"{names[shares.argmax()]} ({shares.max():.1%})"
            for point in facts["operating_points"]:  # Thresholds by a wanted sensitivity.
                share, name = shares[names.index(point["class_name"])], point["class_name"]
                answer += f"; {name}: {'yes' if share >= point['threshold'] else 'no'}"
        except Exception as error:  # What a broken image raises is without limits.
            answer, status = f"can't be read ({error})", 1
        print(f"{path}: {answer}")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) if sys.argv[1:] else __doc__)
