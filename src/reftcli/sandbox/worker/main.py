"""The worker: reads programs from its socket, runs each in a locked-down child, sends back what became of it.

A frame is a 4-byte big-endian length and JSON. In: ``[shared, [number, ...], [source, ...]]``. Out: first
``{"ready": ...}``, then lists of ``[number, how, payload, cpu_s]`` in the order in which programs end. The worker never
looks into a payload: the child is not trusted, so the other side reads it with care.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import socket
import sys

from .lockdown import Lockdown
from .loop import Worker


def _preload(modules: list[str]) -> None:
    """Imports ``modules``; a name ending in ``.*`` brings its submodules, because a child cannot import from disk."""
    for name in modules:
        try:
            module = importlib.import_module(name.removesuffix(".*"))
        except ImportError:
            continue
        if name.endswith(".*"):
            for found in pkgutil.walk_packages(module.__path__, module.__name__ + "."):
                if not {"tests", "benchmarks", "doc"} & set(found.name.split(".")):
                    try:
                        importlib.import_module(found.name)
                    except Exception:  # noqa: BLE001 - optional parts need packages that are not installed
                        continue


def main() -> None:
    """Entry point; ``sys.argv[1]`` is the configuration, file descriptor 0 the socket."""
    config = json.loads(sys.argv[1])
    channel = socket.socket(fileno=os.dup(0))
    os.environ.clear()
    os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
    sys.path[:] = [path for path in sys.path if path != config["drop"]] + config["paths"]
    _preload(config["preload"])
    os.environ.clear()
    sys.path.clear()
    sys.argv[1:] = []
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.close(null)
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed(0)
    lockdown = Lockdown(int(config["memory_mb"]))
    lockdown.settle()
    gc.collect()
    gc.freeze()
    gc.disable()  # a collection would touch, and so copy, every page a child shares with the worker
    escapes = lockdown.escapes()
    worker = Worker(channel, lockdown, config)
    worker.send({"ready": True, "escapes": escapes, "landlock_abi": lockdown.landlock_abi})
    if not escapes:
        worker.serve()
