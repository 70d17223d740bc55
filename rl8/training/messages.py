"""What a run says besides its figures, and what may fail in it without ending it."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rl8.parallel.failure import FirstFailedError, PeerError
from rl8.tracking.store import first_line

_logger = logging.getLogger(__name__)


def to_log(text: str) -> None:
    """Leave a line to the log, where nothing shows it: it may be a warning that nobody would see otherwise."""
    _logger.warning(text)


class Messages:
    """Remarks and warnings of a run.

    Attributes:
        say: Shows a line to the user, or logs it where nothing does at the time.
        notes: What is to be said once a run begins, a sentence each.
        warnings: What failed besides training in the last run, a sentence each.
    """

    def __init__(self) -> None:
        self.say: Callable[[str], None] = to_log
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, text: str) -> None:
        """Keep a remark until a run begins."""
        self.notes.append(text)

    def warn(self, text: str) -> None:
        """Say at once what failed, and keep it."""
        self.warnings.append(text)
        self.say(text)

    @contextmanager
    def optional(self, what: str, after: str = "What was trained is saved.") -> Iterator[None]:
        """Let a failure of the block be a warning, which also says what becomes of the run."""
        try:
            yield
        except Exception as error:
            if isinstance(error, PeerError) and not isinstance(error, FirstFailedError):
                raise
            _logger.info("".join(traceback.format_exception(error)))
            self.warn(f"{what} failed: {type(error).__name__}: {first_line(error).rstrip('.')}. {after}")
