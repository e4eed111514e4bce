"""Write a checkpoint for sentence-transformers, and compare its embeddings with the run's."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunewright import RecipeError, RunError
from tunewright.types import Embedding, ExportRequest, LoadedModel, RunContext
from tunewright_hf.losses.pooling import pooled
from tunewright_hf.models.errors import one_line
from tunewright_hf.models.export import merged, save_merged

_TEXTS = ["Hello", "The weather is fine today.", "def add(a, b): return a + b", "今天天气很好。"]
#: of sentence-transformers 6.2; without it, text would be rendered by the chat template
_TEXT_ONLY = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}


def write(run: RunContext, request: ExportRequest, options: Any, tolerance: float) -> None:
    """Write weights and the library's files. Raises RecipeError without the library, RunError where
    its embeddings differ from the run's by more than the tolerance, relative to the longest."""
    sentence_transformers = library()
    loaded, trained = merged(run, request), run.embedding
    pooling = options.pooling or trained.pooling
    embedding = replace(trained, pooling=pooling, normalize=options.normalize)
    own = torch.stack([_embedding(loaded, text, embedding) for text in _TEXTS])
    save_merged(run, request, request.folder, options.dtype)
    _describe(request.folder, own.shape[1], embedding, sentence_transformers.__version__)
    with one_line("sentence-transformers cannot load it", str(request.folder)):
        model = sentence_transformers.SentenceTransformer(
            str(request.folder), device="cpu", local_files_only=True
        )
        # as queries: with the prompt of such texts, if there is one
        found = model.encode_query(_TEXTS, convert_to_tensor=True, show_progress_bar=False).float()
    worst = float((found - own).norm(dim=1).max() / own.norm(dim=1).max())
    if not worst <= tolerance:
        problem = f"the embeddings differ from the run's by {worst:.2g}, more than {tolerance:g}"
        raise RunError(problem, place=str(request.folder))
    request.say(f"{len(_TEXTS)} embeddings of {own.shape[1]} numbers differ by {worst:.1e}")


def library() -> Any:
    """The module sentence_transformers. Raises RecipeError without it."""
    try:
        import sentence_transformers
    except ImportError:
        problem, place = "sentence-transformers is not installed", "command line: --to"
        hint = 'pip install "tunewright-exporters[sentence-transformers]"'
        raise RecipeError(problem, place=place, hint=hint) from None
    return sentence_transformers


@torch.no_grad()
def _embedding(loaded: LoadedModel, query: str, embedding: Embedding) -> Tensor:
    """(H,), fp32 on the CPU."""
    backbone = loaded.model.base_model.eval()
    encoded = loaded.tokenizer(embedding.query_prompt + query, return_tensors="pt")
    encoded = encoded.to(next(backbone.parameters()).device)
    hidden = backbone(**encoded).last_hidden_state  # (1, T, H)
    return pooled(hidden, encoded["attention_mask"], embedding)[0].cpu()


def _describe(folder: Path, size: int, embedding: Embedding, version: str) -> None:
    """Write the files that tell the library how to pool."""
    kinds = {
        "": "sentence_transformers.models.Transformer",
        "1_Pooling": "sentence_transformers.models.Pooling",
        "2_Normalize": "sentence_transformers.models.Normalize",
    }
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": kind}
        for number, (path, kind) in enumerate(kinds.items())
        if embedding.normalize or path != "2_Normalize"
    ]
    files = {
        "modules.json": modules,
        "sentence_bert_config.json": {
            "transformer_task": "feature-extraction",
            "modality_config": _TEXT_ONLY,
            "module_output_name": "token_embeddings",
        },
        "config_sentence_transformers.json": {
            "__version__": {"sentence_transformers": version},
            "similarity_fn_name": "cosine",
            "prompts": {"query": embedding.query_prompt, "document": embedding.document_prompt},
            "default_prompt_name": None,
        },
        "1_Pooling/config.json": {
            "embedding_dimension": size,
            "pooling_mode": embedding.pooling,
            "include_prompt": True,
        },
        "2_Normalize/config.json": {},
    }
    for name, content in files.items():
        if embedding.normalize or not name.startswith("2_"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
