"""Export formats: a complete checkpoint, a PEFT adapter, a model for Ollama, a GGUF file,
embeddings."""

from typing import Any, Literal

from pydantic import Field

from tunewright import Exporter, PluginOptions, hookimpl
from tunewright.types import ExportRequest, RunContext

#: largest difference of logits after rounding weights to a dtype, as a share of the largest
_ROUNDED = {"float16": 1e-2, "bfloat16": 5e-2}
_GGUF = {"f32": 1e-4, "f16": 1e-2, "bf16": 5e-2, "q8_0": 0.1}


class Safetensors(Exporter):
    """A complete checkpoint for transformers, vLLM and others: an adapter is merged into the
    weights, a quantized base model is dequantized. Reward models, rerankers and classifiers keep
    their heads."""

    heads = ("causal_lm", "score", "classes", "steps")

    class Options(PluginOptions):
        dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
        """Floating-point type of the weights. auto: the one that they have in memory."""
        shard_size: str = Field("5GB", pattern=r"^[1-9]\d*(KB|MB|GB)$")
        """Largest size of a file."""
        layout: Literal["native", "original"] = "native"
        """Names and config. native: those of the class that was trained. original: those of the
        checkpoint, where its own code is on the hub only and it was loaded as a native class."""

    def tolerance(self) -> float:
        return _ROUNDED.get(self.options.dtype, 1e-4)

    @hookimpl
    def export_model(self, run: RunContext, request: ExportRequest) -> str:
        from tunewright_exporters.checkpoint import write

        write(run, request, self.options)
        return "transformers and vLLM load the folder by its path"

    def reload(self, run: RunContext, request: ExportRequest) -> Any:
        from tunewright_hf.models.export import load_checkpoint

        # the code of an original layout is on the hub, and may compute what was folded anew
        return load_checkpoint(run, request) if self.options.layout == "native" else None


class Adapter(Exporter):
    """The trained adapter alone, as PEFT, vLLM and others load it beside its base model. The base
    model's name is made portable: the run folder's own may be a path of this machine."""

    class Options(PluginOptions):
        base: str | None = Field(None, min_length=1)
        """Hub id of the base model, written to adapter_config.json. Default: the recipe's
        model."""

    @hookimpl
    def export_model(self, run: RunContext, request: ExportRequest) -> str:
        from tunewright_exporters.adapter import write

        write(run, request, self.options.base)
        return "PEFT and vLLM load the folder on its base model"

    def reload(self, run: RunContext, request: ExportRequest) -> Any:
        from tunewright_exporters.adapter import load

        return load(run, request)


class Ollama(Exporter):
    """A checkpoint with a Modelfile for `ollama create`, whose template writes the text that the
    model was trained on. Tools and thinking are left to other servers."""

    class Options(PluginOptions):
        dtype: Literal["float16", "bfloat16", "float32"] = "bfloat16"
        """Floating-point type of the weights."""
        context_length: int | None = Field(None, ge=1)
        """Tokens of prompt and answer (num_ctx). Default: Ollama's."""

    def tolerance(self) -> float:
        return _ROUNDED.get(self.options.dtype, 1e-4)

    @hookimpl
    def export_model(self, run: RunContext, request: ExportRequest) -> str:
        from tunewright_exporters.ollama import write

        write(run, request, self.options)
        return "in the folder: ollama create NAME -f Modelfile"

    def reload(self, run: RunContext, request: ExportRequest) -> Any:
        from tunewright_hf.models.export import load_checkpoint

        return load_checkpoint(run, request)


class Gguf(Exporter):
    """A GGUF file for llama.cpp, LM Studio and others, with the tokenizer's files beside it for
    vLLM. llama.cpp's own script converts; the file's tensors, vocabulary and chat template are
    compared with the run, and its logits where transformers reads the architecture."""

    class Options(PluginOptions):
        converter: str = Field(
            min_length=1,
            description="Folder of a checkout of llama.cpp (github.com/ggml-org/llama.cpp), whose "
            "convert_hf_to_gguf.py is run.",
            examples=["llama.cpp"],
        )
        type: Literal["f32", "f16", "bf16", "q8_0"] = "bf16"
        """Type of the weights. llama.cpp's llama-quantize makes smaller ones of the file."""

    def tolerance(self) -> float:
        return _GGUF[self.options.type]

    @hookimpl
    def export_model(self, run: RunContext, request: ExportRequest) -> str:
        from tunewright_exporters.gguf_file import write

        file = write(run, request, self.options)
        return f"in the folder: llama-cli -m {file}"

    def reload(self, run: RunContext, request: ExportRequest) -> Any:
        from tunewright_exporters.gguf_file import load

        return load(request)


class SentenceTransformers(Exporter):
    """A complete checkpoint that sentence-transformers loads as a model of embeddings: the hidden
    states of the last layer are pooled. Text is encoded as it is, without the chat template. Its
    embeddings are compared with the run's. A reranker is written as a CrossEncoder, with its
    prompt, and its scores are compared."""

    heads = ("causal_lm", "score")

    class Options(PluginOptions):
        pooling: Literal["mean", "lasttoken", "cls"] | None = None
        """Hidden state of a text: the mean over its tokens, or that of its last or first one.
        Default: as stage embed has trained, else mean."""
        normalize: bool = True
        """Scale embeddings to length 1."""
        dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
        """Floating-point type of the weights. auto: the one that they have in memory."""

    def tolerance(self) -> float:
        return _ROUNDED.get(self.options.dtype, 1e-4)

    @hookimpl
    def export_model(self, run: RunContext, request: ExportRequest) -> str:
        from tunewright_exporters.embeddings import write
        from tunewright_hf.models.modules import base_model

        if getattr(base_model(request.loaded.model), "score", None) is not None:
            from tunewright_exporters.rerankers import write as write_reranker

            write_reranker(run, request, self.options, self.tolerance())
            return "CrossEncoder(FOLDER).predict([(QUERY, DOCUMENT)]) loads the folder by its path"
        write(run, request, self.options, self.tolerance())
        return "SentenceTransformer(FOLDER).encode(TEXTS) loads the folder by its path"

    def reload(self, run: RunContext, request: ExportRequest) -> Any:
        from tunewright_hf.models.export import load_checkpoint

        return load_checkpoint(run, request)
