"""The kernel names no plugin, tunewright-hf names no family, families name no stage.

import-linter sees imports; this sees strings, such as `if family == "llama"`. Comments and
docstrings may name plugins, as examples do. `plugins.toml` beside the kernel's code is data:
defaults, and who brings which name.
"""

import ast
from pathlib import Path

import pytest

from workspace.members import members, names

#: words of the kernel's own that are also a plugin's name, and what they mean there
KERNEL_WORDS = {
    "adapter": "a kind",
    "auto": "training.precision",
    "data": "a section of the recipe",
    "default": "of an option, in `plugins info`",
    "format": "a kind",
    "generation": "what engines do",
    "length": "why a reply ends",
    "merge": "a tag of YAML: `<<`",
    "plugins": "a group of verbs",
    "template": "a kind",
    "safetensors": "the form of weights in checkpoints",
    "preference": "a sort of rows",
    "prompts": "a sort of rows",
    "reward": "what a model is for",
    "seed": "training.seed",
    "recipe": "a group of verbs",
    "labelled": "a sort of rows",
    "retrieval": "a sort of rows",
    "stepwise": "a sort of rows",
    "ranked": "a sort of rows",
    "text": "a sort of rows",
    "unpaired": "a sort of rows",
}


def strings(file: Path) -> set[str]:
    """Every string literal of a module that is not a docstring."""
    tree = ast.parse(file.read_text("utf-8"))
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = (
        node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in bare
    )
    return {node.value for node in constants if isinstance(node.value, str)}


def source_of(package: str) -> Path:
    (source,) = (member.source for member in members() if member.package == package)
    return source


def named(source: Path, forbidden: set[str]) -> list[str]:
    return [
        f"{file.name}: {text!r}"
        for file in sorted(source.rglob("*.py"))
        for text in sorted(strings(file))
        if text in forbidden or text.rpartition(":")[2] in forbidden
    ]


def test_kernel_names_no_plugin() -> None:
    distributions = {member.project["name"] for member in members()} - {"tunewright"}
    packages = {member.package for member in members()} - {"tunewright"}
    forbidden = (names() - KERNEL_WORDS.keys()) | distributions | packages
    assert {"llama", "lora", "sft", "tunewright-hf"} <= forbidden
    assert named(source_of("tunewright"), forbidden) == []


def test_hf_names_no_family() -> None:
    families = names("family", "model_type") - {"seed"} | {
        "tunewright-qwen",
        "tunewright-llama",
    }  # training.seed
    assert named(source_of("tunewright_hf"), families) == []


@pytest.mark.parametrize("package", [m.package for m in members() if "families" in m.folder.parts])
def test_families_name_no_stage(package: str) -> None:
    assert named(source_of(package), names("stage")) == []


def test_the_search_finds_names(tmp_path: Path) -> None:
    tmp_path.joinpath("bad.py").write_text(
        '"""llama is fine here"""\nif family == "llama" or x == "dist:lora": ...\n'
    )
    assert named(tmp_path, {"llama", "lora"}) == ["bad.py: 'dist:lora'", "bad.py: 'llama'"]
