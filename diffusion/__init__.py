"""Text-to-image models: rollouts, samplers, losses and one file per alignment method.

Time: t = 1 is noise, t = 0 the clean image.
"""
