"""Pairs of random token ids, and a method on a miniature with everything around it but a run folder."""

import torch

from align.engine.adapters import Policy
from align.engine.distributed import Processes, start_accelerator
from preference.data import DataReport
from preference.forward import SequenceScorer, plan_layout
from preference.pair_method import PairParts
from preference.reference import ReferenceTable, complete
from preference.sampler import PairSampler
from preference.stored_pairs import StoredPairs, annotator_rates
from preference.tokens import TokenPairs

from .miniatures import VOCABULARY, miniature


def token_pairs(count=12, seed=0, columns=None, prompts=(3, 9), answers=(2, 7)):
    """`count` pairs with prompts and answers of random lengths."""
    generator = torch.Generator().manual_seed(seed)

    def ids(low, high):
        length = int(torch.randint(low, high + 1, (1,), generator=generator))
        return torch.randint(3, VOCABULARY, (length,), generator=generator)

    return TokenPairs(
        rows=list(range(count)),
        prompts=[f"prompt {row}" for row in range(count)],
        prompt_ids=[ids(*prompts) for _ in range(count)],
        columns=columns or {},
        report=DataReport(source="made", read=count, used=count),
        tokenizer="none",
        chosen=["good"] * count,
        rejected=["bad"] * count,
        chosen_ids=[ids(*answers) for _ in range(count)],
        rejected_ids=[ids(*answers) for _ in range(count)],
    )


def policy_of(network, **settings):
    """All weights of the network, trained."""
    policy = Policy.full(network, **settings)
    policy.prepare(start_accelerator())
    return policy


def float32(family="llama", seed=0):
    """A miniature as a run has it."""
    return miniature(family, seed=seed, spread=2.0).float()


def scorer_of(policy, pairs, wanted="auto"):
    batches = [pairs.groups(torch.arange(min(4, len(pairs))))]
    return SequenceScorer(policy, plan_layout(policy.module, batches, longest=pairs.data.longest(), wanted=wanted))


def parts_of(data, *, policy=None, per_step=4, stored=True, wanted="auto", updates=1, seed=0):
    """What a method needs, on one process; with `stored`, the reference is the policy as it is now."""
    policy = policy or policy_of(float32())
    pairs = StoredPairs(data=data, rates=annotator_rates(data))
    scorer = scorer_of(policy, pairs, wanted)
    if stored:
        table = complete(
            ReferenceTable.empty(),
            pairs.groups,
            torch.arange(len(pairs)),
            scorer=scorer,
            processes=Processes(),
            batch_size=3,
        )
        pairs = StoredPairs(data=data, reference=table, rates=pairs.rates)
    sampler = PairSampler(pairs=len(pairs), per_step=per_step, seed=seed, updates=updates)
    return PairParts(pairs=pairs, sampler=sampler, scorer=scorer, policy=policy)


def moved(policy, by=0.02, seed=5):
    """The policy with other weights than it began with."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in policy.trainable_parameters().values():
            weight.add_(by * torch.randn(weight.shape, generator=generator))
    return policy
