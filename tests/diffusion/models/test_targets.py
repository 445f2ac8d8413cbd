"""Named sets of adapted layers: endings, and layers outside of the blocks that an ending would also fit."""

from diffusion.models.targets import FLUX, SD3

LAYERS = (
    "proj_out",
    "transformer_blocks.0.ff.net.2",
    "single_transformer_blocks.0.proj_mlp",
    "single_transformer_blocks.0.proj_out",
    "single_transformer_blocks.1.proj_out",
)


def test_an_ending_that_fits_the_output_layer_is_spelled_out():
    """`proj_out` is the end of FLUX's single blocks and the name of its output layer, which is no part of the set."""
    assert FLUX.named("feed_forward", LAYERS) == (
        "ff.net.0.proj",
        "ff.net.2",
        "ff_context.net.0.proj",
        "ff_context.net.2",
        "proj_mlp",
        "single_transformer_blocks.0.proj_out",
        "single_transformer_blocks.1.proj_out",
    )
    assert FLUX.named("all_linear", LAYERS) == LAYERS[1:]
    assert "proj_out" not in SD3.named("attention", LAYERS)


def test_the_memory_guess_counts_the_same_layers():
    for name in ("feed_forward", "all_linear"):
        assert [layer for layer in LAYERS if FLUX.adapts(name, f"{layer}.weight")] == list(LAYERS[1:])
    assert FLUX.adapts(("proj_out",), "proj_out.weight")  # a list of endings means what it says
