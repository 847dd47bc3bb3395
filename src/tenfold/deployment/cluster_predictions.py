"""Predictions on a Ray cluster: Ray Data hands parts to actors, each of which has the model.

Nodes get the model with their actor and send tables back, so that they need no folder of the
driver's but the images', by the same paths.
"""

import contextlib
import logging
import os
import pickle
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from tenfold.cluster import connect, handed_on, most_jobs, num_gpus
from tenfold.data.image_sources import Part, num_images
from tenfold.data.workers import limit_cores
from tenfold.deployment.any_model import FILES, load_any
from tenfold.errors import TenfoldError
from tenfold.evaluation.prediction_parts import Predict, Settings, Table, predict_here
from tenfold.progress import Progress
from tenfold.run import open_run


def predict_on_cluster(
    run: Path,
    settings: Settings,
    *,
    address: str,
    jobs: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Predict:
    """Predict parts on the cluster at `address`.

    jobs: actors; None has as many as there is room for. threads: of each, 1 if None. A part whose
    actor is lost is predicted again. Raises TenfoldError where there is no cluster or no Ray, and
    what the actors raise.
    """
    ray, threads = connect(address), threads or 1
    import ray.data as ray_data

    ray_data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)

    def predict(parts: Sequence[Part]) -> Generator[tuple[int, Table], None, None]:
        if not parts:
            return
        items = [{"position": n, "part": pickle.dumps(part)} for n, part in enumerate(parts)]
        most = min(jobs or most_jobs(ray, threads), len(parts))
        shipped = run.name if run.suffix in FILES else "", _files(run), handed_on(), Path.cwd()
        rows = ray_data.from_items(items, override_num_blocks=len(items)).map(
            Actor,
            fn_constructor_args=[ray.put(shipped), settings, threads],
            # From one, so that an idle actor makes room where a lost one is to start again.
            compute=ray_data.ActorPoolStrategy(
                min_size=1, initial_size=most, max_size=most, max_tasks_in_flight_per_actor=1
            ),
            num_cpus=threads,
            num_gpus=num_gpus(ray) or None,
        )
        done, total = 0, num_images(parts)
        try:
            for row in rows.iter_rows():
                if row["refused"]:
                    raise TenfoldError(row["refused"])
                table = Table(row["content"], row["num_images"], row["num_broken"])
                done += table.num_images
                if progress is not None:
                    progress("Predicting", done, total)
                yield row["position"], table
        except ray.exceptions.RayError as error:
            why = (str(error).strip() or "lost").splitlines()[-1]
            remedy = "when it can, the same command does what is missing"
            raise TenfoldError(f"The Ray cluster can't go on ({why}); {remedy}.") from None

    return predict


def _files(run: Path) -> dict[str, bytes]:
    """What predicting needs of a run or model, by name."""
    if run.suffix in FILES:
        return {run.name: run.read_bytes()}
    folder = open_run(run)
    files = (folder.recipe, folder.result, folder.model, *(run / "code").rglob("*.py"))
    return {str(each.relative_to(run)): each.read_bytes() for each in files if each.exists()}


class Actor:
    """A model on a node; called with a part it gives its table, or why that can't be had."""

    def __init__(self, shipped: Any, settings: Settings, threads: int) -> None:
        import ray

        model, files, environment, working_folder = ray.get(shipped)
        os.environ.update(environment)
        limit_cores(threads)
        if working_folder.is_dir():
            os.chdir(working_folder)
        with tempfile.TemporaryDirectory(prefix="tenfold-") as folder:
            for name, content in files.items():
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            loaded = load_any(Path(folder, model), threads=threads)
        self._predict = predict_here(loaded.model, settings)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row that the driver takes apart. What is wrong with the images is no reason to try
        again, so that it is a value."""
        table, refused = Table(b"", 0, 0), ""
        try:
            with contextlib.closing(self._predict([pickle.loads(row["part"])])) as found:
                _, table = next(found)
        except TenfoldError as error:
            refused = str(error)
        return {"position": row["position"], **table._asdict(), "refused": refused}
