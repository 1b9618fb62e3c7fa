"""A static twin of a translation model as a folder for Hugging Face's transformers.

It is FSMT, which is fairseq's own post-norm Transformer, or the relative of FSMT with the twin's norms. All of them
name a layer's modules as fairseq does, and have sizes for each side and one width. They keep positions in a table,
which can hold sinusoids, the first columns of a wider table of them, and learned positions.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor, nn

from mos_fairseq.errors import InputError
from mos_fairseq.export.check import check_same_model
from mos_fairseq.export.huggingface import of, save_model
from mos_fairseq.export.stock import layer_weights
from mos_fairseq.export.stock_sizes import StockSizes, check_hugging_face_translation
from mos_fairseq.export.tokenizer import MISSING, save_tokenizer
from mos_fairseq.models import TransformerSubnetModel

TARGET = "target"
"""Subfolder of the target dictionary's tokenizer, if it differs from the source's."""

BEAM, MAX_LEN_B = 4, 200
"""Default search: the documentation's beam, and fairseq's limit on the words of a translation."""

_ACTIVATIONS = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_accurate": "gelu_new",
    "gelu_fast": "gelu_new",
    "swish": "silu",
    "tanh": "tanh",
    "linear": "linear",
}
"""transformers' names of activations, keyed by fairseq's."""


@dataclass(frozen=True)
class _Architecture:
    """A translation model of transformers.

    Args:
        kind: its ``model_type``.
        name: name of its class.
        first_row: first row of its table of positions, by fairseq's number.
        one_table: whether source, target and output share one table of embeddings.
    """

    kind: str
    name: str
    first_row: int
    one_table: bool


_ARCHITECTURES = {
    (False, False): _Architecture("fsmt", "FSMTForConditionalGeneration", 0, one_table=False),
    (False, True): _Architecture("bart", "BartForConditionalGeneration", 0, one_table=True),
    (True, True): _Architecture("mbart", "MBartForConditionalGeneration", 0, one_table=True),
    (True, False): _Architecture("pegasus", "PegasusForConditionalGeneration", 2, one_table=True),
}
"""Keyed by whether norms come before the sublayers, and whether embeddings are normalised."""


def save_huggingface_translation(
    twin: TransformerSubnetModel,
    vocabularies: Sequence[Sequence[str]],
    output: str | os.PathLike[str],
    *,
    allow_padding: bool = False,
    tokenizer: str | None = None,
) -> None:
    """Write ``twin`` atomically into the new folder ``output``. Before that, the folder is read with transformers and
    must compute the same as ``twin``.

    Args:
        vocabularies: the words of source and target dictionary, in order.
        allow_padding: layers that are smaller than others may be padded with zeros.
        tokenizer: file of the tokenizer that split the text into words; None: words are separated by spaces.

    Raises:
        InputError: transformers is not installed, is version 4, or cannot express the model; or the folder exists or
            cannot be written.
    """
    _check_installed()
    model = _Model(twin, check_hugging_face_translation(twin.subnet, allow_padding))
    source, target = vocabularies

    def finish(folder: str) -> None:
        longest = twin.max_positions()
        save_tokenizer(source, folder, tokenizer, longest[0], translation=True)
        if list(target) != list(source):
            os.mkdir(inside := os.path.join(folder, TARGET))
            save_tokenizer(target, inside, tokenizer, longest[1], translation=True)
        made = _AsFairseq(_read(folder)).eval()
        check_same_model(made, twin, f"transformers' {model.kind.name}", "the subnet")

    save_model(output, model.config(), model.weights(), finish, generation=model.generation())


def _check_installed() -> None:
    try:
        found = version("transformers")
    except PackageNotFoundError:
        raise InputError(MISSING) from None
    if int(found.partition(".")[0]) < 5:
        raise InputError(f"transformers is {found}: translation models are checked with version 5; install that")


def _read(folder: str) -> nn.Module:
    """Return the model that transformers loads from ``folder``."""
    with _without_torchaudio():
        from transformers import AutoModelForSeq2SeqLM
        from transformers.utils import logging

        shown = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            return AutoModelForSeq2SeqLM.from_pretrained(folder, local_files_only=True)
        finally:
            if shown:
                logging.enable_progress_bar()


@contextmanager
def _without_torchaudio() -> Iterator[None]:
    """Hide torchaudio from transformers, which imports it even for text. The torchaudio that fairseq installs may not
    fit torch's version, and its import then fails."""
    name = "torchaudio"
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.modules.pop(name, None)


