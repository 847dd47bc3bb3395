"""Checkpoints: whatever kills the writer or damages the files, the newest good one is found."""

import contextlib
import hashlib
import json
import logging
import os
import pickle
import resource
import shutil
import signal
import struct
from pathlib import Path

import pytest
import torch

from tenfold.errors import TenfoldError
from tenfold.training import checkpoint
from tenfold.training.checkpoint import newest_good_checkpoint, save_checkpoint


def tensors_of(number):
    generator = torch.Generator().manual_seed(number)
    return {
        "model.0.weight": torch.randn(7, 3, 3, 3, generator=generator).to(
            memory_format=torch.channels_last
        ),
        "model.1.num_batches_tracked": torch.tensor(number),
        "model.half": torch.randn(5, generator=generator).to(torch.bfloat16),
        "optimizer.0.step": torch.tensor(float(number)),
        "empty": torch.zeros(0, 4),
    }


def state_of(number):
    return {"history": {"epoch": number, "loss": 1 / (3 + number), "猫": None, "inf": float("inf")}}


def save_number(folder, number):
    save_checkpoint(folder, tensors_of(number), state_of(number))


def is_number(checkpoint, number):
    """Whether a checkpoint holds exactly what `save_number` wrote."""
    expected = tensors_of(number)
    return (
        checkpoint is not None
        and checkpoint.state == state_of(number)
        and checkpoint.tensors.keys() == expected.keys()
        and all(torch.equal(checkpoint.tensors[name], t) for name, t in expected.items())
        and all(checkpoint.tensors[name].dtype == t.dtype for name, t in expected.items())
    )


def files_of(folder):
    """The newest checkpoint's two files: the JSON and the tensors."""
    newest = max(folder.glob("*.json"))
    return newest, newest.with_suffix(".safetensors")


@pytest.fixture
def folder(tmp_path):
    """A folder with the checkpoints 1 and 2."""
    folder = tmp_path / "checkpoint"
    for number in (1, 2):
        save_number(folder, number)
    return folder


# -- without faults ------------------------------------------------------------------------------


def test_no_checkpoint_at_all(tmp_path):
    assert newest_good_checkpoint(tmp_path / "absent") is None
    assert newest_good_checkpoint(tmp_path) is None


def test_the_newest_of_two_comes_back_exactly(folder, caplog):
    checkpoint = newest_good_checkpoint(folder)
    assert is_number(checkpoint, 2)
    assert checkpoint.path == files_of(folder)[0]
    assert not caplog.records


def test_two_checkpoints_are_kept(tmp_path):
    for number in range(1, 6):
        save_number(tmp_path, number)
        assert is_number(newest_good_checkpoint(tmp_path), number)
    assert len(list(tmp_path.iterdir())) == 4
    files_of(tmp_path)[0].unlink()
    assert is_number(newest_good_checkpoint(tmp_path), 4)


def test_other_files_are_left_alone(folder):
    (folder / "notes.txt").write_text("mine")
    save_number(folder, 3)
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_tensor_that_shares_memory_with_another_is_saved(tmp_path):
    weight = torch.randn(4, 4)
    save_checkpoint(tmp_path, {"a": weight.t(), "b": weight[:2].clone()}, {})
    found = newest_good_checkpoint(tmp_path).tensors
    assert torch.equal(found["a"], weight.t())
    assert torch.equal(found["b"], weight[:2])


@pytest.mark.parametrize("name", ["with some spaces", "Bilder-für-Ωμέγα-猫", "x" * 200])
def test_row_17_checkpoints_in_strange_folders(tmp_path, name):
    save_number(tmp_path / name / "checkpoint", 1)
    assert is_number(newest_good_checkpoint(tmp_path / name / "checkpoint"), 1)


# -- killed while writing ------------------------------------------------------------------------

