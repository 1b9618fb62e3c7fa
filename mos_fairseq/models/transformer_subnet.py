"""``transformer_subnet``: the static twin of a ``transformer_mos`` subnet, a plain dense Transformer of its sizes.

``get_active_subnet`` of a supernet returns it. It can also be trained from scratch with fairseq's ``translation``
task: ``--arch transformer_subnet --subnet FILE``.
"""

from dataclasses import dataclass, field
from typing import Any, Optional  # fairseq reads the annotations and does not support `str | None`

from fairseq.models import register_model

from mos_fairseq.models.static_twin import StaticTwin
from mos_fairseq.models.trained_parts import ALL, check_parts, train_parts
from mos_fairseq.models.transformer_config import TransformerBaseConfig
from mos_fairseq.models.transformer_model import TransformerModel


@dataclass
class TransformerSubnetConfig(TransformerBaseConfig):
    """Options of the static twin."""

    subnet: Optional[str] = field(
        default=None,
        metadata={"help": "the architecture: a YAML file of a subnet (ours or HAT's keys), or its inline JSON"},
    )
    trained_parts: str = field(
        default=ALL,
        metadata={"help": "parameters that train: all, or few of them: norms, biases, or both, separated by a comma"},
    )


@register_model("transformer_subnet", dataclass=TransformerSubnetConfig)
class TransformerSubnetModel(StaticTwin, TransformerModel):
    """Static twin for translation."""

    arch, config = "transformer_subnet", TransformerSubnetConfig

    @classmethod
    def build_model(cls, cfg: TransformerSubnetConfig, task: Any) -> "TransformerSubnetModel":
        """Build as :meth:`StaticTwin.build_model`; only ``--trained-parts`` get gradients.

        Raises:
            InputError: as there, or a part does not exist.
        """
        parts = check_parts(cfg.trained_parts, "trained_parts")
        model = super().build_model(cfg, task)
        train_parts(model, parts)
        return model
