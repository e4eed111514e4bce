"""A run that is planned: models without storage, and stages that measure in place of training."""

import gc
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
)

from tunewright import RecipeError
from tunewright.check import Resolved
from tunewright.context import Run
from tunewright.detection import detect_family
from tunewright.recipe import Section
from tunewright.types import (
    AdapterRequest,
    Data,
    Head,
    LoadedModel,
    LoadRequest,
    ModelRole,
    StageResult,
    TrainRequest,
    Weights,
)
from tunewright_hf.distributed.private import forget_accelerator
from tunewright_hf.models import hub, listed, prequantized
from tunewright_hf.models.modules import layers
from tunewright_hf.planning.batch import Workload, training_on
from tunewright_hf.planning.fake import FakeStorageCounter, without_storage
from tunewright_hf.planning.layers import LayerKinds, extrapolated, keep_layers
from tunewright_hf.planning.loading import config_only
from tunewright_hf.planning.measure import Measurement, StepMeter
from tunewright_hf.planning.rollouts import planned_rollouts
from tunewright_hf.planning.stand_ins import QuantizedLinear, quantize

__all__ = ["Architecture", "PlannedRun", "measure_stage"]


@dataclass
class Architecture:
    """Sizes of a stage's whole model."""

    parameters: int = 0
    trained: int = 0  # parameters
    largest_layer: int = 0  # parameters
    outside_layers: int = 0  # parameters
    without_media: bool = False  # the model takes media, which are not planned
    kinds: LayerKinds | None = field(default=None, repr=False)  # None: measured as a whole


class PlannedRun(Run):
    """Loads models without storage. To be used where a FakeStorageCounter counts."""

    #: whether a model was loaded that takes media
    without_media = False

    def call(self, kind: str, hook: str, request: Any) -> Any:
        """As `Run.call`. Raises RecipeError for a plugin that reads values of weights."""
        try:
            return super().call(kind, hook, request)
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            problem = (
                f"{self.plugin(kind).name} reads values of weights, which a plan does not have"
            )
            raise RecipeError(problem, place=kind, hint=f"torch says: {error}") from error

    def load(
        self,
        *,
        head: Head = "causal_lm",
        prior: StageResult | None = None,
        trainable: bool = True,
        weights: Weights = "load",
    ) -> LoadedModel:
        """As `Run.load`, with stand-ins for quantized weights. prior: another model's, such as a
        reference's; None: the recipe's."""
        if "family" not in self._callers:
            self.use("family", Section(name=detect_family(self.recipe.model)))
        family = self.plugin("family")
        model = str(prior.path) if prior else self.recipe.model
        request = LoadRequest(
            model,
            head,
            trust_remote_code=self.trust_remote_code,
            trainable=trainable,
            device="cpu",
            tiny_of=self.resolved.smoke_of if model == "tiny" else None,
            media=False,
        )
        revision = family.options.revision if model == self.recipe.model else None
        if model != "tiny":
            known = listed.read(family.package, "checkpoints.toml")
            part, config = known.get("media_part", {}), hub.read_config(model, revision) or {}
            self.without_media |= config.get("model_type") in known.get("media", ())
            request.loader = lambda asked: config_only(asked, revision, part)
        loaded: LoadedModel = self.call("family", "load_model", request)
        if self.template is None:
            written = self.recipe.template
            self.use("template", written or Section(name=loaded.template or "auto"))
        if (quantizer := self._quantizer(model, revision)) is not None:
            quantize(loaded, quantizer.weight_bytes)
        if prior is not None and not trainable:
            return loaded
        asked = AdapterRequest(loaded, head, None, trainable, self.recipe.training.seed)
        adapted: LoadedModel = self.call("adapter", "apply_adapter", asked)
        return adapted

    def _quantizer(self, model: str, revision: str | None) -> Any:
        """The plugin that declares the bytes of quantized weights; None for plain ones."""
        if "quantizer" in self._callers:
            found = self.plugin("quantizer")
            return None if found.trainable else found
        stored = None
        if model != "tiny":
            stored = prequantized.stored(hub.read_config(model, revision) or {})
        if stored is None:
            return None
        name = prequantized.plugin_name(stored)
        known = self.named("quantizer", name).plugin.Options.model_fields
        return self.named(
            "quantizer", name, **{key: stored[key] for key in known if key in stored}
        ).plugin


