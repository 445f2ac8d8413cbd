"""CLIP networks of a few thousand random weights, in the folders and files that the real ones come in."""

import json

import numpy as np
import open_clip
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTokenizer, CLIPVisionConfig

CONTEXT, SIDE, WIDTH = 10, 32, 16
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
ARCHITECTURE = "miniature-for-tests"


def picture(width, height, seed=0):
    """Smooth noise: a resizing filter that is off by a little shows."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def letter_tokenizer():
    """CLIP's own byte-pair tokenizer with single letters as its only tokens."""
    words = [*LETTERS, *(letter + "</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[])


def save_clip(folder, seed=0, scale=1.0):
    """A CLIPModel folder with its tokenizer."""
    tokenizer = letter_tokenizer()
    sizes = {"hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = CLIPTextConfig(
        **sizes,
        vocab_size=len(tokenizer),
        max_position_embeddings=CONTEXT,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = CLIPVisionConfig(**sizes, image_size=SIDE, patch_size=8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8)
        network = CLIPModel(config).eval()
        for parameter in network.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=scale / parameter[0].numel() ** 0.5)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return network, tokenizer


def register_open_clip(folder):
    """A tiny architecture of open-clip under `ARCHITECTURE`, with its tokenizer of 49408 words and 77 tokens."""
    config = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": SIDE, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 2},
    }
    folder.mkdir(exist_ok=True)
    (folder / f"{ARCHITECTURE}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)


def open_clip_network(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return open_clip.create_model(ARCHITECTURE, load_weights=False).eval()
