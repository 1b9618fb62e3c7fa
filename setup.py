"""Packaging of mos_fairseq; exact versions for development and CI stand in constraints.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

README = Path(__file__).with_name("README.md")
PACKAGE = Path(__file__).with_name("mos_fairseq")
VERSION = re.search(r'^__version__ = "(.+)"$', (PACKAGE / "__init__.py").read_text(encoding="utf-8"), re.MULTILINE)[1]

# fairseq itself cannot be imported on Python >= 3.11. ve-fairseq is the same code with that mended, as wheels
# for two Pythons; fairseq-fixed is it as a source package, which compiles (torch must be installed before).
HAS_WHEEL = (
    "sys_platform == 'linux' and platform_machine == 'x86_64'"
    " and platform_python_implementation == 'CPython' and python_version < '3.13'"
)
NO_WHEEL = (
    "sys_platform != 'linux' or platform_machine != 'x86_64'"
    " or platform_python_implementation != 'CPython' or python_version >= '3.13'"
)

QUICKSTART = ["num2words", "Babel", "lxml"]
HUGGINGFACE = ["transformers", "tokenizers", "safetensors", "protobuf"]

setup(
    name="mos-fairseq",
    version=VERSION,
    description="Mixture-of-Supernets for fairseq: train once, cut a translation model to any latency budget",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    author="The mos_fairseq authors",
    license="MIT",
    license_files=["LICENSE"],
    classifiers=[
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    python_requires=">=3.11",
    packages=find_packages(include=["mos_fairseq", "mos_fairseq.*"]),
    package_data={"mos_fairseq": ["**/*.yaml", "nas/page.html", "py.typed"]},
    install_requires=[
        f"ve-fairseq==0.12.3; {HAS_WHEEL}",
        f"fairseq-fixed==0.12.3.1; {NO_WHEEL}",
        "torch>=2.6",
        "sacrebleu",
        "sentencepiece",
        "numpy",
        "omegaconf",
        "hydra-core",
        "PyYAML",
        "tqdm",
        "scipy",
        "scikit-learn",
        "lightgbm",
        "pymoo",
        "matplotlib",
        "plotly",
    ],
    extras_require={
        "quickstart": QUICKSTART,
        "ctranslate2": ["ctranslate2"],
        "huggingface": HUGGINGFACE,
        "tensorboard": ["tensorboard"],
        "test": [
            *("pytest", "pytest-xdist", "hypothesis", "mypy", "ruff", "ctranslate2", "playwright", "pdoc"),
            *HUGGINGFACE,
            *QUICKSTART,
        ],
    },
    entry_points={
        "console_scripts": [
            "mos = mos_fairseq.cli.index:main",
            "mos-benchmark = mos_fairseq.cli.benchmark:main",
            "mos-cost = mos_fairseq.cli.cost:main",
            "mos-diagnose = mos_fairseq.cli.diagnose:main",
            "mos-export = mos_fairseq.cli.export:main",
            "mos-finetune = mos_fairseq.cli.finetune:main",
            "mos-gap = mos_fairseq.cli.gap:main",
            "mos-latency = mos_fairseq.cli.latency:main",
            "mos-search = mos_fairseq.cli.search:main",
            "mos-warm-start = mos_fairseq.cli.warm_start:main",
        ]
    },
    zip_safe=False,
)
