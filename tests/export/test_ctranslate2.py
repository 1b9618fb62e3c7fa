"""CTranslate2 gives each token the probability that the twin gives it, padded heads included."""

import ctranslate2
import pytest
import torch

from mos_fairseq.errors import InputError
from mos_fairseq.export import save_ctranslate2
from tests.export.test_stock import EQUAL, OPTIONS, SPACE, UNEQUAL, twin_of
from tests.helpers import dictionary

WORDS = dictionary()
SENTENCES = [((5, 9, 12, 30, 7), (6, 7, 8)), ((4, 8), (10, 11, 12, 13))]
SUBNETS = {"equal": EQUAL, "sides": EQUAL | {"decoder_embed_dim": 24}, "padded": UNEQUAL}


def vocabularies() -> tuple[list[str], list[str]]:
    return WORDS.symbols, WORDS.symbols


@torch.no_grad()
def log_probs(twin, source: tuple[int, ...], target: tuple[int, ...]) -> list[float]:
    eos = WORDS.eos()
    logits = twin(torch.tensor([[*source, eos]]), None, torch.tensor([[eos, *target]]))[0]
    return logits.log_softmax(-1)[0, range(len(target) + 1), [*target, eos]].tolist()


CASES = [(subnet, options) for subnet in SUBNETS for options in OPTIONS[:3]]
CASES += [("equal", {"activation_fn": name}) for name in ("gelu", "gelu_accurate", "swish", "tanh")]


@pytest.mark.parametrize(("subnet", "options"), CASES, ids=lambda c: c if isinstance(c, str) else "-".join(c))
def test_same_probabilities(tmp_path, subnet, options):
    check_probabilities(twin_of(SUBNETS[subnet], **options), tmp_path)


def check_probabilities(twin, tmp_path) -> None:
    save_ctranslate2(twin, vocabularies(), tmp_path / "model")
    translator = ctranslate2.Translator(str(tmp_path / "model"), compute_type="float32")
    texts = [[[WORDS[i] for i in part] for part in pair] for pair in SENTENCES]
    scored = translator.score_batch([source for source, _ in texts], [target for _, target in texts])
    for pair, result in zip(SENTENCES, scored, strict=True):
        assert result.log_probs == pytest.approx(log_probs(twin, *pair), abs=1e-5)


def test_a_q_for_each_layer(tmp_path):
    """The heads of a layer are as wide as its own q makes them."""
    space = {key: value for key, value in SPACE.items() if key != "head_dim"}
    subnet = {key: value for key, value in EQUAL.items() if key != "head_dim"}
    q = {"encoder_qkv_dim": [20, 10], "decoder_qkv_dim": [20, 10]}
    heads = dict.fromkeys([key for key in space if key.endswith("heads")], [2])
    twin = twin_of(subnet | {"encoder_qkv_dim": [10, 20, 10], "decoder_qkv_dim": [20, 10]}, space | q | heads)
    check_probabilities(twin, tmp_path)


def test_factors_are_multiplied(tmp_path):
    ranks = {"encoder_ffn_rank": [5, 2], "decoder_ffn_rank": [6, 3]}
    twin = twin_of(EQUAL | {"encoder_ffn_rank": 2, "decoder_ffn_rank": [3, 6]}, SPACE | ranks)
    assert any(name.endswith("fc1.down") for name, _ in twin.named_modules())
    check_probabilities(twin, tmp_path)


def test_refusals(tmp_path):
    with pytest.raises(InputError, match=r"decoder_arbitrary_ende_attn is \[-1, 2\].*last encoder layer"):
        save_ctranslate2(twin_of(EQUAL | {"decoder_arbitrary_ende_attn": [-1, 2]}), vocabularies(), tmp_path / "model")
    with pytest.raises(InputError, match="activation_fn is linear: CTranslate2 supports relu"):
        save_ctranslate2(twin_of(EQUAL, activation_fn="linear"), vocabularies(), tmp_path / "model")
    with pytest.raises(InputError, match="no_token_positional_embeddings"):
        save_ctranslate2(twin_of(EQUAL, no_token_positional_embeddings=True), vocabularies(), tmp_path / "model")
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="exists already"):
        save_ctranslate2(twin_of(EQUAL), vocabularies(), tmp_path)
