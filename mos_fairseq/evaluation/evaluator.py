"""Evaluate models on a fixed part of a set: subnets with inherited weights, and models trained alone."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from fairseq import checkpoint_utils, utils
from fairseq.data import data_utils
from fairseq.sequence_generator import SequenceGenerator

from mos_fairseq.errors import InputError
from mos_fairseq.evaluation.data import dataset_impl
from mos_fairseq.evaluation.options import EvaluationOptions
from mos_fairseq.evaluation.scoring import TEXT_METRICS, signature, text_metric, warning_of_tokens
from mos_fairseq.files import file_digest
from mos_fairseq.models.switches import keep_active_subnet, without_attention
from mos_fairseq.predictions import Prediction
from mos_fairseq.search_space import FAMILIES, Family, Subnet
from mos_fairseq.transfer import check_encoder, pack, unpack

logger = logging.getLogger(__name__)

_AT_ONCE = 16  # subnets whose losses a GPU computes before the host reads them


class ModelEvaluator:
    """Evaluate the model of one checkpoint on one set.

    Args:
        path: the checkpoint of a model.
        data: the folder made by fairseq-preprocess.
        device: torch's name of the device to evaluate on.
        examples: task options that replace the checkpoint's (:func:`~mos_fairseq.masked.examples_of`).

    Raises:
        InputError: the data are missing or empty, or do not fit the checkpoint; the checkpoint changed while it was
            read; the device does not exist; or sacreBLEU cannot use the tokenizer.
    """

    def __init__(
        self,
        path: str,
        data: str,
        options: EvaluationOptions,
        device: str = "cpu",
        examples: Mapping[str, Any] | None = None,
    ) -> None:
        self.path, self.data, self.options = path, data, options
        is_text = options.objective in TEXT_METRICS
        self.metric = text_metric(options.objective, options.sacrebleu_tokenizer) if is_text else None
        overrides = dict(examples or {}) | {"data": data, "dataset_impl": dataset_impl(data, options.valid_subset)}
        before = file_digest(path, "path")
        models, _, task = checkpoint_utils.load_model_ensemble_and_task([path], arg_overrides=overrides)
        try:
            self.device = torch.device(device)
            self.model, self.task = models[0].eval().to(self.device), task
            self.prediction = Prediction.of(task)
        except (RuntimeError, AssertionError):
            raise InputError(f"device is {device}: torch has no such device here") from None
        try:
            self.task.load_dataset(options.valid_subset)
        except FileNotFoundError as error:
            raise InputError(f"{error}: {data} holds no {options.valid_subset} set that fits the model") from None
        if getattr(self.task.dataset(options.valid_subset), "tgt", True) is None:  # fairseq allows this for generation
            raise InputError(f"data is {data}: it has no translations of {options.valid_subset}")
        objectives = (*self.family.objectives, *self.prediction.objectives)
        if options.objective not in objectives:
            kind = f"models of family {self.family.name}" if self.prediction.head is None else "classifiers"
            raise InputError(f"objective is {options.objective}: {kind} are judged by {', '.join(objectives)}")
        if options.transfer_dtype != "float32":
            check_encoder([stack.name for stack in self.family.stacks], self.family.name)
            round_outputs(self.model.encoder, options.transfer_dtype)
        self.batches = self._batches()
        if file_digest(path, "path") != before:
            raise InputError(f"path {path}: it changed while it was read; start again after its training")
        self._fingerprint = self._digest(bytes.fromhex(before))
        self._warn_of_pieces()
        if self.metric is not None and (warning := warning_of_tokens(self.metric, self.references())):
            logger.warning(warning)

    def _batches(self) -> list[dict[str, Any]]:
        """Return mini-batches of the chosen examples: sentence pairs, or blocks of text."""
        dataset, options = self.task.dataset(self.options.valid_subset), self.options
        dataset.set_epoch(1)  # as in validation, because masks depend on the epoch
        count = len(dataset) if options.valid_samples is None else min(options.valid_samples, len(dataset))
        if not count:
            raise InputError(f"valid_subset {options.valid_subset}: it is empty")
        chosen = np.random.default_rng(options.seed).permutation(len(dataset))[:count]
        lengths = np.array([dataset.num_tokens(index) for index in chosen])
        order = chosen[np.argsort(lengths, kind="stable")]
        self._check_lengths(np.asarray(dataset.sizes).reshape(len(dataset), -1)[chosen], int(lengths.max()))
        batches = data_utils.batch_by_size(order, dataset.num_tokens, max_tokens=options.max_tokens)
        samples = [dataset.collater([dataset[index] for index in batch]) for batch in batches]
        return utils.apply_to_sample(lambda tensor: tensor.to(self.device), samples)

    def _check_lengths(self, sizes: np.ndarray, longest: int) -> None:
        """Raise InputError if an example fits no batch, or not the model. ``sizes``: tokens of each stack."""
        if longest > self.options.max_tokens:
            raise InputError(f"max_tokens is {self.options.max_tokens}: the longest sentence has {longest} tokens")
        longest_of = np.atleast_1d(self.model.max_positions())
        for stack, found, most in zip(self.family.stacks, sizes.max(0), longest_of, strict=True):
            if found > most:
                raise InputError(
                    f"{stack.positions} of {self.path} is {most}: {self.options.valid_subset} holds a "
                    f"sentence of {found} tokens"
                )

    @property
    def family(self) -> Family:
        """The model's family. fairseq's own transformer, the input of a warm start, counts as encoder-decoder."""
        return getattr(self.model, "family", FAMILIES["encoder_decoder"])

    def fingerprint(self) -> str:
        """Return a digest of the checkpoint, the set and the evaluation options."""
        return self._fingerprint

    def set_fingerprint(self) -> str:
        """Return the same digest without the checkpoint."""
        return self._digest(b"")

    def _digest(self, checkpoint: bytes) -> str:
        """Hash the options, the checkpoint, the dictionaries and the chosen sentence pairs, independent of paths."""
        digest = hashlib.sha256(json.dumps(self.options.identity(), sort_keys=True).encode())
        digest.update(checkpoint)
        for words in (self.task.source_dictionary, self.task.target_dictionary):
            digest.update(json.dumps(words.symbols).encode())
        for batch in self.batches:
            for tokens in (batch["net_input"]["src_tokens"], batch["target"]):
                digest.update(repr(tuple(tokens.shape)).encode() + tokens.cpu().numpy().astype("<i8").tobytes())
        return digest.hexdigest()[:16]

    @torch.inference_mode()
    def loss(self) -> float:
        """Return bits per predicted token (for masked language models, per masked token; for classifiers, per example),
        without label smoothing: fairseq's ``nll_loss``.

        Raises:
            InputError: no token is masked.
        """
        (loss,) = self._mean_losses([self._summed_losses()])
        return loss

    def _summed_losses(self) -> torch.Tensor:
        """Return the loss of each mini-batch, in nats, on the device."""
        if not self.num_predicted:
            raise InputError(f"valid_subset {self.options.valid_subset}: no token of the chosen examples is masked")
        return torch.stack([self.prediction.summed_loss(self.model, batch) for batch in self._predicted])

    def _mean_losses(self, summed: Sequence[torch.Tensor]) -> list[float]:
        """Return bits per token of each item of ``summed``. All are read at once: for each read, the host waits for a
        GPU."""
        return [sum(losses) / self.num_predicted / math.log(2) for losses in torch.stack(list(summed)).tolist()]

    @cached_property
    def _predicted(self) -> list[dict[str, Any]]:
        """The mini-batches as the model predicts them."""
        return [self.prediction.form(self.model, batch) for batch in self.batches]

    @cached_property
    def num_predicted(self) -> int:
        """Number of words or classes that the model predicts in the chosen examples."""
        return sum(self.prediction.count(self.model, batch) for batch in self.batches)

    @torch.inference_mode()
    def accuracy(self) -> float:
        """Return the percentage of examples whose class the model predicts, a classifier."""
        correct = torch.stack([self.prediction.num_correct(self.model, batch) for batch in self._predicted])
        return 100 * int(correct.sum()) / self.num_predicted

    @torch.inference_mode()
    def translate(self) -> tuple[list[str], list[str]]:
        """Return (hypotheses, references), both in the order of the set."""
        found: dict[int, str] = {}
        for batch in self.batches:
            with without_attention(self.model):
                hypotheses = self._generator.generate([self.model], batch)
            for index, sentence in zip(batch["id"].tolist(), hypotheses, strict=True):
                found[index] = self._text(sentence[0]["tokens"])
        return [found[index] for index in sorted(found)], self.references()

    def references(self) -> list[str]:
        """Return target sentences in the order of the set."""
        found: dict[int, str] = {}
        for batch in self.batches:
            for index, target in zip(batch["id"].tolist(), batch["target"], strict=True):
                found[index] = self._text(target, escape_unk=True)
        return [found[index] for index in sorted(found)]

    def score(self, hypotheses: list[str], references: list[str]) -> float:
        """Return BLEU or chrF, from 0 to 100; translations and references are in the same order."""
        if self.metric is None:
            raise ValueError("objective is loss: translations are scored with bleu or chrf")
        return self.metric.corpus_score(hypotheses, [references]).score

    @property
    def signature(self) -> str | None:
        """sacreBLEU's signature of the metric, BLEU or chrF."""
        return None if self.metric is None else signature(self.metric)

    @cached_property
    def _generator(self) -> SequenceGenerator:
        options = self.options
        return SequenceGenerator(
            [self.model],
            self.task.target_dictionary,
            beam_size=options.beam,
            max_len_a=options.max_len_a,
            max_len_b=options.max_len_b,
        )

    def _text(self, tokens: torch.Tensor, escape_unk: bool = False) -> str:
        """Return the text; as in fairseq's scoring, unknown words of the reference are spelled so that none matches."""
        words = self.task.target_dictionary
        ids = utils.strip_pad(tokens.int().cpu(), words.pad())
        return words.string(ids, self.options.remove_bpe, escape_unk=escape_unk)

    def _warn_of_pieces(self) -> None:
        name = TEXT_METRICS.get(self.options.objective)
        if name and self.options.remove_bpe is None:
            if any(symbol.startswith("▁") for symbol in self.task.target_dictionary.symbols):
                logger.warning("%s has SentencePiece's pieces, not words: give --remove-bpe sentencepiece", name)


