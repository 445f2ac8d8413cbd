"""Trained weights in the formats of other programs: diffusers, kohya's scripts, ComfyUI, one merged pipeline.

* `keys`: how each program calls the same adapter; pure functions of tensors.
* `files`: reads and writes the files.
"""
