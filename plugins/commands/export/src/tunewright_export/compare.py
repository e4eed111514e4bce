"""Compare an export with the run: logits, tokens and files."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer

from tunewright import Exporter, RunError, TunewrightError
from tunewright.types import (
    Conversation,
    ExportRequest,
    LoadedModel,
    Message,
    Rendered,
    TemplateRequest,
)

if TYPE_CHECKING:
    from tunewright.run import Run

_ROWS, _TOKENS = 4, 128  # that are compared
#: largest difference of the logits of a model that computes so, as a share of the largest
_ROUNDED = {torch.float16: 1e-2, torch.bfloat16: 5e-2}
_QUESTIONS = (
    "Hello! Who are you?",
    "Write a Python function that adds two numbers.",
    "Übersetze: The weather is fine.",
    "请用一句话介绍你自己。",
)


class Probes:
    """Prompts with the run's own logits."""

    def __init__(self, run: "Run", loaded: LoadedModel) -> None:
        self.texts = [_prompt(run, loaded, question) for question in _QUESTIONS]
        self.ids = [*_rows(run, loaded), *(_tokens(loaded.tokenizer, text) for text in self.texts)]
        self.template = loaded.tokenizer.chat_template
        self.logits = [logits(loaded.model, ids) for ids in self.ids]
        self.dtype = next(loaded.model.parameters()).dtype


def compare(
    run: "Run", exporter: Exporter, request: ExportRequest, probes: Probes
) -> dict[str, Any]:
    """Facts on an export, for export.json. Raises RunError where it is not the run's model."""
    written = sorted(path for path in request.folder.rglob("*") if path.is_file())
    found: dict[str, Any] = {
        "files": {str(path.relative_to(request.folder)): path.stat().st_size for path in written},
        "verified": False,
    }
    model = exporter.reload(run, request)
    if model is None:
        request.say(f"{exporter.name} does not compare this form with the run")
        return found
    limit = exporter.tolerance()
    if next(model.parameters()).dtype != probes.dtype:  # the run's own logits are rounded
        limit = max(limit, _ROUNDED.get(probes.dtype, 0.0))
    worst, agree = _difference(model, probes)
    if not worst <= limit:
        raise RunError(
            f"the export's logits differ from the run's by {worst:.2g} of the largest, more than "
            f"{limit:g}",
            place=str(request.folder),
        )
    _compare_tokens(request, probes)
    request.say(f"verified: logits differ by {worst:.1e} of the largest, tokens are the same")
    return found | {
        "verified": True,
        "largest_difference": worst,
        "tolerance": limit,
        "same_most_likely_token": agree,
        "prompts": len(probes.ids),
    }


@torch.no_grad()
def logits(model: nn.Module, ids: list[int]) -> Tensor:
    """Logits of one sequence, fp32 on the CPU: (T, V), or (N,) of a head with N outputs."""
    device = next(model.parameters()).device
    out = model.eval()(input_ids=torch.tensor([ids], device=device))
    return out.logits[0].float().cpu()  # type: ignore[no-any-return]


def _difference(model: nn.Module, probes: Probes) -> tuple[float, float]:
    """Largest difference of logits, as a share of the largest; share of equal first choices."""
    worst, agree, total = 0.0, 0, 0
    for ids, own in zip(probes.ids, probes.logits, strict=True):
        found = logits(model, ids)
        width = min(found.shape[-1], own.shape[-1])  # rows that only pad the vocabulary
        found, own = found[..., :width], own[..., :width]
        worst = max(worst, float((found - own).abs().max() / own.abs().max()))
        same = found.argmax(-1) == own.argmax(-1)
        agree, total = agree + int(same.sum()), total + same.numel()
    return worst, agree / total


def _compare_tokens(request: ExportRequest, probes: Probes) -> None:
    tokenizer = AutoTokenizer.from_pretrained(_model_folder(request), trust_remote_code=False)
    own = request.loaded.tokenizer
    for text in probes.texts:
        if _tokens(tokenizer, text) != _tokens(own, text):
            raise RunError(
                f"the export's tokenizer gives other tokens for {text[:60]!r}",
                place=str(request.folder),
            )
    if tokenizer.chat_template != own.chat_template:
        raise RunError("the export has another chat template", place=str(request.folder))


def _model_folder(request: ExportRequest) -> str:
    found = next(request.folder.rglob("tokenizer_config.json"), None)
    if found is None:
        raise RunError("the export has no tokenizer", place=str(request.folder))
    return str(found.parent)


def _prompt(run: "Run", loaded: LoadedModel, question: str) -> str:
    request = TemplateRequest(
        Conversation([Message("user", question)]),
        add_generation_prompt=True,
        special_tokens=dict(loaded.tokenizer.special_tokens_map),
        tokenizer=loaded.tokenizer,
    )
    try:
        rendered: Rendered = run.call("template", "format_template", request)
    except TunewrightError:  # a template for other rows than conversations
        return question
    return rendered.text


def _tokens(tokenizer: Any, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


def _rows(run: "Run", loaded: LoadedModel) -> list[list[int]]:
    """First tokens of the run's own training data; none where the data has moved."""
    asked = run.data_request(loaded, len(run.resolved.stages) - 1, limit=_ROWS)
    if not asked.entries:
        return []
    try:
        data = run.call("dataset", "build_dataset", asked)
    except TunewrightError:
        return []
    rows = [data.train[place] for place in range(min(_ROWS, len(data.train)))]
    names = ("input_ids", "prompt_ids", "query_ids")
    ids = [
        next(row[name] for name in names if name in row) or row["document_ids"][0] for row in rows
    ]
    return [list(each)[:_TOKENS] for each in ids]
