"""Networks of timm that were trained on other images, with a head for ours. Only timm user."""

import contextlib
import re
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.modules.batchnorm import _BatchNorm

from tenfold.errors import TenfoldError, missing_extra
from tenfold.models.blocks import ACTIVATIONS, Activation, Layer, Width
from tenfold.registry import rule, traits

ORDINARY = (
    "tf_efficientnet_lite0", "efficientnet_b0", "resnet18", "resnet50", "convnext_tiny",
    "vit_small_patch16_224", "vit_small_patch14_dinov2", "mobilenetv3_large_100",
)  # fmt: skip
"""What to try first, of more than a thousand."""


class Preprocessing(NamedTuple):
    """How a network wants its images: side in pixels, interpolation, and constants of pixels in
    [0, 1] for red, green and blue."""

    side: int
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Pretrained(nn.Module):
    """A network of timm without its classifier, and dense layers of `head` units on its features.

    Its weights are random until `load_weights`, which `weights` is for. image_size is what the
    images have; they are brought to `input_size`, or the network's own size for 0, before it.
    Shape: `(N, 3, H, W)` float, normalised as `preprocessing_of` says -> `(N, num_classes)`
    logits. Raises TenfoldError where there is no such network.
    """

    @traits(any_size=False, muon=False)
    @rule("input_size", "0 or 16 to 1024", lambda o: o.input_size == 0 or o.input_size >= 16)
    def __init__(
        self,
        *,
        num_classes: int,
        image_size: tuple[int, int],
        backbone: Annotated[
            str,
            Field(
                min_length=1,
                description="Its name in timm, such as `resnet50` or `convnext_tiny`.",
            ),
        ] = "tf_efficientnet_lite0",
        weights: Annotated[
            str,
            Field(
                min_length=1,
                description="`auto` takes those of an installed package or timm's own from the "
                "Hugging Face hub; `none` leaves them random; or the path of a safetensors file or "
                "a PyTorch state dict.",
            ),
        ] = "auto",
        input_size: Annotated[
            int,
            Field(
                ge=0,
                le=1024,
                description="Side in pixels to which images are brought for the network; 0 is what "
                "it was trained at.",
            ),
        ] = 0,
        head: Annotated[
            tuple[Width, ...],
            Field(description="Units of each dense layer between features and output."),
        ] = (),
        activation: Activation = "relu",
        dropout: Annotated[
            float,
            Field(
                ge=0, lt=1, description="Share of the units before the output that training drops."
            ),
        ] = 0.0,
    ) -> None:
        super().__init__()
        del image_size, weights
        self.name = backbone
        self._norms = "learnt"
        self.preprocessing = preprocessing_of(backbone, input_size)
        self.backbone = _create(backbone, self.preprocessing.side)
        width = getattr(self.backbone, "head_hidden_size", None) or self.backbone.num_features
        self.num_features = width
        layers: list[nn.Module] = []
        for units in head:
            layers += [nn.Linear(width, units), ACTIVATIONS[activation]()]
            width = units
        if dropout > 0:
            layers.append(nn.Dropout(dropout))
        self.head = nn.Sequential(*layers, nn.Linear(width, num_classes))

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(inputs))
        return logits

    def features(self, inputs: Tensor) -> Tensor:
        """What the head sees of `inputs`: (N, D), one vector an image."""
        side = self.preprocessing.side
        if inputs.shape[2:] != (side, side):
            inputs = interpolate(
                inputs,
                (side, side),
                mode=self.preprocessing.interpolation,
                antialias=True,
                align_corners=False,
            )
        found: Tensor = self.backbone(inputs)
        return found

    def train(self, mode: bool = True) -> "Pretrained":
        """As everywhere, but norms keep their statistics unless they are to learn them."""
        super().train(mode)
        for module in self.backbone.modules():
            if isinstance(module, _BatchNorm) and not self._learns_statistics(module):
                module.eval()
        return self

    def _learns_statistics(self, norm: _BatchNorm) -> bool:
        own = next(norm.parameters(recurse=False), None)
        return self._norms == "learnt" and (own is None or own.requires_grad)

    def batch_size(self, most: int) -> int:
        """Images of a forward pass without gradients: `most`, or on a processor as many as take
        some 300 MB with a small network."""
        if next(self.parameters()).device.type != "cpu":
            return most
        return max(1, min(most, 40 * 160**2 // self.preprocessing.side**2))

    def groups(self) -> list[list[nn.Parameter]]:
        """All parameters by depth: timm's finest blocks from the input on, and the head.

        Raises TenfoldError for a network whose blocks timm does not know.
        """
        from timm.models import group_parameters

        if not hasattr(self.backbone, "group_matcher"):
            raise TenfoldError(
                f"The blocks of {self.name} are not known to timm; train 'all', or such as 'last "
                "30 layers', with layer_decay 1."
            )
        named = dict(self.backbone.named_parameters())
        matcher = self.backbone.group_matcher(coarse=False)
        blocks: dict[int, list[str]] = group_parameters(self.backbone, matcher)
        found = [[named[name] for name in names] for _, names in sorted(blocks.items())]
        return [*found, list(self.head.parameters())]

    def layers(self) -> list[list[nn.Parameter]]:
        """Parameters of the backbone's modules that have some of their own, in their order."""
        found = [list(module.parameters(recurse=False)) for module in self.backbone.modules()]
        return [parameters for parameters in found if parameters]

    def layers_with_maps(self) -> tuple[Layer, ...]:
        """The backbone's modules that timm names as its levels of features.

        Where one token alone is asked for the answer, the last level is what the last block's
        attention sees: nothing that the block does to the other tokens matters after it. Networks
        whose blocks are built otherwise have none.
        """
        levels = getattr(self.backbone, "feature_info", None) or []
        names = [level["module"] for level in levels]
        found = []
        for name in names:
            try:
                module = self.backbone.get_submodule(name)
            except AttributeError:  # Some networks name what exists in other forms of them alone.
                continue
            found.append(Layer(name, module, self._as_maps))
        if found and getattr(self.backbone, "global_pool", None) == "token":
            blocks = getattr(self.backbone, "blocks", None)
            last = getattr(blocks[-1], "norm1", None) if blocks is not None else None
            if last is None:
                return ()
            found[-1] = Layer(f"{found[-1].name}.norm1", last, self._as_maps)
        return tuple(found)

    def _as_maps(self, outputs: Tensor) -> Tensor:
        """(N, T, D) of a transformer, without its tokens of no place, or (N, h, w, D) of one that
        has its channels last, as (N, D, h, w)."""
        if outputs.dim() == 4:
            channels_last = str(getattr(self.backbone, "output_fmt", "NCHW")) == "NHWC"
            return outputs.permute(0, 3, 1, 2) if channels_last else outputs
        outputs = outputs[:, getattr(self.backbone, "num_prefix_tokens", 0) :]
        side = round(outputs.shape[1] ** 0.5)
        return outputs.transpose(1, 2).reshape(len(outputs), -1, side, side)

    def open(self, trains: str, *, norms: str = "kept") -> None:
        """Let `trains` learn and nothing else: `head`, `all`, or the head with `last 3 blocks` or
        `last 30 layers` of the backbone.

        norms: whether the statistics of batch norms that learn are `kept` or `learnt`. Raises
        TenfoldError where there aren't as many blocks or layers.
        """
        self._norms = norms
        self.requires_grad_(trains == "all")
        self.head.requires_grad_(True)
        if trains in ("head", "all"):
            return
        number, kind = parse_trains(trains)
        parts = self.groups()[:-1] if kind == "blocks" else self.layers()
        if number > len(parts):
            raise TenfoldError(
                f"{self.name} has {len(parts)} {kind}, so its {trains} can't be trained; use a "
                "smaller number, or all."
            )
        for parameters in parts[len(parts) - number :]:
            for parameter in parameters:
                parameter.requires_grad = True


def parse_trains(trains: str) -> tuple[int, str]:
    """`last 3 blocks` as (3, "blocks"); raises ValueError for anything else."""
    found = re.fullmatch(r"last ([1-9]\d*) (block|layer)s?", trains)
    if found is None:
        raise ValueError(trains)
    return int(found[1]), f"{found[2]}s"


def preprocessing_of(name: str, input_size: int = 0) -> Preprocessing:
    """How the network `name` wants its images, at `input_size` pixels unless that is 0.

    Raises TenfoldError where timm has no such network.
    """
    config = configuration(name)
    interpolation = config["interpolation"]
    return Preprocessing(
        side=input_size or config["input_size"][1],
        # The others that timm knows are named by PIL; torch interpolates in these two ways.
        interpolation=interpolation if interpolation in ("bilinear", "bicubic") else "bicubic",
        mean=config["mean"],
        std=config["std"],
    )


def import_timm() -> Any:
    """The package timm. Raises TenfoldError where it is not installed."""
    try:
        import timm
    except ImportError:
        raise missing_extra("Pretrained networks need timm", "pretrained") from None
    return timm


def configuration(name: str) -> dict[str, Any]:
    """What timm knows of the network `name` and its weights.

    Raises TenfoldError where timm has none of that name.
    """
    timm = import_timm()
    try:
        if not timm.is_model(name.partition(".")[0]):
            raise RuntimeError(name)
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:  # That is what timm raises for weights of another name.
        raise TenfoldError(
            f"timm has no network {name!r}; choose one of {', '.join(ORDINARY)}, or any that "
            "timm.list_models() gives."
        ) from None
    values: dict[str, Any] = config.to_dict() if config is not None else {}
    defaults = {
        "input_size": (3, 224, 224),
        "interpolation": "bicubic",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
    }
    return defaults | values


def _create(name: str, side: int) -> Any:
    """The network without classifier, for images of `side` pixels."""
    timm = import_timm()
    if side != configuration(name)["input_size"][1]:
        # Only networks whose positions are learnt take, and must know, another size.
        with contextlib.suppress(TypeError):
            return _checked(timm.create_model(name, num_classes=0, img_size=side), name, side)
    return _checked(timm.create_model(name, num_classes=0), name, side)


def _checked(backbone: Any, name: str, side: int) -> Any:
    """`backbone` if it takes images of `side` pixels; raises TenfoldError where it doesn't."""
    device = next(backbone.parameters()).device
    if device.type == "meta" or side == configuration(name)["input_size"][1]:
        return backbone
    backbone.eval()
    try:
        with torch.inference_mode():
            backbone(torch.zeros(1, 3, side, side, device=device))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise TenfoldError(
            f"{name} does not take images of {side} pixels ({str(error).rstrip('.')}); set "
            "model.input_size to 0, or to a multiple of 32 or of its patches."
        ) from error
    return backbone.train()
