"""JSON Lines files that grow line by line and survive being killed at any moment."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mos_fairseq.errors import InputError
from mos_fairseq.files import lock, unlock


def read_jsonl(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the objects in a file, one a line. A last line without a newline is ignored if it is incomplete.

    Raises:
        InputError: the file cannot be read, or a line holds no JSON object; the message has the line's number.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    return list(_parse(_whole_lines(content), path))


def _whole_lines(content: bytes) -> bytes:
    """Return ``content`` without what a killed writer has left of a last line. A last line that lacks only the newline,
    as other programs write it, gets one."""
    end = content.rfind(b"\n") + 1
    if end == len(content):
        return content
    try:
        json.loads(content[end:])
    except (ValueError, RecursionError):
        return content[:end]
    return content + b"\n"


def _parse(content: bytes, path: str | os.PathLike[str], first: int = 1) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(content.splitlines(), start=first):
        try:
            row = json.loads(line, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            raise InputError(f"{path}: line {number} is not valid JSON") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}: line {number} holds no JSON object")
        yield row


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def _made(path: str, flags: int) -> int:
    """Open a file as :func:`open` does, and make it if there is none."""
    return os.open(path, flags | os.O_CREAT, 0o666)


class JsonlWriter:
    """Append objects to a file, each durable before the next. Opening cuts off an incomplete last line.

    Raises:
        InputError: the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        try:
            self._file = open(path, "r+b", opener=_made)  # "w+b" would empty another process's file before the lock
            lock(self._file)
            if not os.path.samestat(os.fstat(self._file.fileno()), os.stat(path)):
                raise BlockingIOError  # its writer has replaced the file
            content = self._file.read()
            whole = _whole_lines(content)
            self._file.write(whole[len(content) :])
            self._file.seek(len(whole))
            self._file.truncate()
        except BlockingIOError:
            raise InputError(f"{path}: another process is writing it") from None
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None

    def append(self, row: dict[str, Any]) -> None:
        """Write one line. NaN and infinity are refused, because JSON has neither."""
        try:
            self._file.write(_line(row))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error.strerror or error})") from None

    def rewrite(self, rows: Iterable[dict[str, Any]]) -> None:
        """Replace all lines atomically. The new file is locked from the start."""
        folder, name = os.path.split(os.path.realpath(self.path))
        temporary = os.path.join(folder, f".{name}.{os.getpid()}.tmp")
        try:
            file = open(temporary, "w+b")
            try:
                lock(file)
                file.writelines(_line(row) for row in rows)
                file.flush()
                os.fsync(file.fileno())
                os.replace(temporary, os.path.join(folder, name))
            except BaseException:
                file.close()
                os.remove(temporary)
                raise
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error.strerror or error})") from None
        self._file.close()
        self._file = file

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> JsonlWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class SharedJsonl:
    """A file that several processes append to; each locks it only to read and write a line.

    Raises:
        InputError: the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        self._end = self._lines = 0  # position up to which this process has read or written
        try:
            self._file = open(path, "a+b")
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None

    def read(self) -> list[dict[str, Any]]:
        """Return the rows added since the last call of any method; the first call returns all rows."""
        with self._locked():
            return self._new_rows()

    def append(self, row: dict[str, Any], key: str) -> list[dict[str, Any]]:
        """Write one line, unless another process has written a line with the same ``row[key]``.

        Returns:
            the rows that other processes have added since.
        """
        with self._locked():
            others = self._new_rows()
            if all(other.get(key) != row[key] for other in others):
                line = _line(row)
                self._file.truncate(self._end)  # drop a partial line: its writer was killed, and holds no lock
                self._file.write(line)
                self._file.flush()
                os.fsync(self._file.fileno())
                self._end, self._lines = self._end + len(line), self._lines + 1
            return others

    def _new_rows(self) -> list[dict[str, Any]]:
        self._file.seek(self._end)
        found = self._file.read()
        content = _whole_lines(found)
        if len(content) > len(found):
            self._file.write(content[len(found) :])
            self._file.flush()
        rows = list(_parse(content, self.path, self._lines + 1))
        self._end, self._lines = self._end + len(content), self._lines + len(rows)
        return rows

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            lock(self._file, wait=True)
            try:
                yield
            finally:
                unlock(self._file)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error.strerror or error})") from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()
