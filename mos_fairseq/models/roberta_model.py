"""Common parts of the masked language model's supernet and static twin as fairseq models."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from fairseq import hub_utils
from fairseq.data import Dictionary
from fairseq.models import FairseqEncoderModel
from fairseq.models.roberta.hub_interface import RobertaHubInterface
from torch import Tensor, nn

from mos_fairseq.errors import InputError
from mos_fairseq.models.roberta_encoder import RobertaEncoder
from mos_fairseq.models.transformer_config import RobertaBaseConfig, check_rates
from mos_fairseq.models.transformer_stack import LayerKit
from mos_fairseq.modules import ClassificationHead
from mos_fairseq.search_space import FAMILIES, Subnet

logger = logging.getLogger(__name__)

_HEADS = "classification_heads."


class RobertaModel(FairseqEncoderModel):
    """Masked language model with the interface of fairseq's ``roberta``."""

    family = FAMILIES["encoder_only"]
    finetuning_tasks = ("sentence_prediction",)  # fairseq's own tasks

    def __init__(self, cfg: RobertaBaseConfig, encoder: RobertaEncoder) -> None:
        super().__init__(encoder)
        check_rates(cfg, "pooler_dropout")
        self.cfg = cfg
        self.classification_heads = nn.ModuleDict()

    @staticmethod
    def dictionaries_of(task: Any) -> tuple[Dictionary]:
        """Return the dictionary in a tuple: one for each stack."""
        return (task.source_dictionary,)

    @classmethod
    def build_stacks(
        cls,
        cfg: RobertaBaseConfig,
        subnet: Subnet,
        dictionaries: Sequence[Dictionary],
        kit: LayerKit,
        position_dims: Sequence[int] | None = None,
    ) -> tuple[RobertaEncoder]:
        """Build the encoder in the sizes of ``subnet``; see :meth:`TransformerStack.init_stack`."""
        (stack,), (dictionary,) = cls.family.stacks, dictionaries
        if cfg.max_positions is None:
            raise InputError("max_positions is not given, and the task has none: give --max-positions N")
        return (RobertaEncoder(cfg, dictionary, stack, subnet, kit),)

    @property
    def supported_targets(self) -> set[str]:
        """Return fairseq's names of the predicted targets."""
        return {"self"}

    def forward(
        self,
        src_tokens: Tensor,
        features_only: bool = False,
        return_all_hiddens: bool = False,
        classification_head_name: str | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, dict]:
        """Compute :meth:`RobertaEncoder.forward`, or with ``classification_head_name`` its logits [B, classes]."""
        features_only = features_only or classification_head_name is not None
        x, extra = self.encoder(src_tokens, features_only, return_all_hiddens, **kwargs)
        if classification_head_name is not None:
            x = self.classification_heads[classification_head_name](x)
        return x, extra

    def get_normalized_probs(self, net_output: tuple, log_probs: bool, sample: Any = None) -> Tensor:
        """Return probabilities, or their logarithms, of the model's output."""
        logits = net_output[0].float()
        return torch.log_softmax(logits, -1) if log_probs else torch.softmax(logits, -1)

    # --- classification heads --------------------------------------------------------------------------------------

    @torch.inference_mode(False)  # independent of the caller's mode: training may follow
    def register_classification_head(
        self, name: str, num_classes: int | None = None, inner_dim: int | None = None, **kwargs: Any
    ) -> None:
        """Make a head; it replaces any head of that name.

        Args:
            inner_dim: width between its linears; default: the features' width.
        """
        width, kit = self._largest_width(), self.encoder.kit
        inner_dim = None if inner_dim == width else inner_dim
        dense, out_proj = kit.linear(width, inner_dim or width), kit.linear(inner_dim or width, num_classes)
        activation, dropout = str(self.cfg.pooler_activation_fn), self.cfg.pooler_dropout
        head = ClassificationHead(dense, out_proj, activation, dropout, inner_dim).to(self.encoder.lm_head.bias)
        if name in self.classification_heads:
            logger.warning('the classification head "%s" is replaced', name)
        self.classification_heads[name] = head

    def _largest_width(self) -> int:
        return self.encoder.embed_tokens.embedding_dim

    def upgrade_state_dict_named(self, state_dict: dict[str, Tensor], name: str) -> None:
        """Load classification heads as fairseq's ``roberta`` does. With ``--load-checkpoint-heads``, heads that this
        model lacks or has in another size are made; without it they are left out. Further heads of this model keep
        their values."""
        super().upgrade_state_dict_named(state_dict, name)
        prefix = f"{name}." if name else ""
        prefix += _HEADS
        for head in sorted({key.removeprefix(prefix).split(".")[0] for key in state_dict if key.startswith(prefix)}):
            start = f"{prefix}{head}."
            classes, inner = (state_dict[f"{start}{part}.bias"].size(-1) for part in ("out_proj", "dense"))
            mine = self.classification_heads[head] if head in self.classification_heads else None
            if mine is None and self.cfg.load_checkpoint_heads:
                self.register_classification_head(head, classes, inner)
            elif mine is None or (mine.num_classes, mine.dense.bias.size(-1)) != (classes, inner):
                logger.warning('the classification head "%s" of the weights is left out: this model lacks it', head)
                for key in [key for key in state_dict if key.startswith(start)]:
                    del state_dict[key]
        for key, value in self.classification_heads.state_dict().items():
            state_dict.setdefault(prefix + key, value)

    # --- hub -------------------------------------------------------------------------------------------------------

    @classmethod
    def hub_models(cls) -> dict[str, str]:
        """Return no models: none are published."""
        return {}

    @classmethod
    def from_pretrained(
        cls,
        model_name_or_path: str,
        checkpoint_file: str = "model.pt",
        data_name_or_path: str = ".",
        bpe: str | None = None,
        **kwargs: Any,
    ) -> RobertaHubInterface:
        """Return fairseq's interface to a checkpoint in a folder, with its classification heads."""
        found = hub_utils.from_pretrained(
            model_name_or_path, checkpoint_file, data_name_or_path, bpe=bpe, load_checkpoint_heads=True, **kwargs
        )
        return RobertaHubInterface(found["args"], found["task"], found["models"][0])
