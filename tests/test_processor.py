"""Reading /proc/cpuinfo."""

import platform

import pytest

from mos_fairseq import processor

CORE = "processor\t: 0\nvendor_id\t: {}\ncpu family\t: {}\nmodel\t\t: 17\nmodel name\t: One\n\n"
PI = "processor\t: 0\nBogoMIPS\t: 108.00\n\nprocessor\t: 1\nBogoMIPS\t: 7\n\nModel\t\t: Raspberry Pi 4 Model B\n"


@pytest.fixture
def cpuinfo(tmp_path, monkeypatch):
    def write(text: str) -> None:
        (tmp_path / "cpuinfo").write_text(text, encoding="utf-8")

    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    processor.fields.cache_clear()
    yield write
    processor.fields.cache_clear()


@pytest.mark.parametrize(
    ("vendor", "family", "number"), [("GenuineIntel", "6", 6), ("AuthenticAMD", "", None), ("AuthenticAMD", "x", None)]
)
def test_generation(vendor, family, number, cpuinfo):
    cpuinfo(CORE.format(vendor, family))
    assert (processor.vendor(), processor.family()) == (vendor, number)
    assert processor.name() == f"One (family {family}, model 17)"


def test_the_first_core_counts(cpuinfo):
    cpuinfo(CORE.format("GenuineIntel", 6) + CORE.format("AuthenticAMD", 26).replace("One", "Two") + "cores: 2\n")
    assert processor.vendor() == "GenuineIntel" and processor.family() == 6
    assert processor.name().startswith("One ") and "cores" not in processor.fields()


def test_instruction_sets(cpuinfo):
    cpuinfo(CORE.format("GenuineIntel", 6).rstrip() + "\nflags\t\t: avx2 amx_tile\n")
    assert processor.has("avx2") and processor.has("amx_tile") and not processor.has("avx") and not processor.has("")


def test_a_board_has_a_name(cpuinfo):
    cpuinfo(PI)
    assert processor.name() == "Raspberry Pi 4 Model B" and processor.fields()["BogoMIPS"] == "108.00"
    assert processor.vendor() == "" and processor.family() is None


def test_without_cpuinfo(cpuinfo):
    assert processor.vendor() == "" and processor.family() is None and not processor.has("avx2")
    assert processor.name() == (platform.processor() or platform.machine())
