"""What a person wants to know of finished teacher records: how many, how large, and whether k was enough."""

from __future__ import annotations

from preference.records import TeacherRecords


def summary(records: TeacherRecords) -> list[str]:
    """Lines: size; the mass that the kept entries hold; of advantages, what the released code's clip would do to them.

    Args:
        records: of a folder.
    """
    header, sums = records.header, records.sums
    tokens = max(sums.get("tokens", 0.0), 1.0)
    lines = [
        f"teacher records: {header.pairs:,} pairs, {tokens:,.0f} tokens, {records.bytes / 2**20:,.2f} MiB "
        f"({records.bytes / tokens:,.0f} bytes a token) in {records.folder}",
        f"the kept entries hold {sums.get('kept', 0.0) / tokens:.4f} of the aligned teacher's probability",
    ]
    if header.kind == "ratios":
        entries = max(sums.get("entries", 0.0), 1.0)
        lines.append(
            f"advantages: the aligned teacher gains {sums.get('gain', 0.0) / tokens:.4f} nats a token on its "
            f"reference; {sums.get('negative', 0.0) / entries:.1%} of the entries are below 0 and "
            f"{sums.get('above_one', 0.0) / entries:.1%} above 1 (`clip: released` would cut both)"
        )
    return lines
