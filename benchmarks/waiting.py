"""What other programs on the cores cost, by how the threads of OpenMP wait for each other.

    python benchmarks/waiting.py [--rounds 5] [--busy 0 1 2] [--out runs/bench/waiting.json]

One process for each way of waiting: as tenfold does (spinning on free cores, asleep beside other
programs), libgomp's own (it spins), and asleep always. They take turns with parts of `ann`, `cnn`,
`fast-75` and the features of `transfer-lite0-head`, alone and beside programs that keep one core
busy each; then the service answers 8 clients. Prints medians, and the seconds beside the programs
over those alone: with b programs on c cores a fair share of them is (c + b) / c.
"""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

WAYS = {
    "tenfold": {},
    "spinning": {"GOMP_SPINCOUNT": "300000"},
    "asleep": {"OMP_WAIT_POLICY": "passive"},
}

PARTS = {
    "ann": ("ann", ["training.epochs=2", "data.train_size=10000"]),
    "cnn": ("cnn", ["training.epochs=1", "data.train_size=6000"]),
    "fast-75": ("fast-75", ["training.epochs=2", "data.train_size=8000"]),
    "transfer": ("transfer-lite0-head", ["data.train_size=150", "data.validation_size=50"]),
}


def work() -> None:
    """A process that trains the parts that it reads the names of, and prints their seconds."""
    from tenfold.data import load
    from tenfold.data.splits import training_data
    from tenfold.evaluation.evaluate import splitting
    from tenfold.recipe import load_recipe
    from tenfold.training.process import prepare_process
    from tenfold.training.trainer import fit
    from tenfold.waiting import sharing_cores

    prepare_process()
    dataset = load("cifar10")
    prepared = {}
    for name, (recipe, changes) in PARTS.items():
        chosen = load_recipe(recipe, [*changes, "training.min_steps=0"])
        prepared[name] = chosen, training_data(dataset, **splitting(chosen.data))
    with sharing_cores():
        print("ready", flush=True)
        for line in sys.stdin:
            recipe, data = prepared[line.strip()]
            with tempfile.TemporaryDirectory() as cache:  # Features are computed each time.
                os.environ["TENFOLD_CACHE"] = cache
                started = time.perf_counter()
                fit(recipe, data)
            print(time.perf_counter() - started, flush=True)


class Worker:
    """A process that waits in one of the ways."""

    def __init__(self, way: str) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--work"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**environment, **WAYS[way]},
        )
        self._read()

    def seconds(self, part: str) -> float:
        """How long `part` takes now."""
        assert self._process.stdin is not None
        print(part, file=self._process.stdin, flush=True)
        return float(self._read())

    def end(self) -> None:
        """Let the process go."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@contextlib.contextmanager
def busy_programs(number: int) -> Iterator[None]:
    """So many programs that keep a core busy each."""
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        if programs:
            time.sleep(2)  # Who is slowed down should know by now.
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()
        if programs:
            time.sleep(3)


def serve(model: Path, busy: list[int], rounds: int) -> dict[str, list[float]]:
    """Milliseconds below which 99 % of the answers to 8 clients come."""
    from serving import load, pictures, reachable, request_of, serving

    requests = [request_of(content) for content in pictures()]
    found: dict[str, list[float]] = {str(number): [] for number in busy}
    command = [sys.executable, "-m", "tenfold", "serve", "--port", "0", "--json", str(model)]
    with serving(command) as port:
        asyncio.run(reachable(port))
        asyncio.run(load(port, requests, clients=8, seconds=2.0))
        for _ in range(rounds):
            for number in busy:
                with busy_programs(number):
                    answers = asyncio.run(load(port, requests, clients=8, seconds=5.0))
                found[str(number)].append(1000 * float(np.quantile(answers, 0.99)))
    return found


def model_to_serve(folder: Path) -> Path:
    """An exported network of `fast-75`; how well it was trained changes no time."""
    run = folder / "run"
    small = ["--set", "data.train_size=2000", "--set", "training.epochs=1"]
    commands = [
        ["train", "fast-75", *small, "--no-report", "--folder", str(run)],
        ["export", str(run)],
    ]
    for command in commands:
        subprocess.run([sys.executable, "-m", "tenfold", *command], check=True, capture_output=True)
    return run / "export/model.onnx"


def table(found: dict[str, Any]) -> None:
    """Print medians and ratios."""
    cores = os.cpu_count() or 1
    for part, ways in found.items():
        for way, by_busy in ways.items():
            alone = median(by_busy["0"]) if by_busy.get("0") else None
            cells = []
            for busy, values in by_busy.items():
                if not values:
                    continue
                cell = f"{busy} busy: {median(values):.2f} (n = {len(values)})"
                if alone and busy != "0":
                    fair = (cores + int(busy)) / cores
                    cell += f" = {median(values) / alone:.2f} x alone, {fair:.1f} is fair"
                cells.append(cell)
            print(f"{part:10} {way:10} " + "; ".join(cells))


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--others", type=int, default=1, help="rounds of the other ways, if busy")
    parser.add_argument("--parts", nargs="*", default=[*PARTS], choices=[*PARTS])
    parser.add_argument("--no-service", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/waiting.json"))
    options = parser.parse_args()
    if options.work:
        work()
        return
    workers = {way: Worker(way) for way in WAYS}
    found: dict[str, Any] = {
        part: {way: {str(b): [] for b in options.busy} for way in WAYS} for part in options.parts
    }
    for round_ in range(options.rounds):
        for busy in options.busy:
            with busy_programs(busy):
                for part in options.parts:
                    for way, worker in workers.items():
                        if way == "tenfold" or busy == 0 or round_ < options.others:
                            found[part][way][str(busy)].append(worker.seconds(part))
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found, indent=1))
    for worker in workers.values():
        worker.end()
    if not options.no_service:
        with tempfile.TemporaryDirectory() as folder:
            model = model_to_serve(Path(folder))
            found["p99 in ms"] = {"tenfold": serve(model, options.busy, options.rounds)}
    options.out.write_text(json.dumps(found, indent=1))
    table(found)


if __name__ == "__main__":
    main()
