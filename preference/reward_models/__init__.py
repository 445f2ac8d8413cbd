"""Reward models: Bradley-Terry on pairs, several ratings at once, ridge regression on a frozen language model.

A run of its own kind (`branch: reward_model`) on the one engine. Importing this package loads nothing heavy.
"""
