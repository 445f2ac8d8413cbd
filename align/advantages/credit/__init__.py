"""Estimators that decide which token, step, turn, segment or denoising step gets how much of a reward.

They stand on a few primitives, each in a file of its own:

    prefix.py       exact ids of the nodes of a prefix tree; the mean over the members of an edge
    tree_values.py  values of nodes from values of their children
    units.py        positions <-> steps, segments and turns
    states.py       steps <-> the states of an environment
    scan.py         backward recursions that skip masked positions
    standard.py     centring, z-scores and whitening that give exactly 0 where there is no spread

and say the same thing in different ways. With V(e) the mean reward of the rollouts through edge e, p its parent edge, m
and s mean and standard deviation of the group:

    grpo          (r_i - m) / s                                    does not look at e
    salt          (V(e) - m) / s                                   tree_grpo likewise
    spo_tree      V(e) - V(p)
    tempo         (r_i - m) / s  +  (V(e) - V(p)) / s
    branch_grpo   (V(e) - mean of V at this depth) / std of V at this depth
    stepwise_gain z-score of R_k - R_(k-1), rewards of the pictures implied along the way
    gigpo         (r_i - m) / s  +  omega * z-score of the return among equal states
"""
