"""Golden functions: the numeric contract in NumPy, exact, one function an operation.

They are split where the hardware's passes are split, so that the simulator composes them as the
vector unit does. All compute in int64; results come in the type of their format.
"""

from tilewright.sim.golden.activations import activation, smooth
from tilewright.sim.golden.normalize import (
    layernorm,
    layernorm_apply,
    normalize_rows,
    row_sums,
    row_variance,
    rsqrt_row,
    rsqrt_variance,
    scale_shift,
    xhat_fraction_bits,
)
from tilewright.sim.golden.primitives import (
    Fmt,
    balanced_bytes,
    bit_length,
    expand_w4,
    floor_log2,
    interpolate,
    rsh,
    saturate,
)
from tilewright.sim.golden.products import (
    combine_16x8,
    combine_16x16,
    matmul,
    matmul_16x8,
    matmul_16x16,
)
from tilewright.sim.golden.requantize import finish, requant_row, requant_static, residual_term
from tilewright.sim.golden.rowscale import feed8, row_max, row_scale
from tilewright.sim.golden.softmax import (
    context,
    reciprocal,
    softmax_den,
    softmax_exp,
    softmax_max,
    valid_columns,
)

__all__ = [
    "Fmt",
    "activation",
    "balanced_bytes",
    "bit_length",
    "combine_16x8",
    "combine_16x16",
    "context",
    "expand_w4",
    "feed8",
    "finish",
    "floor_log2",
    "interpolate",
    "layernorm",
    "layernorm_apply",
    "matmul",
    "matmul_16x8",
    "matmul_16x16",
    "normalize_rows",
    "reciprocal",
    "requant_row",
    "requant_static",
    "residual_term",
    "row_max",
    "row_scale",
    "row_sums",
    "row_variance",
    "rsh",
    "rsqrt_row",
    "rsqrt_variance",
    "saturate",
    "scale_shift",
    "smooth",
    "softmax_den",
    "softmax_exp",
    "softmax_max",
    "valid_columns",
    "xhat_fraction_bits",
]
