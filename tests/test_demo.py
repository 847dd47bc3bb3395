"""The demonstration where CIFAR-10 can't be reached: it says so, and still runs to the end."""

import shutil
import subprocess

import pytest

import commands


def can_cut_the_network() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not can_cut_the_network(), reason="needs unshare to be without a network")
def test_without_a_network_the_digits_take_its_place_loudly(tmp_path):
    done = commands.run_cold(
        ["demo"],
        folder=tmp_path,
        prefix=["unshare", "-rn"],
        TENFOLD_CACHE=str(tmp_path / "cache"),
        TENFOLD_DATA="",
        OMP_NUM_THREADS="1",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "*** CIFAR-10 could not be reached" in done.stderr
    assert "Traceback" not in done.stderr
    page = (tmp_path / "runs/demo.html").read_text()
    assert 'role="alert"' in page
    assert "CIFAR-10 could not be reached" in page
    assert "Comparison" in done.stdout
