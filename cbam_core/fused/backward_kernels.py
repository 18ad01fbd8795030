"""Triton kernels of the fused residual tail, backward: the map is read thrice, its gradients once each.

Words, layout and order of sums as in `forward_kernels`. `hat` is the map after the norm's division and before its weight
and bias, or the map itself where there is no norm. Derivation: docs/design/fused.md.
"""

import triton
import triton.language as tl

from cbam_core.fused.forward_kernels import channel_affine


@triton.jit
def spatial_gradient(
    gradient, out, z, norm, logits, convolved, spatial, masked, gate_gradient, channel_sums, spatial_sums,
    C, P, S, share, NORM: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
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
    inverse_std = tl.load(norm + C + c, mask=c < C, other=0.0) if NORM else mean
    spatial_mean, spatial_inverse_std = tl.load(spatial), tl.load(spatial + 1)
    spatial_scale, spatial_shift = tl.load(spatial + 2), tl.load(spatial + 3)
    plain = tl.zeros([ROWS, COLS], tl.float32)
    weighted = tl.zeros([ROWS, COLS], tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    total_weighted = tl.zeros([ROWS], tl.float32)
    for start in range(first, last, ROWS):
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
        total += of_gate
        total_weighted += of_gate * (v - spatial_mean) * spatial_inverse_std
        g = g * gate[:, None]
        weighted += g * value
        if NORM:
            plain += g
    at = row.to(tl.int64) * 2 * C + c
    if NORM:
        tl.store(channel_sums + at, tl.sum(plain, 0), mask=c < C)
        tl.store(channel_sums + at + C, tl.sum(weighted, 0) * inverse_std, mask=c < C)
    else:
        tl.store(channel_sums + at + C, tl.sum(weighted, 0), mask=c < C)
    tl.store(spatial_sums + 2 * row, tl.sum(total, 0))
    tl.store(spatial_sums + 2 * row + 1, tl.sum(total_weighted, 0))


@triton.jit
def map_norm_gradient(spatial_sums, sums, programs, ROWS: tl.constexpr):
    """`sums`: of the gate's gradient, and of it times the normalised map: those of the norm's bias and weight."""
    total = tl.zeros([ROWS], tl.float32)
    weighted = tl.zeros([ROWS], tl.float32)
    for start in range(0, programs, ROWS):
        row = start + tl.arange(0, ROWS)
        total += tl.load(spatial_sums + 2 * row, mask=row < programs, other=0.0)
        weighted += tl.load(spatial_sums + 2 * row + 1, mask=row < programs, other=0.0)
    tl.store(sums, tl.sum(total, 0))
    tl.store(sums + 1, tl.sum(weighted, 0))


@triton.jit
def convolve_maps_backward(
    gate_gradient, convolved, spatial, sums, maps, weight, map_gradients, weight_gradients, elements,
    H, W, S, share, BATCH_NORM: tl.constexpr, KERNEL: tl.constexpr, TAPS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Gradients of both maps, `map_gradients` N 2 P, and per program of the 2·K·K weights, TAPS ≥ K·K numbers a map.

    `elements` is the number of values that the gate's norm took its statistics from.
    """
    program = tl.program_id(0)
    n = (program // S).to(tl.int64)
    P = H * W
    first = (program % S) * share
    last = tl.minimum(first + share, P)
    tap = tl.arange(0, TAPS)
    real = tap < KERNEL * KERNEL
    of_maximum = tl.load(weight + tap, mask=real, other=0.0).to(tl.float32)
    of_average = tl.load(weight + KERNEL * KERNEL + tap, mask=real, other=0.0).to(tl.float32)
    mean, inverse_std, scale = tl.load(spatial), tl.load(spatial + 1), tl.load(spatial + 2)
    offset, slope = scale * 0.0, scale * 0.0
    if BATCH_NORM:
        offset, slope = tl.load(sums) / elements, tl.load(sums + 1) / elements
    first_weights = tl.zeros([ROWS, TAPS], tl.float32)
    second_weights = tl.zeros([ROWS, TAPS], tl.float32)
    for start in range(first, last, ROWS):
        p = start + tl.arange(0, ROWS)
        row = (p // W)[:, None] - (tap // KERNEL)[None, :] + KERNEL // 2
        column = (p % W)[:, None] - (tap % KERNEL)[None, :] + KERNEL // 2
        inside = (p < last)[:, None] & real[None, :] & (row >= 0) & (row < H) & (column >= 0) & (column < W)
        at = n * P + row * W + column
        gradient = tl.load(gate_gradient + at, mask=inside, other=0.0)
        if BATCH_NORM:
            hat = (tl.load(convolved + at, mask=inside, other=0.0) - mean) * inverse_std
            gradient = gradient - offset - hat * slope
        gradient = tl.where(inside, gradient * scale, 0.0)
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
    inverse_std = mean + 1.0
    if NORM:
        mean = tl.load(norm + c, mask=c < C, other=0.0)
        inverse_std = tl.load(norm + C + c, mask=c < C, other=0.0)
    plain = tl.zeros([ROWS, COLS], tl.float32)
    weighted = tl.zeros([ROWS, COLS], tl.float32)
    for start in range(first, last, ROWS):
        p = start + tl.arange(0, ROWS)
        inside = (p < last)[:, None] & (c < C)[None, :]
        value = tl.load(z + n * P * C + p[:, None] * C + c[None, :], mask=inside, other=0.0).to(tl.float32)
        d = pooled_gradient(map_gradients, channel, n, p, c, C, P, last)
        weighted += d * (value - mean[None, :])
        if NORM:
            plain += d
    at = row.to(tl.int64) * 2 * C + c
    tl.store(channel_sums + at + C, tl.sum(weighted, 0) * inverse_std, mask=c < C)
    if NORM:
        tl.store(channel_sums + at, tl.sum(plain, 0), mask=c < C)


@triton.jit
def pooled_gradient(map_gradients, channel, n, p, c, C, P, last):
    """The gradient that the pools over the channels pass on to place `p` and channel `c`."""
    of_maximum = tl.load(map_gradients + n * 2 * P + p, mask=p < last, other=0.0)
    of_average = tl.load(map_gradients + n * 2 * P + P + p, mask=p < last, other=0.0) / C
    which = tl.load(channel + n * P + p, mask=p < last, other=0)
    return of_average[:, None] + tl.where(c[None, :] == which[:, None], of_maximum[:, None], 0.0)


@triton.jit
def channel_gradient(
    norm, logits, spatial_part, pooled_part, logit_gradients, direct, size, C, S, NORM: tl.constexpr, COLS: tl.constexpr
):
    """Gradient of the channel gate's logits, N C, from the sums of both passes over the map.

    direct  the same sums times Mc, 2 N C: what goes to x and to x·hat without the detour by the gate, for the norm
    """
    n = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * COLS + tl.arange(0, COLS)
    plain = tl.zeros([COLS], tl.float32)
    weighted = tl.zeros([COLS], tl.float32)
    for s in range(S):
        at = (n * S + s) * 2 * C + c
        weighted += tl.load(spatial_part + at + C, mask=c < C, other=0.0)
        weighted += tl.load(pooled_part + at + C, mask=c < C, other=0.0)
        if NORM:
            plain += tl.load(spatial_part + at, mask=c < C, other=0.0)
            plain += tl.load(pooled_part + at, mask=c < C, other=0.0)
    gate = tl.sigmoid(tl.load(logits + n * C + c, mask=c < C, other=0.0))
    of_gate = weighted
    if NORM:
        weight = tl.load(norm + 2 * C + c, mask=c < C, other=0.0)
        bias = tl.load(norm + 3 * C + c, mask=c < C, other=0.0)
        of_gate = weighted * weight + plain * bias
        tl.store(direct + n * C + c, plain * gate, mask=c < C)
        tl.store(direct + size + n * C + c, weighted * gate, mask=c < C)
    tl.store(logit_gradients + n * C + c, of_gate * gate * (1 - gate), mask=c < C)


@triton.jit
def norm_gradient(direct, pooled, pooled_gradients, sums, size, C, N, ROWS: tl.constexpr, COLS: tl.constexpr):
    """`sums` 2 C: of the gradient of the norm's output and of it times hat: those of the norm's bias and weight."""
    c = tl.program_id(0) * COLS + tl.arange(0, COLS)
    plain = tl.zeros([ROWS, COLS], tl.float32)
    weighted = tl.zeros([ROWS, COLS], tl.float32)
    for start in range(0, N, ROWS):
        n = (start + tl.arange(0, ROWS)).to(tl.int64)
        inside = (n < N)[:, None] & (c < C)[None, :]
        at = n[:, None] * C + c[None, :]
        of_average = tl.load(pooled_gradients + at, mask=inside, other=0.0)
        of_maximum = tl.load(pooled_gradients + size + at, mask=inside, other=0.0)
        plain += tl.load(direct + at, mask=inside, other=0.0) + of_average + of_maximum
        weighted += tl.load(direct + size + at, mask=inside, other=0.0)
        weighted += of_average * tl.load(pooled + at, mask=inside, other=0.0)
        weighted += of_maximum * tl.load(pooled + size + at, mask=inside, other=0.0)
    tl.store(sums + c, tl.sum(plain, 0), mask=c < C)
    tl.store(sums + C + c, tl.sum(weighted, 0), mask=c < C)


@triton.jit
def refine_backward(
    masked, z, norm, logits, convolved, spatial, map_gradients, channel, pooled_gradients, index, sums, z_gradient,
    elements, size, C, P, S, share,
    NORM: tl.constexpr, BATCH_NORM: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """The gradient of z: through both gates' factors, both pools, and the norm, whose statistics are the batch's.

    `elements` is the number of values of each channel that those were taken from.
    """
    row = tl.program_id(0)
    n = (row // S).to(tl.int64)
    first = (row % S) * share
    last = tl.minimum(first + share, P)
    c = tl.arange(0, COLS)
    mean, scale, _, gate = channel_affine(norm, logits, n, c, C, NORM)
    average_gradient = tl.load(pooled_gradients + n * C + c, mask=c < C, other=0.0) / P
    maximum_gradient = tl.load(pooled_gradients + size + n * C + c, mask=c < C, other=0.0)
    place = tl.load(index + n * C + c, mask=c < C, other=0)
    factor = gate * 0.0 + 1.0
    offset, slope = gate * 0.0, gate * 0.0
    if NORM:
        inverse_std = tl.load(norm + C + c, mask=c < C, other=0.0)
        factor = inverse_std * tl.load(norm + 2 * C + c, mask=c < C, other=0.0)
        if BATCH_NORM:
            offset = tl.load(sums + c, mask=c < C, other=0.0) / elements
            slope = tl.load(sums + C + c, mask=c < C, other=0.0) / elements * inverse_std
    spatial_scale, spatial_shift = tl.load(spatial + 2), tl.load(spatial + 3)
    for start in range(first, last, ROWS):
        p = start + tl.arange(0, ROWS)
        inside = (p < last)[:, None] & (c < C)[None, :]
        at = n * P * C + p[:, None] * C + c[None, :]
        g = tl.load(masked + at, mask=inside, other=0.0).to(tl.float32)
        v = tl.load(convolved + n * P + p, mask=p < last, other=0.0)
        g = g * tl.sigmoid(v * spatial_scale + spatial_shift)[:, None]
        g = gate[None, :] * (g + pooled_gradient(map_gradients, channel, n, p, c, C, P, last))
        g += average_gradient[None, :] + tl.where(p[:, None] == place[None, :], maximum_gradient[None, :], 0.0)
        if BATCH_NORM:
            value = tl.load(z + at, mask=inside, other=0.0).to(tl.float32)
            g = g - offset[None, :] - (value - mean[None, :]) * slope[None, :]
        g = g * factor[None, :]
        tl.store(z_gradient + at, g.to(z_gradient.dtype.element_ty), mask=inside)
