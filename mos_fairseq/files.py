"""Files that are whole or not there."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from mos_fairseq.errors import InputError, write_failure


def write_atomically(path: str | os.PathLike[str], content: str | Callable[[Any], object]) -> None:
    """Write a file, so that a reader sees the old one or the whole new one.

    A symbolic link stays and its target is written; what exists and is no regular file (/dev/stdout, a pipe) is written
    into as it is.

    Args:
        content: its text, or a function that writes bytes into the open file it is given.

    Raises:
        InputError: the file cannot be written.
    """
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    # in the same folder: os.replace is atomic only within one file system
    temporary = os.path.join(folder, f".{name}.{os.getpid()}.tmp")
    try:
        if os.path.basename(os.fspath(path)) in ("", ".", "..") or os.path.isdir(target):
            raise IsADirectoryError(21, "it names a folder")
        if os.path.exists(target) and not os.path.isfile(target):
            with open(target, "wb") as file:
                content(file) if callable(content) else file.write(content.encode())
            return
        try:
            with open(temporary, "wb") as file:
                content(file) if callable(content) else file.write(content.encode())
                file.flush()
                os.fsync(file.fileno())  # a full disk may be noticed only now
            os.replace(temporary, target)
        finally:
            with suppress(FileNotFoundError):
                os.remove(temporary)
    except (OSError, RuntimeError) as error:  # torch tells of a full disk with a RuntimeError
        raise InputError(f"{path}: cannot be written ({write_failure(error)})") from None
