"""Samples to numbers. A reward is a plain function; `scorer.py` runs several; one scorer per file."""
