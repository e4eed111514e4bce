"""Tokens that a recipe adds: how their embeddings begin, that nothing else of the embeddings is
trained, and that the result is the same wherever it is loaded."""

from pathlib import Path
from typing import Any

import pytest
import torch
from loading_setup import apply, load, save, trainable

from tunewright import RecipeError
from tunewright.check import resolve
from tunewright.types import LoadedModel
from tunewright_adalora import AdaLora
from tunewright_conformance.doubles import FakeRun
from tunewright_full import Full
from tunewright_hf.models.export import save_result
from tunewright_lora import Lora
from tunewright_trainable_tokens import TrainableTokens

TIED, UNTIED = "qwen3", "llama3"
both = pytest.mark.parametrize("twin", [TIED, UNTIED])
TOKENS = {"<plan>": "a plan of several steps", "<done>": None}
ADAPTERS = {
    "lora": Lora(Lora.Options(rank=4), "lora"),
    "adalora": AdaLora(AdaLora.Options(), "adalora"),
    "trainable_tokens": TrainableTokens(TrainableTokens.Options(), "trainable_tokens"),
}
each = pytest.mark.parametrize("name", ADAPTERS)


def with_tokens(run: FakeRun, twin: str, model: str = "tiny", **request: Any) -> LoadedModel:
    return load(run, model, twin=twin, options={"new_tokens": TOKENS}, **request)


def tables(loaded: LoadedModel) -> list[torch.Tensor]:
    """Input and output embeddings, with the adapter's rows."""
    layers = (loaded.model.get_input_embeddings(), loaded.model.get_output_embeddings())
    rows = [getattr(layer, "token_adapter", layer) for layer in layers]
    return [
        row.get_merged_weights(row.active_adapters)
        if hasattr(row, "get_merged_weights")
        else row.weight
        for row in rows
    ]


def logits(loaded: LoadedModel, ids: tuple[int, ...]) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = loaded.model.eval()(input_ids=torch.tensor([[5, 6, *ids, 9]])).logits
    return found


def train(loaded: LoadedModel) -> None:
    ids = torch.tensor([[5, *loaded.new_tokens, 8, *loaded.new_tokens, 10]])
    optimizer = torch.optim.SGD([p for p in loaded.model.parameters() if p.requires_grad], lr=0.5)
    for _ in range(3):
        loaded.model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@both
def test_rows_begin_as_means(run: FakeRun, twin: str) -> None:
    plain, grown = load(run, twin=twin), with_tokens(run, twin)
    size = len(plain.tokenizer)
    plan, done = grown.new_tokens
    assert {plan, done} == {size, size + 1}
    words = plain.tokenizer.encode(TOKENS["<plan>"], add_special_tokens=False)
    known = sorted(plain.tokenizer.get_vocab().values())
    for before, after in zip(tables(plain), tables(grown), strict=True):
        assert torch.equal(after[:size], before[:size])
        torch.testing.assert_close(after[plan], before[words].mean(dim=0))
        torch.testing.assert_close(after[done], before[known].mean(dim=0))
    tied = [a is b for a, b in (tables(plain), tables(grown))]
    assert tied == [twin == TIED] * 2
    assert grown.model.config.vocab_size == size + 2


def test_text_that_spells_them_is_one_token(run: FakeRun) -> None:
    loaded = with_tokens(run, TIED)
    tokenizer = loaded.tokenizer
    ids = tokenizer.encode("first<plan>then", add_special_tokens=False)
    assert loaded.new_tokens[0] in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == "first<plan>then"


def test_a_known_token_keeps_its_embedding(run: FakeRun, tmp_path: Path) -> None:
    folder = save(with_tokens(run, TIED), tmp_path)
    once = load(run, str(folder), twin=TIED)
    again = with_tokens(run, TIED, str(folder))
    assert torch.equal(tables(once)[0], tables(again)[0])
    assert again.new_tokens == with_tokens(run, TIED).new_tokens
    assert "'<plan>' is in the vocabulary already, and keeps its embedding" in run.notices


def test_rows_without_a_token_are_used(run: FakeRun, tmp_path: Path) -> None:
    """Checkpoints have more rows than tokens."""
    padded = load(run, twin=TIED)
    padded.model.resize_token_embeddings(len(padded.tokenizer) + 30, mean_resizing=False)
    folder = save(padded, tmp_path)
    loaded = with_tokens(run, TIED, str(folder))
    assert len(tables(loaded)[0]) == len(padded.tokenizer) + 30


