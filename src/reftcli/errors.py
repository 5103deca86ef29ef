"""Every error a person can meet, one root class, each with its exit code.

A message is one readable line: what is wrong, where, and what to try. The command line prints it and exits with
``exit_code``; nothing else in the project turns errors into exit codes.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What ``reft`` returns to the shell."""

    OK = 0
    RUNTIME = 1
    USAGE = 2
    GATE_FAILED = 3
    BAD_DATA = 4
    INTERRUPTED = 130


class ReftError(Exception):
    """Root of the tree. Subclasses take one message, so every one of them survives pickling between processes."""

    exit_code = ExitCode.RUNTIME


class UsageError(ReftError):
    """A flag, a recipe key, an alias, a path or a run name that cannot be used (exit 2)."""

    exit_code = ExitCode.USAGE


class RecipeError(UsageError):
    """One or more settings are wrong; the message lists all of them."""


class NothingToStartFrom(UsageError):
    """A stage needs an earlier one that has not run; the message says which command to run first."""


class NothingLeftToDo(ReftError):
    """What was asked for is done already: no failure, so that a job that resumes until it is finished ends well."""

    exit_code = ExitCode.OK


class DataError(ReftError):
    """The content of a file is unusable, or no problem is left (exit 4)."""

    exit_code = ExitCode.BAD_DATA


class GateFailed(ReftError):
    """A result is below what was asked for (exit 3)."""

    exit_code = ExitCode.GATE_FAILED


class RuntimeFailure(ReftError):
    """Something outside the settings failed: hub, disk, a rank (exit 1)."""


class ModelUnavailable(RuntimeFailure):
    """A model's files cannot be reached or read."""


class TrainingStopped(RuntimeFailure):
    """Training ended itself because going on would be wrong; the message says why."""


class Interrupted(ReftError):
    """Ctrl-C or SIGTERM; what was done so far is on disk (exit 130)."""

    exit_code = ExitCode.INTERRUPTED
