"""Library models with live batch norm statistics: captured, optimized, still equal to eager."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import timm
import torch
from graphs import noise, outputs, randomize
from torch import nn
from torchvision import models

from edgekit.capture import capture, relative_error
from edgekit.passes import optimize


def _timm(name: str) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, num_classes=10)


MODELS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "mobilenet_v3_small": (models.mobilenet_v3_small, 64),
    "shufflenet_v2_x0_5": (models.shufflenet_v2_x0_5, 64),
    "densenet121": (models.densenet121, 64),
    "inception_v3": (lambda: models.inception_v3(aux_logits=False, init_weights=False), 96),
    "vit_b_16 reduced": (lambda: models.VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=10), 32),
    "swin reduced": (lambda: models.SwinTransformer([4, 4], 24, [2, 2], [2, 2], [4, 4], num_classes=10), 64),
    "resnetv2_50": (_timm("resnetv2_50"), 64),
    "xception41": (_timm("xception41"), 64),
    "efficientnet_lite0": (_timm("efficientnet_lite0"), 64),
    "mobilenetv4_conv_small": (_timm("mobilenetv4_conv_small"), 64),
    "repvgg_a0": (_timm("repvgg_a0"), 64),
    "hrnet_w18_small": (_timm("hrnet_w18_small"), 64),
}

IMAGE_BY_IMAGE = {"vit_b_16 reduced"}  # nn.MultiheadAttention moves the batch behind the tokens


@pytest.mark.parametrize("name", MODELS)
def test_optimized_equals_eager(name: str) -> None:
    make, size = MODELS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)  # initialisers take no generator; forked, so nothing outside sees it
        module = randomize(make())
    images = noise(2, 3, size, size)
    graph = capture(module, images[:1], name)
    assert graph.batchable == (name not in IMAGE_BY_IMAGE)
    optimize(graph)
    counts = Counter(node.op for node in graph.nodes)
    assert not counts["batch_norm"] and not counts["adaptive_avg_pool2d"]
    assert not counts["scaled_dot_product_attention"]
    assert not any(record.rewrites for record in optimize(graph))
    with torch.no_grad():
        expected = module(images)
    assert expected.std() > 1e-3
    assert relative_error(outputs(graph, images)[0], expected) < 1e-4
