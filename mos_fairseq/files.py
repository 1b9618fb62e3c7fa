"""Atomic file writes, and reading files and making folders with one-line errors."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from mos_fairseq.errors import InputError, write_failure

try:
    import fcntl
except ImportError:  # Windows: concurrent writers are not detected there
    fcntl = None  # type: ignore[assignment]  # mypy cannot express an optional module


def read_text(path: str | os.PathLike[str], what: str = "") -> str:
    """Return the text of a UTF-8 file. Error messages put ``what`` before the path. Raises InputError if the file
    cannot be read."""
    name = f"{what} {path}".strip()
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise InputError(f"{name}: not a UTF-8 text file") from None


def text_lines(text: str) -> list[str]:
    """Return the lines of a text that :func:`read_text` read, as fairseq-preprocess counts them. str.splitlines also
    ends lines at other characters (U+2028, U+0085, form feed), which may occur within a sentence."""
    return text.removesuffix("\n").split("\n") if text else []


def read_csv(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the rows of a UTF-8 CSV file, keyed by its first line. Raises InputError if it cannot be read."""
    try:
        text = read_text(path).removeprefix("\ufeff")  # spreadsheets put this byte order mark first
        return list(csv.DictReader(io.StringIO(text, newline="")))
    except csv.Error:
        raise InputError(f"{path}: not a CSV file") from None


def file_digest(path: str | os.PathLike[str], what: str = "") -> str:
    """Return the SHA-256 of a file's content as hexadecimal digits; ``what`` as in :func:`read_text`. Raises InputError
    if the file cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{f'{what} {path}'.strip()}: cannot be read ({error.strerror or error})") from None


def make_folder(path: str | os.PathLike[str], what: str = "") -> None:
    """Make a folder unless it exists; ``what`` as in :func:`read_text`. Raises InputError if it cannot be made."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{f'{what} {path}'.strip()}: cannot be made ({error.strerror or error})") from None


def check_writable(path: str | os.PathLike[str], what: str = "") -> None:
    """Raise InputError if a file cannot be written, or made in its folder, before long work; ``what`` as in
    :func:`read_text`. Nothing is made."""
    target = Path(path) if Path(path).exists() else Path(path).parent
    reason = None
    if not target.exists():
        reason = "No such file or directory"
    elif Path(path).is_dir():
        reason = "it names a folder"
    elif not os.access(target, os.W_OK):
        reason = "Permission denied"
    if reason is not None:
        raise InputError(f"{f'{what} {path}'.strip()}: cannot be written ({reason})")


def lock(file: IO[Any], wait: bool = False) -> None:
    """Lock an open file for this process, until :func:`unlock` or its end. If another process holds the lock, wait or
    raise BlockingIOError."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def unlock(file: IO[Any]) -> None:
    """Release the lock."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_UN)


def write_folder_atomically(path: str | os.PathLike[str], fill: Callable[[str], object]) -> None:
    """Make a new folder atomically: a reader sees no folder or the whole one.

    Args:
        fill: called with the name of a temporary folder, writes the files into it.

    Raises:
        InputError: the folder cannot be written, or exists and is not empty.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        try:
            temporary.mkdir()
            fill(str(temporary))
            os.rename(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None


def write_atomically(path: str | os.PathLike[str], content: str | Callable[[Any], object]) -> None:
    """Write a file atomically: a reader sees the old one or the whole new one.

    A symbolic link is kept and its target is written. An existing path that is no regular file (/dev/stdout, a pipe)
    is written in place.

    Args:
        content: the text, or a function that writes bytes into the open file passed to it.

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
                os.fsync(file.fileno())  # a full disk may show only now
            os.replace(temporary, target)
        finally:
            with suppress(FileNotFoundError):
                os.remove(temporary)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise InputError(f"{path}: cannot be written ({write_failure(error)})") from None
