"""Calls as another library has them, answered by rl8's own."""

from __future__ import annotations

import functools
import inspect
import numbers
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, ParamSpec, TypeVar

from rl8.checks import is_mistake

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


_TYPED: Final = ContextVar("typed", default=False)


@contextmanager
def typed() -> Iterator[None]:
    """Say that what the block builds was typed on a command line, which names options its own way and checks more."""
    before = _TYPED.set(True)
    try:
        yield
    finally:
        _TYPED.reset(before)


def is_typed() -> bool:
    """Return whether a command line is behind this call, rather than somebody's Python."""
    return _TYPED.get()


@contextmanager
def in_python() -> Iterator[None]:
    """Let checks that fail in the block name options as Python has them, unless a command line is behind it."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if not is_typed() and is_mistake(error) and len(error.args) == 1:
            error.args = (as_python(str(error)),)
        raise


def as_python(message: str) -> str:
    """Return a message with a command line's keys and values written as in Python: `algo.gamma=null`, `gamma=None`."""
    for pattern, text in _IN_PYTHON:
        message = re.sub(pattern, text, message)
    return message


_IN_PYTHON: Final = (
    (r", or \$\{oc\.decode:\$\{oc\.env:NAME\}\} to read a variable", ""),
    (r"\balgo\.optimizer\._target_", "optimizer_cls"),
    (r"\balgo\.optimizer\.(\w+)=([^\s,]+?)(?=[.,]?(?:\s|$))", r'optimizer_config={"\1": \2}'),
    (r"\bdevice\.device\b", "device"),
    (r"\bdevice\.([a-z]\w*)=([^\s,]+?)(?=[.,]?(?:\s|$))", r"device=rl8.DeviceSettings(\1=\2)"),
    (r"\b(?:algo|trainer|stop)\.(?=[a-z])", ""),
    (r" \(stop=target .*?\)|goal\.target=\S+ with stop=target, else ", ""),
    (r"Try '(\w[\w.]*=[^']*)'", r"Try \1"),  # no shell splits it
    (r"\bschedules\.(\w+)=(None\b|\[.*?\]\])", r'schedules={"\1": \2}'),
    (r"=null\b", "=None"),
    (r"\bor null\b", "or None"),
    (r"=true\b", "=True"),
    (r"=false\b", "=False"),
    # a word is text, unless it is an option of a group
    (r"((?:Try|or) )(?!(?:algo|distribution|env|model)=)(\w+)=(/?[a-z][\w/-]*)(?=[.,)]*(?:\s|$))", r"\1\2='\3'"),
    (r"(?<=Settings\()(\w+)=([a-z]+)(?=\))", r"\1='\2'"),
)
