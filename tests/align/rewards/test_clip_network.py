"""CLIP's preprocessing and the scorers that stand on it, with random weights, against slow independent computations."""

import logging
from itertools import pairwise

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor
from torchvision.transforms.functional import InterpolationMode

from align.config.shared import RewardConfig
from align.rewards.aesthetic import AestheticScore, collapsed
from align.rewards.clip import ClipScore
from align.rewards.clip_network import MEAN, STD, cropped, padded, pixels
from align.rewards.find import RewardError
from align.rewards.hps import HpsV2, HpsV21
from align.rewards.load import load_reward
from align.rewards.pick import PickScore

from .miniature import ARCHITECTURE, CONTEXT, SIDE, open_clip_network, picture, register_open_clip, save_clip

SIZES = [(64, 64), (50, 41), (41, 50), (100, 30), (33, 32), (20, 31)]
PROMPTS = ["a cat", "two dogs", "a cat", "red", "x y", "z"]


def cosine(a, b):
    """By a loop over numbers, in float64."""
    a, b = a.double().tolist(), b.double().tolist()
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / (sum(x * x for x in a) ** 0.5 * sum(y * y for y in b) ** 0.5)


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    return folder, *save_clip(folder)


@pytest.fixture(scope="module")
def hps_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hps")
    register_open_clip(folder / "configs")
    network = open_clip_network(seed=3)
    torch.save({"epoch": 3, "state_dict": network.state_dict()}, folder / "HPS_v2_compressed.pt")
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, folder / "hps.safetensors")
    return folder, network


def reference_pixels(image):
    """CLIP's published preprocessing, by torchvision on the Pillow picture."""
    steps = [Resize(SIDE, InterpolationMode.BICUBIC), CenterCrop(SIDE), ToTensor(), Normalize(MEAN, STD)]
    return Compose(steps)(image.convert("RGB"))


@pytest.mark.parametrize("size", SIZES)
def test_cropping_is_torchvisions(size):
    image = picture(*size)
    torch.testing.assert_close(pixels([image], SIDE, cropped)[0], reference_pixels(image), atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_padding_is_that_of_open_clips_longest_mode(size):
    """Both scale the longer side and put what is missing on both ends, the odd pixel behind; black, then normalised."""
    image = picture(*size)
    reference = open_clip.transform.image_transform(SIDE, is_train=False, resize_mode="longest")(image)
    torch.testing.assert_close(pixels([image], SIDE, padded)[0], reference, atol=1e-6, rtol=0)


def test_padding_by_hand():
    """White 64 x 16 to 32: 32 x 8, so 12 black rows above and below; black is -mean / std."""
    values = pixels([Image.new("RGB", (64, 16), "white")], 32, padded)[0]
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    torch.testing.assert_close(values[:, :12], (-mean / std).expand(3, 12, 32))
    torch.testing.assert_close(values[:, 20:], (-mean / std).expand(3, 12, 32))
    torch.testing.assert_close(values[:, 12:20], ((1 - mean) / std).expand(3, 8, 32))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "CMYK"])
def test_every_mode_of_picture_is_read_as_rgb(mode):
    image = picture(40, 40).convert(mode)
    torch.testing.assert_close(pixels([image], SIDE), pixels([image.convert("RGB")], SIDE))


