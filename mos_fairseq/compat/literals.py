"""Restrict the option strings that fairseq evaluates as Python to literals."""

from __future__ import annotations

import ast
import operator
import re
import sys
import types
from collections.abc import Callable
from typing import Any

from ..errors import InputError

_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_EVAL = re.compile(rb"(?<![\w.])eval\b")  # the builtin, not a method such as model.eval()
_MAX_LENGTH = 10_000  # of the string, and of every sequence in its value


def never_evaluate_code() -> None:
    """Give every module of fairseq that calls ``eval`` a version that accepts literals only.

    Some architectures and optimizers evaluate option strings (``"[(512, 3)] * 20"``, ``"(0.9, 0.98)"``), and a
    checkpoint contains its options. So merely building a downloaded model could run any program. A name in a module
    hides the builtin of the same name, so nothing else changes.
    """
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "fairseq" and module is not None and _calls_eval(module):
            module.eval = evaluate_literal  # type: ignore[attr-defined]


def _calls_eval(module: types.ModuleType) -> bool:
    loader = getattr(getattr(module, "__spec__", None), "loader", None)
    get_code = getattr(loader, "get_code", None)
    if get_code is None or not _may_name_eval(loader, module):
        return False
    code = get_code(module.__name__)
    return code is not None and _names(code, "eval")


def _may_name_eval(loader: Any, module: types.ModuleType) -> bool:
    """Return whether the source contains the word. Most modules do not, and loading their code takes ten times as
    long."""
    try:
        source = loader.get_data(module.__file__)
        return b"eval" in source and _EVAL.search(source) is not None
    except (AttributeError, OSError, TypeError):
        return True  # not loaded from a source file


def _names(code: types.CodeType, name: str) -> bool:
    nested = (const for const in code.co_consts if isinstance(const, types.CodeType))
    return name in code.co_names or any(_names(inner, name) for inner in nested)


def evaluate_literal(text: Any, *scopes: Any) -> Any:
    """Return the value of numbers, strings, lists, tuples and dictionaries, and of ``+ - * /`` between them.

    Raises:
        InputError: the text contains anything else.
        TypeError: ``text`` is no string.
    """
    if not isinstance(text, str):
        raise TypeError(f"expected a string to evaluate, got {type(text).__name__}")  # as Python's eval does
    shown = " ".join(text.split())[:60]
    try:
        if len(text) > _MAX_LENGTH:
            raise ValueError("too long")
        return _value(ast.parse(text.strip(), mode="eval").body)
    except (ValueError, TypeError, SyntaxError, ArithmeticError, RecursionError, MemoryError, AttributeError) as error:
        raise InputError(
            f"option value {shown!r}: allowed are numbers, strings, lists, tuples and dictionaries, and + - * / of them"
        ) from error


def _value(node: ast.expr) -> Any:
    if isinstance(node, (ast.Tuple, ast.List)):
        values = [_value(element) for element in node.elts]
        return tuple(values) if isinstance(node, ast.Tuple) else values
    if isinstance(node, ast.Dict):
        keys = [key for key in node.keys if key is not None]
        if len(keys) < len(node.keys):
            raise ValueError("a dictionary is unpacked")
        return {_value(key): _value(value) for key, value in zip(keys, node.values, strict=True)}
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _value(node.left), _value(node.right)
        _check_size(left, right, node.op)
        return _OPERATORS[type(node.op)](left, right)
    if isinstance(node, ast.Constant):
        return node.value
    raise ValueError(f"{type(node).__name__} is no literal")


def _check_size(left: Any, right: Any, op: ast.operator) -> None:
    """Raise ValueError if a repetition would exhaust the memory."""
    for sequence, factor in ((left, right), (right, left)):
        if isinstance(sequence, (str, bytes, list, tuple)) and isinstance(op, ast.Mult):
            if len(sequence) * int(factor) > _MAX_LENGTH:
                raise ValueError("too long")
