"""Real processes that meet through Gloo, as torchrun starts them."""

import fcntl
import multiprocessing
import os
import socket
import tempfile
from pathlib import Path

import torch
import torch.multiprocessing

from rl8.parallel import world


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def once(factory, name, make):
    """Return what a function gives for a folder; of several test processes one calls it, and the others wait."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept = folder / "found.pt"
        if not kept.exists():
            folder.mkdir()
            torch.save(make(folder), kept)
        return folder, torch.load(kept, weights_only=False)


def together(function, *arguments, size=2):
    """Return what a function gives in each of so many processes, in the order of their numbers."""
    multiprocessing.set_forkserver_preload(["rl8.trainer"])  # imports take longer than most tests
    with tempfile.TemporaryDirectory() as folder:
        given = (size, free_port(), folder, function, arguments)
        torch.multiprocessing.start_processes(_process, given, nprocs=size, start_method="forkserver")
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(size)]


def _process(rank, size, port, folder, function, arguments):
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    world.join("cpu")
    torch.save(function(rank, *arguments), Path(folder) / f"{rank}.pt")
    world.leave()