def expected_cosines(network, tokenizer, images, prompts):
    """One picture and prompt at a time; the projections of the two towers applied by hand."""
    found = []
    for image, prompt in zip(images, prompts, strict=True):
        ids = tokenizer([prompt], truncation=True, max_length=CONTEXT, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            seen = network.vision_model(pixel_values=reference_pixels(image)[None]).pooler_output
            read = network.text_model(input_ids=ids).pooler_output
            found.append(
                cosine((seen @ network.visual_projection.weight.T)[0], (read @ network.text_projection.weight.T)[0])
            )
    return found


class TestClipScore:
    @pytest.mark.parametrize("batch_size", [1, 4, 32])
    def test_is_the_cosine(self, clip_folder, batch_size):
        folder, network, tokenizer = clip_folder
        images = [picture(*size, seed) for seed, size in enumerate(SIZES)]
        expected = expected_cosines(network, tokenizer, images, PROMPTS)
        scores = ClipScore(str(folder), device="cpu", batch_size=batch_size)(images=images, prompts=PROMPTS)
        assert np.ptp(expected) > 0.05
        assert scores == pytest.approx(expected, abs=1e-5)  # float32 and other batch sizes

    def test_is_the_models_own_logit_over_its_scale(self, clip_folder):
        folder, network, tokenizer = clip_folder
        image = picture(48, 40)
        ids = tokenizer(["a cat"], return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logits = network(input_ids=ids, pixel_values=reference_pixels(image)[None]).logits_per_image
        (score,) = ClipScore(str(folder), device="cpu")(images=[image], prompts=["a cat"])
        assert score == pytest.approx(logits.item() / network.logit_scale.exp().item(), abs=1e-5)

    def test_no_pictures(self, clip_folder):
        assert ClipScore(str(clip_folder[0]), device="cpu")(images=[], prompts=[]) == []

    def test_the_network_is_frozen_in_evaluation_mode_and_loaded_once(self, clip_folder):
        score = ClipScore(str(clip_folder[0]), device="cpu")
        assert score.clip() is score.clip()
        assert not score.clip().network.training
        assert not any(parameter.requires_grad for parameter in score.clip().network.parameters())

    def test_long_prompts_are_cut_counted_and_told_once(self, clip_folder, caplog):
        """10 tokens with begin and end: 8 letters fit, so `abcdefgh` counts and what follows does not."""
        score = ClipScore(str(clip_folder[0]), device="cpu")
        images = [picture(40, 40)] * 3
        with caplog.at_level(logging.WARNING, "align.rewards"):
            long, longer, fits = score(images=images, prompts=["abcdefghi", "abcdefghijk", "abcdefgh"])
            score(images=images[:1], prompts=["abcdefghij"])
        assert score.clip().truncated == 3
        assert [record.getMessage()[:60] for record in caplog.records] == [
            "2 of 3 prompts are longer than the 10 tokens that the scorer "[:60]
        ]
        assert long == longer
        assert fits == pytest.approx(score(images=images[:1], prompts=["abcdefgh"])[0])

    def test_half_precision(self, clip_folder):
        images = [picture(*size, seed) for seed, size in enumerate(SIZES)]
        exact = ClipScore(str(clip_folder[0]), device="cpu")(images=images, prompts=PROMPTS)
        half = ClipScore(str(clip_folder[0]), device="cpu", dtype="bfloat16")(images=images, prompts=PROMPTS)
        assert half == pytest.approx(exact, abs=0.05)  # bfloat16 has 8 bits
        assert half != exact


class TestPickScore:
    def test_is_the_logit_over_the_divisor(self, clip_folder):
        folder, network, tokenizer = clip_folder
        images = [picture(*size, seed) for seed, size in enumerate(SIZES)]
        scale = network.logit_scale.exp().item()
        expected = [scale * value for value in expected_cosines(network, tokenizer, images, PROMPTS)]
        options = {"model": str(folder), "processor": str(folder), "device": "cpu"}
        assert PickScore(**options)(images=images, prompts=PROMPTS) == pytest.approx(expected, abs=1e-4)
        divided = PickScore(**options, divisor=26)(images=images, prompts=PROMPTS)
        assert divided == pytest.approx([value / 26 for value in expected], abs=1e-5)


class TestHps:
    def expected(self, network, images, prompts):
        transform = open_clip.transform.image_transform(SIDE, is_train=False, resize_mode="longest")
        tokenizer = open_clip.get_tokenizer(ARCHITECTURE)
        with torch.no_grad():
            return [
                cosine(network.encode_image(transform(image)[None])[0], network.encode_text(tokenizer([prompt]))[0])
                for image, prompt in zip(images, prompts, strict=True)
            ]

    @pytest.mark.parametrize("file", ["HPS_v2_compressed.pt", "hps.safetensors", ""])
    def test_is_the_cosine_without_the_scale(self, hps_files, file):
        folder, network = hps_files
        images = [picture(*size, seed) for seed, size in enumerate(SIZES)]
        score = HpsV2(str(folder / file), architecture=ARCHITECTURE, device="cpu", batch_size=4)
        expected = self.expected(network, images, PROMPTS)
        assert score(images=images, prompts=PROMPTS) == pytest.approx(expected, abs=1e-5)
        assert np.ptp(expected) > 0.01

    def test_77_tokens(self, hps_files):
        """`a b c ...`: a token each; 75 fit between begin and end."""
        folder, _ = hps_files
        score = HpsV2(str(folder), architecture=ARCHITECTURE, device="cpu")
        fits, cut = " ".join(["cat"] * 75), " ".join(["cat"] * 76)
        first, second = score(images=[picture(40, 40)] * 2, prompts=[fits, cut])
        assert score.clip().truncated == 1
        assert first == second

    def test_version_2_1_looks_for_its_own_file(self, hps_files):
        score = HpsV21(str(hps_files[0]), architecture=ARCHITECTURE, device="cpu")
        with pytest.raises(Exception, match=r"expected HPS_v2.1_compressed.pt in .*found HPS_v2_compressed.pt"):
            score(images=[picture(40, 40)], prompts=["a"])

    def test_weights_of_another_architecture(self, hps_files):
        with pytest.raises(Exception, match="does not fit open-clip's ViT-B-32"):
            HpsV2(str(hps_files[0]), architecture="ViT-B-32", device="cpu")(images=[picture(40, 40)], prompts=["a"])


class TestAesthetic:
    SIZES = (8, 16, 12, 10, 6, 1)

    def head(self, sizes=SIZES):
        """Named as LAION's file: dropout layers take numbers, too."""
        generator = torch.Generator().manual_seed(0)
        weights = {}
        for number, (into, out) in zip((0, 2, 4, 6, 7), pairwise(sizes), strict=True):
            weights[f"layers.{number}.weight"] = torch.randn(out, into, generator=generator)
            weights[f"layers.{number}.bias"] = torch.randn(out, generator=generator)
        return weights

    def test_collapsing_is_exact(self):
        weights = self.head()
        weight, bias = collapsed(weights)
        x = torch.linspace(-1, 1, 8, dtype=torch.float64)
        slow = x
        for number in (0, 2, 4, 6, 7):
            slow = weights[f"layers.{number}.weight"].double() @ slow + weights[f"layers.{number}.bias"].double()
        assert (weight @ x + bias).item() == pytest.approx(slow.item(), rel=1e-12)

    def test_by_hand(self):
        """(2 x + 1) then (3 y - 4): 6 x - 1."""
        weights = {"0.weight": [[2.0]], "0.bias": [1.0], "3.weight": [[3.0]], "3.bias": [-4.0]}
        weight, bias = collapsed({name: torch.tensor(value) for name, value in weights.items()})
        assert (weight.tolist(), bias) == ([6.0], -1.0)

    @pytest.mark.parametrize("ending", [".pth", ".safetensors"])
    def test_is_the_stack_on_the_unit_embedding(self, clip_folder, tmp_path, ending):
        folder, network, _ = clip_folder
        weights, file = self.head(), tmp_path / f"head{ending}"
        (save_file if ending == ".safetensors" else torch.save)(weights, file)
        images = [picture(*size, seed) for seed, size in enumerate(SIZES)]
        expected = []
        for image in images:
            with torch.no_grad():
                seen = network.vision_model(pixel_values=reference_pixels(image)[None]).pooler_output
                x = (seen @ network.visual_projection.weight.T)[0].double()
            x = x / x.square().sum().sqrt()
            for number in (0, 2, 4, 6, 7):
                x = weights[f"layers.{number}.weight"].double() @ x + weights[f"layers.{number}.bias"].double()
            expected.append(x.item())
        score = AestheticScore(str(folder), head=str(file), device="cpu", batch_size=4)
        assert score(images=images) == pytest.approx(expected, abs=1e-4)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"layers.2.weight": torch.zeros(12, 15)}, "8x16, 15x12"),
            ({"layers.7.weight": torch.zeros(2, 6)}, "do not lead to one number"),
            ({"layers.7.bias": None}, "incomplete"),
            ({"visual.proj": torch.zeros(1)}, "unknown tensor visual.proj"),
        ],
    )
    def test_another_file_is_refused(self, change, message):
        weights = {name: value for name, value in {**self.head(), **change}.items() if value is not None}
        with pytest.raises(Exception, match=message):
            collapsed(weights)

    def test_a_head_of_another_network(self, clip_folder, tmp_path):
        torch.save(self.head((768, 16, 12, 10, 6, 1)), tmp_path / "head.pth")
        score = AestheticScore(str(clip_folder[0]), head=str(tmp_path / "head.pth"), device="cpu")
        with pytest.raises(Exception, match="reads 768 features, the CLIP network gives 8"):
            score(images=[picture(40, 40)])


