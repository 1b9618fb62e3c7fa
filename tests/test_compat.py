"""Every repair in mos_fairseq.compat: it works, is safe, and does nothing twice or where it is not needed."""

import argparse
import collections
import io
import os
import pickle
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq import checkpoint_utils, utils
from fairseq.data.dictionary import Dictionary
from fairseq.logging import meters
from omegaconf import OmegaConf

from mos_fairseq import compat
from mos_fairseq.compat import checkpoints, error_hook, repairs
from mos_fairseq.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
FULL = {checkpoints.FULL_UNPICKLING: "1"}


class Payload:
    """Pickles to a call of ``function(*args)``, which a full unpickling makes."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.fixture(autouse=True)
def repaired():
    compat.apply()


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "checkpoint_best.pt")


def stock_checkpoint(**extra):
    """Build the data that fairseq's trainer saves, in today's form and with the types of older forms."""
    average = meters.AverageMeter()
    average.update(np.float64(2.5), 4)
    return {
        "args": None,
        "cfg": {"model": argparse.Namespace(arch="transformer"), "task": {"_name": "translation"}},
        "model": {"weight": torch.arange(4.0)},
        "criterion": None,
        "optimizer_history": [
            {
                "criterion_name": "LabelSmoothedCrossEntropyCriterion",
                "optimizer_name": "FairseqAdam",
                "lr_scheduler_state": {"best": np.float64(3.25)},
                "num_updates": 12,
            }
        ],
        "task_state": {"dictionary": Dictionary()},
        "extra_state": {
            "metrics": collections.OrderedDict(default=[(0, "loss", "AverageMeter", average.state_dict())]),
            "train_meters": collections.OrderedDict(loss=average),
            "train_iterator": {"epoch": 1},
            "best": np.float32(0.5),
            "kept": np.arange(6, dtype=np.int64).reshape(2, 3),
            "swapped": np.array([1.5, 2.5], dtype=">f8"),
            "config": OmegaConf.create({"lr": [0.1, 0.2], "name": "x", "flag": True, "nothing": None}),
        },
        "last_optimizer_state": {"state": {}, "param_groups": []},
        **extra,
    }


@pytest.fixture
def run_python(commands):
    """``run_python(code, *args)``, in a process that has not imported the package; ``script``: as that file."""

    def run_python(code, *args, script=None, **env):
        if script is not None:
            script.write_text(code)
        return commands.python(*(["-c", code] if script is None else [script]), *args, **env)

    return run_python


def own_lines(done):
    """Drop logs from the import of fairseq and the package."""
    return [line for line in done.err.splitlines() if not line.startswith(("INFO:fairseq", "DEBUG:mos_fairseq"))]


READ = """
import sys
from fairseq import checkpoint_utils
from mos_fairseq import compat
compat.apply()
print('read', sorted(checkpoint_utils.load_checkpoint_to_cpu(sys.argv[1])['extra_state']))
"""


# --- reading checkpoints ---


@pytest.mark.parametrize("zip_format", [True, False])
def test_reads_what_fairseq_saves(path, zip_format):
    torch.save(stock_checkpoint(), path, _use_new_zipfile_serialization=zip_format)
    state = checkpoint_utils.load_checkpoint_to_cpu(path)
    extra = state["extra_state"]
    assert state["cfg"].model.arch == "transformer"
    assert torch.equal(state["model"]["weight"], torch.arange(4.0))
    assert state["optimizer_history"][-1]["lr_scheduler_state"]["best"] == 3.25
    assert isinstance(extra["best"], np.float32) and extra["best"] == 0.5
    assert np.array_equal(extra["kept"], [[0, 1, 2], [3, 4, 5]]) and extra["kept"].dtype == np.int64
    assert np.array_equal(extra["swapped"], [1.5, 2.5])
    assert extra["config"] == {"lr": [0.1, 0.2], "name": "x", "flag": True, "nothing": None}
    assert extra["train_meters"]["loss"].avg == 2.5
    assert state["task_state"]["dictionary"].index("<pad>") == Dictionary().pad()


def test_what_was_read_is_written_readably(path):
    """A resumed run saves the meters that it read; also results of computing with them."""
    torch.save({"counts": np.arange(3.0)}, path)
    counts = checkpoint_utils.torch.load(path)["counts"]
    torch.save({"counts": counts, "sum": counts + 1}, path)
    again = torch.load(path)
    assert again["counts"].tolist() == [0, 1, 2] and again["sum"].tolist() == [1, 2, 3]


def test_reads_names_of_either_numpy_and_of_old_fairseq(path):
    torch.save(stock_checkpoint(), path, _use_new_zipfile_serialization=False)
    data = Path(path).read_bytes()
    ours, other = (b"numpy._core.multiarray", b"numpy.core.multiarray")
    if ours not in data:
        ours, other = other, ours
    assert ours in data
    data = data.replace(b"c" + ours, b"c" + other).replace(b"cfairseq.logging.meters", b"cfairseq.meters")
    Path(path).write_bytes(data)
    state = checkpoint_utils.load_checkpoint_to_cpu(path)
    assert state["extra_state"]["best"] == 0.5
    assert state["extra_state"]["train_meters"]["loss"].avg == 2.5


@pytest.mark.slow
def test_reads_old_checkpoint_with_args(path):
    torch.save(stock_checkpoint(args=argparse.Namespace(arch="transformer", lr=[0.1]), cfg=None), path)
    state = checkpoint_utils.load_checkpoint_to_cpu(path, {"lr": [0.5]})
    assert state["args"].arch == "transformer" and state["args"].lr == [0.5]


def test_reads_ema_weights(path):
    torch.save({"extra_state": {"ema": {"w": torch.ones(2)}}, "args": argparse.Namespace(a=1)}, path)
    assert torch.equal(checkpoint_utils.load_ema_from_checkpoint(path)["model"]["w"], torch.ones(2))


def touch(marker):
    return f"open({str(marker)!r}, 'w')"


@pytest.mark.parametrize("zip_format", [True, False])
@pytest.mark.parametrize("place", ["top", "namespace", "config", "numpy"])
@pytest.mark.parametrize("name", ["posix.system", "builtins.eval", "builtins.getattr", ".Popen"])
def test_payload_does_not_run(tmp_path, path, name, place, zip_format):
    marker = tmp_path / "ran"
    payload = {
        "posix.system": Payload(os.system, f"touch {marker}"),
        "builtins.eval": Payload(eval, touch(marker)),
        "builtins.getattr": Payload(getattr, Payload(eval, touch(marker)), "close"),
        ".Popen": Payload(subprocess.Popen, ["touch", str(marker)]),
    }[name]
    holder = {
        "top": payload,
        "namespace": argparse.Namespace(inner=argparse.Namespace(value=[payload])),
        "config": OmegaConf.create({"a": payload}, flags={"allow_objects": True}),
        "numpy": np.array([payload], dtype=object),
    }[place]
    torch.save(stock_checkpoint(holder=holder), path, _use_new_zipfile_serialization=zip_format)
    with pytest.raises(InputError) as caught:
        checkpoint_utils.load_checkpoint_to_cpu(path)
    message = str(caught.value)
    assert "\n" not in message and path in message and checkpoints.FULL_UNPICKLING in message
    assert (checkpoints._NOT_NUMBERS if place == "numpy" else name) in message
    assert not marker.exists()


def test_payload_would_run_without_the_safe_reader(tmp_path, path):
    marker = tmp_path / "ran"
    torch.save(stock_checkpoint(holder=Payload(os.system, f"touch {marker}")), path)
    torch.load(path, weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize("code", ["O", "O8", "V8", "f8,O", "M8[s]"])
def test_numpy_dtypes_other_than_numbers_are_refused(code):
    with pytest.raises(pickle.UnpicklingError, match=checkpoints._NOT_NUMBERS):
        checkpoints._PickledDtype(code)


def test_numpy_dtype_with_fields_or_of_a_real_object_is_refused():
    stand_in = checkpoints._PickledDtype("f8", False, True)
    with pytest.raises(pickle.UnpicklingError, match=checkpoints._NOT_NUMBERS):
        stand_in.__setstate__((3, "<", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0))
    with pytest.raises(pickle.UnpicklingError, match=checkpoints._NOT_NUMBERS):
        checkpoints._rebuild_scalar(np.dtype("O"), b"\0" * 8)


def test_allow_list_holds_nothing_that_acts():
    """Callables that look up, import, evaluate, open or call: none may enter, not even by a second name."""
    listed = checkpoints._stock_checkpoint_globals()
    entries = [entry if isinstance(entry, tuple) else (entry, "") for entry in listed]
    ours = {checkpoints._rebuild_scalar, checkpoints._rebuild_array}
    for value, name in entries:
        assert value in ours or isinstance(value, type) or name.startswith("typing."), value
        assert value is not type and value is not object
        module = getattr(value, "__module__", "")
        assert module.split(".")[0] in {
            "argparse",
            "builtins",
            "collections",
            "fairseq",
            "mos_fairseq",
            "omegaconf",
            "typing",
        }, value


def test_opting_out_reads_other_types(run_python, path, tmp_path):
    torch.save(stock_checkpoint(extra_state={"colour": collections.deque([1])}), path)
    refused = run_python(READ, path, script=tmp_path / "fairseq-train")
    assert refused.status == 1 and "collections.deque" in refused.err
    assert len(own_lines(refused)) == 1 and own_lines(refused)[0].startswith("error: ")
    allowed = run_python(READ, path, **FULL)
    assert allowed.status == 0, allowed.err
    assert "read ['colour'" in allowed.out


@pytest.mark.parametrize("zip_format", [True, False])
@pytest.mark.parametrize("part", [0.0, 0.02, 0.5, 0.95])
def test_truncated_file(path, part, zip_format):
    torch.save(stock_checkpoint(), path, _use_new_zipfile_serialization=zip_format)
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: int(len(data) * part)])
    with pytest.raises(InputError) as caught:
        checkpoint_utils.load_checkpoint_to_cpu(path)
    message = str(caught.value)
    assert isinstance(caught.value, pickle.UnpicklingError) and isinstance(caught.value, RuntimeError)  # as torch's own
    assert path in message and "\n" not in message and checkpoints.FULL_UNPICKLING not in message
    assert ("empty" if part == 0 else "truncated") in message


@pytest.mark.parametrize("content", [b"copyright\nnobody\n", b"\x80\x02garbage", b"\x80\x04\x95", bytes(64)])
def test_not_a_checkpoint(path, content):
    Path(path).write_bytes(content)
    with pytest.raises(InputError, match="not a checkpoint") as caught:
        checkpoint_utils.load_checkpoint_to_cpu(path)
    assert "\n" not in str(caught.value)


def test_tar_format_needs_full_unpickling(path):
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle", "sys_info"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(InputError, match=checkpoints.FULL_UNPICKLING) as caught:
        checkpoint_utils.load_checkpoint_to_cpu(path)
    assert "\n" not in str(caught.value)


def test_a_missing_checkpoint_is_still_an_oserror(tmp_path):
    with pytest.raises(OSError, match="missing.pt: no such file") as caught:
        checkpoint_utils.load_model_ensemble_and_task([str(tmp_path / "missing.pt")])
    assert isinstance(caught.value, InputError)


def test_other_errors_pass_unchanged(path, tmp_path):
    with pytest.raises(FileNotFoundError):
        checkpoint_utils.load_checkpoint_to_cpu(str(tmp_path / "missing.pt"))
    torch.save({"weight": torch.ones(1)}, path)  # readable, but fairseq misses its keys
    with pytest.raises(KeyError):
        checkpoint_utils.load_checkpoint_to_cpu(path)


# --- one package, one name ---


def test_own_folder_is_accepted_by_any_path(tmp_path, monkeypatch):
    link = tmp_path / "mos_fairseq"
    link.symlink_to(ROOT / "mos_fairseq")
    monkeypatch.chdir(ROOT)
    for user_dir in ("mos_fairseq", "mos_fairseq/", str(ROOT / "mos_fairseq"), str(link), None):
        utils.import_user_module(argparse.Namespace(user_dir=user_dir))


def test_second_copy_is_refused_in_one_line(tmp_path):
    (tmp_path / "mos_fairseq").mkdir()
    (tmp_path / "mos_fairseq" / "__init__.py").touch()
    with pytest.raises(InputError) as caught:
        utils.import_user_module(argparse.Namespace(user_dir=str(tmp_path / "mos_fairseq")))
    assert str(ROOT / "mos_fairseq") in str(caught.value) and str(tmp_path) in str(caught.value)


def test_other_user_dirs_still_work(tmp_path):
    package = tmp_path / "someone_elses_plugin"
    package.mkdir()
    (package / "__init__.py").write_text("loaded = True\n")
    try:
        utils.import_user_module(argparse.Namespace(user_dir=str(package)))
        assert sys.modules["someone_elses_plugin"].loaded
    finally:
        sys.path.remove(str(tmp_path))
        del sys.modules["someone_elses_plugin"]


def test_renamed_folder_is_refused(monkeypatch):
    monkeypatch.setattr(compat, "__name__", "mos_copy.compat")
    with pytest.raises(InputError, match="mos_copy"):
        compat.require_package_name()


# --- users' mistakes ---

MISTAKE = """
from mos_fairseq import compat
from mos_fairseq.errors import InputError
compat.apply()
compat.apply()
try:
    try:
        raise InputError("--subnet x.yaml: no such file")
    except InputError:
        {how}
