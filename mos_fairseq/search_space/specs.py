"""Specs, the user's names of subnets: `largest`, `smallest`, `random:SEED`, a YAML file, inline JSON."""

import hashlib
import json
import os
import re
from pathlib import Path

from mos_fairseq.errors import InputError
from mos_fairseq.search_space._checks import show
from mos_fairseq.search_space._yaml import load_json
from mos_fairseq.search_space.space import SearchSpace
from mos_fairseq.search_space.subnet import Subnet, defaults_of

FORMS = "largest, smallest, random:SEED (a whole number), a YAML file's path, JSON in braces"


def resolve_subnet(spec: str, space: SearchSpace) -> Subnet:
    """Return the subnet that `spec` names, checked to be in `space`.

    `random:SEED` is `space.sample_subnet("random", SEED)`. A file or JSON text without `qkv_dim` and `head_dim` takes
    it from `space`.

    Raises:
        InputError: `spec` has none of the allowed forms, or its subnet is not valid or not in the space.
    """
    if not isinstance(spec, str):
        raise InputError(f"subnet {show(str(spec))} is a {type(spec).__name__}: allowed are {FORMS}")
    spec = spec.strip()
    if spec == "largest":
        return space.largest()
    if spec == "smallest":
        return space.smallest()
    if spec.startswith("random:"):
        return space.sample_subnet("random", _seed(spec))
    if spec.startswith("{"):
        label = f"subnet {show(spec)}"
        subnet = Subnet.from_dict(load_json(spec, label), defaults=defaults_of(space))
    elif os.path.isfile(spec):
        label = f"subnet {spec}"
        subnet = Subnet.load(spec, space)
    else:
        raise InputError(f"subnet {show(spec)}: no such file; allowed are {FORMS}")
    try:
        space.check(subnet)
    except InputError as error:
        raise InputError(f"{label}: {error}") from None
    return subnet


def subnet_name(spec: str) -> str:
    """Return a short name for metrics and file names, from the spec alone: letters, digits and `_` only.

    It is `largest`, `smallest`, `random7` for `random:7`, a file's name without its ending, or for JSON `subnet_` with
    8 hex digits of the content's hash (independent of spacing and key order).

    Raises:
        InputError: `spec` is empty, or yields no name.
    """
    spec = spec.strip()
    if spec.startswith("random:"):
        return f"random{_seed(spec)}"
    if spec.startswith("{"):
        content = json.dumps(load_json(spec, f"subnet {show(spec)}"), sort_keys=True)
        return f"subnet_{hashlib.sha256(content.encode()).hexdigest()[:8]}"
    name = re.sub(r"[^0-9A-Za-z]", "_", Path(spec).stem)
    if not name.strip("_"):
        raise InputError(f"subnet {show(spec)}: allowed are {FORMS}")
    return name


def split_specs(text: str) -> list[str]:
    """Return the specs in a comma-separated list; commas within JSON's braces and brackets do not separate.

    Raises:
        InputError: an entry is empty, a spec is given twice, or two specs have the same `subnet_name` (their metrics
            would overwrite each other).
    """
    specs = _split(text)
    names: dict[str, str] = {}
    for spec in specs:
        if not spec:
            raise InputError(f"subnets {show(text)}: an entry is empty; allowed are {FORMS}, separated by commas")
        name = subnet_name(spec)
        if names.get(name) == spec:
            raise InputError(f"subnets {show(text)}: {show(spec)} is given twice")
        if name in names:
            raise InputError(
                f"subnets: {show(names[name])} and {show(spec)} have the same name {name}; names must differ"
            )
        names[name] = spec
    return specs


def _split(text: str) -> list[str]:
    parts, depth = [""], 0
    for character in text:
        depth += (character in "{[") - (character in "}]")
        if character == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _seed(spec: str) -> int:
    text = spec.removeprefix("random:")
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise InputError(f"subnet {show(spec)}: SEED must be a whole number of at most 18 digits, as in random:7")
    return int(text)
