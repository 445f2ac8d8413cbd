"""The network of the embedded model and the loss it was trained with.

With a latent x0, noise e ~ N(0, 1) and a time t in (0, 1), t = 1 being noise,

    x_t = (1 - t) x0 + t e,        loss = mean (v(x_t, 1000 t, caption) - (e - x0))^2,        logit(t) ~ N(0, 1).

One caption in ten is empty, so that classifier-free guidance works.

**Zero tokens.** Where T5 is absent, the stock pipeline appends m zero vectors to the context: m is its argument
`max_sequence_length`, 256 by default. Training covers m = 0 (three quarters of the batches; what rollouts should use)
and m = 256, the latter at the price of m = 1: equal tokens stay equal through every layer, because the context has no
positions, so attention to m of them is attention to one whose logit is raised by log m.

References:
    Lipman et al., "Flow Matching for Generative Modeling", arXiv:2210.02747, equation 23.
    Esser et al., "Scaling Rectified Flow Transformers", arXiv:2403.03206, section 3.1 (logit-normal times).
"""

import math
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from diffusers import SD3Transformer2DModel
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from diffusion.tiny import build

STOCK_ZERO_TOKENS = 256
ZERO_TOKEN_SHARE = 0.25
CAPTION_DROPOUT = 0.1


class RepeatLastKey(TorchFunctionMode):
    """Inside this context, attention counts the last key `times` times: its logit is raised by log(times).

    The raise enters as one more feature of queries (1) and keys (log(times) for the last, else 0), not as a mask: with
    a mask, the backward pass of attention on a CPU takes several times longer.
    """

    def __init__(self, times: int) -> None:
        super().__init__()
        self.raise_by = math.log(times)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        query, key, value = args
        width = query.shape[-1]
        extra = torch.zeros(key.shape[-2], 1, dtype=key.dtype)
        extra[-1] = self.raise_by * math.sqrt(width)  # attention divides by sqrt(width)
        query = F.pad(query, (0, 1), value=1.0)
        key = torch.cat([key, extra.expand(*key.shape[:-1], 1)], dim=-1)
        return func(query, key, F.pad(value, (0, 1)), scale=1 / math.sqrt(width))[..., :width]


class Model(nn.Module):
    """Transformer and text encoders as one module, with the pipeline's way of making a context."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.transformer: SD3Transformer2DModel = build.transformer()
        self.text_encoder: CLIPTextModelWithProjection = build.text_encoder(tokenizer)
        self.text_encoder_2: CLIPTextModelWithProjection = build.text_encoder(tokenizer)

    def encode(self, ids: Int[Tensor, "n s"]) -> tuple[Float[Tensor, "n s d"], Float[Tensor, "n p"]]:
        """Context tokens and pooled vector, as the pipeline's `encode_prompt` makes them without zero tokens."""
        outputs = [encoder(ids, output_hidden_states=True) for encoder in (self.text_encoder, self.text_encoder_2)]
        context = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        return context, torch.cat([output.text_embeds for output in outputs], dim=-1)

    def forward(
        self, noisy: Float[Tensor, "n c h w"], t: Float[Tensor, "n"], ids: Int[Tensor, "n s"], zero_tokens: int = 0
    ) -> Float[Tensor, "n c h w"]:
        """Velocity at time t in [0, 1], as if the context ended with `zero_tokens` zero vectors."""
        context, pooled = self.encode(ids)
        if zero_tokens:
            context = F.pad(context, (0, 0, 0, 1))
        with RepeatLastKey(zero_tokens) if zero_tokens else nullcontext():
            return self.transformer(noisy, context, pooled, 1000.0 * t, return_dict=False)[0]


def flow_matching_loss(
    model: Model,
    clean: Float[Tensor, "n c h w"],
    ids: Int[Tensor, "n s"],
    empty_ids: Int[Tensor, "s"],
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    """The loss of the module's docstring on one batch.

    Args:
        clean: latents x0, normalised to mean 0 and standard deviation 1.
        ids: token ids of the captions.
        empty_ids: token ids of the empty caption.
        generator: source of all randomness: times, noise, dropped captions, zero tokens or not.
    """
    n = len(clean)
    t = torch.sigmoid(torch.randn(n, generator=generator))
    noise = torch.randn(clean.shape, generator=generator)
    dropped = torch.rand(n, generator=generator) < CAPTION_DROPOUT
    ids = torch.where(dropped[:, None], empty_ids, ids)
    zero_tokens = STOCK_ZERO_TOKENS if torch.rand((), generator=generator) < ZERO_TOKEN_SHARE else 0
    weight = t.view(n, 1, 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        velocity = model((1 - weight) * clean + weight * noise, t, ids, zero_tokens)
    return F.mse_loss(velocity.float(), noise - clean)
