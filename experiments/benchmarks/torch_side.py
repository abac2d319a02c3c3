"""The work of PyTorch: `torch_nets` and `torch_fits` with channels last, on a GPU or on all cores, by its fused Adam.

What is compiled is the loss, or the network and the critic of a pair of players.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.benchmarks import torch_nets
from experiments.benchmarks.cases import FIT_STEPS, TRAIN_STEPS, Case, FitCase
from experiments.benchmarks.torch_fits import FITS
from jfusion.process import cores

Parameters = Mapping[str, Mapping[str, np.ndarray]]
"""Of "network" and, where there is one, "critics": arrays by their path in jfusion."""

Loss = Callable[[Any, Tensor, Tensor, Tensor], Tensor]

LAST = torch.channels_last

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

PIXELS = 100.0 * 2047
"""Weight of PSGAN's mean absolute error."""


def squared(network: Any, lr: Tensor, guide: Tensor, target: Tensor) -> Tensor:
    """Mean squared error."""
    return F.mse_loss(network(lr, guide), target)


def absolute(network: Any, lr: Tensor, guide: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error."""
    return F.l1_loss(network(lr, guide), target)


def staged(network: torch_nets.MHFNet, lr: Tensor, guide: Tensor, target: Tensor) -> Tensor:
    """Squared errors of product, estimates and last residual, as MHF-Net weighs them."""
    product, estimates, last = network.solve(lr, guide)
    early = torch.stack([F.mse_loss(x, target) for x in estimates]).sum()
    return F.mse_loss(product, target) + 0.1 * early + 0.01 * last.square().mean()


NETWORKS: dict[str, tuple[Callable[..., nn.Module], Loss | None, float]] = {
    "fusionnet": (torch_nets.FusionNet, squared, 3e-4),
    "pannet": (torch_nets.PanNet, squared, 1e-3),
    "psgan": (torch_nets.PSGAN, None, 1e-4),
    "panformer": (torch_nets.PanFormer, absolute, 1e-4),
    "mhf_net": (torch_nets.MHFNet, staged, 1e-4),
}
"""Network, loss (None for an adversarial one) and learning rate by system."""


def _set_up() -> None:
    torch.set_num_threads(cores())
    if DEVICE == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, as jax has it by default


def _network(case: Case, parameters: Parameters, side: int) -> nn.Module:
    _set_up()
    sizes = {name: value for name, value in case.sizes.items() if name != "critics"}
    network = NETWORKS[case.system][0](case.lr, case.guide, case.ratio, side, **sizes)
    torch_nets.copy_parameters(parameters["network"], network)
    return network.to(DEVICE, memory_format=LAST)


def _images(case: Case, batch: int, side: int) -> list[Tensor]:
    """lr, guide, target, see `_image`."""
    return [_image(image) for image in case.images(batch, side).values()]


def _image(image: np.ndarray) -> Tensor:
    """`(batch, band, height, width)` in channels-last memory."""
    return torch.from_numpy(image).to(DEVICE).permute(0, 3, 1, 2)


def _compiled(function: Any, compiled: bool) -> Any:
    return torch.compile(function) if compiled else function


def _adam(parameters: Iterable[Tensor], rate: float, first: float = 0.9) -> torch.optim.Adam:
    return torch.optim.Adam(parameters, rate, (first, 0.999), fused=True)


def train(case: Case, parameters: Parameters, compiled: bool = False) -> Callable[[], dict[str, float]]:
    """`TRAIN_STEPS` of training; it returns the losses by player of the last."""
    step = _step(case, parameters, compiled)

    def call() -> dict[str, float]:
        for _ in range(TRAIN_STEPS):
            losses = step()
        return {name: loss.item() for name, loss in losses.items()}

    return call


def _step(case: Case, parameters: Parameters, compiled: bool) -> Callable[[], dict[str, Tensor]]:
    network, images = _network(case, parameters, case.patch), _images(case, case.batch, case.patch)
    _, loss, rate = NETWORKS[case.system]
    if loss is None:
        critic = torch_nets.Critic(case.lr, **case.sizes.get("critics", {}))
        torch_nets.copy_parameters(parameters["critics"], critic)
        return _against(network, critic.to(DEVICE, memory_format=LAST), images, rate, compiled)
    optimiser, objective = _adam(network.parameters(), rate), _compiled(loss, compiled)

    def call() -> dict[str, Tensor]:
        optimiser.zero_grad()
        value = objective(network, *images)
        value.backward()
        optimiser.step()
        return {"network": value}

    return call


def _against(
    network: nn.Module, critic: nn.Module, images: list[Tensor], rate: float, compiled: bool
) -> Callable[[], dict[str, Tensor]]:
    """A step of PSGAN: the critic's, then the network's, which needs one product for both."""
    lr, guide, target = images
    ratio = guide.shape[2] // lr.shape[2]
    optimiser, critics = _adam(network.parameters(), rate, 0.5), _adam(critic.parameters(), rate, 0.5)
    fuse, judge = _compiled(network, compiled), _compiled(critic, compiled)

    def call() -> dict[str, Tensor]:
        product, beside = fuse(lr, guide), torch_nets.bilinear(lr, ratio)
        critic.requires_grad_(True)
        critics.zero_grad()
        real, fake = judge(beside, target), judge(beside, product.detach())
        lost = F.softplus(-real).mean() + F.softplus(fake).mean()
        lost.backward()
        critics.step()
        critic.requires_grad_(False)
        optimiser.zero_grad()
        value = F.softplus(-judge(beside, product)).mean() + PIXELS * F.l1_loss(product, target)
        value.backward()
        optimiser.step()
        return {"critics": lost, "network": value}

    return call


def infer(case: Case, parameters: Parameters, compiled: bool = False) -> Callable[[], np.ndarray]:
    """The product of one image, ``(1, height, width, band)``."""
    network = _compiled(_network(case, parameters, case.image).eval(), compiled)
    lr, guide, _ = _images(case, 1, case.image)

    def call() -> np.ndarray:
        with torch.inference_mode():
            product: np.ndarray = network(lr, guide).permute(0, 2, 3, 1).cpu().numpy()
        return product

    return call


def fit(case: FitCase, beginning: Parameters, compiled: bool = False) -> Callable[[], float]:
    """`FIT_STEPS` steps of a fit's last stage; it returns the last loss."""
    _set_up()
    images, arrays = (_image(beginning["images"][name]) for name in ("lr", "guide")), beginning["module"]
    module = FITS[case.system](*images, arrays, beginning["operators"], **case.sizes)
    torch_nets.copy_parameters(arrays, module)
    module = module.to(DEVICE, memory_format=LAST)
    groups = [
        {"params": list(child.parameters()), "lr": module.rate * module.rates.get(name, 1.0)}
        for name, child in module.named_children()
    ]
    optimiser = torch.optim.Adam(groups, weight_decay=module.decay, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, module.share)
    objective = _compiled(module, compiled)

    def call() -> float:
        for _ in range(FIT_STEPS):
            optimiser.zero_grad()
            loss = objective()
            loss.backward()
            module.before()
            optimiser.step()
            schedule.step()
            module.after(loss)
        return float(loss.item())

    return call
