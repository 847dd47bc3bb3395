"""Figures of a running service, in the form that Prometheus reads."""

import contextlib
import os
import threading
from collections import defaultdict

BOUNDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Of the histogram of answering times, in seconds."""


class Measures:
    """Counts requests, their seconds, and what the model computed; safe to use from threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: dict[tuple[str, int], int] = defaultdict(int)
        self._buckets = [0] * (len(BOUNDS) + 1)
        self._seconds = 0.0
        self._num_pictures = self._num_batches = 0
        self._computing = 0.0

    def answered(self, path: str, status: int, seconds: float) -> None:
        """A request to `path` was answered."""
        place = next((i for i, bound in enumerate(BOUNDS) if seconds <= bound), len(BOUNDS))
        with self._lock:
            self._requests[path, status] += 1
            self._buckets[place] += 1
            self._seconds += seconds

    def computed(self, number: int, seconds: float) -> None:
        """A batch of `number` pictures was computed."""
        with self._lock:
            self._num_pictures += number
            self._num_batches += 1
            self._computing += seconds

    def text(self, *, waiting: int) -> str:
        """All of it, in the text format of Prometheus, version 0.0.4."""
        with self._lock:
            lines = [
                "# HELP tenfold_requests_total Requests by path and status.",
                "# TYPE tenfold_requests_total counter",
                *(
                    f'tenfold_requests_total{{path="{_escaped(path)}",status="{status}"}} {count}'
                    for (path, status), count in sorted(self._requests.items())
                ),
                "# HELP tenfold_request_seconds Time until a request was answered.",
                "# TYPE tenfold_request_seconds histogram",
            ]
            total = 0
            for bound, count in zip((*BOUNDS, "+Inf"), self._buckets, strict=True):
                total += count
                lines.append(f'tenfold_request_seconds_bucket{{le="{bound}"}} {total}')
            lines += [
                f"tenfold_request_seconds_sum {self._seconds}",
                f"tenfold_request_seconds_count {total}",
                "# HELP tenfold_pictures_total Pictures that the model saw.",
                "# TYPE tenfold_pictures_total counter",
                f"tenfold_pictures_total {self._num_pictures}",
                "# HELP tenfold_batches_total Batches that the model computed.",
                "# TYPE tenfold_batches_total counter",
                f"tenfold_batches_total {self._num_batches}",
                "# HELP tenfold_computing_seconds_total Time that the model computed.",
                "# TYPE tenfold_computing_seconds_total counter",
                f"tenfold_computing_seconds_total {self._computing}",
                "# HELP tenfold_waiting Pictures that wait for the model.",
                "# TYPE tenfold_waiting gauge",
                f"tenfold_waiting {waiting}",
                *_process_lines(),
            ]
        return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    """A label's value, as the format has it."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _process_lines() -> list[str]:
    """Memory and open files of this process, where Linux says them."""
    lines = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[1])
        lines += [
            "# HELP process_resident_memory_bytes Resident memory size in bytes.",
            "# TYPE process_resident_memory_bytes gauge",
            f"process_resident_memory_bytes {pages * os.sysconf('SC_PAGE_SIZE')}",
            "# HELP process_open_fds Number of open file descriptors.",
            "# TYPE process_open_fds gauge",
            f"process_open_fds {len(os.listdir('/proc/self/fd'))}",
        ]
    return lines
