"""The gap's figures against their definitions."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from mos_fairseq.gap import gap_of

INHERITED = [25.1, 23.5, 24.0, 28.8, 22.9, 24.0, 20.3]
STANDALONE = [26.0, 22.9, 25.2, 29.9, 24.6, 23.8, 21.0]


def test_against_the_definitions():
    gap = gap_of(INHERITED, STANDALONE)
    mine, alone = np.array(INHERITED), np.array(STANDALONE)
    assert gap.subnets == 7
    assert gap.mae == pytest.approx(np.mean(np.abs(mine - alone)))
    assert gap.bias == pytest.approx(mine.mean() - alone.mean()) and gap.bias < 0
    assert gap.std == pytest.approx(np.sqrt(np.sum((mine - alone - gap.bias) ** 2) / 6))
    # tau-b: concordant minus discordant pairs over the geometric mean of the pairs untied on either side
    signs = [np.sign(mine[i] - mine[j]) * np.sign(alone[i] - alone[j]) for i, j in combinations(range(7), 2)]
    untied = [sum(a != b for a, b in combinations(side, 2)) for side in (INHERITED, STANDALONE)]
    assert untied == [20, 21]
    assert gap.kendall_tau == pytest.approx(sum(signs) / np.sqrt(np.prod(untied)))
    assert gap.spearman == pytest.approx(np.corrcoef(stats.rankdata(mine), stats.rankdata(alone))[0, 1])
    assert gap.kendall_tau != pytest.approx(gap.spearman)


@pytest.mark.parametrize(("inherited", "standalone"), [([20.0], [21.0]), ([20.0, 20.0], [21.0, 23.0])])
def test_no_rank_correlation(inherited, standalone):
    gap = gap_of(inherited, standalone)
    assert gap.kendall_tau is None and gap.spearman is None
    assert gap.mae == -gap.bias > 0 and (gap.std is None) == (len(inherited) == 1)
