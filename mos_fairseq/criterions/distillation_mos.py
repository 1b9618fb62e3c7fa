"""``distillation_mos``: subnets learn from the output of a teacher.

In place, the largest subnet of an update learns from the labels, and the others from its output (BigNAS, arXiv
2003.11142; AlphaNet, arXiv 2102.07954). With ``--teacher``, all subnets learn from a trained, fixed model.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Optional

import torch
from fairseq.criterions import register_criterion
from fairseq.dataclass import ChoiceEnum
from torch import Tensor

from mos_fairseq.command import calling_command
from mos_fairseq.criterions.divergence import DistillationLoss, DistillationOptions
from mos_fairseq.criterions.hidden_states import LAYER_PAIRINGS, hidden_distance
from mos_fairseq.criterions.label_smoothed_cross_entropy_mos import (
    LabelSmoothedCrossEntropyMosConfig,
    LabelSmoothedCrossEntropyMosCriterion,
)
from mos_fairseq.criterions.teacher import FrozenTeacher
from mos_fairseq.errors import InputError, at_least
from mos_fairseq.masked import sentences_of


@dataclass
class DistillationMosConfig(LabelSmoothedCrossEntropyMosConfig):
    """Options of label-smoothed cross entropy and of distillation."""

    teacher: Optional[str] = field(
        default=None,
        metadata={
            "help": "checkpoint of a trained model with these dictionaries; it teaches all subnets and stays fixed "
            "(default: the largest subnet teaches the others)"
        },
    )
    distillation: ChoiceEnum(["kl", "alpha"]) = field(
        default="kl",
        metadata={"help": "divergence from the teacher: Kullback-Leibler (BigNAS) or adaptive alpha (AlphaNet)"},
    )
    distillation_temperature: float = field(
        default=1.0, metadata={"help": "divides the logits of teacher and student; its square scales the divergence"}
    )
    distillation_weight: float = field(
        default=1.0, metadata={"help": "weight w of the divergence in a student's loss; the labels have 1 - w"}
    )
    distillation_from: int = field(
        default=0, metadata={"help": "updates before distillation begins; until then all subnets learn from the labels"}
    )
    alpha_minus: float = field(default=-1.0, metadata={"help": "smaller alpha of --distillation alpha"})
    alpha_plus: float = field(default=1.0, metadata={"help": "larger alpha of --distillation alpha"})
    alpha_clip: float = field(
        default=5.0,
        metadata={"help": "largest importance weight (p/q)^alpha of --distillation alpha, for alpha outside 0 to 1"},
    )
    hidden_weight: float = field(
        default=0.0, metadata={"help": "weight of the distance between the layer outputs of student and teacher"}
    )
    hidden_layers: ChoiceEnum(list(LAYER_PAIRINGS)) = field(
        default="uniform", metadata={"help": "pair a student's layers with the teacher's evenly, or with its last ones"}
    )


def _check_teacher(task, teacher: str | None, hidden: float, begins: int) -> None:
    sampling = getattr(getattr(task, "cfg", None), "subnet_sampling", None)
    if teacher is None and str(sampling) not in ("sandwich", "controller"):
        supernet = "" if sampling else "a supernet's task, such as --task translation_mos, with "
        raise InputError(
            f"criterion distillation_mos with subnet_sampling {sampling}: without --teacher, it needs {supernet}"
            "--subnet-sampling sandwich or controller, where the largest subnet teaches the others in each update"
        )
    if teacher is not None and hidden:
        raise InputError(
            f"hidden_weight is {hidden} with teacher {teacher}: only the largest subnet can teach hidden states"
        )
    if sampling is None and begins:
        raise InputError(f"distillation_from is {begins}: distillation begins at once without a supernet task")


def _check_used(options: dict[str, Any], needed: str, value: Any, acts: str) -> None:
    """Raise InputError if one of ``options`` is not at its default while ``needed`` is ``value``."""
    for name, given in options.items():
        default = DistillationMosConfig.__dataclass_fields__[name].default
        if str(given) != str(default):
            raise InputError(f"{name} is {given}: it has no effect with {needed} {value}, only with {acts}")


def _check(temperature: float, weight: float, alphas: tuple[float, float], clip: float, hidden: float) -> None:
    if not 0 < temperature < math.inf:
        raise InputError(f"distillation_temperature is {temperature}: allowed are numbers above 0")
    if not 0 <= weight <= 1:
        raise InputError(f"distillation_weight is {weight}: allowed are numbers from 0 to 1")
    if not -math.inf < alphas[0] <= alphas[1] < math.inf:
        raise InputError(
            f"alpha_minus is {alphas[0]} and alpha_plus {alphas[1]}: allowed are numbers with alpha_minus <= alpha_plus"
        )
    if not clip >= 1:
        raise InputError(f"alpha_clip is {clip}: allowed are numbers from 1 up (inf: no clipping)")
    at_least(0.0, hidden_weight=hidden)


@register_criterion("distillation_mos", dataclass=DistillationMosConfig)
class DistillationMosCriterion(LabelSmoothedCrossEntropyMosCriterion):
    """Distillation, in place or from a trained model.

    The task announces the subnets of a mini-batch by :meth:`teach`. In place, the teacher's forward pass comes first:
    its loss is the plain loss of the labels. Its logits (and layer outputs) are kept, detached, until the last student
    has learned from them. With a trained ``teacher``, every forward pass in training is a student's, and the teacher
    runs once for a mini-batch; a task that trains one model need not announce anything. In all other cases, such as
    validation, the criterion is label-smoothed cross entropy.

    A student's loss is w T^2 D(teacher||student) + (1 - w) label-smoothed cross entropy, summed over the tokens that
    are not padding, + ``hidden_weight`` x sample size x the mean distance over the layers of all stacks.
    """

    def __init__(
        self,
        task,
        sentence_avg: bool,
        label_smoothing: float,
        ignore_prefix_size: int = 0,
        report_accuracy: bool = False,
        teacher: str | None = None,
        distillation: str = "kl",
        distillation_temperature: float = 1.0,
        distillation_weight: float = 1.0,
        distillation_from: int = 0,
        alpha_minus: float = -1.0,
        alpha_plus: float = 1.0,
        alpha_clip: float = 5.0,
        hidden_weight: float = 0.0,
        hidden_layers: str = "uniform",
    ) -> None:
        super().__init__(task, sentence_avg, label_smoothing, ignore_prefix_size, report_accuracy)
        alphas = (alpha_minus, alpha_plus)
        _check_teacher(task, teacher, hidden_weight, distillation_from)
        _check(distillation_temperature, distillation_weight, alphas, alpha_clip, hidden_weight)
        self.options = DistillationOptions(
            alphas=(1.0,) if str(distillation) == "kl" else tuple(dict.fromkeys(alphas)),
            clip=alpha_clip,
            temperature=distillation_temperature,
            weight=distillation_weight,
            label_smoothing=label_smoothing,
        )
        self.hidden_weight, self.hidden_layers = hidden_weight, str(hidden_layers)
        self.padding_of_words = task.target_dictionary.pad()
        at_least(0, distillation_from=distillation_from)
        self.distillation_from = distillation_from
        self.in_place = teacher is None
        command = calling_command()
        trains = command is None or command.name == "train"  # fairseq-validate needs no teacher
        if trains and str(distillation) == "kl":
            of_alpha = {"alpha_minus": alpha_minus, "alpha_plus": alpha_plus, "alpha_clip": alpha_clip}
            _check_used(of_alpha, "distillation", "kl", "alpha")
        if trains and not hidden_weight:
            _check_used({"hidden_layers": hidden_layers}, "hidden_weight", hidden_weight, "numbers above 0")
        self._frozen = FrozenTeacher(teacher, task) if teacher is not None and trains else None
        self.teach(0, 0)

    def teach(self, num_students: int, update_num: int) -> None:
        """Announce a forward pass of the largest subnet, followed by ``num_students`` others on the same batch. Before
        update ``distillation_from``, all of them learn from the labels."""
        begun = update_num >= self.distillation_from
        self._students_left = num_students if begun and self.in_place else 0
        self._is_taught = begun and self._frozen is not None
        if self._frozen is not None:
            self._frozen.forget()
        self._teacher: tuple[Tensor, list[list[Tensor]]] | None = None
        self._student_log: dict[str, Tensor] = {}

    def forward(self, model, sample, reduce=True):
        """Compute the loss as label-smoothed cross entropy does.

        A student's logging output also has ``distillation_loss``, the divergence summed over tokens. With
        ``hidden_weight`` it has ``hidden_loss``, the mean distance x sample size.
        """
        sample = self._predicted(model, sample)
        if model.training and self._students_left and self.hidden_weight:
            sample = sample | {"net_input": sample["net_input"] | {"return_all_hiddens": True}}
        self._student_log = {}
        loss, sample_size, log = super().forward(model, sample, reduce)
        return loss, sample_size, log | self._student_log

    def compute_loss(self, model, net_output, sample, reduce=True) -> tuple[Tensor, Tensor]:
        """Return loss and nll of the teacher, of a student, or of a subnet outside of :meth:`teach`."""
        if not (model.training and (self._students_left or self._is_taught)):
            return super().compute_loss(model, net_output, sample, reduce)
        if not reduce:
            raise ValueError("reduce is False: while subnets are taught, losses are summed over tokens")
        if self._is_taught and self._frozen is not None:
            logits = net_output[0]
            return self._distill(logits, self._frozen.logits(sample, logits), model.get_targets(sample, net_output))
        states = self._states(model, net_output) if self.hidden_weight else []
        if self._teacher is None:
            self._teacher = net_output[0].detach(), [[x.detach() for x in side] for side in states]
            return super().compute_loss(model, net_output, sample)
        teacher_logits, teacher_states = self._teacher
        self._students_left -= 1
        if not self._students_left:
            self._teacher = None
        loss, nll_loss = self._distill(net_output[0], teacher_logits, model.get_targets(sample, net_output))
        if self.hidden_weight:
            hidden_loss = self._hidden_loss(model, states, teacher_states, sample)
            loss = loss + self.hidden_weight * hidden_loss
            self._student_log["hidden_loss"] = hidden_loss.detach()
        return loss, nll_loss

    def _distill(self, logits: Tensor, teacher: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        if skip := self.ignore_prefix_size:
            logits, teacher, target = (tensor[:, skip:] for tensor in (logits, teacher, target))
        rows = [tensor.reshape(-1, tensor.size(-1)) for tensor in (logits, teacher)]
        with torch.autocast(logits.device.type, enabled=False):  # autocast would sum the tokens in half precision
            loss, nll_loss, divergence = DistillationLoss.apply(
                *rows, target.reshape(-1), self.padding_idx, self.options
            )
        self._student_log["distillation_loss"] = divergence
        return loss, nll_loss

    @staticmethod
    def _states(model, net_output) -> list[list[Tensor]]:
        """Return the layer outputs of each stack, without the embeddings' output."""
        family = model.family
        names = ["inner_states" if stack.name == family.output else "encoder_states" for stack in family.stacks]
        return [net_output[1][name][1:] for name in names]

    def _hidden_loss(self, model, students: list[list[Tensor]], teachers: list[list[Tensor]], sample) -> Tensor:
        distances = []
        tokens = {"source": sample["net_input"]["src_tokens"], "target": sample["target"]}
        for stack, student, teacher in zip(model.family.stacks, students, teachers, strict=True):
            padding = tokens[stack.tokens].eq(self.padding_of_words)
            distances += hidden_distance(student, teacher, padding, self.hidden_layers)
        sample_size = sentences_of(sample) if self.sentence_avg else sample["ntokens"]
        return sum(distances) / len(distances) * sample_size
