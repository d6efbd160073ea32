from __future__ import annotations

import pytest

from clipfold.shards.where import Where

COLUMNS = {"fps": 25.0, "width": 320, "label": "walk", "source": "cam2/a.mp4", "night": False, "indices": [1, 2]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fps == 25", True),
        ("fps >= 24 and width < 400", True),
        ("24 <= fps < 25", False),
        ("width > 300 or nothing > 3", True),  # the second half is not looked at
        ("not night", True),
        ("night == False and not (label == 'run')", True),
        ('label in ["walk", "run"]', True),
        ("label not in ('walk', 'run')", False),
        ('"cam2" in source', True),
        ("2 in indices", True),
        ("width != -3.5", True),
        ("label < 'x'", True),
        ("'a' == 3", False),
        ("  night  ", False),
    ],
)
def test_values(text: str, expected: bool) -> None:
    assert Where(text).holds(COLUMNS) is expected


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "label.__class__ == 3",
        "open('x')",
        "[x for x in indices]",
        "indices[0] == 1",
        "lambda: 1",
        "fps + 1 > 3",
        "2 ** 9999999 > 3",
        "f'{label}' == 'walk'",
        "(y := 3) == 3",
        "label is None",
        "None == label",
        "b'x' == label",
        "1 if night else 2",
        "{1: 2} == 3",
        "*indices,",
        "-label == 3",
        "await fps",
    ],
)
def test_nothing_else_is_accepted(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not accepted; expected names of columns|is not an expression"):
        Where(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fps >", "is not an expression: invalid syntax"),
        ("fps = 3", "is not an expression"),
        ("", "is not an expression"),
        ("import os", "is not an expression"),
        ("(" * 300 + "fps" + ")" * 300, "not an expression|too deeply"),
        ("not " * 1900 + "night", "too deeply"),
        ("fps == 3 or " * 900 + "fps == 3", "10,808 characters, expected at most 10,000"),
    ],
)
def test_what_is_no_expression(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Where(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hight > 3", "no column 'hight'; "),
        ("widht > 3", "no column 'widht'; did you mean 'width'"),
        ("label > 3", "'walk' > 3: expected two numbers or two texts"),
        ("3 in source", "3 in 'cam2/a.mp4': expected a list, or a text in a text"),
        ("fps in 3", "expected a list"),
        ("width", "'width' is 320, expected true or false: compare it"),
        ("width and night", "'width' is 320, expected true or false beside and, or, not"),
    ],
)
def test_what_does_not_fit_the_columns(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Where(text).holds(COLUMNS)


def test_names_are_known_before_any_value() -> None:
    where = Where("fps > 3 and 'a' in source")
    assert where.columns == {"fps", "source"}
    where.check_columns(COLUMNS)
    with pytest.raises(ValueError, match="no column 'source'"):
        where.check_columns({"fps": 0.0})
