"""The live page: what it knows of runs, whom it answers, what it costs, and a real training."""

import http.client
import json
import re
import signal
import threading
import time
from contextlib import contextmanager

import psutil
import pytest

import commands
from fabricated_runs import Recipe, make_run, write_json
from tenfold.cli.train import with_port
from tenfold.errors import TenfoldError
from tenfold.locks import hold
from tenfold.reporting.live import server as serving
from tenfold.reporting.live.page import PIECES, LivePage
from tenfold.reporting.live.runs import LiveRun, find_runs
from tenfold.training.reporters import Plan

PLAN = {
    **dict.fromkeys(Plan.__annotations__, 0),
    "recipe": "cnn",
    "model": "cnn",
    "trains": "all",
    "epochs": 4,
    "steps_per_epoch": 10,
    "num_validation": 60,
    "device": "cpu",
    "is_last": True,
    "seconds_left": None,
}
URI = "data:image/png;base64,AAAA"


def started(*, at, resumed=0, **changes):
    images = [{"id": "validation/1", "true": "cat", "uri": URI}]
    plan = {**PLAN, "resumed_step": resumed, **changes}
    return {"event": "started", "time": at, "images": images, "plan": plan}


def step(number, *, at, loss=1.0):
    return {"event": "step", "time": at, "step": number, "loss": loss, "images_per_second": 900.0}


def predicted(epoch, likeliest=(["dog", 0.7], ["cat", 0.3])):
    return {"event": "epoch", "time": 0.0, "epoch": epoch, "samples": [list(map(list, likeliest))]}


def write(folder, *events, end="\n"):
    with open(folder / "progress.jsonl", "a", encoding="utf-8") as file:
        file.write("\n".join(map(json.dumps, events)) + end)


@pytest.fixture
def run(tmp_path):
    """A run that is not finished, with eight epochs of curves and no log of its progress."""
    return make_run(tmp_path / "cnn/1", Recipe(finished=False))


