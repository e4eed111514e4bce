"""Write a GGUF file with llama.cpp's script, and compare it with the checkpoint it was made of."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers import AutoModelForCausalLM

from tunewright import RecipeError, RunError
from tunewright.types import ExportRequest, RunContext
from tunewright_hf.models.errors import one_line
from tunewright_hf.models.export import save_merged
from tunewright_hf.models.modules import base_model

_SCRIPT = "convert_hf_to_gguf.py"
_OF_WEIGHTS = (".safetensors", ".index.json")


def write(run: RunContext, request: ExportRequest, options: Any) -> str:
    """Write the file, with the tokenizer's files beside it, and return its name. Raises RecipeError
    without script or library, RunError where the script fails or writes something else."""
    script = Path(options.converter).expanduser() / _SCRIPT
    if not script.is_file():
        hint = "git clone https://github.com/ggml-org/llama.cpp"
        raise RecipeError(f"holds no {_SCRIPT}", place=options.converter, hint=hint)
    try:
        import gguf  # noqa: F401
    except ImportError:
        hint = 'pip install "tunewright-exporters[gguf]"'
        raise RecipeError("gguf is not installed", place="command line: --to", hint=hint) from None
    plain = request.folder / ".plain"
    file = request.folder / f"{run.folder.name}.gguf"
    save_merged(run, request, plain)
    _convert(script, plain, file, options.type)
    _check(file, plain, request)
    for path in plain.iterdir():
        if path.name != "config.json" and not path.name.endswith(_OF_WEIGHTS):
            path.rename(request.folder / path.name)
    shutil.rmtree(plain)
    return file.name


def _convert(script: Path, plain: Path, file: Path, kind: str) -> None:
    command = [sys.executable, str(script), str(plain), "--outfile", str(file), "--outtype", kind]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode or not file.is_file():
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        said = " ".join(lines[-1].split())[:300] if lines else f"exit code {done.returncode}"
        hint = "a newer llama.cpp may know this model"
        raise RunError(f"{_SCRIPT} failed: {said}", place=str(script.parent), hint=hint)


def _check(file: Path, plain: Path, request: ExportRequest) -> None:
    """Compare tensors, vocabulary, stop token and chat template. Raises RunError."""
    from gguf import GGUFReader

    with one_line("is no GGUF file", str(file)):
        reader = GGUFReader(file)
        fields = {name: field.contents() for name, field in reader.fields.items()}
    _check_tensors(reader, fields, plain, file)
    tokenizer = request.loaded.tokenizer
    written = fields.get("tokenizer.ggml.tokens", [])
    for id, token in enumerate(tokenizer.convert_ids_to_tokens(range(len(tokenizer)))):
        # the script writes spaces of added tokens as they are
        if id >= len(written) or token.replace("▁", " ") != written[id].replace("▁", " "):
            found = written[id] if id < len(written) else "no token"
            raise RunError(f"token {id} is {found!r}, not {token!r}", place=str(file))
    ends = base_model(request.loaded.model).generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    if (end := fields.get("tokenizer.ggml.eos_token_id")) not in ends:
        raise RunError(f"text ends with token {end}, not with one of {ends}", place=str(file))
    if fields.get("tokenizer.chat_template") != tokenizer.chat_template:
        raise RunError("the file has another chat template", place=str(file))
    request.say(f"{len(reader.tensors)} tensors and {len(written):,} tokens are the run's")


def _check_tensors(reader: Any, fields: dict[str, Any], plain: Path, file: Path) -> None:
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    architecture = str(fields.get("general.architecture"))
    known = {name: kind for kind, name in MODEL_ARCH_NAMES.items()}
    if architecture not in known:  # of a newer llama.cpp than the library
        return
    blocks = int(fields.get(f"{architecture}.block_count", 0))
    names = get_tensor_name_map(known[architecture], blocks)
    held = {tensor.name: [int(size) for size in tensor.shape][::-1] for tensor in reader.tensors}
    for weights in sorted(plain.glob("*.safetensors")):
        with safe_open(weights, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118
                target = names.get_name(name, try_suffixes=(".weight", ".bias"))
                shape = opened.get_slice(name).get_shape()
                # the script joins experts, and may pad the vocabulary
                if target is None or "_exp" in target or target.startswith("token_embd"):
                    continue
                if held.get(target) != shape:
                    found = f"has shape {held[target]}" if target in held else "is missing"
                    problem = f"{target} {found}, and {name} has {shape}"
                    raise RunError(problem, place=str(file))


def load(request: ExportRequest) -> Any:
    """The file's model as transformers reads it; None for an architecture that it does not read.
    Raises RunError."""
    (file,) = request.folder.glob("*.gguf")
    config = base_model(request.loaded.model).config
    with one_line("transformers cannot load it", str(file)):
        try:
            return AutoModelForCausalLM.from_pretrained(
                request.folder, gguf_file=file.name, config=config, dtype=config.dtype
            )
        except ValueError as error:
            if "not supported" not in str(error):
                raise
            request.say(f"logits are not compared: {str(error).splitlines()[0][:200]}")
            return None
