"""sacreBLEU's metrics by name, and the warning where BLEU cannot mean anything."""

import pytest
import sacrebleu

from mos_fairseq.errors import InputError
from mos_fairseq.evaluation import scoring
from mos_fairseq.evaluation.evaluator import EvaluationOptions
from mos_fairseq.evaluation.scoring import TEXT_METRICS, TOKENIZERS, signature, text_metric, warning_of_tokens

CHINESE = ["这本书讲的是一个关于海洋的故事。", "我们明天早上坐火车去北京开会。", "请把文件保存在您的计算机上。"]
JAPANESE = ["この本は海についての物語です。", "明日の朝、電車で東京へ行きます。", "ファイルを保存してください。"]
THAI = ["หนังสือเล่มนี้เป็นเรื่องเกี่ยวกับทะเล", "พรุ่งนี้เช้าเราจะนั่งรถไฟไปกรุงเทพ", "โปรดบันทึกไฟล์ไว้ในคอมพิวเตอร์"]
KHMER = ["សៀវភៅនេះនិយាយអំពីសមុទ្រ", "យើងនឹងធ្វើដំណើរតាមរថភ្លើងនៅថ្ងៃស្អែក"]
GERMAN = ["Dieses Buch erzählt eine Geschichte vom Meer.", "Donaudampfschifffahrtsgesellschaft, Kapitän."]
KOREAN = ["이 책은 바다에 관한 이야기입니다.", "우리는 내일 아침 기차로 서울에 갑니다."]
# words between spaces, as segmenters leave them
SEGMENTED = ["这 本 书 讲 的 是 一个 关于 海洋 的 故事 。", "我们 明天 早上 坐 火车 去 北京 开会 。"]
MIXED = ["Open the file 文件 and choose Save As.", "The word 计算机 means computer."]


@pytest.mark.parametrize("tokenizer", ["13a", "intl", "none"])
@pytest.mark.parametrize(
    ("references", "warned"),
    [(CHINESE, True), (JAPANESE, True), (THAI, True), (KHMER, True)]
    + [(lines, False) for lines in (GERMAN, KOREAN, SEGMENTED, MIXED, [], [""])],
)
def test_warning_where_words_are_not_found(tokenizer, references, warned):
    warning = warning_of_tokens(text_metric("bleu", tokenizer), references)
    assert (warning is not None) == warned
    if warned:
        assert f"tokenizer {tokenizer} " in warning and "--sacrebleu-tokenizer" in warning and "chrf" in warning


@pytest.mark.parametrize(
    ("metric", "tokenizer", "references", "warned"),
    [
        ("bleu", "zh", CHINESE, False),
        ("bleu", "zh", THAI, True),
        ("bleu", "char", THAI, False),
        ("bleu", "char", JAPANESE, False),
        ("chrf", "13a", CHINESE, False),
    ],
)
def test_a_tokenizer_that_fits_is_not_warned_of(metric, tokenizer, references, warned):
    assert (warning_of_tokens(text_metric(metric, tokenizer), references) is not None) == warned


def test_scores_are_sacrebleus():
    hypotheses = ["这本书讲的是一个关于山的故事。", "我们明天坐火车去北京开会。", "请把文件保存在计算机上。"]
    for tokenizer in ("13a", "zh", "char"):
        wanted = sacrebleu.corpus_bleu(hypotheses, [CHINESE], tokenize=tokenizer).score
        assert text_metric("bleu", tokenizer).corpus_score(hypotheses, [CHINESE]).score == wanted
    assert text_metric("bleu").corpus_score(hypotheses, [CHINESE]).score < wanted / 2
    chrf = text_metric("chrf")
    assert chrf.corpus_score(hypotheses, [CHINESE]).score == sacrebleu.corpus_chrf(hypotheses, [CHINESE]).score
    assert "|tok:zh|" in signature(text_metric("bleu", "zh")) and "nrefs:1|" in signature(chrf)
    assert set(TEXT_METRICS) == {"bleu", "chrf"} and {"13a", "zh", "char"} <= set(TOKENIZERS)


def test_a_tokenizer_that_is_not_installed(monkeypatch):
    def missing(**options: object):
        raise RuntimeError("Please install the latest mecab-python3\n")

    monkeypatch.setattr(scoring, "BLEU", missing)
    with pytest.raises(InputError, match=r"sacrebleu_tokenizer is ja-mecab: .* \(Please install the latest mecab"):
        text_metric("bleu", "ja-mecab")


def test_options():
    """The default leaves the identity of options as it was before there was a choice, so that judged files stay."""
    assert "sacrebleu_tokenizer" not in EvaluationOptions("bleu").identity()
    assert EvaluationOptions("bleu", sacrebleu_tokenizer="zh").identity()["sacrebleu_tokenizer"] == "zh"
    for objective in ("loss", "chrf"):
        with pytest.raises(InputError, match=f"is zh: it belongs to bleu, objective is {objective}"):
            EvaluationOptions(objective, sacrebleu_tokenizer="zh")
    with pytest.raises(InputError, match="sacrebleu_tokenizer is 14a: allowed are none, zh, 13a"):
        EvaluationOptions("bleu", sacrebleu_tokenizer="14a")
