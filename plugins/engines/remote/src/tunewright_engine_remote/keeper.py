"""Program that starts a server and ends it, with all its processes, when its own parent is gone.

    python keeper.py LOG SECONDS COMMAND ...

It holds the parent's pipe as standard input: end of file means that the parent wants the server to
end, or was killed. It writes two lines: the server's process id (its process group), and its return
code. It imports little, since it stays in memory. Run by path, with the standard library alone.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading


def main(log: str, seconds: str, *command: str) -> None:
    with open(log, "ab", buffering=0) as written:
        try:
            server = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            print(f"{error.strerror}: {command[0]}", flush=True)
            return
    print(server.pid, flush=True)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: end(server, float(seconds)))
    waiting = threading.Thread(target=at_end_of_file, args=(server, float(seconds)), daemon=True)
    waiting.start()
    code = server.wait()
    kill(server.pid, signal.SIGKILL)  # what it has left behind
    print(code, flush=True)


def at_end_of_file(server: "subprocess.Popen[bytes]", seconds: float) -> None:
    while os.read(0, 4096):
        pass
    end(server, seconds)


def end(server: "subprocess.Popen[bytes]", seconds: float) -> None:
    """Ask the server to end, and kill it where it does not."""
    kill(server.pid, signal.SIGTERM)
    later = threading.Timer(seconds, kill, (server.pid, signal.SIGKILL))
    later.daemon = True
    later.start()


def kill(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


if __name__ == "__main__":
    main(*sys.argv[1:])
