"""Reading a BERT or RoBERTa of Hugging Face's: a folder with config.json, model.safetensors and a vocabulary. Never a
pickle, never code."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from fairseq.data import Dictionary
from fairseq.dataclass.configs import FairseqConfig
from fairseq.tasks.masked_lm import MaskedLMConfig
from omegaconf import OmegaConf
from torch import Tensor

from mos_fairseq.errors import InputError
from mos_fairseq.export.huggingface import LAYER_NAMES
from mos_fairseq.export.stock_sizes import StockSizes
from mos_fairseq.files import read_text
from mos_fairseq.tasks import MaskedLmMosTask
from mos_fairseq.warm_start.roberta import MaskedModel, dense_model

# the special words of each kind, in the order of fairseq's <s>, <pad>, </s>, <unk> and <mask>
_SPECIAL = {
    "bert": ("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"),
    "roberta": ("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
}
_HEAD = {
    "bert": {"dense": "cls.predictions.transform.dense", "layer_norm": "cls.predictions.transform.LayerNorm"},
    "roberta": {"dense": "lm_head.dense", "layer_norm": "lm_head.layer_norm"},
}
_BIAS = {"bert": "cls.predictions.bias", "roberta": "lm_head.bias"}
_NEWER = {"gamma": "weight", "beta": "bias"}
_DECODER = {"bert": "cls.predictions.decoder.weight", "roberta": "lm_head.decoder.weight"}


def read_huggingface(folder: str) -> MaskedModel:
    """Read a folder.

    Its tokens become fairseq's dictionary: the special ones in fairseq's places, the others in their order, ``<mask>``
    last. Token type 0, which single sentences have throughout, becomes part of the positions.

    Raises:
        InputError: a file is missing or cannot be read, or the model is of another kind or uses an option that
            supernets lack.
    """
    path = Path(folder)
    config = _json(path / "config.json")
    kind = config.get("model_type")
    if kind not in _SPECIAL:
        raise InputError(f"{folder}: its model_type is {kind}, allowed are {', '.join(_SPECIAL)}")
    for name, wanted in (("position_embedding_type", "absolute"), ("hidden_act", "gelu"), ("is_decoder", False)):
        if config.get(name, wanted) != wanted:
            raise InputError(f"{folder}: {name} is {config[name]}, supernets have {wanted}")
    names = ("hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads")
    sizes = StockSizes(*(_size(config, name, folder) for name in names))
    tensors = _tensors(path / "model.safetensors", kind)
    tokens = _tokens(path)
    words, order = _in_fairseqs_order(tokens, _SPECIAL[kind], folder)
    stock = dict(_stock_names(tensors, kind, sizes.layers, order, folder))
    options = {
        "max_positions": len(stock["encoder.sentence_encoder.embed_positions.weight"]) - words.pad() - 1,
        "layer_norm_eps": _number(config, "layer_norm_eps", 1e-12, folder),
        "dropout": _number(config, "hidden_dropout_prob", 0.1, folder),
        "attention_dropout": _number(config, "attention_probs_dropout_prob", 0.1, folder),
        "untie_weights_roberta": "encoder.lm_head.weight" in stock,
    }
    model = dense_model(options, sizes, words, stock, folder)
    has_head = "encoder.lm_head.dense.weight" in stock
    return MaskedModel(_state(options["max_positions"]), model, words.symbols[:-1], has_head)


def _json(path: Path) -> dict[str, Any]:
    text = read_text(path)
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise InputError(f"{path}: it is no object of JSON")
    return content


def _size(config: Mapping[str, Any], name: str, folder: str) -> int:
    if name not in config:
        raise InputError(f"{folder}: config.json lacks {name}")
    if type(config[name]) is not int or config[name] < 1:  # a bool is no size
        raise InputError(f"{folder}: {name} is {config[name]}: allowed are whole numbers from 1 up")
    return config[name]


def _number(config: Mapping[str, Any], name: str, default: float, folder: str) -> float:
    value = config.get(name, default)
    if type(value) not in (int, float) or not 0 <= value < math.inf:
        raise InputError(f"{folder}: {name} is {value}: allowed are numbers from 0 up")
    return float(value)


def _tensors(path: Path, kind: str) -> dict[str, Tensor]:
    """Tensors by name, without the name of the model that some begin with."""
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise InputError(f"{path} needs an extra: pip install 'mos-fairseq[huggingface]'") from None
    if not path.is_file():
        raise InputError(f"{path}: no such file (pickled weights are not read: save the model with safetensors)")
    try:
        found = load_file(path)
    except (SafetensorError, OSError):
        raise InputError(f"{path}: it is no file of safetensors") from None
    return {_newer(name.removeprefix(f"{kind}.")): tensor for name, tensor in found.items()}


def _newer(name: str) -> str:
    """The name of a norm's weight or bias, which is gamma or beta in files of the first BERTs, Google's among them."""
    module, _, leaf = name.rpartition(".")
    return f"{module}.{_NEWER[leaf]}" if leaf in _NEWER else name


def _tokens(folder: Path) -> dict[str, int]:
    """Numbers of tokens: of vocab.txt, vocab.json, or tokenizer.json."""
    if (folder / "vocab.txt").is_file():
        lines = read_text(folder / "vocab.txt").split("\n")
        return {line.rstrip("\r"): number for number, line in enumerate(lines) if line}
    if (folder / "vocab.json").is_file():
        return _json(folder / "vocab.json")
    if not (folder / "tokenizer.json").is_file():
        raise InputError(f"{folder}: it lacks vocab.txt, vocab.json and tokenizer.json, of which one is needed")
    content = _json(folder / "tokenizer.json")
    try:
        vocabulary = content["model"]["vocab"]
        known = dict(vocabulary) if isinstance(vocabulary, dict) else {w: i for i, (w, _) in enumerate(vocabulary)}
        return known | {token["content"]: token["id"] for token in content.get("added_tokens", [])}
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{folder / 'tokenizer.json'}: it has no vocabulary") from None


def _in_fairseqs_order(
    tokens: Mapping[str, int], special: tuple[str, ...], folder: str
) -> tuple[Dictionary, list[int]]:
    """fairseq's dictionary, and the number of each of its words among ``tokens``."""
    if missing := [token for token in special if token not in tokens]:
        raise InputError(f"{folder}: its vocabulary lacks {', '.join(missing)}")
    if wrong := [token for token, number in tokens.items() if type(number) is not int or number < 0]:
        raise InputError(f"{folder}: the number of token {wrong[0]!r} is {tokens[wrong[0]]}, no whole number from 0 up")
    words, order = Dictionary(), [tokens[token] for token in special[:-1]]
    for token, number in sorted(tokens.items(), key=lambda item: item[1]):
        if token in special:
            continue
        if token in words or any(character.isspace() for character in token):
            raise InputError(f"{folder}: its token {token!r} (number {number}) can be no word of fairseq's dictionary")
        words.add_symbol(token)
        order.append(number)
    words.add_symbol(*MaskedLmMosTask.added_symbols)
    return words, [*order, tokens[special[-1]]]


