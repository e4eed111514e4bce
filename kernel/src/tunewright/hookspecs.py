"""The contract between the kernel and its plugins: every hook, when it is called, with what, and
what it gives.

All hooks but `report` are *directed*: the kernel calls the one plugin that the recipe names, inside
the wrappers of the run's accelerators, outermost first in the order of the recipe. A plugin may
take any subset of a hook's arguments, in any order, without defaults. `run` is the
`tunewright.run.Run` in progress.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from typing import Any

    from tunewright import types
    from tunewright.errors import RowError
    from tunewright.events import Event
    from tunewright.run import Run

hookspec = pluggy.HookspecMarker("tunewright")
hookimpl = pluggy.HookimplMarker("tunewright")

# ---- the steps of a run, in order ----------------------------------------------------------------


@hookspec(firstresult=True)
def load_model(run: "Run", request: "types.LoadRequest") -> "types.LoadedModel":
    """Load model and tokenizer. Kind: family. Called once a stage, before apply_adapter.

    request: what to load; where `request.loader` is set, call it in place of your own loading.
    Returns the model on its device, every parameter as it was stored, with the head that
    `request.head` names. Raises RunError where the checkpoint is missing or unsafe. Never None.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def apply_adapter(run: "Run", request: "types.AdapterRequest") -> "types.LoadedModel":
    """Make the right parameters trainable. Kind: adapter. Called once a stage, after load_model.

    request.loaded: the model; may be changed in place and given back. With `request.weights` the
    adapter's trained weights are read from that folder. Sets `Loaded.weights` to what a save holds.
    Returns a model in which requires_grad is set on what is trained, and on nothing else. Never
    None.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def build_dataset(run: "Run", request: "types.DataRequest") -> "types.Data":
    """Read, convert, render and tokenise. Kind: dataset. Called once a stage, before train_stage,
    outside any process group.

    request.entries: the recipe's `data`, checked against the plugin's own `Entry`. Returns rows as
    `types.Data` describes them, in the order of the sources; shuffling is the trainer's. Raises
    RowError with file and line. Never None.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def format_template(run: "Run", request: "types.TemplateRequest") -> "types.Rendered":
    """Render one conversation. Kind: template. Called once a row by the dataset, and by engines for
    each reply.

    Returns the text, and the character spans [start, end) that the model is trained to produce,
    stop tokens included. With `add_generation_prompt` the text ends where the assistant begins to
    write. Raises RowError where the conversation does not fit the template. Never None.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def train_stage(run: "Run", request: "types.TrainRequest") -> "types.StageResult":
    """Train, save and evaluate. Kind: stage. Called once for each entry of the recipe's `stages`.

    Emits StageStarted, Logged, Evaluated and Saved on rank 0; leaves checkpoints in
    `request.folder/checkpoints` and the result in `request.folder/model`. Raises Stopped, after a
    save, when `request.stop_requested()`. Never None.
    """
    raise NotImplementedError


@hookspec
def report(run: "Run", event: "Event") -> None:
    """Listen. Kind: logger. The one hook that goes to every plugin of its kind, on rank 0 only, in
    a thread of its own. May be slow or raise: then it is muted, said once, and the run goes on.
    Unknown events are ignored.
    """


# ---- asked for inside a step ---------------------------------------------------------------------


@hookspec(firstresult=True)
def prepare_load(run: "Run", request: "types.LoadRequest") -> bool:
    """Edit the load request before load_model. Kind: quantizer. Returns True."""
    raise NotImplementedError


@hookspec(firstresult=True)
def finish_load(run: "Run", loaded: "types.LoadedModel") -> "types.LoadedModel":
    """Change the loaded model before apply_adapter. Kind: quantizer. Returns what later steps
    use."""
    raise NotImplementedError


@hookspec(firstresult=True)
def build_optimizer(run: "Run", request: "types.OptimizerRequest") -> "Any":
    """Build a torch.optim.Optimizer over all of `request.parameters`. Kind: optimizer. Called by
    the stage when the parameters are final. `weight_decay` is for matrices, not for biases and
    norms.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def build_scheduler(run: "Run", request: "types.SchedulerRequest") -> "Any":
    """Build a torch LRScheduler over `request.optimizer`, stepped once an optimizer step. Kind:
    scheduler. Called once a stage."""
    raise NotImplementedError


@hookspec(firstresult=True)
def score(run: "Run", request: "types.RewardRequest") -> "list[float | None]":
    """Score completions: a number each, None where there is nothing to say. Kind: reward. Called
    by each rank for its own completions."""
    raise NotImplementedError


@hookspec(firstresult=True)
def convert_rows(run: "Run", request: "types.RowsRequest") -> "Iterator[types.Row | RowError]":
    """Turn records into rows of the sort `request.rows`. Kind: format. Called once for each chunk
    of a source's records, lazily: what is remembered from one record to another may be forgotten.

    Yields for each record, in order: its row (of a ranking, its rows), or, not raised, the RowError
    that says why not.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def generate(run: "Run", request: "types.GenerateRequest") -> "Iterator[types.Reply]":
    """Answer a conversation, streamed. Kind: engine. The model is loaded at the first call and
    kept.

    Yields pieces of text that, joined, are the answer without its stop token; the last one has a
    finish_reason.
    """
    raise NotImplementedError