class TestBadOptions:
    @pytest.mark.parametrize(
        ("function", "options", "message"),
        [
            ("clip_score", {"model": "./nowhere"}, "`clip_score`: option `model` expects a file or folder at nowhere"),
            ("pick_score", {"processor": "/no/where"}, "option `processor` expects a file or folder at /no/where"),
            ("hps_v21", {"weights": "HPS.pt"}, "option `weights` expects a file or folder at HPS.pt, found none"),
            ("aesthetic", {"head": "~/no_such_head.pth"}, "option `head` expects a file or folder at"),
            ("clip_score", {"modle": "x"}, "has no option `modle`. Did you mean `model`"),
            ("clip_score", {"dtype": "float33"}, "option `dtype` expects one of .*Did you mean `float32`"),
            ("clip_score", {"device": "gpu"}, "option `device` expects a device of torch, found 'gpu'"),
            ("clip_score", {"device": "cuda:99"}, "torch sees . CUDA devices"),
            ("clip_score", {"batch_size": 0}, "option `batch_size` expects a whole number from 1, found 0"),
            ("pick_score", {"divisor": 0}, "option `divisor` expects a positive number, found 0"),
        ],
    )
    def test_are_found_before_anything_is_loaded(self, function, options, message):
        with pytest.raises(RewardError, match=message) as caught:
            load_reward(RewardConfig(function=function, options=options))
        assert caught.value.way_out

    def test_a_file_that_executes_code_is_not_read(self, tmp_path):
        class Evil:
            def __reduce__(self):
                return exec, ("raise SystemExit('executed')",)

        torch.save({"state_dict": Evil()}, tmp_path / "head.pth")
        score = AestheticScore(head=str(tmp_path / "head.pth"), device="cpu")
        with pytest.raises(Exception, match="cannot be read as weights"):
            score.head()
