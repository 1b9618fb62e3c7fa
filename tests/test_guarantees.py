"""Silent corruption is impossible: such states raise errors, also without asserts (``python -O``)."""

import pytest

pytestmark = pytest.mark.slow

# each of these would give a wrong result if nothing stopped it
CODE = """
from types import SimpleNamespace
import torch
from mos_fairseq.benchmark import timing
from mos_fairseq.criterions import DistillationMosCriterion
from mos_fairseq.criterions.hidden_states import pair_layers
from mos_fairseq.gap.statistics import gap_of
from mos_fairseq.tasks import TranslationMosConfig, TranslationMosTask
from tests.helpers import batch, dictionary, sample_of, small_space, supernet


def told(function):
    try:
        function()
    except (RuntimeError, TypeError, ValueError) as error:
        print(" ".join(str(error).split()))
    else:
        print("nothing")


words, space = dictionary(), small_space()
options = {"subnet_sampling": "sandwich", "seed": 1, "log_interval": 100, "best_checkpoint_metric": "loss"}
cfg = TranslationMosConfig(search_space=space.dumps(), **options)
task = TranslationMosTask(cfg, words, words)
criterion = DistillationMosCriterion(task, sentence_avg=False, label_smoothing=0.1)
model, sample = supernet(), sample_of(*batch())
told(lambda: model.encoder.layers[0].fc1.set_active_size(20, 34))
told(lambda: model.encoder.layers[0].self_attn(torch.ones(1, 2, 20), mask=torch.ones(1, 1, 2, 2), is_causal=True))
model.encoder.layers[0].add_module("gate", torch.nn.Linear(2, 2))
told(model.get_active_subnet)
task.training_subnets = lambda update: [("smallest", space.smallest()), ("largest", space.largest())]
told(lambda: task.train_step(sample, model, criterion, None, 6))
criterion.teach(1, 0)
told(lambda: criterion(model.train(), sample, reduce=False))
timing.time = SimpleNamespace(perf_counter=lambda: 1.0, sleep=lambda seconds: None)
told(lambda: timing.in_turn({"stock": lambda: None}, 1))
told(lambda: gap_of([1.0], [1.0, 2.0]))
told(lambda: pair_layers(4, 3, "last"))
print(__debug__)
"""

TOLD = [
    "out_features is 34: allowed are 1 to 33",
    "is_causal is True and a mask is given: combine the causal mask with the other",
    "layers.0.gate of the supernet, a Linear, has no counterpart in the static twin",
    "update 7: the largest subnet teaches, but the first is smallest: enc 1x12",
    "reduce is False: while subnets are taught, losses are summed over tokens",
    "stock took 0.0 s on average: the clock is too coarse",
    "1 inherited and 2 standalone scores: allowed are pairs",
    "num_students is 4: allowed are 1 to 3, the teacher's layers",
]


# all that is imported from here on is compiled as ``python -O`` does: torch and fairseq are there already
OPTIMISED = """
import sys
from importlib.machinery import SourceFileLoader


def get_code(self, name):
    path = self.get_filename(name)
    return compile(self.get_data(path), path, "exec", dont_inherit=True, optimize=1)


assert "mos_fairseq" not in sys.modules and "tests.helpers" not in sys.modules
SourceFileLoader.get_code = get_code
exec(compile({code!r}, "guarantees", "exec", optimize=1), {{"__name__": "__main__"}})
"""


def test_with_optimised_python(commands):
    done = commands.python("-c", OPTIMISED.format(code=CODE), check=True)
    *found, debug = done.out.splitlines()
    assert debug == "False" and len(found) == len(TOLD)
    assert [line[: len(told)] for line, told in zip(found, TOLD, strict=True)] == TOLD
