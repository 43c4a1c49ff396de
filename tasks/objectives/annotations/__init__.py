"""Read annotated spans in the formats that annotation tools export.

spans.py reads spans with offsets (doccano, Label Studio, Prodigy, spaCy), tags.py tags of words
(CoNLL, Hugging Face), and offsets.py finds the unit that offsets count. reading.py puts them
together. In all of them a ValueError holds a reason code, one of reading.WANTED.
"""
