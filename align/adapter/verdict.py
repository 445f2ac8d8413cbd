"""What an adapter has learnt, in numbers and in words: against the best constant weights, and what its targets are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from jaxtyping import Float
from torch import Tensor

from align.shaping.adapter import calibration
from align.statistics import Interval, paired_bootstrap_interval

ONE_HOT = 0.5
"""Share of nearly one-hot targets above which the page says so."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Held-out rows, judged.

    Attributes:
        rows: how many.
        kl: mean KL(target || adapter), nats.
        constant_kl: of the mean of the training targets, for every prompt alike.
        gain: of the adapter over it, per prompt, with a 95 % interval over prompts.
        step: after which the weights were taken.
        mean_targets: mean weight of each objective over the training targets.
        calibration: of the training targets: mean entropy in nats, share of nearly one-hot rows.
    """

    rows: int
    kl: float
    constant_kl: float
    gain: Interval | None
    step: int
    mean_targets: Mapping[str, float]
    calibration: Mapping[str, float]

    @property
    def has_signal(self) -> bool:
        """Whether the prompts tell something about the weights that constant weights do not know."""
        return self.gain is not None and self.gain.low > 0

    def sentences(self) -> list[str]:
        """For a person."""
        means = ", ".join(f"{name} {value:.3f}" for name, value in self.mean_targets.items())
        found = [
            f"Training targets: mean weights {means}; entropy {self.calibration['entropy']:.3f} nats; "
            f"{self.calibration['frac_one_hot']:.0%} nearly one-hot."
        ]
        if self.calibration["frac_one_hot"] > ONE_HOT:
            found.append(
                "Most targets are nearly one-hot: one objective takes everything. Raise `target.temperature`, set "
                "`target.entropy_floor`, or choose `target.normaliser: minmax`."
            )
        if self.gain is None:
            return [*found, "No rows were held out: nobody knows whether the prompts carry a signal."]
        found.append(
            f"Held-out KL after step {self.step}: {self.kl:.4f} nats; constant weights: {self.constant_kl:.4f}; gain "
            f"{self.gain.mean:.4f} (95 % interval {self.gain.low:.4f} to {self.gain.high:.4f}, {self.rows} rows)."
        )
        if self.has_signal:
            found.append(
                "This is about the targets: whether samples chosen by these weights are better is another question; "
                "`target.contrastive: true` answers it better (docs/pro_adapter.md)."
            )
        else:
            found.append(
                "The prompts carry no signal that this adapter could find: it does not beat constant weights. "
                "Use fixed weights (the means above), or give it more rows, another encoder or another target."
            )
        return found

    def to_json(self) -> dict[str, object]:
        """For `adapter.json`."""
        gain = None if self.gain is None else {name: getattr(self.gain, name) for name in ("mean", "low", "high")}
        return {**asdict(self), "gain": gain, "has_signal": self.has_signal, "sentences": self.sentences()}


def judge(
    own: Float[Tensor, "n"],
    constant: Float[Tensor, "n"],
    *,
    prompts: Sequence[str],
    step: int,
    objectives: Sequence[str],
    train_targets: Float[Tensor, "m k"],
) -> Verdict:
    """Judge held-out rows.

    Args:
        own: KL of each row from the adapter's weights.
        constant: from the mean of the training targets.
        prompts: of the rows; rows of one prompt are resampled together.
        step: after which the weights were taken.
        objectives: names of the targets' columns.
        train_targets: what the adapter was taught.
    """
    kept = calibration(train_targets)
    return Verdict(
        rows=len(own),
        kl=float(own.double().mean()) if len(own) else float("nan"),
        constant_kl=float(constant.double().mean()) if len(own) else float("nan"),
        gain=paired_bootstrap_interval(own.tolist(), constant.tolist(), clusters=prompts) if len(own) else None,
        step=step,
        mean_targets=dict(zip(objectives, train_targets.double().mean(dim=0).tolist(), strict=True)),
        calibration={name: kept[name] for name in ("entropy", "frac_one_hot")},
    )
