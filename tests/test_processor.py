"""What is read from /proc/cpuinfo."""

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
    ("vendor", "family", "intel", "zen5"),
    [
        ("GenuineIntel", 6, True, False),
        ("GenuineIntel", 26, True, False),
        ("AuthenticAMD", 25, False, False),
        ("AuthenticAMD", 26, False, True),
        ("AuthenticAMD", 27, False, True),
        ("HygonGenuine", 26, False, False),
    ],
)
def test_generation(vendor, family, intel, zen5, cpuinfo):
    cpuinfo(CORE.format(vendor, family))
    assert (processor.is_intel(), processor.is_zen5()) == (intel, zen5)
    assert processor.name() == f"One (family {family}, model 17)"


def test_the_first_core_counts(cpuinfo):
    cpuinfo(CORE.format("GenuineIntel", 6) + CORE.format("AuthenticAMD", 26).replace("One", "Two") + "cores: 2\n")
    assert processor.is_intel() and processor.name().startswith("One ") and "cores" not in processor.fields()


def test_a_board_has_a_name(cpuinfo):
    cpuinfo(PI)
    assert processor.name() == "Raspberry Pi 4 Model B" and processor.fields()["BogoMIPS"] == "108.00"
    assert not processor.is_intel() and not processor.is_zen5()


def test_without_cpuinfo(cpuinfo):
    assert not processor.is_intel() and not processor.is_zen5()
    assert processor.name() == (platform.processor() or platform.machine())


@pytest.mark.parametrize("family", ["", "unknown"])
def test_an_odd_family_is_none(family, cpuinfo):
    cpuinfo(CORE.format("AuthenticAMD", family))
    assert not processor.is_zen5()
