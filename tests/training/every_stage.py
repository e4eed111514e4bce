"""Stages on the small model, in full and with adapters, trained in one way.

As a program: `python every_stage.py FOLDER` trains each of them in FOLDER/NAME-HOW, in a process of
its own that ends itself by SIGKILL after it has reported step 5.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import answers_setup
import prompts_setup
import torch
from prompts_setup import prompts_run
from test_pairs_training import CASES, Case, adapted
from training_setup import a_run, rows

from tunewright.events import Event, Logged
from tunewright_grpo import Grpo
from tunewright_online_dpo import OnlineDpo
from tunewright_ppo import Ppo
from tunewright_pretrain import Pretrain
from tunewright_sft import Sft

ROLLOUTS: dict[str, Any] = {"rewards": ["wanted"], "max_new_tokens": 4, "beta": 0.1}
#: name → how it is made. Those on prompts look for rewards, which must be installed before
MAKE: dict[str, Callable[[], Case]] = {
    "pretrain": lambda: Case(Pretrain(Pretrain.Options(), "pretrain"), rows, None),
    "sft": lambda: Case(Sft(Sft.Options(loss="dft"), "sft"), rows, None),
    **{name: lambda name=name: CASES[name] for name in ("reward", "dpo", "kto", "orpo", "simpo")},  # type: ignore[misc]
    "grpo": lambda: Case(
        Grpo(Grpo.Options(num_generations=2, **ROLLOUTS), "grpo"), prompts_setup.prompts, None
    ),
    "online_dpo": lambda: Case(
        OnlineDpo(OnlineDpo.Options(**ROLLOUTS), "online_dpo"), prompts_setup.prompts, None
    ),
    "ppo": lambda: Case(
        Ppo(Ppo.Options(ppo_epochs=2, kl_target=0.1, **ROLLOUTS), "ppo"),
        prompts_setup.prompts,
        None,
    ),
}
WAYS = ("full", "lora")
KILLED_AFTER, STEPS = 5, 8
SETTINGS: dict[str, Any] = {
    "max_steps": STEPS,
    "save_steps": 2,
    "logging_steps": 1,
    "save_total_limit": 100,
    "max_length": 40,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "lr_scheduler_type": "cosine",
}


def kill(event: Event) -> None:
    """End this process after a step, as when the machine is taken away: nothing is closed or
    written any more."""
    if isinstance(event, Logged) and event.step == KILLED_AFTER:
        os.kill(os.getpid(), signal.SIGKILL)


def train(name: str, how: str, folder: Path, *, killed: bool = False, **settings: Any) -> Any:
    """(run, result), with dropout, evaluation, and a reference where the stage has one."""
    case = MAKE[name]()
    with_answers = case.stage.rows != "prompts"
    setup = answers_setup if with_answers else prompts_setup
    make = a_run if with_answers else prompts_run
    run = make(folder, on_event=kill) if killed else None
    given = {"data": case.rows(13), "evals": {"it": case.rows(3)}, **SETTINGS, **settings}
    reference = None if with_answers else adapted(case, how)
    return setup.run_stage(
        folder, adapted(case, how, 0.2), case.stage, run=run, reference=reference, **given
    )


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    prompts_setup.install_rewards()
    for name in MAKE:
        for how in WAYS:
            if not (child := os.fork()):
                train(name, how, folder / f"{name}-{how}", killed=True)
                os._exit(1)
            _, status = os.waitpid(child, 0)
            assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (
                name,
                how,
                status,
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
