"""Tests for families, on each tiny twin: a working model and tokenizer."""

import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tunewright import RecipeError, registry
from tunewright.registry import Entry
from tunewright.types import Conversation, LoadedModel, Message, TemplateRequest
from tunewright_conformance.bench import load_model, on_bench
from tunewright_conformance.subjects import package_of, twins
from tunewright_conformance.suite import Suite

TEXTS = [
    "The Elbe flows through Dresden.",
    "  Two spaces, a tab\tand\n\n\nnew lines. ",
    "Überprüfe „das“: naïve café, e\u0301, 漢字\u3000かな, مرحبا, 👩‍👩‍👧 \U0001f999",
    "def f(x):\n    return {'a': [1, 2.5]}  # 10**7\n",
]


class TestFamily(Suite):
    kinds = ("family",)

    @pytest.fixture
    def loaded(self, entry: Entry, twin: str | None, tmp_path: Path) -> LoadedModel:
        return load_model(entry, twin, tmp_path)

    def test_forward(self, loaded: LoadedModel) -> None:
        """Logits are finite, with one per token of the tokenizer."""
        import torch

        ids = encode(loaded)
        with torch.no_grad():
            logits = loaded.model(input_ids=ids).logits  # (B, T, V)
        assert logits.shape[:2] == ids.shape
        assert logits.shape[2] >= len(loaded.tokenizer)
        assert torch.isfinite(logits).all()

    def test_backward(self, loaded: LoadedModel) -> None:
        """A loss gives finite gradients in all layers from first to last."""
        import torch

        from tunewright_hf.batching.collators import Padded
        from tunewright_hf.media.collation import media_rows
        from tunewright_hf.models.modules import within

        ids = encode(loaded)
        loaded.model.train()
        loaded.model(input_ids=ids, labels=ids).loss.backward()
        media = media_rows(loaded)
        for row in media.probe_rows(0) if media else ():  # cross-attention needs an image
            inputs = Padded(0, media=media)([row])["inputs"]
            loaded.model(**inputs, labels=inputs["input_ids"]).loss.backward()
        gradients = {
            name: p.grad for name, p in loaded.model.named_parameters() if p.grad is not None
        }
        assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
        without = [  # text does not reach media towers
            n
            for n, p in loaded.model.named_parameters()
            if p.ndim == 1 and n not in gradients and not within(n, loaded.frozen)
        ]
        assert not without, "no gradient reaches these"
        assert loaded.model.get_input_embeddings().weight.grad.abs().sum() > 0

    def test_seed(self, entry: Entry, twin: str | None, tmp_path: Path) -> None:
        """The same seed gives the same weights, another seed others, and global random state is
        unchanged."""
        import torch

        state = torch.get_rng_state()
        one, same, other = (load_model(entry, twin, tmp_path, seed=seed) for seed in (7, 7, 8))
        assert torch.equal(torch.get_rng_state(), state), "the global random state was used up"
        assert different(one.model, same.model) == []
        assert different(one.model, other.model)

    def test_save_and_load(self, entry: Entry, loaded: LoadedModel, tmp_path: Path) -> None:
        """Saved by transformers, the model is recognised by its config.json and loads with equal
        logits."""
        import torch

        folder = tmp_path / "saved"
        loaded.model.save_pretrained(folder)
        (loaded.processor or loaded.tokenizer).save_pretrained(folder)
        # a stand-in's model_type belongs to another family
        declared = {point.name for point in registry.group("model_type")}
        assert loaded.model.config.model_type in declared, "declare it in tunewright.model_type"
        again = load_model(entry, None, tmp_path, model=str(folder))
        assert different(loaded.model, again.model) == []
        with torch.no_grad():
            logits, found = (each.model(input_ids=encode(each)).logits for each in (loaded, again))
        assert torch.equal(logits, found)
        assert [again.tokenizer.encode(text) for text in TEXTS] == [
            loaded.tokenizer.encode(text) for text in TEXTS
        ]

    @pytest.mark.parametrize("head", ["score", "value"])
    def test_heads(self, entry: Entry, twin: str | None, tmp_path: Path, head: Any) -> None:
        """With a score or value head, the model gives one number instead of logits."""
        from transformers.models.auto.modeling_auto import (
            MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as HEADS,
        )

        model_type = load_model(entry, twin, tmp_path).model.config.model_type
        if model_type not in HEADS:
            pytest.skip(f"transformers has no class of {model_type} with such a head")
        loaded = load_model(entry, twin, tmp_path, head=head)
        assert loaded.model(input_ids=encode(loaded)).logits.shape[-1] == 1

    def test_tokenizer_only(
        self, entry: Entry, twin: str | None, tmp_path: Path, loaded: LoadedModel
    ) -> None:
        """Without weights, the tokenizer is the same, and there is no model."""
        light = load_model(entry, twin, tmp_path, weights="none")
        assert light.model is None
        assert light.tokenizer.get_vocab() == loaded.tokenizer.get_vocab()
        assert light.template == loaded.template

    def test_tokenizer_round_trip(self, loaded: LoadedModel) -> None:
        """Any text is decoded unchanged, up to NFC if the family normalises."""
        for text in TEXTS:
            back = loaded.tokenizer.decode(loaded.tokenizer.encode(text, add_special_tokens=False))
            assert back in (text, unicodedata.normalize("NFC", text))

    def test_special_tokens(self, loaded: LoadedModel) -> None:
        """Every special token is one id that the model has an embedding for; padding is not the
        stop token."""
        tokenizer = loaded.tokenizer
        specials = {token.content for token in tokenizer.added_tokens_decoder.values()}
        rows = loaded.model.get_input_embeddings().weight.shape[0]
        for token in specials:
            ids = tokenizer.encode(token, add_special_tokens=False)
            assert ids == [tokenizer.convert_tokens_to_ids(token)], token
            assert ids[0] < rows, f"{token} has no embedding"
        assert tokenizer.eos_token_id is not None
        assert tokenizer.pad_token_id is not None
        assert tokenizer.pad_token_id != tokenizer.eos_token_id, (
            "what ends an answer would be masked as padding"
        )

    def test_adapters_find_their_places(self, loaded: LoadedModel) -> None:
        """There are linear layers in every block that adapters may target; head and embeddings are
        excluded."""
        from tunewright_hf.models.modules import layers, linear, within

        place, count = layers(loaded.model, loaded.adapter_exclude)
        targets = [
            name for name in linear(loaded.model) if not within(name, loaded.adapter_exclude)
        ]
        assert all(name.startswith(f"{place}.") for name in targets), (
            "adapters would take what is in no block"
        )
        assert {name.removeprefix(f"{place}.").partition(".")[0] for name in targets} == set(
            map(str, range(count))
        )
        ends = loaded.model.get_input_embeddings(), loaded.model.get_output_embeddings()
        for name, module in loaded.model.named_modules():
            if module in ends:
                assert name.rpartition(".")[2] in loaded.adapter_exclude, (
                    f"adapters would take {name}"
                )

    def test_default_template(self, loaded: LoadedModel) -> None:
        """The twin's template is installed, and the tokenizer has its control tokens."""
        from tunewright_hf.tokenization.encode import check_fit

        assert loaded.template, "no template is named for the twin"
        template = on_bench(registry.find("template", loaded.template)).plugin
        check_fit(loaded.tokenizer, template.info, f"template {loaded.template}")  # type: ignore[attr-defined]

    def test_listed_checkpoints(self, entry: Entry, tmp_path: Path) -> None:
        """Every checkpoint in checkpoints.toml names a tiny twin, and its template, with its
        options, works on that twin: what `--smoke` trains."""
        from tunewright_hf.models import listed

        checkpoints = list(listed.checkpoints(package_of(entry)))
        if not checkpoints:
            pytest.skip("it lists no checkpoints")
        problems, tried = [], set()
        for each in checkpoints:
            if each.twin not in twins(entry):
                problems.append(f"{each.id}: its twin is {each.twin!r}, of which there is none")
            elif (case := (each.twin, each.template, str(each.template_options))) not in tried:
                tried.add(case)
                loaded = load_model(entry, None, tmp_path, weights="none", tiny_of=each.id)
                problems += [f"{each.id}: {problem}" for problem in works(loaded, each.template)]
        assert not problems, "\n".join(problems)


