"""The preference adapter of PRO: trained, saved, asked. Page: docs/pro_adapter.md.

A run of it is a configuration with `branch: adapter`, for prompts of pictures and of texts alike. The mathematics is in
`align/shaping/adapter.py`; `config`, `record`, `rows`, `checks` and `plan` are torch-free.
"""
