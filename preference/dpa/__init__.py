"""Directional Preference Alignment: one policy for all trade-offs, steered by numbers in its prompt. docs/dpa.md.

| file | what |
|---|---|
| control.py | objectives, directions, the control text, scores along a direction |
| rounds.py | the answers of a round: draw directions, sample, score |
| kept.py | what a round keeps of them, and its file |
| losses.py, scored.py | how a round is trained on: sft, dpo, rwr, grpo |
| warm.py | rated answers as the round before the first |
| method.py | the method, as the one loop sees it |
| answer.py, auto.py, nearby.py | answers along a direction that is chosen now, or by an adapter, or near one |
| steering.py | held-out prompts under several directions, and whether the policy follows |
| assemble.py | from settings to these objects |
"""
