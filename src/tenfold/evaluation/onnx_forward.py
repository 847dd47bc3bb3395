"""A pretrained network's forward pass through ONNX Runtime, two to three times as fast on a
processor as PyTorch's."""

import importlib.util
import io
import logging
import warnings
from collections.abc import Callable
from importlib import metadata
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.errors import first_line
from tenfold.models import Pretrained

WORTH_IT = 500
"""Images from which on a second for the conversion is well spent."""

BATCH = 8
"""Images at once, which stay in the processor's cache; results don't depend on it."""

EQUAL = 1e-4
"""Of the largest output, by which outputs may differ from PyTorch's."""

logger = logging.getLogger("tenfold")


def onnx_runtime(num_images: int, device: torch.device) -> str:
    """The version of ONNX Runtime with which so many images are seen; empty for PyTorch."""
    is_there = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))
    if device.type != "cpu" or num_images < WORTH_IT or not is_there:
        return ""
    return metadata.version("onnxruntime")


def through_onnx(network: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor] | None:
    """`network`, in evaluation, as ONNX Runtime computes it, with as many threads as torch.

    example: (N, C, H, W) float32, one batch of what it will see. Its outputs are the same for any
    number of threads. None where the network can't be converted, or says something else then.
    """
    import onnxruntime

    content: Any = io.BytesIO()
    try:
        with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
            warnings.simplefilter("ignore")
            first = example[:1].clone()
            # By tracing, which takes a second where torch.export takes ten.
            torch.onnx.export(
                network,
                (first,),
                content,
                dynamo=False,
                input_names=["inputs"],
                output_names=["outputs"],
                dynamic_axes={"inputs": {0: "batch"}, "outputs": {0: "batch"}},
            )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = ["CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(content.getvalue(), options, providers=providers)

        def run(inputs: Tensor) -> Tensor:
            parts = torch.split(inputs.contiguous(), BATCH)
            found = [session.run(None, {"inputs": part.numpy()})[0] for part in parts]
            return torch.cat([torch.from_numpy(each) for each in found])

        expected, found = network(example), run(example)
    except Exception as error:  # What converters raise has no common base.
        logger.debug("The network is not computed by ONNX Runtime: %s", first_line(error))
        return None
    distance, largest = (expected - found).abs().max(), expected.abs().max()
    return run if bool(distance <= EQUAL * largest) else None


def quick_forward(model: Pretrained, inputs: Tensor, num_images: int) -> Callable[[Tensor], Tensor]:
    """`model`, in evaluation, with its backbone by ONNX Runtime if so many images are worth that.

    inputs: (N, 3, H, W), some of them.
    """
    if not onnx_runtime(num_images, inputs.device):
        return model
    through = through_onnx(model.backbone, model.resized(inputs[:BATCH]))
    return lambda inputs: model.head(model.features(inputs, through=through))
