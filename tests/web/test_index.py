"""Curves of long runs: nothing that matters is lost by thinning, cursors and resumes."""

import json
import math
import random
import time
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tunewright_web.index import Index
from tunewright_web.series import Point, Series
from tunewright_web.web import Web
from web.fakes import logged, run_folder, stage_started, steps_of, write_events


def series_of(values: list[float | None]) -> Series:
    found = Series()
    for step, value in enumerate(values, 1):
        found.extend([step], [value], [float(step)], [0.0])
    return found


@pytest.mark.parametrize("count", [1, 2, 999, 4096, 4097, 10_000, 200_000])
def test_thinning(count: int) -> None:
    """The first and the last step stay, and a spike of a single one; order does, too."""
    values: list[float | None] = [math.sin(step / 700) for step in range(count)]
    spike = min(count - 1, 7_777)
    values[spike] = 50.0
    points = series_of(values).points(1_000)
    steps = [point.step for point in points]
    assert steps[0] == 1
    assert steps[-1] == count
    assert steps == sorted(set(steps))
    assert (spike + 1, 50.0) in [(point.step, point.value) for point in points]
    assert len(points) <= min(count, 1_004)


def test_many_at_once() -> None:
    """Points that come together give the curve of points that come one by one."""
    draw = random.Random(1)
    values = [draw.choice([None, *range(40)]) for _ in range(30_000)]
    steps, times = list(range(1, 30_001)), list(map(float, range(30_000)))
    found, at = Series(), 0
    while at < 30_000:
        end = at + draw.choice([1, 3, 500, 9_000])
        found.extend(steps[at:end], values[at:end], times[at:end], times[at:end])
        at = end
    alone = Series()
    for step, value, now in zip(steps, values, times, strict=True):
        alone.extend([step], [value], [now], [now])
    assert found.points(20_000) == alone.points(20_000)
    assert (found.not_finite, found.last) == (alone.not_finite, alone.last)


def test_damaged_lines(tmp_path: Path) -> None:
    """A line without its step, or with an earlier one, costs no other line of its block."""
    no_step, old = json.loads(logged(5)), json.loads(logged(2, 9.0))
    del no_step["step"]
    lines = [stage_started(100), *(logged(n) for n in range(1, 5)), json.dumps(no_step) + "\n"]
    lines += [logged(5), "{\n", logged(6), json.dumps(old) + "\n", logged(3)]
    found = Index(write_events(run_folder(tmp_path / "run"), lines)).update().series["loss"]
    assert [(p.step, p.value) for p in found.points(100)] == [(1, 1.0), (2, 9.0), (3, 1.0)]


def test_an_earlier_step_again(tmp_path: Path) -> None:
    """In one block, as of a run that was resumed while its file lacks the start."""
    lines = [stage_started(100), *(logged(n) for n in (1, 2, 3)), logged(2, 9.0), logged(3)]
    found = Index(write_events(run_folder(tmp_path / "run"), lines)).update().series["loss"]
    assert [(p.step, p.value) for p in found.points(100)] == [(1, 1.0), (2, 9.0), (3, 1.0)]


def test_exact_while_short() -> None:
    assert [p.step for p in series_of([1.0] * 500).points(1_000)] == list(range(1, 501))


def test_not_finite() -> None:
    """Values that are not finite are gaps, and are counted."""
    values: list[float | None] = [1.0, None, None, 2.0]
    found = series_of(values)
    assert [point.value for point in found.points(100)] == values
    assert found.not_finite == 2
    many = series_of([None if 40_000 < n < 60_000 else 1.0 for n in range(100_000)])
    assert any(point.value is None for point in many.points(1_000))


def test_resume(tmp_path: Path) -> None:
    """Steps after the checkpoint are those of the resumed run: each step once, in order."""
    folder = run_folder(tmp_path / "run")
    path = write_events(folder, [stage_started(100), *(logged(n) for n in range(1, 84))])
    index = Index(path).update()
    cursor = index.cursor
    again = [stage_started(100, first=80, time=500.0), *(logged(n, 5.0) for n in range(81, 101))]
    write_events(folder, again, "a")
    index.update()
    points = index.series["loss"].points(1_000)
    assert [point.step for point in points] == list(range(1, 101))
    assert [point.value for point in points] == [1.0] * 80 + [5.0] * 20
    assert index.news(cursor) is None  # the page has to take all anew
    assert index.stage is not None
    assert index.stage.first_step == 80


def test_eta_counts_from_the_resumed_step(tmp_path: Path) -> None:
    now = time.time()
    lines = [stage_started(1_000, first=900, time=now - 50)]
    event = json.loads(logged(950, total=1_000)) | {"time": now}
    path = write_events(run_folder(tmp_path / "run"), [*lines, json.dumps(event) + "\n"])
    eta = Index(path).update().eta()
    assert eta is not None
    assert 40 < eta < 60  # 50 steps in 50 seconds, 50 to go; not 950 in 50


