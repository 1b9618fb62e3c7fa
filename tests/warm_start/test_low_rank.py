"""A trained supernet of plain weight sharing that gets experts of low rank computes what it did, in every subnet."""

from pathlib import Path

import pytest
import torch

from mos_fairseq.checkpoints import build_supernet, read_supernet, save_checkpoint
from mos_fairseq.cli import warm_start
from mos_fairseq.errors import InputError
from mos_fairseq.models import TransformerMosConfig, TransformerMosModel, placeholder_dictionary
from mos_fairseq.modules import LowRankExperts
from mos_fairseq.search_space import SearchSpace
from mos_fairseq.warm_start import Orders, low_rank_supernet, supernet_checkpoint, supernet_from
from tests.helpers import perturb
from tests.seeds import moved
from tests.warm_start.test_warm_start import HEAD_DIM, config, stock

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A checkpoint of a supernet without experts, as training would have saved it."""
    state = read_supernet(GOLDEN / "supernet.pt")
    words = [
        placeholder_dictionary(len(state["model"][f"{side}.embed_tokens.weight"])) for side in ("encoder", "decoder")
    ]
    space = SearchSpace.from_spec(str(GOLDEN / "space.yaml"))
    cfg = TransformerMosConfig(
        search_space=space.dumps(), mos_routing="none", max_source_positions=64, max_target_positions=64
    )
    torch.manual_seed(moved(1))
    model = TransformerMosModel.from_search_space(cfg, space, *words)
    perturb(model)
    path = tmp_path_factory.mktemp("trained") / "none.pt"
    save_checkpoint(supernet_checkpoint(state, model), path)
    return path


def words(path: Path, output: Path, *more: object) -> list[str]:
    options = ["--path", path, "--search-space", GOLDEN / "space.yaml", "--output", output, "--expert-rank", 3, *more]
    return [str(word) for word in options]


@torch.no_grad()
@pytest.mark.parametrize("routing", ["layer", "neuron", "rank"])
def test_every_subnet_computes_what_it_did(trained, tmp_path, capsys, routing):
    warm_start.main(words(trained, tmp_path / "warm.pt", "--mos-routing", routing, "--mos-linears", "all"))
    said = capsys.readouterr().out
    assert (
        "each computes what it does in" in said and f"--mos-routing {routing} --num-experts 2 --expert-rank 3" in said
    )
    before, after = (build_supernet(read_supernet(path)) for path in (trained, tmp_path / "warm.pt"))
    experts = [m for m in after.modules() if isinstance(m, LowRankExperts)]
    assert experts and all(m.is_zero and m.down.all() for m in experts) and after.cfg.expert_rank == 3
    space, tokens = before.search_space, torch.tensor([[5, 6, 7, 2], [8, 4, 2, 1]])
    for subnet in (space.largest(), space.smallest(), *(space.sample_subnet("warm", i) for i in range(3))):
        logits = []
        for model in (before, after):
            model.set_active_subnet(subnet)
            logits.append(model(tokens, tokens.ne(1).sum(1), tokens)[0])
        assert torch.equal(*logits)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--expert-noise", 0.1], "expert_noise is 0.1: it has no effect on experts of low rank"),
        (["--no-reorder"], "no_reorder is True: it has no effect on a supernet"),
        (["--learn-positions"], "learn_positions is True: it has no effect on a supernet"),
        (["--data", "x"], "data is x: it has no effect on a supernet"),
        (["--search-space", "tiny"], "search_space is not the checkpoint's"),
        (
            ["--path", GOLDEN / "supernet.pt"],
            "mos_routing of the checkpoint is neuron: experts can be added to mos_routing none only",
        ),
        (["--mos-routing", "none"], "expert_rank is 3: mos_routing none has no experts"),
    ],
)
def test_refusals(trained, tmp_path, more, message):
    with pytest.raises(InputError, match=message):
        warm_start.main(words(trained, tmp_path / "warm.pt", *more))
    assert not (tmp_path / "warm.pt").exists()
    with pytest.raises(InputError, match="expert_rank is 0: a trained supernet can be given experts of low rank only"):
        low_rank_supernet(read_supernet(trained), SearchSpace.from_spec("tiny"), {"expert_rank": 0})


@torch.no_grad()
def test_a_stock_model_gets_them_without_noise():
    """They add nothing to any subnet, and differ by themselves."""
    options = {"mos_linears": "all", "mos_routing": "layer", "num_experts": 3, "expert_rank": 2}
    noisy = supernet_from(stock(), config(HEAD_DIM, **options), Orders(), expert_noise=0.5)
    plain = supernet_from(stock(), config(HEAD_DIM, mos_routing="none"), Orders())
    mine = noisy.state_dict()
    assert all(torch.equal(mine[k], v) for k, v in plain.state_dict().items() if k != "identity")
