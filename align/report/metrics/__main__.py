"""Print docs/metrics.md."""

from align.report.metrics import markdown

print(markdown(), end="")
