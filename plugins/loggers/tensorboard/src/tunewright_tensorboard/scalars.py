"""Scalars in TensorBoard's format, with TensorBoard's own writer: needs neither torch nor
TensorFlow."""

from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter


class ScalarWriter:
    """One event file. Points after `first_step` that an earlier attempt wrote to the folder are
    discarded."""

    def __init__(self, folder: Path, first_step: int) -> None:
        self._writer = EventFileWriter(str(folder), flush_secs=10)
        # a session start tells readers to discard all points from this step on
        start = SessionLog(status=SessionLog.START)
        self._writer.add_event(Event(session_log=start, step=first_step + 1))

    def add(self, step: int, time: float, metrics: dict[str, float]) -> None:
        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self._writer.add_event(Event(wall_time=time, step=step, summary=Summary(value=values)))

    def close(self) -> None:
        self._writer.close()
