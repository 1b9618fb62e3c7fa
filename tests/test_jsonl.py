"""JSON Lines files survive kills, partial lines and concurrent writers."""

import os

import pytest

from mos_fairseq.errors import InputError
from mos_fairseq.jsonl import JsonlWriter, SharedJsonl, read_jsonl


def test_lines_are_appended_and_a_half_written_one_is_cut(tmp_path):
    path = tmp_path / "rows.jsonl"
    with JsonlWriter(path) as writer:
        writer.append({"a": 1})
        writer.append({"b": [2.5, None]})
    with open(path, "ab") as file:
        file.write(b'{"c": 3')  # killed here
    assert read_jsonl(path) == [{"a": 1}, {"b": [2.5, None]}]
    with JsonlWriter(path) as writer:
        writer.append({"d": "ä"})
        assert read_jsonl(path) == [{"a": 1}, {"b": [2.5, None]}, {"d": "ä"}]  # on disk before the next
    assert path.read_bytes().count(b"\n") == 3


def test_a_last_line_that_lacks_only_its_newline_counts(tmp_path):
    """As other programs write it."""
    path, shared = tmp_path / "rows.jsonl", tmp_path / "shared.jsonl"
    for file in (path, shared):
        file.write_bytes(b'{"a": 1}\n{"a": 2}')
    assert read_jsonl(path) == [{"a": 1}, {"a": 2}]
    with JsonlWriter(path) as writer:
        writer.append({"a": 3})
    one = SharedJsonl(shared)
    assert one.append({"a": 3}, "a") == [{"a": 1}, {"a": 2}]
    one.close()
    for file in (path, shared):
        assert read_jsonl(file) == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_only_one_process_writes(tmp_path, monkeypatch):
    with JsonlWriter(tmp_path / "rows.jsonl") as writer:
        writer.append({"a": 1})
        with pytest.raises(InputError, match="another process is writing it"):
            JsonlWriter(tmp_path / "rows.jsonl")
        # as if this process had looked before the other made the file
        with monkeypatch.context() as patch, pytest.raises(InputError, match="another process is writing it"):
            patch.setattr(os.path, "exists", lambda path: False)
            JsonlWriter(tmp_path / "rows.jsonl")
    assert read_jsonl(tmp_path / "rows.jsonl") == [{"a": 1}]
    JsonlWriter(tmp_path / "rows.jsonl").close()


@pytest.mark.parametrize("line", [b"{", b"[1]", b'{"a": NaN}', b"\xff\xfe", b"", b"[" * 100_000])
def test_damaged_lines_are_named(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b"\n")
    with pytest.raises(InputError, match="line 2"):
        read_jsonl(path)


def test_what_cannot_be_read_or_written(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_jsonl(tmp_path / "absent")
    with pytest.raises(InputError, match="cannot be written"):
        JsonlWriter(tmp_path / "no" / "folder.jsonl")
    with JsonlWriter(tmp_path / "rows.jsonl") as writer, pytest.raises(ValueError, match="not JSON compliant"):
        writer.append({"a": float("nan")})
    assert read_jsonl(tmp_path / "rows.jsonl") == []


def test_several_write_one_file_and_nothing_is_lost_or_written_twice(tmp_path):
    path = tmp_path / "rows.jsonl"
    one, other = SharedJsonl(path), SharedJsonl(path)
    assert one.append({"key": "a", "n": 1}, "key") == []
    assert other.append({"key": "b", "n": 2}, "key") == [{"key": "a", "n": 1}]
    with open(path, "ab") as file:
        file.write(b'{"key": "c')  # a third one was killed here
    assert one.append({"key": "b", "n": 9}, "key") == [{"key": "b", "n": 2}]
    assert one.append({"key": "d", "n": 4}, "key") == []
    assert other.read() == [{"key": "d", "n": 4}] and other.read() == []
    assert read_jsonl(path) == [{"key": "a", "n": 1}, {"key": "b", "n": 2}, {"key": "d", "n": 4}]
    path.write_bytes(path.read_bytes() + b"[1]\n")
    with pytest.raises(InputError, match="line 4 holds no JSON object"):
        other.read()
    one.close()
    other.close()
