"""Files that somebody published: from the cache, from a place that was named, or not at all."""

import hashlib
from functools import partial

import pytest

from tenfold.data.sources import published_files
from tenfold.data.sources.download import Limits
from tenfold.data.sources.published_files import PublishedFile, obtain
from tenfold.errors import TenfoldError

CONTENT = b"what was published"
FILE = PublishedFile(
    "http://127.0.0.1:9/answers.npy", hashlib.sha256(CONTENT).hexdigest(), max_bytes=1000
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "cache"))
    quick = partial(Limits, attempts=1, pause_seconds=0)
    monkeypatch.setattr(published_files, "Limits", quick)
    return tmp_path / "cache"


def test_a_file_that_was_named_is_kept(tmp_path, cache):
    given = tmp_path / "given.npy"
    given.write_bytes(CONTENT)
    kept = obtain(FILE, given)
    assert kept.read_bytes() == CONTENT
    assert cache in kept.parents
    given.unlink()
    assert obtain(FILE) == kept


def test_another_file_is_refused_and_nothing_kept(tmp_path, cache):
    given = tmp_path / "given.npy"
    given.write_bytes(b"something else")
    with pytest.raises(TenfoldError, match="checksum is another"):
        obtain(FILE, given)
    with pytest.raises(TenfoldError, match="can't be read"):
        obtain(FILE, tmp_path / "nowhere.npy")
    assert not list(cache.rglob("answers*"))


def test_without_a_network_it_says_where_it_would_be():
    with pytest.raises(TenfoldError, match=r"can't be fetched from http://127.0.0.1:9/answers.npy"):
        obtain(FILE)


def test_what_arrives_must_be_what_was_published(monkeypatch, cache):
    def arrives(request, **options):
        request.path.parent.mkdir(parents=True, exist_ok=True)
        request.path.write_bytes(content)
        return False

    monkeypatch.setattr(published_files, "download", arrives)
    content = b"something else"
    with pytest.raises(TenfoldError, match="checksum is another"):
        obtain(FILE)
    assert not list(cache.rglob("answers*"))
    content = CONTENT
    assert obtain(FILE).read_bytes() == CONTENT
