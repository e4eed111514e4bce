"""Values of arithmetic expressions, without running them as code."""

import ast
import operator
from collections.abc import Callable
from typing import Any

_LONGEST = 1_000  # characters of an expression
_DIGITS = 100  # of a whole number, and the largest exponent
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}


def evaluate(expression: str) -> str:
    """The value, in at most 12 significant digits if it is no whole number.

    Raises ValueError for what is no arithmetic or too large, ZeroDivisionError.
    """
    if len(expression) > _LONGEST:
        raise ValueError(f"the expression has more than {_LONGEST} characters")
    try:
        value = _value(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError("is no arithmetic expression") from error
    except OverflowError as error:
        raise ValueError("the value is too large") from error
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.12g}"
    return str(value)


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return _small(node.value)
    if isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
        return _UNARY[type(node.op)](_value(node.operand))
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        left, right = _value(node.left), _value(node.right)
        if isinstance(node.op, ast.Pow) and abs(right) > _DIGITS:
            raise ValueError(f"an exponent is above {_DIGITS}")
        found = _BINARY[type(node.op)](left, right)
        if isinstance(found, complex):
            raise ValueError("the value is no real number")
        return _small(found)
    raise ValueError(f"only numbers, + - * / // % ** and parentheses: found {ast.unparse(node)!r}")


def _small(value: Any) -> Any:
    """Raise ValueError for a whole number whose powers would take long, or no finite one."""
    if isinstance(value, int) and abs(value) >= 10**_DIGITS:
        raise ValueError(f"a number has more than {_DIGITS} digits")
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError("the value is too large")
    return value
