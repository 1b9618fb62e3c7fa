"""Folders of translation models for Hugging Face's transformers: the subnets' logits and translations, the words'
numbers, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sentencepiece
import torch
from fairseq.sequence_generator import SequenceGenerator

from mos_fairseq.errors import InputError
from mos_fairseq.export import ExportOptions, find_format, huggingface_translation, save_huggingface_translation
from mos_fairseq.export.check import ExportError
from tests.export.test_stock import EQUAL, UNEQUAL, spoiled, twin_of
from tests.helpers import batch, dictionary

WORDS = dictionary().symbols
FILES = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
# layers that are unequal, on sides of one width
PADDED = UNEQUAL | {"decoder_embed_dim": 24, "decoder_attention_heads": [4, 2], "decoder_ende_attention_heads": [2, 4]}
SEPARATE = {"share_all_embeddings": False}
BEFORE = {"encoder_normalize_before": True, "decoder_normalize_before": True}
CASES = [
    ("FSMT", EQUAL, {}),  # of 12, whose sinusoids are the first columns of those of 24 and 30
    ("FSMT", EQUAL, SEPARATE | {"decoder_learned_pos": True, "max_source_positions": 70}),
    ("FSMT", PADDED, SEPARATE | {"share_decoder_input_output_embed": True, "activation_fn": "gelu_accurate"}),
    ("FSMT", PADDED, {"no_token_positional_embeddings": True, "no_scale_embedding": True, "activation_fn": "swish"}),
    ("Bart", PADDED, {"layernorm_embedding": True}),
    ("MBart", EQUAL, BEFORE | {"layernorm_embedding": True, "activation_fn": "gelu"}),
    ("Pegasus", PADDED, BEFORE | {"encoder_learned_pos": True}),
]


def save(twin, folder, words=(WORDS, WORDS), **options) -> str:
    save_huggingface_translation(twin, words, folder, **{"allow_padding": True} | options)
    return str(folder)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "subnet", "options"), CASES)
@torch.no_grad()
def test_logits_are_the_subnets(transformers, tmp_path, kind, subnet, options):
    twin = twin_of(subnet, **options)
    folder = save(twin, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES
    found, info = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, output_loading_info=True)
    assert type(found).__name__ == f"{kind}ForConditionalGeneration"
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert not found.training and found.config.tie_word_embeddings is ("share_all_embeddings" not in options)
    src, prev, target = batch(left_pad_source=False)
    real = target.ne(1)
    expected = twin(src, src.ne(1).sum(1), prev)[0]
    actual = found(src, attention_mask=src.ne(1).long(), decoder_input_ids=prev).logits
    torch.testing.assert_close(actual[real], expected[real], atol=1e-5, rtol=1e-5)


def prone_to_end(twin):
    """The decoder's last norm moves all words towards </s>, so that no translation runs up to the limit."""
    with torch.no_grad():
        bias = twin.decoder.layers[-1].final_layer_norm.bias
        bias.copy_(3 * torch.randn(len(bias), generator=torch.Generator().manual_seed(1)))
        twin.decoder.output_embedding.weight[2] += 0.15 * bias
    return twin


@pytest.mark.parametrize("beam", [1, 4])
@torch.no_grad()
def test_translations_are_fairseqs(transformers, tmp_path, beam):
    """Return all results of fairseq's search, best first; its default is that of generation_config.json."""
    twin = prone_to_end(twin_of(PADDED, share_all_embeddings=False))
    folder = save(twin, tmp_path / "out")
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)
    search = model.generation_config
    assert (search.num_beams, search.length_penalty, search.early_stopping, search.max_length) == (4, 1.0, True, 51)
    src, _, _ = batch(lengths=[(n, 2) for n in range(2, 12)], left_pad_source=False)
    sample = {"net_input": {"src_tokens": src, "src_lengths": src.ne(1).sum(1)}}
    generator = SequenceGenerator([twin], dictionary(), beam_size=beam, max_len_a=0, max_len_b=49)
    expected = [[entry["tokens"].tolist() for entry in entries] for entries in generator.generate([twin], sample)]
    # where the limit is reached, fairseq counts the </s> that it puts there, and transformers does not
    assert max(len(tokens) for entries in expected for tokens in entries) < 50
    own = {} if beam == 4 else {"num_beams": beam, "early_stopping": False}
    found = model.generate(src, attention_mask=src.ne(1).long(), num_return_sequences=beam, **own)
    rows = [[token for token in row[1:] if token != 1] for row in found.tolist()]
    assert rows == [tokens for entries in expected for tokens in entries]


def text_of(words, numbers) -> list[int]:
    return [words.index(number) for number in numbers]