@both
@each
def test_only_new_rows_are_trained(run: FakeRun, twin: str, name: str) -> None:
    loaded = apply(run, ADAPTERS[name], with_tokens(run, twin))
    rows = [one for one in trainable(loaded) if "lora" not in one]
    assert len(rows) == (1 if twin == TIED else 2)
    assert loaded.trained == trainable(loaded)
    before = [table.detach().clone() for table in tables(loaded)]
    train(loaded)
    for one, other in zip(before, tables(loaded), strict=True):
        moved = (one != other).any(dim=1).nonzero().flatten().tolist()
        assert moved == sorted(loaded.new_tokens)


@both
@each
@pytest.mark.filterwarnings("ignore:Adapter .* have invalid shape")
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")  # of plain PEFT
def test_saved_loaded_merged(run: FakeRun, twin: str, name: str, tmp_path: Path) -> None:
    """Here, in plain transformers and PEFT, and as a complete model."""
    from peft import PeftModel
    from transformers import AutoTokenizer

    plugin, ids = ADAPTERS[name], with_tokens(run, twin).new_tokens
    loaded = apply(run, plugin, with_tokens(run, twin))
    train(loaded)
    learned = logits(loaded, ids)
    save_result(loaded, tmp_path / "it")
    again = apply(
        run, plugin, with_tokens(run, twin), adapter_path=tmp_path / "it", trainable=False
    )
    assert torch.equal(logits(again, ids), learned)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "it")
    theirs = load(run, twin=twin).model
    theirs.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    theirs = PeftModel.from_pretrained(theirs, tmp_path / "it")
    assert tokenizer.convert_tokens_to_ids(list(TOKENS)) == list(ids)
    assert torch.equal(logits(LoadedModel(theirs, None), ids), learned)
    save_result(plugin.merge(again), tmp_path / "merged")
    merged = load(run, str(tmp_path / "merged"), twin=twin)
    assert merged.tokenizer.convert_tokens_to_ids(list(TOKENS)) == list(ids)
    torch.testing.assert_close(logits(merged, ids), learned, atol=1e-5, rtol=1e-5)


@both
def test_with_full_training(run: FakeRun, twin: str, tmp_path: Path) -> None:
    loaded = apply(run, Full(Full.Options()), with_tokens(run, twin))
    train(loaded)
    save_result(loaded, tmp_path / "it")
    again = load(run, str(tmp_path / "it"), twin=twin)
    assert torch.equal(logits(again, loaded.new_tokens), logits(loaded, loaded.new_tokens))


def test_old_tokens_by_name(run: FakeRun) -> None:
    def tokens(*names: str) -> LoadedModel:
        plugin = TrainableTokens(TrainableTokens.Options(tokens=names), "trainable_tokens")
        return apply(run, plugin)

    loaded = tokens("a", "e")
    vocabulary = loaded.tokenizer.get_vocab()
    assert loaded.model.peft_config["default"].token_indices == [vocabulary["a"], vocabulary["e"]]
    with pytest.raises(RecipeError, match=r"'zqxj' is . tokens of the vocabulary"):
        tokens("zqxj")
    with pytest.raises(RecipeError, match="there are no tokens to train"):
        tokens()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"adapter": "vera"}, "adapter vera does not train the embeddings of new tokens"),
        (
            {"adapter": "trainable_tokens", "stage": "reward"},
            "reward trains a new head, which trainable_tokens leaves out",
        ),
        ({"accelerators": ["fsdp"]}, "the embeddings are resized before fsdp shards them"),
        (
            {"adapter": {"name": "full", "train_embeddings": False}},
            "the embeddings of new tokens would not be trained",
        ),
    ],
)
def test_what_cannot_work(changes: dict[str, Any], problem: str) -> None:
    recipe = {
        "model": "tiny",
        "family": {"name": "qwen", "new_tokens": ["<plan>"]},
        "template": "chatml",
        "data": [{"path": "x.jsonl"}],
        "stage": "sft",
        "output": "out",
    }
    with pytest.raises(RecipeError, match=problem):
        resolve(recipe | changes)