finally:
    pass
"""


@pytest.mark.parametrize(
    "how", ["raise", "raise Exception('Cannot load')", "raise Exception('Cannot load') from ValueError()"]
)
def test_mistake_is_one_line(run_python, how, tmp_path):
    done = run_python(MISTAKE.format(how=how), script=tmp_path / "fairseq-train")
    assert done.status == 1
    if "from" in how:  # another cause was named on purpose: the mistake was not the reason
        assert "Traceback" in done.err
    else:
        assert own_lines(done) == ["error: --subnet x.yaml: no such file"]


LOST = "error: another process of this command has ended ("


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1.", True),
        ("[…/gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:3: Connection reset by peer. GLHF!", True),
        ("NCCL error in: …, remote process exited or there was a network error", True),
        ("[enforce fail] data. DefaultCPUAllocator: can't allocate memory: closed by peer", False),
    ],
)
def test_a_lost_process_is_one_line(run_python, tmp_path, said, told):
    """As torch's backends say it: gloo (both were seen), and NCCL (by its source)."""
    code = f"from mos_fairseq import compat\ncompat.apply()\nraise RuntimeError({said!r})"
    done = run_python(code, script=tmp_path / "fairseq-train")
    assert done.status == 1 and ("Traceback" in done.err) is not told
    if told:
        (line,) = own_lines(done)
        assert re.match(re.escape(LOST) + ".*; the same command goes on", line)


