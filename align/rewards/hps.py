"""HPSv2 and HPSv2.1: human preference score, by an open-clip ViT-H/14 that was trained on preferences."""

from __future__ import annotations

from collections.abc import Sequence

from PIL.Image import Image

from align.errors import AlignError
from align.rewards.clip_network import Clip, cosines, open_clip_clip, padded
from align.rewards.network import Lazy, hub_file, pick_device, pick_dtype, place_of, read_weights
from align.rewards.options import whole

WEIGHTS = "xswu/HPSv2"
ENDINGS = (".pt", ".pth", ".bin", ".safetensors")


class HpsV2:
    """Human preference score, version 2: cosine of a fine-tuned CLIP ViT-H/14, about 0.2 to 0.35.

        score = cos(f(image), g(prompt)), without the logit scale

    Prompts are cut to 77 tokens. Pictures: longer side to 224 pixels (bicubic), black bars, CLIP's mean and std.

    Args:
        weights: file, folder or hub id with the checkpoint (a state dict of all tensors, safetensors or a pickle).
        architecture: name in open-clip.
        device: `auto`, `cpu`, `cuda:1`, ...
        dtype: float32, float16 or bfloat16.
        batch_size: pictures in one forward pass.

    References:
        Wu et al., "Human Preference Score v2: A Solid Benchmark for Evaluating Human Preferences of Text-to-Image
        Synthesis", arXiv:2306.09341.
    """

    filename = "HPS_v2_compressed.pt"

    def __init__(
        self,
        weights: str = WEIGHTS,
        architecture: str = "ViT-H-14",
        device: str = "auto",
        dtype: str = "float32",
        batch_size: int = 32,
    ) -> None:
        whole("batch_size", batch_size)
        self._place = place_of("weights", weights, ENDINGS)
        self._architecture, self._batch_size = architecture, batch_size
        self._device, self._dtype = pick_device(device), pick_dtype(dtype)
        self.clip = Lazy(self._load)

    def __call__(self, *, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        """One score per picture."""
        return cosines(self.clip(), images, prompts).tolist()

    def _load(self) -> Clip:
        path = hub_file(self._place, self.filename)
        try:
            return open_clip_clip(
                self._architecture, read_weights(path), self._device, self._dtype, self._batch_size, padded
            )
        except RuntimeError as error:
            raise AlignError(
                f"{path} does not fit open-clip's {self._architecture}: {str(error).splitlines()[0]}",
                "Give the checkpoint's architecture under `options`.",
            ) from error


class HpsV21(HpsV2):
    """Human preference score, version 2.1: as `hps_v2`, with the checkpoint of better data; about 0.2 to 0.35."""

    filename = "HPS_v2.1_compressed.pt"
