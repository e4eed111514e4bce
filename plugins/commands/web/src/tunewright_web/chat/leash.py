"""`tunewright serve` in a process that ends with its parent: at the end of its standard input.

Run as `python -m tunewright_web.chat.leash MODEL …`.
"""

import os
import signal
import sys
import threading
import time

_DRAIN = 10  # seconds that the server has to end, before it is ended


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_DRAIN)
    os._exit(1)


def main() -> None:
    threading.Thread(target=_end_with_parent, name="leash", daemon=True).start()
    sys.argv = ["tunewright", "serve", *sys.argv[1:]]
    from tunewright.cli import main as tunewright

    tunewright()


if __name__ == "__main__":
    main()
