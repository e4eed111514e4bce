"""Metrics in Prometheus' text format. Label values are few: routes and statuses."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tunewright.inference import EngineStats

__all__ = ["Metrics"]

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_STATS = {
    "running": ("gauge", "Answers that are generated."),
    "waiting": ("gauge", "Answers that wait for a slot."),
    "cache_tokens": ("gauge", "Positions of the key-value cache in use."),
    "prompt_tokens": ("counter", "Tokens of prompts."),
    "completion_tokens": ("counter", "Generated tokens."),
    "cached_tokens": ("counter", "Prompt tokens that were not computed again."),
}


@dataclass(slots=True)
class Histogram:
    counts: list[int] = field(default_factory=lambda: [0] * (len(_SECONDS) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(_SECONDS, seconds)] += 1
        self.total += seconds

    def lines(self, name: str, label: str) -> Iterator[str]:
        count = 0
        for limit, number in zip([*_SECONDS, "+Inf"], self.counts, strict=True):
            count += number
            yield f'{name}_bucket{{{label},le="{limit}"}} {count}'
        yield f"{name}_sum{{{label}}} {self.total:.6f}"
        yield f"{name}_count{{{label}}} {count}"


@dataclass(slots=True)
class Metrics:
    requests: Counter[tuple[str, int]] = field(default_factory=Counter)  # by route and status
    durations: defaultdict[str, Histogram] = field(  # by route
        default_factory=lambda: defaultdict(Histogram)
    )
    first_tokens: defaultdict[str, Histogram] = field(
        default_factory=lambda: defaultdict(Histogram)
    )
    gone: int = 0  # clients that closed the connection before the end

    def text(self, stats: EngineStats) -> str:
        """All metrics, as GET /metrics shows them."""
        lines = [*_head("requests_total", "counter", "Requests by route and status.")]
        for (route, status), count in sorted(self.requests.items()):
            lines.append(f'tunewright_requests_total{{route="{route}",status="{status}"}} {count}')
        for name, about, found in (
            ("request_seconds", "Time until the end of the response.", self.durations),
            ("first_byte_seconds", "Time until the first byte of a stream.", self.first_tokens),
        ):
            lines += _head(name, "histogram", about)
            for route, histogram in sorted(found.items()):
                lines += histogram.lines(f"tunewright_{name}", f'route="{route}"')
        lines += _single("clients_gone_total", "counter", "Clients that left early.", self.gone)
        for name, (kind, about) in _STATS.items():
            full = f"engine_{name}{'_total' if kind == 'counter' else ''}"
            lines += _single(full, kind, about, getattr(stats, name))
        return "\n".join(lines) + "\n"

    def finished(self, route: str, status: int, seconds: float) -> None:
        self.requests[route, status] += 1
        self.durations[route].observe(seconds)

    def began(self, route: str, seconds: float) -> None:
        self.first_tokens[route].observe(seconds)


def _head(name: str, kind: str, about: str) -> Iterable[str]:
    return f"# HELP tunewright_{name} {about}", f"# TYPE tunewright_{name} {kind}"


def _single(name: str, kind: str, about: str, value: int) -> Iterable[str]:
    return *_head(name, kind, about), f"tunewright_{name} {value}"
