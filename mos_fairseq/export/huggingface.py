"""A static twin of a masked language model as a folder for Hugging Face's transformers.

It is a RoBERTa if the layers are as wide as the embeddings, an Electra if all layers have another width. The folder
holds JSON and safetensors, no code. No model of transformers has layers of unequal widths: the map between two of them
feeds attention, which could absorb it, and the residual connection, which cannot.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mos_fairseq.errors import InputError
from mos_fairseq.export.stock import heads_of, layer_weights
from mos_fairseq.export.stock_sizes import StockSizes, check_hugging_face
from mos_fairseq.export.tokenizer import MISSING, save_tokenizer
from mos_fairseq.files import write_folder_atomically
from mos_fairseq.models import RobertaSubnetModel

LAYER_NAMES = {
    "self_attn.q_proj": "attention.self.query",
    "self_attn.k_proj": "attention.self.key",
    "self_attn.v_proj": "attention.self.value",
    "self_attn.out_proj": "attention.output.dense",
    "self_attn_layer_norm": "attention.output.LayerNorm",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
    "final_layer_norm": "output.LayerNorm",
}
"""Hugging Face's names of a layer's modules, keyed by fairseq's."""

_LABEL = "LABEL_{}"  # Hugging Face's name for an unnamed class


def save_huggingface(
    twin: RobertaSubnetModel,
    words: Sequence[str],
    output: str | os.PathLike[str],
    *,
    allow_padding: bool = False,
    tokenizer: str | None = None,
    labels: Sequence[str] = (),
) -> None:
    """Write ``twin`` atomically into the new folder ``output``: a classifier if it has a classification head, otherwise
    a masked language model.

    Args:
        words: words of the dictionary, in order.
        allow_padding: layers that are smaller than others may be padded with zeros.
        tokenizer: file of the tokenizer that split the text into words; None: words are separated by spaces.
        labels: names of the classes.

    Raises:
        InputError: safetensors is not installed, transformers cannot express the model, or the folder exists or cannot
            be written.
    """
    model = _Model(twin, check_hugging_face(twin.subnet, allow_padding), labels)

    def finish(folder: str) -> None:
        save_tokenizer(words, folder, tokenizer, twin.max_positions())

    save_model(output, model.config(), model.weights(), finish)


