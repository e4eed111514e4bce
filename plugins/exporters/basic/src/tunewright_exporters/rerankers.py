"""Write a reranker for sentence-transformers' CrossEncoder, and compare its scores with the
run's."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunewright import RecipeError, RunError
from tunewright.types import Embedding, ExportRequest, LoadedModel, RunContext
from tunewright_exporters.embeddings import library
from tunewright_hf.losses.sequence_scores import scores_at_the_end
from tunewright_hf.models.errors import one_line
from tunewright_hf.models.export import merged, save_merged

_PAIRS = [
    ("Hello", "The weather is fine today."),
    ("Which bird sings?", "The wren sings loudly, for its weight."),
    ("def add(a, b):", "return a + b"),
    ("今天天气怎么样？", "今天天气很好。"),
]


def write(run: RunContext, request: ExportRequest, options: Any, tolerance: float) -> None:
    """Write weights and the library's files. Raises RecipeError without the library, for another
    model with scores, and for options of embeddings; RunError where its scores differ from the
    run's by more than the tolerance, relative to the largest."""
    embedding = run.embedding
    if not embedding.pair_prompt:
        problem = "a reward model scores answers, and CrossEncoder documents"
        raise RecipeError(problem, place="command line: --to", hint="take --to safetensors")
    if given := sorted(options.model_fields_set & {"pooling", "normalize"}):
        raise RecipeError("a reranker has no embeddings", place=given[0], hint="leave it out")
    version = library().__version__
    loaded = merged(run, request)
    own = _scores(loaded, embedding)
    save_merged(run, request, request.folder, options.dtype)
    loaded.tokenizer.chat_template = chat_template(loaded.tokenizer, embedding)
    _describe(request.folder, loaded.tokenizer.chat_template, version)
    with one_line("sentence-transformers cannot load it", str(request.folder)):
        from sentence_transformers import CrossEncoder

        model = CrossEncoder(str(request.folder), device="cpu", local_files_only=True)
        found = model.predict(_PAIRS, convert_to_tensor=True, show_progress_bar=False).float()
    worst = float((found - own).abs().max() / own.abs().max())
    if not worst <= tolerance:
        problem = f"the scores differ from the run's by {worst:.2g}, more than {tolerance:g}"
        raise RunError(problem, place=str(request.folder))
    request.say(f"{len(_PAIRS)} scores differ by {worst:.1e}")


@torch.no_grad()
def _scores(loaded: LoadedModel, embedding: Embedding) -> Tensor:
    """(N,), fp32 on the CPU."""
    model = loaded.model.eval()
    device = next(model.parameters()).device
    found = []
    for pair in _PAIRS:
        inputs = loaded.tokenizer(embedding.pair(*pair), return_tensors="pt").to(device)
        inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        found.append(scores_at_the_end(model, model, inputs))
    return torch.cat(found).cpu()


def chat_template(tokenizer: Any, embedding: Embedding) -> str:
    """Chat template (Jinja) that writes messages of the roles query and document as the prompt of a
    reranker, with the special tokens that the tokenizer adds."""
    whole, plain = (
        tokenizer("x", add_special_tokens=added)["input_ids"] for added in (True, False)
    )
    start = next(n for n in range(len(whole)) if whole[n : n + len(plain)] == plain)
    before, after = whole[:start], whole[start + len(plain) :]
    parts = re.split(r"\{(query|document)\}", embedding.pair_prompt)
    parts[0] = "".join(tokenizer.convert_ids_to_tokens(before)) + parts[0]
    parts[-1] += "".join(tokenizer.convert_ids_to_tokens(after))
    written = [
        f"{{{{ {json.dumps(part)} }}}}" if n % 2 == 0 else f"{{{{ texts.{part} }}}}"
        for n, part in enumerate(parts)
        if part
    ]
    texts = "{%- set texts = namespace() -%}{%- for each in messages -%}"
    for role in ("query", "document"):
        texts += f"{{%- if each.role == '{role}' -%}}{{%- set texts.{role} = each.content -%}}"
        texts += "{%- endif -%}"
    return texts + "{%- endfor -%}" + "".join(written)


def _describe(folder: Path, template: str, version: str) -> None:
    """Write the files that tell the library how to read a pair."""
    transformer = "sentence_transformers.base.modules.transformer.Transformer"
    files = {
        "modules.json": [{"idx": 0, "name": "0", "path": "", "type": transformer}],
        "sentence_bert_config.json": {
            "transformer_task": "sequence-classification",
            # pairs of texts become messages, which the chat template writes
            "modality_config": {
                "text": {"method": "forward", "method_output_name": "logits"},
                "message": {"method": "forward", "method_output_name": "logits", "format": "flat"},
            },
            "module_output_name": "scores",
        },
        "config_sentence_transformers.json": {
            "__version__": {"sentence_transformers": version},
            "model_type": "CrossEncoder",
            "activation_fn": "torch.nn.modules.linear.Identity",
            "prompts": {},
            "default_prompt_name": None,
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
