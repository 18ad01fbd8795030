"""Triton kernels of the fused residual tail, forward: two reads of the map for its pools, then one pass that writes.

Maps are read as N P C in memory, P = H·W places of C channels each (channels_last). Arithmetic is fp32, whatever the maps
are. Every sum has two stages, each program's own and one over the programs, in an order that depends on the shape
alone: no atomics, so the same input gives the same bits. `S` programs share the places of one image, `share` each.

NORM  0: no norm before the attention; 1: it normalises by `norm`, rows mean, 1/std, weight, bias of C channels.
NaN: `tl.max` drops it, but the averages beside every maximum keep it, and the gates are made of both.
"""

import triton
import triton.language as tl


@triton.jit
def channel_affine(norm, logits, n, c, C, NORM: tl.constexpr):
    """Mean, scale and shift, so that (z - mean) * scale + shift is the refined channel Mc(x) * x; and Mc itself."""
    gate = tl.sigmoid(tl.load(logits + n * C + c, mask=c < C, other=0.0))
    if NORM:
        mean = tl.load(norm + c, mask=c < C, other=0.0)
        scale = tl.load(norm + C + c, mask=c < C, other=0.0) * tl.load(norm + 2 * C + c, mask=c < C, other=0.0)
        shift = tl.load(norm + 3 * C + c, mask=c < C, other=0.0)
        return mean, scale * gate, shift * gate, gate
    return gate * 0.0, gate, gate * 0.0, gate


