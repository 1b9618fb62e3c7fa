"""Folders for Hugging Face's transformers compute the same as the subnets, and tokenize into fairseq's numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sentencepiece
import torch
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer

from mos_fairseq.errors import InputError
from mos_fairseq.export import save_huggingface
from mos_fairseq.export.tokenizer import save_tokenizer
from mos_fairseq.models import RobertaSubnetModel
from mos_fairseq.search_space import SearchSpace
from tests.helpers import masked_language_model, perturb
from tests.models.test_masked_language_model import sentences
from tests.spaces import BERT_SPACE, BOTTLENECK_SPACE, FACTORISED_SPACE

SPACES = {"roberta": BERT_SPACE, "electra": FACTORISED_SPACE}


def twin_of(space: dict, which: str = "random", **options) -> RobertaSubnetModel:
    space = SearchSpace.from_dict(space)
    model = masked_language_model(space, mos_routing="neuron", **options)
    model.set_active_subnet(space.sample_subnet(5) if which == "random" else getattr(space, which)())
    return model.get_active_subnet()


def words_of(twin: RobertaSubnetModel) -> list[str]:
    return [*twin.encoder.dictionary.symbols[:-1], "<mask>"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("which", ["largest", "smallest", "random"])
@pytest.mark.parametrize("untied", [False, True])
def test_masked_predictions_are_the_subnets(transformers, tmp_path, kind, which, untied):
    twin = twin_of(SPACES[kind], which, untie_weights_roberta=untied)
    save_huggingface(twin, words_of(twin), tmp_path / "out", allow_padding=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert len({path.stat().st_mode for path in (tmp_path / "out").iterdir()}) == 1  # readable by whoever reads one
    found, info = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert type(found).__name__.lower().startswith(kind)
    tokens = sentences()
    real = tokens.ne(1)
    with torch.no_grad():
        expected, actual = twin(tokens)[0], found.eval()(tokens, attention_mask=real.long()).logits
    torch.testing.assert_close(actual[real], expected[real], atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SPACES)
def test_classes_are_the_subnets(transformers, tmp_path, kind):
    which, activation = {"roberta": ("random", "tanh"), "electra": ("largest", "gelu")}[kind]
    twin = twin_of(SPACES[kind], which, pooler_activation_fn=activation)
    twin.register_classification_head("genre", num_classes=3)
    perturb(twin.eval())
    save_huggingface(twin, words_of(twin), tmp_path / "out", allow_padding=True, labels=["prose", "verse"])
    found, info = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert found.config.id2label == {0: "prose", 1: "verse", 2: "LABEL_2"}
    tokens = sentences()
    with torch.no_grad():
        expected = twin(tokens, classification_head_name="genre")[0]
        actual = found.eval()(tokens, attention_mask=tokens.ne(1).long()).logits
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_words_between_spaces(transformers, tmp_path):
    twin = twin_of(BERT_SPACE, "largest")
    words = words_of(twin)
    save_huggingface(twin, words, tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("w3  w0 unheard <mask>").input_ids == [0, words.index("w3"), words.index("w0"), 3, 30, 2]
    assert tokenizer("w3", "w0").input_ids == [0, words.index("w3"), 2, 2, words.index("w0"), 2]
    assert tokenizer(["w3", "w0 w1"], padding=True).input_ids[0] == [0, words.index("w3"), 2, 1]
    assert tokenizer.mask_token_id == 30 and tokenizer.model_max_length == 50
    fill = transformers.pipeline("fill-mask", model=str(tmp_path / "out"), top_k=2)
    found = fill("w3 <mask> w5")
    tokens = torch.tensor([[0, words.index("w3"), 30, words.index("w5"), 2]])
    best = torch.softmax(twin(tokens)[0][0, 2], -1).topk(2)
    assert [entry["token"] for entry in found] == best.indices.tolist()
    assert [entry["score"] for entry in found] == pytest.approx(best.values.tolist(), abs=1e-5)


def test_pieces_of_sentencepiece(transformers, tmp_path):
    """Their numbers come from the dictionary, which has another order and not all of them."""
    lines = ["the cat sat on the mat", "a dog ate the cat's dinner", "Ａ ﬁne  day, the dog sat"] * 20
    (tmp_path / "text").write_text("\n".join(lines))
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"), model_prefix=str(tmp_path / "sp"), vocab_size=28, minloglevel=2
    )
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "sp.model"))
    symbols = sorted(pieces.IdToPiece(i) for i in range(3, len(pieces)))
    words = ["<s>", "<pad>", "</s>", "<unk>", *symbols, "madeupword0", "<mask>"]
    twin = twin_of(BERT_SPACE, "smallest")
    twin.encoder.dictionary.symbols = words  # the sizes in the folder depend on their number only
    save_huggingface(twin, words, tmp_path / "out", tokenizer=str(tmp_path / "sp.model"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    for line in [*lines[:3], "  the ﬁne mat ", "the dog's cat"]:
        expected = [words.index(piece) for piece in pieces.encode(line, out_type=str)]
        assert tokenizer(line).input_ids == [0, *expected, 2], line
        decoded = tokenizer.decode(tokenizer(line).input_ids, skip_special_tokens=True)
        assert decoded == pieces.decode(pieces.encode(line))


@pytest.fixture(scope="module")
def with_bytes(tmp_path_factory) -> Path:
    """A SentencePiece model that falls back to bytes."""
    folder = tmp_path_factory.mktemp("bytes")
    (folder / "text").write_text("the cat sat on the mat\n" * 20)
    options = {"vocab_size": 280, "byte_fallback": True, "hard_vocab_limit": False, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(input=str(folder / "text"), model_prefix=str(folder / "sp"), **options)
    return folder / "sp.model"


def pieces_of(path: Path) -> tuple[sentencepiece.SentencePieceProcessor, list[str]]:
    """The model, and fairseq's words: its pieces in reverse order."""
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
    return pieces, ["<s>", "<pad>", "</s>", "<unk>", *(pieces.IdToPiece(i) for i in reversed(range(3, len(pieces))))]


