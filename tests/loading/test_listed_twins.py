"""Every listed checkpoint has a tiny twin, on which its template works: what `--smoke` trains."""

import functools
from pathlib import Path
from typing import Any

import pytest
from loading_setup import load, said, save
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForMultimodalLM

from template_cases import TALKS
from tunewright import RecipeError, RunError, registry
from tunewright.recipe import Section
from tunewright.types import LoadedModel, LoadRequest, TemplateRequest
from tunewright_conformance.doubles import FakeRun
from tunewright_hf.models import listed, tiny, twins
from tunewright_hf.tokenization.encode import Tokeniser, check_fit
from tunewright_models.listing import Checkpoint, checkpoints

ALL = checkpoints()
DECLARED = {point.name: point.value for point in registry.group("model_type")}
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


@functools.cache
def family(name: str, **options: Any) -> Any:
    made: Any = registry.load(registry.find("family", name))
    return made(made.Options(device="cpu", **options))


def as_tiny(run: FakeRun, name: str, model: str, *, options: Any = None, **more: Any) -> Any:
    """What a family loads for `--smoke` of a recipe with this model: the tokenizer alone."""
    request = LoadRequest("tiny", tiny_of=model, **({"weights": "none"} | more))
    loaded: LoadedModel = family(name, **(options or {})).load_model(run, request)
    return loaded


@functools.cache
def config(name: str, twin: str) -> Any:
    made = family(name)
    spec = twins.specs(made.package)[twin]
    return made.tiny_config(spec, tiny.tokenizer(spec), 64, 2)


# ---- the lists -----------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpoint", ALL, ids=lambda each: each.id)
def test_a_listed_checkpoint_has_a_twin_of_its_architecture(checkpoint: Checkpoint) -> None:
    found = listed.find(checkpoint.id, family(checkpoint.family).package)
    assert found is not None and found.twin, "name the twin of its architecture"
    made = config(checkpoint.family, twins.of_line(found).name)
    media = twins.specs(found.package)[str(found.twin)].processor
    kind = AutoModelForMultimodalLM if media else AutoModelForCausalLM
    assert type(made) in kind._model_mapping
    if found.model_type is None:  # of the checkpoint's own architecture
        assert made.model_type in DECLARED
        part = made.get_text_config()
        mixture = any(getattr(part, field, 0) for field in EXPERTS)
        if made.model_type == "nemotron_h":  # where layers of experts are one kind among others
            mixture = "moe" in made.layers_block_type
        assert mixture == ("active" in checkpoint.size), "dense, or a mixture of experts"
    else:  # a stand-in, where transformers has no other
        assert found.model_type not in CONFIG_MAPPING
        assert DECLARED[found.model_type] == checkpoint.family
        assert checkpoint.remote_code


def lines() -> dict[str, Checkpoint]:
    """A checkpoint for each line, twin, and set of the template's options."""
    return {
        f"{c.family}-{c.line}-{c.twin}-{'-'.join(c.template_options)}".replace(" ", "_"): c
        for c in reversed(ALL)
    }


@pytest.mark.parametrize("checkpoint", lines().values(), ids=list(lines()))
def test_the_template_of_a_line_works_on_its_twin(run: FakeRun, checkpoint: Checkpoint) -> None:
    loaded, name = as_tiny(run, checkpoint.family, checkpoint.id), checkpoint.template
    assert (loaded.template, loaded.model) == (name, None)
    assert f"stands for {checkpoint.id}, with template {name}" in said(run)
    tokenizer, plugin = loaded.tokenizer, registry.load(registry.find("template", name))
    assert loaded.template_options == checkpoint.template_options
    made: Any = plugin(plugin.Options(**loaded.template_options), name)
    check_fit(tokenizer, made.info, name)
    stops = set(made.info.stop or [tokenizer.eos_token])
    for stop in stops:
        ids = tokenizer.encode(stop, add_special_tokens=False)
        assert ids == [tokenizer.convert_tokens_to_ids(stop)]
    encoder = Tokeniser(tokenizer, made.info)
    request = TemplateRequest(TALKS["multi"], False, encoder.special_tokens, tokenizer)
    row = encoder.encode(made.format_template(request))
    answers = [token for token in row.labels if token != -100]
    assert "4." in tokenizer.decode(answers) and len(answers) < len(row.labels)
    if name != "auto":  # which tells the end by the text
        assert stops & set(tokenizer.convert_ids_to_tokens(answers)), "the end is not trained"


