"""The contract between the kernel and its plugins: every hook, when it is called, with what, and
what it returns.

All hooks but `report` are *directed*: the one plugin that the recipe names is called, inside the
wrappers of the run's accelerators, outermost first in the order of the recipe. A plugin may take
any subset of a hook's arguments, in any order, without defaults. `run` is a `types.RunContext`.
A hook may raise any TunewrightError; RecipeError where the recipe is wrong (exit code 2), RunError
where the run cannot go on (exit code 1). Any other exception is reported as a defect. Except for
`report`, no hook may return None.

Hooks of other kinds stand in the module that their `Kind` names: those of `scheduler` and `reward`
in tunewright_hf.hookspecs.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from typing import Any

    from tunewright import types
    from tunewright.errors import RowError
    from tunewright.events import Event
    from tunewright.types import RunContext

hookspec = pluggy.HookspecMarker("tunewright")
hookimpl = pluggy.HookimplMarker("tunewright")

# ---- the steps of a run, in order ----------------------------------------------------------------


@hookspec(firstresult=True)
def load_model(run: "RunContext", request: "types.LoadRequest") -> "types.LoadedModel":
    """Load model and tokenizer. Kind: family.

    When: for each stage, once for the policy and once for each further model that the stage
    declares (a reference); for each other model that a stage, a reward or an engine loads; with
    request.weights "none" wherever only the tokenizer is needed (data commands). Before
    finish_load and apply_adapter.

    request: what to load. Where request.loader is set, an accelerator replaces the loading: call it
    with the request and return what it returns.

    Returns the model on its device, each parameter in the dtype that request.dtype or the family's
    option says, in evaluation mode, with the head that request.head names. With request.trainable
    off, no parameter requires a gradient. With weights "meta" parameters have no storage; with
    weights "none" LoadedModel.model is None.

    Raises RunError where the checkpoint is missing, unsafe or incomplete.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def apply_adapter(run: "RunContext", request: "types.AdapterRequest") -> "types.LoadedModel":
    """Make the right parameters trainable. Kind: adapter.

    When: after each load_model (and finish_load), for the policy and for every further model; not
    for a complete model of an earlier stage that is not trained again, and not with weights "none".

    request.loaded: the model; it may be changed in place. With request.adapter_path the trained
    weights of this adapter are read from that folder. With request.trainable off, nothing requires
    a gradient. New weights depend on request.seed alone.

    Returns the model with requires_grad set on what is trained and on nothing else,
    LoadedModel.trained the names of these parameters, and LoadedModel.saves what a save holds:
    "model" or "adapter".

    Raises RecipeError where the options do not fit the model, RunError where adapter_path does not.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def build_dataset(run: "RunContext", request: "types.DataRequest") -> "types.Data":
    """Read, convert, render and tokenise. Kind: dataset.

    When: once for each stage, after the models are loaded and before train_stage, on every rank,
    before a process group exists.

    request.entries: the recipe's `data`, validated by the plugin's own `Entry`. request.rows: the
    kind of rows that the stage trains on. request.max_length: tokens.

    Returns rows as `types.Data` describes them, in the order of the sources: shuffling is the
    trainer's. Its fingerprint changes with everything that changes the rows.

    Raises RowError with file and line, RecipeError where a source does not fit.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def format_template(run: "RunContext", request: "types.TemplateRequest") -> "types.Rendered":
    """Render one conversation. Kind: template.

    When: for each row by the dataset, and for each prompt by engines. It may be called in worker
    processes and must depend on the request and the options alone.

    Returns the text and the character spans [start, end) that the model is trained to produce, stop
    tokens included. With add_generation_prompt the text ends where the assistant begins to write.

    Raises RowError where the conversation does not fit the template.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def train_stage(run: "RunContext", request: "types.TrainRequest") -> "types.StageResult":
    """Train, evaluate and save. Kind: stage.

    When: once for each entry of the recipe's `stages`, on every rank; not for stages that an
    interrupted run had finished.

    request.folder: this stage's; checkpoints go to request.folder/checkpoints and the result to
    request.folder/model. request.checkpoint: continue from it.

    Emits StageStarted, Logged, Evaluated and Saved on rank 0.

    Raises Stopped, after a save, when request.stop_requested() returns true.
    """
    raise NotImplementedError


@hookspec
def report(run: "RunContext", event: "Event") -> None:
    """Receive an event. Kind: logger. The one hook that goes to every plugin of its kind.

    When: for each event, in order, on rank 0 only, in a thread of the plugin's own. It may be slow
    or raise: then the logger is muted, which is said once, and the run goes on. Unknown events are
    to be ignored. Returns None.
    """


# ---- called inside a step ------------------------------------------------------------------------


@hookspec(firstresult=True)
def prepare_load(run: "RunContext", request: "types.LoadRequest") -> bool:
    """Edit the load request, such as request.quantization. Kind: quantizer.

    When: before each load_model whose request.weights is not "none". Returns True.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def finish_load(run: "RunContext", loaded: "types.LoadedModel") -> "types.LoadedModel":
    """Change the loaded model. Kind: quantizer.

    When: after each load_model that prepare_load came before, and before apply_adapter. Returns
    what later steps use, with LoadedModel.quantized and linear_types set.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def build_optimizer(run: "RunContext", request: "types.OptimizerRequest") -> "Any":
    """Build a torch.optim.Optimizer over all of request.parameters. Kind: optimizer.

    When: once for each stage, when the parameters are final: sharded, and in the dtype that they
    are trained in.

    request.parameters: (name, Parameter) pairs, all trainable. Weight decay is for matrices, not
    for biases and norms. The first parameter group has request.learning_rate: logs show it.

    An optimizer may have `train()` and `eval()` (called before training steps, and before
    evaluation, saving and sampling) and `training_callbacks` (tunewright_hf.training.callbacks).
    Its state_dict must hold tensors, numbers, text, lists and dicts only: anything else is refused
    after the first step.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def convert_rows(
    run: "RunContext", request: "types.RowsRequest"
) -> "Iterator[types.Row | RowError]":
    """Convert records to rows of the kind request.rows. Kind: format.

    When: once for each chunk of a source's records, in worker processes, lazily: what is remembered
    from one record to the next may be forgotten.

    Yields for each record, in order, its row (of a ranking: its rows), or, not raised, the RowError
    that says why it cannot be used.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def generate(run: "RunContext", request: "types.GenerateRequest") -> "Iterator[types.Reply]":
    """Generate a reply, streamed. Kind: engine. Provisional: `open_engine` will replace it.

    When: for each reply in chat. The model is loaded at the first call and kept. Several calls may
    run at once, in threads: none may change what another returns.

    Yields pieces of text that, joined, are the reply without its stop token. The last piece has a
    finish_reason.
    """
    raise NotImplementedError
