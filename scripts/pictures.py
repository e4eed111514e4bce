"""Create the README's pictures from a real run: `python scripts/pictures.py`. Needs a POSIX system.

docs/images/terminal.svg   output of the quickstart in a terminal of 100 columns, and two answers
docs/images/loss.png       the loss curve of that run
"""

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs/images"
COLUMNS, LINES = 100, 40
COMMANDS = [
    ["tunewright", "train", "docs/examples/quickstart.yaml", "--overwrite"],
    [
        "tunewright",
        "chat",
        "runs/quickstart",
        "--message",
        "What is your name?",
        "--message",
        "Who made you?",
    ],
]
# control sequences that move the cursor; colours (…m) stay in the text
CONTROL = re.compile(r"(\r\n|\r|\x1b\[[0-9;?]*[A-KSTfhl])")


def main() -> None:
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"))  # noqa: SIM115
    for command in COMMANDS:
        console.print(Text.assemble(("$ ", "bold green"), subprocess.list2cmdline(command)))
        console.print(Text.from_ansi("\n".join(screen(in_terminal(command)))))
    svg = console.export_svg(title="tunewright")
    # fonts, which would be downloaded
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    IMAGES.mkdir(parents=True, exist_ok=True)
    (IMAGES / "terminal.svg").write_text(svg, "utf-8")
    shutil.copy(ROOT / "runs/quickstart/loss.png", IMAGES / "loss.png")
    print(f"wrote {IMAGES.relative_to(ROOT)}/terminal.svg and loss.png")


def in_terminal(command: list[str]) -> str:
    """Run a command in a pseudo-terminal, and return its output. Exits if it fails."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    env = os.environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
    program = Path(sys.executable).with_name(command[0])
    process = subprocess.Popen(
        [program, *command[1:]], cwd=ROOT, env=env, stdout=slave, stderr=slave
    )
    os.close(slave)
    sent = bytearray()
    while True:
        try:
            sent += os.read(master, 4096)
        except OSError:  # the other end is closed
            break
    os.close(master)
    if process.wait():
        sys.exit(sent.decode(errors="replace"))
    return sent.decode()


def screen(sent: str) -> list[str]:
    """The lines on the screen after all output was processed, with their colours."""
    lines, row, fresh = [""], 0, False
    for part in CONTROL.split(sent):
        if part == "\r\n":
            row, fresh = row + 1, False
            lines += [""] * (row + 1 - len(lines))
        elif part == "\r":
            fresh = True  # the next text overwrites this line
        elif part.endswith("A") and part.startswith("\x1b["):
            row = max(0, row - int(part[2:-1] or 1))
        elif part.endswith("K") and part.startswith("\x1b["):
            lines[row] = ""
        elif part and not CONTROL.fullmatch(part):
            lines[row] = part if fresh else lines[row] + part
            fresh = False
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


if __name__ == "__main__":
    main()
