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


def make_rectifier_layer(keras: Any) -> type[Any]:
    """Return ReLU; on torch it works in place, which saves a large allocation. What comes in must not be needed elsewhere."""
    if keras.config.backend() != "torch":
        return keras.layers.ReLU  # type: ignore[no-any-return]
    from torch.nn import functional

    class Rectifier(keras.layers.Layer):  # type: ignore[misc]
        """A rectifier that works in place during training."""

        def call(self, inputs: Any, training: bool | None = None) -> Any:
            return functional.relu(inputs, inplace=bool(training))

    return Rectifier


def make_channel_dropout_layer(keras: Any) -> type[Any]:
    """Return spatial dropout, which leaves whole channels out; on torch PyTorch's own, which draws from its global state."""
    base: type[Any] = keras.layers.SpatialDropout2D
    if keras.config.backend() != "torch":
        return base
    from torch.nn import functional

    class ChannelDropout(base):  # type: ignore[misc]
        """Takes (N, C, H, W)."""

        def call(self, inputs: Any, training: bool | None = None) -> Any:
            return functional.dropout2d(inputs, self.rate) if training and inputs.device.type != "meta" else inputs

    return ChannelDropout


def make_layout_layer(keras: Any) -> type[Any]:
    """Return a layer that puts the channels of (N, H, W, C) onto the axis that suits the backend, without a copy.

    On torch (N, C, H, W) then still has its channels last in memory, and later operations keep that.
    """
    first = channels_axis(keras) == 1

    class Layout(keras.layers.Layer):  # type: ignore[misc]
        """Changes no value."""

        def call(self, inputs: Any) -> Any:
            return inputs.permute(0, 3, 1, 2) if first else inputs

        def compute_output_shape(self, input_shape: Any) -> Any:
            batch, height, width, channels = input_shape
            return (batch, channels, height, width) if first else input_shape

    return Layout
