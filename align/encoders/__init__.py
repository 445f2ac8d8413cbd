"""Texts as vectors: for the preference adapter (prompts -> weights) and for the similarity of texts.

`config` names an encoder (torch-free), `load` makes it, `minilm` is the packaged default. Importing this package loads
nothing heavy.
"""
