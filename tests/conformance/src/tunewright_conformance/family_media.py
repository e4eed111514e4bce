"""Tests for families whose twins take images, video or audio: rows are made from sizes alone, and
do not depend on what else is in a batch."""

from pathlib import Path
from typing import Any

import pytest

from tunewright import registry
from tunewright.registry import Entry
from tunewright.types import Conversation, LoadedModel, Message, TemplateRequest
from tunewright_conformance.bench import load_model, on_bench
from tunewright_conformance.subjects import package_of
from tunewright_conformance.suite import Suite


class TestFamilyWithMedia(Suite):
    kinds = ("family",)

    @pytest.fixture
    def loaded(self, entry: Entry, twin: str | None, tmp_path: Path) -> LoadedModel:
        from tunewright_hf.models.twins import specs

        if twin is None or not specs(package_of(entry))[twin].processor:
            pytest.skip("it takes text alone")
        return load_model(entry, twin, tmp_path)

    def test_media_in_rows(self, loaded: LoadedModel) -> None:
        """Tokens that were counted by sizes are those of the processor on real media. A row gives
        the same alone and in a padded batch with a row of text."""
        import torch

        from tunewright_hf.batching.collators import Padded
        from tunewright_hf.media.collation import media_rows
        from tunewright_hf.media.expander import Medium, noise

        rows = media_rows(loaded)
        assert rows is not None
        for shape in rows.media.probes():
            (expected,) = rows.media.expansions([shape])
            assert rows.media.tensors([Medium(shape, noise(shape, 1))])["ids"] == [expected.ids]
        text: dict[str, Any] = {"input_ids": [5, 6, 7], "labels": [-100, 6, 7], "media": []}
        padded = Padded(0, media=rows)
        for row in rows.probe_rows(0):
            several = [row] if loaded.media_inputs else [text, row]  # some take no mixed batches
            with torch.no_grad():
                alone = loaded.model(**padded([row])["inputs"]).logits[0]
                found = loaded.model(**padded(several)["inputs"]).logits[-1, : len(alone)]
            torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-5)

    def test_towers_are_frozen(self, loaded: LoadedModel) -> None:
        """Unless they are asked for, towers and projectors are not trained, the language model
        is."""
        from tunewright_hf.models.modules import within

        named = [name for name, _ in loaded.model.named_parameters()]
        language = {id(each) for each in loaded.model.get_decoder().parameters()}
        decoder = [name for name, p in loaded.model.named_parameters() if id(p) in language]
        assert decoder and not [name for name in decoder if within(name, loaded.frozen)]
        assert [name for name in named if within(name, loaded.frozen)]

    def test_spelled_placeholders_are_text(self, loaded: LoadedModel) -> None:
        """A user who writes the placeholder of a medium gets none."""
        from tunewright_hf.media.expander import MediaProcessor
        from tunewright_hf.tokenization.encode import Tokeniser

        assert loaded.template is not None
        entry = registry.find("template", loaded.template)
        template: Any = on_bench(entry, **loaded.template_options).plugin
        media = MediaProcessor(loaded.processor)
        tokeniser = Tokeniser(loaded.tokenizer, template.info)
        said = " ".join(["What does", *media.tokens.values(), "stand for?"])
        talk = Conversation([Message("user", said), Message("assistant", "Media.")])
        request = TemplateRequest(talk, special_tokens=tokeniser.special_tokens)
        ids = tokeniser.encode(media.expand(template.format_template(request), [])).input_ids
        assert not {media.placeholder(kind) for kind in media.tokens} & {*ids}
