"""One package, one name: check ``--user-dir``."""

from __future__ import annotations

import argparse
import functools
import os

from fairseq import utils

from ..errors import InputError


def explain_user_dir_clash() -> None:
    """Accept every path to this package as ``--user-dir``; for another copy, name both folders.

    ``fairseq.utils.import_user_module`` compares paths as text. So a link to the package in use counts as a second
    package, and its message does not say which folder was imported before.
    """
    original = utils.import_user_module
    if hasattr(original, "_mos_fairseq_original"):
        return
    here = os.path.realpath(os.path.dirname(os.path.dirname(__file__)))

    @functools.wraps(original)
    def import_user_module(args: argparse.Namespace) -> None:
        user_dir = getattr(args, "user_dir", None)
        if user_dir is not None and os.path.isdir(user_dir):
            there = os.path.realpath(user_dir)
            if there == here:
                return
            if os.path.basename(os.path.abspath(user_dir)) == "mos_fairseq":
                raise InputError(f"--user-dir {user_dir}: mos_fairseq is already imported from {here}; give that")
        original(args)

    import_user_module._mos_fairseq_original = original  # type: ignore[attr-defined]
    utils.import_user_module = import_user_module
