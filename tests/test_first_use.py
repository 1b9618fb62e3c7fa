"""Commands import scikit-learn and SciPy's statistics when they use them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mos_fairseq
from mos_fairseq.compat import first_use

# As a command that has read its arguments: what fairseq binds, the scores that its criterion computes with it, and
# that later imports are the real ones
COMMAND = """
import sys
sys.argv = ["mos-cost"]
from mos_fairseq.cli import start
start()
assert not {"scipy", "sklearn"} & {name.partition(".")[0] for name in sys.modules}
from mos_fairseq.compat import first_use
kinds = (first_use.Function, first_use._Placeholder)
held = {module for module, content in list(sys.modules.items()) if module.startswith("fairseq.")
        for value in vars(content).values() if isinstance(value, kinds)}
assert held == {"fairseq.criterions.sentence_prediction", "fairseq.tasks.audio_classification"}, held
import numpy as np
from fairseq.criterions import sentence_prediction as criterion
from fairseq.tasks.audio_classification import sklearn_metrics as metrics
guesses, labels = np.array([1, 0, 1, 1, 0]), np.array([1, 0, 0, 1, 0])
found = criterion.acc_and_f1(guesses, labels), criterion.pearson_and_spearman(guesses, labels)
found = found, criterion.matthews_corrcoef(guesses, labels), metrics.roc_curve(labels, guesses)[0].tolist()
import scipy.stats
from sklearn import metrics as real
assert not isinstance(real, first_use._Placeholder) and not isinstance(scipy.stats, first_use._Placeholder)
assert abs(found[0][0]["f1"] - 0.8) < 1e-9 and found[0][0]["f1"] == real.f1_score(labels, guesses)
assert found[0][1]["spearmanr"] == scipy.stats.spearmanr(guesses, labels)[0]
assert found[1] == real.matthews_corrcoef(labels, guesses) and found[2] == real.roc_curve(labels, guesses)[0].tolist()
"""


@pytest.mark.slow
def test_a_command_computes_fairseqs_metrics():
    environment = os.environ | {"PYTHONPATH": str(Path(mos_fairseq.__file__).parents[1])}
    words = [sys.executable, "-W", "ignore", "-c", COMMAND]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]


def test_names_stand_for_the_functions(monkeypatch):
    """With modules of the standard library, of which one is imported already."""
    import wave as known

    for name in ("wsgiref", "wsgiref.util", "colorsys"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(first_use, "MODULES", ("colorsys", "wave", "wsgiref", "wsgiref.util"))
    names: dict = {}
    with first_use.on_first_use():
        exec("import wave; from colorsys import rgb_to_hsv; from wsgiref import util", names)
        with pytest.raises(ImportError, match="__nothing__"):
            exec("from colorsys import __nothing__", names)
    assert names["wave"] is known and not {"colorsys", "wsgiref", "wsgiref.util"} & sys.modules.keys()
    assert names["rgb_to_hsv"](0.5, 0.25, 0.25) == (0.0, 0.5, 0.5) and "colorsys" in sys.modules
    assert names["util"].guess_scheme({"HTTPS": "on"}) == "https"
    with pytest.raises(AttributeError, match="nothing"):
        names["util"].nothing()


def test_a_failing_import_leaves_nothing(monkeypatch):
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    monkeypatch.setattr(first_use, "MODULES", ("colorsys",))
    with pytest.raises(ImportError), first_use.on_first_use():
        import mos_fairseq.no_such_module  # noqa: F401
    assert "colorsys" not in sys.modules