@contextmanager
def served(folder):
    """The server in a thread of this process; its address."""
    made = serving._Server((serving.LOOPBACK, 0), LivePage(folder))
    thread = threading.Thread(target=made.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield made
    finally:
        made.shutdown()
        thread.join()
        made.server_close()
        made.end()


def ask(made, path="/", *, method="GET", **headers):
    connection = http.client.HTTPConnection(serving.LOOPBACK, made.server_port, timeout=5)
    connection.request(method, path, headers=headers)
    reply = connection.getresponse()
    return reply.status, reply.headers, reply.read().decode() if path != "/events" else reply


def first_pieces(made, path="/events"):
    """What a stream sends first."""
    connection = http.client.HTTPConnection(serving.LOOPBACK, made.server_port, timeout=5)
    connection.request("GET", path)
    line = connection.getresponse().readline().decode()
    connection.close()
    return json.loads(line.removeprefix("data: "))


def words(html):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


# -- what it knows -------------------------------------------------------------------------------


def test_steps_that_were_lost_are_forgotten_and_half_a_line_is_read_when_it_is_whole(run):
    now = time.time()
    write(run, started(at=now - 60), *(step(n, at=now - 60 + n) for n in (3, 12, 17)))
    write(run, predicted(1))
    found = LiveRun(run, "cnn/1")
    found.refresh()
    assert [number for number, *_ in found.steps] == [3, 12, 17]
    assert found.predicted_epoch == 1
    [sample] = found.samples
    assert sample.predictions == {"cnn/1": [("dog", 0.7, False), ("cat", 0.3, True)]}
    write(run, started(at=now - 5, resumed=10))
    line = json.dumps(step(11, at=now - 4))
    write(run, end=line[:20])
    found.refresh()
    assert [number for number, *_ in found.steps] == [3]
    write(run, end=line[20:] + "\nno JSON\n")
    found.refresh()
    assert [number for number, *_ in found.steps] == [3, 11]


def test_the_time_left_goes_by_the_pace_of_this_session(run):
    now = time.time()
    (run / "metrics.jsonl").unlink()
    write(run, started(at=now - 30, resumed=10), step(20, at=now - 10))
    found = LiveRun(run, "cnn/1")
    with hold(run):
        found.refresh()
        assert found.state == "running"
        # Two seconds a step, of which twenty were left ten seconds ago.
        assert found.seconds_left == pytest.approx(30, abs=1)
        write(run, started(at=now - 30, resumed=10, seconds_left=45.0), step(20, at=now - 10))
        found.refresh()
        assert found.seconds_left == pytest.approx(15, abs=1)
    found.refresh(at_once=True)
    assert (found.state, found.seconds_left) == ("stopped", None)


def test_runs_are_found_wherever_they_lie(tmp_path):
    for name in ("cnn/1", "cnn/2", "study/runs/a-0"):
        make_run(tmp_path / name, Recipe(finished=name == "cnn/2"))
    assert [str(each.relative_to(tmp_path)) for each in find_runs(tmp_path)] == [
        *("cnn/1", "cnn/2", "study/runs/a-0")
    ]
    assert list(find_runs(tmp_path / "cnn/1")) == [tmp_path / "cnn/1"]
    write_json(tmp_path / "study/study.json", {"title": "Wide or deep?", "trials": [{}] * 3})
    write_json(tmp_path / "cnn/1/failure.json", {"error": "It diverged."})
    page = LivePage(tmp_path / "study")
    overview = words(page.pieces("")["overview"])
    assert "1 run of 3" in overview
    assert "1 stopped, and 2 to come" in overview
    write_json(tmp_path / "study/search.json", {})
    trial = {"run": "runs/a-0", "state": "pruned"}
    write_json(tmp_path / "study/trials.json", {"trials": [trial]})
    (tmp_path / "study/study.json").unlink()
    assert "1 pruned." in words(LivePage(tmp_path / "study").pieces("")["overview"])
    pieces = LivePage(tmp_path).pieces("cnn/1")
    assert "1 stopped, 1 failed and 1 finished" in words(pieces["overview"])
    assert "It failed: It diverged." in words(pieces["now"])
    assert [pieces[name].count("<svg") for name in ("compared", "curves")] == [1, 2]
    with pytest.raises(TenfoldError, match="There is no folder"):
        LivePage(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    assert "No run has begun here yet" in LivePage(tmp_path / "empty").pieces("")["overview"]


def test_names_are_shown_as_text(tmp_path):
    make_run(tmp_path / "<script>/1", Recipe(finished=False))
    write(tmp_path / "<script>/1", started(at=time.time(), model="<b>"), step(1, at=time.time()))
    pieces = LivePage(tmp_path).pieces("")
    assert "&lt;script&gt;/1" in pieces["overview"]
    assert not any("<script" in piece or "<b>" in piece for piece in pieces.values())


def test_a_piece_is_drawn_anew_no_oftener_than_its_cost_allows(run, monkeypatch):
    from tenfold.reporting.live import page

    clock = {"now": 1000.0, "busy": 0.0}
    monkeypatch.setattr(page.time, "monotonic", lambda: clock["now"])
    monkeypatch.setattr(page.time, "thread_time", lambda: clock["busy"])
    drawn = []

    def draw(name, block, **values):
        drawn.append(block)
        clock["busy"] += 0.02 if block == "curves" else 0.001
        return block

    monkeypatch.setattr(page, "block_of", draw)
    live = LivePage(run)
    for _ in range(100):
        live.pieces("")
        clock["now"] += 1.0
    assert drawn.count("now") == 100
    assert drawn.count("curves") == 5  # Each of 20 ms, so that 20 s go by.
    live.pieces("", at_once=True)
    assert drawn.count("curves") == 6


# -- whom it answers -----------------------------------------------------------------------------


def test_only_this_machine_by_its_own_name_is_answered(run):
    with served(run) as made:
        port = made.server_port
        status, headers, text = ask(made)
        assert status == 200
        assert "script-src 'sha256-" in headers["Content-Security-Policy"]
        assert headers["Cache-Control"] == "no-store"
        assert "cnn/1" in text or "1, live" in text
        for host in (f"localhost:{port}", "localhost", "127.0.0.1:9999", "[::1]:80"):
            assert ask(made, Host=host)[0] == 200
        for host in ("evil.example", f"evil.example:{port}", "", "127.0.0.1.evil.example"):
            for path in ("/", "/events?x"):
                assert ask(made, path, Host=host)[0] == 421
        assert ask(made, Origin="https://evil.example")[0] == 403
        assert ask(made, Origin=f"http://127.0.0.1:{port}")[0] == 200
        assert ask(made, "/recipe.json")[0] == 404
        assert ask(made, "/../recipe.json")[0] == 404
        assert ask(made, method="POST")[0] == 501
        assert set(first_pieces(made)) == set(PIECES)


def test_a_port_that_is_taken_is_said_before_anything_is_done(run, tmp_path):
    with served(run) as made:
        port = str(made.server_port)
        for arguments in (["live", str(run), "--port", port], ["train", "cnn", "--live", port]):
            command = commands.run(arguments, folder=tmp_path / "work")
            assert command.wait() == 2
            assert re.fullmatch(
                rf"error: 127.0.0.1:{port} can't be listened on \(.*\); choose another port.*\n",
                command.output,
            )
    assert not (tmp_path / "work/runs").exists()


def test_many_connections_are_closed_and_the_others_go_on(run, monkeypatch):
    monkeypatch.setattr(serving, "MOST_CONNECTIONS", 3)
    with served(run) as made:
        streams = []
        for _ in range(3):
            connection = http.client.HTTPConnection(serving.LOOPBACK, made.server_port, timeout=5)
            connection.request("GET", "/events")
            streams.append(connection.getresponse())
        with pytest.raises((OSError, http.client.HTTPException)):
            ask(made)
        assert all(each.readline().startswith(b"data: ") for each in streams)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("train cnn --live", "train cnn --live 8001"),
        ("train --live cnn", "train --live 8001 cnn"),
        ("train cnn --live 0 --json", "train cnn --live 0 --json"),
        ("train cnn --live --json", "train cnn --live 8001 --json"),
        ("train cnn --live=9000", "train cnn --live=9000"),
    ],
)
def test_the_port_may_be_left_out(typed, meant):
    assert with_port(typed.split()) == meant.split()


