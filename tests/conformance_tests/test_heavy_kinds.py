"""Families, adapters, stages, datasets and engines that do harm in one way each: the
suite names the way.

Their names begin with x_, so that the suite takes none of them where a test of another kind needs a
model or a stage.
"""

from pathlib import Path

import pytest

from conformance_tests.verdict import Subject, Verdict, judge

pytestmark = pytest.mark.slow

ADAPTER = '''
from tunewright import hookimpl
from tunewright_lora import Lora


class Subject(Lora):
    """An adapter with a fault."""

    @hookimpl
    def apply_adapter(self, run, request):
        {before}
        loaded = super().apply_adapter(run, request)
        {after}
        return loaded

    def merge(self, loaded):
        {merging}
        return super().merge(loaded)
'''

FAMILY = '''
from tunewright import hookimpl
from tunewright_llama import Llama


class Subject(Llama):
    """A family with a fault."""

    package = "{package}"

    @hookimpl
    def load_model(self, run, request):
        import torch

        {before}
        loaded = super().load_model(run, request)
        {after}
        return loaded
'''

STAGE = '''
from tunewright import hookimpl
from tunewright_sft import Sft


class Subject(Sft):
    """A stage with a fault."""

    @hookimpl
    def train_stage(self, run, request):
        training = request.training
        {before}
        return super().train_stage(run, request)
'''

DATASET = '''
from tunewright import hookimpl
from tunewright_dataset_chat import Chat


class Subject(Chat):
    """A dataset with a fault."""

    @hookimpl
    def build_dataset(self, run, request):
        data = super().build_dataset(run, request)
        {after}
        return data
'''

ENGINE = '''
from tunewright import hookimpl
from tunewright.inference import Piece
from tunewright_engine_hf import HfEngine


class Subject(HfEngine):
    """An engine with a fault."""

    @hookimpl
    def open_engine(self, run, request):
        engine = super().open_engine(run, request)
        stop = next(iter(run.plugin("template").info.stop), "</s>")
        submit = engine.submit
        def faulty(request, listener):
            {before}
            def heard(piece, kept=[]):
                {heard}
            return submit(request, heard)
        engine.submit = faulty
        return engine
'''


def adapter(before: str = "pass", after: str = "pass", merging: str = "pass") -> Subject:
    return Subject("adapter", ADAPTER.format(before=before, after=after, merging=merging))


TINY = """
[[twin]]
name = "small"
model_type = "llama"
template = "llama2"
style = "metaspace"
bos = "<s>"
eos = "</s>"
unk = "<unk>"
pad = "<pad>"
special = ["<unk>", "<s>", "</s>", "<pad>"]
"""
LINE = """
[[line]]
name = "Some"
template = "{template}"
{twin}
license = "mit"
checkpoints = [{{ id = "some/one", size = "1B", kind = "chat" }}]
"""


def family(
    before: str = "pass",
    after: str = "pass",
    package: str = "tunewright_llama",
    files: dict[str, str] | None = None,
) -> Subject:
    owned = "[tunewright.model_type]\nllama = {name}\n"
    source = FAMILY.format(before=before, after=after, package=package)
    return Subject("family", source, more_points=owned, files=files or {})


def lists(package: str, template: str, twin: str) -> Subject:
    """A family with a list of its own: one checkpoint, and one twin with Llama 2's tokens."""
    made = family(package=package, files={"tiny.toml": TINY})
    made.files["checkpoints.toml"] = LINE.format(template=template, twin=twin)
    return made


def stage(before: str) -> Subject:
    return Subject("stage", STAGE.format(before=before))


def dataset(after: str) -> Subject:
    ours = Path(__file__).parents[1] / "conformance/src/tunewright_conformance/goldens/dataset"
    texts = {path.name: path.read_text(encoding="utf-8") for path in ours.iterdir()}
    golden = {"goldens/{name}.json": texts.pop("chat.json")}
    beside = {f"goldens/{name}": text for name, text in texts.items()}
    return Subject("dataset", DATASET.format(after=after), files={**golden, **beside})


def engine(before: str = "pass", heard: str = "listener(piece)") -> Subject:
    return Subject("engine", ENGINE.format(before=before, heard=heard))


