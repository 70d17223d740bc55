"""Calls as another library has them, answered by rl8's own."""

from __future__ import annotations

import functools
import inspect
import numbers
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

Args = ParamSpec("Args")
Result = TypeVar("Result")


def answered(advice: str) -> Callable[[Callable[Args, Result]], Callable[Args, Result]]:
    """Return a decorator that tells a caller with the wrong arguments what to write.

    Args:
        advice: The sentence; `{number}` in it becomes the number that was given, if one was.
    """

    def decorate(function: Callable[Args, Result]) -> Callable[Args, Result]:
        signature = inspect.signature(function)
        name = function.__qualname__.removesuffix(".__init__")

        @functools.wraps(function)
        def call(*args: Args.args, **kwargs: Args.kwargs) -> Result:
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                given = [value for value in (*args, *kwargs.values()) if isinstance(value, numbers.Integral)]
                sentence = advice.replace("{number}", str(given[0] if given else 100_000))
                raise TypeError(f"{name}() can't be called so: {error}. {sentence}") from error
            return function(*args, **kwargs)

        return call

    return decorate


def missing(owner: Any, name: str, theirs: Mapping[str, str]) -> Any:
    """Stand for `__getattr__`: raise what Python would, or say what to call instead.

    Args:
        owner: What was asked for an attribute that it lacks, or whose property failed with an `AttributeError`.
        name: The attribute.
        theirs: What to call instead, by the names that other libraries have.

    Raises:
        AttributeError: Always.
    """
    if name in theirs:
        text = f"{type(owner).__name__!r} object has no attribute {name!r}. Call {theirs[name]}."
        raise AttributeError(text, name=name, obj=owner)
    return object.__getattribute__(owner, name)  # a property's own error, or Python's words
