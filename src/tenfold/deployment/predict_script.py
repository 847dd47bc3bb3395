"""Name the class of images: python predict.py [--sets 95] photo.jpg ...

--sets 90, 95 or 99: also the classes that hold the true one in so many cases of a hundred, for
images like those that it was validated on. It needs requirements.txt alone."""

import json
import sys
from pathlib import Path

import onnxruntime
from images import prepare_image  # type: ignore[import-not-found]


def main(paths: list[str], asked: str = "", status: int = 0) -> int | str:
    """Print class, confidence and set of each image; 1 if one of them can't be read."""
    model = Path(__file__).with_name("model.onnx").read_bytes()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    facts = json.loads(session.get_modelmeta().custom_metadata_map["tenfold"])
    is_one = facts["views"]["kind"] == "one"  # As it looks here, where others promise nothing.
    known, points = (facts[kind] * is_one for kind in ("sets", "operating_points"))
    sets = {f"{100 * x['coverage']:g}": x["probability"] for x in known if x["probability"]}
    if asked and asked not in sets:
        return f"Sets of {asked} % can't be had; there are some of: {', '.join(sets) or 'none'}."
    for path in paths:
        try:
            size, window = tuple(facts["image_size"]), facts["window"]
            pixels = prepare_image(path, size=size, window=window)
            [[shares]] = session.run(["probabilities"], {"pixels": pixels[None]})
            share_of = dict(zip(facts["class_names"], shares, strict=True))
            names = [facts["class_names"][index] for index in (-shares).argsort(kind="stable")]
            line = f"{names[0]} ({shares.max():.1%})"
            for point in points:  # Thresholds by a wanted sensitivity.
                reached = share_of[point["class_name"]] >= point["threshold"]
                line += f"; {point['class_name']}: {'yes' if reached else 'no'}"
            if asked:
                line += f"; set: {', '.join(names[: max(1, (shares >= sets[asked]).sum())])}"
        except Exception as error:  # What a broken image raises is without limits.
            line, status = f"can't be read ({error})", 1
        print(f"{path}: {line}")
    return status


if __name__ == "__main__":
    rest = sys.argv[1:]
    asked = rest[1] if rest[:1] == ["--sets"] and rest[1:] else ""
    sys.exit(main(rest[2:] if asked else rest, asked) if rest else __doc__)
