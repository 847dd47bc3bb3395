"""The network of TensorFlow's tutorial, trained by Keras 3: the other side of `against_keras.py`.

Runs in an environment of its own with TensorFlow in it (`pip install tensorflow`), reads the
images from an npz file that `tenfold data export` wrote, and prints one JSON object.
"""

import argparse
import json
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", help="the .npz file with train and test images")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    keras.utils.set_random_seed(options.seed)
    with np.load(options.images) as file:
        train, test = (
            (file[f"{split}_images"].astype(np.float32) / 255, file[f"{split}_labels"])
            for split in ("train", "test")
        )
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    started = time.perf_counter()
    # The tutorial scores the test images after each epoch; this leaves that out, as tenfold does.
    model.fit(*train, epochs=options.epochs, batch_size=32, verbose=2)
    seconds = time.perf_counter() - started
    _, accuracy = model.evaluate(*test, batch_size=1000, verbose=0)
    print(
        json.dumps(
            {
                "seconds": seconds,
                "accuracy": float(accuracy),
                "num_parameters": model.count_params(),
                "epochs": options.epochs,
                "keras": keras.__version__,
                "tensorflow": tf.__version__,
            }
        )
    )


if __name__ == "__main__":
    main()