@triton.jit
def pool_places(
    z,
    norm_weight,
    means,
    squares,
    tops,
    places,
    C,
    P,
    S,
    share,
    NORM: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    """Per image, share and channel: mean, sum of squared deviations, extreme value and its first place.

    The extreme is the largest value, or the smallest where the norm's weight is negative: it is the largest after the
    norm. A weight of zero makes all places equal; the first one counts.
    """
    row = tl.program_id(0)
    n = (row // S).to(tl.int64)
    first = (row % S) * share
    last = tl.minimum(first + share, P)
    c = tl.program_id(1) * COLS + tl.arange(0, COLS)
    image = z + n * P * C
    direction = tl.full([COLS], 1.0, tl.float32)
    pivot = tl.zeros([COLS], tl.float32)
    if NORM:
        weight = tl.load(norm_weight + c, mask=c < C, other=0.0).to(tl.float32)
        direction = tl.where(weight > 0, 1.0, tl.where(weight < 0, -1.0, 0.0))
        pivot = tl.load(image + first * C + c, mask=c < C, other=0.0).to(tl.float32)  # keeps the squares small
    total = tl.zeros([ROWS, COLS], tl.float32)
    square = tl.zeros([ROWS, COLS], tl.float32)
    top = tl.full([ROWS, COLS], float("-inf"), tl.float32)
    place = tl.zeros([ROWS, COLS], tl.int32)
    for start in range(first, last, ROWS):
        p = start + tl.arange(0, ROWS)
        inside = (p < last)[:, None] & (c < C)[None, :]
        value = tl.load(image + p[:, None] * C + c[None, :], mask=inside, other=0.0).to(tl.float32)
        centred = tl.where(inside, value - pivot[None, :], 0.0)
        total += centred
        if NORM:
            square += centred * centred
        directed = tl.where(inside, value * direction[None, :], float("-inf"))
        better = directed > top
        top = tl.where(better, directed, top)
        place = tl.where(better, p[:, None], place)
    mean = tl.sum(total, 0) / (last - first)
    best = tl.max(top, 0)
    where = tl.min(tl.where(top == best[None, :], place, P - 1), 0)
    at = row.to(tl.int64) * C + c
    tl.store(means + at, mean + pivot, mask=c < C)
    tl.store(tops + at, best, mask=c < C)
    tl.store(places + at, where, mask=c < C)
    if NORM:
        tl.store(squares + at, tl.sum(square, 0) - mean * mean * (last - first), mask=c < C)


@triton.jit
def batch_statistics(
    means, squares, weight, bias, norm, eps, C, P, N, S, share, ROWS: tl.constexpr, COLS: tl.constexpr
):
    """Rows of `norm`: mean, 1/std, weight, bias, and variance of every channel over N images and P places."""
    c = tl.program_id(0) * COLS + tl.arange(0, COLS)
    total = tl.zeros([ROWS, COLS], tl.float32)
    for start in range(0, N * S, ROWS):
        row = start + tl.arange(0, ROWS)
        inside = (row < N * S)[:, None] & (c < C)[None, :]
        count = tl.minimum(share, P - (row % S) * share).to(tl.float32)
        at = row.to(tl.int64)[:, None] * C + c[None, :]
        total += tl.load(means + at, mask=inside, other=0.0) * count[:, None]
    elements = N * P * 1.0
    mean = tl.sum(total, 0) / elements
    total = tl.zeros([ROWS, COLS], tl.float32)
    for start in range(0, N * S, ROWS):
        row = start + tl.arange(0, ROWS)
        inside = (row < N * S)[:, None] & (c < C)[None, :]
        count = tl.minimum(share, P - (row % S) * share).to(tl.float32)
        at = row.to(tl.int64)[:, None] * C + c[None, :]
        away = tl.load(means + at, mask=inside, other=0.0) - mean[None, :]
        spread = tl.load(squares + at, mask=inside, other=0.0) + count[:, None] * away * away
        total += tl.where(inside, spread, 0.0)
    variance = tl.sum(total, 0) / elements
    variance = tl.where(variance < 0, 0.0, variance)
    tl.store(norm + c, mean, mask=c < C)
    tl.store(norm + C + c, 1 / tl.sqrt_rn(variance + eps), mask=c < C)
    tl.store(norm + 2 * C + c, tl.load(weight + c, mask=c < C, other=0.0).to(tl.float32), mask=c < C)
    tl.store(norm + 3 * C + c, tl.load(bias + c, mask=c < C, other=0.0).to(tl.float32), mask=c < C)
    tl.store(norm + 4 * C + c, variance, mask=c < C)


@triton.jit
def merge_pools(
    z,
    norm,
    means,
    tops,
    places,
    pooled,
    index,
    size,
    C,
    P,
    N,
    S,
    share,
    NORM: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    """Average and maximum of every channel of every image: normalised (pooled 0, 1) and as the gate sees them (2, 3).

    `index` is the place of the maximum, N C.
    """
    n = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    c = tl.program_id(1) * COLS + tl.arange(0, COLS)
    inside = (n < N)[:, None] & (c < C)[None, :]
    average = tl.zeros([ROWS, COLS], tl.float32)
    top = tl.full([ROWS, COLS], float("-inf"), tl.float32)
    place = tl.zeros([ROWS, COLS], tl.int32)
    for s in range(S):
        at = (n * S + s)[:, None] * C + c[None, :]
        count = tl.minimum(share, P - s * share)
        average += tl.load(means + at, mask=inside, other=0.0) * count
        best = tl.load(tops + at, mask=inside, other=float("-inf"))
        better = best > top
        place = tl.where(better, tl.load(places + at, mask=inside, other=0), place)
        top = tl.where(better, best, top)
    average /= P
    maximum = tl.load(z + (n[:, None] * P + place) * C + c[None, :], mask=inside, other=0.0).to(tl.float32)
    at = n[:, None] * C + c[None, :]
    tl.store(index + at, place, mask=inside)
    if NORM:
        mean = tl.load(norm + c, mask=c < C, other=0.0)[None, :]
        inverse_std = tl.load(norm + C + c, mask=c < C, other=0.0)[None, :]
        weight = tl.load(norm + 2 * C + c, mask=c < C, other=0.0)[None, :]
        bias = tl.load(norm + 3 * C + c, mask=c < C, other=0.0)[None, :]
        average = (average - mean) * inverse_std
        maximum = (maximum - mean) * inverse_std
        tl.store(pooled + 2 * size + at, average * weight + bias, mask=inside)
        tl.store(pooled + 3 * size + at, maximum * weight + bias, mask=inside)
    else:
        tl.store(pooled + 2 * size + at, average, mask=inside)
        tl.store(pooled + 3 * size + at, maximum, mask=inside)
    tl.store(pooled + at, average, mask=inside)
    tl.store(pooled + size + at, maximum, mask=inside)


@triton.jit
def pool_channels(
    z, norm, logits, maps, channel, C, P, S, share, NORM: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr
):
    """Maximum and average over the channels of Mc(x) * x, `maps` N 2 P, and which channel the maximum is, N P."""
    row = tl.program_id(0)
    n = (row // S).to(tl.int64)
    first = (row % S) * share
    last = tl.minimum(first + share, P)
    c = tl.arange(0, COLS)
    mean, scale, shift, _ = channel_affine(norm, logits, n, c, C, NORM)
    for start in range(first, last, ROWS):
        p = start + tl.arange(0, ROWS)
        inside = (p < last)[:, None] & (c < C)[None, :]
        value = tl.load(z + n * P * C + p[:, None] * C + c[None, :], mask=inside, other=0.0).to(tl.float32)
        x = (value - mean[None, :]) * scale[None, :] + shift[None, :]
        average = tl.sum(tl.where(inside, x, 0.0), 1) / C
        x = tl.where(inside, x, float("-inf"))
        maximum = tl.max(x, 1)
        which = tl.min(tl.where(x == maximum[:, None], c[None, :], C - 1), 1)
        tl.store(maps + n * 2 * P + p, maximum, mask=p < last)
        tl.store(maps + n * 2 * P + P + p, average, mask=p < last)
        tl.store(channel + n * P + p, which, mask=p < last)


@triton.jit
def convolve_maps(maps, weight, convolved, moments, H, W, KERNEL: tl.constexpr, ROWS: tl.constexpr):
    """The spatial gate's convolution, `convolved` N P; per program its mean and sum of squared deviations."""
    n = tl.program_id(0).to(tl.int64)
    P = H * W
    p = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    y, x = p // W, p % W
    value = tl.zeros([ROWS], tl.float32)
    for tap in range(KERNEL * KERNEL):
        row, column = y + tap // KERNEL - KERNEL // 2, x + tap % KERNEL - KERNEL // 2
        inside = (p < P) & (row >= 0) & (row < H) & (column >= 0) & (column < W)
        at = maps + n * 2 * P + row * W + column
        value += tl.load(at, mask=inside, other=0.0) * tl.load(weight + tap).to(tl.float32)
        value += tl.load(at + P, mask=inside, other=0.0) * tl.load(weight + KERNEL * KERNEL + tap).to(tl.float32)
    tl.store(convolved + n * P + p, value, mask=p < P)
    count = tl.minimum(ROWS, P - tl.program_id(1) * ROWS)
    mean = tl.sum(value, 0) / count
    away = tl.where(p < P, value - mean, 0.0)
    at = n * tl.num_programs(1) + tl.program_id(1)
    tl.store(moments + 2 * at, mean)
    tl.store(moments + 2 * at + 1, tl.sum(away * away, 0))


@triton.jit
def map_statistics(moments, weight, bias, spatial, eps, P, N, S, share, ROWS: tl.constexpr):
    """`spatial`: mean, 1/std, scale, shift and variance of the convolved map over the batch; gate = scale·v + shift."""
    total = tl.zeros([ROWS], tl.float32)
    for start in range(0, N * S, ROWS):
        row = start + tl.arange(0, ROWS)
        count = tl.minimum(share, P - (row % S) * share).to(tl.float32)
        total += tl.load(moments + 2 * row, mask=row < N * S, other=0.0) * count
    elements = N * P * 1.0
    mean = tl.sum(total, 0) / elements
    total = tl.zeros([ROWS], tl.float32)
    for start in range(0, N * S, ROWS):
        row = start + tl.arange(0, ROWS)
        count = tl.minimum(share, P - (row % S) * share).to(tl.float32)
        away = tl.load(moments + 2 * row, mask=row < N * S, other=0.0) - mean
        spread = tl.load(moments + 2 * row + 1, mask=row < N * S, other=0.0) + count * away * away
        total += tl.where(row < N * S, spread, 0.0)
    variance = tl.sum(total, 0) / elements
    inverse_std = 1 / tl.sqrt_rn(variance + eps)
    scale = tl.load(weight).to(tl.float32) * inverse_std
    tl.store(spatial, mean)
    tl.store(spatial + 1, inverse_std)
    tl.store(spatial + 2, scale)
    tl.store(spatial + 3, tl.load(bias).to(tl.float32) - mean * scale)
    tl.store(spatial + 4, variance)


@triton.jit
def refine(
    z,
    shortcut,
    norm,
    logits,
    convolved,
    spatial,
    out,
    C,
    P,
    S,
    share,
    NORM: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    """out = relu(Ms * Mc(x) * x + shortcut)."""
    row = tl.program_id(0)
    n = (row // S).to(tl.int64)
    first = (row % S) * share
    last = tl.minimum(first + share, P)
    c = tl.arange(0, COLS)
    mean, scale, shift, _ = channel_affine(norm, logits, n, c, C, NORM)
    spatial_scale, spatial_shift = tl.load(spatial + 2), tl.load(spatial + 3)
    for start in range(first, last, ROWS):
        p = start + tl.arange(0, ROWS)
        inside = (p < last)[:, None] & (c < C)[None, :]
        at = n * P * C + p[:, None] * C + c[None, :]
        value = tl.load(z + at, mask=inside, other=0.0).to(tl.float32)
        residual = tl.load(shortcut + at, mask=inside, other=0.0).to(tl.float32)
        v = tl.load(convolved + n * P + p, mask=p < last, other=0.0)
        gate = tl.sigmoid(v * spatial_scale + spatial_shift)
        x = ((value - mean[None, :]) * scale[None, :] + shift[None, :]) * gate[:, None] + residual
        tl.store(out + at, tl.where(x < 0, 0.0, x).to(out.dtype.element_ty), mask=inside)  # keeps NaN
