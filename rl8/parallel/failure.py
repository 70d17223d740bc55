"""When one of several processes fails: who says why, and how the others end soon after.

The launcher's store, which outlives every process, holds one word for each attempt: why it failed. Who comes first
writes it. A thread of each process looks for it twice a second, so that a process that hangs ends too.
"""

from __future__ import annotations

import datetime
import functools
import json
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import torch.distributed

from rl8.parallel import launched

#: Seconds from the word that all shall end until a process that has not is ended; longer where it is at it: process 0
#: closes the run's record.
GRACE_S: Final = 6.0
GRACE_AT_IT_S: Final = 25.0
#: Seconds that processes wait for one another however long that takes: before training, and while process 0 alone
#: evaluates, films or writes.
LONG_S: Final = 24 * 3600.0
#: Seconds in which a process that lives says so.
ANSWER_S: Final = 1.5
_LOOK_S: Final = 0.5
_WORD_S: Final = 8.0  # that the others wait for the reason


_dist: Any = torch.distributed  # its stores have no types


class PeerError(RuntimeError):
    """Another process has failed, so this one ends too.

    Attributes:
        said: Whether another process says why, so that this one need not.
        lost_first: Whether process 0 is gone, and this one is to close the run's record.
    """

    def __init__(self, message: str, *, said: bool, lost_first: bool = False) -> None:
        super().__init__(message)
        self.said, self.lost_first = said, lost_first


class FirstFailedError(PeerError):
    """What process 0 was to do for all of them has failed."""


def launch_store(prefix: str = "rl8", *, hosts: bool = False, timeout_s: float = 30.0) -> Any:
    """Return what all processes of a launch read and write by name, also those of earlier attempts.

    Args:
        prefix: Names are kept below it.
        hosts: Whether this process is to keep it for the others, where no launcher does.
        timeout_s: Seconds that a name is waited for, and the store itself.
    """
    store = _dist.TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=hosts,
        timeout=datetime.timedelta(seconds=timeout_s),
        wait_for_workers=False,
        multi_tenant=True,
    )
    return _dist.PrefixStore(prefix, store)


@functools.cache
def meeting_store() -> Any:
    """Return the store in which the processes of this attempt find each other, once all are there.

    The launcher's store outlives an attempt, so that each has names of its own.
    """
    hosts = launched.rank() == 0 and not launched.has_agent()
    store = launch_store(f"rl8/{launched.attempt()}", hosts=hosts, timeout_s=LONG_S)
    if store.add("here", 1) == launched.size():
        store.set("all here", "1")
    store.wait(["all here"])
    return store


def place() -> tuple[int, int]:
    """Return this process's number on its machine, from 0, and how many there are; all processes call it."""
    told = launched.place()
    if told is not None:
        return told
    store, host = meeting_store(), socket.gethostname()
    store.set(f"host/{launched.rank()}", host)
    here = [number for number in range(launched.size()) if store.get(f"host/{number}").decode() == host]
    return here.index(launched.rank()), len(here)


def keep_mistake(code: int) -> None:
    """Keep that what was typed is refused, with the exit code: a new attempt would only say it again."""
    if launched.has_agent():
        launch_store().set("mistake", str(code))


def mistake_before() -> int:
    """Return the exit code if what was typed was refused in an attempt before this one; else 0."""
    if launched.attempt() == 0:
        return 0
    store = launch_store()
    return int(store.get("mistake")) if store.check(["mistake"]) else 0


def folder_before() -> Path | None:
    """Return the run's folder of the launch's attempt before this one; None if this is the first or it had none."""
    if launched.attempt() == 0:
        return None
    store = launch_store()
    return Path(store.get("folder").decode()) if store.check(["folder"]) else None


def keep_folder(folder: Path) -> None:
    """Keep the run's folder for an attempt after this one."""
    if launched.has_agent():
        launch_store().set("folder", str(folder.absolute()))


def may_speak() -> bool:
    """Return whether this process is the one that says why all of them end; always where it is the only one."""
    if launched.size() == 1 or not launched.has_agent():
        return True
    try:
        return _claim(_attempt_store())
    except Exception:  # the store is gone: better twice than never
        return True


def _attempt_store() -> Any:
    return launch_store(f"rl8/{launched.attempt()}")


def _claim(store: Any) -> bool:
    """Return whether this process is the first of its attempt to fail; asked again it says the same."""
    return bool(store.compare_set("claim", "", str(launched.rank())).decode() == str(launched.rank()))


