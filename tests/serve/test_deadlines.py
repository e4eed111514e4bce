"""One timer for the time limits of all answers that are waited for as a whole."""

import asyncio
from unittest import mock

import pytest

from tunewright_serve.deadlines import Deadlines


def test_each_wait_has_its_time() -> None:
    """Also those that began while others waited; one that is done or discarded is left alone."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        deadlines, began = Deadlines(0.1), loop.time()
        late, done, left, later = (loop.create_future() for _ in range(4))
        with mock.patch.object(loop, "call_later", wraps=loop.call_later) as timers:
            for each in (done, left, late):
                deadlines.add(each)
            await asyncio.sleep(0.05)
            deadlines.add(later)
        asked = [call for call in timers.call_args_list if call.args[0] == 0.1]
        assert len(asked) == 1
        done.set_result(None)
        deadlines.discard(left)
        with pytest.raises(TimeoutError):
            await late
        assert loop.time() - began > 0.09
        assert not later.done()
        with pytest.raises(TimeoutError):
            await later
        assert loop.time() - began > 0.14
        assert not left.done() and done.result() is None
        deadlines.add(left)  # the timer had ended
        with pytest.raises(TimeoutError):
            await left

    asyncio.run(main())
