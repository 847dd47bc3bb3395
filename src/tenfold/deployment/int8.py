"""An exported graph in eight bits."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.deployment.graph import INPUT

EIGHT_BIT_OPERATIONS = (
    "Conv", "Gemm", "MatMul", "Add", "Concat", "Reshape", "Flatten",
    "MaxPool", "AveragePool", "GlobalAveragePool", "Relu", "Clip",
)  # fmt: skip
"""What is computed in eight bits; not temperature and softmax, which would have 256 values."""


def quantise(path: Path, pixels: NDArray[np.uint8]) -> Path:
    """`path` in eight bits, beside it: weights by channel, ranges measured on `pixels`."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):  # type: ignore[misc]
        """The images in batches, each once."""

        def __init__(self) -> None:
            self._batches = iter(np.array_split(pixels, 20))

        def get_next(self) -> dict[str, Any] | None:
            """The next batch, or None."""
            return next(({INPUT: batch} for batch in self._batches), None)

    swapped, prepared, small = (
        path.with_name(f"{name}.onnx") for name in ("swapped", "prepared", "int8")
    )
    relu_before_pooling(path, swapped)
    # Folds the norms into the convolutions, so that each is one operation of eight bits.
    quant_pre_process(str(swapped), str(prepared), skip_symbolic_shape=True)
    nodes = onnx.load(str(prepared)).graph.node
    quantize_static(
        str(prepared),
        str(small),
        Images(),
        op_types_to_quantize=list(EIGHT_BIT_OPERATIONS),
        # An addition that gives the logits: they themselves stay in floats.
        nodes_to_exclude=[
            node.name for node in nodes if "logits" in node.output and node.op_type == "Add"
        ],
        extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        # Seven bits: two products of eight are too large a sum for processors without VNNI.
        reduce_range=True,
    )
    return small


def relu_before_pooling(path: Path, out: Path) -> None:
    """Write `path` to `out`, every ReLU behind a max pooling before it, which changes no logit.

    It then ends the convolution before, and the pooling has the same range before and after, as it
    must for ONNX Runtime to do it in eight bits.
    """
    import onnx

    model = onnx.load(str(path))
    nodes = list(model.graph.node)
    readers = Counter(name for node in nodes for name in node.input)
    readers.update(output.name for output in model.graph.output)
    pools = {node.output[0]: node for node in nodes if node.op_type == "MaxPool"}
    for relu in [node for node in nodes if node.op_type == "Relu"]:
        between = relu.input[0]
        pool = pools.get(between)
        if pool is None or readers[between] > 1 or len(pool.output) > 1:
            continue
        pool.output[0], relu.output[0] = relu.output[0], between
        relu.input[0], pool.input[0] = pool.input[0], between
        nodes.remove(relu)  # Nodes stand in the order in which they are computed.
        nodes.insert(nodes.index(pool), relu)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.graph.value_info[:]  # The shapes between them are others now.
    onnx.save(model, str(out))
