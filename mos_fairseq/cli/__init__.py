"""Console scripts, named like fairseq's: only wiring."""