def measure_stage(
    resolved: Resolved,
    number: int,
    workload: Workload,
    *,
    on_gpu: bool = True,
    whole: bool = False,
    trust_remote_code: bool = False,
) -> tuple[Measurement, Architecture]:
    """Memory and work of a step of stage `number` (0 is the first) on its largest batch.

    Accelerators that do not run in a plan have to be left out of `resolved`. on_gpu: whether it is
    to train on a GPU. whole: run all layers in place of a few of each kind.
    """

    def measure(kept: list[int]) -> Measurement:
        with _PlannedStage(resolved, number, on_gpu, trust_remote_code) as stage:
            return stage.measure(workload, kept)

    with _PlannedStage(resolved, number, on_gpu, trust_remote_code) as stage:
        sizes = stage.architecture()
        if whole or resolved.lists.get("accelerator"):  # these may treat layers differently
            sizes.kinds = None
        base = stage.measure(workload, sizes.kinds.kept() if sizes.kinds else None)
    return extrapolated(sizes.kinds, base, measure) if sizes.kinds else base, sizes


class _PlannedStage:
    """A stage's models, all layers of them, on fake tensors."""

    def __init__(
        self, resolved: Resolved, number: int, on_gpu: bool, trust_remote_code: bool
    ) -> None:
        self.resolved, self.number = resolved, number
        self.on_gpu, self.trusted = on_gpu, trust_remote_code
        self.counter = FakeStorageCounter()
        self._stack = ExitStack()

    def __enter__(self) -> "_PlannedStage":
        with self._stack:
            self._stack.enter_context(without_storage(self.counter, self.on_gpu))
            self._stack.enter_context(planned_rollouts(self.counter))
            self.run = PlannedRun(self.resolved, trust_remote_code=self.trusted)
            self.run.begin_stage(self.number)
            stage = self.run.stage(self.number)
            self.loaded = self.run.load(head=stage.head)
            self.others: dict[ModelRole, LoadedModel] = {
                role: self.run.load(trainable=False) for role in stage.models if role != "policy"
            }
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()
        forget_accelerator()  # the training that is planned for may be on a GPU

    def architecture(self) -> Architecture:
        """Sizes of the policy."""
        model = self.loaded.model
        name, _ = layers(model, self.loaded.adapter_exclude)
        stack = [_count(layer) for layer in model.get_submodule(name)]
        trained = sum(each.numel() for each in model.parameters() if each.requires_grad)
        every = _count(model)
        kinds = LayerKinds.of(self.loaded)
        outside = every - sum(stack)
        return Architecture(every, trained, max(stack), outside, self.run.without_media, kinds)

    def measure(self, workload: Workload, kept: list[int] | None) -> Measurement:
        """Two steps with these layers alone, which are then all that there are; None: with all."""
        stack = None
        if kept is not None:
            for each in (self.loaded, *self.others.values()):
                stack = keep_layers(each, kept), kept
        gc.collect()  # removed layers that are in reference cycles
        training = training_on(workload, self.resolved.stages[self.number].training)
        meter = StepMeter(self.counter, stack)
        with tempfile.TemporaryDirectory() as folder:
            request = TrainRequest(
                self.loaded, Data(train=workload.rows), training, Path(folder), self.others
            )
            request.train_with = meter
            self.run.call("stage", "train_stage", request)
        return meter.found


def _count(module: Any) -> int:
    """Parameters of a module, quantized ones as what they stand for."""
    packed = {each.weight: each for each in module.modules() if isinstance(each, QuantizedLinear)}
    return sum(
        packed[each].in_features * packed[each].out_features if each in packed else each.numel()
        for each in module.parameters()
    )
