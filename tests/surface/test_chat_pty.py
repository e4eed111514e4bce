"""`tunewright chat` in a terminal of its own, with a tiny model of random weights."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

pexpect = pytest.importorskip("pexpect")

PROMPT = r"\x1b\[\?2004h.*>"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals of this kind")
def test_it_types_and_sees_the_reply(tmp_path: Path) -> None:
    environment = os.environ | {
        "TERM": "xterm",
        "HF_HUB_OFFLINE": "1",
        "XDG_STATE_HOME": str(tmp_path),
        "PROMPT_TOOLKIT_NO_CPR": "1",
    }
    child = pexpect.spawn(
        sys.executable,
        ["-m", "tunewright", "chat", "tiny", "family=qwen", "--temperature", "1"],
        env=environment,
        cwd=tmp_path,
        encoding="utf-8",
        timeout=90,
        dimensions=(40, 100),
    )
    child.expect(r"tiny · template qwen3")
    child.expect(PROMPT)
    child.send("/params seed=3 max_new_tokens=12\r")
    child.expect("seed = 3")
    child.expect(PROMPT)
    child.send("Say hello.\r")
    child.expect("cut off")
    reply = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\s", "", child.before)
    child.expect(PROMPT)
    child.send("/raw\r")
    child.expect("<|im_start|>user".replace("|", r"\|"))
    child.expect(PROMPT)
    child.send("/save a.json\r")
    child.expect("saved to a.json")
    child.expect(PROMPT)
    child.send("/quit\r")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    user, answer = json.loads((tmp_path / "a.json").read_text())["messages"]
    assert user == {"role": "user", "content": "Say hello."}
    words = re.findall(r"[a-z]{3,}", answer["content"])
    assert words and all(word in reply for word in words)
