"""Memory and time of a recipe, known before the run."""

import json
from pathlib import Path
from typing import Annotated

import typer

from tunewright.cli_common import AsJson, Overrides, RecipePath, TrustRemoteCode

DeviceName = Annotated[
    str | None,
    typer.Option(
        help="Device to plan for, such as h100-80g; cpu: without a GPU. Default: this machine's "
        "GPU, else any GPU."
    ),
]
DeviceCount = Annotated[
    int | None, typer.Option(min=1, help="Number of devices. Default: launch.processes.")
]
DeviceFile = Annotated[Path | None, typer.Option(help="TOML file with further devices.")]
ConfigFolder = Annotated[
    Path | None,
    typer.Option(help="Folder with the config.json of the model, which needs no weights."),
]
StageNumber = Annotated[
    int | None, typer.Option(min=1, help="Number of the recipe's stage. Default: all.")
]
ReadData = Annotated[
    bool, typer.Option(help="Read the data, to know its largest batch and the time it takes.")
]
Utilisation = Annotated[
    float,
    typer.Option(
        "--mfu", min=0.01, max=1.0, help="Share of the device's peak speed that is reached."
    ),
]
Largest = Annotated[
    bool, typer.Option("--largest", help="Also find the largest batch and length that fit.")
]
ProbeHere = Annotated[
    bool, typer.Option("--probe", help="Train a few real steps here, and print what they took.")
]


def command(
    recipe: RecipePath,
    overrides: Overrides = None,
    device: DeviceName = None,
    devices: DeviceCount = None,
    device_file: DeviceFile = None,
    config: ConfigFolder = None,
    stage: StageNumber = None,
    data: ReadData = True,
    utilisation: Utilisation = 0.4,
    largest: Largest = False,
    probe: ProbeHere = False,
    as_json: AsJson = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Tell whether a recipe fits on a device, what it takes, and what would make it fit.

    Nothing is loaded: the recipe's own steps run on tensors without storage. The model's config is
    read from its folder or the hub.
    """
    from tunewright_plan.planning import Asked, planned
    from tunewright_plan.table import show

    changes = list(overrides or [])
    if devices is not None:
        changes.append(f"launch.processes={devices}")
    if config is not None:
        changes.append(f"model={json.dumps(str(config))}")
    asked = Asked(device, device_file, stage, data, utilisation, largest, probe, trust_remote_code)
    found = planned(recipe, changes, asked)
    if as_json:
        print(json.dumps([each.as_dict() for each in found], indent=1))
    else:
        for each in found:
            show(each)
