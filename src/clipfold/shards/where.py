"""``--where``: an expression on the columns of samples, read by Python's own parser and evaluated by a walk over it.

::

    fps >= 24 and not label in ["noise", "other"] and "cam2" in source

Names are columns; constants are texts, numbers, True and False; then ``== != < <= > >= in not in``, ``and or not``,
parentheses, and lists for ``in``. Nothing else is accepted: no calls, no attributes, no arithmetic.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

__all__ = ["Where"]

_LONGEST = 10_000
_ORDER: dict[type, tuple[str, Callable[[Any, Any], bool]]] = {
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
}
_ALLOWED = "names of columns, texts, numbers, True, False, == != < <= > >= in, not in, and, or, not, ( ), lists"


class Where:
    """A condition on the columns of one sample.

    Args:
        text: The expression.

    Raises:
        ValueError: It is not one, or it has parts that are not accepted; the message says which and where.

    Example:
        >>> Where("fps >= 24 and label in ['walk', 'run']").holds({"fps": 25.0, "label": "walk"})
        True
    """

    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > _LONGEST:
            raise ValueError(f"where: {len(text):,} characters, expected at most {_LONGEST:,}")
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
            self._check(self._tree)
        except SyntaxError as error:
            place = "" if error.offset is None else f" at character {error.offset}"
            raise ValueError(f"where: {text!r} is not an expression: {error.msg}{place}") from error
        except (RecursionError, MemoryError) as error:
            raise ValueError("where: the expression is nested too deeply") from error

    @property
    def columns(self) -> set[str]:
        """The columns that it names."""
        return {node.id for node in ast.walk(self._tree) if isinstance(node, ast.Name)}

    def check_columns(self, known: Mapping[str, Any] | set[str]) -> None:
        """Raise ``ValueError`` where it names a column that is not among the known ones."""
        for name in sorted(self.columns - set(known)):
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(f"where: no column {name!r}; {hint}there are {', '.join(sorted(known))}")

    def holds(self, columns: Mapping[str, Any]) -> bool:
        """Whether a sample with these columns fulfils the condition.

        Raises:
            ValueError: It names a column that is not there, or compares what cannot be compared.
        """
        value = self._value(self._tree, columns)
        if not isinstance(value, bool):
            raise ValueError(f"where: {self.text!r} is {value!r}, expected true or false: compare it with something")
        return value

    # ---- what is accepted ----

    def _check(self, node: ast.expr) -> None:
        match node:
            case ast.BoolOp(values=parts) | ast.List(elts=parts) | ast.Tuple(elts=parts):
                pass
            case ast.UnaryOp(op=ast.Not(), operand=part):
                parts = [part]
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float())):
                parts = []
            case ast.Compare(left=left, comparators=others, ops=operators):
                parts = [left, *others]
                if any(isinstance(each, ast.Is | ast.IsNot) for each in operators):
                    raise self._refusal(node)
            case ast.Name() | ast.Constant(value=str() | int() | float()):
                parts = []
            case _:
                raise self._refusal(node)
        for part in parts:
            self._check(part)

    def _refusal(self, node: ast.expr) -> ValueError:
        shown = ast.unparse(node)
        return ValueError(
            f"where: {shown[:100]!r} at character {node.col_offset + 1} is not accepted; expected {_ALLOWED}"
        )

    # ---- its value ----

    def _value(self, node: ast.expr, columns: Mapping[str, Any]) -> Any:
        match node:
            case ast.BoolOp(op=ast.And(), values=parts):
                return all(self._truth(part, columns) for part in parts)
            case ast.BoolOp(values=parts):
                return any(self._truth(part, columns) for part in parts)
            case ast.UnaryOp(op=ast.Not(), operand=part):
                return not self._truth(part, columns)
            case ast.UnaryOp(operand=ast.Constant(value=int() | float() as number)):
                return -number
            case ast.Compare():
                return self._comparison(node, columns)
            case ast.List(elts=parts) | ast.Tuple(elts=parts):
                return [self._value(part, columns) for part in parts]
            case ast.Constant():
                return node.value
            case ast.Name(id=name):
                if name not in columns:
                    self.check_columns(dict(columns))
                return columns[name]
        raise AssertionError(f"{type(node).__name__} passed the check")

    def _truth(self, node: ast.expr, columns: Mapping[str, Any]) -> bool:
        value = self._value(node, columns)
        if not isinstance(value, bool):
            raise ValueError(f"where: {ast.unparse(node)!r} is {value!r}, expected true or false beside and, or, not")
        return value

    def _comparison(self, node: ast.Compare, columns: Mapping[str, Any]) -> bool:
        left = self._value(node.left, columns)
        held = True
        for kind, part in zip(node.ops, node.comparators, strict=True):
            right = self._value(part, columns)
            held = held and self._compare(kind, left, right)
            left = right
        return held

    def _compare(self, kind: ast.cmpop, left: Any, right: Any) -> bool:
        match kind:
            case ast.Eq():
                return bool(left == right)
            case ast.NotEq():
                return bool(left != right)
            case ast.In():
                return self._is_in(left, right)
            case ast.NotIn():
                return not self._is_in(left, right)
        sign, function = _ORDER[type(kind)]
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if not numbers and not (isinstance(left, str) and isinstance(right, str)):
            raise ValueError(f"where: {left!r} {sign} {right!r}: expected two numbers or two texts")
        return function(left, right)

    def _is_in(self, left: Any, right: Any) -> bool:
        if isinstance(right, list) or (isinstance(right, str) and isinstance(left, str)):
            return left in right
        raise ValueError(f"where: {left!r} in {right!r}: expected a list, or a text in a text")