def save_model(
    output: str | os.PathLike[str],
    config: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    finish: Callable[[str], object],
    generation: Mapping[str, Any] | None = None,
) -> None:
    """Write the new folder ``output``: config.json, model.safetensors, and with ``generation`` generation_config.json.
    ``finish`` is called with the name of the temporary folder and adds further files.

    Raises:
        InputError: safetensors is not installed, a weight is not finite, or the folder exists or cannot be written.
    """
    try:
        from safetensors.torch import save_file
    except ImportError:
        raise InputError(MISSING) from None
    if os.path.exists(output):
        raise InputError(f"{output}: exists already; give the name of a new folder")
    plain = {name: tensor.detach().cpu().float().contiguous().clone() for name, tensor in weights.items()}
    for name, tensor in plain.items():
        if not torch.isfinite(tensor).all():
            raise InputError(f"the weights are not finite ({name}); nothing is written. Has the training diverged?")
    contents = {"config.json": config} | ({} if generation is None else {"generation_config.json": generation})

    def fill(folder: str) -> None:
        for name, content in contents.items():
            (Path(folder) / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        weights_file = os.path.join(folder, "model.safetensors")
        save_file(plain, weights_file, metadata={"format": "pt"})
        shutil.copymode(os.path.join(folder, "config.json"), weights_file)  # safetensors lets only its owner read it
        finish(folder)

    write_folder_atomically(output, fill)


@dataclass(frozen=True)
class _Model:
    """Configuration and weights, under Hugging Face's names."""

    twin: RobertaSubnetModel
    sizes: StockSizes
    labels: Sequence[str]

    def __post_init__(self) -> None:
        cfg = self.twin.cfg
        if cfg.encoder_normalize_before:
            raise InputError("encoder_normalize_before is set: transformers' RoBERTa and Electra are post-norm")
        if cfg.activation_fn != "gelu":
            raise InputError(f"activation_fn is {cfg.activation_fn}: transformers' RoBERTa and Electra have gelu")
        if len(heads_of(self.twin)) > 1:
            raise InputError(f"the model has {len(heads_of(self.twin))} classification heads: transformers has one")
        wanted = "gelu" if self.is_electra else "tanh"
        if self.head is not None and cfg.pooler_activation_fn != wanted:
            raise InputError(
                f"pooler_activation_fn is {cfg.pooler_activation_fn}: transformers' classifier of this kind has "
                f"{wanted}; fine-tune with --pooler-activation-fn {wanted}"
            )

    @property
    def is_electra(self) -> bool:
        return self.twin.encoder.maps is not None

    @property
    def name(self) -> str:
        return "electra" if self.is_electra else "roberta"

    @property
    def head(self) -> nn.Module | None:
        return next(iter(heads_of(self.twin).values()), None)

    def config(self) -> dict[str, Any]:
        """Return the content of config.json."""
        cfg, encoder, sizes = self.twin.cfg, self.twin.encoder, self.sizes
        kind = "ForMaskedLM" if self.head is None else "ForSequenceClassification"
        values: dict[str, Any] = {
            "architectures": [f"{'Electra' if self.is_electra else 'Roberta'}{kind}"],
            "model_type": self.name,
            "vocab_size": len(encoder.dictionary),
            "hidden_size": sizes.width,
            "num_hidden_layers": sizes.layers,
            "num_attention_heads": sizes.heads,
            "intermediate_size": sizes.ffn,
            "hidden_act": "gelu",
            "hidden_dropout_prob": cfg.dropout,
            "attention_probs_dropout_prob": cfg.attention_dropout,
            "max_position_embeddings": len(self._positions()),
            "type_vocab_size": 1,
            "layer_norm_eps": cfg.layer_norm_eps,
            "pad_token_id": encoder.dictionary.pad(),
            "bos_token_id": encoder.dictionary.bos(),
            "eos_token_id": encoder.dictionary.eos(),
            "tie_word_embeddings": encoder.output_embedding is encoder.embed_tokens,
            "dtype": "float32",
        }
        if self.is_electra:
            values |= {"embedding_size": encoder.embed_dim}
        if self.head is not None:
            count = self.head.num_classes
            labels = [*self.labels, *(_LABEL.format(i) for i in range(len(self.labels), count))][:count]
            values |= {"classifier_dropout": cfg.pooler_dropout, "id2label": dict(enumerate(labels))}
            values |= {"label2id": {label: number for number, label in enumerate(labels)}}
        return values

    def weights(self) -> dict[str, Tensor]:
        """Return the content of model.safetensors; tied weights appear once."""
        encoder, name = self.twin.encoder, self.name
        width = encoder.embed_tokens.embedding_dim
        found = {
            f"{name}.embeddings.word_embeddings.weight": encoder.embed_tokens.weight,
            f"{name}.embeddings.position_embeddings.weight": self._positions(),
            f"{name}.embeddings.token_type_embeddings.weight": torch.zeros(1, width),
        }
        found |= of(f"{name}.embeddings.LayerNorm", encoder.layernorm_embedding)
        if self.is_electra:
            found |= of(f"{name}.embeddings_project", encoder.maps[0])
        for index, layer in enumerate(encoder.layers):
            for key, tensor in layer_weights(layer, self.sizes).items():
                module, _, leaf = key.rpartition(".")
                found[f"{name}.encoder.layer.{index}.{LAYER_NAMES[module]}.{leaf}"] = tensor
        return found | (self._masked_head() if self.head is None else self._classifier(self.head))

    def _positions(self) -> Tensor:
        """Return positions [rows, d]. RoBERTa numbers them as fairseq does, Electra from the first token's on."""
        table = self.twin.encoder.embed_positions
        return table.weight[table.padding_idx + 1 :] if self.is_electra else table.weight

    def _masked_head(self) -> dict[str, Tensor]:
        encoder, head = self.twin.encoder, self.twin.encoder.lm_head
        dense, norm, bias = ("generator_predictions.dense", "generator_predictions.LayerNorm", "generator_lm_head.bias")
        if not self.is_electra:
            dense, norm, bias = "lm_head.dense", "lm_head.layer_norm", "lm_head.bias"
        found = self._after_maps(dense, head.dense) | of(norm, head.layer_norm) | {bias: head.bias}
        if encoder.output_embedding is not encoder.embed_tokens:
            name = "generator_lm_head" if self.is_electra else "lm_head.decoder"
            found |= {f"{name}.weight": encoder.output_embedding.weight, f"{name}.bias": head.bias}
        return found

    def _classifier(self, head: nn.Module) -> dict[str, Tensor]:
        inner, width = head.dense.out_features, self.sizes.width
        if inner > width or (inner < width and not self.is_electra):
            raise InputError(f"the classification head has inner width {inner}: transformers' has {width}")
        found = self._after_maps("classifier.dense", head.dense) | of("classifier.out_proj", head.out_proj)
        # Electra's missing neurons are padded with zeros: gelu(0) is 0
        more = width - inner
        pads = {"dense.weight": (0, 0, 0, more), "dense.bias": (0, more), "out_proj.weight": (0, more)}
        for key, pad in pads.items():
            found[f"classifier.{key}"] = nn.functional.pad(found[f"classifier.{key}"], pad)
        return found

    def _after_maps(self, name: str, linear: nn.Module) -> dict[str, Tensor]:
        """Return ``linear``, applied to the last layer's output, merged with the map out of that layer."""
        if not self.is_electra:
            return of(name, linear)
        last = self.twin.encoder.maps[-1]
        weight = linear.weight.double() @ last.weight.double()
        bias = linear.weight.double() @ last.bias.double() + linear.bias.double()
        return {f"{name}.weight": weight, f"{name}.bias": bias}


def of(name: str, module: nn.Module) -> dict[str, Tensor]:
    """Return weight and bias of a module under the prefix ``name``."""
    return {f"{name}.weight": module.weight, f"{name}.bias": module.bias}
