"""What training does for a device that runs ahead of Python, tested where there is none.

The same code runs on the processor: only the choice of deferring is made by hand.
"""

import contextlib
import math
from types import SimpleNamespace

import pytest
import torch

from tenfold.errors import DivergedError, TenfoldError
from tenfold.models import Speedrun, blocks_of
from tenfold.recipe import load_recipe
from tenfold.run import RunFolder
from tenfold.training import devices, set_up, state, trainer
from tenfold.training.checkpoint import Resumer, identity_of, save_checkpoint
from tenfold.training.trainer import fit
from tiny_training import data, same, tiny, weights


@pytest.fixture
def deferring(monkeypatch):
    monkeypatch.setattr(state, "can_defer", lambda recipe, accelerator: True)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Losses:
    """Keeps what `stepped` is told."""

    def __init__(self):
        self.losses = []

    def started(self, plan):
        pass

    def stepped(self, *, epoch, step, loss, images_per_second):
        self.losses.append(loss)

    def epoch_ended(self, metrics, timings):
        pass

    def ended(self, reason):
        pass


def test_deferring_changes_no_bit_of_weights_and_logs(deferring, monkeypatch):
    deferred = fit(tiny("training.accumulate=2"), data())
    monkeypatch.undo()
    direct = fit(tiny("training.accumulate=2"), data())
    assert same(weights(deferred), weights(direct))
    logs = zip(deferred.history.metrics, direct.history.metrics, strict=True)
    for found, wanted in logs:
        # A mean of float32 values, which were read one by one or all at once.
        assert found == wanted


def test_deferring_waits_once_an_epoch_only(deferring, monkeypatch):
    settled = []
    settle = state.EpochSums.settle

    def counting(self):
        settled.append(self._state.history.step)
        settle(self)

    monkeypatch.setattr(state.EpochSums, "settle", counting)
    told = Losses()
    fit(tiny("training.epochs=2"), data(), reporter=told)
    # The first step, for a loss to show; the last of each epoch, its sums, and the checkpoint.
    assert {0, 5} <= set(settled)
    assert not {1, 2, 3, 4} & set(settled)
    assert len(told.losses) == 12
    assert all(map(math.isfinite, told.losses))


READS = ("item", "tolist", "numpy", "cpu", "nonzero", "__float__", "__bool__", "__int__")


@pytest.mark.parametrize("optimizer", ["muon", "sgd", "adamw"])
def test_no_step_reads_a_value_from_the_device(deferring, monkeypatch, optimizer):
    changes = [
        f"optimizer.name={optimizer}",
        "model.widths=[8,16]",
        "training.batch_size=32",
        "training.epochs=2",
        "training.precision=float32",
        "training.sizes=[12]",
    ]
    recipe = load_recipe("fast-94", changes)
    read: list[str] = []
    real_step = trainer.Trainer._step

    def step(*arguments, **options):
        with pytest.MonkeyPatch.context() as patch:
            for name in READS:
                real = getattr(torch.Tensor, name)

                def reading(tensor, *rest, real=real, name=name, **others):
                    read.append(name)
                    return real(tensor, *rest, **others)

                patch.setattr(torch.Tensor, name, reading)
            before = len(read)
            loss = real_step(*arguments, **options)
        if len(read) > before:
            read.append("step")
        return loss

    monkeypatch.setattr(trainer.Trainer, "_step", step)
    fit(recipe, data())
    # The first step alone, for a loss to show.
    assert read.count("step") == 1


@pytest.mark.parametrize("loss_scale", [1e38, math.nan])
def test_a_run_that_diverges_is_found_before_anything_is_saved(deferring, monkeypatch, loss_scale):
    real = trainer.loss_of
    seen = []

    def spoilt(*arguments, **options):
        seen.append(1)
        return real(*arguments, **options) * (loss_scale**2 if len(seen) == 9 else 1.0)

    monkeypatch.setattr(trainer, "loss_of", spoilt)
    saved = []
    with pytest.raises(DivergedError, match=r"epoch 2, step \d, or somewhat earlier.*optimizer.lr"):
        fit(tiny(), data(), save=lambda state: saved.append(state.history.epoch))
    assert saved == [1]


