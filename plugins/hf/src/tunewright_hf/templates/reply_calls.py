"""Parse one tool call of a reply, in every format that a ReplyForm can describe."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tunewright.types import ToolCall
from tunewright_hf.templates.info import ReplyForm, compiled, open_end

if TYPE_CHECKING:
    import ast

_NAMES = ("name", "tool_name")  # keys for a tool's name and arguments in various formats
_ARGUMENTS = ("arguments", "parameters")
_CONSTANTS = {"true": True, "false": False, "null": None}  # JSON constants within Python syntax
_JSON_MARKS = re.compile(r'\\.|["{}\[\]]', re.DOTALL)


@dataclass(slots=True)
class OpenCall:
    """A match of ReplyForm.call, and how far the text behind it has been read."""

    match: re.Match[str]
    form: ReplyForm
    tools: Sequence[dict[str, Any]]
    depth: int = 0  # of brackets
    in_string: bool = False
    read: int = field(init=False)

    def __post_init__(self) -> None:
        self.read = self.match.end()

    def parse(self, text: str, final: bool) -> tuple[list[ToolCall], int] | None:
        """Return the calls (none if they cannot be parsed) and their end.

        None: they may go on behind the text. final: nothing follows it.
        """
        if self.form.argument or self.form.python:
            return self._parse_to_end(text, final)
        if not self._is_complete(text) and not final:
            return None
        try:
            value, end = json.JSONDecoder().raw_decode(text, self.match.end())
        except (ValueError, RecursionError):
            return [], self.match.end()
        if self.form.end:
            if not final and open_end(self.form.end, text, end) == end:
                return None
            # a truncated reply may lack it
            if after := compiled(self.form.end).match(text, end):
                end = after.end()
        return self._from_json(value), end

    def _parse_to_end(self, text: str, final: bool) -> tuple[list[ToolCall], int] | None:
        """Parse a call whose arguments are not JSON: all up to a match of ReplyForm.end."""
        end = compiled(self.form.end).search(text, self.read)
        if not final:
            # a longer match may begin here, or the first one
            safe = open_end(self.form.end, text, self.read)
            if end is None or end.start() >= safe:
                self.read = safe
                return None
        if end is None:
            return [], self.match.end()
        body, named = text[self.match.end() : end.start()], self.match.groupdict()
        if self.form.python:
            return _python(body), end.end()
        types = _types(named["name"], self.tools)
        values = {
            m["key"]: _value(m["value"], types.get(m["key"]))
            for m in compiled(self.form.argument).finditer(body)
        }
        return [ToolCall(named["name"].strip(), values, named.get("id"))], end.end()

    def _is_complete(self, text: str) -> bool:
        """Whether the JSON value has ended, or is no object and no list."""
        begun = self.read > self.match.end()
        if begun and not self.depth:
            return True
        if not begun and text[self.read : self.read + 1] not in ("{", "[", ""):
            return True
        for mark in _JSON_MARKS.finditer(text, self.read):
            self.read = mark.end()
            if mark[0] == '"':
                self.in_string = not self.in_string
            elif not self.in_string and mark[0] in "{[":
                self.depth += 1
            elif not self.in_string and mark[0] in "}]":
                self.depth -= 1
                if self.depth <= 0:
                    return True
        # a backslash at the end belongs to the character that follows it
        self.read = len(text) - (self.read < len(text) and text.endswith("\\"))
        return False

    def _from_json(self, value: Any) -> list[ToolCall]:
        named = self.match.groupdict()
        if "name" in named:
            if not isinstance(value, dict):
                return []
            return [ToolCall(named["name"].strip(), value, named.get("id"))]
        items = value if isinstance(value, list) else [value]
        calls = [call for item in items if (call := _from_object(item))]
        return calls if len(calls) == len(items) else []


def _from_object(value: Any) -> ToolCall | None:
    """Convert {name, arguments} in any format's keys; arguments may be the JSON text of an
    object."""
    if not isinstance(value, dict):
        return None
    name = next((value[key] for key in _NAMES if isinstance(value.get(key), str)), None)
    arguments: Any = next((value[key] for key in _ARGUMENTS if key in value), {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            return None
    if name is None or not isinstance(arguments, dict):
        return None
    number = value.get("id", value.get("tool_call_id"))
    return ToolCall(name, arguments, None if number is None else str(number))


def _types(name: str, tools: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Types of a tool's parameters by name, from its schema."""
    for tool in tools:
        function = tool.get("function", tool)
        if function.get("name") == name.strip():
            properties = (function.get("parameters") or {}).get("properties") or {}
            return {
                key: schema.get("type")
                for key, schema in properties.items()
                if isinstance(schema, dict)
            }
    return {}


def _value(text: str, kind: Any) -> Any:
    """Value of an unquoted argument: text if the schema says so, else JSON if it parses."""
    if kind == "string":
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _python(body: str) -> list[ToolCall]:
    import ast

    try:
        tree = ast.parse(body.strip(), mode="eval").body
        nodes = tree.elts if isinstance(tree, ast.List) else [tree]
        return [_python_call(node) for node in nodes]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def _python_call(node: "ast.expr") -> ToolCall:
    """Convert a Python call. Raises ValueError unless its arguments are named literals."""
    import ast

    class Constants(ast.NodeTransformer):
        def visit_Name(self, name: ast.Name) -> ast.AST:
            return ast.Constant(_CONSTANTS[name.id]) if name.id in _CONSTANTS else name

    if (
        not isinstance(node, ast.Call)
        or node.args
        or any(word.arg is None for word in node.keywords)
    ):
        raise ValueError("no call with named arguments")
    values = {
        str(word.arg): ast.literal_eval(Constants().visit(word.value)) for word in node.keywords
    }
    return ToolCall(ast.unparse(node.func), values)
