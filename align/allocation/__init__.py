"""Before a rollout: how many samples each prompt gets, and how they are drawn. Pure functions of what is known so far.

| name | what it decides |
|---|---|
| `knapsack` | rollouts per prompt, from success rates, so that mixed groups of hard prompts are most likely |
| `xrpo` | rollouts per prompt, from the spread of rewards and the number of rollouts so far |
| `success_rates` | the rates that `knapsack` needs, from recorded outcomes |
| `hapo_temperature` | a temperature per token, from the entropy of the next-token distribution |
| `ucb`, `thompson` | how often each bucket of prompts is drawn, from what was learnt from it |
"""

from align.allocation.buckets import thompson, ucb
from align.allocation.hapo import EntropyScale, hapo_temperature
from align.allocation.knapsack import knapsack, mixed_value, rollouts_needed
from align.allocation.success import success_rates
from align.allocation.xrpo import xrpo

__all__ = [
    "EntropyScale",
    "hapo_temperature",
    "knapsack",
    "mixed_value",
    "rollouts_needed",
    "success_rates",
    "thompson",
    "ucb",
    "xrpo",
]