# -- a real training -----------------------------------------------------------------------------


def start_training(folder, *arguments):
    """A training that takes some seconds, its page's address, and the process that serves it."""
    commands.write_tiny_recipe(folder)
    data = commands.write_tiny_data(folder / "tiny.npz")
    train = ["train", "tiny.toml", "--data", str(data), "--live", "0", "--json", "--no-report"]
    command = commands.start([*train, *arguments], folder=folder)
    command.wait_for(lambda: '"live"' in command.output)
    lines = map(json.loads, command.output.splitlines())
    address = next(line["address"] for line in lines if line["event"] == "live")
    [child] = [each for each in psutil.Process(command.pid).children() if "live" in each.cmdline()]
    return command, address, child


def is_gone(process, seconds=10):
    deadline = time.monotonic() + seconds
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def epoch_of(page):
    return int(re.search(r"epoch (\d+)", page.inner_text("#now"))[1])


@pytest.mark.long
@pytest.mark.browser
def test_a_browser_sees_a_training_grow_and_end(browser, tmp_path):
    command, address, child = start_training(tmp_path, "--set", "training.epochs=5000")
    before = sum(child.cpu_times()[:2])
    time.sleep(0.5)
    assert sum(child.cpu_times()[:2]) == before
    page = browser.new_page()
    complaints = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(address)
    page.wait_for_selector("#curves svg")
    assert "Connected" in page.inner_text("#link")
    assert "running" in page.inner_text("#now")
    first = epoch_of(page)
    while epoch_of(page) == first:  # A training that has ended fails below.
        page.wait_for_timeout(50)
    assert page.locator("#predictions img").count() == 10
    assert page.locator("#predictions .likely.right").count() >= 1
    command.signal(signal.SIGTERM)
    page.wait_for_selector("#link:has-text('has ended')")
    assert "stopped" in page.inner_text("#now")
    assert command.wait() == 75
    assert complaints == []
    assert is_gone(child)
    page.close()


def test_ctrl_c_ends_the_training_as_ever_and_its_page(tmp_path):
    command, _, child = start_training(tmp_path, "--set", "training.epochs=2000")
    command.wait_for(lambda: '"epoch"' in command.output)
    command.signal(signal.SIGINT)
    assert command.wait() == 130
    assert is_gone(child)
    assert "Stopped in epoch" in command.output
    [run] = (tmp_path / "runs/tiny").iterdir()
    found = LiveRun(run, "tiny/1")
    found.refresh()
    assert found.state == "stopped"
    assert len(found.samples) == 10
    assert {sample.true for sample in found.samples} == {"red", "green", "blue", "grey"}
    assert found.plan.num_validation == 64


def test_the_log_of_hours_stays_small_and_one_that_can_not_be_written_ends_nothing(
    tmp_path, monkeypatch
):
    from tenfold.run import RunFolder
    from tenfold.training import progress_log

    clock = {"now": 0.0}
    monkeypatch.setattr(progress_log.time, "monotonic", lambda: clock["now"])
    for place in (tmp_path, tmp_path / "nowhere"):
        log = progress_log.ProgressLog(RunFolder(place), None)
        log.started(Plan(**PLAN))
        for number in range(1, 5_000):
            clock["now"] += 2.0
            log.stepped(epoch=1, step=number, loss=2.0, images_per_second=1.0)
        log.epoch_ended({"epoch": 1}, {})
    lines = (tmp_path / "progress.jsonl").read_text().splitlines()
    assert 1500 < len(lines) < 3500
    assert not (tmp_path / "nowhere").exists()
