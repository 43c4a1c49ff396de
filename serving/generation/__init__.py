"""Token after token: what the heads of models that write have in common.

decoder.py runs a graph whose cache is written in place, choosing.py picks the next token,
completing.py does so for many rows at once, beams.py keeps several candidates of each.
"""
