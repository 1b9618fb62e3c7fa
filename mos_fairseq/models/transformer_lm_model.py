"""Common parts of the language model's supernet and static twin as fairseq models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fairseq.data import Dictionary
from fairseq.models import FairseqLanguageModel

from mos_fairseq.models.transformer_config import TransformerLanguageModelBaseConfig
from mos_fairseq.models.transformer_decoder import TransformerDecoder
from mos_fairseq.models.transformer_stack import LayerKit, embedding_table
from mos_fairseq.search_space import FAMILIES, Subnet


class TransformerLanguageModel(FairseqLanguageModel):
    """Decoder-only model with fairseq's usual forward arguments."""

    family = FAMILIES["decoder_only"]

    def __init__(self, cfg: TransformerLanguageModelBaseConfig, decoder: TransformerDecoder) -> None:
        super().__init__(decoder)
        self.cfg = cfg

    @staticmethod
    def dictionaries_of(task: Any) -> tuple[Dictionary]:
        """Return the dictionary in a tuple: one for each stack."""
        return (task.target_dictionary,)

    @classmethod
    def build_stacks(
        cls,
        cfg: TransformerLanguageModelBaseConfig,
        subnet: Subnet,
        dictionaries: Sequence[Dictionary],
        kit: LayerKit,
        position_dims: Sequence[int] | None = None,
    ) -> tuple[TransformerDecoder]:
        """Build the decoder in the sizes of ``subnet``; see :meth:`TransformerStack.init_stack`."""
        if cfg.max_target_positions is None:
            cfg.max_target_positions = cfg.tokens_per_sample
        (stack,), (dictionary,) = cls.family.stacks, dictionaries
        width = subnet.width(stack.name)
        inputs = embedding_table(dictionary, width)
        outputs = inputs if cfg.share_decoder_input_output_embed else embedding_table(dictionary, width)
        position_dim = position_dims[0] if position_dims else None
        return (TransformerDecoder(cfg, dictionary, inputs, outputs, stack, subnet, kit, position_dim),)
