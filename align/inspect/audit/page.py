"""An audit as a page: findings, then the tables that they rest on."""

from __future__ import annotations

from collections.abc import Iterator

from align.inspect.audit import prompt_weights
from align.inspect.audit.findings import Agreement, Audit
from align.report import words
from align.report.tables import Page, Table, factor, number, share


def audit_page(audit: Audit) -> Page:
    """Everything that the audit found, in the order in which a person asks."""
    several = f"{audit.samples:,} samples of {words.plural(audit.prompts, 'prompt')}"
    return Page(
        title="Audit of rewards",
        lead=f"{several}: {audit.source}. Numbers within a prompt rest on {audit.compared:,} comparisons.",
        findings=audit.findings,
        tables=list(_tables(audit)),
        record=audit.as_json(),
        samples={},
    )


def _tables(audit: Audit) -> Iterator[Table]:
    yield Table(
        title="Each reward",
        note="Spread: standard deviation within a prompt. Share: of the variance of the weighted sum within a prompt. "
        "VIF: 1 = nothing in common with the other weighted rewards, 5 = four fifths are in them already.",
        columns=("reward", "weight", "mean", "spread", "share", "VIF", "constant", "at min", "at max", "unscored"),
        rows=[
            (
                one.name,
                words.number(one.weight),
                words.number(one.mean),
                words.number(one.spread),
                share(one.share),
                factor(one.inflation),
                share(one.saturation.constant_groups),
                share(one.saturation.at_min),
                share(one.saturation.at_max),
                share(one.saturation.unscored),
            )
            for one in audit.rewards
        ],
    )
    if audit.weighing is not None:
        yield from prompt_weights.tables(audit.weighing)
    if audit.pairs:
        yield Table(
            title="Each pair of rewards",
            note="Correlation by value and by rank, within a prompt and over all samples. Conflict: of the pairs of "
            "samples of one prompt that both rewards tell apart, the share in opposite order; 50 % is no relation.",
            columns=("rewards", "within", "rank", "overall", "rank", "conflict", "pairs"),
            rows=[
                (
                    f"{one.first}, {one.second}",
                    *_cells(one.agreement),
                    share(one.conflict.rate),
                    f"{one.conflict.decided:,} of {one.conflict.pairs:,}",
                )
                for one in audit.pairs
            ],
        )
    noisy = [(one, one.noise) for one in audit.rewards if one.noise is not None]
    if noisy:
        yield Table(
            title="Noise floor",
            note="The same samples scored twice. Noise: standard deviation of one scoring; its share is of the "
            "variance within a prompt.",
            columns=("reward", "noise", "spread", "share of noise"),
            rows=[
                (one.name, words.number(found.sd), words.number(found.spread), share(found.share))
                for one, found in noisy
            ],
        )
    biases = [(one.name, feature, found) for one in audit.rewards for feature, found in one.biases.items()]
    if biases:
        yield Table(
            title="Bias",
            note="Correlation of each reward with what it should not be about.",
            columns=("reward", "with", "within", "rank", "overall", "rank"),
            rows=[(name, feature.replace("_", " "), *_cells(found)) for name, feature, found in biases],
        )


def _cells(found: Agreement) -> tuple[str, str, str, str]:
    values = (found.within, found.within_rank, found.overall, found.overall_rank)
    first, second, third, fourth = (number(value) for value in values)
    return first, second, third, fourth