# ---- which twin is taken -------------------------------------------------------------------------


def test_a_listed_checkpoint_ties_its_head_or_does_not(run: FakeRun) -> None:
    for model, twin, tied in (
        ("Qwen/Qwen2.5-0.5B-Instruct", "qwen2", True),
        ("Qwen/Qwen2.5-7B-Instruct", "qwen2", False),
    ):
        loaded = as_tiny(run, "qwen", model, weights="load")
        assert f"tiny twin {twin} stands for {model}, with template qwen" in said(run)
        ends = loaded.model.get_input_embeddings(), loaded.model.get_output_embeddings()
        assert (ends[0].weight is ends[1].weight) == tied


def test_a_mixture_of_experts_of_the_same_line(run: FakeRun) -> None:
    loaded = as_tiny(run, "qwen", "Qwen/Qwen3-30B-A3B", weights="load")
    assert loaded.model.config.model_type == "qwen3_moe"


def test_the_name_on_modelscope(run: FakeRun) -> None:
    assert as_tiny(run, "llama", "LLM-Research/Meta-Llama-3.1-8B-Instruct").template == "llama3_1"


def test_a_stand_in_is_named_as_one(run: FakeRun) -> None:
    as_tiny(run, "baichuan", "baichuan-inc/Baichuan2-13B-Chat")
    assert "with template baichuan2; the twin is a stand-in of type llama" in said(run)
    assert "baichuan, is code beside its weights" in said(run)


def test_a_native_class_is_no_stand_in(run: FakeRun) -> None:
    loaded = as_tiny(run, "internlm", "internlm/internlm2_5-7b-chat", weights="load")
    assert "stand-in" not in said(run)
    assert type(loaded.model).__name__ == "LlamaForCausalLM"


def test_a_checkpoint_in_another_familys_list(run: FakeRun) -> None:
    """It is loaded by the family of its architecture, which does not list it."""
    loaded = as_tiny(run, "qwen", "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", weights="load")
    assert loaded.model.config.model_type == "qwen2"
    assert loaded.template == "deepseekr1"
    assert "tiny twin r1_distill_qwen2 stands for" in said(run)


def test_the_own_template_of_a_checkpoint_is_stood_in_for(run: FakeRun) -> None:
    loaded = as_tiny(run, "qwen", "Qwen/QwQ-32B")
    assert loaded.template == "auto"
    assert "<|im_start|>" in loaded.tokenizer.chat_template
    assert "in place of the checkpoint's own chat template stands qwen" in said(run)


def test_tiny_variant_wins(run: FakeRun) -> None:
    options = {"tiny_variant": "qwen3"}
    loaded = as_tiny(run, "qwen", "Qwen/Qwen2.5-0.5B-Instruct", options=options)
    assert loaded.template == "qwen3" and "<think>" in loaded.tokenizer.get_vocab()
    assert "tiny twin qwen3 stands for Qwen/Qwen2.5-0.5B-Instruct" in said(run)
    assert "as family.tiny_variant says" in said(run)


@pytest.mark.parametrize("model", [None, "tiny"])
def test_without_a_checkpoint_the_first_is_taken(run: FakeRun, model: Any) -> None:
    loaded = as_tiny(run, "qwen", model)
    assert loaded.template == "qwen3" and said(run) == ""
    assert loaded.tokenizer.chat_template is None


def test_a_line_that_names_an_unknown_twin() -> None:
    with pytest.raises(RecipeError) as error:
        twins.of_line(listed.Listed("tunewright_qwen", "a/b", "qwen", "qwen22"))
    assert "checkpoints.toml of tunewright_qwen: there is no tiny twin 'qwen22'" in str(error.value)


