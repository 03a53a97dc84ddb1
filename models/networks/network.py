"""Layers in a row that know the shape of their input."""

from __future__ import annotations

from torch import Tensor, nn


class Network(nn.Sequential):
    """Layers in a row on an input [N, *takes].

    PyTorch's layers take some other shapes in silence (images of another size, say) and refuse others without a name.
    name, argument: what a message calls the network and its input.
    runs: leading dimensions beside N may pass through (``models.stack``).
    batch_norm: there is batch norm over N alone, which needs two samples while it trains.
    """

    def __init__(
        self,
        *layers: nn.Module,
        name: str,
        takes: tuple[int, ...],
        argument: str = "x",
        runs: bool = False,
        batch_norm: bool = False,
    ) -> None:
        super().__init__(*layers)
        self.name, self.takes, self.argument = name, tuple(takes), argument
        self.runs, self.batch_norm = runs, batch_norm

    def forward(self, input: Tensor) -> Tensor:
        lead = input.dim() - len(self.takes)
        if lead < 1 or (lead > 1 and not self.runs) or input.shape[lead:] != self.takes:
            shape = ", ".join(map(str, ("N", *self.takes)))
            raise ValueError(f"{self.name}: {self.argument} must be [{shape}], got {list(input.shape)}")
        if self.batch_norm and self.training and input.shape[lead - 1] == 1:
            raise ValueError(
                f"{self.name}: {self.argument} must hold at least 2 samples to train with batch norm, "
                f"got {list(input.shape)}"
            )
        output: Tensor = super().forward(input)
        return output


def has_convolutions(module: nn.Module) -> bool:
    """Whether images pass through ``module`` as images."""
    return any(isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) for layer in module.modules())


def check_shape(shape: tuple[int, ...]) -> None:
    """ValueError unless ``shape`` is that of points (D,) or of images (C, H, W), in integers from 1 to 2^31 - 1."""
    sizes_fit = all(isinstance(size, int) and not isinstance(size, bool) and 1 <= size < 2**31 for size in shape)
    if len(shape) not in (1, 3) or not sizes_fit:
        raise ValueError(f"networks: shape must be [D] or [C, H, W] with sizes from 1 to 2^31 - 1, got {list(shape)}")
