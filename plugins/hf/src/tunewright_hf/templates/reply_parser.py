"""A generated reply, taken apart: thinking, text and calls of tools. The way back from what a
template renders."""

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunewright.types import Message, ToolCall
from tunewright_hf.templates.info import ReplyForm, TemplateInfo, compiled

if TYPE_CHECKING:
    import ast

__all__ = ["parse"]

_NAMES = ("name", "tool_name")  # what formats call a tool's name, and its arguments
_ARGUMENTS = ("arguments", "parameters")
_CONSTANTS = {"true": True, "false": False, "null": None}  # JSON's, where Python is written


def parse(text: str, info: TemplateInfo, tools: Sequence[dict[str, Any]] | None = None) -> Message:
    """The assistant's message that a generated text says; a stop token at its end is left out.

    tools: those on offer, OpenAI's JSON schema; [] is none, and then nothing is a call; None: not
    known. A call that is begun and cannot be read stays text. White space round thinking and calls
    belongs to the format.
    """
    text = re.sub(f"(?:{'|'.join(map(re.escape, info.stop)) or '(?!)'})\\s*\\Z", "", text)
    form = info.reply
    reasoning, text = _thinking(text, form, info.thinking)
    calls: list[ToolCall] = []
    if form.call and tools != []:
        calls, text = _calls(text, form, tools or ())
    if form.drop:
        text = compiled(form.drop).sub("", text)
    return Message("assistant", text.strip() if calls else text, reasoning or None, calls)


def _thinking(text: str, form: ReplyForm, words: tuple[str, str] | None) -> tuple[str, str]:
    """The thinking, "" where there is none, and the rest."""
    if form.thinking:
        pattern = compiled(form.thinking)
        found = [match["text"].strip() for match in pattern.finditer(text)]
        return "\n".join(found), pattern.sub("", text)
    if words is None:
        return "", text
    start, end = words
    before, closed, after = text.partition(end)
    if not closed and not text.lstrip().startswith(start):
        return "", text
    # the prompt may have opened it; where the reply was cut off, nothing closes it
    return before.strip().removeprefix(start).strip(), after.lstrip("\n")


def _calls(
    text: str, form: ReplyForm, tools: Sequence[dict[str, Any]]
) -> tuple[list[ToolCall], str]:
    """The calls in a text, and what is left of it."""
    found: list[ToolCall] = []
    kept: list[str] = []
    done = position = 0
    while match := compiled(form.call).search(text, position):
        calls, end = _call(text, match, form, tools)
        position = max(end, match.start() + 1)
        if calls:
            kept.append(text[done : match.start()])
            found += calls
            done = end
    return found, "".join([*kept, text[done:]])


def _call(
    text: str, match: re.Match[str], form: ReplyForm, tools: Sequence[dict[str, Any]]
) -> tuple[list[ToolCall], int]:
    """What begins at a match of `call`, and where it ends; no calls where it cannot be read."""
    named = match.groupdict()
    if form.argument or form.python:
        end = compiled(form.end).search(text, match.end())
        if end is None:
            return [], match.end()
        body = text[match.end() : end.start()]
        if form.python:
            return _python(body), end.end()
        types = _types(named["name"], tools)
        values = {
            m["key"]: _value(m["value"], types.get(m["key"]))
            for m in compiled(form.argument).finditer(body)
        }
        return [ToolCall(named["name"].strip(), values, named.get("id"))], end.end()
    try:
        value, stop = json.JSONDecoder().raw_decode(text, match.end())
    except (ValueError, RecursionError):
        return [], match.end()
    if form.end and (
        after := compiled(form.end).match(text, stop)
    ):  # a reply may be cut off before it
        stop = after.end()
    if "name" in named:
        return (
            [ToolCall(named["name"].strip(), value, named.get("id"))]
            if isinstance(value, dict)
            else []
        ), stop
    items = value if isinstance(value, list) else [value]
    calls = [call for item in items if (call := _from_object(item))]
    return (calls if len(calls) == len(items) else []), stop


def _from_object(value: Any) -> ToolCall | None:
    """{name, arguments} in the words of any format; arguments may be the text of a JSON object."""
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
    """The types of a tool's parameters, by name, as its schema says them."""
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
    """An argument that is written bare: text where the schema says so, else JSON where it reads as
    JSON."""
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
    """Raises ValueError where it is no call with named arguments that are literals."""
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
