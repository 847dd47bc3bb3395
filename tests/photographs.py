"""Folders of photographs as people have them: every size, shape, format and orientation."""

from pathlib import Path

import numpy as np

import commands

CLASSES = ("gardens", "people", "temples")


def photographs() -> dict[str, "np.ndarray"]:
    """Three real photographs that come with the libraries, (H, W, 3) uint8."""
    import matplotlib.cbook
    from PIL import Image
    from sklearn.datasets import load_sample_images

    samples = load_sample_images()
    china, flower = samples.images
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        person = np.asarray(Image.open(file).convert("RGB"))
    return dict(zip(CLASSES, (flower, person, china), strict=True))


def make_folder(folder: Path, *, number: int = 30) -> None:
    """Crops of every size and shape, saved in every format that people have."""
    from PIL import Image

    generator = np.random.default_rng(0)
    formats = ("jpg", "png", "webp", "bmp", "gif", "tif", "JPEG")
    for name, photograph in photographs().items():
        (folder / name).mkdir(parents=True)
        height, width = photograph.shape[:2]
        for index in range(number):
            sides = generator.integers(60, 260, 2)
            top = generator.integers(0, height - sides[0])
            left = generator.integers(0, width - sides[1])
            crop = Image.fromarray(photograph[top : top + sides[0], left : left + sides[1]])
            path = folder / name / f"picture {index:02}.{formats[index % len(formats)]}"
            if index % 5 == 0 and path.suffix in (".jpg", ".JPEG"):
                exif = Image.Exif()
                exif[0x0112] = 6
                crop.save(path, exif=exif)
            elif index % 4 == 0 and path.suffix == ".png":
                crop.convert("RGBA").save(path)
            else:
                crop.save(path)


def run_here(arguments: list[str], folder: Path) -> commands.Command:
    """Run a command that keeps decoded pictures in `folder`, not in the user's cache."""
    environment = {"TENFOLD_CACHE": str(folder / "cache")}
    command = commands.start(arguments, folder=folder, environment=environment)
    command.wait(500)  # A minute at most, but two hundred steps take long on a busy machine.
    return command
