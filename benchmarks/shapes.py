"""The shapes of the weights of well-known models, for the benchmarks."""

Shapes = list[tuple[int, ...]]


def _resnet50() -> list[tuple[int, ...]]:
    """Convolutions, scale and shift after each, and the classifier of ResNet-50 (He et al. 2016): 161 tensors, 25.6 M."""
    shapes: list[tuple[int, ...]] = [(7, 7, 3, 64), (64,), (64,)]
    channels = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            out = 4 * width
            shapes += [(1, 1, channels, width), (width,), (width,), (3, 3, width, width), (width,), (width,)]
            shapes += [(1, 1, width, out), (out,), (out,)]
            if block == 0:
                shapes += [(1, 1, channels, out), (out,), (out,)]
            channels = out
    return [*shapes, (2048, 1000), (1000,)]


def _gpt2_small() -> list[tuple[int, ...]]:
    """GPT-2 small (Radford et al. 2019), the embedding tied to the output: 148 tensors, 124.4 M."""
    d = 768
    block: list[tuple[int, ...]] = [
        (d,),
        (d,),
        (d, 3 * d),
        (3 * d,),
        (d, d),
        (d,),
        (d,),
        (d,),
        (d, 4 * d),
        (4 * d,),
        (4 * d, d),
        (d,),
    ]
    return [(50257, d), (1024, d), *(12 * block), (d,), (d,)]


ONE_TENSOR: list[tuple[int, ...]] = [(64 << 20,)]
RESNET50 = _resnet50()
GPT2_SMALL = _gpt2_small()
GPT2_MATRICES = [shape for shape in GPT2_SMALL[2:] if len(shape) == 2]  # of the blocks, 48: without the embeddings
MLP: list[tuple[int, ...]] = [(784, 256), (256,), (256, 256), (256,), (256, 128), (128,), (128, 10), (10,)]
SMALL_MLP: list[tuple[int, ...]] = [(64, 32), (64,), (64, 64), (64,), (64, 64), (64,), (10, 64), (10,)]
MLP_MATRICES = [shape for shape in MLP if len(shape) == 2]
MANY_SMALL: list[tuple[int, ...]] = [(100,)] * 10_000

# What the benchmarks of single steps are run on, by the letters of their --cases.
CASES: dict[str, tuple[str, Shapes]] = {
    "a": ("64 M in one tensor", ONE_TENSOR),
    "b": ("ResNet-50, 161 tensors", RESNET50),
    "c": ("GPT-2 small, 148 tensors", GPT2_SMALL),
    "d": ("10,000 tensors of 100", MANY_SMALL),
    "e": ("MLP, 8 tensors", SMALL_MLP),
}
assert len(GPT2_SMALL) == 148
