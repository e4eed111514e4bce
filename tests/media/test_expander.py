"""Ids, labels, token types and tensors made from shapes are those of the model's own processor on
the real media."""

import pytest
import torch

from media.media_cases import TALKS, every_case, parts, subject
from tunewright import RunError


@pytest.mark.parametrize(("family", "twin", "name"), every_case())
def test_as_the_processor(family: str, twin: str, name: str) -> None:
    case, talk = subject(family, twin), TALKS[name]
    if not case.takes(talk):
        pytest.skip(f"{twin} has no form for it, or takes {', '.join(case.media.tokens)} only")
    if twin == "ernie4_5_vl" and name == "images":
        pytest.skip("the processor joins the space before an earlier answer with its first word")
    whole, row = case.whole(talk), case.encode(talk)
    assert row.input_ids == whole["input_ids"][0].tolist()
    mask = [label != -100 for label in row.labels]
    assert mask == [bool(each) for each in whole["assistant_masks"][0]]
    tensors = case.media.tensors([case.medium(part.path) for part in parts(talk)])
    at = 0
    for ids in tensors.pop("ids"):  # in the order of the text
        at = _place(row.input_ids, list(ids), at) + len(ids)
    try:
        made = tensors | case.further(row, tensors)
    except RunError as refused:
        pytest.skip(str(refused))
    known = {"input_ids", "attention_mask", "assistant_masks", "labels"}
    assert made.keys() == whole.keys() - known
    for key, value in made.items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(whole[key])), key


def _place(ids: list[int], piece: list[int], start: int) -> int:
    return next(at for at in range(start, len(ids)) if ids[at : at + len(piece)] == piece)