def test_a_gradient_that_is_not_finite_is_found_too(deferring, monkeypatch):
    real, seen = trainer.note_not_finite, []

    def spoilt(gradients, found):
        seen.append(1)
        if len(seen) == 2:
            gradients[0].fill_(math.inf)
        real(gradients, found)

    monkeypatch.setattr(trainer, "note_not_finite", spoilt)
    with pytest.raises(DivergedError, match="A loss or gradient is not finite in epoch 1"):
        fit(tiny(), data())


def test_only_a_lone_process_with_a_device_defers():
    from tenfold.training.devices import can_defer, make_accelerator

    assert not can_defer(tiny(), make_accelerator(tiny(), cpu=True))

    class Accelerator:
        device = torch.device("cuda")
        num_processes = 1
        scaler = None

    assert can_defer(tiny(), Accelerator)
    assert not can_defer(tiny("training.clip_norm=1.0"), Accelerator)
    Accelerator.num_processes = 2
    assert not can_defer(tiny(), Accelerator)


def test_another_gpu_is_no_longer_the_same(monkeypatch):
    gpu = SimpleNamespace(
        device=torch.device("cuda"), num_processes=1, mixed_precision="no", is_main_process=True
    )
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: names.pop())
    names = ["NVIDIA H100", "NVIDIA A100"]
    first, second = (identity_of(tiny(), data(), gpu) for _ in range(2))
    assert {name for name in first if first[name] != second[name]} == {"GPU"}


@pytest.fixture
def products():
    """What float32 products are computed in is put back."""
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(("kind", "precision"), [("cpu", "highest"), ("cuda", "high")])
def test_float32_is_the_same_in_products_and_convolutions(monkeypatch, products, kind, precision):
    torch.set_float32_matmul_precision("medium")  # As a program may have asked for.
    found = SimpleNamespace(device=torch.device(kind), num_processes=1)
    monkeypatch.setattr(devices, "Accelerator", lambda **_: found)
    devices.make_accelerator(tiny())
    assert torch.get_float32_matmul_precision() == precision