class Peers:
    """The other processes, as one of them sees them.

    Args:
        rank: Number of this process.
        size: Number of processes.
        patience_s: Seconds after which an exchange fails.

    Attributes:
        at_end: Called with the reason, in a thread, before this process is ended because it does not end by itself.
    """

    def __init__(self, rank: int, size: int, patience_s: float) -> None:
        self._rank, self._size, self._patience_s = rank, size, patience_s
        self._store = _attempt_store()
        self._waiting = self._ending = False
        self.at_end: Callable[[str], None] | None = None
        self._left = threading.Event()
        self._store.set(f"who/{rank}", json.dumps([socket.gethostname(), os.getpid()]))
        self._thread = threading.Thread(target=self._watch, name="rl8-peers", daemon=True)

    @classmethod
    def met(cls, rank: int, size: int, patience_s: float) -> Peers:
        """Return the peers of this process, and watch for their failures."""
        peers = cls(rank, size, patience_s)
        peers._thread.start()
        return peers

    def may_speak(self) -> bool:
        """See `may_speak`."""
        try:
            return _claim(self._store)
        except Exception:
            return True

    def leave(self) -> None:
        """Watch no longer."""
        self._left.set()
        self._thread.join(2 * _LOOK_S)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Mark that this process waits for the others in the block, and does not hang."""
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False

    def tell(self, error: BaseException) -> None:
        """Tell the others why this process ends, unless another was first."""
        self._ending = True
        with suppress(Exception):
            if _claim(self._store):
                text = "".join(traceback.format_exception(error))
                self._store.set("error", json.dumps({"rank": self._rank, "text": text}))

    def lost(self, error: Exception) -> PeerError:
        """Return why an exchange failed: what the process says that failed, else which one does not answer."""
        self._ending = True
        try:
            if not self._told(3.0) and _claim(self._store):
                return self._look_for_missing(error)
            if self._told(_WORD_S):
                word = json.loads(self._store.get("error"))
                return PeerError(f"Process {word['rank']} of {self._size} failed.\n{word['text']}", said=True)
        except Exception:  # the store is gone, with the machine of the first process
            return PeerError(f"The other processes are lost: {_line(error)}", said=False, lost_first=self._rank != 0)
        return PeerError(f"The other processes are lost: {_line(error)}", said=True)

    def _look_for_missing(self, error: Exception) -> PeerError:
        """Find out who does not answer, end it, and tell the others."""
        self._store.set("asked", "1")
        time.sleep(ANSWER_S)
        silent = [r for r in range(self._size) if r != self._rank and not self._store.check([f"alive/{r}"])]
        text = " ".join(self._ended(number) for number in silent) or f"The processes can't exchange: {_line(error)}."
        self._store.set("error", json.dumps({"rank": silent[0] if silent else self._rank, "text": text}))
        return PeerError(f"{text} All {self._size} processes end.", said=False, lost_first=0 in silent)

    def _ended(self, number: int) -> str:
        host, pid = json.loads(self._store.get(f"who/{number}"))
        name = f"Process {number} (pid {pid} on {host})"
        if host == socket.gethostname():
            if not _runs(pid):
                return f"{name} has ended without a word: it crashed, or was killed, perhaps for want of memory."
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return f"{name} has not answered for {self._patience_s:g} s."

    def _told(self, seconds: float) -> bool:
        """Return whether somebody has said why all end, within so many seconds."""
        until = time.monotonic() + seconds
        while not self._store.check(["error"]):
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        return True

    def _watch(self) -> None:
        """Answer when asked whether this process lives, and end it when it does not end by itself; in the thread."""
        try:
            store: Any = _attempt_store()
            since: float | None = None
            while not self._left.wait(_LOOK_S):
                if (self._waiting or self._ending) and store.check(["asked"]):
                    store.set(f"alive/{self._rank}", "1")
                if since is None and store.check(["error"]):
                    since = time.monotonic()
                grace = GRACE_AT_IT_S if self._ending else GRACE_S
                if since is not None and time.monotonic() - since > grace:
                    if self.at_end is not None and not self._ending:
                        with suppress(Exception):
                            self.at_end(json.loads(store.get("error"))["text"])
                    os._exit(1)
        except Exception:  # the store has gone with its launcher
            return


def _runs(pid: int) -> bool:
    """Return whether a process of this machine has not ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")  # on Linux: one that has ended and nobody has asked for is there as Z
    return not status.is_file() or status.read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"


def _line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
