"""What a run looks like afterwards: one HTML page per run, a summary for the terminal, and picture grids.

Everything here reads the files of a run folder and nothing else, so a page can be made of a run that is still going,
that was killed, or that was made on another machine. Nothing heavy is imported with this module.
"""
