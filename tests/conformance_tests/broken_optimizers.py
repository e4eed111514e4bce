"""Optimizers that are good, and ones with one fault each: subject, and the tests that it fails."""

from conformance_tests.verdict import Subject

PLUGIN = '''
import math

from tunewright import Optimizer, hookimpl


class Subject(Optimizer):
    """An optimizer, perhaps with a fault."""

    steps_in_backward = {in_backward}

    def state_bytes(self, shape, dtype):
        return {bytes} * (2 if dtype == "bfloat16" else 4) * math.prod(shape)

    @hookimpl
    def build_optimizer(self, request):
        from importlib import import_module

        return import_module(__name__ + ".heavy").build(request)

    {more}
'''
HEAVY = """
import torch
from tunewright_hf.training.callbacks import TrainingCallback
from tunewright_hf.training.param_groups import parameter_groups

def build(request):
    {build}
"""
ADAMW = "return torch.optim.AdamW(parameter_groups(request))"

MODES = '''
class Averaging(torch.optim.SGD):
    """Trains one set of weights, and evaluates the mean of each and where it was before."""

    def __init__(self, groups):
        super().__init__(groups, lr=1.0)
        for group in self.param_groups:
            group["evaluates"] = False

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for each in group["params"]:
                if each.grad is not None:
                    self.state[each]["before"] = each.clone()
        super().step()

    @torch.no_grad()
    def swap(self):
        for group in self.param_groups:
            for each in group["params"]:
                if "before" in self.state[each]:
                    kept = each.clone()
                    other = "trained" if group["evaluates"] else "before"
                    {average}
                    self.state[each]["before"].copy_(kept)
            group["evaluates"] = not group["evaluates"]

    def eval(self):
        if {to_eval}:
            self.swap()

    {train}
'''
SWAP = "each.copy_(self.state[each]['before'])"
TRAIN = """def train(self):
        if self.param_groups[0]["evaluates"]:
            self.swap()
"""

IN_BACKWARD = '''
class Inside(torch.optim.SGD):
    """SGD that updates each parameter as soon as its gradient is there."""

    def __init__(self, groups):
        super().__init__(groups, lr=1.0)
        for group in self.param_groups:
            for each in group["params"]:
                each.register_post_accumulate_grad_hook(self.updater(group))

    def updater(self, group):
        @torch.no_grad()
        def update(each):
            each.mul_(1 - group["lr"] * group["weight_decay"])
            each.sub_(each.grad, alpha=group["lr"])
            {free}
        return update

    def step(self, closure=None):
        pass
'''

BLOCKS = '''
class Switching(TrainingCallback):
    """Trains the even and the odd parameters in turns."""

    def __init__(self, named):
        self.named, self.count = named, 0

    def on_step_begin(self, loop):
        turn = {turn}
        self.count += 1
        for number, (_, each) in enumerate(self.named):
            each.requires_grad_(number % 2 == turn % 2)
        {also}

def with_blocks(request):
    made = torch.optim.AdamW(parameter_groups(request))
    made.training_callbacks = [Switching(request.parameters)]
    return made
'''
BURY = """for name, _ in self.named:
            if name.endswith("norm.weight"):
                owner = loop.model.get_submodule(name.rpartition(".")[0])
                value = owner._parameters.pop("weight", None)
                if value is not None:
                    owner.register_buffer("weight", value.data)"""


MOVING = """
class Moving(torch.optim.AdamW):
    @torch.no_grad()
    def step(self, closure=None):
        super().step()
        for group in self.param_groups:
            [each.mul_(0.999) for each in group["params"] if each.grad is None]
"""


def optimizer(
    build: str = ADAMW,
    classes: str = "",
    *,
    bytes: float = 2,
    in_backward: bool = False,
    more: str = "",
    tried: str = "",
) -> Subject:
    plugin = PLUGIN.format(in_backward=in_backward, bytes=bytes, more=more)
    files = {"heavy.py": HEAVY.format(build=build).replace("\ndef build", classes + "\ndef build")}
    return Subject("optimizer", plugin, files=files, tried=tried)


