"""What all figures share: declarations, inputs, cache keys, records, claims and costs.

`figure`, `record` and `cache` import neither torch nor matplotlib, so that pages can be written
and results listed without them.
"""