SPAWNING = """
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException
from mos_fairseq import compat
compat.apply()
"""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        ("ProcessExitedException('process 1 terminated with signal SIGKILL', 1, 9, -9)", LOST + "process 1 terminated"),
        ("ProcessRaisedException(TEXT + 'mos_fairseq.errors.InputError: data is x: no', 1, 9)", "error: data is x: no"),
        (
            "ProcessRaisedException(TEXT + 'mos_fairseq.compat.checkpoints.UnreadableCheckpointError: no', 1, 9)",
            "error: no",
        ),
        ("ProcessRaisedException(TEXT + 'RuntimeError: [gloo] Broken pipe', 1, 9)", LOST + "broken pipe)"),
        ("ProcessRaisedException(TEXT + 'KeyError: 3', 1, 9)", None),
    ],
)
def test_a_spawned_process_that_ended_is_one_line(run_python, tmp_path, error, line):
    """As fairseq starts several GPUs."""
    text = "\n\n-- Process 1 terminated with the following error:\nTraceback (most recent call last):\n  File …\n"
    done = run_python(f"{SPAWNING}TEXT = {text!r}\nraise {error}\n", script=tmp_path / "fairseq-train")
    assert done.status == 1
    found = own_lines(done)
    assert ("KeyError: 3" in done.err) if line is None else (len(found) == 1 and found[0].startswith(line))


