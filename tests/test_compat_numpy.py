"""Repairs for numpy 2 (mos_fairseq.compat.numpy2)."""

from __future__ import annotations

import re
from pathlib import Path

import fairseq
import numpy as np
import pytest
import torch
from fairseq.data import LanguagePairDataset, TokenBlockDataset, data_utils
from fairseq.data.indexed_dataset import MMapIndexedDataset, MMapIndexedDatasetBuilder, index_file_path
from fairseq.modules.dynamic_crf_layer import DynamicCRF

from mos_fairseq import compat
from mos_fairseq.compat import numpy2
from tests.helpers import dictionary

# names that numpy 1.20 to 2.0 removed
GONE = "compat float int bool object str complex long unicode product in1d cumproduct alltrue sometrue string_ unicode_"
GONE += " float_ complex_ Inf Infinity NaN PINF NINF infty trapz row_stack asfarray find_common_type cast msort round_"


def test_numpy_itself_stays_as_it_is():
    assert not hasattr(np, "compat") or np.__version__.startswith("1.")
    assert data_utils.np.array is np.array and data_utils.np.random is np.random


def test_every_module_that_reads_a_name_that_is_gone_is_known():
    """The remaining uses: examples, and speech and video datasets that import no numpy as ``np`` or do not run here."""
    root, pattern = Path(fairseq.__file__).parent, re.compile(rf"\bnp\.({'|'.join(GONE.split())})\b(?!\w)")
    found = {}
    for file in root.rglob("*.py"):
        if "examples" not in file.parts and (names := set(pattern.findall(file.read_text("utf-8")))):
            found[".".join(("fairseq", *file.relative_to(root).with_suffix("").parts))] = names
    assert found == {name: set(names) for name, names in numpy2._OLD_NAMES.items()}


def test_second_apply_changes_nothing():
    before = data_utils.np, MMapIndexedDatasetBuilder.merge_file_
    compat.apply()
    assert before == (data_utils.np, MMapIndexedDatasetBuilder.merge_file_)


def test_what_reads_them_runs():
    words, sentences = dictionary(), [torch.tensor([4, 5, 2]), torch.tensor([6, 2])]
    pairs = LanguagePairDataset(sentences, [3, 2], words, sentences, [3, 2], words)
    assert pairs.num_tokens_vec(np.array([1, 0])).tolist() == [2, 3]
    blocks = TokenBlockDataset(sentences, [3, 2], None, pad=1, eos=2, break_mode="eos")
    assert [block.tolist() for block in blocks] == [[4, 5, 2], [6, 2]]
    mask = data_utils.compute_mask_indices((2, 20), None, 0.5, 3, "static")
    assert mask.shape == (2, 20) and 0 < mask.mean() < 1
    crf = DynamicCRF(num_embedding=9, low_rank=4, beam_size=3)
    assert torch.isfinite(crf(torch.randn(2, 5, 9), torch.randint(9, (2, 5)), torch.ones(2, 5, dtype=torch.bool))).all()


@pytest.mark.parametrize("size", [7, 2**29])
def test_parts_are_merged_beyond_2_gib(tmp_path, size):
    """fairseq-preprocess with several workers; the parts' sentences only claim to be of that size."""
    with MMapIndexedDataset.Index.writer(index_file_path(str(tmp_path / "part")), np.int32) as index:
        index.write([size] * 6)
    (tmp_path / "part.bin").touch()
    merged = MMapIndexedDatasetBuilder(str(tmp_path / "whole.bin"), dtype=np.int32)
    for _ in range(2):
        merged.merge_file_(str(tmp_path / "part"))
    merged.finalize(str(tmp_path / "whole.idx"))
    found = MMapIndexedDataset.Index(str(tmp_path / "whole.idx"))
    assert [found[i] for i in range(12)] == [(4 * size * i, size) for i in range(12)]
