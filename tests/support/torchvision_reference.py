"""State dicts like those of torchvision's networks, and the output of those networks for an image.

Written from torchvision's published networks, independently of training/networks/torchvision_nets.py.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F

DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}
VGG16 = {0: 64, 2: 64, 5: 128, 7: 128, 10: 256, 12: 256, 14: 256, 17: 512, 19: 512, 21: 512}
VGG16 |= {24: 512, 26: 512, 28: 512}
VGG16_POOLINGS = (4, 9, 16, 23, 30)


def parameter_shapes(name):
    """Return shapes by name: all but the classifier, with three input channels."""
    if name == "vgg16":
        sides = pairwise([3, *VGG16.values()])
        return {
            f"features.{at}.{kind}": shape
            for at, (before, after) in zip(VGG16, sides, strict=True)
            for kind, shape in (("weight", (after, before, 3, 3)), ("bias", (after,)))
        }
    wide = 4 if name == "resnet50" else 1
    shapes = {"conv1.weight": (64, 3, 7, 7), **norm("bn1", 64)}
    before = 64
    for layer, (inner, depth) in enumerate(zip((64, 128, 256, 512), DEPTHS[name], strict=True), 1):
        for block in range(depth):
            at, after = f"layer{layer}.{block}", inner * wide
            if wide == 4:
                kernels = [(inner, before, 1, 1), (inner, inner, 3, 3), (after, inner, 1, 1)]
            else:
                kernels = [(after, before, 3, 3), (after, after, 3, 3)]
            for number, kernel in enumerate(kernels, 1):
                shapes |= {f"{at}.conv{number}.weight": kernel, **norm(f"{at}.bn{number}", kernel[0])}
            if block == 0 and (layer > 1 or wide == 4):
                shapes[f"{at}.downsample.0.weight"] = (after, before, 1, 1)
                shapes |= norm(f"{at}.downsample.1", after)
            before = after
    return shapes


def norm(name, channels):
    kinds = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{name}.{kind}": (channels,) for kind in kinds}, f"{name}.num_batches_tracked": ()}


def random_state(name, seed=0):
    """Return a whole state dict with a (small) classifier; signals neither vanish nor explode."""
    random = torch.Generator().manual_seed(seed)
    state = {}
    for key, shape in parameter_shapes(name).items():
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(7)
        elif len(shape) == 4:
            state[key] = torch.randn(shape, generator=random) * (2 / (shape[1] * shape[2] * shape[3])) ** 0.5
        elif key.endswith(("running_var", "weight")):
            state[key] = torch.rand(shape, generator=random) * 0.4 + 0.6
        else:
            state[key] = torch.randn(shape, generator=random) * 0.1
    heads = ("classifier.0", "classifier.3", "classifier.6") if name == "vgg16" else ("fc",)
    for head in heads:
        state |= {f"{head}.weight": torch.ones(10, 4), f"{head}.bias": torch.ones(10)}
    return state


def zero_state(name):
    """Return a whole state dict of zeros, each tensor one number in memory and in a file of torch.save."""
    return {key: torch.zeros(()).expand(shape) for key, shape in parameter_shapes(name).items()}


def reference_maps(name, state, image_BCFM):
    """Return the maps of torchvision's network in evaluation mode, before the global pooling."""
    if name == "vgg16":
        return vgg16_maps(state, image_BCFM)
    maps = F.conv2d(image_BCFM, state["conv1.weight"], stride=2, padding=3)
    maps = F.max_pool2d(F.relu(normed(state, "bn1", maps)), 3, stride=2, padding=1)
    for layer, depth in enumerate(DEPTHS[name], 1):
        for block in range(depth):
            stride = 2 if layer > 1 and block == 0 else 1
            maps = block_maps(state, f"layer{layer}.{block}", maps, stride)
    return maps


def block_maps(state, at, maps, stride):
    inner, shortcut = maps, maps
    convolutions = 3 if f"{at}.conv3.weight" in state else 2
    striding = 2 if convolutions == 3 else 1
    for number in range(1, convolutions + 1):
        kernel = state[f"{at}.conv{number}.weight"]
        step = stride if number == striding else 1
        inner = F.conv2d(inner, kernel, stride=step, padding=kernel.shape[-1] // 2)
        inner = normed(state, f"{at}.bn{number}", inner)
        if number < convolutions:
            inner = F.relu(inner)
    if f"{at}.downsample.0.weight" in state:
        shortcut = F.conv2d(maps, state[f"{at}.downsample.0.weight"], stride=stride)
        shortcut = normed(state, f"{at}.downsample.1", shortcut)
    return F.relu(inner + shortcut)


def normed(state, at, maps):
    kinds = ("running_mean", "running_var", "weight", "bias")
    return F.batch_norm(maps, *(state[f"{at}.{kind}"] for kind in kinds))


def vgg16_maps(state, maps):
    for at in range(31):
        if at in VGG16:
            maps = F.relu(
                F.conv2d(maps, *(state[f"features.{at}.{kind}"] for kind in ("weight", "bias")), padding=1)
            )
        elif at in VGG16_POOLINGS:
            maps = F.max_pool2d(maps, 2)
    return maps
