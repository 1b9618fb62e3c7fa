"""Files are written atomically; links and devices are kept."""

import os
import threading

import pytest

from mos_fairseq.cli import check_output
from mos_fairseq.errors import InputError
from mos_fairseq.files import write_atomically


def test_a_link_stays_and_its_target_is_written(tmp_path):
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "data.json", tmp_path / "link.json"
    target.write_text("old")
    link.symlink_to(target)
    write_atomically(link, "new")
    assert link.is_symlink() and target.read_text() == "new" and os.listdir(tmp_path / "real") == ["data.json"]
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "real" / "later")
    write_atomically(dangling, lambda file: file.write(b"made"))
    assert dangling.is_symlink() and (tmp_path / "real" / "later").read_bytes() == b"made"


def test_a_pipe_is_written_into(tmp_path):
    """As /dev/null and /dev/stdout are, which a rename would replace."""
    pipe, found = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    write_atomically(pipe, "text")
    reader.join(10)
    assert found == [b"text"] and pipe.is_fifo() and os.listdir(tmp_path) == ["pipe"]


def test_folders_are_refused(tmp_path):
    for path in (tmp_path, f"{tmp_path}/", tmp_path / "absent" / "file"):
        with pytest.raises(InputError, match="cannot be written"):
            write_atomically(path, "text")


def test_what_is_read_is_not_written(tmp_path):
    """Also by another name; a file that is not there yet is fine."""
    source, link = tmp_path / "a.pt", tmp_path / "b.pt"
    check_output(str(source), path=str(source))
    source.write_text("x")
    link.symlink_to(source)
    check_output(str(tmp_path / "c.pt"), path=str(source), tokenizer=None)
    for output in (source, link):
        with pytest.raises(InputError, match=f"output is {output}: it is path, too, which would be lost"):
            check_output(str(output), tokenizer=None, path=str(source))
