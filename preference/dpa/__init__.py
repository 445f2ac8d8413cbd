"""Directional Preference Alignment: one policy for all trade-offs, steered by numbers in its prompt. docs/dpa.md.

| file | what |
|---|---|
| control.py | objectives, directions, the control text, scores along a direction |
| rounds.py | a round: draw directions, sample, score, keep best and worst; its file |
| method.py | the method, as the one loop sees it |
| steering.py | held-out prompts under several directions, and whether the policy follows |
| assemble.py | from settings to these objects |
"""
