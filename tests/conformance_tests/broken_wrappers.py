"""Quantizers and accelerators that are good, and ones with one fault each: subject, and the tests
that it fails."""

from conformance_tests.verdict import Subject

QUANTIZER = '''
from tunewright import hookimpl
from tunewright_bitsandbytes import BitsAndBytes


class Subject(BitsAndBytes):
    """A quantizer, perhaps with a fault."""

    {more}

    @hookimpl
    def prepare_load(self, run, request):
        found = super().prepare_load(run, request)
        {prepared}
        return found

    @hookimpl
    def finish_load(self, loaded):
        loaded = super().finish_load(loaded)
        model = loaded.model
        {finished}
        return loaded
'''
ACCELERATOR = '''
import os

from tunewright import Accelerator, Problem, hookimpl


class Subject(Accelerator):
    """An accelerator, perhaps with a fault."""

    {more}

    @hookimpl(wrapper=True)
    def train_stage(self, run, request):
        import torch
        from transformers.models.llama.modeling_llama import LlamaMLP

        training, forward, silu = request.training, LlamaMLP.forward, torch.nn.functional.silu
        {body}
'''
RATE = (
    "request.training = training.model_copy(update={'learning_rate': %s})\n        return (yield)"
)
PATCH = "LlamaMLP.forward = lambda self, x: forward(self, x)\n        "
RESTORED = PATCH + (
    "try:\n            return (yield)\n        finally:\n            LlamaMLP.forward = forward"
)
ONLY_AT_THE_END = (
    PATCH + "result = yield\n        LlamaMLP.forward = forward\n        return result"
)
DETACH = (
    "model.model.layers[0].register_forward_hook(lambda m, i, o: o[0].detach() "
    "if isinstance(o, tuple) else o.detach())"
)


def quantizer(
    finished: str = "pass", prepared: str = "pass", more: str = "", tried: str = ""
) -> Subject:
    source = QUANTIZER.format(more=more, prepared=prepared, finished=finished)
    return Subject("quantizer", source, tried=tried)


def accelerator(body: str = "return (yield)", more: str = "", tried: str = "") -> Subject:
    return Subject("accelerator", ACCELERATOR.format(body=body, more=more), tried=tried)


SUBJECTS: dict[str, tuple[Subject, set[str]]] = {
    "x_good_quantizer": (quantizer(), set()),
    "x_says_nothing": (
        quantizer("loaded.quantized = frozenset()"),
        {"test_says_what_is_quantized", "test_merged"},
    ),
    "x_says_too_much": (
        quantizer("loaded.quantized |= {'model.norm'}"),
        {"test_says_what_is_quantized", "test_adapter_finds_all", "test_weight_bytes"},
    ),
    "x_counts_half": (
        quantizer(
            more="def weight_bytes(self, shape, dtype):\n"
            "        return super().weight_bytes(shape, dtype) / 2"
        ),
        {"test_weight_bytes"},
    ),
    "x_objects_to_nothing": (
        quantizer(more="def objections(self, recipe):\n        return ()"),
        {"test_refuses_to_train_quantized_weights"},
    ),
    "x_quantizes_nothing": (
        quantizer(prepared="request.quantization = None"),
        {"test_says_what_is_quantized"},
    ),
    "x_loads_noise": (
        quantizer(
            "import torch; model.model.norm.weight.data.add_(0.1 * "
            "torch.rand_like(model.model.norm.weight))"
        ),
        {"test_the_same_again", "test_saved_and_loaded"},
    ),
    "x_turns_the_sign": (
        quantizer("model.model.norm.weight.data.neg_()"),
        {"test_says_about_the_same"},
    ),
    "x_hides_layers": (
        quantizer("loaded.adapter_exclude += ('mlp',)"),
        {"test_adapter_finds_all"},
    ),
    "x_stops_gradients": (quantizer(DETACH), {"test_adapter_finds_all"}),
    "x_helps_out_of_sight": (
        quantizer("model.model.norm.register_forward_hook(lambda m, i, o: 1.1 * o)"),
        {"test_merged"},
    ),
    "x_good_accelerator": (accelerator(), set()),
    "x_restores": (accelerator(RESTORED), set()),
    "x_trains_faster": (accelerator(RATE % "2 * training.learning_rate"), {"test_same_training"}),
    "x_says_how_far": (
        accelerator(RATE % "1.01 * training.learning_rate", tried="tolerance = 0.05"),
        set(),
    ),
    "x_forgets_where_it_was": (
        accelerator("request.checkpoint = None\n        return (yield)"),
        {"test_resume"},
    ),
    "x_leaves_a_patch": (
        accelerator(
            "torch.nn.functional.silu = lambda x, inplace=False: silu(x)\n        return (yield)"
        ),
        {"test_leaves_nothing_patched", "test_leaves_nothing_patched_when_stopped"},
    ),
    "x_restores_at_the_end": (
        accelerator(ONLY_AT_THE_END),
        {"test_leaves_nothing_patched_when_stopped"},
    ),
    "x_sets_a_variable": (
        accelerator("os.environ['SET_BY_IT'] = str(id(request))\n        return (yield)"),
        {"test_leaves_nothing_patched", "test_leaves_nothing_patched_when_stopped"},
    ),
    "x_should_refuse": (accelerator(tried="refuses = [{ adapter = 'full' }]"), {"test_refuses"}),
    "x_gives_no_remedy": (
        accelerator(
            more="def objections(self, recipe):\n"
            "        if recipe.recipe.adapter.name == 'lora':\n"
            "            yield Problem(self.at, 'no')",
            tried="refuses = [{ adapter = 'lora' }]",
        ),
        {"test_refuses"},
    ),
    "x_refuses_everyone": (
        accelerator(
            more="def objections(self, recipe):\n        yield Problem(self.at, 'no', 'another')"
        ),
        {"test_may_be_used", "test_same_training", "test_resume", "test_leaves_nothing_patched"}
        | {"test_leaves_nothing_patched_when_stopped"},
    ),
}
