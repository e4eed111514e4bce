"""Section `launch` of a recipe: how many processes, and the plugin that starts them."""

import re
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

_RANGE = re.compile(r"([1-9][0-9]*):([1-9][0-9]*)")
_MOST_NODES = 65536


class Launch(BaseModel):
    """Processes of the run, and the launcher that starts them, with its own options. Where RANK is
    set, something else has started them, and only `timeout` counts."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    name: str | None = Field(None, min_length=1)
    """Launcher plugin. Default: torchrun, on this host."""
    processes: int = Field(1, gt=0, le=1024)
    """Processes per node: one per GPU."""
    nodes: int | str = Field(1, json_schema_extra={"tier": "advanced"})
    """Nodes (hosts). With launcher torchrun also a range such as "2:4": the run goes on with as
    many as there are."""
    timeout: float | None = Field(
        None, gt=0, le=1e6, json_schema_extra={"tier": "advanced", "unit": "seconds"}
    )
    """Seconds to wait for processes that do not come, or do not answer. Default: 600 to come, 1,800
    to answer."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("nodes")
    @classmethod
    def _is_a_count(cls, nodes: int | str) -> int | str:
        least, most = _ends(nodes)
        if not 0 < least <= most <= _MOST_NODES:
            raise ValueError(f'found {nodes!r}, expected a number such as 2, or a range "2:4"')
        return nodes

    @property
    def options(self) -> dict[str, Any]:
        """Options of the launcher."""
        return self.model_extra or {}

    @property
    def least_nodes(self) -> int:
        """Nodes without which the run does not begin."""
        return _ends(self.nodes)[0]

    @property
    def ranks(self) -> int:
        """Processes of the run; of a range of nodes, the most."""
        return self.processes * _ends(self.nodes)[1]

    @property
    def needs_launcher(self) -> bool:
        """Whether a launcher is named, or needed."""
        return self.name is not None or self.ranks > 1 or bool(self.options)

    def written(self, name: str, options: dict[str, Any]) -> Self:
        """The section with all options of its launcher."""
        return self.model_copy(update={"name": name, **options})


def _ends(nodes: int | str) -> tuple[int, int]:
    """Smallest and largest number; 0 where it is neither a number nor a range."""
    if isinstance(nodes, int):
        return nodes, nodes
    found = _RANGE.fullmatch(nodes)
    return (int(found[1]), int(found[2])) if found else (0, 0)