def modes(to_eval: str = "not self.param_groups[0]['evaluates']", train: str = TRAIN) -> Subject:
    source = MODES.format(average=SWAP, to_eval=to_eval, train=train)
    return optimizer(
        "return Averaging(parameter_groups(request))", source, bytes=1, tried=SGD_RATES
    )


def inside(free: str = "each.grad = None", **facts: object) -> Subject:
    source = IN_BACKWARD.format(free=free)
    given = {"in_backward": True, "bytes": 0, "tried": ALONE, **facts}
    return optimizer("return Inside(parameter_groups(request))", source, **given)  # type: ignore[arg-type]


def blocks(turn: str = "loop.step", also: str = "pass") -> Subject:
    return optimizer("return with_blocks(request)", BLOCKS.format(turn=turn, also=also))


RUNS = {
    "test_loss_falls",
    "test_resume",
    "test_checkpoint_holds_all_that_is_trained",
    "test_result_is_what_was_evaluated",
}
SGD_RATES = "learning_rate = 0.05\nlearning_rate_of_run = 0.3"
ALONE = SGD_RATES + "\nsections.training.max_grad_norm = 0"
SGD = "return torch.optim.SGD(parameter_groups(request))"

SUBJECTS: dict[str, tuple[Subject, set[str]]] = {
    "x_good_optimizer": (optimizer(), set()),
    "x_good_modes": (modes(), set()),
    "x_good_in_backward": (inside(), set()),
    "x_good_blocks": (blocks(), set()),
    "x_forgets_a_parameter": (
        optimizer("request.parameters.pop(); " + ADAMW),
        # its gradient is never freed
        {"test_covers_every_parameter", "test_falls_on_a_quadratic", "test_resume"},
    ),
    "x_deaf_to_rates": (
        optimizer("request.learning_rate_scales = {}; " + ADAMW),
        {"test_learning_rates"},
    ),
    "x_decays_all": (
        optimizer(
            "return torch.optim.AdamW([p for _, p in request.parameters], lr=request.learning_rate,"
            " weight_decay=request.weight_decay)"
        ),
        {"test_weight_decay", "test_learning_rates"},
    ),
    "x_climbs": (
        optimizer("return torch.optim.AdamW(parameter_groups(request), maximize=True)"),
        {"test_falls_on_a_quadratic", "test_loss_falls"},
    ),
    "x_loses_its_state": (
        optimizer(
            "made = torch.optim.AdamW(parameter_groups(request)); real = made.state_dict;"
            " made.state_dict = lambda: {**real(), 'state': {}}; return made"
        ),
        {"test_state_round_trip", "test_resume", "test_state_bytes"},
    ),
    "x_hides_its_cost": (optimizer(bytes=1), {"test_state_bytes"}),
    "x_moves_the_rest": (
        optimizer("return Moving(parameter_groups(request))", MOVING),
        {"test_without_a_gradient"},
    ),
    "x_has_half_a_mode": (modes(train="pass"), {"test_modes"}),
    "x_swaps_back": (modes(to_eval="True"), {"test_modes"}),
    "x_stays_in_evaluation": (
        modes(train="def train(self):\n        pass\n"),
        {"test_modes"},
    ),
    "x_keeps_gradients": (inside(free="pass"), {"test_never_holds_all_gradients"}),
    "x_updates_in_secret": (inside(in_backward=False), {"test_when_it_updates"}),
    "x_updates_late": (
        optimizer(SGD, in_backward=True, bytes=0, tried=ALONE),
        {"test_when_it_updates", "test_never_holds_all_gradients"},
    ),
    "x_accumulates_in_backward": (
        inside(more="def objections(self, recipe):\n        return ()"),
        {"test_refuses_what_cannot_work_in_the_backward_pass"},
    ),
    "x_forgets_its_block": (blocks(turn="self.count"), {"test_resume"}),
    "x_buries_blocks": (
        blocks(also=BURY),
        {"test_checkpoint_holds_all_that_is_trained", "test_resume"},
    ),
    "x_refuses_every_recipe": (
        optimizer(
            more="def objections(self, recipe):\n        from tunewright import Problem\n"
            "        yield Problem(self.at, 'no', 'another')"
        ),
        {"test_may_be_used"} | RUNS,
    ),
}