def round_outputs(encoder: torch.nn.Module, dtype: str) -> None:
    """Make ``encoder`` round its outputs as sending them in ``dtype`` would."""
    encode = encoder.forward

    def forward(*args: Any, **kwargs: Any) -> dict[str, list[torch.Tensor]]:
        found = encode(*args, **kwargs)
        first = found["encoder_out"][0]
        sent = pack([output.detach().float().cpu().numpy() for output in found["encoder_out"]], None, dtype)
        return found | {"encoder_out": [torch.from_numpy(output).to(first) for output in unpack(sent)[0]]}

    encoder.forward = forward


class SubnetEvaluator(ModelEvaluator):
    """Evaluate subnets of one supernet's checkpoint; experts are merged once per subnet."""

    @property
    def space(self):
        """Return the supernet's search space."""
        return self.model.search_space

    def evaluate(self, subnet: Subnet) -> float:
        """Return the loss in bits per token (of classifiers, per example), the accuracy in per cent, or BLEU or chrF,
        independent of earlier evaluations. The active subnet is restored.

        Raises:
            InputError: the value is not finite.
        """
        with self._active(subnet):
            if self.metric is not None:
                value = self.score(*self.translate())
            else:
                value = self.accuracy() if self.options.objective == "accuracy" else self.loss()
        return self._finite(subnet, value)

    @property
    def at_once(self) -> int:
        """For how many subnets :meth:`evaluate_all` pays: on a GPU, the host prepares one while another is computed."""
        return 1 if self.device.type == "cpu" or self.options.objective != "loss" else _AT_ONCE

    def evaluate_all(self, subnets: Sequence[Subnet]) -> Iterator[float]:
        """Yield what :meth:`evaluate` returns of each subnet. Losses are read once for all of them; where one is not
        finite, those before it are yielded first."""
        if self.options.objective != "loss":
            yield from map(self.evaluate, subnets)
        elif subnets:
            for subnet, loss in zip(subnets, self._losses(subnets), strict=True):
                yield self._finite(subnet, loss)

    @torch.inference_mode()
    def _losses(self, subnets: Sequence[Subnet]) -> list[float]:
        summed = []
        for subnet in subnets:
            with self._active(subnet):
                summed.append(self._summed_losses())
        return self._mean_losses(summed)

    def _finite(self, subnet: Subnet, value: float) -> float:
        if not math.isfinite(value):
            raise InputError(f"subnet {subnet.summary()}: its {self.options.objective} is {value}")
        return value

    def translations_of(self, subnet: Subnet) -> tuple[list[str], list[str]]:
        """Return (hypotheses, references) of one subnet, both in the order of the set. The active subnet is
        restored."""
        with self._active(subnet):
            return self.translate()

    @contextmanager
    def _active(self, subnet: Subnet) -> Iterator[None]:
        # Weights packed for another subnet would be multiplied by another library than in a process that begins with
        # this subnet, and would round differently.
        self.model.eval()
        with keep_active_subnet(self.model):
            self.model.set_active_subnet(subnet)
            yield
