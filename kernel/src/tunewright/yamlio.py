"""YAML for recipes: safe, limited in size, no duplicate keys, and every value has its line
number."""

import re
from pathlib import Path
from typing import Any

import yaml

from tunewright.errors import RecipeError

MAX_BYTES = 1_000_000
MAX_DEPTH = 40
MAX_NODES = 50_000  # after aliases are expanded

Path_ = tuple[str | int, ...]  # of a value in the file: ("data", 0, "path")


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's scalars: `on` and `yes` are strings, 1e-5 is a number, a date is a
    string."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise RecipeError(f"nested deeper than {MAX_DEPTH} levels")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_SCALARS = {
    "bool": ("^(true|false|True|False|TRUE|FALSE)$", "tfTF"),
    "int": (r"^([-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789"),
    "float": (
        r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$",
        "-+.0123456789",
    ),
}
_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] in ("null", "merge")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _name, (_pattern, _first) in _SCALARS.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(_pattern), list(_first))


def _int(loader: Any, node: yaml.ScalarNode) -> int:
    text = str(node.value).replace("_", "?")  # Python allows 1_000, YAML 1.2 does not
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    try:
        return int(text[2:] if base != 10 else text, base)
    except ValueError as error:
        raise yaml.MarkedYAMLError(
            problem=f"{text[:40]!r} is no integer", problem_mark=node.start_mark
        ) from error


def _float(loader: Any, node: yaml.ScalarNode) -> float:
    text = str(node.value).lower().replace("_", "?")
    try:
        return float(text.replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError as error:
        raise yaml.MarkedYAMLError(
            problem=f"{text[:40]!r} is no number", problem_mark=node.start_mark
        ) from error


def _bool(loader: Any, node: yaml.ScalarNode) -> bool:
    text = str(node.value).lower()
    if text not in ("true", "false"):
        raise yaml.MarkedYAMLError(
            problem=f"{text[:40]!r} is neither true nor false", problem_mark=node.start_mark
        )
    return text == "true"


#: tags of YAML 1.2's core schema; any other is an error
_CONSTRUCTORS: Any = {
    f"tag:yaml.org,2002:{name}": yaml.SafeLoader.yaml_constructors[f"tag:yaml.org,2002:{name}"]
    for name in ("null", "str", "seq", "map")
} | {
    "tag:yaml.org,2002:int": _int,
    "tag:yaml.org,2002:float": _float,
    "tag:yaml.org,2002:bool": _bool,
    None: yaml.SafeLoader.yaml_constructors[None],
}
_Loader.yaml_constructors = _CONSTRUCTORS


def read(path: Path) -> tuple[Any, dict[Path_, int]]:
    """Value of a file, and the line of every value in it. Raises RecipeError."""
    try:
        if path.exists() and not path.is_file():  # reading a device or pipe may never end
            raise RecipeError("is not a file", place=str(path), hint="give a YAML file")
        if path.stat().st_size > MAX_BYTES:
            raise RecipeError(f"larger than {MAX_BYTES:,} bytes", place=str(path))
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise RecipeError("is not a UTF-8 text", place=str(path)) from error
        reason = getattr(error, "strerror", None) or str(error)
        is_missing = isinstance(error, FileNotFoundError)
        hint = "tunewright recipe new writes one" if is_missing else ""
        raise RecipeError(f"cannot be read: {reason}", place=str(path), hint=hint) from error
    return parse(text, str(path))


def parse(text: str, place: str) -> tuple[Any, dict[Path_, int]]:
    """Value of a YAML text, and the line of every value in it. Raises RecipeError."""
    lines: dict[Path_, int] = {}
    try:
        loader = _Loader(text)
    except yaml.YAMLError as error:  # a control character
        raise _unreadable(error, place) from error
    try:
        node = loader.get_single_node()
        if node is None:
            return None, lines
        _check_size(node, {}, place)
        _note_lines(node, (), lines, place)
        return loader.construct_document(node), lines
    except yaml.YAMLError as error:
        raise _unreadable(error, place) from error
    except (ValueError, OverflowError) as error:  # an escape such as \\UFFFFFFFF is no character
        where = f"{place}:{loader.line + 1}"
        problem = f"is not safe, valid YAML: {' '.join(str(error).split())[:100]}"
        raise RecipeError(problem, place=where) from error
    except RecipeError as error:
        raise RecipeError(error.problem, place=error.place or place, hint=error.hint) from error
    finally:
        loader.dispose()


def _unreadable(error: yaml.YAMLError, place: str) -> RecipeError:
    mark = getattr(error, "problem_mark", None)  # only syntax errors have a mark
    where = f"{place}:{mark.line + 1}" if mark else place
    problem = getattr(error, "problem", None) or str(error)
    problem = " ".join(str(problem).split())[:200]
    hint = "look at quotes, brackets and indentation here and in the line above"
    if "'\\t'" in problem:
        hint = "indent with spaces"
    elif "tag" in problem:
        hint = "leave the tag out"
    return RecipeError(f"is not safe, valid YAML: {problem}", place=where, hint=hint)


def _check_size(node: yaml.Node, sizes: dict[int, tuple[int, int]], place: str) -> tuple[int, int]:
    """Count nodes with every alias expanded, and levels, without expanding any."""
    if id(node) in sizes:
        return sizes[id(node)]
    sizes[id(node)] = MAX_NODES, 1  # an alias to its own parent is infinite
    children: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        children = node.value
    elif isinstance(node, yaml.MappingNode):
        children = [each for pair in node.value for each in pair]
    elif any("\ud800" <= letter <= "\udfff" for letter in node.value):
        where = f"{place}:{node.start_mark.line + 1}"
        raise RecipeError("holds half of a surrogate pair, which is no character", place=where)
    below = [_check_size(child, sizes, place) for child in children]
    size, depth = (
        1 + sum(each[0] for each in below),
        1 + max((each[1] for each in below), default=0),
    )
    if size > MAX_NODES:
        problem = f"has more than {MAX_NODES:,} values once its aliases are expanded"
        raise RecipeError(problem, place=place)
    if depth > MAX_DEPTH:
        raise RecipeError(f"nested deeper than {MAX_DEPTH} levels", place=place)
    sizes[id(node)] = size, depth
    return size, depth


def _note_lines(node: yaml.Node, path: Path_, lines: dict[Path_, int], place: str) -> None:
    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            _note_lines(child, (*path, index), lines, place)
    elif isinstance(node, yaml.MappingNode):
        seen = set()
        for key, child in node.value:
            name = str(key.value)
            if name in seen:
                field = ".".join(map(str, (*path, name)))
                where = f"{place}:{key.start_mark.line + 1}"
                first = f"the first is in line {lines[(*path, name)]}: leave one of them out"
                raise RecipeError(f"{field} stands there twice", place=where, hint=first)
            seen.add(name)
            _note_lines(child, (*path, name), lines, place)
            lines[(*path, name)] = key.start_mark.line + 1