def test_traceback_on_request(run_python, tmp_path):
    env = {error_hook.SHOW_TRACEBACK: "1"}
    done = run_python(MISTAKE.format(how="raise"), script=tmp_path / "fairseq-train", **env)
    assert done.status == 1 and "Traceback" in done.err and "no such file" in done.err


def test_other_errors_reach_the_previous_hook(run_python, tmp_path):
    code = "import sys\nsys.excepthook = lambda *a: print('mine', a[1])\n"
    code += "from mos_fairseq import compat\ncompat.apply()\nraise KeyError('k')"
    done = run_python(code, script=tmp_path / "mos-cost")
    assert done.status == 1 and "mine 'k'" in done.out and "error:" not in done.err


def test_a_program_keeps_its_hook(run_python, tmp_path):
    """In a process that is no command of fairseq or ours, a program sees the traceback of its own mistake."""
    done = run_python(MISTAKE.format(how="raise") + "\n", script=tmp_path / "program.py")
    assert done.status == 1 and "Traceback" in done.err and "no such file" in done.err
    done = run_python("import sys, mos_fairseq\nprint(sys.excepthook is sys.__excepthook__)")
    assert done.out == "True\n" and not own_lines(done)


# --- all of them ---

SWITCHED = """
import argparse, logging, sys
logging.basicConfig(level="DEBUG", format="%(message)s")
import fairseq.utils, mos_fairseq, torch
from fairseq import checkpoint_utils
from fairseq.data import data_utils
from fairseq.optim.amp_optimizer import AMPOptimizer
import mos_fairseq.models
changed = [checkpoint_utils.load_checkpoint_to_cpu, checkpoint_utils.torch_persistent_save, AMPOptimizer.step]
print([hasattr(function, "_mos_fairseq_original") for function in changed], hasattr(data_utils.np, "int"))
readable = argparse.Namespace in torch.serialization.get_safe_globals()
print(readable, hasattr(fairseq.utils, "eval"), sys.excepthook.__name__)
"""