KILLED_EVERYWHERE = """
import io, itertools, json, os, pathlib, shutil, signal, sys

sys.path.insert(0, sys.argv[1])
work = pathlib.Path(sys.argv[2])
import torch
torch.set_num_threads(1)
from tenfold import files
from test_training_checkpoint import save_number

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def deadly(function, call, moment):
    calls = itertools.count(1)
    def wrapped(*arguments, **keywords):
        now = next(calls) == call
        if now and moment == "before":
            die()
        result = function(*arguments, **keywords)
        if now and moment == "after":
            die()
        return result
    return wrapped

class Torn(io.FileIO):
    def write(self, data):
        super().write(memoryview(data)[: len(data) // 2])
        die()

def torn_open(call):
    calls = itertools.count(1)
    def wrapped(path, mode):
        return Torn(path, "w") if next(calls) == call else open(path, mode)
    return wrapped

def arm(target, call, moment):
    if target == "write":
        files.open = torn_open(call)
    elif target == "unlink":
        pathlib.Path.unlink = deadly(pathlib.Path.unlink, call, moment)
    else:
        setattr(os, target, deadly(getattr(os, target), call, moment))

cases = [("write", call, "inside") for call in (1, 2)]
for target, number in (("fsync", 4), ("replace", 2), ("unlink", 8)):
    for call in range(1, number + 1):
        cases += [(target, call, "before"), (target, call, "after")]
results = {}
for target, call, moment in cases:
    name = f"{target} {call} {moment}"
    folder = work / name
    shutil.copytree(work / "template", folder)
    child = os.fork()
    if child == 0:
        arm(target, call, moment)
        save_number(folder, 3)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    results[name] = os.waitstatus_to_exitcode(status)
print(json.dumps(results))
"""