def test_words_between_spaces(transformers, tmp_path):
    folder = save(twin_of(EQUAL), tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    found = tokenizer(["w3  w0 unheard", "w1"], padding=True)
    assert found.input_ids == [[WORDS.index("w3"), WORDS.index("w0"), 3, 2], [WORDS.index("w1"), 2, 1, 1]]
    assert found.attention_mask == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert tokenizer.decode([2, 7, 8, 2, 1], skip_special_tokens=True) == f"{WORDS[7]} {WORDS[8]}"
    assert tokenizer.model_max_length == 50 and tokenizer.mask_token is None


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fsmt", "bart", "mbart", "pegasus"])
def test_pieces_of_sentencepiece_and_two_dictionaries(transformers, tmp_path, pieces, kind):
    """Also where a model's own tokenizer would put language codes around sentences."""
    options = {"layernorm_embedding": kind in ("bart", "mbart"), **(BEFORE if kind in ("mbart", "pegasus") else {})}
    words = ["<s>", "<pad>", "</s>", "<unk>", *sorted(pieces.symbols)]
    target = ["<s>", "<pad>", "</s>", "<unk>", *reversed(words[4:])] if kind == "fsmt" else words
    twin = twin_of(EQUAL, share_all_embeddings=kind != "fsmt", **options)
    folder = save(twin, tmp_path / "out", (words, target), tokenizer=pieces.path)
    tokenizers = [transformers.AutoTokenizer.from_pretrained(folder)] * 2
    if kind == "fsmt":
        tokenizers[1] = transformers.AutoTokenizer.from_pretrained(folder, subfolder="target")
    for line in ["the cat sat", "a dog ate  the cat's dinner "]:
        for tokenizer, vocabulary in zip(tokenizers, (words, target), strict=True):
            parts = pieces.processor.encode(line, out_type=str)
            assert tokenizer(line).input_ids == [*text_of(vocabulary, parts), 2]
            decoded = tokenizer.decode([2, *text_of(vocabulary, parts), 2], skip_special_tokens=True)
            assert decoded == pieces.processor.decode(parts)


class Pieces:
    """A SentencePiece model, from which dictionaries are made."""

    def __init__(self, folder: Path) -> None:
        (folder / "text").write_text("the cat sat on the mat\na dog ate the cat's dinner\n" * 20)
        sentencepiece.SentencePieceTrainer.train(
            input=str(folder / "text"), model_prefix=str(folder / "sp"), vocab_size=23, minloglevel=2
        )
        self.path = str(folder / "sp.model")
        self.processor = sentencepiece.SentencePieceProcessor(model_file=self.path)
        self.symbols = [self.processor.IdToPiece(i) for i in range(3, len(self.processor))]


@pytest.fixture(scope="module")
def pieces(tmp_path_factory) -> Pieces:
    return Pieces(tmp_path_factory.mktemp("pieces"))


def test_the_format_reads_the_dictionaries(transformers, tmp_path):
    """As mos-export calls it."""
    twin = twin_of(EQUAL)
    for language in "xy":
        dictionary().save(str(tmp_path / f"dict.{language}.txt"))
    task = {"_name": "translation_mos", "source_lang": "x", "target_lang": "y", "data": str(tmp_path)}
    state = {"cfg": {"task": task, "model": {"_name": "transformer_mos"}}, "model": twin.state_dict()}
    chosen = find_format("huggingface")
    chosen.check_family(twin.family)
    chosen.check(twin.subnet, ExportOptions())
    chosen.write(state, twin, tmp_path / "out", ExportOptions())
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "fsmt"
    assert "w3" in transformers.AutoTokenizer.from_pretrained(str(tmp_path / "out")).get_vocab()


REFUSALS = [
    (EQUAL | {"decoder_embed_dim": 24}, {}, "encoder_embed_dim is 12 and decoder_embed_dim is 24: both sides"),
    (EQUAL | {"decoder_arbitrary_ende_attn": [-1, 2]}, {}, r"decoder_arbitrary_ende_attn is \[-1, 2\]: transformers"),
    (EQUAL | {"decoder_ffn_embed_dim": [19, 37]}, {}, "transformers has one size for all layers; padding with zeros"),
    (EQUAL | {"decoder_attention_heads": [4, 2]}, {}, "transformers has one number of heads"),
    (EQUAL, {"encoder_normalize_before": True}, "encoder_normalize_before and decoder_normalize_before differ"),
    (EQUAL, SEPARATE | BEFORE, "share_all_embeddings is not set: transformers' Pegasus"),
    (EQUAL, {"tokenizer": __file__}, "it is no SentencePiece model"),
]


@pytest.mark.parametrize(("subnet", "options", "message"), REFUSALS)
def test_what_cannot_be_expressed_is_refused(tmp_path, subnet, options, message):
    given = {key: options[key] for key in options if key == "tokenizer"}
    twin = twin_of(subnet, **{key: value for key, value in options.items() if key not in given})
    with pytest.raises(InputError, match=message):
        save(twin, tmp_path / "out", allow_padding=False, **given)
    assert not list(tmp_path.iterdir())


def test_transformers_4_is_refused(tmp_path, monkeypatch):
    """Its FSMT wants all words in every step."""
    monkeypatch.setattr(huggingface_translation, "version", lambda name: "4.57.1")
    with pytest.raises(InputError, match="transformers is 4.57.1: translation models are checked with version 5"):
        save(twin_of(EQUAL), tmp_path / "out")


def test_another_model_is_not_written(transformers, tmp_path, monkeypatch):
    change = spoiled("fc2.bias", lambda bias: bias + torch.arange(len(bias)))
    monkeypatch.setattr(huggingface_translation, "layer_weights", change)
    with pytest.raises(ExportError, match="FSMTForConditionalGeneration does not compute what the subnet computes"):
        save(twin_of(EQUAL), tmp_path / "out")
    assert not list(tmp_path.iterdir())