@pytest.mark.parametrize("value", ["off", "on"])
def test_the_switch_leaves_fairseq_alone(run_python, value, tmp_path):
    environment = {compat.SWITCH: value, "LOGLEVEL": "DEBUG"}  # commands leave lines of that level out otherwise
    done = run_python(SWITCHED, script=tmp_path / "fairseq-train", **environment)
    assert done.status == 0, done.err
    told = [line for line in done.err.splitlines() if "fairseq" in line and line.startswith(("repairs", "MOS_"))]
    if value == "off":
        assert done.out == f"{[False] * 3} False\nFalse False excepthook\n"
        assert told == ["MOS_FAIRSEQ_COMPAT=off: fairseq is as it is"]
    else:
        assert done.out == f"{[True] * 3} True\nTrue True report\n"
        assert told == [f"repairs of fairseq: {', '.join(repair.__name__ for repair in repairs.ALL)}"]


def test_the_switch_knows_on_and_off(run_python, tmp_path):
    done = run_python("import mos_fairseq", **{compat.SWITCH: "0"})
    assert done.status == 1 and "MOS_FAIRSEQ_COMPAT is 0 in the environment: allowed are on and off" in done.err


def test_a_mistake_in_another_switch_is_one_line(run_python, tmp_path):
    done = run_python("import mos_fairseq.modules", script=tmp_path / "fairseq-train", MOS_FAIRSEQ_KERNELS="mkl")
    message = "MOS_FAIRSEQ_KERNELS is mkl in the environment: allowed are auto and torch"
    assert done.status == 1 and [line for line in own_lines(done) if message in line] == own_lines(done)


def test_second_apply_changes_nothing():
    def everything():
        readers = (checkpoint_utils.load_checkpoint_to_cpu, checkpoint_utils.load_ema_from_checkpoint)
        safe = set(map(str, torch.serialization.get_safe_globals()))
        return (sys.excepthook, utils.import_user_module, *readers, safe)

    before = everything()
    compat.apply()
    assert everything() == before


def test_types_that_torch_knows_already_are_not_added_again(monkeypatch):
    added = []
    monkeypatch.setattr(torch.serialization, "add_safe_globals", added.extend)
    checkpoints.allow_checkpoint_globals()
    assert added == []


def test_a_fairseq_without_the_ema_reader_is_fine(monkeypatch):
    monkeypatch.delattr(checkpoint_utils, "load_ema_from_checkpoint")
    checkpoints.explain_unreadable_checkpoints()
    assert not hasattr(checkpoint_utils, "load_ema_from_checkpoint")
