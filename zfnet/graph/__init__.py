"""The layers of a network: its forward pass as a graph of named operations.

`graph_steps` lists the operations of any `nn.Module` that `torch.fx` can trace: modules and
functions, reused and in-place ones. The deconvnet inverts them one by one, from top to bottom.

A network that is a chain, such as ZFNet, AlexNet and VGG, has the layers conv1, ..., convN, and
then fc(N+1), ...: rectified, before pooling. In a network with branches, a layer is named by the
path of its module, such as "layer3.0.conv2" or "features.denseblock2". Its activation is what a
forward hook on that module sees, at the last call if there are several.
"""

from zfnet.graph.build import chain, graph_steps, is_chain
from zfnet.graph.channels_last import channels_first, channels_last_steps
from zfnet.graph.hooks import Hook, find_module
from zfnet.graph.layers import (
    UnknownLayer,
    channels_of,
    check_layers,
    conv_layers,
    find_step,
    layer_names,
    layers_of,
    step_layers,
    steps_until,
    unknown_layer,
    with_inputs,
)
from zfnet.graph.network import batch_norm_is_training, network_steps, uses_batch_statistics
from zfnet.graph.operations import (
    BATCHNORMS,
    IDENTITIES,
    NORMS,
    RECTIFIERS,
    WEIGHTED,
    Add,
    Call,
    ChannelsFirst,
    Concat,
    Expression,
    Operand,
    UnsupportedNetwork,
)
from zfnet.graph.shapes import (
    Size,
    Windowed,
    check_fits,
    geometry,
    is_windowed,
    map_sizes,
    meta_shapes,
    output_size,
    overlap,
    sizes_of,
    spatial_size,
    with_shapes,
)
from zfnet.graph.steps import Step
from zfnet.graph.tracing import SIZES, unwrap

# In the order of processing: operations, steps, layers, shapes.
__all__ = [
    "Add", "Call", "ChannelsFirst", "Concat", "Expression", "Operand", "UnsupportedNetwork",
    "BATCHNORMS", "IDENTITIES", "NORMS", "RECTIFIERS", "SIZES", "WEIGHTED",
    "Step", "chain", "graph_steps", "is_chain", "network_steps", "unwrap",
    "UnknownLayer", "channels_of", "check_layers", "conv_layers", "find_step", "layer_names",
    "layers_of", "step_layers", "steps_until", "unknown_layer", "with_inputs",
    "Size", "Windowed", "check_fits", "geometry", "is_windowed", "map_sizes", "meta_shapes",
    "output_size", "overlap", "sizes_of", "spatial_size", "with_shapes",
    "channels_first", "channels_last_steps", "Hook", "find_module",
    "batch_norm_is_training", "uses_batch_statistics",
]  # fmt: skip