def test_stages_follow_each_other(tmp_path: Path) -> None:
    lines = [stage_started(10), *(logged(n) for n in range(1, 11))]
    lines += [stage_started(5, number=2), *(logged(n, 2.0) for n in range(1, 6))]
    index = Index(write_events(run_folder(tmp_path / "run"), lines)).update()
    assert [point.step for point in index.series["loss"].points(99)] == list(range(1, 16))


def test_half_a_line_waits(tmp_path: Path) -> None:
    """The last line may not be complete; a damaged one, and other JSON, are passed over."""
    folder = run_folder(tmp_path / "run")
    path = write_events(folder, [stage_started(9), logged(1)])
    whole = logged(2)
    with path.open("a") as file:
        file.write(whole[:20])
    index = Index(path).update()
    assert index.series["loss"].last == Point(1, 1.0, 1.0, 10.0)
    with path.open("a") as file:
        file.write(whole[20:] + "not json\n[1]\n" + '{"event": "Logged"}\n' + logged(3))
    index.update()
    assert [point.step for point in index.series["loss"].points(9)] == [1, 2, 3]


def test_another_run_in_the_folder(tmp_path: Path) -> None:
    """--overwrite begins a new file: an old cursor gets all of it."""
    folder = run_folder(tmp_path / "run")
    path = write_events(folder, [stage_started(9), *(logged(n) for n in range(1, 9))])
    index = Index(path).update()
    cursor = index.cursor
    path.write_text(path.read_text().replace("100.0", "200.0", 1).partition(logged(2))[0])
    index.update()
    assert index.news(cursor) is None
    assert [point.step for point in index.series["loss"].points(9)] == [1]
    path.unlink()
    assert index.update().series == {}


def test_api(client: TestClient, web: Web) -> None:
    """Every step exactly once, however often a page asks."""
    folder = run_folder(web.workspace.runs / "run")
    write_events(folder, [stage_started(90), *(logged(n) for n in range(1, 31))])
    first = client.get("/api/v1/runs/run/metrics").json()
    assert first["reset"]
    assert steps_of(first) == list(range(1, 31))
    write_events(folder, [logged(n) for n in range(31, 41)], "a")
    second = client.get(f"/api/v1/runs/run/metrics?after={first['cursor']}").json()
    assert not second["reset"]
    assert steps_of(second) == list(range(31, 41))
    third = client.get(f"/api/v1/runs/run/metrics?after={second['cursor']}").json()
    assert third["series"] == {}
    assert steps_of(client.get("/api/v1/runs/run/metrics").json()) == list(range(1, 41))
    chosen = client.get("/api/v1/runs/run/metrics?keys=tokens").json()
    assert list(chosen["series"]) == ["tokens"]


def test_events(client: TestClient, web: Web) -> None:
    """Server-sent events: each id is a cursor, with which a script goes on."""
    folder = run_folder(web.workspace.runs / "run")
    write_events(folder, [stage_started(90), *(logged(n) for n in range(1, 4))])
    text = client.get("/api/v1/runs/run/events").text
    blocks = [block.splitlines() for block in text.strip().split("\n\n")]
    assert len(blocks) == 6
    assert blocks[-1] == ["event: end", 'data: "completed"']
    assert json.loads(blocks[2][1].removeprefix("data: "))["step"] == 1
    after = blocks[2][0].removeprefix("id: ")
    rest = client.get("/api/v1/runs/run/events", headers={"Last-Event-ID": after}).text
    assert [line for line in rest.splitlines() if line.startswith("id:")] == [
        block[0] for block in blocks[3:5]
    ]


def test_two_hundred_thousand_steps(client: TestClient, web: Web) -> None:
    """The answer is small, the spike and the last step are in it, and the second one reads
    nothing again."""
    folder = run_folder(web.workspace.runs / "long")
    line = logged(7, 1.5, 200_000)
    lines = (
        line.replace('"step": 7', f'"step": {n}').replace("1.5", "90.0" if n == 123_457 else "1.0")
        for n in range(1, 200_001)
    )
    write_events(folder, [stage_started(200_000), *lines])
    answer = client.get("/api/v1/runs/long/metrics?points=2000")
    assert len(answer.content) < 500_000
    found = answer.json()
    assert steps_of(found)[-1] == 200_000
    assert 123_457 in steps_of(found)
    index = web.runs.index("long")
    offset = index.offset
    started = time.process_time()
    assert client.get("/api/v1/runs/long/metrics?points=2000").json() == found
    assert time.process_time() - started < 5  # hundreds of times what it takes
    assert index.offset == offset