def test_row_02_killed_inside_write_fsync_and_rename(tmp_path, run_python, caplog):
    for number in (1, 2):
        save_number(tmp_path / "template", number)
    done = run_python(KILLED_EVERYWHERE, Path(__file__).parent, tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    killed = [name for name, status in results.items() if status == -signal.SIGKILL]
    # Two files, each written once, flushed twice (itself and its folder) and renamed once.
    for target, number in (("write", 2), ("fsync", 8), ("replace", 4)):
        assert sum(name.startswith(target) for name in killed) == number
    # The oldest checkpoint's two files are removed; one that was renamed leaves nothing to remove.
    assert sum(name.startswith("unlink") for name in killed) == 4
    assert set(results.values()) == {-signal.SIGKILL, 0}
    newest = {}
    for name in killed:
        folder = tmp_path / name
        checkpoint = newest_good_checkpoint(folder)
        newest[name] = next(number for number in (1, 2, 3) if is_number(checkpoint, number))
        assert not caplog.records, name  # half-written is not damaged
        save_number(folder, 4)  # and the next session tidies up and goes on
        assert is_number(newest_good_checkpoint(folder), 4), name
        assert len(list(folder.iterdir())) == 4, name
        assert not list(folder.glob(".*")), name
        files_of(folder)[0].unlink()
        assert is_number(newest_good_checkpoint(folder), newest[name]), name
    assert newest["replace 2 before"] == 2
    assert newest["replace 2 after"] == 3
    assert set(newest.values()) == {2, 3}


def test_row_06_a_full_disk_keeps_both_checkpoints(tmp_path, folder, run_with_mounts):
    script = """
    mount -t tmpfs -o size=200k tmpfs "$2" && cp -r "$1" "$2/checkpoint"
    "$PYTHON" - "$2/checkpoint" <<'END'
import sys
from pathlib import Path
import torch
from tenfold.errors import TenfoldError
from tenfold.training.checkpoint import newest_good_checkpoint, save_checkpoint

folder = Path(sys.argv[1])
before = sorted((p.name, p.read_bytes()) for p in folder.iterdir())
try:
    save_checkpoint(folder, {"large": torch.zeros(100_000)}, {})
except TenfoldError as error:
    print(error)
assert sorted((p.name, p.read_bytes()) for p in folder.iterdir()) == before
save_checkpoint(folder, {"small": torch.zeros(10)}, {})
assert set(newest_good_checkpoint(folder).tensors) == {"small"}
END
    """
    (tmp_path / "disk").mkdir()
    done = run_with_mounts(script, folder, tmp_path / "disk")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The disk is full: ")


# -- damaged afterwards --------------------------------------------------------------------------


def assert_the_one_before_is_used(folder, caplog):
    caplog.clear()
    assert is_number(newest_good_checkpoint(folder), 1)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.name == "tenfold"
    assert str(files_of(folder)[0]) in record.getMessage()
    assert "the checkpoint before it is used" in record.getMessage()


@pytest.mark.parametrize("which", ["json", "safetensors"])
def test_row_08_truncated_at_every_4_kib(tmp_path, caplog, which):
    save_number(tmp_path, 1)
    large = {"model.weight": torch.randn(40, 1000), **tensors_of(2)}
    save_checkpoint(tmp_path, large, {**state_of(2), "log": [{"epoch": i} for i in range(3_000)]})
    path = files_of(tmp_path)[which == "safetensors"]
    content = path.read_bytes()
    lengths = [*range(0, len(content), 4096), len(content) - 2, 1, 7, 8, 9]
    assert len(lengths) > 10
    for length in lengths:
        path.write_bytes(content[:length])
        assert_the_one_before_is_used(tmp_path, caplog)
    path.write_bytes(content)
    assert newest_good_checkpoint(tmp_path).path.name == "000002.json"


@pytest.mark.parametrize("which", ["json", "safetensors"])
def test_row_08_a_file_that_grew_or_is_gone(folder, caplog, which):
    path = files_of(folder)[which == "safetensors"]
    content = path.read_bytes()
    for damaged in (content + b"\0", content * 2, b""):
        path.write_bytes(damaged)
        assert_the_one_before_is_used(folder, caplog)
    path.unlink()
    if which == "safetensors":
        assert_the_one_before_is_used(folder, caplog)
    else:  # without its JSON file a checkpoint was never finished
        assert is_number(newest_good_checkpoint(folder), 1)


def flipped(content, position, bit):
    damaged = bytearray(content)
    damaged[position] ^= 1 << bit
    return bytes(damaged)


def test_row_09_any_byte_of_the_json_flipped(folder, caplog):
    path = files_of(folder)[0]
    content = path.read_bytes()
    for position in range(len(content)):
        for bit in {5, position % 8}:  # 5 turns capitals into small letters
            path.write_bytes(flipped(content, position, bit))
            assert_the_one_before_is_used(folder, caplog)


def test_row_09_any_byte_of_the_tensors_flipped(folder, caplog):
    path = files_of(folder)[1]
    content = path.read_bytes()
    (header,) = struct.unpack("<Q", content[:8])
    sections = {"length": range(8), "header": range(8, 8 + header)}
    sections["data"] = range(8 + header, len(content))
    for name, section in sections.items():
        assert len(section) >= 8, name
        for position in section:
            path.write_bytes(flipped(content, position, position % 8))
            assert_the_one_before_is_used(folder, caplog)


def test_tensors_swapped_between_checkpoints(folder, caplog):
    """Both files are sound, but they don't belong together."""
    tensors = files_of(folder)[1]
    shutil.copy(folder / "000001.safetensors", tensors)
    assert_the_one_before_is_used(folder, caplog)


def test_every_checkpoint_damaged_is_an_error(folder):
    for path in folder.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(TenfoldError, match="Every checkpoint in") as raised:
        newest_good_checkpoint(folder)
    assert str(folder) in str(raised.value)


def test_a_folder_that_can_not_be_read_is_not_an_empty_one(folder):
    path = files_of(folder)[0]
    path.unlink()
    path.mkdir()
    assert is_number(newest_good_checkpoint(folder), 1)


# -- hostile -------------------------------------------------------------------------------------


def write_document(folder, document, *, number=3):
    """Write a JSON file with a checksum that matches."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    signed = {**document, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    (folder / f"{number:06}.json").write_text(json.dumps(signed))


def write_tensors(folder, content, *, number=3):
    """Write tensors and a JSON file whose checksums match."""
    (folder / f"{number:06}.safetensors").write_bytes(content)
    checksum = hashlib.sha256(content).hexdigest()
    document = {"format": "tenfold-checkpoint-1", "tensors_sha256": checksum, "state": {}}
    write_document(folder, document, number=number)


@contextlib.contextmanager
def memory_limited(extra=1 << 30):
    """No more than `extra` bytes of address space on top of what the process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGESIZE") + extra, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def container(header, *, data=b"", length=None):
    """A safetensors file with any header, be it JSON or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(*, shape=(4,), offsets=(0, 16), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


HOSTILE = {
    "nothing": b"",
    "length 2^64 - 1": container(b"{}", length=2**64 - 1),
    "length of 100 GB": container(b"{}", length=10**11),
    "length just below the limit": container(b"{}", length=99_999_999),
    "no JSON": container(b"\x00\xff garbage \x80"),
    "deeply nested": container(b"[" * 1_000_000),
    "negative offsets": container({"a": tensor(offsets=(-16, 0))}, data=bytes(16)),
    "offsets beyond the end": container({"a": tensor()}, data=bytes(8)),
    "offsets of 2^64": container({"a": tensor(offsets=(0, 2**64))}, data=bytes(16)),
    "overlapping": container({"a": tensor(), "b": tensor(offsets=(8, 24))}, data=bytes(24)),
    "a hole": container({"a": tensor(), "b": tensor(offsets=(20, 36))}, data=bytes(36)),
    "shape too large for its bytes": container({"a": tensor(shape=(2**40,))}, data=bytes(16)),
    "shape that overflows": container({"a": tensor(shape=(2**62, 8))}, data=bytes(16)),
    "unknown type": container({"a": tensor(dtype="F31")}, data=bytes(16)),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_row_12_hostile_tensors_with_a_matching_checksum(folder, caplog, content):
    write_tensors(folder, content)
    with memory_limited():
        assert is_number(newest_good_checkpoint(folder), 2)
    assert "000003.json is damaged" in caplog.text
    for path in folder.glob("00000[12].*"):
        path.unlink()
    with memory_limited(), pytest.raises(TenfoldError, match="Every checkpoint"):
        newest_good_checkpoint(folder)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "3",
        '"text"',
        "{}",
        '{"sha256": 1}',
        "[" * 200_000,
        '{"a":' * 200_000,
        '{"sha256": "x", "state": ' + "9" * 5_000 + "}",
    ],
    ids=lambda text: text[:12],
)
def test_row_12_a_hostile_json_file(folder, caplog, text):
    (folder / "000003.json").write_text(text)
    assert is_number(newest_good_checkpoint(folder), 2)
    assert "000003.json is damaged" in caplog.text


def test_row_10_another_format_is_refused_with_both(folder):
    write_document(folder, {"format": "tenfold-checkpoint-99", "tensors_sha256": "", "state": {}})
    with pytest.raises(TenfoldError, match=r"tenfold-checkpoint-99.*tenfold-checkpoint-1"):
        newest_good_checkpoint(folder)


@pytest.mark.parametrize("left_out", ["format", "tensors_sha256", "state"])
def test_a_document_that_lacks_something(folder, caplog, left_out):
    content = (folder / "000002.safetensors").read_bytes()
    document = {
        "format": "tenfold-checkpoint-1",
        "tensors_sha256": hashlib.sha256(content).hexdigest(),
        "state": {},
    }
    del document[left_out]
    (folder / "000003.safetensors").write_bytes(content)
    write_document(folder, document)
    assert is_number(newest_good_checkpoint(folder), 2)
    assert left_out in caplog.text


class Canary:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_row_11_a_pickle_given_as_tensors_is_never_executed(folder, tmp_path, form):
    canary, bait = tmp_path / "canary", tmp_path / "bait"
    if form == "pickle":
        bait.write_bytes(pickle.dumps(Canary(canary)))
    else:
        torch.save({"a": Canary(canary)}, bait)
    write_tensors(folder, bait.read_bytes())
    assert is_number(newest_good_checkpoint(folder), 2)
    assert not canary.exists()
    pickle.loads(pickle.dumps(Canary(canary)))
    assert canary.exists()  # so the bait was a real one


@pytest.mark.parametrize("name", ["notes.json", "7.json", "-1.json", "000009.json.bak", "x.json"])
def test_files_with_other_names_are_no_checkpoints(folder, name):
    shutil.copy(files_of(folder)[0], folder / name)
    assert is_number(newest_good_checkpoint(folder), 2)


def test_saving_after_damage_keeps_a_good_one_before_the_newest(folder):
    """Of a good, a damaged and a new checkpoint, the good one is worth keeping."""
    path = files_of(folder)[1]
    path.write_bytes(path.read_bytes()[:-1])
    assert is_number(newest_good_checkpoint(folder), 1)
    save_number(folder, 3)
    newest = files_of(folder)[1]
    newest.write_bytes(newest.read_bytes()[:-1])
    assert is_number(newest_good_checkpoint(folder), 1)


def test_a_save_does_not_read_its_own_last_checkpoint_again(folder, monkeypatch):
    """Unless its files have changed since; a large network's would be hashed at each save."""
    read, whole = [], checkpoint._read
    monkeypatch.setattr(checkpoint, "_read", lambda f, n: read.append(n) or whole(f, n))
    save_number(folder, 3)
    assert read == []
    files_of(folder)[1].touch()
    save_number(folder, 4)
    assert read == [3]
    assert is_number(newest_good_checkpoint(folder), 4)
