"""Shared parts of several tests: small odd sizes, dictionaries, supernets, batches."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from fairseq.data import Dictionary

import mos_fairseq  # noqa: F401  registers everything
from mos_fairseq.models import (
    RobertaMosConfig,
    RobertaMosModel,
    TransformerLanguageModelMosConfig,
    TransformerLanguageModelMosModel,
    TransformerMosConfig,
    TransformerMosModel,
)
from mos_fairseq.search_space import SearchSpace
from tests.seeds import moved
from tests.spaces import BERT_SPACE, LM_SPACE, SMALL_SPACE


def small_space(**changes) -> SearchSpace:
    return SearchSpace.from_dict(SMALL_SPACE | changes)


def dictionary(size: int = 31) -> Dictionary:
    result = Dictionary()
    for i in range(size - len(result)):
        result.add_symbol(f"w{i}")
    return result


def supernet(space: SearchSpace | None = None, seed: int = 1, **options) -> TransformerMosModel:
    """A supernet with randomised biases, norms and routers, so that no term can hide as zero or one."""
    space = space or small_space()
    options = {"share_all_embeddings": True, "max_source_positions": 50, "max_target_positions": 50} | options
    cfg = TransformerMosConfig(search_space=space.dumps(), **options)
    torch.manual_seed(moved(seed))
    words = dictionary()
    model = TransformerMosModel.from_search_space(cfg, space, words, words)
    perturb(model)
    return model


def language_model(space: SearchSpace | None = None, seed: int = 1, **options) -> TransformerLanguageModelMosModel:
    """A language model's supernet, as :func:`supernet`."""
    space = space or SearchSpace.from_dict(LM_SPACE)
    options = {"share_decoder_input_output_embed": True, "max_target_positions": 50} | options
    cfg = TransformerLanguageModelMosConfig(search_space=space.dumps(), **options)
    torch.manual_seed(seed)
    model = TransformerLanguageModelMosModel.from_search_space(cfg, space, dictionary())
    perturb(model)
    return model


def masked_language_model(space: SearchSpace | None = None, seed: int = 1, **options) -> RobertaMosModel:
    """A masked language model's supernet, as :func:`supernet`."""
    space = space or SearchSpace.from_dict(BERT_SPACE)
    cfg = RobertaMosConfig(search_space=space.dumps(), **{"max_positions": 50} | options)
    torch.manual_seed(moved(seed))
    model = RobertaMosModel.from_search_space(cfg, space, dictionary())
    perturb(model)
    return model


@torch.no_grad()
def perturb(model: torch.nn.Module) -> None:
    """Move every parameter away from its initial value."""
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)


def batch(lengths=((6, 5), (4, 7), (7, 3)), left_pad_source: bool = True, seed: int = 3, vocab: int = 31):
    """(src_tokens, prev_output_tokens, target) with padding; ``lengths`` are (source, target) tokens of a sentence."""
    generator = torch.Generator().manual_seed(moved(seed))
    pad, eos = 1, 2
    src = torch.full((len(lengths), max(s for s, _ in lengths)), pad)
    prev = torch.full((len(lengths), max(t for _, t in lengths)), pad)
    target = prev.clone()
    for row, (s, t) in enumerate(lengths):
        words = torch.randint(4, vocab, (s - 1,), generator=generator).tolist() + [eos]
        src[row, -s:] = torch.tensor(words) if left_pad_source else src[row, -s:]
        if not left_pad_source:
            src[row, :s] = torch.tensor(words)
        words = torch.randint(4, vocab, (t - 1,), generator=generator).tolist()
        prev[row, :t] = torch.tensor([eos, *words])
        target[row, :t] = torch.tensor([*words, eos])
    return src, prev, target


def sample_of(src, prev, target) -> dict:
    """fairseq's mini-batch."""
    return {
        "net_input": {"src_tokens": src, "src_lengths": src.ne(1).sum(1), "prev_output_tokens": prev},
        "target": target,
        "ntokens": int(target.ne(1).sum()),
        "nsentences": len(src),
        "id": torch.arange(len(src)),
    }


def fake_task(words: Dictionary | None = None) -> SimpleNamespace:
    words = words or dictionary()
    return SimpleNamespace(source_dictionary=words, target_dictionary=words)


def assert_logits_and_gradients_equal(ours, stock, inputs: tuple[torch.Tensor, ...], target: torch.Tensor) -> None:
    """Check that logits in evaluation and training, and the gradients of a loss, equal fairseq's model's."""
    real = target.ne(1)
    for mode in (True, False):
        stock.train(mode), ours.train(mode)
        expected, actual = stock(*inputs)[0], ours(*inputs)[0]
        torch.testing.assert_close(actual[real], expected[real], atol=1e-5, rtol=1e-5)
    torch.nn.functional.cross_entropy(expected[real], target[real]).backward()
    torch.nn.functional.cross_entropy(actual[real], target[real]).backward()
    theirs = dict(stock.named_parameters())
    both = [(name, parameter) for name, parameter in ours.named_parameters() if name in theirs]
    assert both
    for name, parameter in both:
        grad = theirs[name].grad
        torch.testing.assert_close(parameter.grad.view_as(grad), grad, atol=1e-5, rtol=1e-4, msg=name)


def decode_stepwise(model, encoder_out, prev) -> torch.Tensor:
    """Logits [B, T, V] of incremental decoding."""
    state: dict = {}
    steps = [model.decoder(prev[:, : t + 1], encoder_out, state)[0] for t in range(prev.size(1))]
    return torch.cat(steps, dim=1)
