"""The mirror of a run folder on S3: moto's server, through s3fs. Both are installed for this alone:

pip install --target FOLDER -c constraints.txt "moto[server]" s3fs, and PYTHONPATH=FOLDER
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import test_mirror
from test_mirror import go, recipe, stopped_at

from tunewright.errors import RecipeError, Stopped
from tunewright.events import Logged

__all__ = ["recipe"]

pytestmark = pytest.mark.long


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The file system of a server of this test's, with an empty bucket."""
    moto = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(test_mirror, "STORE", "s3://bucket/run")
    files = fsspec.filesystem("s3", skip_instance_cache=True)
    files.mkdir("bucket")
    yield files
    files.invalidate_cache()
    files.rm("bucket", recursive=True)  # moto keeps it, in this process
    server.stop()
    fsspec.filesystem("s3").clear_instance_cache()


def test_another_machine_continues_with_the_same_bits(recipe: Path, bucket: Any) -> None:
    whole = go(recipe, "whole")
    bucket.rm("bucket/run", recursive=True)
    with pytest.raises(Stopped):
        go(recipe, "first", on_event=stopped_at(4))
    shutil.rmtree(recipe.with_name("first"))
    again = go(recipe, "second", resume=True)
    names = ("model.safetensors", "config.json")
    assert [(again.path / name).read_bytes() for name in names] == [
        (whole.path / name).read_bytes() for name in names
    ]
    bucket.invalidate_cache()
    there = {name.removeprefix("bucket/run/") for name in bucket.find("bucket/run")}
    second = recipe.with_name("second")
    here = {
        path.relative_to(second).as_posix()
        for path in second.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }
    assert there - here == {"model/mirror.json"} and not here - there
    assert json.loads(bucket.cat_file("bucket/run/run.json"))["status"] == "completed"


def test_a_damaged_checkpoint_is_left_out(recipe: Path, bucket: Any) -> None:
    with pytest.raises(Stopped):
        go(recipe, "first", on_event=stopped_at(4))
    bucket.pipe_file("bucket/run/checkpoints/step-4/weights.safetensors", b"x")
    heard: list[Any] = []
    go(recipe, "second", resume=True, on_event=heard.append)
    said = [event.message for event in heard if hasattr(event, "message")]
    assert any("checkpoints/step-4 is left out" in each for each in said)
    assert next(event.step for event in heard if isinstance(event, Logged)) == 4


def test_another_run_is_not_replaced(recipe: Path, bucket: Any) -> None:
    go(recipe, "first", "training.max_steps=1")
    with pytest.raises(RecipeError, match=r"output.mirror: holds another run"):
        go(recipe, "second", "training.max_steps=1")
