"""House rules that no other test would notice broken: imports go one way, YAML ships, nothing imports twice."""

import ast
import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from mos_fairseq.model_options import FLAGS
from mos_fairseq.search_space import FAMILIES

PACKAGE = Path(__file__).parents[1] / "mos_fairseq"

# allowed imports of each sub-package from its siblings (besides itself)
ALLOWED = {
    "command": set(),
    "errors": set(),
    "lazy": set(),
    "masked": set(),
    "predictions": {"masked"},
    "noise": set(),
    "processes": set(),
    "processor": set(),
    "progress": set(),
    "python": set(),
    "sizes": set(),
    "versions": set(),
    "compat": {"errors"},
    "criterions": {"command", "errors", "masked", "modules", "predictions"},
    "distributed": {"errors"},
    "figures": {"files"},
    "files": {"errors"},
    "jsonl": {"errors", "files"},
    "modules": {"errors", "processor", "sizes"},
    "optim": {"errors"},
    "search_space": {"errors", "files", "sizes"},
    "transfer": {"errors", "search_space"},
    "cost": {"errors", "model_options", "search_space"},
    "model_options": set(),
    "mos_options": {"errors", "search_space"},
    "models": {"command", "distributed", "errors", "model_options", "modules", "mos_options", "search_space", "sizes"},
    "checkpoints": {"criterions", "errors", "files", "models", "search_space", "tasks"},
    "evaluation": {"errors", "files", "lazy", "models", "predictions", "search_space", "transfer"},
    "latency": {
        "device",
        "errors",
        "files",
        "jsonl",
        "lazy",
        "model_options",
        "models",
        "modules",
        "processor",
        "search_space",
        "transfer",
    },
    "tasks": {
        "command",
        "compat",
        "cost",
        "distributed",
        "errors",
        "models",
        "mos_options",
        "nas",
        "predictions",
        "search_space",
    },
    "diagnosis": {"errors", "evaluation", "figures", "files", "models", "modules", "search_space"},
    "export": {"checkpoints", "errors", "files", "lazy", "models", "modules", "search_space"},
    "standalone": {
        "checkpoints",
        "errors",
        "evaluation",
        "files",
        "masked",
        "models",
        "processes",
        "python",
        "search_space",
        "tasks",
    },
    "gap": {
        "checkpoints",
        "errors",
        "evaluation",
        "figures",
        "files",
        "jsonl",
        "lazy",
        "masked",
        "models",
        "search_space",
        "standalone",
        "versions",
    },
    "nas": {"errors", "evaluation", "figures", "files", "jsonl", "lazy", "processes", "progress", "search_space"},
    "plugin": {"compat", "criterions", "models", "noise", "optim", "tasks"},
    "device": {"errors"},
    "benchmark": {
        "criterions",
        "device",
        "errors",
        "export",
        "figures",
        "files",
        "lazy",
        "models",
        "modules",
        "python",
        "search_space",
    },
    "warm_start": {
        "checkpoints",
        "errors",
        "evaluation",
        "export",
        "files",
        "lazy",
        "masked",
        "models",
        "modules",
        "search_space",
        "tasks",
    },
    "cli": {
        "benchmark",
        "checkpoints",
        "cost",
        "diagnosis",
        "errors",
        "evaluation",
        "export",
        "figures",
        "files",
        "gap",
        "latency",
        "model_options",
        "models",
        "modules",
        "mos_options",
        "nas",
        "plugin",
        "progress",
        "search_space",
        "standalone",
        "transfer",
        "versions",
        "warm_start",
    },
}


def imported_modules(file: Path) -> set[str]:
    """Dotted names that ``file`` imports, relative ones resolved."""
    package = ".".join(file.relative_to(PACKAGE.parent).parent.parts)
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return names


def siblings_of(file: Path) -> set[str]:
    parts = [name.split(".") for name in imported_modules(file)]
    return {p[1] for p in parts if p[0] == "mos_fairseq" and len(p) > 1}


@pytest.mark.parametrize("part", sorted(ALLOWED))
def test_imports_go_one_way(part):
    files = sorted((PACKAGE / part).rglob("*.py")) if (PACKAGE / part).is_dir() else [PACKAGE / f"{part}.py"]
    assert files
    for file in files:
        assert siblings_of(file) <= ALLOWED[part] | {part}, file


