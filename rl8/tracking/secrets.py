"""Passwords and tokens, kept out of messages, parameters, tags and files."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Final

MASK: Final = "***"

# The name's last words. A number under `token` is a size or an index, not a secret.
_SECRET: Final = r"(?:password|passwd|secret|credentials?|(?:api|access|private|secret)_?key|token)"
_NAME: Final = re.compile(rf"(?:^|.*[^a-z]){_SECRET}$", re.IGNORECASE)
_PLAIN: Final = re.compile(r"null|none|true|false|", re.IGNORECASE)
_NUMBER: Final = re.compile(r"[-+]?[\d_.]+(?:e[-+]?\d+)?", re.IGNORECASE)
# `scheme://user:password@`, where the password may hold what should have been escaped, and `scheme://token@`; after
# a host and port an @ belongs to the path.
_PAIR: Final = re.compile(r"(\b[a-z][\w+.-]*://[^\s/?#:@'\"]*:)(?!\d+[/?#])[^\s'\"]*@", re.IGNORECASE)
_ALONE: Final = re.compile(r"(\b[a-z][\w+.-]*://)[^\s/?#:@'\"]+@", re.IGNORECASE)
_VALUE: Final = r"(?P<value>'[^']*'|\"[^\"]*\"|[^\s,&'\"}\]]*)"
_TYPED: Final = re.compile(
    rf"(?P<name>\b[\w.]*{_SECRET})(?P<sign>['\"]?[ \t]*[=:][ \t]*){_VALUE}",
    re.IGNORECASE,
)
_VARIABLES: Final = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


def redacted(text: str) -> str:
    """Return a text with `***` for each password or token in it.

    Found are those in addresses (`https://user:password@host`), those set to a name that says so (`env.api_key=abc`),
    and MLflow's own from the environment.
    """
    for variable in _VARIABLES:
        if value := os.environ.get(variable):
            text = text.replace(value, MASK)
    text = _ALONE.sub(rf"\1{MASK}@", _PAIR.sub(rf"\1{MASK}@", text))
    return _TYPED.sub(_masked, text)


def _masked(found: re.Match[str]) -> str:
    name, sign, value = found.group("name", "sign", "value")
    return f"{name}{sign}{MASK}" if is_secret(name, value.strip("'\"")) else found.group()


def is_secret(name: str, value: Any) -> bool:
    """Return whether a setting is a password, key or token, by its name (`env.api_key`) and its kind of value."""
    if value is None or isinstance(value, (bool, Mapping)) or not _NAME.match(name):
        return False
    text = str(value)
    return not (_PLAIN.fullmatch(text) or (name.lower().endswith("token") and _NUMBER.fullmatch(text)))