def works(loaded: LoadedModel, name: str) -> Iterator[str]:
    """Yield problems of a template with a twin's tokenizer: trained text must end with a stop
    token."""
    from tunewright_hf.tokenization.encode import Tokeniser, check_fit

    tokenizer = loaded.tokenizer
    if loaded.template != name:
        yield f"the template taken is {loaded.template}, not {name}"
        return
    try:
        template = on_bench(registry.find("template", name), **loaded.template_options).plugin
    except (RecipeError, ValueError) as error:  # ValueError: pydantic's, of an unknown option
        yield f"its template_options: {error}"
        return
    info = template.info  # type: ignore[attr-defined]
    try:
        check_fit(tokenizer, info, f"template {name}")
    except RecipeError as error:
        yield str(error)
        return
    encoder = Tokeniser(tokenizer, info)
    conversation = Conversation([Message("user", "Hi"), Message("assistant", "Hello")])
    request = TemplateRequest(conversation, False, encoder.special_tokens, tokenizer)
    row = encoder.encode(template.format_template(request))  # type: ignore[attr-defined]
    trained = tokenizer.convert_ids_to_tokens([id for id in row.labels if id != -100])
    stops = info.stop or (tokenizer.eos_token,)
    if name != "auto" and not {*stops} & {*trained}:  # `auto` finds the end in the text
        yield f"of {trained}, which is trained, nothing is a stop token: {', '.join(stops)}"


def encode(loaded: LoadedModel) -> Any:
    """Two rows of T token ids (B, T)."""
    import torch

    ids = torch.tensor(loaded.tokenizer.encode(TEXTS[2], add_special_tokens=False)[:24])
    return torch.stack([ids, ids.flip(0)])


def different(one: Any, other: Any) -> list[str]:
    """Names of the weights that differ between two models."""
    import torch

    theirs = other.state_dict()
    assert theirs.keys() == one.state_dict().keys()
    return [
        name for name, value in one.state_dict().items() if not torch.equal(value, theirs[name])
    ]
