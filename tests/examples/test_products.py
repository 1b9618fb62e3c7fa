"""The comparisons of oneDNN's and MKL's products, and of attention with dropout."""

import attention
import products
import pytest
import torch

from mos_fairseq.modules import onednn


@pytest.mark.skipif(not onednn.has_onednn(), reason="torch without oneDNN")
def test_a_ratio_for_each_shape_and_number_of_rows(monkeypatch, capsys):
    seen = set()

    def linear(x, weight, bias):
        seen.add((len(x), x.size(1), len(bias)))
        return torch.zeros(len(x), len(bias))

    monkeypatch.setattr(products, "SHAPES", ((7, 5), (3, 11)))
    monkeypatch.setattr(products, "BYTES", 500)
    monkeypatch.setattr(products.onednn, "multiply", linear)
    products.main()
    titles, line, *rows = capsys.readouterr().out.splitlines()[1:]
    assert titles == "| rows | 7x5 | 3x11 |" and line.count("---") == 3
    assert [row.split(" | ")[0] for row in rows] == [f"| {number}" for number in products.ROWS]
    assert all(float(ratio) > 0 for row in rows for ratio in row.strip("|").split("|")[1:])
    assert seen == {(number, i, o) for number in products.ROWS for o, i in products.SHAPES}


def test_attention_is_timed_both_ways(monkeypatch, capsys):
    seen = []
    forward = attention.MultiheadAttention.forward

    def watched(self, *args, **kwargs):
        seen.append(attention.kernels.policy().name)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(attention, "SHAPES", ((2, 3, 5, 4),))
    monkeypatch.setattr(attention, "ROUNDS", 1)
    monkeypatch.setattr(attention.MultiheadAttention, "forward", watched)
    attention.main()
    head, titles, _, row = capsys.readouterr().out.splitlines()
    assert titles.count("|") == row.count("|") == 4 and row.startswith("| 2, 3, 5, 4 | ")
    assert head.endswith(f"kernels {attention.kernels.policy().name}")
    assert set(seen) == {attention.kernels.policy().name, "torch"} and len(seen) == 2 * 2 * 3
