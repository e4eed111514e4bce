"""The run's model as files that a server loads."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from tunewright import RunError
from tunewright.types import LoadedModel, RunContext
from tunewright_engine_remote.objections import config_problem, is_idle, quantizer_problem
from tunewright_hf.models import safety
from tunewright_hf.models.export import save_result
from tunewright_hf.models.hub import read_json

MERGED = "merged"  # folder of a merged model
_MERGE = "set engine.merge: true"


@dataclass(slots=True)
class Served:
    """Files that a server loads. loaded: the tokenizer. names: of the policy and of each adapter,
    as the server knows them; None: the model itself."""

    model: str
    revision: str | None
    loaded: LoadedModel
    names: list[str | None]
    adapters: dict[str, Path] = field(default_factory=dict)
    rank: int = 1


def find_served(run: RunContext, engine: Any, adapters: Mapping[str, Path], to: Path) -> Served:
    """Find, or with engine.merge write, what the server is to load. Raises RunError.

    to: folder for a merged model. adapters: name → folder, besides the run's own.
    """
    policy, merge = run.trained, engine.options.merge
    quantizer = run.recipe.quantizer
    if quantizer and not merge and quantizer.name not in engine.quantizers:
        raise RunError(quantizer_problem(engine.title, quantizer.name), place="engine", hint=_MERGE)
    if merge:
        if adapters:
            problem = "adapters belong to the model into which nothing is merged"
            raise RunError(problem, place="engine.merge", hint="set it to false")
        return _merged(run, to)
    loaded = run.load(prior=policy, trainable=False, weights="none")
    if policy is not None and policy.saves == "model":
        served = Served(str(policy.path), None, loaded, [None])
    else:
        served = _base(run, loaded)
        if policy is not None:
            served.names = [_add(served, engine.title, "policy", policy.path)]
    for number, folder in enumerate(adapters.values()):
        served.names.append(_add(served, engine.title, f"adapter-{number}", folder))
    return served


def served_elsewhere(run: RunContext, adapters: Mapping[str, Path]) -> Served:
    """The run's model on a server that runs already, which has it from wherever."""
    policy = run.trained
    loaded = run.load(prior=policy, trainable=False, weights="none")
    is_whole = policy is not None and policy.saves == "model"
    model = str(policy.path) if policy and is_whole else run.recipe.model
    return Served(model, None, loaded, [None, *adapters])


def _base(run: RunContext, loaded: LoadedModel) -> Served:
    """The recipe's model."""
    name = run.recipe.model
    if name == "tiny":
        raise RunError("a tiny twin has no checkpoint to serve", place="model", hint=_MERGE)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return Served(str(folder.resolve()), None, loaded, [None])
    return Served(name, run.plugin("family").options.revision, loaded, [None])


def _merged(run: RunContext, to: Path) -> Served:
    loaded = run.load_policy()
    if loaded.saves == "adapter":
        loaded = run.plugin("adapter").merge(loaded)
    save_result(loaded, to, run.plugin("template"))
    return Served(str(to), None, LoadedModel(None, loaded.tokenizer), [None])


def _add(served: Served, title: str, name: str, folder: Path) -> str:
    """Add an adapter under a name. Raises RunError if the server would not apply all of it."""
    place = folder / "adapter_config.json"
    if not place.is_file():
        raise RunError("is no adapter: there is no adapter_config.json", place=str(folder))
    safety.check_weights(folder, "adapter_model")
    config = read_json(place)
    if problem := config_problem(config):
        raise RunError(f"{problem}, which {title} does not apply", place=str(place), hint=_MERGE)
    if is_idle(folder):
        problem = f"holds no weights of LoRA: {title} would serve the model without it"
        raise RunError(problem, place=str(folder))
    ranks = [config.get("r", 8), *config.get("rank_pattern", {}).values()]
    if (rank := max(ranks)) > 512:
        problem = f"has rank {rank}, above 512, the largest that is served"
        raise RunError(problem, place=str(place), hint=_MERGE)
    served.rank = max(served.rank, rank)
    served.adapters[name] = folder.resolve()
    return name


def generation_config(served: Served) -> GenerationConfig | None:
    """The checkpoint's generation_config.json; None if it has none."""
    if served.model == "tiny":
        return None
    try:
        return GenerationConfig.from_pretrained(served.model, revision=served.revision or "main")
    except OSError:
        return None
