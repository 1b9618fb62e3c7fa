"""Options of a standalone training: as in the supernet's training, according to its checkpoint.

The options are parsed as ``fairseq-train`` parses them. If a parsed value differs from the recorded one, it is refused,
so that no model silently trains differently.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Mapping, Sequence
from typing import Any

from fairseq.registry import REGISTRIES

from mos_fairseq.checkpoints import is_ours
from mos_fairseq.errors import InputError
from mos_fairseq.standalone.configuration import (
    COMPONENTS,
    NEUTRAL,
    SECTIONS,
    Command,
    component_fields,
    fields_of,
    mandatory_fields,
    plain,
)
from mos_fairseq.standalone.kinds import Kind, kind_of

Options = dict[str, str | None]
"""Options of ``fairseq-train`` by name; None for one that takes no value."""

# fields that distribute sentences to several processes: one process cannot reproduce them
_OF_SEVERAL = (("dataset", "grouped_shuffling"), ("distributed_training", "fix_batches_to_gpus"))
_Recorded = dict[tuple[str, str], Any]  # values by section and field


def training_options(cfg: Mapping[str, Any], more: Sequence[str] = ()) -> Options:
    """Return the options of ``fairseq-train`` that train a static twin as a supernet was trained.

    They include optimizer, learning rate and its schedule, dropout rates, batches, label smoothing, shared embeddings
    and seed; fairseq-train's defaults are left out. Batches of several data-parallel processes become ``--update-freq``
    of one. A schedule that follows the supernet's ``--max-update`` gets that number explicitly. Options that only a
    supernet has, and the length of its training, are left out. A criterion of this package becomes fairseq's own. The
    dropout rates are the configured ones: the supernet scales them down by a narrow subnet's width.

    Args:
        cfg: the supernet's configuration, as plain containers (``read_supernet(path)["cfg"]``).
        more: words of fairseq-train that override recorded options.

    Raises:
        InputError: the checkpoint records a component that is not installed, or a setting that no option gives a
            standalone model, unless ``more`` replaces it.
    """
    kind = kind_of(cfg)
    components = {_option_name(part): _component(kind, cfg, part, more) for part in COMPONENTS}
    recorded, found = _recorded(kind, cfg, components), dict[str, str | None](components)
    for part in COMPONENTS:
        for field in mandatory_fields(part, components[_option_name(part)]):
            if (value := recorded.get((part, field))) is not None:
                found[_option_name(field)] = _text(value)
    words = ["data", *kind.command, "--subnet", "{}"]
    command = Command(kind, [*words, *_words(found), *more])
    given = command.fields_in(more)
    kept = {place: value for place, value in recorded.items() if place[1] not in given}
    local_updates = plain(cfg.get("task")).get("local_updates") or 0
    kept = _one_process(kept, plain(cfg.get("distributed_training")).get("distributed_world_size") or 1, local_updates)
    for (section, field), value in kept.items():
        action = command.actions.get(field)
        if action is not None and not _equal(command.value(section, field), value):
            found |= _option(action, value)
    _verify(kept, Command(kind, [*words, *_words(found), *more]).configuration())
    return {option: value for option, value in found.items() if option not in map(_option_name, given)}


def _names(words: Sequence[str]) -> set[str]:
    return {text.partition("=")[0] for text in words if text.startswith("--")}


def _component(kind: Kind, cfg: Mapping[str, Any], part: str, more: Sequence[str]) -> str:
    """Return the name of the optimizer, schedule or criterion: from ``more``, otherwise the recorded one."""
    option, registry = _option_name(part), REGISTRIES[part]["registry"]
    known = ", ".join(sorted(registry))
    if values := effective(more).get(option):
        name = values[0]
        if name not in registry:
            raise InputError(f"{option} is {name}: this fairseq has {known}")
    else:
        recorded = plain(cfg.get(part)).get("_name")
        if part == "criterion" and (recorded is None or is_ours(registry.get(recorded))):
            return kind.criterion
        if recorded is None or recorded not in registry:
            found = f"{part} of the checkpoint is {recorded}"
            raise InputError(f"{found}: this fairseq has {known}; give {option} after --")
        name = recorded
    if name == "reduce_lr_on_plateau":
        raise InputError(f"{part} is {name}, but standalone models train without validation: give {option} after --")
    return name


def _recorded(kind: Kind, cfg: Mapping[str, Any], components: Mapping[str, str]) -> _Recorded:
    """Return the values that standalone training must have, as recorded, maybe by several processes."""
    found: _Recorded = {}
    for section, config in (SECTIONS | kind.sections).items():
        values = plain(cfg.get(section))
        found |= {(section, field): values[field] for field in fields_of(config, section) if field in values}
    for section in COMPONENTS:
        values, name = plain(cfg.get(section)), components[_option_name(section)]
        if section != "criterion" and values.get("_name") != name:
            continue  # another component replaces it, with its own options
        values = _schedule(values) if section == "lr_scheduler" else values
        found |= {(section, field): values[field] for field in component_fields(section, name) if field in values}
    return found


def _one_process(recorded: _Recorded, size: int, local_updates: int) -> _Recorded:
    """Return ``recorded`` of ``size`` data-parallel processes for one process with the same batches in an update."""
    if recorded.get(("optimization", "use_bmuf")):
        raise _refusal("optimization", "use_bmuf", True, "it averages the models of several processes")
    for place in _OF_SEVERAL if size > 1 else ():
        if recorded.get(place):
            raise _refusal(*place, True, f"one process cannot repeat the batches of {size}")
    key = ("optimization", "update_freq")
    if local_updates and key in recorded:  # an update of each process is then its own
        raise InputError(
            f"task.local_updates of the checkpoint is {local_updates}: standalone models cannot be trained so (it "
            f"averages the models of {size} processes); give --update-freq after -- for the batches of an update"
        )
    return recorded | ({key: [size * batches for batches in recorded[key]]} if key in recorded else {})


def _schedule(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schedule whose updates, taken from the supernet's ``--max-update``, are explicit: a standalone model may
    train for another number."""
    values = dict(section)
    total = values.pop("max_update", None) or 0
    if values["_name"] == "cosine" and total > 0 and values.get("lr_period_updates", -1) <= 0:
        values["lr_period_updates"] = total - values.get("warmup_updates", 0)
    if values["_name"] == "tri_stage" and values.get("phase_ratio"):
        steps = zip(("warmup", "hold", "decay"), values["phase_ratio"], strict=True)
        values |= {f"{stage}_steps": int(total * ratio) for stage, ratio in steps} | {"phase_ratio": None}
    return values


