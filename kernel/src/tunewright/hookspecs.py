"""The contract between the kernel and its plugins: every hook, when it is called, with what, and
what it returns.

All hooks but `report` are *directed*: the one plugin that the recipe names is called, inside the
wrappers of the run's accelerators, outermost first in the order of the recipe. A plugin may take
any subset of a hook's arguments, in any order, without defaults. `run` is a `types.RunContext`.
A hook may raise any TunewrightError; RecipeError if the recipe is wrong (exit code 2), RunError if
the run cannot continue (exit code 1). Any other exception is reported as a defect. Except for
`report`, no hook may return None.

Hooks of other kinds are in the module that their `Kind` names: those of `scheduler` and `reward`
in tunewright_hf.hookspecs.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from typing import Any

    from tunewright import inference, types
    from tunewright.errors import RowError
    from tunewright.events import Event
    from tunewright.launch import Launched, LaunchRequest
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

    request: what to load. If request.loader is set, an accelerator replaces the loading: call it
    with the request and return what it returns.

    Returns the model on its device, each parameter in the dtype that request.dtype or the family's
    option says, in evaluation mode, with the head that request.head names. With request.trainable
    off, no parameter requires a gradient. With weights "meta" parameters and buffers have no
    storage, and LoadedModel.deferred loads them; a family that cannot do so for a model loads it
    whole. With weights "none" LoadedModel.model is None.

    Raises RunError if the checkpoint is missing, unsafe or incomplete.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def apply_adapter(run: "RunContext", request: "types.AdapterRequest") -> "types.LoadedModel":
    """Set which parameters are trained. Kind: adapter.

    When: after each load_model (and finish_load), for the policy and for every further model; not
    for a complete model of an earlier stage that is not trained again, and not with weights "none".

    request.loaded: the model; it may be changed in place. With request.adapter_path the trained
    weights of this adapter are read from that folder. With request.trainable off, nothing requires
    a gradient. New weights depend on request.seed alone.

    Returns the model with requires_grad set on what is trained and on nothing else,
    LoadedModel.trained the names of these parameters, and LoadedModel.saves what a save holds:
    "model" or "adapter".

    Raises RecipeError if the options do not fit the model, RunError where adapter_path does not.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def prepare_adapter(
    run: "RunContext", loaded: "types.LoadedModel", data: "types.Data"
) -> "types.LoadedModel":
    """Initialise the adapter from the data that it will be trained on. Kind: adapter. Optional.

    When: if the adapter implements it, once for each stage, for the policy, after build_dataset and
    before train_stage; again when a run is resumed, before the checkpoint is read. On every rank,
    with the same rows, before a process group exists.

    loaded: what apply_adapter returned, with weights if Adapter.works_on_meta is False. What is
    trained may change: other parameters and shapes. It must depend on the recipe, the weights and
    the data alone, or a resumed run would not fit its checkpoint.

    Returns the model as apply_adapter does.
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

    Raises RowError if the conversation does not fit the template.
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
    or raise: then the logger is muted, which is reported once, and the run continues. Ignore
    unknown events. Returns None.
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

    When: after each load_model that prepare_load came before, and before apply_adapter.

    Returns what later steps use, with LoadedModel.quantized and linear_types set. Merging an
    adapter calls `model.dequantize()`, which returns the model with plain weights: models that
    transformers quantizes have it, others get one here.
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
def open_engine(
    run: "RunContext", request: "inference.EngineRequest"
) -> "inference.InferenceEngine":
    """Load the model, and return what answers. Kind: engine.

    When: once by a command that generates, such as chat or serve, which closes what it gets. The
    model is that of `run.load_policy()`.

    Returns an engine that takes requests from any thread. An answer depends on its request alone,
    not on those beside it.

    Raises RunError if the engine or an adapter cannot be loaded.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def launch(run: "RunContext", request: "LaunchRequest") -> "Launched":
    """Start the command line of request.argv once for each process of the run. Kind: launcher.

    When: by `tunewright train` in the process that the user started, where the recipe names a
    launcher or asks for more than one process and RANK is not set. No model is loaded there, and no
    other hook is called.

    Each process gets the variables of tunewright.launch.VARIABLES, and runs that command line, or
    calls tunewright.launch.work. Where request.stop_requested() returns true, all of them are told
    to save and end: by SIGTERM, or by the function that `work` takes. A start after the first one,
    such as that of a job that was preempted, adds `--resume`.

    Returns when all have ended, or, with submitted, when something else will start them.

    Raises RunError where they cannot be started, or one of them is lost.
    """
    raise NotImplementedError