@pytest.mark.parametrize(
    ("held", "precision"),
    [(None, "bf16"), ("AVX2", "float32"), ("avx512_core", "float32"), ("AVX512_CORE_BF16", "bf16")],
)
def test_auto_is_not_bf16_where_it_would_be_emulated(monkeypatch, held, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    if held is not None:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", held)
    assert devices.available_precision("auto", cpu=True) == precision
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert devices.available_precision("auto", cpu=True) == "float32"


def test_an_older_run_on_a_gpu_goes_on_as_it_began(tmp_path, monkeypatch, products):
    gpu = SimpleNamespace(
        device=torch.device("cuda"), num_processes=1, mixed_precision="no", is_main_process=True
    )
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100")
    torch.set_float32_matmul_precision("high")
    now = identity_of(tiny(), data(), gpu)
    assert now["float32 products"] == "high"
    older = {k: v for k, v in now.items() if k not in ("float32 products", "cuDNN", "teacher")}
    run = RunFolder(tmp_path)
    save_checkpoint(run.checkpoints, {"x": torch.ones(1)}, {"identity": older, "history": {}})
    asked = {"allow_changes": False, "started": (0.0, 0.0)}
    Resumer(run, now, gpu, **asked)
    assert torch.get_float32_matmul_precision() == "highest"
    save_checkpoint(run.checkpoints, {}, {"identity": now | {"cuDNN": 1}, "history": {}})
    with pytest.raises(TenfoldError, match="cuDNN was 1 and is now 2"):
        Resumer(run, now | {"cuDNN": 2}, gpu, **asked)


def test_processes_that_do_not_find_each_other_are_not_taken_for_one(monkeypatch):
    monkeypatch.setattr(devices, "num_launched", lambda: 2)
    with pytest.raises(TenfoldError, match="started 2 processes, and 1 train together"):
        devices.make_accelerator(tiny())


@pytest.mark.long
def test_a_compiled_network_learns_the_same():
    # Dropout draws other numbers when compiled; the last batch is one of 32.
    changes = ["training.epochs=1", "training.batch_size=80", "model.dropout=0.0"]
    plain = fit(tiny(*changes), data())
    fast = fit(tiny("training.compile=true", *changes), data())
    assert fast.history.compile_seconds > 0
    assert plain.history.compile_seconds == 0
    # Fused sums are rounded otherwise.
    for name, tensor in weights(plain).items():
        assert torch.allclose(weights(fast)[name].float(), tensor.float(), atol=1e-3), name
    assert set(weights(fast)) == set(weights(plain))


@pytest.mark.long
def test_a_compiled_fast_network_has_finite_gradients_in_bf16():
    # What a compiled pass recomputes isn't rounded as its output was: the gradient of amax was 0/0.
    network = Speedrun(num_classes=3, image_size=(8, 8), widths=(4,)).train()
    compiled = torch.compile(network.to(memory_format=torch.channels_last), dynamic=False)
    inputs = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        logits = compiled(inputs.to(memory_format=torch.channels_last))
    logits.float().square().sum().backward()
    gradients = [p.grad for p in network.parameters() if p.requires_grad]
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


@pytest.mark.parametrize("deterministic", [True, False])
def test_compiling_leaves_network_and_optimizer_as_they_are(monkeypatch, deterministic):
    monkeypatch.setattr(torch, "compile", lambda network, **options: network)
    flags = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    network = Speedrun(num_classes=3, image_size=(16, 16), widths=(4, 4))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0, momentum=0.9)
    changes = [f"training.deterministic={str(deterministic).lower()}"]
    set_up.compile_network(
        network,
        load_recipe("gpu-94", changes),
        optimizer=optimizer,
        blocks=blocks_of(network),
        num_images=64,
        size=(16, 16),
        accelerator=SimpleNamespace(
            device=torch.device("cpu"), num_processes=1, autocast=contextlib.nullcontext
        ),
    )
    for name, tensor in network.state_dict().items():
        assert torch.equal(before[name], tensor), name
    assert network.whitening.bias.requires_grad
    assert not network.whitening.weight.requires_grad
    assert not optimizer.state
    assert all(parameter.grad is None for parameter in network.parameters())
    assert flags == (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark)


def test_where_nothing_compiles_a_sentence_says_so(monkeypatch):
    from torch._dynamo.exc import BackendCompilerFailed

    def broken(network, **options):
        def forward(inputs):
            raise BackendCompilerFailed("inductor", RuntimeError("no compiler"), None)

        return forward

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(TenfoldError, match=r"training.compile = true does not work here"):
        fit(tiny("training.compile=true"), data())


def test_each_shape_to_come_is_compiled():
    recipe = load_recipe("fast-94", ["training.batch_size=80"])
    shapes = set_up._shapes(recipe, 192, 1, (32, 48))
    assert [shape[2:] for shape in shapes[::2]] == [(24, 36), (32, 48)]
    assert [shape[0] for shape in shapes] == [80, 32, 80, 32]
    # Parts of batches, and a remainder that is joined to the batch before it.
    recipe = load_recipe("fast-94", ["training.batch_size=80", "training.accumulate=4"])
    counts = {shape[0] for shape in set_up._shapes(recipe, 165, 1, (32, 32))}
    assert counts == {20, 21, 22}


def test_validation_and_evaluation_are_not_compiled(monkeypatch):
    compiled = []

    def wrap(network, **options):
        compiled.append(network)
        return network

    monkeypatch.setattr(torch, "compile", wrap)
    fitted = fit(tiny("training.compile=true"), data())
    assert len(compiled) == 1
    assert fitted.model.module._compiled_call_impl is None