def test_every_part_has_a_rule():
    parts = {p.stem for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert parts - {"__init__"} == set(ALLOWED)


def test_search_space_knows_neither_torch_nor_fairseq():
    for file in (PACKAGE / "search_space").rglob("*.py"):
        assert not {"torch", "fairseq"} & {name.split(".")[0] for name in imported_modules(file)}, file


def test_keys_are_named_where_they_are_declared():
    """The sizes of encoder-decoders: by their names, or by the suffix after a stack's name."""
    keys = [d.key for d in FAMILIES["encoder_decoder"].dimensions if not d.optional]
    assert len(keys) == 10
    names = re.compile(rf"\b(?:{'|'.join(keys)})\b|\}}_(?:embed_dim|layers|ffn_embed_dim|attention_heads)\b")
    naming = {file.relative_to(PACKAGE) for file in PACKAGE.rglob("*.py") if names.search(file.read_text("utf-8"))}
    declarations = {file.relative_to(PACKAGE) for file in (PACKAGE / "search_space" / "families").glob("*coder*.py")}
    assert Path("search_space/families/encoder_decoder.py") in declarations
    naming.remove(Path("export/huggingface_translation.py"))  # transformers' FSMT has options of these names, too
    assert len(naming) <= 6 and not {file for file in naming - declarations if file.parts[0] != "search_space"}


def test_what_is_on_or_off_in_a_model_is_in_one_table():
    """mos-warm-start, mos-cost and mos-latency read it; one that is not there would be left out by them."""
    from mos_fairseq.models import RobertaMosConfig, TransformerLanguageModelMosConfig, TransformerMosConfig

    configs = (TransformerMosConfig, TransformerLanguageModelMosConfig, RobertaMosConfig)
    flags = {option.name: option.metadata["help"] for c in configs for option in fields(c) if option.type is bool}
    del flags["load_checkpoint_heads"], flags["freeze_shared"]  # of reading weights and of training, not of the model
    assert flags == FLAGS


def test_every_registered_component_has_a_file_of_its_name():
    from fairseq.criterions import CRITERION_REGISTRY
    from fairseq.models import MODEL_REGISTRY
    from fairseq.optim import OPTIMIZER_REGISTRY
    from fairseq.optim.lr_scheduler import LR_SCHEDULER_REGISTRY
    from fairseq.tasks import TASK_REGISTRY

    import mos_fairseq  # noqa: F401

    for registry, folder in (
        (MODEL_REGISTRY, "models"),
        (TASK_REGISTRY, "tasks"),
        (CRITERION_REGISTRY, "criterions"),
        (OPTIMIZER_REGISTRY, "optim"),
        (LR_SCHEDULER_REGISTRY, "optim/lr_scheduler"),
    ):
        ours = {n for n, c in registry.items() if c.__module__.startswith("mos_fairseq.")}
        assert ours and all((PACKAGE / folder / f"{name}.py").is_file() for name in ours)


def test_one_place_starts_processes_of_python():
    """Any other way to start a process could get another copy of the package: see mos_fairseq.python."""
    starters = [file for file in PACKAGE.rglob("*.py") if "sys.executable" in file.read_text(encoding="utf-8")]
    assert starters == [PACKAGE / "python.py"]


MODULES_FIRST = """
import importlib, json, pathlib, sys, types
sys.argv = ["mos-cost"]  # which imports neither torch nor fairseq
import mos_fairseq
found = []
for file in pathlib.Path(mos_fairseq.__file__).parent.glob("*/__init__.py"):
    if "names_of(" in file.read_text(encoding="utf-8"):
        package = importlib.import_module(f"mos_fairseq.{file.parent.name}")
        for name in set(package.__all__) & {module.stem for module in file.parent.glob("*.py")}:
            importlib.import_module(f"{package.__name__}.{name}")
            found.append([f"{package.__name__}.{name}", isinstance(getattr(package, name), types.ModuleType)])
print(json.dumps(found))
"""


def test_a_name_of_a_package_is_not_the_module_that_is_called_so():
    """Python sets a module as an attribute of its package on first import, which replaces a lazy name."""
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run([sys.executable, "-c", MODULES_FIRST], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == [["mos_fairseq.export.stock_sizes", False]]


def test_packages_have_the_names_that_they_list():
    lazy = [f.parent.name for f in PACKAGE.glob("*/__init__.py") if "names_of(" in f.read_text(encoding="utf-8")]
    assert "evaluation" in lazy
    for package in (importlib.import_module(f"mos_fairseq.{name}") for name in lazy):
        assert [name for name in package.__all__ if not hasattr(package, name)] == [], package


@pytest.mark.parametrize("part", sorted(ALLOWED))
def test_nothing_is_guaranteed_by_an_assert(part):
    """``python -O`` removes them, and without it they give users no message."""
    for file in (PACKAGE / part).rglob("*.py") if (PACKAGE / part).is_dir() else [PACKAGE / f"{part}.py"]:
        found = [node.lineno for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.Assert)]
        assert not found, f"{file}: lines {found}"


@pytest.mark.parametrize("package", sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")))
def test_what_a_package_offers_is_there(package):
    """Packages import their names when they are first used: a name that is gone would be noticed then."""
    module = importlib.import_module(f"mos_fairseq.{package}")
    for name in getattr(module, "__all__", ()):
        assert getattr(module, name, None) is not None, name
