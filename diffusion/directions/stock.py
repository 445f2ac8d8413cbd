"""A pipeline of diffusers that draws along a direction, without this suite's own sampling.

pipe = StableDiffusion3Pipeline.from_pretrained(...)
pipe.load_lora_weights("runs/dpa_image_tiny-001/weights")
with along(pipe, "runs/dpa_image_tiny-001/weights", {"shapes": 0.8, "jpeg_compressibility": 0.6}) as ask:
    picture = pipe(ask("a red circle")).images[0]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from align.control import vector_of
from align.shaping.directions import from_integers
from diffusion.config.directions import EmbeddingCondition
from diffusion.directions.embedding import DirectionEmbedding
from diffusion.directions.files import read_directions, read_embedding
from diffusion.directions.place import NAME, attach, time_embedding


@contextmanager
def along(pipeline: Any, folder: str | Path, components: Mapping[str, float]) -> Iterator[Callable[[str], str]]:
    """Inside, the pipeline draws along a direction.

    Args:
        pipeline: of diffusers (Any: each family has its own class), with the adapters of `folder` loaded.
        folder: of exported weights, with direction.json.
        components: objective -> component, in any length.

    Yields:
        What makes the text to give to the pipeline from a prompt: the prompt itself, where the model is told through
        an embedding.

    Raises:
        AlignError: no direction.json there, an unknown objective, or a direction of length 0.
    """
    asker = read_directions(Path(folder))
    vector = vector_of(components, asker.names)

    def text(prompt: str) -> str:
        return asker.texts([prompt], vector)[0]

    if not isinstance(asker.condition, EmbeddingCondition):
        yield text
        return
    network = pipeline.transformer if getattr(pipeline, "transformer", None) is not None else pipeline.unet
    settings, (_, width) = asker.condition, time_embedding(network)
    embedding = DirectionEmbedding(
        len(asker.names), width, hidden=settings.hidden, frequencies=settings.frequencies, seed=0
    )
    embedding.load_state_dict(read_embedding(Path(folder)))
    embedding.to(next(network.parameters()).device).requires_grad_(False)
    hook = attach(network, embedding)
    try:
        with embedding.asked(from_integers(vector)[None].float()):
            yield text
    finally:
        hook.remove()
        del network._modules[NAME]
