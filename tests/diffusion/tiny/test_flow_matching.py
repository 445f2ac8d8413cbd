"""The loss, and the trick that stands for 256 zero tokens."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from diffusion.tiny import build, flow_matching
from diffusion.tiny.flow_matching import Model, RepeatLastKey


@pytest.fixture(scope="module")
def model() -> Model:
    """Random weights everywhere: the zero start would hide every mistake."""
    torch.manual_seed(0)
    model = Model(build.tokenizer())
    with torch.no_grad():
        for parameter in model.transformer.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def token_ids(*captions: str) -> torch.Tensor:
    return build.tokenizer()(list(captions), padding="max_length", return_tensors="pt").input_ids


class TestRepeatLastKey:
    def test_it_equals_attention_to_copies(self) -> None:
        """Five copies of the last key and value, written out, against one that counts five times."""
        generator = torch.Generator().manual_seed(0)
        query, key, value = (torch.randn(2, 4, 6, 8, generator=generator) for _ in range(3))
        copies = [torch.cat([part, part[:, :, -1:].expand(-1, -1, 4, -1)], dim=2) for part in (key, value)]
        with RepeatLastKey(5):
            once = F.scaled_dot_product_attention(query, key, value)
        torch.testing.assert_close(once, F.scaled_dot_product_attention(query, *copies))

    def test_once_changes_nothing(self) -> None:
        query, key, value = torch.randn(3, 1, 2, 4, 8).unbind()
        with RepeatLastKey(1):
            inside = F.scaled_dot_product_attention(query, key, value)
        torch.testing.assert_close(inside, F.scaled_dot_product_attention(query, key, value))

    def test_the_whole_network_equals_256_zero_tokens(self, model: Model) -> None:
        noisy, t = torch.randn(2, 16, 8, 8), torch.tensor([0.3, 0.9])
        ids = token_ids("a red circle", "two blue squares")
        with torch.no_grad():
            cheap = model(noisy, t, ids, zero_tokens=256)
            context, pooled = model.encode(ids)
            context = torch.cat([context, torch.zeros(2, 256, 128)], dim=1)
            stock = model.transformer(noisy, context, pooled, 1000 * t).sample
            without = model(noisy, t, ids)
        torch.testing.assert_close(cheap, stock, atol=1e-5, rtol=1e-5)
        assert (cheap - without).abs().max() > 0.01  # the tokens matter to an untrained network


def test_encode_equals_the_pipeline(model: Model) -> None:
    """Same context and pooled vector as `encode_prompt(max_sequence_length=0)`: training and use see the same text."""
    tokenizer = build.tokenizer()
    pipeline = build.assemble(
        build.autoencoder(), model.transformer, (model.text_encoder, model.text_encoder_2), tokenizer
    )
    pipeline.register_modules(text_encoder_3=None, tokenizer_3=None)
    prompts = ["a red circle", "a small red circle and a large blue square"]
    with torch.no_grad():
        context, _, pooled, _ = pipeline.encode_prompt(
            prompts, None, None, do_classifier_free_guidance=False, max_sequence_length=0
        )
        ours = model.encode(token_ids(*prompts))
    torch.testing.assert_close(ours[0], context)
    torch.testing.assert_close(ours[1], pooled)


class Recorder(nn.Module):
    """A network that keeps what it is given and answers zero."""

    def forward(self, noisy: torch.Tensor, t: torch.Tensor, ids: torch.Tensor, zero_tokens: int) -> torch.Tensor:
        self.noisy, self.t, self.ids, self.zero_tokens = noisy, t, ids, zero_tokens
        return torch.zeros_like(noisy)


class TestLoss:
    def loss(self, clean: torch.Tensor, seed: int = 0) -> tuple[torch.Tensor, Recorder]:
        network = Recorder()
        ids = torch.arange(1, len(clean) + 1)[:, None].expand(-1, 3)
        empty = torch.zeros(3, dtype=torch.long)
        generator = torch.Generator().manual_seed(seed)
        return flow_matching.flow_matching_loss(network, clean, ids, empty, generator), network

    def test_it_is_the_mean_square_of_noise_minus_clean(self) -> None:
        """With v = 0 the loss is mean (e - x0)^2, and e follows from x_t: e = (x_t - (1 - t) x0) / t."""
        clean = torch.randn(64, 2, 4, 4)
        loss, network = self.loss(clean)
        t = network.t.view(-1, 1, 1, 1)
        noise = (network.noisy - (1 - t) * clean) / t
        torch.testing.assert_close(loss, (noise - clean).square().mean(), rtol=1e-3, atol=0)

    def test_pure_noise_costs_two(self) -> None:
        """e and x0 independent of unit variance: E (e - x0)^2 = 2."""
        assert self.loss(torch.randn(4000, 1, 4, 4))[0] == pytest.approx(2.0, abs=0.05)

    def test_times_are_logit_normal(self) -> None:
        """logit(t) ~ N(0, 1): mean 0, standard deviation 1."""
        t = self.loss(torch.zeros(20_000, 1, 1, 1))[1].t
        assert torch.logit(t).mean() == pytest.approx(0.0, abs=0.03)
        assert torch.logit(t).std() == pytest.approx(1.0, abs=0.03)

    def test_one_caption_in_ten_is_empty(self) -> None:
        ids = self.loss(torch.zeros(20_000, 1, 1, 1))[1].ids
        assert (ids == 0).all(dim=1).float().mean() == pytest.approx(0.1, abs=0.01)

    def test_a_quarter_of_the_batches_have_zero_tokens(self) -> None:
        counts = [self.loss(torch.zeros(1, 1, 1, 1), seed)[1].zero_tokens for seed in range(400)]
        assert set(counts) == {0, 256}
        assert counts.count(256) / 400 == pytest.approx(0.25, abs=0.07)
