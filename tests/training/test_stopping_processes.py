"""Several ranks stop at the same place, though one of them alone was asked."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import stopping_worker
import torch
from test_killed import files

import forked
from tunewright.errors import Stopped
from tunewright_hf.checkpoints.folder import latest_checkpoint
from tunewright_hf.distributed.meeting import Meeting


def two(folder: Path, *arguments: object) -> list[Any]:
    done = forked.run(
        Path(stopping_worker.__file__), str(folder), *map(str, arguments), processes=2
    )
    assert done.codes == [0, 0], done.error[-3000:]
    said = [line for line in done.output.splitlines() if line.startswith("RESULT ")]
    first, second = (json.loads(line.removeprefix("RESULT ")) for line in said)
    assert first == second
    return first


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], Path]:
    folder = tmp_path_factory.mktemp("whole")
    return two(folder, 0), folder


#: looks for a stop: 1 before step 1, 1 after each step, 3 in each evaluation, of 5 rows on 2 ranks
@pytest.mark.parametrize(
    ("number", "step", "unevaluated"),
    [
        pytest.param(8, 4, True, id="in an evaluation"),
        pytest.param(7, 3, False, id="after a step", marks=pytest.mark.long),
    ],
)
def test_one_rank_is_asked_and_all_stop(
    tmp_path: Path, whole: Any, number: int, step: int, unevaluated: bool
) -> None:
    wanted, uninterrupted = whole
    assert two(tmp_path, number) == [f"stopped and saved at step {step} of 6"]
    checkpoint = latest_checkpoint(tmp_path / "checkpoints")
    assert checkpoint is not None and checkpoint.name == f"step-{step}"
    progress = json.loads((checkpoint / "others.json").read_text("utf-8"))
    assert f'"unevaluated": {json.dumps(unevaluated)}' in json.dumps(progress)
    assert two(tmp_path, 0, checkpoint) == wanted
    assert files(tmp_path / "model") == files(uninterrupted / "model")


@pytest.mark.parametrize("asked", [None, 0, 1, 2], ids=str)
def test_whether_to_begin_is_decided_once(asked: int | None) -> None:
    """Three ranks, of which the third comes only when the others wait, unless it stops before."""
    store, found = torch.distributed.HashStore(), {}

    def rank(number: int) -> None:
        calls = 0

        def check_stop() -> None:
            nonlocal calls
            calls += 1
            if number == asked and calls > 1:
                raise Stopped("stopped as asked")

        try:
            Meeting(store, "x", number, 3).hold({}, check_stop, print)
            found[number] = "begun"
        except Stopped as stopped:
            found[number] = stopped.problem

    ranks = [threading.Thread(target=rank, args=(number,)) for number in range(3)]
    for thread in ranks[:2]:
        thread.start()
    if asked not in (0, 1):
        ranks[2].start()
    for thread in ranks[: 2 if asked in (0, 1) else 3]:
        thread.join()
    if asked in (0, 1):  # the third comes late
        assert found == {asked: "stopped as asked", 1 - asked: "stopped as another rank was asked"}
        ranks[2].start()
        ranks[2].join()
        assert found[2] == "stopped as another rank was asked"
    else:  # all had come before it was asked
        assert found == dict.fromkeys(range(3), "begun")