SUBJECTS: dict[str, tuple[Subject, set[str]]] = {
    "x_good_adapter": (adapter(), set()),
    "x_trains_too_much": (
        adapter(after="loaded.model.requires_grad_(True)"),
        {"test_leaves_excluded_modules_alone", "test_saved_and_loaded", "test_not_trainable"},
    ),
    "x_trains_nothing": (
        adapter(after="loaded.model.requires_grad_(False)"),
        {"test_moves_what_it_trains", "test_saved_and_loaded", "test_merged"},
    ),
    "x_changes_the_model": (
        adapter(after="next(iter(loaded.model.parameters())).data.mul_(1.5)"),
        {"test_begins_as_the_model"},
    ),
    "x_draws_at_random": (adapter(before="import torch; torch.rand(1)"), {"test_seed"}),
    "x_merges_wrongly": (
        adapter(
            merging="[p.data.mul_(2) for n, p in loaded.model.named_parameters() if 'lora_B' in n]"
        ),
        {"test_merged"},
    ),
    "x_good_family": (family(), set()),
    "x_ignores_the_seed": (family(before="request.seed = 0"), {"test_seed"}),
    "x_uses_up_randomness": (family(before="torch.rand(1)"), {"test_seed"}),
    "x_pads_with_eos": (
        family(after="loaded.tokenizer.pad_token = loaded.tokenizer.eos_token"),
        {"test_special_tokens"},
    ),
    "x_adapts_the_head": (
        family(after="loaded.adapter_exclude = ()"),
        {"test_adapters_find_their_places"},
    ),
    "x_names_no_template": (family(after="loaded.template = None"), {"test_default_template"}),
    "x_lists_it_well": (lists("x_lists_it_well", "llama2", 'twin = "small"'), set()),
    "x_lists_no_twin": (
        lists("x_lists_no_twin", "llama2", ""),
        {"test_listed_checkpoints"},
    ),
    "x_lists_a_template_of_others": (
        lists("x_lists_a_template_of_others", "llama3", 'twin = "small"'),
        {"test_listed_checkpoints"},
    ),
    "x_loads_noise": (
        family(
            after=(
                "[p.data.add_(torch.randn_like(p)) for p in loaded.model.parameters()] "
                "if loaded.model else 0"
            )
        ),
        {"test_seed", "test_save_and_load"},
    ),
    "x_learns_nothing": (
        stage("request.training = training.model_copy(update={'learning_rate': 1e-9})"),
        {"test_loss_falls"},
    ),
    "x_scales_with_accumulation": (
        stage(
            "rate = training.learning_rate * training.gradient_accumulation_steps\n"
            "        request.training = training.model_copy(update={'learning_rate': rate})"
        ),
        {"test_accumulation"},
    ),
    "x_leaks_between_rows": (
        stage(
            "from tunewright_hf.batching.collators import Packed\n"
            "        call = Packed.__call__\n"
            "        def leak(self, rows):\n"
            "            batch = call(self, rows)\n"
            "            import torch\n"
            "            inputs = batch['inputs']\n"
            "            length = inputs['position_ids'].shape[1]\n"
            "            inputs['position_ids'] = torch.arange(length)[None]\n"
            "            return batch\n"
            "        if self.options.packing:\n"
            "            Packed.__call__ = leak\n"
            "            try:\n"
            "                return super().train_stage(run, request)\n"
            "            finally:\n"
            "                Packed.__call__ = call"
        ),
        {"test_packing"},
    ),
    "x_forgets_where_it_was": (stage("request.checkpoint = None"), {"test_resume"}),
    "x_shuffles_at_will": (
        stage(
            "import random, time; random.seed(time.time_ns())\n"
            "        request.training = training.model_copy(update={'seed': "
            "random.randrange(1 << 30)})"
        ),
        {"test_seed", "test_resume"},
    ),
    "x_drops_a_row": (
        dataset("data.train = data.train.select(range(1, len(data.train)))"),
        {"test_rows", "test_long_rows", "test_bad_rows_are_left_out"},
    ),
    "x_trains_on_all": (
        dataset("data.train = data.train.map(lambda row: {'labels': [7] * len(row['input_ids'])})"),
        {"test_rows"},
    ),
    "x_knows_no_fingerprint": (dataset("data.fingerprint = 'same'"), {"test_fingerprint"}),
    "x_good_engine": (engine(), set()),
    "x_says_its_stop_token": (
        engine(heard="piece.text += stop if piece.finish_reason else ''; listener(piece)"),
        {"test_end", "test_length", "test_stop_string", "test_logprobs", "test_guide"},
    ),
    "x_answers_at_once": (
        engine(
            heard=(
                "kept.append(piece.text); piece.text = ''.join(kept); "
                "piece.finish_reason and listener(piece)"
            )
        ),
        {"test_streams", "test_logprobs"},
    ),
    "x_ends_twice": (
        engine(heard="listener(piece); piece.finish_reason and listener(piece)"),
        {"test_one_end", "test_cancel"},
    ),
    "x_ignores_seeds": (engine(before="request.seed = 0"), {"test_seed"}),
}


@pytest.fixture(scope="module")
def verdict(tmp_path_factory: pytest.TempPathFactory) -> Verdict:
    subjects = {name: subject for name, (subject, _) in SUBJECTS.items()}
    return judge(tmp_path_factory.mktemp("site"), subjects, "-k", "not hygiene")


@pytest.mark.parametrize("name", SUBJECTS)
def test_what_is_wrong_is_named(verdict: Verdict, name: str) -> None:
    assert verdict.failed(name) == SUBJECTS[name][1]
