"""Progressive shrinking: the content of a search space after a number of updates, and the users' notation."""

import pytest

from mos_fairseq.errors import InputError
from mos_fairseq.search_space import ElasticSchedule, SearchSpace
from tests.helpers import small_space

SPACE = small_space()


def at(spec: str, update: int) -> SearchSpace:
    return ElasticSchedule.from_spec(spec, SPACE).space_at(update)


def test_a_dimension_stays_at_its_largest_until_its_update():
    spec = "decoder_ffn_embed_dim:20, decoder_layers:40"
    for update, changes in (
        (0, {"decoder_ffn_embed_dim": [37], "decoder_layers": [3]}),
        (19, {"decoder_ffn_embed_dim": [37], "decoder_layers": [3]}),
        (20, {"decoder_layers": [3]}),
        (39, {"decoder_layers": [3]}),
        (40, {}),
        (4000, {}),
    ):
        assert at(spec, update) == small_space(**changes), update


def test_one_choice_at_a_time():
    spec = "decoder_layers:5:9,decoder_arbitrary_ende_attn:0:7"
    whole = [2, 1, -1]
    for update, layers, spans in ((0, [3], [2, 1]), (5, [3, 2], [2, 1]), (7, [3, 2], whole), (9, [3, 2, 1], whole)):
        assert at(spec, update) == small_space(decoder_layers=layers, decoder_arbitrary_ende_attn=spans)
    # fewer numbers than choices: the last one adds all that are left
    assert at("encoder_attention_heads:5", 5).encoder_attention_heads == (4, 2, 1)


def test_what_it_draws_lies_in_the_whole_space():
    schedule = ElasticSchedule.from_spec("encoder_embed_dim:10,decoder_layers:20:30", SPACE)
    for update in range(40):
        space = schedule.space_at(update)
        assert space.largest() == SPACE.largest()
        for index in range(5):
            subnet = space.sample_subnet("train", 1, update, index)
            SPACE.check(subnet)
            assert update >= 10 or subnet.encoder_embed_dim == 20
            assert update >= 20 or subnet.decoder_layers == 3
            assert update >= 30 or subnet.decoder_layers > 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("decoder_layers", "decoder_layers.*allowed is KEY:UPDATES"),
        ("decoder_layers:", "allowed is KEY:UPDATES"),
        ("decoder_layers:4k", "4k.*allowed is KEY:UPDATES"),
        ("decoder_layers:-4", "allowed is KEY:UPDATES"),
        ("decoder_layers:4,", "allowed is KEY:UPDATES"),
        ("decoder_depth:4", "decoder_depth.*no elastic dimension.*decoder_layers"),
        ("qkv_dim:4", "qkv_dim.*no elastic dimension"),
        ("decoder_layers:4,decoder_layers:5", "decoder_layers is given twice"),
        ("decoder_layers:5:4", "must ascend"),
        ("decoder_layers:5:5", "must ascend"),
        ("decoder_layers:5:6:7", "3 numbers.*3 choices of decoder_layers, which allow 2"),
    ],
)
def test_bad_schedules(spec, message):
    with pytest.raises(InputError, match=message) as error:
        ElasticSchedule.from_spec(spec, SPACE)
    assert "\n" not in str(error.value) and "elastic_from" in str(error.value)


def test_a_fixed_dimension_is_refused():
    with pytest.raises(InputError, match="1 numbers.*1 choices of encoder_layers, which allow 0"):
        ElasticSchedule.from_spec("encoder_layers:5", small_space(encoder_layers=[3]))