def _stock_names(
    tensors: Mapping[str, Tensor], kind: str, layers: int, order: list[int], folder: str
) -> Iterator[tuple[str, Tensor]]:
    """Weights under the names of fairseq's ``roberta``, words in ``order``."""

    def take(name: str) -> Tensor:
        if name not in tensors:
            raise InputError(f"{folder}: model.safetensors lacks {name}")
        return tensors[name].float()

    prefix = "encoder.sentence_encoder."
    table, index = take("embeddings.word_embeddings.weight"), torch.tensor(order)
    if int(index.max()) >= len(table):
        raise InputError(f"{folder}: its vocabulary has token {int(index.max())}, its embeddings {len(table)} rows")
    yield f"{prefix}embed_tokens.weight", table[index]
    positions = take("embeddings.position_embeddings.weight")
    if "embeddings.token_type_embeddings.weight" in tensors:
        positions = positions + take("embeddings.token_type_embeddings.weight")[0]
    if kind == "bert":  # fairseq begins to count after the padding's number
        positions = torch.cat([positions.new_zeros(2, positions.size(1)), positions])
    yield f"{prefix}embed_positions.weight", positions
    modules = {f"{prefix}layernorm_embedding": "embeddings.LayerNorm"}
    for number in range(layers):
        modules |= {f"{prefix}layers.{number}.{k}": f"encoder.layer.{number}.{v}" for k, v in LAYER_NAMES.items()}
    if f"{_HEAD[kind]['dense']}.weight" in tensors:
        modules |= {f"encoder.lm_head.{name}": theirs for name, theirs in _HEAD[kind].items()}
        yield "encoder.lm_head.bias", take(_BIAS[kind])[index]
        if _DECODER[kind] in tensors and not torch.equal(take(_DECODER[kind]), table):
            yield "encoder.lm_head.weight", take(_DECODER[kind])[index]
    for mine, theirs in modules.items():
        for leaf in ("weight", "bias"):
            yield f"{mine}.{leaf}", take(f"{theirs}.{leaf}")


def _state(max_positions: int) -> dict[str, Any]:
    """What a checkpoint of fairseq-train would hold besides the model, none of it trained."""
    cfg: Any = OmegaConf.to_container(OmegaConf.structured(FairseqConfig), enum_to_str=True)
    task: Any = OmegaConf.to_container(OmegaConf.structured(MaskedLMConfig), enum_to_str=True)
    task |= {"_name": MaskedLmMosTask.name, "data": "", "tokens_per_sample": max_positions, "seed": 1}
    return {"cfg": cfg | {"task": task, "criterion": {"_name": MaskedLmMosTask.stock_criterion}}}
