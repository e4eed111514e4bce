"""MiniCPM-V and MiniCPM-o 2.6 through the checkpoint's own code, whose model takes one dict and
whose processor takes a text with "(<image>./</image>)": here both have the interface of
transformers' own.

Images alone: MiniCPM-o's audio and speech are left as they are.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BatchFeature

__all__ = ["adapt_model", "adapt_processor"]

IMAGE = "<image>"
#: what is before and after the tokens of an image, and of a slice of one
_STARTS, _ENDS = (IMAGE, "<slice>"), ("</image>", "</slice>")


class ImageProcessor:
    """The checkpoint's own processor with the call of transformers 5.

    A call returns `pixel_values` (N, 3, patch, L), the patches of each slice side by side and
    padded to the longest, `tgt_sizes` (N, 2), rows and columns of its patches, and
    `text_replacement_offsets`, what each image becomes in the text.
    """

    image_token = IMAGE

    def __init__(self, own: Any) -> None:
        self.own, self.tokenizer, self.chat_template = own, own.tokenizer, own.chat_template

    def __getattr__(self, name: str) -> Any:
        if name == "own":  # not there while it is copied
            raise AttributeError(name)
        return getattr(self.own, name)

    def __call__(self, text: Sequence[str], images: Sequence[Any] = (), **how: Any) -> BatchFeature:
        sizes = [[image.size for image in row] for row in images]
        written = [
            [
                self.image_processor.get_slice_image_placeholder(size, n)
                for n, size in enumerate(row)
            ]
            for row in sizes
        ]
        made = self.image_processor([list(row) for row in images], return_tensors="pt")
        slices = [each for row in made["pixel_values"] for each in row]
        longest = max((each.shape[-1] for each in slices), default=0)
        padded = [nn.functional.pad(each, (0, longest - each.shape[-1])) for each in slices]
        data: dict[str, Any] = {"input_ids": self.tokenizer(list(text))["input_ids"]}
        if padded:
            data["pixel_values"] = torch.stack(padded)
            data["tgt_sizes"] = torch.cat([torch.as_tensor(row) for row in made["tgt_sizes"]])
        if how.get("return_text_replacement_offsets"):
            data["text_replacement_offsets"] = [
                [{"replacement": each} for each in row] for row in written
            ]
        return BatchFeature(data)

    def save_pretrained(self, folder: Any) -> None:
        """Save the checkpoint's own processor, with this one's tokenizer and chat template."""
        own = copy.copy(self.own)
        own.tokenizer, own.chat_template = self.tokenizer, self.chat_template
        own.save_pretrained(folder)


def adapt_processor(processor: Any) -> Any:
    """The processor with transformers' interface, if it is one of MiniCPM-V's own code."""
    own = hasattr(getattr(processor, "image_processor", None), "get_slice_image_placeholder")
    return ImageProcessor(processor) if own else processor


class _TakesTensors:
    """Mixin before the class of the checkpoint's own model."""

    image_bounds: tuple[list[int], list[int]]  #: ids of what begins and what ends an image's tokens

    def forward(
        self,
        input_ids: Tensor | None = None,  # (B, T)
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,  # (N, 3, patch, L), as the processor's
        tgt_sizes: Tensor | None = None,  # (N, 2)
        **more: Any,
    ) -> Any:
        model: Any = super()
        if input_ids is None or pixel_values is None:
            # also the tokens after a prompt: its images are in the cache
            return self.llm(  # type: ignore[attr-defined]
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                **more,
            )
        if position_ids is None:
            mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            position_ids = (mask.cumsum(-1) - 1).clamp(min=0)
        assert tgt_sizes is not None
        bounds = [self._bounds(row) for row in input_ids]
        counts = [len(each) for each in bounds]
        lengths = (tgt_sizes.prod(-1) * pixel_values.shape[-2]).tolist()
        slices = [each[..., :own] for each, own in zip(pixel_values, lengths, strict=True)]
        starts = [sum(counts[:row]) for row in range(len(counts))]
        places = [slice(at, at + count) for at, count in zip(starts, counts, strict=True)]
        data = {
            "input_ids": input_ids,
            "position_ids": position_ids,
            "pixel_values": [slices[place] for place in places],
            "tgt_sizes": [tgt_sizes[place] for place in places],
            "image_bound": bounds,
        }
        return model.forward(data, attention_mask=attention_mask, **more)

    def _bounds(self, ids: Tensor) -> Tensor:
        """First index, and index after the last, of the tokens of each slice of a row: (n, 2)."""
        starts, ends = (
            torch.isin(ids, torch.tensor(each, device=ids.device)).nonzero()[:, 0]
            for each in self.image_bounds
        )
        return torch.stack([starts + 1, ends], dim=1)


def adapt_model(model: Any, tokenizer: Any) -> None:
    """Have a model of MiniCPM-V's own code take tensors by name. Its class keeps its name and its
    module, by which its files are saved."""
    own = type(model)
    names = {"__module__": own.__module__, "__qualname__": own.__qualname__}
    bounds = tuple(tokenizer.convert_tokens_to_ids(list(each)) for each in (_STARTS, _ENDS))
    model.__class__ = type(own.__name__, (_TakesTensors, own), names | {"image_bounds": bounds})
