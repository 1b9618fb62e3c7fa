"""Search spaces, subnets, drawing and arch encoding. Knows neither torch nor fairseq."""

from mos_fairseq.search_space._keys import CHOICE_KEYS, LAYER_KEYS, depth_key
from mos_fairseq.search_space.elastic_schedule import ElasticSchedule
from mos_fairseq.search_space.encoding import ENCODING_FEATURES, ENCODING_KINDS, arch_encoding, encoding_size
from mos_fairseq.search_space.space import SearchSpace
from mos_fairseq.search_space.specs import resolve_subnet, split_specs, subnet_name
from mos_fairseq.search_space.subnet import Subnet

__all__ = [
    "CHOICE_KEYS",
    "ENCODING_FEATURES",
    "ENCODING_KINDS",
    "LAYER_KEYS",
    "ElasticSchedule",
    "SearchSpace",
    "Subnet",
    "arch_encoding",
    "depth_key",
    "encoding_size",
    "resolve_subnet",
    "split_specs",
    "subnet_name",
]
