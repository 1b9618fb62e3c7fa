"""Read and write small YAML and JSON files: safely, strictly about duplicate keys, and atomically."""

import json
import os
from collections.abc import Mapping
from typing import Any

import yaml

from mos_fairseq.errors import InputError
from mos_fairseq.files import read_text, write_atomically

_MAX_CHARACTERS = 1_000_000
_MAX_BRACKETS = 50  # nested brackets; ours have one level. PyYAML takes seconds for thousands


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader (no Python tags), which also refuses duplicate keys."""

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Any, Any]:
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for key_node, _ in node.value:
                if key_node.value.__hash__ is None:
                    continue  # a list or mapping as a key: refused by the safe loader itself
                if key_node.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"duplicate key {key_node.value}", key_node.start_mark
                    )
                seen.add(key_node.value)
        return super().construct_mapping(node, deep=deep)


def load_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the mapping in a YAML file. Raises `InputError`, with the line, if it is empty or malformed."""
    text = read_text(path)
    if len(text) > _MAX_CHARACTERS or _brackets(text) > _MAX_BRACKETS:
        raise InputError(f"{path}: not valid YAML (too long, or brackets nested too deeply)")
    try:
        data = yaml.load(text, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{path}: {' '.join(str(error.problem).split())}{line}") from None
    except (yaml.YAMLError, ValueError, LookupError, RecursionError) as error:  # PyYAML reads "!!int" as ""[0]
        raise InputError(f"{path}: not valid YAML ({' '.join(str(error).split())[:100]})") from None
    if data is None:
        raise InputError(f"{path}: the file is empty")
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected 'key: value' lines, got a {type(data).__name__}")
    return data


def _brackets(text: str) -> int:
    """Return the deepest nesting of brackets; brackets in strings and comments count, too."""
    depth = most = 0
    for character in text:
        if character in "[{":
            depth += 1
            most = max(most, depth)
        elif character in "]}":
            depth -= 1
    return most


def load_json(text: str, what: str) -> dict[str, Any]:
    """Return the mapping in JSON text; messages call it `what`."""

    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        for key in keys:
            if keys.count(key) > 1:
                raise InputError(f"{what}: duplicate key {' '.join(key.split())[:60]}")
        return dict(pairs)

    try:
        data = json.loads(text, object_pairs_hook=no_duplicates)
    except InputError:
        raise
    except json.JSONDecodeError as error:
        raise InputError(f"{what}: not valid JSON ({error.msg} at character {error.pos})") from None
    except (ValueError, RecursionError):  # an integer of thousands of digits, or endless nesting
        raise InputError(f"{what}: not valid JSON (a number or the nesting is out of bounds)") from None
    if not isinstance(data, dict):
        raise InputError(f"{what}: expected an object in braces, got a {type(data).__name__}")
    return data


def to_yaml(data: Mapping[str, Any]) -> str:
    """Return `data` as YAML, one key a line."""
    return yaml.safe_dump(dict(data), sort_keys=False, default_flow_style=None, width=10_000)


def save_yaml(data: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write `data` as YAML, atomically."""
    write_atomically(path, to_yaml(data))
