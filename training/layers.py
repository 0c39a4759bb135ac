"""Layers that make Keras' torch backend as fast in training, on a CPU, as PyTorch itself.

With channels last, that backend copies every tensor to channels first and back at each convolution and pooling, and it
spells batch normalisation out in a dozen elementwise steps that each keep their result: half the speed of PyTorch was
measured. So on torch the networks are channels first in name, with channels last in memory, which is what the CPU's
kernels want; and normalisation is PyTorch's one operation. Weights have the same names, shapes and order in both.
"""

from typing import Any


def channels_axis(keras: Any) -> int:
    """Return the axis of the channels that suits the backend in use: 1 or -1."""
    return 1 if keras.config.backend() == "torch" else -1


def make_normalisation_layer(keras: Any) -> type[Any]:
    """Return the batch normalisation for the backend in use: Keras' own, on torch with one fused operation in training."""
    base: type[Any] = keras.layers.BatchNormalization
    if keras.config.backend() != "torch":
        return base
    from torch.nn import functional

    class FusedNormalisation(base):  # type: ignore[misc]
        """Takes (N, C, H, W). The moving variance is the unbiased one, as PyTorch has it."""

        def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:  # noqa: ARG002  # Keras' signature
            if inputs.device.type == "meta":  # Keras only asks for shapes
                return inputs
            return functional.batch_norm(
                inputs,
                self.moving_mean.value,
                self.moving_variance.value,
                self.gamma.value,
                self.beta.value,
                training=bool(training),
                momentum=1 - self.momentum,
                eps=self.epsilon,
            )

    return FusedNormalisation


def make_layout_layer(keras: Any) -> type[Any]:
    """Return a layer that changes no value; on torch it lays out (N, C, H, W) with channels last in memory."""
    if keras.config.backend() != "torch":
        return type("Layout", (keras.layers.Layer,), {"call": lambda _self, inputs: inputs})
    import torch

    class Layout(keras.layers.Layer):  # type: ignore[misc]
        """Later operations keep the layout of what they are given."""

        def call(self, inputs: Any) -> Any:
            return inputs if inputs.device.type == "meta" else inputs.contiguous(memory_format=torch.channels_last)

    return Layout
