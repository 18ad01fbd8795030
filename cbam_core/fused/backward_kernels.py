"""Triton kernels of the fused residual tail, backward: three reads of the map, one of its gradient and result.

Words, layout and order of sums as in `forward_kernels`. `hat` is the map after the norm's division and before its
weight and bias, or the map itself where there is no norm. Derivation: docs/design/fused.md.
"""

import triton
import triton.language as tl

from cbam_core.fused.forward_kernels import channel_affine


@triton.jit
def spatial_gradient(
    gradient, out, z, norm, logits, convolved, spatial, masked, gate_gradient, channel_sums, spatial_sums,
    C, P, S, share, NORM: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Undo the ReLU, and give the gradient of the spatial gate before its sigmoid, `gate_gradient` N P.

    masked        gradient of relu's input, which is the shortcut's own
    channel_sums  per image, share and channel: sums over the places of masked·Ms and masked·Ms·hat
    spatial_sums  per image and share: sums of gate_gradient, and of it times the normalised map of the gate
    """
    row = tl.program_id(0)
    n = (row // S).to(tl.int64)
    first = (row % S) * share
    last = tl.minimum(first + share, P)
    c = tl.arange(0, COLS)
    mean, scale, shift, _ = channel_affine(norm, logits, n, c, C, NORM)
    spatial_mean, spatial_inverse_std = tl.load(spatial), tl.load(spatial + 1)
    spatial_scale, spatial_shift = tl.load(spatial + 2), tl.load(spatial + 3)
    plain = tl.zeros([COLS], tl.float32)
    weighted = tl.zeros([COLS], tl.float32)
    total, total_weighted = 0.0, 0.0
    for start in tl.range(first, last, ROWS, num_stages=STAGES):
        p = start + tl.arange(0, ROWS)
        inside = (p < last)[:, None] & (c < C)[None, :]
        at = n * P * C + p[:, None] * C + c[None, :]
        g = tl.load(gradient + at, mask=inside, other=0.0)
        g = tl.where(tl.load(out + at, mask=inside, other=0.0) <= 0, 0.0, g)
        tl.store(masked + at, g, mask=inside)
        g = g.to(tl.float32)
        value = tl.load(z + at, mask=inside, other=0.0).to(tl.float32) - mean[None, :]
        v = tl.load(convolved + n * P + p, mask=p < last, other=0.0)
        gate = tl.sigmoid(v * spatial_scale + spatial_shift)
        x = value * scale[None, :] + shift[None, :]
        of_gate = tl.sum(g * x, 1) * gate * (1 - gate)
        tl.store(gate_gradient + n * P + p, of_gate, mask=p < last)
        total += tl.sum(of_gate, 0)
        total_weighted += tl.sum(of_gate * (v - spatial_mean) * spatial_inverse_std, 0)
        g = g * gate[:, None]
        weighted += tl.sum(g * value, 0)
        if NORM > 0:
            plain += tl.sum(g, 0)
    at = row.to(tl.int64) * 2 * C + c
    if NORM > 0:
        weighted *= tl.load(norm + C + c, mask=c < C, other=0.0)
        tl.store(channel_sums + at, plain, mask=c < C)
    tl.store(channel_sums + at + C, weighted, mask=c < C)
    tl.store(spatial_sums + 2 * row, total)
    tl.store(spatial_sums + 2 * row + 1, total_weighted)


@triton.jit
def map_norm_gradient(
    spatial_sums, gate_gradient, convolved, spatial, bias, weight, elements, programs, P,
    MODE: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Turn `gate_gradient` N P into the gradient of the convolved map, an image a program, and give the norm's own.

    Every program sums `spatial_sums` anew. `elements` is the number of values that the norm took its statistics from.
    """
    n = tl.program_id(0).to(tl.int64)
    total = tl.zeros([ROWS], tl.float32)
    weighted = tl.zeros([ROWS], tl.float32)
    for start in range(0, programs, ROWS):
        row = start + tl.arange(0, ROWS)
        total += tl.load(spatial_sums + 2 * row, mask=row < programs, other=0.0)
        weighted += tl.load(spatial_sums + 2 * row + 1, mask=row < programs, other=0.0)
    offset, slope = tl.sum(total, 0), tl.sum(weighted, 0)
    if n == 0:
        tl.store(bias, offset)
        tl.store(weight, slope)
    mean, inverse_std, scale = tl.load(spatial), tl.load(spatial + 1), tl.load(spatial + 2)
    for start in range(0, P, ROWS):
        p = start + tl.arange(0, ROWS)
        gradient = tl.load(gate_gradient + n * P + p, mask=p < P, other=0.0)
        if MODE == 1:
            hat = (tl.load(convolved + n * P + p, mask=p < P, other=0.0) - mean) * inverse_std
            gradient = gradient - offset / elements - hat * (slope / elements)
        tl.store(gate_gradient + n * P + p, gradient * scale, mask=p < P)


@triton.jit
def convolve_maps_backward(
    map_gradient, maps, weight, map_gradients, weight_gradients, H, W, S, share, map_stride, tap_stride,
    KERNEL: tl.constexpr, TAPS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Gradients of both maps, `map_gradients` N 2 P, and per program of the 2·K·K weights, TAPS ≥ K·K numbers a map.

    From the gradient of the convolved map, `map_gradient` N P.
    """
    program = tl.program_id(0)
    n = (program // S).to(tl.int64)
    P = H * W
    first = (program % S) * share
    last = tl.minimum(first + share, P)
    tap = tl.arange(0, TAPS)
    real = tap < KERNEL * KERNEL
    of_maximum = tl.load(weight + tap * tap_stride, mask=real, other=0.0).to(tl.float32)
    of_average = tl.load(weight + map_stride + tap * tap_stride, mask=real, other=0.0).to(tl.float32)
    first_weights = tl.zeros([ROWS, TAPS], tl.float32)
    second_weights = tl.zeros([ROWS, TAPS], tl.float32)
    for start in range(first, last, ROWS):
        p = start + tl.arange(0, ROWS)
        row = (p // W)[:, None] - (tap // KERNEL)[None, :] + KERNEL // 2
        column = (p % W)[:, None] - (tap % KERNEL)[None, :] + KERNEL // 2
        inside = (p < last)[:, None] & real[None, :] & (row >= 0) & (row < H) & (column >= 0) & (column < W)
        gradient = tl.load(map_gradient + n * P + row * W + column, mask=inside, other=0.0)
        at = n * 2 * P + p
        tl.store(map_gradients + at, tl.sum(gradient * of_maximum[None, :], 1), mask=p < last)
        tl.store(map_gradients + at + P, tl.sum(gradient * of_average[None, :], 1), mask=p < last)
        first_weights += gradient * tl.load(maps + at, mask=p < last, other=0.0)[:, None]
        second_weights += gradient * tl.load(maps + at + P, mask=p < last, other=0.0)[:, None]
    at = program * 2 * TAPS + tap
    tl.store(weight_gradients + at, tl.sum(first_weights, 0))
    tl.store(weight_gradients + at + TAPS, tl.sum(second_weights, 0))


@triton.jit
def pool_channels_backward(
    z,
    norm,
    map_gradients,
    channel,
    channel_sums,
    C,
    P,
    S,
    share,
    NORM: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Per image, share and channel: sums over the places of d and d·hat, d the gradient that the channel pools pass on.

    d is the average's gradient / C, and the maximum's as well where it is this channel.
    """
    row = tl.program_id(0)
    n = (row // S).to(tl.int64)
    first = (row % S) * share
    last = tl.minimum(first + share, P)
    c = tl.arange(0, COLS)
    mean = tl.zeros([COLS], tl.float32)
    if NORM > 0:
        mean = tl.load(norm + c, mask=c < C, other=0.0)
    plain = tl.zeros([COLS], tl.float32)
    weighted = tl.zeros([COLS], tl.float32)
    for start in tl.range(first, last, ROWS, num_stages=STAGES):
        p = start + tl.arange(0, ROWS)
        inside = (p < last)[:, None] & (c < C)[None, :]
        value = tl.load(z + n * P * C + p[:, None] * C + c[None, :], mask=inside, other=0.0).to(tl.float32)
        d = pooled_gradient(map_gradients, channel, n, p, c, C, P, last)
        weighted += tl.sum(d * (value - mean[None, :]), 0)
        if NORM > 0:
            plain += tl.sum(d, 0)
    at = row.to(tl.int64) * 2 * C + c
    if NORM > 0:
        weighted *= tl.load(norm + C + c, mask=c < C, other=0.0)
        tl.store(channel_sums + at, plain, mask=c < C)
    tl.store(channel_sums + at + C, weighted, mask=c < C)


@triton.jit
def pooled_gradient(map_gradients, channel, n, p, c, C, P, last):
    """The gradient that the pools over the channels pass on to place `p` and channel `c`."""
    of_maximum = tl.load(map_gradients + n * 2 * P + p, mask=p < last, other=0.0)
    of_average = tl.load(map_gradients + n * 2 * P + P + p, mask=p < last, other=0.0) / C
    which = tl.load(channel + n * P + p, mask=p < last, other=0)
    return of_average[:, None] + tl.where(c[None, :] == which[:, None], of_maximum[:, None], 0.0)


@triton.jit
def channel_gradient(
    norm, logits, spatial_part, pooled_part, logit_gradients, direct, size, C, S,
    NORM: tl.constexpr, COLS: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """Gradient of the channel gate's logits, N C, from the sums of both passes over the map.

    direct  the same sums times Mc, 2 N C: what goes to x and to x·hat without the detour by the gate, for the norm
    """
    n = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * COLS + tl.arange(0, COLS)
    plain = tl.zeros([COLS], tl.float32)
    weighted = tl.zeros([COLS], tl.float32)
    for s in tl.range(S, loop_unroll_factor=UNROLL):
        at = (n * S + s) * 2 * C + c
        weighted += tl.load(spatial_part + at + C, mask=c < C, other=0.0)
        weighted += tl.load(pooled_part + at + C, mask=c < C, other=0.0)
        if NORM > 0:
            plain += tl.load(spatial_part + at, mask=c < C, other=0.0)
            plain += tl.load(pooled_part + at, mask=c < C, other=0.0)
    gate = tl.sigmoid(tl.load(logits + n * C + c, mask=c < C, other=0.0))
    of_gate = weighted
    if NORM > 0:
        weight = tl.load(norm + 2 * C + c, mask=c < C, other=0.0)
        bias = tl.load(norm + 3 * C + c, mask=c < C, other=0.0)
        of_gate = weighted * weight + plain * bias
        tl.store(direct + n * C + c, plain * gate, mask=c < C)
        tl.store(direct + size + n * C + c, weighted * gate, mask=c < C)
    tl.store(logit_gradients + n * C + c, of_gate * gate * (1 - gate), mask=c < C)


@triton.jit
def convolution_gradient(
    parts, gradient, programs, map_stride, tap_stride,
    TAPS: tl.constexpr, KERNEL: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Gradient of the convolution's weight, 2 K K, from the parts of `convolve_maps_backward`: COLS taps a program."""
    tap = tl.program_id(1) * COLS + tl.arange(0, COLS)
    total = tl.zeros([ROWS, COLS], tl.float32)
    for start in range(0, programs, ROWS):
        row = start + tl.arange(0, ROWS)
        at = parts + (row[:, None] * 2 + tl.program_id(0)) * TAPS + tap[None, :]
        total += tl.load(at, mask=(row < programs)[:, None] & (tap >= 0)[None, :], other=0.0)
    at = gradient + tl.program_id(0) * map_stride + tap * tap_stride
    tl.store(at, tl.sum(total, 0), mask=tap < KERNEL * KERNEL)


@triton.jit
def hidden_gradients(
    logit_gradients, weight, hidden, gradients, C, HIDDEN, N,
    ROWS: tl.constexpr, COLS: tl.constexpr, INNER: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients (2N HIDDEN) of the hidden units before their ReLU, of the averages and of the maxima."""
    n = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    h = tl.program_id(1) * COLS + tl.arange(0, COLS)
    total = tl.zeros([ROWS, COLS], tl.float32)
    for start in range(0, C, INNER):
        c = start + tl.arange(0, INNER)
        inside = (n < N)[:, None] & (c < C)[None, :]
        x = tl.load(logit_gradients + n[:, None] * C + c[None, :], mask=inside, other=0.0)
        inside = (c < C)[:, None] & (h < HIDDEN)[None, :]
        w = tl.load(weight + c[:, None] * HIDDEN + h[None, :], mask=inside, other=0.0)
        total = tl.dot(x, w.to(tl.float32), total, input_precision=PRECISION)
    inside = (n < N)[:, None] & (h < HIDDEN)[None, :]
    at = n[:, None] * HIDDEN + h[None, :]
    of_average = tl.where(tl.load(hidden + at, mask=inside, other=0.0) <= 0, 0.0, total)
    tl.store(gradients + at, of_average, mask=inside)
    of_maximum = tl.where(tl.load(hidden + N * HIDDEN + at, mask=inside, other=0.0) <= 0, 0.0, total)
    tl.store(gradients + N * HIDDEN + at, of_maximum, mask=inside)


@triton.jit
def pool_gradients(
    hidden_gradients, weight, pooled, direct, gradients, norm_bias, norm_weight, size, C, HIDDEN, N,
    NORM: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, INNER: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of both pools, `gradients` 2 N C, and with them those of the norm's bias and weight, C each."""
    c = tl.program_id(0) * COLS + tl.arange(0, COLS)
    plain = tl.zeros([COLS], tl.float32)
    weighted = tl.zeros([COLS], tl.float32)
    for start in range(0, N, ROWS):
        n = start + tl.arange(0, ROWS)
        of_average = tl.zeros([ROWS, COLS], tl.float32)
        of_maximum = tl.zeros([ROWS, COLS], tl.float32)
        for begin in range(0, HIDDEN, INNER):
            h = begin + tl.arange(0, INNER)
            inside = (h < HIDDEN)[:, None] & (c < C)[None, :]
            w = tl.load(weight + h[:, None] * C + c[None, :], mask=inside, other=0.0).to(tl.float32)
            inside = (n < N)[:, None] & (h < HIDDEN)[None, :]
            at = hidden_gradients + n[:, None] * HIDDEN + h[None, :]
            of_average = tl.dot(tl.load(at, mask=inside, other=0.0), w, of_average, input_precision=PRECISION)
            x = tl.load(at + N * HIDDEN, mask=inside, other=0.0)
            of_maximum = tl.dot(x, w, of_maximum, input_precision=PRECISION)
        inside = (n < N)[:, None] & (c < C)[None, :]
        at = n[:, None] * C + c[None, :]
        tl.store(gradients + at, of_average, mask=inside)
        tl.store(gradients + size + at, of_maximum, mask=inside)
        if NORM > 0:
            total = tl.load(direct + at, mask=inside, other=0.0) + of_average + of_maximum
            plain += tl.sum(total, 0)
            total = tl.load(direct + size + at, mask=inside, other=0.0)
            total += of_average * tl.load(pooled + at, mask=inside, other=0.0)
            total += of_maximum * tl.load(pooled + size + at, mask=inside, other=0.0)
            weighted += tl.sum(total, 0)
    if NORM > 0:
        tl.store(norm_bias + c, plain, mask=c < C)
        tl.store(norm_weight + c, weighted, mask=c < C)


@triton.jit
def mlp_gradients(
    hidden_gradients, hidden, logit_gradients, pooled, fc1_weight, fc1_bias, fc2_weight, fc2_bias, size, C, HIDDEN, N,
    ROWS: tl.constexpr, COLS: tl.constexpr, INNER: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of the shared MLP's weights and biases, for a block of channels and one of hidden units a program."""
    c = tl.program_id(0) * COLS + tl.arange(0, COLS)
    h = tl.program_id(1) * INNER + tl.arange(0, INNER)
    first = tl.zeros([INNER, COLS], tl.float32)
    second = tl.zeros([INNER, COLS], tl.float32)
    first_bias = tl.zeros([INNER], tl.float32)
    second_bias = tl.zeros([COLS], tl.float32)
    for start in range(0, N, ROWS):
        n = start + tl.arange(0, ROWS)
        inside = (n < N)[:, None] & (h < HIDDEN)[None, :]
        at = n[:, None] * HIDDEN + h[None, :]
        of_average = tl.load(hidden_gradients + at, mask=inside, other=0.0)
        of_maximum = tl.load(hidden_gradients + N * HIDDEN + at, mask=inside, other=0.0)
        both = tl.load(hidden + at, mask=inside, other=0.0) + tl.load(hidden + N * HIDDEN + at, mask=inside, other=0.0)
        inside = (n < N)[:, None] & (c < C)[None, :]
        at = n[:, None] * C + c[None, :]
        average = tl.load(pooled + 2 * size + at, mask=inside, other=0.0)
        maximum = tl.load(pooled + 3 * size + at, mask=inside, other=0.0)
        of_logits = tl.load(logit_gradients + at, mask=inside, other=0.0)
        first = tl.dot(tl.trans(of_average), average, first, input_precision=PRECISION)
        first = tl.dot(tl.trans(of_maximum), maximum, first, input_precision=PRECISION)
        second = tl.dot(tl.trans(both), of_logits, second, input_precision=PRECISION)
        first_bias += tl.sum(of_average + of_maximum, 0)
        second_bias += tl.sum(of_logits, 0)
    inside = (h < HIDDEN)[:, None] & (c < C)[None, :]
    tl.store(fc1_weight + h[:, None] * C + c[None, :], first, mask=inside)
    tl.store(fc2_weight + c[None, :] * HIDDEN + h[:, None], second, mask=inside)
    if tl.program_id(0) == 0:
        tl.store(fc1_bias + h, first_bias, mask=h < HIDDEN)
    if tl.program_id(1) == 0:
        tl.store(fc2_bias + c, 2 * second_bias, mask=c < C)


@triton.jit
def refine_backward(
    masked, z, norm, logits, convolved, spatial, map_gradients, channel, pooled_gradients, index, norm_bias,
    norm_weight, z_gradient,
    elements, size, C, P, S, share,
    NORM: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """The gradient of z: through both gates' factors, both pools, and the norm, whose statistics are the batch's.

    `elements` is the number of values of each channel that those were taken from.
    """
    row = tl.program_id(0)
    n = (row // S).to(tl.int64)
    first = (row % S) * share
    last = tl.minimum(first + share, P)
    c = tl.arange(0, COLS)
    mean, _, _, gate = channel_affine(norm, logits, n, c, C, NORM)
    average_gradient = tl.load(pooled_gradients + n * C + c, mask=c < C, other=0.0) / P
    maximum_gradient = tl.load(pooled_gradients + size + n * C + c, mask=c < C, other=0.0)
    place = tl.load(index + n * C + c, mask=c < C, other=0)
    factor = gate * 0.0 + 1.0
    offset, slope = gate * 0.0, gate * 0.0
    if NORM > 0:
        inverse_std = tl.load(norm + C + c, mask=c < C, other=0.0)
        factor = inverse_std * tl.load(norm + 2 * C + c, mask=c < C, other=0.0)
        if NORM == 1:
            offset = tl.load(norm_bias + c, mask=c < C, other=0.0) / elements
            slope = tl.load(norm_weight + c, mask=c < C, other=0.0) / elements * inverse_std
    spatial_scale, spatial_shift = tl.load(spatial + 2), tl.load(spatial + 3)
    for start in tl.range(first, last, ROWS, num_stages=STAGES):
        p = start + tl.arange(0, ROWS)
        inside = (p < last)[:, None] & (c < C)[None, :]
        at = n * P * C + p[:, None] * C + c[None, :]
        g = tl.load(masked + at, mask=inside, other=0.0).to(tl.float32)
        v = tl.load(convolved + n * P + p, mask=p < last, other=0.0)
        g = g * tl.sigmoid(v * spatial_scale + spatial_shift)[:, None]
        g = gate[None, :] * (g + pooled_gradient(map_gradients, channel, n, p, c, C, P, last))
        g += average_gradient[None, :] + tl.where(p[:, None] == place[None, :], maximum_gradient[None, :], 0.0)
        if NORM == 1:
            value = tl.load(z + at, mask=inside, other=0.0).to(tl.float32)
            g = g - offset[None, :] - (value - mean[None, :]) * slope[None, :]
        g = g * factor[None, :]
        tl.store(z_gradient + at, g.to(z_gradient.dtype.element_ty), mask=inside)
