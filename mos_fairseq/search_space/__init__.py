"""Families, search spaces, subnets, drawing and arch encoding. Imports neither torch nor fairseq."""

from mos_fairseq.search_space._hat import HAT_COLUMNS, HAT_LATENCIES
from mos_fairseq.search_space.elastic_schedule import ElasticSchedule
from mos_fairseq.search_space.encoding import ENCODING_KINDS, arch_encoding, encoding_size
from mos_fairseq.search_space.families import FAMILIES, check_family, check_options
from mos_fairseq.search_space.family import Dimension, Family, Stack
from mos_fairseq.search_space.space import SearchSpace
from mos_fairseq.search_space.specs import resolve_subnet, split_specs, subnet_name
from mos_fairseq.search_space.subnet import Subnet

__all__ = [
    "ENCODING_KINDS",
    "FAMILIES",
    "HAT_COLUMNS",
    "HAT_LATENCIES",
    "Dimension",
    "ElasticSchedule",
    "Family",
    "SearchSpace",
    "Stack",
    "Subnet",
    "arch_encoding",
    "check_family",
    "check_options",
    "encoding_size",
    "resolve_subnet",
    "split_specs",
    "subnet_name",
]