def _option_name(field: str) -> str:
    return f"--{field.replace('_', '-')}"


def _option(action: argparse.Action, value: Any) -> Options:
    """Return the option that sets ``action``'s field to ``value``; empty if argparse would not accept it."""
    name = _option_name(action.dest)
    if name not in action.option_strings or value is None:
        return {}
    if action.nargs == 0:
        return {name: None} if action.const == value else {}
    text = _text(value)
    try:
        parsed = action.type(text) if callable(action.type) else text
    except (TypeError, ValueError, argparse.ArgumentTypeError):
        return {}
    return {} if action.choices is not None and parsed not in action.choices else {name: text}


def _text(value: Any) -> str:
    """Return a value as on the command line: fairseq takes lists as comma-separated numbers."""
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return str(value)


def _words(options: Options) -> list[str]:
    words: list[str] = []
    for name, value in options.items():
        if value is not None and (value.startswith("-") or not value):
            words.append(f"{name}={value}")  # otherwise argparse parses it as an option
        else:
            words += [name] if value is None else [name, value]
    return words


def _equal(found: Any, recorded: Any) -> bool:
    """Return whether a parsed value equals the recorded one, which may have another form that fairseq accepts."""
    if isinstance(found, bool) or isinstance(recorded, bool):
        return bool(found) == bool(recorded)  # None means no
    return _normal(found) == _normal(recorded)


def _normal(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)  # as in '(0.9, 0.98)'
        except (ValueError, SyntaxError):
            return value
    return [_normal(item) for item in value] if isinstance(value, (list, tuple)) else value


def _verify(recorded: _Recorded, found: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise InputError unless a command resolves to the recorded values."""
    for (section, field), value in recorded.items():
        if not _equal(resolved := found[section].get(field), value):
            raise _refusal(section, field, value, f"fairseq-train would make it {resolved}")


def _refusal(section: str, field: str, value: Any, reason: str) -> InputError:
    return InputError(
        f"{section}.{field} of the checkpoint is {value}: standalone models cannot be trained so ({reason}); give "
        f"{_option_name(field)} after -- to train them otherwise"
    )


def effective(arguments: Sequence[str]) -> dict[str, list[str]]:
    """Return the settings in ``arguments`` of ``fairseq-train`` that affect the outcome: the last values of each option
    by its name."""
    neutral = {_option_name(field) for fields in NEUTRAL.values() for field in fields}
    found: dict[str, list[str]] = {}
    name = ""
    for word in arguments:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            found[name] = [value] if equals else []
        else:
            found.setdefault(name, []).append(word)
    return {name: values for name, values in sorted(found.items()) if name not in neutral}


def without_schedule(words: Sequence[str]) -> list[str]:
    """Return ``words`` of ``fairseq-train`` without learning rate and schedule."""
    schedules = REGISTRIES["lr_scheduler"]["registry"]
    left_out = {_option_name(field) for name in schedules for field in component_fields("lr_scheduler", name)}
    kept, keeps = list[str](), True
    for word in words:
        if word.startswith("--"):
            keeps = word.partition("=")[0] not in left_out | {"--lr", "--lr-scheduler"}
        kept += [word] * keeps
    return kept


def overridden(options: Options, more: Sequence[str]) -> list[str]:
    """Return arguments for ``options``, followed by those of the command line ``more``, which override. If ``more``
    replaces an optimizer, schedule or criterion, options of the replaced one that the new one lacks are left out."""
    given, unknown = _names(more), set[str]()
    for part in COMPONENTS:
        option, registry = _option_name(part), REGISTRIES[part]["registry"]
        names = [options.get(option), *effective(more).get(option, [])[:1]]
        known = [name for name in names if name is not None and name in registry]
        if len(known) == 2:
            mine, theirs = ({_option_name(field) for field in component_fields(part, name)} for name in known)
            unknown |= mine - theirs
    kept = {name: value for name, value in options.items() if name not in given | unknown}
    return [*_words(kept), *more]
