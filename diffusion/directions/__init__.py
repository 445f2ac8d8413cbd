"""One policy for all trade-offs between rewards of pictures: how a direction is drawn, told and judged. docs/dpa.md."""