# ---- checkpoints that nobody lists ---------------------------------------------------------------


def checkpoint_like(run: FakeRun, folder: Path, twin: str, template: str | None) -> str:
    """A folder as a training here leaves it, with the template exported to its tokenizer."""
    loaded = load(run, twin=twin)
    if template:
        plugin = registry.load(registry.find("template", template))
        loaded.tokenizer.chat_template = plugin(plugin.Options(), template).chat_template()
    saved = str(save(loaded, folder))
    run.events.clear()
    return saved


def test_an_unlisted_checkpoint_gets_the_twin_of_its_model_type(
    run: FakeRun, tmp_path: Path
) -> None:
    model = checkpoint_like(run, tmp_path, "qwen2_moe", "qwen")
    loaded = as_tiny(run, "qwen", model, weights="load")
    assert loaded.model.config.model_type == "qwen2_moe" and loaded.template == "qwen"
    message = f"tiny twin qwen2_moe stands for {model}, with template qwen; its model_type is"
    assert message in said(run)


def test_its_own_template_is_rendered_with_its_tokens(run: FakeRun, tmp_path: Path) -> None:
    source = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|stop|>{% endfor %}"
    source += "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    loaded = load(run, twin="qwen2")
    loaded.tokenizer.add_special_tokens(
        {"extra_special_tokens": ["<|user|>", "<|assistant|>", "<|stop|>"]}
    )
    loaded.tokenizer.chat_template = source
    loaded.model.resize_token_embeddings(len(loaded.tokenizer))
    model = str(save(loaded, tmp_path))
    found = as_tiny(run, "qwen", model)
    assert (found.template, found.tokenizer.chat_template) == ("auto", source)
    plugin = registry.load(registry.find("template", "auto"))
    special = Tokeniser(found.tokenizer, plugin.info).special_tokens
    request = TemplateRequest(TALKS["single"], False, special, found.tokenizer)
    rendered = plugin(plugin.Options(), "auto").format_template(request)
    assert rendered.text.endswith("<|assistant|>Fine, thank you!<|stop|>")
    row = Tokeniser(found.tokenizer, plugin.info).encode(rendered)
    assert row.labels[-1] == found.tokenizer.added_tokens_encoder["<|stop|>"]


def test_the_recipes_template_gets_the_tokens_that_the_checkpoint_has(
    run: FakeRun, tmp_path: Path
) -> None:
    run.recipe = run.recipe.model_copy(update={"template": Section(name="yi")})
    loaded = load(run, twin="llama2")
    loaded.tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    model = str(save(loaded, tmp_path))
    info = registry.load(registry.find("template", "yi")).head
    check_fit(as_tiny(run, "llama", model).tokenizer, info, "yi")
    bare = str(save(load(run, twin="llama2"), tmp_path / "bare"))
    with pytest.raises(RecipeError, match="no token for"):
        check_fit(as_tiny(run, "llama", bare).tokenizer, info, "yi")


def test_a_model_type_that_only_remote_code_has(run: FakeRun, tmp_path: Path) -> None:
    folder = save(load(run, twin="llama2"), tmp_path)
    file = folder / "config.json"
    file.write_text(file.read_text().replace('"model_type": "llama"', '"model_type": "internlm2"'))
    with pytest.raises(RunError, match="knows no model_type 'internlm2'"):  # as training would
        as_tiny(run, "internlm", str(folder))


def test_the_first_where_nothing_is_known_of_a_checkpoint(run: FakeRun, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    assert as_tiny(run, "qwen", missing).template == "qwen3"
    assert f"tiny twin qwen3 stands for {missing}, with template qwen3; the family's" in said(run)
    assert "there is no such folder" in said(run)


def test_the_first_where_no_twin_has_the_model_type(run: FakeRun, tmp_path: Path) -> None:
    model = checkpoint_like(run, tmp_path, "gpt2", None)
    as_tiny(run, "qwen", model)
    assert "tiny twin qwen3 stands for" in said(run)
    assert "no tiny twin has the model_type gpt2" in said(run)
