"""Schedulers and rewards that are good, and ones with one fault each: subject, and the tests that
it fails."""

from conformance_tests.verdict import Subject

SCHEDULER = '''
from pydantic import Field

from tunewright import PluginOptions, Scheduler, hookimpl


class Subject(Scheduler):
    """A schedule, perhaps with a fault."""

    needs_total_steps = {needs}

    class Options(PluginOptions):
        floor: float = Field(0.0, {limits})
        """Last learning rate as a share of the peak."""

    @hookimpl
    def build_scheduler(self, request):
        from torch.optim.lr_scheduler import LambdaLR

        warmup, total, floor = request.warmup_steps, request.total_steps, self.options.floor

        def factor(step):
            if step < warmup:
                return {warm}
            {fall}

        {build}
'''
WARM = "step / warmup"
LEFT = "left = max(0, total - step) / max(1, total - warmup); "
FALL = LEFT + "return max(floor, 0) + (1 - floor) * left"
BUILD = "return LambdaLR(request.optimizer, factor)"
FORGETS = """made = LambdaLR(request.optimizer, factor)
        made.state_dict = dict
        made.load_state_dict = lambda state: None
        return made"""
ONE_RATE = """class Same(LambdaLR):
            def get_lr(self):
                return [super(Same, self).get_lr()[0]] * 2 if len(self.base_lrs) == 2 else []
        return Same(request.optimizer, factor)"""


def scheduler(
    fall: str = FALL,
    warm: str = WARM,
    build: str = BUILD,
    limits: str = "ge=0, le=1",
    needs: bool = True,
    tried: str = "ends_at = 0.0",
) -> Subject:
    source = SCHEDULER.format(fall=fall, warm=warm, build=build, limits=limits, needs=needs)
    return Subject("scheduler", source, tried=tried)


REWARD = '''
from tunewright import RecipeError, Reward, hookimpl


class Subject(Reward):
    """A reward, perhaps with a fault."""

    @hookimpl
    def score(self, request):
        {before}
        found = [{value} for place, text in enumerate(request.completions)]
        {after}
        return found
'''
LENGTH = "len(text) / 100"
ANSWER = 'columns.answer = ["42", "1", "2", "3", "4", "5"]'
LOOK = (
    "if 'answer' not in request.columns:\n"
    "            raise RecipeError('no column answer', place=f'reward {self.name}')"
)
MATCH = "float(request.columns['answer'][place] in text)"


def reward(
    value: str = LENGTH, before: str = "pass", after: str = "pass", tried: str = ""
) -> Subject:
    return Subject("reward", REWARD.format(value=value, before=before, after=after), tried=tried)


SUBJECTS: dict[str, tuple[Subject, set[str]]] = {
    "x_good_scheduler": (scheduler(), set()),
    "x_good_floor": (scheduler(tried="options = [{ floor = 0.5 }]\nends_at = 0.5"), set()),
    "x_falls_below_zero": (
        scheduler("return 1 - 1.2 * (step - warmup) / max(1, total - warmup)", tried=""),
        {"test_any_number_of_steps", "test_senseless_options"},
    ),
    "x_divides_by_nothing": (
        scheduler("return max(0, total - step) / (total - warmup)"),
        {"test_any_number_of_steps"},
    ),
    "x_is_no_number": (
        scheduler("return max(0.0, total - step) * (1 / total if total > 2 else float('nan'))"),
        {"test_any_number_of_steps", "test_warm_up"},
    ),
    "x_overshoots": (
        scheduler("return 1.5 * max(0, total - step) / max(1, total - warmup)"),
        {"test_peak", "test_warm_up"},
    ),
    "x_begins_hot": (scheduler(warm="1.0"), {"test_warm_up"}),
    "x_warms_up_late": (scheduler(warm="0.9 * step / warmup"), set()),
    "x_stays_cold": (
        scheduler("return 0.9 * max(0, total - step) / max(1, total - warmup)"),
        {"test_warm_up", "test_peak"},
    ),
    "x_ends_elsewhere": (scheduler(tried="ends_at = 0.1"), {"test_end"}),
    "x_forgets_the_step": (scheduler(build=FORGETS), {"test_state"}),
    "x_knows_one_rate": (scheduler(build=ONE_RATE), {"test_groups_keep_their_share"}),
    "x_depends_in_secret": (scheduler(needs=False), {"test_needs_total_steps"}),
    "x_takes_any_number": (
        scheduler(FALL.replace("max(floor, 0)", "floor"), limits="le=1"),
        {"test_senseless_options"},
    ),
    "x_good_reward": (reward(), set()),
    "x_good_reader": (reward(MATCH, before=LOOK, tried=ANSWER), set()),
    "x_breaks_without_its_column": (reward(MATCH, tried=ANSWER), {"test_columns_are_read"}),
    "x_gives_one_less": (
        reward(after="found.pop()"),
        {"test_a_number_for_each", "test_order", "test_odd_completions", "test_in_a_stage"}
        | {"test_one_at_a_time"},
    ),
    "x_sorts": (reward(after="found.sort()"), {"test_order", "test_one_at_a_time"}),
    "x_compares": (
        reward(after="found = [each - sum(found) / len(found) for each in found]"),
        {"test_one_at_a_time"},
    ),
    "x_divides_by_length": (
        reward("1 / len(text) if text else float('inf')"),
        {"test_odd_completions"},
    ),
    "x_breaks_on_odd_text": (reward("float(ord(text[0]))"), {"test_odd_completions"}),
    "x_changes_the_text": (
        reward(after="request.completions[0] += '!'"),
        {"test_again", "test_further_columns", "test_in_a_stage"},
    ),
    "x_draws_by_lot": (
        reward("__import__('random').random()"),
        {"test_again", "test_order", "test_one_at_a_time", "test_further_columns"}
        | {"test_in_a_stage"},
    ),
    "x_ignores_its_column": (reward(tried=ANSWER), {"test_columns_are_read"}),
    "x_names_nobody": (
        reward(
            MATCH,
            before="if 'answer' not in request.columns: raise RecipeError('no column')",
            tried=ANSWER,
        ),
        {"test_columns_are_read", "test_in_a_stage"},
    ),
    "x_wants_no_further_columns": (
        reward(before="assert request.columns.keys() <= {'prompts'}"),
        {"test_further_columns"},
    ),
    "x_says_the_same": (reward("1.0"), {"test_a_number_for_each"}),
}
