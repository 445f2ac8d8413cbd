"""PickScore: which picture a person would pick for a prompt, by a CLIP that was trained on such choices."""

from __future__ import annotations

from collections.abc import Sequence

from PIL.Image import Image

from align.rewards.clip import lazy_clip
from align.rewards.clip_network import cosines
from align.rewards.options import positive

MODEL = "yuvalkirstain/PickScore_v1"
PROCESSOR = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"


class PickScore:
    """Preference of people for this picture under its prompt, as a CLIP logit; about 20 to 23, or divided by 26.

        score = exp(logit_scale) cos(f(image), g(prompt)) / divisor

    Prompts are cut to 77 tokens. Pictures: shorter side to 224 pixels (Pillow's bicubic), middle square.

    Args:
        model: folder or hub id.
        processor: folder or hub id of the tokenizer.
        divisor: 1 for the raw score that reports use; Flow-GRPO and DiffusionNFT train on the score divided by 26.
        device: `auto`, `cpu`, `cuda:1`, ...
        dtype: float32, float16 or bfloat16.
        batch_size: pictures in one forward pass.

    Note:
        DanceGRPO uses the bare cosine: that is `clip_score` with this model. MixGRPO's (x - 18) / 8 is `divisor: 8` but
        for a constant, which no comparison within a group sees.

    References:
        Kirstain et al., "Pick-a-Pic: An Open Dataset of User Preferences for Text-to-Image Generation",
        arXiv:2305.01569.
    """

    def __init__(
        self,
        model: str = MODEL,
        processor: str = PROCESSOR,
        divisor: float | int = 1.0,
        device: str = "auto",
        dtype: str = "float32",
        batch_size: int = 32,
    ) -> None:
        positive("divisor", divisor)
        self.divisor = float(divisor)
        self.clip = lazy_clip(model, processor, device, dtype, batch_size)

    def __call__(self, *, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        """One score per picture."""
        clip = self.clip()
        return (cosines(clip, images, prompts) * (clip.logit_scale / self.divisor)).tolist()
