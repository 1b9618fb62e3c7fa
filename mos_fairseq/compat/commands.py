"""Find the command that this process runs: fairseq's, ours, or none. Needs the standard library only."""

from __future__ import annotations

import builtins
import importlib.util
import os
import sys
from pathlib import Path

_OURS = Path(__file__).resolve().parents[1]
_TRAIN_PROCESS = "mos_fairseq.standalone.train_process"  # mos-gap starts it as its fairseq-train
_OPTIONS_WITH_VALUE = ("W", "X")  # interpreter options whose value may be the next word


def running_command() -> str | None:
    """Return the command's name (``fairseq-train``, ``mos-search``) if this process is one of fairseq's or ours.

    Every way to start it gives the same name: console script, ``python -m fairseq_cli.train`` (with or without
    torchrun), a script of a fairseq checkout, and processes that a command starts by ``multiprocessing``. The name is
    also known while the package is being imported. A program that imports the package is no command (None), nor are
    pytest, a notebook or an interactive session.
    """
    if hasattr(builtins, "__IPYTHON__") or hasattr(sys, "ps1"):
        return None
    program = sys.argv[0] if getattr(sys, "argv", None) else ""
    if program == "-m":  # python -m: Python is importing the module's package, before it finds the module
        return _of_module(_module_option(sys.orig_argv[1:]))
    return _of_script(program)


def _of_script(program: str) -> str | None:
    path = Path(program)
    name = path.name.removesuffix(".exe").removesuffix("-script.py")  # endings on Windows
    if name == "mos":  # this command lists the others
        return name
    for prefix, exists in (("fairseq-", _fairseq_has), ("mos-", _we_have)):
        if name.startswith(prefix) and exists(name.removeprefix(prefix).replace("-", "_")):
            return name
    if path.suffix != ".py":
        return None
    path = path.absolute()
    if path.parent.name == "fairseq_cli":
        return _of_module(f"fairseq_cli.{path.stem}")
    if path.resolve().is_relative_to(_OURS):
        return _of_module(".".join(("mos_fairseq", *path.resolve().relative_to(_OURS).with_suffix("").parts)))
    if path.with_name("fairseq_cli").joinpath(path.name).is_file():  # train.py of a fairseq checkout
        return _of_module(f"fairseq_cli.{path.stem}")
    return None


def _of_module(module: str) -> str | None:
    package, _, name = module.rpartition(".")
    if module == _TRAIN_PROCESS:
        return "fairseq-train"
    if package == "fairseq_cli" and _fairseq_has(name):
        return f"fairseq-{name.replace('_', '-')}"
    if package == "mos_fairseq.cli" and _we_have(name):
        return f"mos-{name.replace('_', '-')}"
    return None


def _fairseq_has(name: str) -> bool:
    spec = importlib.util.find_spec("fairseq_cli")
    folders = [] if spec is None else spec.submodule_search_locations or []
    return name.isidentifier() and any(os.path.isfile(os.path.join(folder, f"{name}.py")) for folder in folders)


def _we_have(name: str) -> bool:
    return name.isidentifier() and (_OURS / "cli" / f"{name}.py").is_file()


def _module_option(words: list[str]) -> str:
    """Return the module of ``-m`` among the interpreter's own arguments; empty if there is none."""
    remaining = iter(words)
    for word in remaining:
        if not word.startswith("-") or word in ("-", "--"):
            return ""
        if word.startswith("--"):
            next(remaining, "") if word == "--check-hash-based-pycs" else None
            continue
        for position, letter in enumerate(word[1:], start=2):  # one word may hold several: -Pm
            if letter in ("m", "c", *_OPTIONS_WITH_VALUE):
                value = word[position:] or next(remaining, "")
                if letter in "mc":
                    return value if letter == "m" else ""
                break
    return ""
