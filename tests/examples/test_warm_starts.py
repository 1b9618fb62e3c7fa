"""Comparisons of the example of warm starts."""

from pathlib import Path

import warm_starts

from mos_fairseq.search_space import SearchSpace

SPACE = Path(warm_starts.__file__).parent / "search_space.yaml"


def test_groups_of_subnets():
    space = SearchSpace.from_spec(str(SPACE))
    groups = warm_starts.subnets(space)
    largest, smallest = space.largest(), space.smallest()
    assert groups["largest"] == [largest] and groups["smallest"] == [smallest]
    (thin,), (shallow,) = groups["smallest FFNs"], groups["fewest decoder layers"]
    assert thin.encoder_ffn_embed_dim == thin.decoder_ffn_embed_dim == (256, 256, 256)
    assert thin.replace(encoder_ffn_embed_dim=(768,) * 3, decoder_ffn_embed_dim=(768,) * 3) == largest
    assert shallow.decoder_layers == 1 and shallow.decoder_ffn_embed_dim == (768,)
    assert shallow.encoder_ffn_embed_dim == largest.encoder_ffn_embed_dim
    drawn = groups["random:1 to 20"]
    assert len(set(drawn)) == 20
    for subnet in (thin, shallow, *drawn):
        space.check(subnet)


def test_hypotheses_by_sentence(tmp_path):
    log = tmp_path / "log"
    log.write_text("S-1\tein\nH-1\t-0.5\t▁a ▁b\nD-1\t-0.5\ta b\nH-0\t-1.25\t\nGenerate test: …\n", encoding="utf-8")
    assert warm_starts.hypotheses(log) == {"H-1": "▁a ▁b", "H-0": ""}
