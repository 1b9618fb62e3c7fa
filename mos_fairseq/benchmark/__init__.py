"""``mos-benchmark``: time and memory of supernets, compared with plain weight sharing and stock fairseq."""

from mos_fairseq.lazy import names_of

__getattr__, __all__ = names_of(
    __name__,
    {
        "expected": ["TrainingBatch", "expected_bytes", "kept_weights"],
        "options": ["FAMILIES", "SUITES", "SpeedOptions"],
        "plot": ["plot_suite"],
        "suites": ["run_suite"],
        "timing": ["Section"],
        "variants": ["Variants"],
    },
)
