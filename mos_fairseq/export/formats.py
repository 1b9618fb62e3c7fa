"""What can be exported. Needs no torch."""

FORMATS = ("transformer_subnet", "fairseq", "ctranslate2")
# of weights, by CTranslate2
QUANTIZATIONS = ("int8", "int8_float32", "int8_float16", "int8_bfloat16", "int16", "float16", "bfloat16", "float32")
