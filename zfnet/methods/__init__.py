"""One file per family of probes."""
