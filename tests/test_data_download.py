"""The downloader against a real server that does everything wrong."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from miniature import HASTY, PATIENT, Served, Server, serving
from tenfold.data.sources.download import Limits, Request, SlowSourceError, SourceError, download

MIB = 1 << 20
CONTENT = np.random.default_rng(1).bytes(3 * MIB + 17)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


def request_for(url: str, folder: Path, **changes: object) -> Request:
    return replace(Request(url, folder / "downloads" / "file.bin", 100 * MIB), **changes)


def run(
    request: Request, *, yields: bool = True, limits: Limits = PATIENT, **changes: float
) -> bool:
    limits = replace(limits, **changes)
    return download(request, limits=limits, yields=yields, label="file")


def test_a_file_arrives_whole_with_progress(server: Server, tmp_path: Path) -> None:
    request = request_for(server.add("/file", Served(CONTENT)), tmp_path)
    steps: list[tuple[str, int, int | None]] = []
    resumed = download(
        request,
        limits=PATIENT,
        yields=True,
        label="file",
        progress=lambda *step: steps.append(step),
    )
    assert not resumed
    assert request.path.read_bytes() == CONTENT
    assert steps[-1] == ("file", len(CONTENT), len(CONTENT))
    assert [path.name for path in request.path.parent.iterdir()] == ["file.bin"]
    assert run(request)
    assert len(server.requests) == 1, "a complete file is not fetched twice"


def test_a_connection_that_breaks_off_is_taken_up_where_it_stopped(
    server: Server, tmp_path: Path
) -> None:
    url = server.add("/file", Served(CONTENT, cut_at=MIB, num_bad=2))
    request = request_for(url, tmp_path)
    run(request)
    assert request.path.read_bytes() == CONTENT
    assert server.ranges("/file") == [None, f"bytes={MIB}-", f"bytes={2 * MIB}-"]


def test_a_file_that_changed_meanwhile_is_fetched_afresh(server: Server, tmp_path: Path) -> None:
    url = server.add("/file", Served(bytes(3 * MIB), cut_at=MIB))
    request = request_for(url, tmp_path)
    with pytest.raises(SourceError, match="broke off"):
        run(request, attempts=1)
    server.change("/file", content=CONTENT, cut_at=None, etag='"two"')
    assert run(request)
    assert server.ranges("/file")[-1] == f"bytes={MIB}-"
    assert request.path.read_bytes() == CONTENT


def test_a_host_that_ignores_ranges_sends_everything_again(server: Server, tmp_path: Path) -> None:
    url = server.add("/file", Served(CONTENT, cut_at=MIB, num_bad=1, ranges=False))
    request = request_for(url, tmp_path)
    run(request)
    assert request.path.read_bytes() == CONTENT


def test_a_download_killed_before_its_renaming_is_complete(server: Server, tmp_path: Path) -> None:
    request = request_for(server.add("/file", Served(CONTENT)), tmp_path)
    request.path.parent.mkdir()
    request.path.with_name("file.bin.part").write_bytes(CONTENT)
    assert run(request)
    assert request.path.read_bytes() == CONTENT
    assert server.ranges("/file") == [f"bytes={len(CONTENT)}-"]


def test_a_partial_file_longer_than_the_whole_is_dropped(server: Server, tmp_path: Path) -> None:
    request = request_for(server.add("/file", Served(CONTENT)), tmp_path)
    request.path.parent.mkdir()
    request.path.with_name("file.bin.part").write_bytes(CONTENT + b"more")
    run(request)
    assert request.path.read_bytes() == CONTENT


def test_row_18_a_download_always_cut_off_gives_up(server: Server, tmp_path: Path) -> None:
    request = request_for(server.add("/file", Served(CONTENT, cut_at=1000)), tmp_path)
    with pytest.raises(SourceError, match="broke off"):
        run(request)
    assert not request.path.exists()
    assert len(server.requests) == PATIENT.attempts


@pytest.mark.parametrize(
    ("served", "said"),
    [
        (Served(status=404), "HTTP 404 Not Found"),
        (Served(status=500), "HTTP 500"),
        (Served(status=302, location="/bad"), "redirects"),
        (Served(status=302, location="ftp://127.0.0.1/file"), "ftp"),
        (Served(b""), "empty"),
        (Served(bytes(5000)), "more than 1000 bytes"),
    ],
)
def test_the_reason_is_told_in_short(
    server: Server, tmp_path: Path, served: Served, said: str
) -> None:
    request = request_for(server.add("/bad", served), tmp_path, max_bytes=1000)
    with pytest.raises(SourceError, match=said) as caught:
        run(request)
    assert len(str(caught.value)) < 160
    assert not request.path.exists()


def test_nobody_there(tmp_path: Path) -> None:
    for url in ("http://127.0.0.1:9/file", "http://host.invalid/file", "http://[bad/file", "no"):
        with pytest.raises(SourceError):
            run(request_for(url, tmp_path))


def test_a_wrong_proxy_setting_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "nonsense://proxy")
    with pytest.raises(SourceError, match="no connection can be set up"):
        run(request_for("http://host.invalid/file", tmp_path))


def test_a_slow_host_yields_and_is_resumed_later(server: Server, tmp_path: Path) -> None:
    url = server.add("/file", Served(CONTENT, bytes_per_second=50_000, num_bad=1))
    request = request_for(url, tmp_path)
    started = time.monotonic()
    with pytest.raises(SlowSourceError, match="too slow"):
        run(request, limits=HASTY)
    assert time.monotonic() - started < 10
    partial = request.path.with_name("file.bin.part").stat().st_size
    assert partial > 0
    assert run(request, yields=False)
    assert server.ranges("/file") == [None, f"bytes={partial}-"]
    assert request.path.read_bytes() == CONTENT


def test_a_slow_host_is_waited_for_when_it_is_the_last(server: Server, tmp_path: Path) -> None:
    content = CONTENT[:60_000]
    url = server.add("/file", Served(content, bytes_per_second=50_000))
    request = request_for(url, tmp_path)
    run(request, yields=False)
    assert request.path.read_bytes() == content


def test_a_host_that_stalls(server: Server, tmp_path: Path) -> None:
    url = server.add("/file", Served(CONTENT, bytes_per_second=0))
    with pytest.raises(SlowSourceError, match="stopped sending"):
        run(request_for(url, tmp_path), limits=HASTY)
    with pytest.raises(SourceError, match="stopped sending") as caught:
        run(request_for(url, tmp_path), yields=False, read_seconds=0.3)
    assert not isinstance(caught.value, SlowSourceError)


def test_a_download_has_a_limit_in_all(server: Server, tmp_path: Path) -> None:
    url = server.add("/file", Served(CONTENT, bytes_per_second=100_000))
    with pytest.raises(SourceError, match="longer than"):
        run(request_for(url, tmp_path), yields=False, total_seconds=0.3)


def test_a_download_works_beside_others_in_threads(server: Server, tmp_path: Path) -> None:
    url = server.add("/file", Served(CONTENT))
    requests = [request_for(url, tmp_path / str(number)) for number in range(4)]
    threads = [threading.Thread(target=run, args=(request,)) for request in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(request.path.read_bytes() == CONTENT for request in requests)
