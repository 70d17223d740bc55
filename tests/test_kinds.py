import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from rl8.kinds import as_text, convert, convert_fields, first_arguments, is_simple


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [(1e6, int, 1_000_000), (2, float, 2.0), (np.float64(0.5), float, 0.5), (None, int | None, None), (3, str, "3"),
     ([1], Any, [1]), (1.5, int | float, 1.5), (2, int | float, 2), (10**400, float, 10**400)],
)  # fmt: skip
def test_values_become_the_declared_type_where_nothing_is_lost(value, hint, expected):
    converted = convert("algo.x", value, hint, 1)
    assert converted == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [(1.5, int, "algo.x=1.5 is of the wrong kind. Accepted: an integer. Try algo.x=1."),
     (True, float | None, "algo.x=true is of the wrong kind. Accepted: a number or null. Try algo.x=1."),
     ("3", int, "algo.x='3' is text. Accepted: an integer. Try algo.x=1, or ${oc.decode:${oc.env:NAME}} to read")],
)  # fmt: skip
def test_other_kinds_are_refused(value, hint, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        convert("algo.x", value, hint, 1)


def test_a_dataclass_converts_its_fields():
    @dataclass(frozen=True)
    class Settings:
        size: float = 1.0

        def __post_init__(self):
            convert_fields(self, "my")

    assert Settings(size=2).size == 2.0
    with pytest.raises(TypeError, match=r"my\.size=big is of the wrong kind\. Accepted: a number\. Try my\.size=1\.0"):
        Settings(size="big")


def test_simple_types_and_text():
    assert is_simple(int | None)
    assert not is_simple(list[int] | None)
    assert as_text([None, True, {"a": 1.5}]) == "[null, true, {a: 1.5}]"
    assert as_text(int) == "builtins.int"


def test_first_arguments_are_those_taken_by_position():
    def function(one, /, two, *rest, three=None, **others):
        pass

    assert first_arguments(function, 0) == []
    assert first_arguments(function, 1) == ["one"]
    assert first_arguments(function, 4) == ["one", "two"]