def test_characters_that_are_no_pieces_become_bytes(with_bytes, tmp_path):
    (pieces, words), line = pieces_of(with_bytes), "the é mat"
    save_tokenizer(words, str(tmp_path), str(with_bytes), 50, translation=True)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    found, split = tokenizer.encode(line).ids, pieces.encode(line, out_type=str)
    assert "<0xC3>" in split and found == [*map(words.index, split), 2] and tokenizer.decode(found) == line


def test_pieces_that_are_no_words_are_reported(with_bytes, tmp_path, caplog):
    _, words = pieces_of(with_bytes)
    save_tokenizer(words, str(tmp_path), str(with_bytes), 50, translation=True)
    assert not caplog.messages
    left = [word for word in words if word not in ("<0xC3>", "t")]
    save_tokenizer(left, str(tmp_path), str(with_bytes), 50, translation=True)
    (message,) = caplog.messages
    assert f"2 of its {len(words) - 4} pieces are no words of the dictionary (<0xC3>, t): where" in message


@pytest.mark.parametrize(
    ("name", "value"),
    [("remove_extra_whitespaces", False), ("escape_whitespaces", False), ("treat_whitespace_as_suffix", True)],
)
def test_what_tokenizers_of_sentencepiece_may_not_do(with_bytes, tmp_path, name, value):
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(with_bytes.read_bytes())
    setattr(model.trainer_spec if name.startswith("treat") else model.normalizer_spec, name, value)
    (tmp_path / "sp.model").write_bytes(model.SerializeToString())
    words = pieces_of(with_bytes)[1]
    with pytest.raises(InputError, match=f"its {name} is {value}, supported is {not value}$"):
        save_tokenizer(words, str(tmp_path), str(tmp_path / "sp.model"), 50)


def test_a_tokenizer_of_hugging_faces_is_renumbered(transformers, tmp_path):
    content = {
        "version": "1.0",
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {
            "type": "WordPiece",
            "vocab": {"[UNK]": 0, "w1": 1, "##w2": 2, "w3": 3, "gone": 4},
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
        },
        "added_tokens": [],
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    twin = twin_of(BERT_SPACE, "smallest")
    words = words_of(twin)
    words[words.index("w2")] = "##w2"
    save_huggingface(twin, words, tmp_path / "out", tokenizer=str(tmp_path / "tokenizer.json"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    numbers = [words.index(word) for word in ("w1", "##w2", "w3")]
    assert tokenizer("W1w2 w3 gone <mask>").input_ids == [0, *numbers, 3, 30, 2]


def refusals() -> list[tuple[RobertaSubnetModel, dict, str]]:
    uneven = twin_of(BERT_SPACE, "largest")
    uneven.register_classification_head("a", num_classes=2)
    uneven.register_classification_head("b", num_classes=2)
    narrow = twin_of(BERT_SPACE, "largest")
    narrow.register_classification_head("a", num_classes=2, inner_dim=7)
    electra = twin_of(FACTORISED_SPACE, "largest")
    electra.register_classification_head("a", num_classes=2)
    return [
        (twin_of(BOTTLENECK_SPACE), {}, "encoder_bottleneck_dim is .*: transformers has no model with a map before"),
        (twin_of(BERT_SPACE), {}, "(ffn_embed_dim is|encoder has) .*: transformers has one .*padding with zeros"),
        (twin_of(BERT_SPACE, "largest", encoder_normalize_before=True), {}, "encoder_normalize_before is set"),
        (twin_of(BERT_SPACE, "largest", activation_fn="relu"), {}, "activation_fn is relu"),
        (twin_of(FACTORISED_SPACE | {"encoder_hidden_dim": [14]}, "largest"), {}, "encoder_hidden_dim is 14, as wide"),
        (uneven, {}, "the model has 2 classification heads"),
        (narrow, {}, "the classification head has inner width 7"),
        (electra, {"allow_padding": True}, "pooler_activation_fn is tanh: .* has gelu; fine-tune with"),
        (twin_of(BERT_SPACE, "largest"), {"tokenizer": __file__}, "it is no SentencePiece model"),
        (twin_of(BERT_SPACE, "largest"), {"tokenizer": "none.json"}, "none.json: cannot be read"),
    ]


def test_what_cannot_be_written_is_refused_and_nothing_written(tmp_path):
    for twin, options, message in refusals():
        with pytest.raises(InputError, match=message):
            save_huggingface(twin, words_of(twin), tmp_path / "out", **options)
        assert not list(Path(tmp_path).iterdir()), message