class _AsFairseq(nn.Module):
    """A model of transformers with fairseq's calling convention. It reads word by word, as in a search, because FSMT's
    causal mask does not support double precision."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, src_tokens: Tensor, src_lengths: Tensor, prev_output_tokens: Tensor) -> tuple[Tensor]:
        from transformers import DynamicCache, EncoderDecoderCache

        mask = src_tokens.ne(self.model.config.pad_token_id).long()
        encoded = self.model.get_encoder()(src_tokens, attention_mask=mask)
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        logits = []
        for words in prev_output_tokens.split(1, dim=1):
            found = self.model(
                encoder_outputs=encoded,
                attention_mask=mask,
                decoder_input_ids=words,
                past_key_values=cache,
                use_cache=True,
            )
            logits.append(found.logits)
        return (torch.cat(logits, 1),)


@dataclass(frozen=True)
class _Model:
    """Configuration and weights, under Hugging Face's names."""

    twin: TransformerSubnetModel
    sizes: dict[str, StockSizes]

    def __post_init__(self) -> None:
        cfg = self.twin.cfg
        if cfg.encoder_normalize_before != cfg.decoder_normalize_before:
            raise InputError(
                "encoder_normalize_before and decoder_normalize_before differ: transformers' translation models have "
                "their norms in one place"
            )
        if str(cfg.activation_fn) not in _ACTIVATIONS:
            raise InputError(f"activation_fn is {cfg.activation_fn}: transformers supports {', '.join(_ACTIVATIONS)}")
        if self.kind.one_table and not self.shares_all:
            raise InputError(
                f"share_all_embeddings is not set: transformers' {self.kind.name}, the only one with norms in these "
                "places, has one table for source, target and output"
            )

    @property
    def kind(self) -> _Architecture:
        cfg = self.twin.cfg
        return _ARCHITECTURES[bool(cfg.encoder_normalize_before), bool(cfg.layernorm_embedding)]

    @property
    def shares_all(self) -> bool:
        encoder, decoder = self.twin.encoder, self.twin.decoder
        return encoder.embed_tokens is decoder.embed_tokens is decoder.output_embedding

    def config(self) -> dict[str, Any]:
        """Return the content of config.json."""
        cfg, encoder, decoder = self.twin.cfg, self.sizes["encoder"], self.sizes["decoder"]
        sides = [getattr(self.twin, name).dictionary for name in ("encoder", "decoder")]
        values: dict[str, Any] = {
            "architectures": [self.kind.name],
            "model_type": self.kind.kind,
            "is_encoder_decoder": True,
            "d_model": encoder.width,
            "encoder_layers": encoder.layers,
            "encoder_ffn_dim": encoder.ffn,
            "encoder_attention_heads": encoder.heads,
            "decoder_layers": decoder.layers,
            "decoder_ffn_dim": decoder.ffn,
            "decoder_attention_heads": decoder.heads,
            "activation_function": _ACTIVATIONS[str(cfg.activation_fn)],
            "dropout": cfg.dropout,
            "attention_dropout": cfg.attention_dropout,
            "activation_dropout": cfg.activation_dropout,
            "max_position_embeddings": max(self.twin.max_positions()),
            "scale_embedding": not cfg.no_scale_embedding,
            "tie_word_embeddings": self.shares_all,
            "dtype": "float32",
        } | self._special()
        if self.kind.one_table:
            return values | {"vocab_size": len(sides[0])}
        # FSMT masks later words only without a cache; generation_config.json turns the cache on for searches
        values |= {"src_vocab_size": len(sides[0]), "tgt_vocab_size": len(sides[1]), "use_cache": False}
        return values | {"langs": ["source", "target"]}  # only FSMT's own tokenizer reads these

    def generation(self) -> dict[str, Any]:
        """Return the content of generation_config.json: fairseq's beam search with its default limits."""
        longest = self.twin.max_positions()[1]
        return self._special() | {
            "num_beams": BEAM,
            "length_penalty": 1.0,
            "early_stopping": True,  # once as many translations as the beam are complete
            "min_length": 2,  # the leading </s> counts; fairseq allows no empty translation
            "max_length": min(MAX_LEN_B + 2, longest + 1),
            "forced_eos_token_id": self.twin.decoder.dictionary.eos(),
            "suppress_tokens": [self.twin.decoder.dictionary.pad()],
            "use_cache": True,
        }

    def _special(self) -> dict[str, int]:
        words = self.twin.decoder.dictionary
        numbers = {"bos": words.bos(), "pad": words.pad(), "eos": words.eos(), "decoder_start": words.eos()}
        return {f"{name}_token_id": number for name, number in numbers.items()}

    def weights(self) -> dict[str, Tensor]:
        """Return the content of model.safetensors."""
        found = self._embeddings()
        for name, size in self.sizes.items():
            stack = getattr(self.twin, name)
            found[f"model.{name}.embed_positions.weight"] = self._positions(stack)
            for norm_name in ("layernorm_embedding", "layer_norm"):
                if (norm := getattr(stack, norm_name)) is not None:
                    found |= of(f"model.{name}.{norm_name}", norm)
            for index, layer in enumerate(stack.layers):
                found |= {f"model.{name}.layers.{index}.{k}": v for k, v in layer_weights(layer, size).items()}
        return found

    def _embeddings(self) -> dict[str, Tensor]:
        encoder, decoder = self.twin.encoder, self.twin.decoder
        if self.kind.one_table:
            return {"model.shared.weight": encoder.embed_tokens.weight}
        found = {
            "model.encoder.embed_tokens.weight": encoder.embed_tokens.weight,
            "model.decoder.embed_tokens.weight": decoder.embed_tokens.weight,
        }
        if not self.shares_all:
            found["model.decoder.output_projection.weight"] = decoder.output_embedding.weight
        return found

    def _positions(self, stack: nn.Module) -> Tensor:
        """Return positions [rows, d], as many as the side with the longer sentences has. No sentence needs more rows:
        for a longer one FSMT would compute sinusoids and the others fail, but the tokenizer has the limit."""
        positions, padding = stack.embed_positions, stack.padding_idx
        rows = max(self.twin.max_positions()) + padding + 1
        empty = torch.zeros(rows, stack.embed_dim)
        table = empty if positions is None else positions.table(empty, rows)[:rows].detach().cpu()
        return torch.cat([table, empty[len(table) :]])[self.kind.first_row :]
