"""Generate token after token: what the heads of generative models share.

decoder.py runs a graph whose cache is written in place, sampling.py picks the next token,
continuous_batching.py does so for many rows at once, beam_search.py keeps several candidates of
each.
"""
