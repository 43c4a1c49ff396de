"""Token-by-token generation, shared by the heads of generative models.

decoder.py runs a graph that updates its cache in place, sampling.py picks the next token,
continuous_batching.py generates for many rows at once, and beam_search.py keeps several candidates
per row.
"""
